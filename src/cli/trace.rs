//! The words of `trace`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How `trace` shows a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// A picture for a browser
    Svg,
    /// A line a step
    Text,
}

/// `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What `tare --trace FILE COMMAND` has written, or any trace in that format
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to this file, not to stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to show it [default: text on a terminal, else svg]
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<TraceFormat>,
}
