//! Namespaces: one child each, born in it.

use nix::errno::Errno;
use nix::sched::CloneFlags;

use super::Host;
use super::report::Finding;
use super::trial;
use crate::error::{Error, Result, Step};

pub(super) fn mount(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWNS, "mnt", "CONFIG_NAMESPACES")
}

pub(super) fn pid(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWPID, "pid", "CONFIG_PID_NS")
}

pub(super) fn network(host: &Host) -> Finding {
    // a fresh network namespace is of no use without its loopback interface
    let attempt = trial::birth(host, CloneFlags::CLONE_NEWNET, || {
        crate::sys::net::bring_loopback_up().step(|| "bring the loopback interface up")
    });
    found(attempt, "net", "CONFIG_NET_NS")
}

pub(super) fn ipc(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWIPC, "ipc", "CONFIG_IPC_NS")
}

pub(super) fn uts(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWUTS, "uts", "CONFIG_UTS_NS")
}

pub(super) fn cgroup(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWCGROUP, "cgroup", "CONFIG_CGROUPS")
}

pub(super) fn user(host: &Host) -> Finding {
    kind(host, CloneFlags::CLONE_NEWUSER, "user", "CONFIG_USER_NS")
}

fn kind(host: &Host, kind: CloneFlags, name: &str, config: &str) -> Finding {
    found(trial::birth(host, kind, || Ok(())), name, config)
}

fn found(attempt: Result<()>, name: &str, config: &str) -> Finding {
    let Err(e) = attempt else { return Finding::ok("") };
    let finding = Finding::because("can't be made", &e);
    match hint(&e, name, config) {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// What to do about a namespace that can't be made.
pub(super) fn hint(e: &Error, name: &str, config: &str) -> Option<String> {
    Some(match e.raw_errno()? {
        Errno::EINVAL => format!("boot a kernel with {config}"),
        Errno::ENOSPC => format!("raise /proc/sys/user/max_{name}_namespaces"),
        Errno::EUSERS => "user namespaces are nested too deep".to_owned(),
        Errno::EPERM | Errno::EACCES => {
            "run as root with CAP_SYS_ADMIN; inside a container, start that one privileged"
                .to_owned()
        }
        Errno::ENOSYS => {
            "inside a container, let its seccomp profile allow clone3, or start it privileged"
                .to_owned()
        }
        _ => return None,
    })
}
