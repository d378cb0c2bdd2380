//! The command line: raw words only. Nothing is checked or looked up here.

mod checkpoint;
mod doctor;
mod exec;
mod figures;
mod image;
mod lazy;
mod lifecycle;
mod plain;
mod quick;
mod resources;
mod trace;
mod volume;
mod words;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use checkpoint::{CheckpointArgs, CriuArgs, ManageCgroupsMode, RestoreArgs};
pub use doctor::DoctorArgs;
pub use exec::ExecArgs;
pub use figures::{EventsArgs, StatsArgs, StatsFormat};
pub use image::{
    ImageBounds, ImageCommand, ImageDfArgs, ImageExportArgs, ImageGcArgs, ImageImportArgs,
    ImageInspectArgs, ImageLsArgs, ImagePullArgs, ImageRmArgs, ImageSelector, ImageVerifyArgs,
    RootfsMode, UmountArgs, UnpackArgs,
};
pub use lazy::Lazy;
pub use lifecycle::{
    CreateArgs, DeleteArgs, ImageRunArgs, KillArgs, ListArgs, ListFormat, NetMode, RunArgs,
    SpecArgs, StartArgs, StateArgs,
};
pub use quick::parse;
pub use resources::{LimitArgs, PauseArgs, PsArgs, PsFormat, UpdateArgs};
pub use trace::{TraceArgs, TraceFormat};
pub use volume::{VolumeCommand, VolumeLsArgs, VolumeNamesArgs};
pub use words::{truth, usual};

/// An OCI container runtime whose own weight is next to nothing
#[derive(Debug, Parser)]
#[command(name = "tare", disable_version_flag = true, arg_required_else_help = true)]
#[command(max_term_width = 100, args_override_self = true)]
pub struct Cli {
    /// Options that every command takes
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options before the command.
#[derive(Debug, clap::Args)]
pub struct GlobalArgs {
    /// Directory for the state of containers [default: /run/tare, or
    /// $XDG_RUNTIME_DIR/tare for an ordinary user]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// Directory for images [default: /var/lib/tare, or $XDG_DATA_HOME/tare for
    /// an ordinary user]
    #[arg(long, value_name = "DIR", env = "TARE_STORE", global = true)]
    pub store: Option<PathBuf>,
    /// Append errors and warnings to this file as well
    #[arg(long, value_name = "FILE", global = true)]
    pub log: Option<PathBuf>,
    /// How lines in the log look
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// Log each step
    #[arg(long, global = true)]
    pub debug: bool,
    /// Write what the command spends its time on to this file, as a Chrome trace:
    /// see `tare trace`
    #[arg(long, value_name = "FILE", global = true)]
    pub trace: Option<PathBuf>,
    /// Have systemd make the cgroups of containers: linux.cgroupsPath is slice:prefix:name
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Do without a cgroup where none is delegated: true, false, or auto, which is
    /// true for everybody but the machine's root
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: String,
    /// As crun has it: systemd is --systemd-cgroup, cgroupfs is without it
    #[arg(long, value_name = "MANAGER", hide = true)]
    pub cgroup_manager: Option<CgroupManager>,
    /// As crun has it: debug is --debug
    #[arg(long, value_name = "LEVEL", hide = true)]
    pub log_level: Option<LogLevel>,
    /// Print the version and exit
    #[arg(short = 'v', long)]
    pub version: bool,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text an entry
    Text,
    /// One JSON object an entry: level, msg, time
    Json,
}

/// Who makes cgroups, in crun's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// tare itself
    Cgroupfs,
    /// systemd
    Systemd,
    /// Nobody
    Disabled,
}

/// How much is logged, in crun's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors; warnings go with them
    Error,
    /// Errors and warnings
    Warning,
    /// Each step
    Debug,
}

/// Every command.
#[allow(clippy::large_enum_variant, reason = "one value a process")]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container from a bundle; its program waits for `start`
    Create(Lazy<CreateArgs>),
    /// Let the program of a created container run
    Start(Lazy<StartArgs>),
    /// Create a container, start it and wait for it
    Run(Lazy<RunArgs>),
    /// Run one more process in a container
    Exec(Lazy<ExecArgs>),
    /// Print the state of a container as JSON
    State(Lazy<StateArgs>),
    /// Send a signal to the init process of a container
    Kill(Lazy<KillArgs>),
    /// Remove what a stopped container holds
    Delete(Lazy<DeleteArgs>),
    /// Freeze every process of a container
    Pause(Lazy<PauseArgs>),
    /// Let the processes of a paused container go on
    Resume(Lazy<PauseArgs>),
    /// List the processes of a container
    Ps(Lazy<PsArgs>),
    /// Change the limits of a container
    Update(Lazy<UpdateArgs>),
    /// Save the processes of a container in files, by CRIU
    Checkpoint(Lazy<CheckpointArgs>),
    /// Let a container go on that `checkpoint` has saved
    Restore(Lazy<RestoreArgs>),
    /// List the containers under the state directory
    List(Lazy<ListArgs>),
    /// Print the figures of a container again and again, and when it is out of memory
    Events(Lazy<EventsArgs>),
    /// Show the figures of all containers
    Stats(Lazy<StatsArgs>),
    /// Print what this build can do as JSON (runtime-spec, features.md)
    Features,
    /// Write a config.json to start from
    Spec(Lazy<SpecArgs>),
    /// Import, pull, export, list, inspect and remove images
    #[command(subcommand)]
    Image(Lazy<ImageCommand>),
    /// Make, list, inspect and remove volumes
    #[command(subcommand)]
    Volume(Lazy<VolumeCommand>),
    /// Turn an image into a bundle that any OCI runtime can run
    Unpack(Lazy<UnpackArgs>),
    /// Undo `unpack`: unmount the root file system of a bundle
    Umount(Lazy<UmountArgs>),
    /// Draw what `--trace` has written
    Trace(Lazy<TraceArgs>),
    /// Say what this host can and can't do for containers
    Doctor(Lazy<DoctorArgs>),
}
