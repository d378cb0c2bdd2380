//! `run` in the foreground: waits for init, forwards signals, and has a pty relayed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::notify::Listener;
use super::relay::Relay;
use crate::error::{Error, Result, Step};
use crate::sys::process::pidfd_send_signal;
use crate::sys::{signals, uninterrupted};

/// Signals of this process, kept for later from the moment that it is made:
/// one that arrives during the create reaches the container's program.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals and opens the descriptor that tells of them.
    pub fn block() -> Result<Self> {
        let mut set = signals::all_signals();
        // what a bug of our own raises must still end us
        for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP] {
            set.remove(signal);
        }
        signals::block_signals(&set).step(|| "block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags).step(|| "signalfd")?))
    }

    /// The next signal by number, if one has arrived.
    pub(super) fn next(&self) -> Result<Option<i32>> {
        let signal = uninterrupted(|| self.0.read_signal()).step(|| "read a signal")?;
        Ok(signal.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What ends a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The program's end.
    Init,
    /// A signal for this process.
    Signals,
    /// A word for the service manager.
    Service,
    /// The runtime's end of the container's pty.
    Pty,
    /// The caller's input.
    Stdin,
    /// Room for output.
    Stdout,
}

/// A source, where it shows, and what of it counts (poll(2)).
pub(super) type Watch<'a> = (Source, BorrowedFd<'a>, PollFlags);

/// Sleeps until one of these is ready, but no longer than this: those that are.
pub(super) fn sleep_until(watches: &[Watch<'_>], longest: PollTimeout) -> Result<Vec<Source>> {
    let mut fds: Vec<PollFd<'_>> =
        watches.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
    uninterrupted(|| poll(&mut fds, longest)).step(|| "poll")?;
    let is_ready = |fd: &PollFd<'_>| fd.revents().is_none_or(|flags| !flags.is_empty());
    let ready = watches.iter().zip(&fds).filter(|(_, fd)| is_ready(fd));
    Ok(ready.map(|((source, ..), _)| *source).collect())
}

/// Waits for a container's init, a child of this process by its pidfd, and is its
/// stand-in meanwhile: signals sent to this process go to it, and with a pty, the
/// caller's terminal is its terminal. The answer is its exit code, or 128 + the signal
/// that ended it.
///
/// What the program says to `listener` goes to the caller's service manager.
pub fn wait(
    init: BorrowedFd<'_>,
    signals: &Signals,
    console: Option<OwnedFd>,
    listener: Option<&Listener>,
) -> Result<i32> {
    let mut relay = console.map(Relay::new).transpose()?;
    let mut is_asked_to_end = false;
    loop {
        let mut watches = vec![
            (Source::Init, init, PollFlags::POLLIN),
            (Source::Signals, signals.as_fd(), PollFlags::POLLIN),
        ];
        watches.extend(listener.map(|l| (Source::Service, l.as_fd(), PollFlags::POLLIN)));
        watches.extend(relay.iter().flat_map(Relay::watches));
        let ready = sleep_until(&watches, PollTimeout::NONE)?;
        drop(watches);
        if relay.is_none() && listener.is_none() && ready.contains(&Source::Init) {
            // there is nobody left for the signals, nor for anything else
            return exit_code(init);
        }
        if ready.contains(&Source::Signals) {
            is_asked_to_end |= hand_on(init, signals, relay.as_ref())?;
        }
        if let Some(relay) = &mut relay {
            relay.step(&ready)?;
        }
        if let Some(listener) = listener.filter(|_| ready.contains(&Source::Service)) {
            // the manager's process is this one: it stays the main one
            listener.relay(None)?;
        }
        if ready.contains(&Source::Init) {
            if let Some(relay) = &mut relay {
                relay.finish(signals, is_asked_to_end)?;
            }
            return exit_code(init);
        }
    }
}

/// Hands the signals that have arrived on to the program. True when one that comes after
/// its end asks this process to end.
fn hand_on(init: BorrowedFd<'_>, signals: &Signals, relay: Option<&Relay>) -> Result<bool> {
    let mut is_asked_to_end = false;
    while let Some(signal) = signals.next()? {
        match (signal, relay) {
            (libc::SIGCHLD, _) => {}
            (libc::SIGWINCH, Some(relay)) => relay.resize(),
            // what is sent to a zombie is no error
            _ if has_ended(init)? => is_asked_to_end |= asks_to_end(signal),
            // it may have ended by now: its pidfd tells
            _ => pidfd_send_signal(init, signal).unwrap_or_default(),
        }
    }
    Ok(is_asked_to_end)
}

/// A signal by which a process without a program to care for ends.
pub(super) fn asks_to_end(signal: i32) -> bool {
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&signal)
}

fn has_ended(init: BorrowedFd<'_>) -> Result<bool> {
    let watch = (Source::Init, init, PollFlags::POLLIN);
    sleep_until(&[watch], PollTimeout::ZERO).map(|ready| !ready.is_empty())
}

fn exit_code(pidfd: BorrowedFd<'_>) -> Result<i32> {
    loop {
        match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::from(e).step("wait for the container")),
        }
    }
}
