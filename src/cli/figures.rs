//! The words of the commands that print figures.

use clap::Args;

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
