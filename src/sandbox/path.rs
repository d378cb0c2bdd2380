//! Paths inside the container: resolved below its root, whatever the image
//! has put in the way, and made where they are missing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

use crate::error::{Error, Result, Step};
use crate::spec::lexical;
use crate::sys::fs::{open_in_root, open_in_root_unlinked};

/// Most symbolic links on one way, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Permissions of a directory that is made.
pub(super) const MADE: Mode = Mode::from_bits_truncate(0o755);

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Directory,
    File,
}

/// Opens `path` below `root` (O_PATH, last link followed inside the root), and
/// makes what is missing of it: directories 0755, a file 0644.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd> {
    find_or_make(root, path, missing).map(|(fd, _)| fd)
}

/// The same, and whether it was there before.
pub(super) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Result<(OwnedFd, bool)> {
    match open_in_root(root, path, OFlag::O_PATH, Mode::empty()) {
        Err(Errno::ENOENT) => Ok((make(root, path, missing, MAX_LINKS)?.0, false)),
        other => Ok((other.step(|| format!("open {}", path.display()))?, true)),
    }
}

/// The same for a place to mount on. The last answer tells whether that is where its path
/// says: no symbolic link has led there.
pub(super) fn find_or_make_place(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Result<(OwnedFd, bool, bool)> {
    match open_in_root_unlinked(root, path, OFlag::O_PATH) {
        Ok(found) => Ok((found, true, true)),
        // what is made is in no file system but the one where it was missing
        Err(Errno::ENOENT) => {
            make(root, path, missing, MAX_LINKS).map(|(fd, made)| (fd, false, made))
        }
        // that one also finds the words for what is wrong
        Err(_) => find_or_make(root, path, missing).map(|(fd, was_there)| (fd, was_there, false)),
    }
}

/// As [`ensure`], but a symbolic link at the very end is opened itself.
pub(super) fn ensure_unfollowed(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
) -> Result<OwnedFd> {
    let (dir, name) = ensure_parent(root, path)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match openat(&dir, name.as_os_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT) => make_one(dir.as_fd(), &name, missing),
        other => other,
    };
    opened.step(|| format!("open {}", path.display()))
}

/// Opens the directory that holds `path`, made where missing, and its last name.
pub(super) fn ensure_parent(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, OsString)> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("{} has no last name", path.display())));
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((ensure(root, parent, Missing::Directory)?, name.to_owned()))
}

/// Walks down and makes each missing part. A symbolic link that leads nowhere
/// is followed inside the root, and what it names is made. False if it was all there by now.
fn make(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
    links: u32,
) -> Result<(OwnedFd, bool)> {
    let mut made = false;
    let mut here = open_in_root(root, Path::new("/"), OFlag::O_PATH, Mode::empty())
        .step(|| format!("make {}", path.display()))?;
    let mut done = PathBuf::from("/");
    let mut rest = path.components().filter(|part| matches!(part, Component::Normal(_))).peekable();
    while let Some(part) = rest.next() {
        let is_last = rest.peek().is_none();
        let name = part.as_os_str();
        done.push(name);
        match open_in_root(root, &done, OFlag::O_PATH, Mode::empty()) {
            Ok(next) => {
                (here, made) = (next, false);
                continue;
            }
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(Error::from(e).step(format!("open {}", done.display()))),
        }
        let kind = if is_last { missing } else { Missing::Directory };
        match make_one(here.as_fd(), name, kind) {
            Ok(next) => (here, made) = (next, true),
            Err(Errno::EEXIST) if links > 0 => {
                let target = readlinkat(&here, name).step(|| format!("make {}", done.display()))?;
                done.pop();
                // an absolute target replaces what was walked so far
                let mut target = done.join(target);
                target.extend(rest);
                return make(root, &lexical(&target), missing, links - 1);
            }
            Err(Errno::EEXIST) => {
                return Err(Error::from(Errno::ELOOP).step(format!("make {}", done.display())));
            }
            Err(e) => return Err(Error::from(e).step(format!("make {}", done.display()))),
        }
    }
    Ok((here, made))
}

fn make_one(dir: BorrowedFd<'_>, name: &OsStr, kind: Missing) -> nix::Result<OwnedFd> {
    let flags = match kind {
        Missing::Directory => {
            mkdirat(dir, name, MADE)?;
            OFlag::O_PATH | OFlag::O_DIRECTORY
        }
        Missing::File => OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NONBLOCK,
    };
    let mode = Mode::from_bits_truncate(0o644);
    openat(dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_inside_and_follows_dangling_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink("/run", dir.path().join("varrun")).unwrap();
        symlink(outside.path().join("x"), dir.path().join("out")).unwrap();
        symlink("../../../a", dir.path().join("up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root = crate::sys::fs::open_dir(dir.path()).unwrap();
        ensure(root.as_fd(), Path::new("/varrun/lock/f"), Missing::File).unwrap();
        assert!(dir.path().join("run/lock/f").is_file());
        ensure(root.as_fd(), Path::new("/up"), Missing::Directory).unwrap();
        assert!(dir.path().join("a").is_dir());
        ensure(root.as_fd(), Path::new("/out"), Missing::File).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(ensure(root.as_fd(), Path::new("/loop/x"), Missing::File).is_err());
        // a file in the way of a directory
        assert!(ensure(root.as_fd(), Path::new("/run/lock/f/g"), Missing::File).is_err());
    }
}
