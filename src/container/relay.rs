//! The caller's stdin and stdout, joined to the container's pty.
//!
//! Nothing here sleeps but [`Relay::finish`]: whoever does not read, the program or the
//! caller, holds up what it does not read and nothing else.

use std::fs::File;
use std::io::{ErrorKind as IoKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::read;

use super::foreground::{Signals, Source, Watch, asks_to_end, sleep_until};
use super::outlet::Outlet;
use crate::error::{Error, Result, Step};
use crate::sys::process::{copy_window_size, open_pty_peer, stdin_fd};

/// What a terminal sends for "no more input", at the beginning of a line. Elsewhere it
/// hands over what there is of the line (termios(3), VEOF).
const END_OF_INPUT: u8 = 4;

/// More bytes than a pty keeps: its terminal's side stops at 8 KiB (drivers/tty/pty.c), or
/// within a page above, and its master's at 4 KiB (drivers/tty/n_tty.c).
const MORE_THAN_A_PTY_KEEPS: usize = 64 << 10;

/// The caller's stdin and stdout, joined to the master of a pty.
pub(super) struct Relay {
    master: File,
    /// For nothing but that it is open. Without any, the master would read as ended, and a
    /// program may close its terminal and open it again. It ends with this process, as the
    /// master does, whose end is what hangs the terminal up.
    _peer: OwnedFd,
    stdout: Outlet,
    /// What the pty has not taken yet.
    input: Vec<u8>,
    /// What stdout has not taken yet.
    output: Vec<u8>,
    /// All input so far are whole lines.
    at_line_start: bool,
    stdin_open: bool,
    /// The caller's terminal as it was.
    saved: Option<Termios>,
}

impl Relay {
    /// Joins them; a terminal that is stdin goes to raw mode until this is dropped.
    pub(super) fn new(master: OwnedFd) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
            .step(|| "make the pty non-blocking")?;
        let peer = open_pty_peer(master.as_fd()).step(|| "open the pty's terminal")?;
        let mut relay = Relay {
            master: File::from(master),
            _peer: peer,
            stdout: Outlet::stdout(),
            input: Vec::new(),
            output: Vec::new(),
            at_line_start: true,
            stdin_open: true,
            saved: None,
        };
        relay.resize();
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let saved = tcgetattr(&stdin).step(|| "read the terminal's mode")?;
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            if !std::io::stdout().is_terminal() {
                // the pty leaves out carriage returns then, and what reads this stdout may
                // print to this terminal
                raw.output_flags.insert(saved.output_flags & OutputFlags::OPOST);
            }
            tcsetattr(&stdin, SetArg::TCSANOW, &raw).step(|| "set the terminal to raw mode")?;
            relay.saved = Some(saved);
        }
        Ok(relay)
    }

    /// Gives the pty the size of the caller's terminal, if there is one.
    pub(super) fn resize(&self) {
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let streams = [stdin_fd(), stdout.as_fd(), stderr.as_fd()];
        streams.iter().any(|stream| copy_window_size(*stream, self.master.as_fd()).is_ok());
    }

    /// What there is to wait for: for each direction, the end that holds it up.
    pub(super) fn watches(&self) -> Vec<Watch<'_>> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.output.is_empty());
        wanted.set(PollFlags::POLLOUT, !self.input.is_empty());
        let mut watches = Vec::new();
        if !wanted.is_empty() {
            watches.push((Source::Pty, self.master.as_fd(), wanted));
        }
        if self.stdin_open && self.input.is_empty() {
            watches.push((Source::Stdin, stdin_fd(), PollFlags::POLLIN));
        }
        if !self.output.is_empty() {
            watches.push((Source::Stdout, self.stdout.as_fd(), PollFlags::POLLOUT));
        }
        watches
    }

    /// Moves what can be moved.
    pub(super) fn step(&mut self, ready: &[Source]) -> Result<()> {
        if ready.contains(&Source::Stdout) {
            self.write_output()?;
        }
        if ready.contains(&Source::Stdin) {
            self.read_input()?;
        }
        if ready.contains(&Source::Pty) || ready.contains(&Source::Stdin) {
            self.write_input()?;
        }
        if ready.contains(&Source::Pty) && self.output.is_empty() {
            self.read_output()?;
        }
        Ok(())
    }

    /// By the descriptor itself: what a buffer of this process had read as well, poll
    /// would not tell of.
    fn read_input(&mut self) -> Result<()> {
        let mut buffer = [0u8; 4096];
        match read(stdin_fd(), &mut buffer) {
            Ok(n) if n > 0 => {
                self.input.extend_from_slice(buffer.get(..n).unwrap_or_default());
                self.at_line_start = self
                    .input
                    .last()
                    .is_none_or(|last| [b'\n', b'\r', END_OF_INPUT].contains(last));
            }
            Ok(_) => {
                self.stdin_open = false;
                let times = if self.at_line_start { 1 } else { 2 };
                self.input.extend(std::iter::repeat_n(END_OF_INPUT, times));
            }
            // somebody else with this stdin was faster
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_gone) => self.stdin_open = false,
        }
        Ok(())
    }

    /// Pending input into the pty, as much as it takes.
    fn write_input(&mut self) -> Result<()> {
        while !self.input.is_empty() {
            match self.master.write(&self.input) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) if e.kind() == IoKind::WouldBlock => break,
                Err(e) => return Err(Error::from(e).step("write to the pty")),
            }
        }
        Ok(())
    }

    /// What the pty has: the number of bytes, 0 for none now.
    fn read_output(&mut self) -> Result<usize> {
        let mut buffer = [0u8; 16 << 10];
        loop {
            match self.master.read(&mut buffer) {
                Ok(n) => {
                    self.output.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    return Ok(n);
                }
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) if e.kind() == IoKind::WouldBlock => return Ok(0),
                Err(e) => return Err(Error::from(e).step("read from the pty")),
            }
        }
    }

    /// Pending output to stdout, which is ready for some.
    fn write_output(&mut self) -> Result<()> {
        let taken = self.stdout.write(&self.output).step(|| "write to stdout")?;
        self.output.drain(..taken);
        Ok(())
    }

    /// After the program's end: what it has written goes to stdout, and nothing for which
    /// others in the container, who may write for ever, keep the terminal.
    ///
    /// A signal that asks this process to end, before or meanwhile, gives up what stdout
    /// does not take at once: there is no program that it could go to.
    pub(super) fn finish(&mut self, signals: &Signals, mut is_asked_to_end: bool) -> Result<()> {
        let mut left = MORE_THAN_A_PTY_KEEPS;
        loop {
            if self.output.is_empty() {
                let n = if left == 0 { 0 } else { self.read_output()? };
                if n == 0 {
                    return Ok(());
                }
                left = left.saturating_sub(n);
            }
            let watches = [
                (Source::Stdout, self.stdout.as_fd(), PollFlags::POLLOUT),
                (Source::Signals, signals.as_fd(), PollFlags::POLLIN),
            ];
            let longest = if is_asked_to_end { PollTimeout::ZERO } else { PollTimeout::NONE };
            if sleep_until(&watches, longest)?.contains(&Source::Stdout) {
                self.write_output()?;
            } else if is_asked_to_end {
                return Ok(());
            }
            while let Some(signal) = signals.next()? {
                is_asked_to_end |= asks_to_end(signal);
            }
        }
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
