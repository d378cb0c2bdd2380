//! cgroup.events: waiting for a cgroup to be empty or frozen.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

use super::{Cgroup, tree};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::SysResult;

/// The figures of cgroup.events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Events {
    /// There are processes in it or below.
    pub(super) populated: bool,
    /// Everything in it is frozen.
    pub(super) frozen: bool,
}

impl Events {
    fn parse(text: &str) -> Self {
        let is_set = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .any(|(name, value)| name == key && value != "0")
        };
        Events { populated: is_set("populated"), frozen: is_set("frozen") }
    }
}

impl Cgroup {
    pub(super) fn events(&self) -> Result<Events> {
        match tree::read(self.dir(), "cgroup.events") {
            Ok(text) => Ok(Events::parse(&text)),
            // removed: nobody is there
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(Events::default()),
            Err(errno) => Err(Error::errno(errno).step(self.events_step())),
        }
    }

    fn events_step(&self) -> String {
        format!("read {}/cgroup.events", self.path().display())
    }

    /// True while there are processes in it or below; a zombie counts until the
    /// kernel has taken it off.
    ///
    /// # Errors
    /// It can't be read. A cgroup that is gone is empty.
    pub fn is_populated(&self) -> Result<bool> {
        Ok(self.events()?.populated)
    }

    /// Waits until nobody is in it; false if `deadline` comes first.
    ///
    /// # Errors
    /// It can't be read. A cgroup that is gone is empty.
    pub fn wait_unpopulated(&self, deadline: Instant) -> Result<bool> {
        wait(self.dir(), deadline, |events| !events.populated).step(|| self.events_step())
    }

    /// True when everything in it is frozen.
    ///
    /// # Errors
    /// It can't be read.
    pub fn frozen(&self) -> Result<bool> {
        Ok(self.events()?.frozen)
    }

    /// Freezes or thaws everything in it, and waits until it is so. A cgroup
    /// that is not seen to be frozen before `deadline` is thawed again.
    ///
    /// # Errors
    /// No permission, the deadline, or a frozen cgroup above one to be thawed.
    pub fn freeze(&self, freeze: bool, deadline: Instant) -> Result<()> {
        let (value, verb) = if freeze { ("1", "freeze") } else { ("0", "thaw") };
        let step = || format!("{verb} the cgroup {}", self.path().display());
        if !freeze && let Some(above) = self.frozen_above() {
            return Err(frozen_with(above).step(step()));
        }
        tree::write(self.dir(), "cgroup.freeze", value).step(step)?;
        let error = match wait(self.dir(), deadline, |events| events.frozen == freeze) {
            Ok(true) => return Ok(()),
            Ok(false) => Error::errno(Errno::ETIMEDOUT).step(step()),
            Err(errno) => Error::errno(errno).step("wait for it").step(step()),
        };
        let undoing = if freeze { tree::write(self.dir(), "cgroup.freeze", "0") } else { Ok(()) };
        Err(error.undone(undoing.map_err(Error::errno)))
    }
}

impl Cgroup {
    /// Refuses one in which there are processes; else its figures.
    pub(super) fn refuse_populated(&self) -> Result<Events> {
        let events = match tree::read_figures(self.dir(), "cgroup.events") {
            Ok(text) => Events::parse(&text),
            // removed by others, who may have made another one since
            Err(errno) => return Err(Error::errno(errno).step(self.events_step())),
        };
        if events.populated {
            let error = super::make::in_use("it is there already, with processes in it");
            return Err(error.step(format!("cgroup {}", self.path().display())));
        }
        Ok(events)
    }

    /// Refuses a new cgroup in which nothing would run, whoever waits for it.
    pub(super) fn refuse_frozen(&self, events: Events) -> Result<()> {
        let step = || format!("cgroup {}", self.path().display());
        match events.frozen.then(|| self.frozen_above()).flatten() {
            Some(above) => Err(frozen_with(above).step(step())),
            None => Ok(()),
        }
    }

    /// The nearest cgroup above that somebody has frozen.
    fn frozen_above(&self) -> Option<&Path> {
        let freezes = |dir: &Path| tree::read(AT_FDCWD, &dir.join("cgroup.freeze"));
        let above = self.path().ancestors().skip(1);
        // the root has no such file
        let mut above = above.map_while(|dir| Some((dir, freezes(dir).ok()?)));
        above.find(|(_, text)| text.trim_end() == "1").map(|(dir, _)| dir)
    }
}

fn frozen_with(above: &Path) -> Error {
    Error::new(ErrorKind::State, format!("{} above it is frozen", above.display()))
        .hint("write 0 to its cgroup.freeze")
}

/// How long the kernel may keep a change of cgroup.events to itself when it has
/// told of one just before: 10 ms, and the granularity of its timers.
const HUSHED: Duration = Duration::from_millis(20);

/// Waits until the figures are as `wanted`; false if `deadline` comes first.
///
/// The kernel wakes a poll when one of them changes, but holds the news back
/// for [`HUSHED`] after the one before: a container that was killed just after
/// its start would cost that wait. So for this long, what is there is looked at
/// each millisecond as well.
pub(super) fn wait(
    dir: BorrowedFd<'_>,
    deadline: Instant,
    wanted: impl Fn(Events) -> bool,
) -> SysResult<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = match openat(dir, "cgroup.events", flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(wanted(Events::default())),
        Err(errno) => return Err(errno),
    };
    let mut buf = [0; 256];
    let started = Instant::now();
    loop {
        // a read takes note of what has been seen: it comes before the poll
        let events = match pread(&file, &mut buf, 0) {
            Ok(n) => Events::parse(&String::from_utf8_lossy(buf.get(..n).unwrap_or_default())),
            Err(Errno::ENODEV) => Events::default(),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        if wanted(events) {
            return Ok(true);
        }
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left == Duration::ZERO {
            return Ok(false);
        }
        let ms = if now.duration_since(started) < HUSHED {
            1
        } else {
            // rounded up: a wait of 0 ms would spin
            left.as_millis().saturating_add(1)
        };
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name() {
        for (text, populated, frozen) in [
            ("populated 1\nfrozen 0\n", true, false),
            ("frozen 1\npopulated 0\nnovelty 1\n", false, true),
            ("", false, false),
        ] {
            let expected = Events { populated, frozen };
            assert_eq!(Events::parse(text), expected, "{text}");
        }
    }
}
