//! The words of the lifecycle commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::image::ImageSelector;

/// What `create` and `run` share.
#[derive(Debug, Default, Args)]
pub struct CreateArgs {
    /// Directory with config.json [default: the current directory]
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Write the process id of the container's init to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that receives the terminal's file descriptor
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the container's init
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Pass this many file descriptors, from 3 on, to the container's program
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=65536))]
    pub preserve_fds: u32,
    /// Move the root file system with MS_MOVE and chroot, where pivot_root can't
    /// work (on the initial ramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Accepted for runc's and crun's sake: tare never makes itself a subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Name of the container: letters, digits and . _ + -
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// What `create` takes as well
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return once the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the state after the container has ended
    #[arg(long)]
    pub keep: bool,
    /// Run a tiny init as the container's pid 1: it forwards signals, reaps
    /// orphans and keeps the program's exit code
    #[arg(long)]
    pub init: bool,
    /// Options of a container from an image
    #[command(flatten)]
    pub image: ImageRunArgs,
    /// With --image: arguments instead of the image's Cmd
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// The network of a container from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetMode {
    /// A network namespace of its own with loopback only
    None,
    /// The host's network
    Host,
}

/// Options of `run --image`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "With --image")]
pub struct ImageRunArgs {
    /// Run this image: a name in the store, or a path to import on the way
    #[arg(long, value_name = "IMAGE", conflicts_with = "bundle")]
    pub image: Option<String>,
    /// Which image of several
    #[command(flatten)]
    pub select: ImageSelector,
    /// Mount SRC, a path of the host or a volume's name, at DST; DST alone for a volume
    /// that goes with the container; options as in config.json, comma separated
    #[arg(short, long = "volume", value_name = "SRC:DST[:OPTS]")]
    pub volumes: Vec<String>,
    /// Set an environment variable; NAME alone takes the value from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User: name or uid, and group: name or gid
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name [default: the container's id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Network [default: none]
    #[arg(long, value_name = "MODE")]
    pub net: Option<NetMode>,
    /// Memory limit: bytes, or with a suffix k, m, g
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Processors' worth of time, as a decimal (1.5)
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Most processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Accepted for the fingers' sake: stdin is connected in any case
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// Accepted for the fingers' sake: only --keep keeps a container
    #[arg(long, hide = true, conflicts_with = "keep")]
    pub rm: bool,
}

/// `start`.
#[derive(Debug, Default, Args)]
pub struct StartArgs {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `state`.
#[derive(Debug, Default, Args)]
pub struct StateArgs {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `kill`.
#[derive(Debug, Default, Args)]
pub struct KillArgs {
    /// Send the signal to every process of the container
    #[arg(short, long)]
    pub all: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name or number of the signal
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`.
#[derive(Debug, Default, Args)]
pub struct DeleteArgs {
    /// Kill what still runs, and accept that the container is not there
    #[arg(short, long)]
    pub force: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Format of `list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns
    Table,
    /// An array of state objects
    Json,
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Directory to write config.json into [default: the current directory]
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// For an ordinary user: in a user namespace whose root is the caller, with
    /// the host's network, without limits
    #[arg(long = "rootless", id = "for_rootless")]
    pub rootless: bool,
    /// File to write, in the bundle's directory [default: config.json]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
