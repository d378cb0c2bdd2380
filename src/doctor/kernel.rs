//! System calls: each is made, and its answer told apart from "no such call".

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::getpid;

use super::Host;
use super::report::Finding;
use super::trial::{self, COVERED};
use crate::error::{Error, Result, Step};
use crate::sys::fs::{faccessat2 as access, open_dir, open_in_root};
use crate::sys::mount::{
    FsContext, MountAttr, attr, clone_tree_at, mount_setattr as set_attr, move_mount,
};
use crate::sys::process::{close_range_on_exec, pidfd_open, pidfd_send_signal};

/// The oldest kernel that has everything.
const OLDEST: (u32, u32) = (5, 14);

pub(super) fn release(_: &Host) -> Finding {
    let text = match nix::sys::utsname::uname() {
        Ok(uname) => uname.release().to_string_lossy().into_owned(),
        Err(e) => return Finding::missing(format!("uname: {}", Error::from(e))),
    };
    let (major, minor) = OLDEST;
    match version(&text) {
        Some(found) if found < OLDEST => Finding::missing(format!("Linux {text}"))
            .hint(format!("boot Linux {major}.{minor} or later")),
        _ => Finding::ok(format!("Linux {text} ({major}.{minor} or later is needed)")),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A call that is there, or what does not work without it and why.
pub(super) fn call(result: Result<()>, since: &str, used_for: &str) -> Finding {
    match result {
        Ok(()) => Finding::ok(""),
        Err(e) => explained(Finding::because(&format!("for {used_for}"), &e), &e, since),
    }
}

/// The finding with a hint that fits the errno.
pub(super) fn explained(finding: Finding, e: &Error, since: &str) -> Finding {
    match e.raw_errno() {
        Some(Errno::ENOSYS) => finding.hint(format!(
            "boot Linux {since} or later; inside a container, let its seccomp profile allow the call"
        )),
        Some(Errno::EINVAL) => finding.hint(format!("boot Linux {since} or later")),
        Some(Errno::EPERM | Errno::EACCES) => {
            finding.hint("needs CAP_SYS_ADMIN; inside a container, start that one privileged")
        }
        Some(Errno::ENOSPC) => finding.hint("raise the limits in /proc/sys/user"),
        _ => finding,
    }
}

pub(super) fn clone3(host: &Host) -> Finding {
    call(trial::birth(host, CloneFlags::empty(), || Ok(())), "5.3", "every process of a container")
}

pub(super) fn pidfd(_: &Host) -> Finding {
    let attempt = || -> Result<()> {
        let own = pidfd_open(getpid()).step(|| "pidfd_open")?;
        pidfd_send_signal(own.as_fd(), 0).step(|| "pidfd_send_signal")?;
        match waitid(Id::PIDFd(own.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            // nobody is their own child: the kernel has understood the question
            Ok(_) | Err(Errno::ECHILD) => Ok(()),
            Err(e) => Err(Error::from(e).step("waitid(P_PIDFD)")),
        }
    };
    call(attempt(), "5.4", "waiting and signals")
}

pub(super) fn mount_descriptors(host: &Host) -> Finding {
    let attempt = trial::within(host, CloneFlags::CLONE_NEWNS, || {
        trial::cut_off()?;
        let mount = FsContext::open("tmpfs")?.mount(attr::NODEV)?;
        let place = open_dir(Path::new(COVERED))?;
        move_mount(mount.as_fd(), place.as_fd()).step(|| "move_mount")?;
        clone_tree_at(mount.as_fd(), false).step(|| "open_tree").map(drop)
    });
    call(attempt, "5.2", "every mount")
}

pub(super) fn mount_setattr(host: &Host) -> Finding {
    let attempt = trial::within(host, CloneFlags::CLONE_NEWNS, || {
        let mount = FsContext::open("tmpfs")?.mount(0)?;
        let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        set_attr(mount.as_fd(), true, &read_only).map_err(Error::from)
    });
    call(attempt, "5.12", "read-only and other flags of bind mounts")
}

pub(super) fn openat2(_: &Host) -> Finding {
    let attempt = || -> Result<()> {
        let root = open_dir(Path::new("/"))?;
        open_in_root(root.as_fd(), Path::new("."), OFlag::O_PATH, Mode::empty())?;
        Ok(())
    };
    call(attempt(), "5.6", "every path inside a container or a layer")
}

pub(super) fn close_range(_: &Host) -> Finding {
    // from a number on that no process reaches
    let marked = close_range_on_exec(i32::MAX.cast_unsigned()).map_err(Error::from);
    call(marked, "5.11", "descriptors of the caller")
}

pub(super) fn faccessat2(_: &Host) -> Finding {
    match access(Path::new("/"), libc::X_OK, libc::AT_EACCESS) {
        Ok(()) => Finding::ok(""),
        Err(e) => Finding::fallback(format!(
            "{}: the C library compares the program's mode with its user instead",
            Error::from(e)
        )),
    }
}

/// The only one by number: to see the name, a copy of tare would have to run.
pub(super) fn process_name(_: &Host) -> Finding {
    let release = nix::sys::utsname::uname().ok();
    let release = release.and_then(|uname| version(&uname.release().to_string_lossy()));
    match release {
        Some(release) if release < (6, 14) => {
            Finding::fallback("before Linux 6.14: the name that ps shows is set by prctl")
        }
        _ => Finding::ok(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions() {
        for (text, expected) in [
            ("6.18.44-fc-v657", Some((6, 18))),
            ("5.14.0-427.13.1.el9_4.x86_64", Some((5, 14))),
            ("5.4.0-150-generic", Some((5, 4))),
            ("6.6-rc1", Some((6, 6))),
            ("unknown", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
        assert!(version("5.4.0-150-generic") < Some(OLDEST));
    }

    #[test]
    fn a_missing_call_is_told_from_a_refused_one() {
        let hint = |errno: Errno| call(Err(Error::from(errno)), "5.6", "paths").hint.unwrap();
        assert!(hint(Errno::ENOSYS).starts_with("boot Linux 5.6 or later; "));
        assert!(hint(Errno::EPERM).starts_with("needs CAP_SYS_ADMIN"));
    }
}
