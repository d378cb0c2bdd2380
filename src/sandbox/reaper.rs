//! `--init`: a tiny init as the container's pid 1.
//!
//! It forwards every signal to the program, reaps orphans, and ends with the
//! program's exit code, or 128 + the signal that ended it.

use std::convert::Infallible;
use std::os::fd::AsFd;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};

use super::protocol::{Channel, Message};
use crate::error::{Error, Result, Step};
use crate::sys::process::{self, fork_child};
use crate::sys::signals;

/// Runs `execute` (which returns only on failure) in a child, and stays as
/// its init.
pub(super) fn supervise(
    channel: &Channel,
    terminal: bool,
    execute: impl FnOnce() -> Error,
) -> Result<Infallible> {
    // from here on no signal is lost: they wait until init asks for them
    signals::block_signals(&signals::all_signals()).step(|| "init: block signals")?;
    let program = fork_child(|| {
        let error = match detach(terminal) {
            Ok(()) => execute(),
            Err(e) => e,
        };
        channel.send(&Message::Failed(error)).unwrap_or_default();
        process::exit_now(1)
    })
    .step(|| "init: fork the program")?;
    // the end of the conversation tells that execve succeeded: init must not
    // keep its own end open, nor anything that was passed to the program
    process::close_all_but(3, &[]).step(|| "init: close descriptors")?;
    process::exit_now(serve(program))
}

/// In the child: a process group of its own in the foreground, so that ^C
/// reaches the program and not init.
fn detach(terminal: bool) -> Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).step(|| "make a process group")?;
    if terminal {
        // SIGTTOU is blocked, so this does not stop us
        tcsetpgrp(std::io::stdin().as_fd(), getpid()).step(|| "take the terminal")?;
    }
    signals::unblock_signals().step(|| "unblock signals")
}

fn serve(program: Pid) -> i32 {
    loop {
        let signal = signals::wait_signal();
        if signal == libc::SIGCHLD {
            if let Some(code) = reap(program) {
                return code;
            }
        } else if signal > 0 {
            // ESRCH: it has just ended, and SIGCHLD is on its way
            process::kill(program, signal).unwrap_or_default();
        }
    }
}

/// Reaps whoever has ended; the exit code once that is the program.
fn reap(program: Pid) -> Option<i32> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
