//! What this process may do, and may give to containers.

use std::collections::BTreeSet;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::Host;
use super::report::Finding;
use super::trial;
use super::users;
use crate::error::{Error, Result, Step};
use crate::sys::process::join_session_keyring;

/// What a create with the default config makes use of.
const NEEDED: [Capability; 6] = [
    // the root of cgroup2 is closed for writing
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_ADMIN,
];

pub(super) fn user(host: &Host) -> Finding {
    if host.is_root() {
        return Finding::ok("");
    }
    match users::try_user_namespace(host) {
        Ok(()) => Finding::ok("an ordinary one: in user namespaces (tare spec --rootless)"),
        Err(e) => users::allowed(Finding::because("an ordinary one, without user namespaces", &e)),
    }
}

pub(super) fn own_capabilities(host: &Host) -> Finding {
    if !host.is_root() {
        return Finding::info("an ordinary user has those of a user namespace");
    }
    let effective = match caps::read(None, CapSet::Effective) {
        Ok(set) => set,
        Err(e) => return Finding::missing(format!("can't be read: {e}")),
    };
    let lacking: Vec<_> = NEEDED.into_iter().filter(|cap| !effective.contains(cap)).collect();
    if lacking.is_empty() {
        return Finding::ok("");
    }
    Finding::missing(format!("to make a container tare lacks {}", names(lacking))).hint(
        "inside a container, start that one privileged; in a service, see CapabilityBoundingSet=",
    )
}

pub(super) fn capabilities_to_give(host: &Host) -> Finding {
    if !host.is_root() {
        return Finding::info("an ordinary user has those of a user namespace");
    }
    let bounding = match caps::read(None, CapSet::Bounding) {
        Ok(set) => set,
        Err(e) => return Finding::missing(format!("can't be read: {e}")),
    };
    let lacking: Vec<_> =
        caps::runtime::thread_all_supported().difference(&bounding).copied().collect();
    if lacking.is_empty() {
        return Finding::ok("");
    }
    let most = lacking.len() > bounding.len();
    Finding::missing(match most {
        true if bounding.is_empty() => {
            "a container runs without any, and with a warning".to_owned()
        }
        true => format!(
            "a container that asks for others than {} runs without them, and with a warning",
            names(bounding)
        ),
        false => {
            format!("a container that asks for {} runs without, and with a warning", names(lacking))
        }
    })
    .hint("start tare from where they are in the bounding set (capsh --print)")
}

/// Names in their order.
fn names(capabilities: impl IntoIterator<Item = Capability>) -> String {
    let names: BTreeSet<String> = capabilities.into_iter().map(|cap| cap.to_string()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Limits that configs set most.
const SHOWN: [(Resource, &str); 3] = [
    (Resource::RLIMIT_NOFILE, "nofile"),
    (Resource::RLIMIT_NPROC, "nproc"),
    (Resource::RLIMIT_MEMLOCK, "memlock"),
];

pub(super) fn rlimits(_: &Host) -> Finding {
    let attempt = trial::apart(|| {
        // any limit will do that has an end; that on files has a second bound
        for resource in
            [Resource::RLIMIT_MSGQUEUE, Resource::RLIMIT_NPROC, Resource::RLIMIT_MEMLOCK]
        {
            let (soft, hard) = getrlimit(resource)?;
            if hard < RLIM_INFINITY {
                return setrlimit(resource, soft, hard + 1).map_err(Error::from);
            }
        }
        Ok(())
    });
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) => Finding::missing(format!(
            "process.rlimits with a hard limit above this process' own is refused ({}): {e}",
            present_limits()
        ))
        .hint("needs CAP_SYS_RESOURCE, or higher limits where tare is started"),
    }
}

fn present_limits() -> String {
    let shown = SHOWN.iter().filter_map(|(resource, name)| {
        let (_, hard) = getrlimit(*resource).ok()?;
        (hard < RLIM_INFINITY).then(|| format!("{name} {hard}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

pub(super) fn oom_score(_: &Host) -> Finding {
    const FILE: &str = "/proc/self/oom_score_adj";
    let attempt = trial::apart(|| -> Result<i32> {
        let text = std::fs::read_to_string(FILE).step(|| FILE)?;
        let own: i32 = text.trim().parse().unwrap_or_default();
        match trial::write(FILE, &(own - 1).max(-1000).to_string()) {
            Err(e) if e.is_errno(Errno::EACCES) => Ok(own),
            other => other.map(|()| -1000),
        }
    });
    match attempt {
        Ok(-1000) => Finding::ok(""),
        Ok(own) => Finding::missing(format!("process.oomScoreAdj below {own} is refused"))
            .hint("needs CAP_SYS_RESOURCE"),
        Err(e) => Finding::missing(format!("process.oomScoreAdj is refused: {e}")),
    }
}

pub(super) fn keyring(_: &Host) -> Finding {
    let attempt = trial::apart(|| join_session_keyring("_ses.tare-doctor").map_err(Error::from));
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) if e.is_errno(Errno::ENOSYS) => {
            Finding::fallback("this kernel has no keyrings: containers get none of their own")
        }
        Err(e) => Finding::because("a container gets one of its own", &e)
            .hint("give create and run --no-new-keyring"),
    }
}
