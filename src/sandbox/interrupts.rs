//! Signals that end a command: heard while it waits, and held while it can't be undone.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::signals;
use crate::sys::uninterrupted;

/// What a person or a service manager sends to end a command, or a container.
pub(super) const ENDING: [Signal; 4] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Keeps the signals that would end this process for as long as it lives: a
/// hook that hangs is killed and what was made is undone, where the process
/// would have left both behind.
#[derive(Debug)]
pub(crate) struct Interrupts {
    arrived: SignalFd,
    /// What was not blocked before, and is to be let through again.
    added: SigSet,
}

impl Interrupts {
    /// Begins to watch. What the caller ignores stays ignored.
    pub(crate) fn watch() -> Result<Self> {
        let mut watched = SigSet::empty();
        for signal in ENDING {
            if !signals::ignores(signal as i32) {
                watched.add(signal);
            }
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut before))
            .step(|| "block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let arrived = SignalFd::with_flags(&watched, flags).step(|| "signalfd")?;
        // not the mask as it was: musl leaves out signals that others use when it tells it
        let mut added = watched;
        ENDING.into_iter().filter(|signal| before.contains(*signal)).for_each(|s| added.remove(s));
        Ok(Interrupts { arrived, added })
    }

    /// Leaves the signals blocked up to the end of this process, which is near: what its
    /// caller gets to know is the exit code. A signal that comes now is too late to change
    /// what has been done, and must not have it look undone.
    pub(crate) fn keep(mut self) {
        self.added = SigSet::empty();
    }

    /// The signal that has come, as the reason why the command fails.
    pub(crate) fn taken(&self) -> Result<Option<Error>> {
        let info = uninterrupted(|| self.arrived.read_signal()).step(|| "read a signal")?;
        let number = info.and_then(|info| i32::try_from(info.ssi_signo).ok());
        Ok(number.map(|number| {
            let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
            Error::new(ErrorKind::Interrupted, format!("interrupted by {name}"))
        }))
    }

    /// Says whether the command may go on.
    ///
    /// # Errors
    /// A signal has come.
    pub(crate) fn check(&self) -> Result<()> {
        self.taken()?.map_or(Ok(()), Err)
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// A signal has come first.
    pub(crate) fn wait_for(&self, fd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(self.arrived.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.step(|| "poll")?,
            };
            let [wanted, signal] = fds.map(|fd| fd.any().unwrap_or(false));
            if signal {
                self.check()?;
            }
            if wanted {
                return Ok(());
            }
        }
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // a mask of known signals is a valid one
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&self.added), None).unwrap_or_default();
    }
}
