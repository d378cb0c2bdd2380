//! tare's binary: parse, dispatch, and the one place that prints an error.

use std::process::ExitCode;

use clap::Parser;
use tare::{cli, commands};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(e) => {
            #[allow(clippy::print_stderr, reason = "the one place that prints an error")]
            {
                eprintln!("tare: {e:#}");
            }
            ExitCode::from(1)
        }
    }
}
