//! Who is in a container.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::pause::not_running;
use super::record::Record;
use super::store::Entry;
use crate::error::{ErrorKind, Result, Step};
use crate::sys::process;

/// The processes of a container by their pids here, in their order; those in
/// cgroups that it has made itself among them. One that has stopped has none.
///
/// # Errors
/// It is not created yet.
pub fn processes(entry: &Entry) -> Result<Vec<i32>> {
    let record = entry.load_settled()?.ok_or_else(not_running)?;
    if record.has_ended()? {
        return Ok(Vec::new());
    }
    let mut pids: Vec<i32> = match record.cgroup.path.as_os_str().is_empty() {
        true => match of_namespace(&record) {
            // it has ended meanwhile
            Err(_) if record.has_ended()? => Vec::new(),
            other => other?.iter().map(|(pid, _)| pid.as_raw()).collect(),
        },
        false => match record.own_cgroup().and_then(|cgroup| cgroup.procs(true)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?.into_iter().map(Pid::as_raw).collect(),
        },
    };
    // of another pid namespace than ours
    pids.retain(|pid| *pid > 0);
    pids.sort_unstable();
    Ok(pids)
}

/// Without a cgroup of its own, the container has a pid namespace of its own:
/// its processes are those in the same one as init.
pub(super) fn of_namespace(record: &Record) -> Result<Vec<(Pid, OwnedFd)>> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let init = record.init.ok_or_else(not_running)?;
    let _held = init.open()?.ok_or_else(not_running)?;
    let own = namespace(&init.pid.to_string()).ok_or_else(not_running)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").step(|| "read /proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let pid = Pid::from_raw(pid);
        let Ok(pidfd) = process::pidfd_open(pid) else { continue };
        // looked at once more behind its pidfd: the number can't change hands now
        if namespace(&pid.to_string()).is_some_and(|found| found == own) {
            found.push((pid, pidfd));
        }
    }
    Ok(found)
}
