//! The end of a layer's directories: what comes when nothing more is made in them.
//!
//! It goes by the layer's listing, so that a layer of a million directories takes no
//! more memory than one of ten.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;

use super::attributes::{INHERITED_XATTR, set};
use super::entry::shown;
use super::listing::{Change, Facts, change, lines};
use super::places::as_path;
use crate::error::{Result, Step};
use crate::sys::fs::{open_plain, remove_xattr};

/// Gives the directories that a listing names their times, and what their files would
/// have inherited.
pub(crate) fn complete(root: BorrowedFd<'_>, listing: &File) -> Result<()> {
    lines(listing, |line| {
        // all others are files
        if ![&b"{\"dir\""[..], b"{\"implied\"", b"{\"fresh\""].iter().any(|k| line.starts_with(k)) {
            return Ok(());
        }
        match change(line)? {
            Change::Dir { path, facts } => {
                listed(root, &path.0, &facts).step(|| format!("directory {}", shown(&path.0)))
            }
            Change::Implied { path } | Change::Fresh { path } => {
                anew(root, &path.0).step(|| format!("directory {}", shown(&path.0)))
            }
            _ => Ok(()),
        }
    })
}

fn listed(root: BorrowedFd<'_>, path: &[u8], facts: &Facts<'_>) -> Result<()> {
    let Some(fd) = open(root, path)? else { return Ok(()) };
    // always: it may have been listed more than once
    fchmod(&fd, Mode::from_bits_truncate(facts.mode))?;
    for (key, value) in &facts.xattrs {
        if key.0.as_ref() == INHERITED_XATTR {
            set(fd.as_fd(), &key.0, &value.0)?;
        }
    }
    let time = TimeSpec::new(facts.mtime.0, facts.mtime.1);
    Ok(futimens(&fd, &time, &time)?)
}

/// An earlier directory of that name may have been listed: its lines have been read.
fn anew(root: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let Some(fd) = open(root, path)? else { return Ok(()) };
    fchmod(&fd, Mode::from_bits_truncate(0o755))?;
    match remove_xattr(fd.as_fd(), c"system.posix_acl_default") {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(futimens(&fd, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?)
}

/// The directory, unless a later entry has put something else there.
fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    match open_plain(root, as_path(path), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        other => Ok(Some(other?)),
    }
}
