//! A container that `create` has made, and what its maker does with it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::agent::Agent;
use super::create::remove_pid_file;
use super::notify::Listener;
use super::record::Record;
use super::start;
use super::store::{Entry, Lock};
use crate::cgroup::OutOfMemory;
use crate::error::{ErrorKind, Result};
use crate::sandbox::{Interrupts, Spawned};

/// A container that is created; its lock is held.
#[derive(Debug)]
pub struct Created {
    pub(super) spawned: Spawned,
    pub(super) entry: Entry,
    pub(super) lock: Lock,
    pub(super) record: Record,
    pub(super) listener: Option<Listener>,
    /// Who answers system calls, if init is not to wait for `start`.
    pub(super) agent: Option<Agent>,
    /// It goes with a container that comes to nothing.
    pub(super) pid_file: Option<PathBuf>,
    /// Of a caller that does not stay: what would end it.
    pub(super) interrupts: Option<Interrupts>,
}

impl Created {
    /// Lets init go on, and gives the lock back: it waits for `start`.
    ///
    /// # Errors
    /// Init has died. The container is removed then.
    pub fn release(mut self) -> Result<()> {
        let Err(e) = self.spawned.release() else {
            self.interrupts.take().into_iter().for_each(Interrupts::keep);
            return Ok(());
        };
        let e = e.step("the container's init has died");
        Err(match self.destroy() {
            Ok(()) => e,
            Err(left) => e.hint(format!("and its undoing failed: {left}")),
        })
    }

    /// Lets the program run, and runs the poststart hooks.
    ///
    /// # Errors
    /// The program could not be executed, or a hook failed. The container is
    /// dead then, and its state still there: see [`Created::destroy`].
    pub fn start(&self) -> Result<()> {
        let pid = self.spawned.pid().as_raw();
        let pass_on =
            self.agent.as_ref().map(|a| move |fd| a.pass_on(&self.record, "created", pid, &fd));
        let hooks_alone = self.interrupts.is_none() && self.record.has_start_hooks;
        let own = hooks_alone.then(Interrupts::watch).transpose()?;
        let interrupts = self.interrupts.as_ref().or(own.as_ref());
        self.spawned.start(pass_on, interrupts).map_err(|e| self.record.explain(e))?;
        drop(own);
        start::run_poststart(&self.record, self.spawned.pid().as_raw())
    }

    /// The master of the container's pty, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.spawned.take_console()
    }

    /// Kills what is left of the container and removes every trace of it.
    pub fn destroy(self) -> Result<()> {
        self.spawned.kill();
        let destroyed = super::delete::destroy(&self.entry, self.lock, Some(self.record));
        let pid_file = self.pid_file.as_deref();
        let destroyed = destroyed.and(pid_file.map_or(Ok(()), remove_pid_file));
        self.interrupts.into_iter().for_each(Interrupts::keep);
        destroyed
    }

    /// Gives the lock back, so that other commands can have the container. A signal ends
    /// this process from here on only if it has something to wait for.
    pub fn unlock(self) -> Running {
        let Created { spawned, entry, record, listener, interrupts, .. } = self;
        if listener.is_none() {
            interrupts.into_iter().for_each(Interrupts::keep);
        }
        Running { spawned, entry, record, listener }
    }
}

/// A container whose program runs, with its maker waiting for it.
#[derive(Debug)]
pub struct Running {
    spawned: Spawned,
    entry: Entry,
    record: Record,
    listener: Option<Listener>,
}

impl Running {
    /// For a `run` that does not stay: waits until the program is ready, if
    /// somebody wants to know.
    pub fn await_ready(&self) -> Result<()> {
        match &self.listener {
            Some(listener) => listener.wait(self.spawned.pidfd(), self.spawned.pid()),
            None => Ok(()),
        }
    }

    /// Where the program says that it is ready.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// The container's init.
    pub fn spawned(&self) -> &Spawned {
        &self.spawned
    }

    /// What the kernel killed in the container for want of memory.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.record.out_of_memory()
    }

    /// After the wait: ends whoever is in the container, init too if it has not `ended`,
    /// and removes it, unless it is to be kept.
    pub fn finish(self, keep: bool, ended: bool) -> Result<()> {
        let Running { spawned, entry, record, .. } = self;
        // this process ends: its descriptors end with it
        std::mem::forget(spawned);
        let finished = finish(&entry, record, (keep, ended));
        std::mem::forget(entry);
        finished
    }
}

/// Ends whoever is in a container, init too if that has not ended, and removes it, unless
/// it is to be kept.
pub(super) fn finish(entry: &Entry, record: Record, (keep, ended): (bool, bool)) -> Result<()> {
    let lock = match entry.lock() {
        // somebody else has deleted it
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if keep {
        return super::delete::end_processes(&record);
    }
    super::delete::destroy_rest(entry, lock, Some(record), ended)
}
