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
    /// Of `oom`, those at the cgroup's own limit and not at that of one below
    /// (memory.events.local, Linux 5.2); [`MemoryWatch`] alone looks there.
    pub oom_local: Option<u64>,
}

impl MemoryEvents {
    pub(super) fn of(flat: &Flat) -> Self {
        let get = |key| flat.get(key).unwrap_or_default();
        MemoryEvents {
            max: get("max"),
            oom: get("oom"),
            oom_kill: get("oom_kill"),
            oom_local: None,
        }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        MemoryEvents {
            max: self.max.saturating_sub(before.max),
            oom: self.oom.saturating_sub(before.oom),
            oom_kill: self.oom_kill.saturating_sub(before.oom_kill),
            oom_local: self
                .oom_local
                .zip(before.oom_local)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// memory.events, held open: poll(2) on it tells of a change by POLLPRI, once it
/// has been read.
#[derive(Debug)]
pub struct MemoryWatch {
    all: OwnedFd,
    /// memory.events.local, where the kernel has it.
    own: Option<OwnedFd>,
}

impl Cgroup {
    /// Opens memory.events; `None` without the memory controller.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn watch_memory(&self) -> Result<Option<MemoryWatch>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let open = |file: &str| match openat(self.dir(), file, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => {
                Err(Error::errno(errno).step(format!("open {}/{file}", self.path().display())))
            }
        };
        let Some(all) = open("memory.events")? else { return Ok(None) };
        Ok(Some(MemoryWatch { all, own: open("memory.events.local")? }))
    }
}

impl MemoryWatch {
    /// The counts now; `None` once the cgroup is gone.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(&self) -> Result<Option<MemoryEvents>> {
        let Some(all) = flat(&self.all)? else { return Ok(None) };
        let own = match &self.own {
            Some(own) => flat(own)?,
            None => None,
        };
        let oom_local = own.and_then(|own| own.get("oom"));
        Ok(Some(MemoryEvents { oom_local, ..MemoryEvents::of(&all) }))
    }
}

fn flat(file: &OwnedFd) -> Result<Option<Flat>> {
    // a handful of lines
    let mut buf = [0; 1024];
    match uninterrupted(|| pread(file, &mut buf, 0)) {
        Ok(n) => Ok(Some(Flat::of(&String::from_utf8_lossy(buf.get(..n).unwrap_or_default())))),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(Error::errno(errno).step("read memory.events")),
    }
}

impl AsFd for MemoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.all.as_fd()
    }
}
