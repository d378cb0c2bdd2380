//! Signals to all that is in a cgroup.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};

use super::{Cgroup, identity, tree};
use crate::error::{Error, Result, Step};
use crate::sys::{SysResult, process};

/// How long the processes may take to stand still for a signal. Those that hang
/// in the kernel get it all the same.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How often those are killed whom a fork has saved from the time before.
const ROUNDS: u32 = 64;

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
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => self.kill_each().map_err(|e| e.step(step())),
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

    /// Kills one after the other, until nobody is there.
    pub(super) fn kill_each(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            self.signal(libc::SIGKILL)?;
            if self.processes()?.is_empty() {
                return Ok(());
            }
        }
        Err(Error::errno(Errno::EBUSY).hint("there are always new ones"))
    }

    /// Sends a signal to every process in it and below. They stand still
    /// meanwhile: no fork is missed, and none of those who come after it is hit.
    ///
    /// # Errors
    /// No permission for one of them. Who has ended meanwhile is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let held = self.hold()?;
        let sent = self.processes().and_then(|pids| {
            pids.into_iter().try_for_each(|pid| match process::kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(e) => {
                    Err(Error::from(e).step(format!("send signal {signal} to process {pid}")))
                }
            })
        });
        if held {
            let thawed = tree::write(self.dir(), "cgroup.freeze", "0");
            return sent.and(thawed.step(|| format!("thaw the cgroup {}", self.path().display())));
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
