//! Becoming the user: ids, capabilities, no_new_privs.

use std::fmt::Display;
use std::os::fd::AsFd;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown};

use super::task::Task;
use crate::error::{Error, Result, Step};
use crate::spec::{Capabilities, Plan, ProcessPlan, RlimitPlan};
use crate::sys::caller::caller;
use crate::sys::{SysResult, process};

/// Gives stdin, stdout and stderr, if they are pipes, to the container's user, so that it may open
/// /dev/stdout again. Best effort by nature: the other end may not allow it.
pub(super) fn own_stdio(plan: &ProcessPlan) {
    if plan.uid == 0 {
        return;
    }
    for stream in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let Ok(found) = fstat(stream) else { continue };
        // a file or a device of the host stays its owner's: the descriptor alone
        // was given to the container
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        let is_pipe = kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK;
        if is_pipe && found.st_uid != plan.uid {
            // EINVAL (the owner has no id here), EPERM and EROFS are all fine
            fchown(stream, Some(Uid::from_raw(plan.uid)), None::<Gid>).unwrap_or_default();
        }
    }
}

/// Sets the resource limits, as late as possible: they hold for the rest of the
/// set-up as well. False: a hard limit has to be raised by somebody who may.
pub(super) fn set_limits(plan: &ProcessPlan) -> Result<bool> {
    for limit in &plan.rlimits {
        let RlimitPlan { resource, soft, hard } = *limit;
        match nix::sys::resource::setrlimit(resource, soft, hard) {
            Ok(()) => {}
            Err(Errno::EPERM) => return Ok(false),
            Err(e) => {
                return Err(Error::from(e)
                    .step(format!("process.rlimits: {resource:?} soft {soft} hard {hard}")));
            }
        }
    }
    Ok(true)
}

/// Whether the supplementary groups of a process can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    Free,
    /// Those of the caller stay: an annotation asks for it, or /proc/PID/setgroups
    /// says deny. In a user namespace nobody has a name for them.
    Kept,
}

impl Groups {
    /// Asks the kernel about the user namespace that this process is in.
    ///
    /// # Errors
    /// The plan has groups that can't be given.
    pub(super) fn find(plan: &Plan) -> Result<Self> {
        if plan.asked.keep_groups {
            return Ok(Groups::Kept);
        }
        if caller().is_host_root() && !plan.namespaces.separates(CloneFlags::CLONE_NEWUSER) {
            return Ok(Groups::Free);
        }
        Groups::in_namespace_of("self", &plan.process)
    }

    /// Asks about the user namespace of a process: its pid, or `self`.
    ///
    /// # Errors
    /// The plan has groups that can't be given.
    pub(super) fn in_namespace_of(process: impl Display, plan: &ProcessPlan) -> Result<Self> {
        let path = format!("/proc/{process}/setgroups");
        if std::fs::read_to_string(path).unwrap_or_default().trim() != "deny" {
            return Ok(Groups::Free);
        }
        if plan.groups.is_empty() {
            return Ok(Groups::Kept);
        }
        Err(Error::invalid(
            "process.user.additionalGids: setgroups is denied in this user namespace",
        )
        .hint("linux.gidMappings that newgidmap writes allow it"))
    }

    fn of(self, plan: &ProcessPlan) -> Option<&[u32]> {
        (self == Groups::Free).then_some(plan.groups.as_slice())
    }
}

/// Takes away every privilege that the plan does not give, in the only order
/// that works: the bounding set while CAP_SETPCAP is there, the ids while
/// CAP_SETUID is, and the other sets at last. With `keep`, that capability stays
/// up to [`give_up`].
pub(super) fn drop_to(plan: &ProcessPlan, groups: Groups, keep: Option<Capability>) -> Result<()> {
    if plan.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().step(|| "process.noNewPrivileges")?;
    }
    drop_bounding(&plan.capabilities)?;
    // who becomes root, or stays it, keeps them anyway (capabilities(7))
    let keeps = plan.uid != 0;
    if keeps {
        nix::sys::prctl::set_keepcaps(true).step(|| "keep capabilities over setuid")?;
    }
    process::set_identity(plan.uid, plan.gid, groups.of(plan)).map_err(|e| {
        Error::from(e).step(format!("become user {} and group {}", plan.uid, plan.gid))
    })?;
    if keeps {
        nix::sys::prctl::set_keepcaps(false).step(|| "stop keeping capabilities")?;
    }
    let mut sets = plan.capabilities.clone();
    sets.effective.extend(keep);
    sets.permitted.extend(keep);
    set_capabilities(&sets)
}

/// CAP_SYS_ADMIN, if the process needs it to load a filter and is not to have it.
pub(super) fn kept_for_filter(task: Task<'_>) -> Option<Capability> {
    let process = task.process;
    let needs = task.seccomp.is_some() && !process.no_new_privileges;
    let has = process.capabilities.effective.contains(&Capability::CAP_SYS_ADMIN);
    (needs && !has).then_some(Capability::CAP_SYS_ADMIN)
}

/// Takes away what [`drop_to`] has kept: one capset.
pub(super) fn give_up(plan: &ProcessPlan) -> Result<()> {
    give(&plan.capabilities).step(|| "process.capabilities: capset")
}

fn give(sets: &Capabilities) -> SysResult<()> {
    let [effective, permitted, inheritable] =
        [&sets.effective, &sets.permitted, &sets.inheritable].map(bits);
    process::set_capabilities(effective, permitted, inheritable)
}

fn bits(set: &caps::CapsHashSet) -> u64 {
    set.iter().fold(0, |bits, cap| bits | 1 << cap.index())
}

fn drop_bounding(sets: &Capabilities) -> Result<()> {
    for cap in caps::all() {
        if sets.bounding.contains(&cap) {
            continue;
        }
        match process::drop_bounding_capability(cap.index()) {
            // a capability that this kernel does not know
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(Error::from(e).step(format!("drop {cap} from the bounding set"))),
        }
    }
    Ok(())
}

fn set_capabilities(sets: &Capabilities) -> Result<()> {
    let set = |which, name, value| caps::set(None, which, value).map_err(|e| cause(name, &e));
    // all at once; one by one only tells which of them is at fault
    if give(sets).is_err() {
        set(CapSet::Inheritable, "inheritable", &sets.inheritable)?;
        // effective first: it has to be within permitted before and after
        set(CapSet::Effective, "effective", &sets.effective)?;
        set(CapSet::Permitted, "permitted", &sets.permitted)?;
    }
    // without a change of user the caller's ambient set is still there
    caps::clear(None, CapSet::Ambient).map_err(|e| cause("ambient", &e))?;
    for cap in &sets.ambient {
        caps::raise(None, CapSet::Ambient, *cap).map_err(|e| cause("ambient", &e))?;
    }
    Ok(())
}

fn cause(set: &str, e: &caps::errors::CapsError) -> Error {
    Error::new(crate::ErrorKind::System, format!("process.capabilities.{set}: {e}"))
        .hint("tare itself has to have a capability to pass it on")
}
