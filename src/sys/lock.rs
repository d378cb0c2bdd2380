//! Locks on open files.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

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
