//! What has a name in a layer's directory.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstatat};

use super::entry::shown;
use super::form;
use crate::error::{Error, Result};
use crate::sys::SysResult;
use crate::sys::fs::{open_plain, set_xattr};

/// What came of the opening of an entry's parent; the inner error is that it is no directory.
pub(super) fn as_parent(path: &[u8], opened: SysResult<OwnedFd>) -> Result<Result<OwnedFd>> {
    let no_dir = |what| Error::invalid(format!("its parent {} is {what}", shown(path)));
    match opened {
        Ok(fd) => Ok(Ok(fd)),
        Err(Errno::ELOOP) => Ok(Err(no_dir("a symbolic link"))),
        Err(Errno::ENOTDIR) => Ok(Err(no_dir("not a directory"))),
        Err(e) => Err(Error::from(e).step(format!("parent {}", shown(path)))),
    }
}

pub(super) fn set_opaque(fd: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("mark as opaque ({:?})", form::opaque());
    set_xattr(fd, form::opaque(), b"y").map_err(|errno| match errno {
        Errno::EOPNOTSUPP => Error::from(errno).step(step()).hint(
            "the store's file system has no such attributes: a tmpfs has those of users from \
             Linux 6.6 on",
        ),
        other => Error::from(other).step(step()),
    })
}

pub(super) fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    open_plain(dir, as_path(name), flags, Mode::empty())
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<FileStat, Errno> {
    fstatat(dir, as_path(name), AtFlags::AT_SYMLINK_NOFOLLOW)
}

pub(super) fn is_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let format = stat(dir, name)?.st_mode & libc::S_IFMT;
    Ok(format == libc::S_IFDIR)
}

pub(super) fn is_whiteout(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let stat = stat(dir, name)?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0)
}

/// Whether an entry with a whiteout's name has made it. Devices 0:0 among the entries, as
/// in images that hold overlays, are files that may have several names; their times have
/// been set.
pub(super) fn is_whiteout_entry(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    stat(dir, name).is_ok_and(|stat| {
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        stat.st_mode == libc::S_IFCHR
            && stat.st_rdev == 0
            && time == (stat.st_ctime, stat.st_ctime_nsec)
    })
}

pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    if bytes.is_empty() {
        return Path::new(".");
    }
    Path::new(OsStr::from_bytes(bytes))
}
