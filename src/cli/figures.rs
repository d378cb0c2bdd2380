//! The words of the commands that print figures.

use clap::{Args, ValueEnum};

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Print the figures once and end
    #[arg(long)]
    pub stats: bool,
    /// Time between two figures, such as 500ms, 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true)]
    pub interval: String,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Format of `stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// Columns; on a terminal drawn again and again
    Table,
    /// An array of objects, once
    Json,
    /// OpenMetrics text for collectors, once
    Openmetrics,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print the table once, on a terminal too
    #[arg(long)]
    pub no_stream: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: StatsFormat,
    /// Time between two tables, such as 500ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "1s", allow_hyphen_values = true)]
    pub interval: String,
    /// Names of containers [default: all that have not ended]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}
