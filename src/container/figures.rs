//! The figures of a container, and the news of it while it runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::pause::not_running;
use super::store::Entry;
use crate::cgroup::stats::{Detail, MemoryEvents, MemoryWatch, Stats};
use crate::cgroup::{Cgroup, CgroupRecord};
use crate::error::{Error, ErrorKind, Result, Step, phrase};

/// News of a container.
#[derive(Debug)]
pub enum Event {
    /// Its figures: the interval is over.
    Stats(Box<Stats>),
    /// It is out of memory: how often since the last such news. `oom` and
    /// `oom_kill` come one after the other, so perhaps in two of them.
    OutOfMemory(MemoryEvents),
}

/// A container that runs: what its figures come from.
#[derive(Debug)]
pub struct Live {
    init: OwnedFd,
    cgroup: Cgroup,
}

impl Live {
    /// A container that was created and has not ended.
    ///
    /// # Errors
    /// [`phrase::NOT_RUNNING`]; a container that was made without a cgroup.
    pub fn of(entry: &Entry) -> Result<Self> {
        let record = entry.load_settled()?.ok_or_else(not_running)?;
        let init = record.init.ok_or_else(not_running)?.open()?.ok_or_else(not_running)?;
        if !has_cgroup(&record.cgroup) {
            return Err(Error::new(
                ErrorKind::State,
                "the container has no cgroup, and without one the kernel counts nothing",
            )
            .hint("it was made by an ordinary user to whom none is delegated"));
        }
        let cgroup = match Cgroup::open(record.cgroup) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(e.hint(phrase::NOT_RUNNING)),
            other => other?,
        };
        Ok(Live { init, cgroup })
    }

    /// Its figures now.
    ///
    /// # Errors
    /// As for [`Cgroup::stats`].
    pub fn stats(&self, detail: Detail) -> Result<Stats> {
        self.cgroup.stats(detail)
    }

    /// Tells its news until it ends: its figures after each `interval`, and each
    /// time that it is out of memory. Ends as well when `reader`, a pipe or socket
    /// that the news goes to, is closed at its other end.
    ///
    /// # Errors
    /// Its figures can't be read; what `tell` has failed with.
    pub fn watch(
        &self,
        interval: Duration,
        reader: BorrowedFd<'_>,
        mut tell: impl FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let mut memory = Memory::of(&self.cgroup)?;
        let mut next = Instant::now().checked_add(interval);
        loop {
            let woken = self.wait(memory.as_ref(), next, reader)?;
            // also at the end: what it has ended of may be this
            if let Some(watched) = &mut memory {
                match watched.news()? {
                    News::Of(events) => tell(Event::OutOfMemory(events))?,
                    News::None => {}
                    News::Gone => memory = None,
                }
            }
            if woken != Woken::GoOn {
                return Ok(());
            }
            if next.is_some_and(|next| next <= Instant::now()) {
                tell(Event::Stats(Box::new(self.stats(Detail::Full)?)))?;
                next = following(next, interval);
            }
        }
    }

    fn wait(
        &self,
        memory: Option<&Memory>,
        next: Option<Instant>,
        reader: BorrowedFd<'_>,
    ) -> Result<Woken> {
        let mut fds = vec![
            PollFd::new(self.init.as_fd(), PollFlags::POLLIN),
            // nothing to wait for: an error is told in any case
            PollFd::new(reader, PollFlags::empty()),
        ];
        fds.extend(memory.map(|m| PollFd::new(m.watch.as_fd(), PollFlags::POLLPRI)));
        match poll(&mut fds, until(next)) {
            Err(Errno::EINTR) => return Ok(Woken::GoOn),
            other => other.step(|| "poll")?,
        };
        let ended = |at: usize, flags| {
            fds.get(at).and_then(PollFd::revents).is_some_and(|seen| seen.intersects(flags))
        };
        Ok(match () {
            () if ended(0, PollFlags::POLLIN) => Woken::Ended,
            () if ended(1, PollFlags::POLLERR | PollFlags::POLLHUP) => Woken::Unread,
            () => Woken::GoOn,
        })
    }
}

/// False for a container that was made without a cgroup.
pub(super) fn has_cgroup(record: &CgroupRecord) -> bool {
    !record.path.as_os_str().is_empty()
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    GoOn,
    /// Init has ended.
    Ended,
    /// Nobody reads the news any more.
    Unread,
}

/// The moment after `last`, which has passed; none is made up for.
fn following(last: Option<Instant>, interval: Duration) -> Option<Instant> {
    let next = last?.checked_add(interval)?;
    let now = Instant::now();
    if next > now { Some(next) } else { now.checked_add(interval) }
}

/// Rounded up: a wait of 0 ms would spin. A moment that can't be told is never.
fn until(next: Option<Instant>) -> PollTimeout {
    let Some(next) = next else { return PollTimeout::NONE };
    let left = next.saturating_duration_since(Instant::now());
    let ms = left.as_millis().saturating_add(u128::from(!left.is_zero()));
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}

/// memory.events, and what has been told of it.
struct Memory {
    watch: MemoryWatch,
    told: MemoryEvents,
}

enum News {
    None,
    Of(MemoryEvents),
    /// The cgroup is no more.
    Gone,
}

impl Memory {
    fn of(cgroup: &Cgroup) -> Result<Option<Self>> {
        let Some(watch) = cgroup.watch_memory()? else { return Ok(None) };
        // a poll tells of what comes after a read
        Ok(watch.read()?.map(|told| Memory { watch, told }))
    }

    fn news(&mut self) -> Result<News> {
        let Some(now) = self.watch.read()? else { return Ok(News::Gone) };
        let since = now.since(self.told);
        if (since.oom, since.oom_kill) == (0, 0) {
            return Ok(News::None);
        }
        self.told = now;
        Ok(News::Of(since))
    }
}
