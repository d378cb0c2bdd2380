//! The table on a terminal, drawn again and again.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Source, table};
use crate::container::Sample;
use crate::error::{Result, Step};
use crate::sys::signals;
use crate::sys::{process, uninterrupted};

/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// The rest of the line, of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Draws until a signal ends it, or the containers that were named have.
pub(super) fn run(source: &Source, first: Vec<Sample>, interval: Duration) -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH] {
        set.add(signal);
    }
    signals::block_signals(&set).step(|| "block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&set, flags).step(|| "signalfd")?;
    let mut before = Vec::new();
    let mut now = first;
    loop {
        let lines = table::lines(&now, &before);
        let next = Instant::now().checked_add(interval);
        draw(&lines)?;
        while let Some(woken) = wait(&signals, next)? {
            match woken {
                // the same figures in another place
                Woken::Resized => draw(&lines)?,
                // below the table, and below the terminal's ^C
                Woken::Ended => return write("\n"),
            }
        }
        before = now;
        now = source.again()?;
        if now.is_empty() && !source.ids.is_empty() {
            return Ok(());
        }
    }
}

enum Woken {
    Resized,
    Ended,
}

/// `None` when it is time for the next figures.
fn wait(signals: &SignalFd, next: Option<Instant>) -> Result<Option<Woken>> {
    let out = std::io::stdout();
    loop {
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        // rounded up: a wait of 0 ms would spin
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(out.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            other => other.step(|| "poll")?,
        };
        let [_, terminal] = fds;
        if terminal.revents().is_some_and(|seen| !seen.is_empty()) {
            return Ok(Some(Woken::Ended));
        }
        if let Some(signal) = uninterrupted(|| signals.read_signal()).step(|| "read a signal")? {
            let resized = i32::try_from(signal.ssi_signo).is_ok_and(|n| n == SIGWINCH as i32);
            return Ok(Some(if resized { Woken::Resized } else { Woken::Ended }));
        }
    }
}

/// Over what is there, in one write: nothing flickers.
fn draw(lines: &[String]) -> Result<()> {
    let size = process::window_size(std::io::stdout().as_fd()).unwrap_or_default();
    let or_all = |n: u16| if n == 0 { usize::MAX } else { usize::from(n) };
    let (rows, columns) = (or_all(size.0), or_all(size.1));
    let mut text = String::from(HOME);
    // the last row is the cursor's
    for line in lines.iter().take(rows.saturating_sub(1).max(1)) {
        text.extend(line.chars().take(columns));
        text.push_str(CLEAR_LINE);
        text.push('\n');
    }
    write(&(text + CLEAR_BELOW))
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).step(|| crate::commands::PRINTING)
}
