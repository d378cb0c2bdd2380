//! `run` in the foreground: waits for init, forwards signals, relays a pty.

use std::fs::File;
use std::io::{ErrorKind as IoKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::notify::Listener;
use crate::error::{Error, Result, Step};
use crate::sys::process::{self, pidfd_send_signal, set_window_size, window_size};
use crate::sys::signals;
use crate::sys::uninterrupted;

/// What a terminal sends for "no more input".
const END_OF_INPUT: u8 = 4;

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

    fn next(&self) -> Result<Option<i32>> {
        let signal = uninterrupted(|| self.0.read_signal()).step(|| "read a signal")?;
        Ok(signal.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

/// Waits for a container's init, a child of this process by its pidfd, and is its stand-in meanwhile: signals sent
/// to this process go to it, and with a pty, the caller's terminal is its
/// terminal. The answer is its exit code, or 128 + the signal that ended it.
///
/// What the program says to `listener` goes to the caller's service manager.
pub fn wait(
    init: BorrowedFd<'_>,
    signals: &Signals,
    console: Option<OwnedFd>,
    listener: Option<&Listener>,
) -> Result<i32> {
    let mut relay = console.map(Relay::new).transpose()?;
    loop {
        let mut fds = vec![
            PollFd::new(init, PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(relay) = &relay {
            fds.extend(relay.interests());
        }
        let words_at = fds.len();
        fds.extend(listener.map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.step(|| "poll")?,
        };
        let ready: Vec<PollFlags> =
            fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        drop(fds);
        let is_ready = |at: usize| ready.get(at).is_some_and(|flags| !flags.is_empty());
        if is_ready(1) {
            while let Some(signal) = signals.next()? {
                forward(init, signal, relay.as_ref());
            }
        }
        if let Some(relay) = &mut relay {
            relay.step(words_at > 2 && is_ready(2), words_at > 3 && is_ready(3))?;
        }
        if let Some(listener) = listener.filter(|_| is_ready(words_at)) {
            // the manager's process is this one: it stays the main one
            listener.relay(None)?;
        }
        if is_ready(0) {
            if let Some(relay) = &mut relay {
                relay.drain()?;
            }
            return exit_code(init);
        }
    }
}

fn forward(init: BorrowedFd<'_>, signal: i32, relay: Option<&Relay>) {
    match (signal, relay) {
        (libc::SIGCHLD, _) => {}
        (libc::SIGWINCH, Some(relay)) => relay.resize(),
        _ => {
            // it may have ended already: its pidfd tells
            pidfd_send_signal(init, signal).unwrap_or_default();
        }
    }
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

/// The caller's stdin and stdout, joined to the master of a pty.
struct Relay {
    master: File,
    /// Input that the pty has not taken yet.
    pending: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
    /// The caller's terminal as it was.
    saved: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
            .step(|| "make the pty non-blocking")?;
        let mut relay = Relay {
            master: File::from(master),
            pending: Vec::new(),
            stdin_open: true,
            master_open: true,
            saved: None,
        };
        relay.resize();
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let saved = tcgetattr(&stdin).step(|| "read the terminal's mode")?;
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&stdin, SetArg::TCSANOW, &raw).step(|| "set the terminal to raw mode")?;
            relay.saved = Some(saved);
        }
        Ok(relay)
    }

    /// Gives the pty the size of the caller's terminal, if there is one.
    fn resize(&self) {
        if let Ok((rows, columns)) = window_size(std::io::stdin().as_fd()) {
            // a pty whose last user is gone takes no size
            set_window_size(self.master.as_fd(), rows, columns).unwrap_or_default();
        }
    }

    /// The master, and stdin, as far as there is something to do with them.
    fn interests(&self) -> Vec<PollFd<'_>> {
        if !self.master_open {
            return Vec::new();
        }
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.pending.is_empty());
        let mut fds = vec![PollFd::new(self.master.as_fd(), wanted)];
        if self.stdin_open && self.pending.is_empty() {
            fds.push(PollFd::new(process::stdin_fd(), PollFlags::POLLIN));
        }
        fds
    }

    fn step(&mut self, master: bool, stdin: bool) -> Result<()> {
        if master {
            self.output()?;
            self.input()?;
        }
        if stdin {
            let mut buffer = [0u8; 4096];
            match std::io::stdin().read(&mut buffer) {
                Ok(0) => {
                    self.stdin_open = false;
                    self.pending.push(END_OF_INPUT);
                }
                Ok(n) => self.pending.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(_gone) => self.stdin_open = false,
            }
            self.input()?;
        }
        Ok(())
    }

    /// Pending input into the pty, as much as it takes.
    fn input(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            match self.master.write(&self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) if e.kind() == IoKind::WouldBlock => break,
                // the last process with the terminal open has gone
                Err(e) if e.raw_os_error() == Some(libc::EIO) => self.pending.clear(),
                Err(e) => return Err(Error::from(e).step("write to the pty")),
            }
        }
        Ok(())
    }

    /// What the pty has, to stdout. False when there is no more now.
    fn output(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        match self.master.read(&mut buffer) {
            Ok(n) if n > 0 => {
                let mut stdout = std::io::stdout();
                let bytes = buffer.get(..n).unwrap_or_default();
                stdout.write_all(bytes).and_then(|()| stdout.flush()).step(|| "write to stdout")?;
                Ok(true)
            }
            Err(e) if e.kind() == IoKind::Interrupted => Ok(true),
            Err(e) if e.kind() == IoKind::WouldBlock => Ok(false),
            // EIO: the last process with the terminal open has gone
            Ok(_) => self.hang_up(),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => self.hang_up(),
            Err(e) => Err(Error::from(e).step("read from the pty")),
        }
    }

    fn hang_up(&mut self) -> Result<bool> {
        self.master_open = false;
        Ok(false)
    }

    fn drain(&mut self) -> Result<()> {
        while self.master_open && self.output()? {}
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // the terminal may be gone
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, saved).unwrap_or_default();
        }
    }
}
