//! memory.events: news of a cgroup that is out of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

use super::parse::Flat;
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::sys::uninterrupted;

/// Counts of memory.events, of the cgroup and those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEvents {
    /// `max`: the limit was about to be exceeded, and memory was reclaimed.
    pub max: u64,
    /// `oom`: nothing could be reclaimed, an allocation was about to fail.
    pub oom: u64,
    /// `oom_kill`: processes killed for want of memory.
    pub oom_kill: u64,
}

impl MemoryEvents {
    pub(super) fn of(flat: &Flat) -> Self {
        let get = |key| flat.get(key).unwrap_or_default();
        MemoryEvents { max: get("max"), oom: get("oom"), oom_kill: get("oom_kill") }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        MemoryEvents {
            max: self.max.saturating_sub(before.max),
            oom: self.oom.saturating_sub(before.oom),
            oom_kill: self.oom_kill.saturating_sub(before.oom_kill),
        }
    }
}

/// memory.events, held open: poll(2) on it tells of a change by POLLPRI, once it
/// has been read.
#[derive(Debug)]
pub struct MemoryWatch(OwnedFd);

impl Cgroup {
    /// Opens memory.events; `None` without the memory controller.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn watch_memory(&self) -> Result<Option<MemoryWatch>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        match openat(self.dir(), "memory.events", flags, Mode::empty()) {
            Ok(fd) => Ok(Some(MemoryWatch(fd))),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => {
                Err(Error::errno(errno)
                    .step(format!("open {}/memory.events", self.path().display())))
            }
        }
    }
}

impl MemoryWatch {
    /// The counts now; `None` once the cgroup is gone.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(&self) -> Result<Option<MemoryEvents>> {
        // a handful of lines
        let mut buf = [0; 1024];
        match uninterrupted(|| pread(&self.0, &mut buf, 0)) {
            Ok(n) => {
                let text = String::from_utf8_lossy(buf.get(..n).unwrap_or_default());
                Ok(Some(MemoryEvents::of(&Flat::of(&text))))
            }
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::errno(errno).step("read memory.events")),
        }
    }
}

impl AsFd for MemoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
