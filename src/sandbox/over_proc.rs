//! The container's /proc as a place to mount on: what is there is the kernel's word, for
//! the container's programs and for whoever looks after them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::path::{Missing, find_or_make_place};
use crate::error::{Error, Result, Step};
use crate::sys::fs::{mount_id, open_in_root};

/// Where the container has it.
const PROC: &str = "/proc";

/// Files of it that others are mounted over, as lxcfs does, to show a container its share
/// of the machine. The same ones as with runc.
const SHOWN_BY_OTHERS: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// True for a destination that is inside by its name.
pub(super) fn is_below(destination: &Path) -> bool {
    destination.starts_with(PROC) && destination != Path::new(PROC)
}

/// Opens a place to mount on, made if it is missing, and tells whether it was there. What a
/// symbolic link leads to, or may lead to, is looked at.
pub(super) fn place(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Result<(OwnedFd, bool)> {
    let (target, was_there, is_literal) = find_or_make_place(root, path, missing)?;
    if !is_literal || is_below(path) {
        refuse(root, target.as_fd(), path)?;
    }
    Ok((target, was_there))
}

/// Refuses to have something mounted over `target`, if that is in what is mounted at the
/// container's /proc, whatever way has led there. The root of it is refused for any other
/// `destination` than /proc.
///
/// # Errors
/// It is inside; or it can't be found out.
pub(super) fn refuse(
    root: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    destination: &Path,
) -> Result<()> {
    let step = || "where the destination is";
    if fstatfs(target).step(step)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Ok(());
    }
    let proc = match open_in_root(root, Path::new(PROC), OFlag::O_PATH, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.step(step)?,
    };
    // another proc file system may be anywhere
    if mount_id(proc.as_fd()).step(step)? != mount_id(target).step(step)? {
        return Ok(());
    }
    let (top, place) = (path_of(proc.as_fd())?, path_of(target)?);
    let inside = place.strip_prefix(&top).unwrap_or(&place);
    let is_root = inside == Path::new("");
    if is_root && destination == Path::new(PROC)
        || SHOWN_BY_OTHERS.iter().any(|name| inside == Path::new(name))
    {
        return Ok(());
    }
    let place = if is_root { PROC.to_owned() } else { format!("{PROC}/{}", inside.display()) };
    let error = if is_below(destination) {
        Error::invalid(format!("{place} is inside the container's /proc: refused"))
    } else {
        Error::invalid(format!("it leads to {place}, the container's proc file system: refused"))
    };
    Err(error.hint("docs/mounts.md has the files of it that can be mounted over"))
}

/// As the kernel names it, from the root of this process on.
fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .step(|| "where the destination is")
}
