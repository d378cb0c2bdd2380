//! Which cgroup it is: told apart from a later one at the same path, and from the
//! same one in the hands of its next user.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};

use crate::sys::SysResult;
use crate::sys::caller::caller;
use crate::sys::fs::{set_xattr_at, xattr_at};

/// A cgroup in the hands of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its inode number: the kernel gives none of them twice.
    inode: u64,
    /// What its user has left on it who has taken it over; `None` for the one who
    /// made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
}

impl Identity {
    /// Of a cgroup that was just made.
    pub(super) fn of(dir: BorrowedFd<'_>) -> SysResult<Self> {
        Ok(Identity { inode: fstat(dir)?.st_ino, claim: None })
    }

    /// Of one that is taken over: whoever had it before can see that. Without root
    /// nothing is left on it: what a user may write, his container may as well, and
    /// would seem to have gone.
    pub(super) fn claimed(dir: BorrowedFd<'_>) -> SysResult<Self> {
        if !caller().is_host_root() {
            return Identity::of(dir);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claim = format!("{}-{}", std::process::id(), now.as_nanos());
        let made = Identity::of(dir)?;
        match set_xattr_at(dir, Path::new("."), CLAIM, claim.as_bytes()) {
            Err(Errno::ENOTSUP) => Ok(made),
            other => other.map(|()| Identity { claim: Some(claim), ..made }),
        }
    }
}

/// True if the cgroup that is there now is the recorded one, in the same hands. A
/// record from before its cgroup was made knows that it is not one taken over.
pub(super) fn is_same(recorded: Option<&Identity>, dir: BorrowedFd<'_>) -> SysResult<bool> {
    if let Some(identity) = recorded
        && fstat(dir)?.st_ino != identity.inode
    {
        return Ok(false);
    }
    if !caller().is_host_root() {
        return Ok(true);
    }
    let claim = match xattr_at(dir, Path::new("."), CLAIM) {
        // removed meanwhile: whose it was makes no difference any more
        Err(Errno::ENODEV | Errno::ENOENT) => return Ok(true),
        // no attributes here, so no claims either
        Err(Errno::ENOTSUP) => None,
        other => other?,
    };
    let recorded = recorded.and_then(|identity| identity.claim.as_deref());
    Ok(recorded.map(str::as_bytes) == claim.as_deref())
}

/// Notes that everything in a cgroup is about to be killed. It must not keep
/// anybody from killing.
pub(super) fn mark_killed(dir: BorrowedFd<'_>) {
    let mark = |name| set_xattr_at(dir, Path::new("."), name, b"1");
    if let Err(errno) = killed_mark(dir).and_then(mark) {
        crate::logging::debug(|| format!("mark a cgroup as killed: {errno}"));
    }
}

/// Whether cgroup.kill was used on it. Linux counts that (6.14, and stable releases
/// of that time), and kills who is cloned into a cgroup with another count than that
/// of his maker's own.
pub(super) fn was_killed(dir: BorrowedFd<'_>) -> SysResult<bool> {
    match xattr_at(dir, Path::new("."), killed_mark(dir)?) {
        Err(Errno::ENOTSUP) => Ok(false),
        other => other.map(|mark| mark.is_some()),
    }
}

/// What a user leaves on a cgroup who takes it over; no container can write it.
const CLAIM: &CStr = c"trusted.tare.claim";

/// The mark of [`mark_killed`], by whose cgroup it is, so that root finds what a user
/// has left.
fn killed_mark(dir: BorrowedFd<'_>) -> SysResult<&'static CStr> {
    let is_roots = caller().is_host_root() && fstat(dir)?.st_uid == 0;
    Ok(if is_roots { c"trusted.tare.killed" } else { c"user.tare.killed" })
}
