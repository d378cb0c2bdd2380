//! The words of `checkpoint` and `restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What becomes of cgroups inside of the container's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManageCgroupsMode {
    /// Make those again that are missing, with their settings
    Soft,
    /// Restore the settings of all
    Full,
    /// Fail if one is there
    Strict,
    /// Save and restore nothing of them
    Ignore,
}

/// What `checkpoint` and `restore` share.
#[derive(Debug, Args)]
pub struct CriuArgs {
    /// Directory of the images [default: checkpoint]
    #[arg(long, value_name = "DIR", default_value = "checkpoint", hide_default_value = true)]
    pub image_path: PathBuf,
    /// Directory for CRIU's log and temporary files [default: --image-path]
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Keep open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Let Unix sockets be connected to a process outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Let the terminal be the caller's
    #[arg(long)]
    pub shell_job: bool,
    /// Keep file locks
    #[arg(long)]
    pub file_locks: bool,
    /// Move memory only when it is asked for
    #[arg(long)]
    pub lazy_pages: bool,
    /// Take out of the parent images what is in these
    #[arg(long)]
    pub auto_dedup: bool,
    /// Leave what is in a namespace out: network
    #[arg(long, value_name = "KIND")]
    pub empty_ns: Vec<String>,
    /// What becomes of cgroups below the container's
    #[arg(long, value_name = "MODE", default_value = "soft")]
    pub manage_cgroups_mode: ManageCgroupsMode,
    /// Give deleted files that are open another name for the time being
    #[arg(long)]
    pub link_remap: bool,
}

/// `checkpoint`.
#[derive(Debug, Args)]
#[command(after_help = "Needs the program criu. The container is deleted then, but with \
                        --leave-running and --pre-dump.")]
pub struct CheckpointArgs {
    /// What `restore` takes as well
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Directory of an earlier --pre-dump, relative to --image-path: only what has changed
    /// since is saved
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    pub leave_running: bool,
    /// Save memory only and let the container go on
    #[arg(long)]
    pub pre_dump: bool,
    /// Leave TCP connections out that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Send memory to this page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// With --lazy-pages: descriptor that gets a \0 when memory can be asked for
    #[arg(long, value_name = "FD", allow_negative_numbers = true)]
    pub status_fd: Option<i32>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `restore`.
#[derive(Debug, Args)]
#[command(after_help = "Needs the program criu. Exit code: that of the container's program, or \
                        128 + the signal that ended it; with --detach 0 once it runs.")]
pub struct RestoreArgs {
    /// What `checkpoint` takes as well
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Directory with config.json [default: the current directory]
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,
    /// Return once the container runs
    #[arg(short, long)]
    pub detach: bool,
    /// Write the process id of the container's init to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// With --detach: Unix socket that receives the terminal's file descriptor
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Restore TCP connections as closed
    #[arg(long)]
    pub tcp_close: bool,
    /// A profile or label in place of the saved ones: apparmor:NAME or selinux:LABEL
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// A label of SELinux for mounts in place of the saved ones
    #[arg(long, value_name = "LABEL")]
    pub lsm_mount_context: Option<String>,
    /// Accepted for runc's sake: tare never makes itself a subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Accepted for runc's sake: CRIU changes the root in its own way
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}
