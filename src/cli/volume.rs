//! The words of `volume`.

use clap::{Args, Subcommand};

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make an empty volume; it is no error if it is there
    Create(VolumeNamesArgs),
    /// List the volumes
    Ls(VolumeLsArgs),
    /// Print what is known of volumes as JSON
    Inspect(VolumeNamesArgs),
    /// Remove volumes with all that is in them
    Rm(VolumeNamesArgs),
}

/// Names of volumes.
#[derive(Debug, Args)]
pub struct VolumeNamesArgs {
    /// Names of volumes
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `volume ls`.
#[derive(Debug, Args)]
pub struct VolumeLsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}
