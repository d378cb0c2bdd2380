//! The words of `pause`, `resume`, `ps` and `update`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `pause` and `resume`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Format of `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PsFormat {
    /// What ps prints of them
    Table,
    /// An array of process ids
    Json,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: PsFormat,
    /// Name of the container, then options of ps(1), one of whose columns is PID
    /// [default: -ef]
    #[arg(value_names = ["ID", "PS OPTIONS"], required = true)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// `update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Read a linux.resources object from this file, - for stdin; limits that it
    /// leaves out stay as they are
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// One limit each
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Shares of the level 3 cache: a line for schemata of resctrl, L3:0=ff
    #[arg(long, value_name = "LINE")]
    pub l3_cache_schema: Option<String>,
    /// Memory bandwidth: a line for schemata of resctrl, MB:0=20
    #[arg(long, value_name = "LINE")]
    pub mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// One limit each.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Limits, without --resources")]
pub struct LimitArgs {
    /// Weight for disks, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Length of a period of --cpu-quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Time on processors in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// Time that may be saved up for later periods, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,
    /// Relative weight for processors, 2 to 262144
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Not to be had with cgroup2
    #[arg(long, value_name = "US", hide = true)]
    pub cpu_rt_period: Option<u64>,
    /// Not to be had with cgroup2
    #[arg(long, value_name = "US", hide = true, allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1: the least weight of all; 0: not
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// Processors, as a list: 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Ignored: --memory counts the kernel's, too
    #[arg(long, value_name = "SIZE", hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// Ignored: --memory counts the kernel's, too
    #[arg(long, value_name = "SIZE", hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Memory: bytes, or with a suffix k, m, g; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that is not taken back while there is other, as --memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together, as --memory
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
}
