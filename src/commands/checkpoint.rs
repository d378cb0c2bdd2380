//! `tare checkpoint`.

use std::os::fd::OwnedFd;

use crate::cli::{CheckpointArgs, CriuArgs, GlobalArgs, ManageCgroupsMode};
use crate::container::{self, CgroupsMode, CriuWords};
use crate::error::{Error, Result};
use crate::sys::process::adopt_fd;

pub(super) fn run(global: &GlobalArgs, args: &CheckpointArgs) -> anyhow::Result<()> {
    let entry = super::find(global, &args.id)?;
    let checkpoint = container::CheckpointArgs {
        words: words(&args.criu)?,
        parent_path: args.parent_path.clone(),
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        page_server: args.page_server.clone(),
        status_fd: args.status_fd.filter(|fd| *fd != NO_FD).map(status_fd).transpose()?,
    };
    Ok(container::checkpoint(entry, &checkpoint)?)
}

/// What callers give for a descriptor that there is not.
const NO_FD: i32 = -1;

fn status_fd(number: i32) -> Result<OwnedFd> {
    // what this process has opened itself is nobody's pipe
    let given = crate::sys::process::is_inherited(number).then(|| adopt_fd(number)).flatten();
    given.ok_or_else(|| Error::invalid(format!("--status-fd {number}: it is not open")))
}

pub(super) fn words(args: &CriuArgs) -> Result<CriuWords> {
    Ok(CriuWords {
        image_path: super::absolute(&args.image_path)?,
        work_path: args.work_path.as_deref().map(super::absolute).transpose()?,
        tcp_established: args.tcp_established,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        lazy_pages: args.lazy_pages,
        auto_dedup: args.auto_dedup,
        empty_ns: args.empty_ns.clone(),
        cgroups: match args.manage_cgroups_mode {
            ManageCgroupsMode::Soft => CgroupsMode::Soft,
            ManageCgroupsMode::Full => CgroupsMode::Full,
            ManageCgroupsMode::Strict => CgroupsMode::Strict,
            ManageCgroupsMode::Ignore => CgroupsMode::Ignore,
        },
        link_remap: args.link_remap,
    })
}
