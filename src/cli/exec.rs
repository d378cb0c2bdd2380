//! The words of `exec`.

use std::path::PathBuf;

use clap::Args;

/// `exec`.
#[derive(Debug, Default, Args)]
#[command(
    override_usage = "tare exec [OPTIONS] <ID> [--] <COMMAND> [ARGS]...\n       \
                      tare exec [OPTIONS] --process <FILE> <ID>",
    after_help = "Without --process, the process is as the container's own in all that no option \
                  says: user, environment, directory, capabilities, limits.\n\
                  Exit code: that of the process, or 128 + the signal that ended it; 255 if it \
                  could not be run; with --detach 0 once it runs."
)]
pub struct ExecArgs {
    /// File with the process, an object as `process` in config.json; other options change it
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(short, long)]
    pub detach: bool,
    /// Give the process a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = super::words::boolean)]
    pub tty: Option<bool>,
    /// Accepted for the fingers' sake: stdin is connected in any case
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// Working directory, in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable; NAME alone takes the value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// User and group, as numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID", value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// Add a capability (CAP_NET_RAW)
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Keep the process from getting privileges by execve (PR_SET_NO_NEW_PRIVS)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = super::words::boolean)]
    pub no_new_privs: Option<bool>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// With --detach: Unix socket that receives the terminal's file descriptor
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Pass this many file descriptors, from 3 on, to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=65536))]
    pub preserve_fds: u32,
    /// Put the process into this cgroup below the container's; / is the container's and
    /// never that of its init
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Do not fail on a paused container: the process runs when the container is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
