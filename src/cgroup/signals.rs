//! Signals to all that is in a cgroup.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};

use super::{Cgroup, events, identity, tree};
use crate::error::{Error, Result, Step};
use crate::sys::{SysResult, process};

/// How long the processes may take to stand still for a signal. Those that hang
/// in the kernel get it all the same.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How long those who are killed one by one have for their end, before whoever a fork
/// has saved from it has his turn.
const ROUND: Duration = Duration::from_millis(10);

/// How long that may take where nobody waits for their end.
const ROUNDS: Duration = Duration::from_secs(1);

impl Cgroup {
    /// Kills everything in it and below, frozen or not, forking or not.
    ///
    /// # Errors
    /// No permission. A cgroup that is gone is no error.
    pub fn kill(&self) -> Result<()> {
        let step = || format!("kill the cgroup {}", self.path().display());
        identity::mark_killed(self.dir());
        match tree::write(self.dir(), "cgroup.kill", "1") {
            Ok(()) | Err(Errno::ENODEV) => Ok(()),
            Err(Errno::ENOENT) if self.is_gone().step(step)? => Ok(()),
            // Linux before 5.14; a cgroup below a threaded one
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => {
                self.kill_each(Instant::now() + ROUNDS).map_err(|e| e.step(step()))
            }
            Err(errno) => Err(Error::errno(errno).step(step())),
        }
    }

    /// For a file of it that is not there: either none is any more, or this
    /// kernel has no such file.
    fn is_gone(&self) -> SysResult<bool> {
        match openat(self.dir(), "cgroup.procs", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            Err(errno) => Err(errno),
            Ok(_) => Ok(false),
        }
    }

    /// Kills one after the other, and waits for their end. Who is still dying at
    /// `deadline` is no error: he makes no more processes.
    pub(super) fn kill_each(&self, deadline: Instant) -> Result<()> {
        loop {
            let hit = self.send(libc::SIGKILL)?;
            let next = deadline.min(Instant::now() + ROUND);
            let ended = events::wait(self.dir(), next, |events| !events.populated);
            if ended.step(|| "wait for the end of who was killed")? {
                return Ok(());
            }
            if next == deadline {
                return match self.processes()?.iter().all(|pid| hit.contains(pid)) {
                    true => Ok(()),
                    false => Err(Error::errno(Errno::EBUSY).hint("there are always new ones")),
                };
            }
        }
    }

    /// Sends a signal to every process in it and below. They stand still
    /// meanwhile: no fork is missed, and none of those who come after it is hit.
    ///
    /// # Errors
    /// No permission for one of them. Who has ended meanwhile is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.send(signal).map(drop)
    }

    /// The same; the answer is who was there.
    fn send(&self, signal: i32) -> Result<Vec<Pid>> {
        let held = self.hold()?;
        let sent = self.processes().and_then(|pids| {
            for pid in &pids {
                match process::kill(*pid, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => {
                        let step = format!("send signal {signal} to process {pid}");
                        return Err(Error::from(e).step(step));
                    }
                }
            }
            Ok(pids)
        });
        if held {
            let thawed = tree::write(self.dir(), "cgroup.freeze", "0")
                .step(|| format!("thaw the cgroup {}", self.path().display()));
            return sent.and_then(|pids| thawed.map(|()| pids));
        }
        sent
    }

    /// Those of its processes that have a number here: 0 would be ourselves.
    fn processes(&self) -> Result<Vec<Pid>> {
        let mut pids = self.procs(true)?;
        pids.retain(|pid| pid.as_raw() > 0);
        Ok(pids)
    }

    /// Freezes it for a moment, if somebody has to thaw it; who can't be frozen
    /// in time has to do as he is.
    fn hold(&self) -> Result<bool> {
        if self.record().is_frozen()? || self.processes()?.contains(&getpid()) {
            return Ok(false);
        }
        Ok(self.freeze(true, Instant::now() + STANDSTILL).is_ok())
    }
}
