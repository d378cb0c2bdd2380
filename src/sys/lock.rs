//! Locks on open files.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{fstat, lstat};

use super::{SysResult, check, uninterrupted};

/// A lock on an open file (flock(2)), given back with this value.
///
/// Not nix's `Flock`: that one panics where it can't be given back, which the
/// end of the descriptor does anyway.
#[derive(Debug)]
pub struct FileLock(OwnedFd);

/// Who else may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Other shared ones.
    Shared,
    /// Nobody.
    Exclusive,
}

impl FileLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// ENOLCK, or a file system without locks.
    pub fn wait(file: impl Into<OwnedFd>, sharing: Sharing) -> SysResult<FileLock> {
        let file = file.into();
        uninterrupted(|| flock(&file, operation(sharing)))?;
        Ok(FileLock(file))
    }

    /// The lock, unless somebody else has it.
    ///
    /// # Errors
    /// As [`FileLock::wait`].
    pub fn try_now(file: impl Into<OwnedFd>, sharing: Sharing) -> SysResult<Option<FileLock>> {
        let file = file.into();
        match flock(&file, operation(sharing) | libc::LOCK_NB) {
            // it may not wait: an interruption is as good as an answer
            Err(Errno::EWOULDBLOCK | Errno::EINTR) => Ok(None),
            other => other.map(|()| Some(FileLock(file))),
        }
    }
}

impl FileLock {
    /// True while `path` is what the lock is on: who had it before may have removed
    /// that, and another one be there.
    ///
    /// # Errors
    /// What fstat(2) and lstat(2) say, but for a path that leads to nothing.
    pub fn is_of(&self, path: &Path) -> SysResult<bool> {
        let own = fstat(&self.0)?;
        match lstat(path) {
            Err(Errno::ENOENT) => Ok(false),
            other => other.map(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)),
        }
    }
}

impl FileLock {
    /// Gives it back by the end of its descriptor alone, of which no child has a copy:
    /// one call less.
    pub fn close(self) {
        let lock = std::mem::ManuallyDrop::new(self);
        // SAFETY: the descriptor is the lock's own, and nobody uses that after this.
        drop(unsafe { OwnedFd::from_raw_fd(lock.0.as_raw_fd()) });
    }
}

/// Takes an exclusive lock that lives and ends with the descriptor, not with a value of
/// its own; false if somebody else has it.
///
/// # Errors
/// As [`FileLock::wait`].
pub fn hold(file: &OwnedFd) -> SysResult<bool> {
    match uninterrupted(|| flock(file, libc::LOCK_EX | libc::LOCK_NB)) {
        Err(Errno::EWOULDBLOCK) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Gives back what [`hold`] has taken, before the descriptor's end.
///
/// # Errors
/// As [`FileLock::wait`].
pub fn let_go(file: &OwnedFd) -> SysResult<()> {
    flock(file, libc::LOCK_UN)
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // for copies of the descriptor that a child may still have: the end of
        // the last one gives it back, too
        flock(&self.0, libc::LOCK_UN).unwrap_or_default();
    }
}

fn operation(sharing: Sharing) -> libc::c_int {
    match sharing {
        Sharing::Shared => libc::LOCK_SH,
        Sharing::Exclusive => libc::LOCK_EX,
    }
}

fn flock(file: &OwnedFd, operation: libc::c_int) -> SysResult<()> {
    // SAFETY: integers only; the descriptor is open.
    check(libc::c_long::from(unsafe { libc::flock(file.as_raw_fd(), operation) })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_of_what_was_opened() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("x");
        std::fs::create_dir(&dir).unwrap();
        let lock = FileLock::wait(std::fs::File::open(&dir).unwrap(), Sharing::Exclusive).unwrap();
        assert!(lock.is_of(&dir).unwrap());
        std::fs::remove_dir(&dir).unwrap();
        assert!(!lock.is_of(&dir).unwrap());
        std::fs::create_dir(&dir).unwrap();
        assert!(!lock.is_of(&dir).unwrap());
    }

    #[test]
    fn a_lock_is_given_back_by_its_end_and_by_that_of_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        FileLock::wait(open(), Sharing::Exclusive).unwrap().close();
        let (first, second) = (open(), open());
        assert!(hold(&first).unwrap());
        assert!(!hold(&second).unwrap());
        let_go(&first).unwrap();
        assert!(hold(&second).unwrap());
        drop(second);
        assert!(hold(&first).unwrap());
    }

    #[test]
    fn an_exclusive_lock_is_had_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap();
        let first = FileLock::wait(open(), Sharing::Exclusive).unwrap();
        assert!(FileLock::try_now(open(), Sharing::Shared).unwrap().is_none());
        drop(first);
        let shared = FileLock::wait(open(), Sharing::Shared).unwrap();
        assert!(FileLock::try_now(open(), Sharing::Shared).unwrap().is_some());
        assert!(FileLock::try_now(open(), Sharing::Exclusive).unwrap().is_none());
        drop(shared);
    }
}
