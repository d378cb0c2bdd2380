//! A container's init as its maker has it: served until it is ready, and let go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::idmap::IdMaps;
use super::interrupts::Interrupts;
use super::protocol::{Channel, Ignored, Message, Started};
use super::spawn::{end, never_ran, set_oom_score_adj, wait_for_end};
use super::{nodes, sources};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{Plan, ProcessPlan};
use crate::sys::caller::caller;
use crate::sys::process::{self, Child};
use crate::trace;

/// How long a process whose namespaces are gone may take to end, in milliseconds.
const END_PATIENCE_MS: u16 = 2_000;

/// A container's init that has not run its program yet.
#[derive(Debug)]
pub struct Spawned {
    pub(super) channel: Channel,
    pub(super) child: Child,
    pub(super) console: Option<OwnedFd>,
    /// What its init has inherited as ignored signals.
    ignored: Ignored,
    /// It was told in advance that it may go on.
    early: bool,
    /// It is about to execute the program.
    executing: bool,
}

impl Spawned {
    pub(super) fn new(channel: Channel, child: Child) -> Self {
        Spawned { channel, child, console: None, ignored: 0, early: false, executing: false }
    }

    /// Notes the signals, as bits, that init ignores: before it runs anything, it will
    /// not any more.
    pub(crate) fn note_ignored(&mut self, ignored: Ignored) {
        self.ignored = ignored;
    }

    /// What only the runtime may do to init, before it runs anything.
    pub(crate) fn set_score(&self, plan: &ProcessPlan) -> Result<()> {
        // whoever is not root has no way to what is closed to others
        match plan.oom_score_adj {
            Some(value) if caller().is_host_root() => set_oom_score_adj(self.pid(), value),
            _ => Ok(()),
        }
    }

    /// Lets init run its program as soon as it can: the runtime has nothing to do then.
    pub(crate) fn proceed_early(&mut self) -> Result<()> {
        self.early = true;
        match self.release() {
            // it has ended: what it said before is still to be read
            Err(e) if e.is_errno(Errno::EPIPE) || e.is_errno(Errno::ECONNRESET) => Ok(()),
            other => other,
        }
    }

    /// Serves init until everything but the program's start is done; if it was told to go
    /// on then, until it does.
    ///
    /// `run_hooks` is called with init's pid and pidfd when the hooks before
    /// pivot_root are due.
    ///
    /// # Errors
    /// The step that failed in init, or here; a signal that `interrupts` watches
    /// for. Init is dead or has to be killed then.
    pub(crate) fn serve(
        &mut self,
        plan: &Plan,
        id_maps: Option<&IdMaps>,
        interrupts: Option<&Interrupts>,
        mut run_hooks: impl FnMut(Pid, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            if let Some(interrupts) = interrupts {
                interrupts.wait_for(self.channel.as_fd())?;
            }
            let Some((message, fd)) = self.channel.receive()? else {
                return Err(self.unexpected_death());
            };
            match message {
                Message::MapIds => {
                    trace::step("write the id maps", || {
                        id_maps.map_or(Ok(()), |maps| maps.write(self.pid()))
                    })?;
                    self.channel.send(&Message::Go)?;
                }
                // it is in it, or would not be served
                Message::AwaitCgroup => self.channel.send(&Message::Go)?,
                Message::RunHooks => {
                    run_hooks(self.pid(), self.pidfd())?;
                    self.channel.send(&Message::Go)?;
                }
                Message::OpenSource(index) => {
                    let source = sources::source_for(self.pidfd(), plan, index, fd)?;
                    self.channel.send_with(&Message::Go, Some(source.as_fd()))?;
                }
                Message::MakeDevice(index) => {
                    let node = nodes::node_for(self.pid(), plan, index)?;
                    self.channel.send_with(&Message::Go, Some(node.as_fd()))?;
                }
                Message::OpenRoot => {
                    let root = sources::root_for(self.pidfd(), &plan.rootfs.path)?;
                    self.channel.send_with(&Message::Go, Some(root.as_fd()))?;
                }
                Message::RaiseLimits => {
                    self.raise_limits(&plan.process)?;
                    self.channel.send(&Message::Go)?;
                }
                Message::Console => self.console = fd,
                // the word and the question have crossed
                Message::Ready if self.early => {}
                Message::Executing if self.early => {
                    self.executing = true;
                    return Ok(());
                }
                // what the runtime may do to init and init may not do to itself
                Message::Ready => {
                    return super::scheduling::set_outside(&plan.scheduling, self.pid());
                }
                Message::Failed(error) => return Err(error),
                Message::Go
                | Message::Proceed(_)
                | Message::Moved(_)
                | Message::Executing
                | Message::Listener => {
                    return Err(Error::new(ErrorKind::System, "init spoke out of turn"));
                }
            }
        }
    }

    /// Sets the limits that init may not raise in its user namespace.
    pub(super) fn raise_limits(&self, plan: &ProcessPlan) -> Result<()> {
        let pid = self.pid();
        for limit in &plan.rlimits {
            let resource = i32::try_from(limit.resource as u32).unwrap_or(-1);
            process::set_rlimit(pid, resource, limit.soft, limit.hard).map_err(|e| {
                let e = Error::from(e).step(format!(
                    "process.rlimits: {:?} soft {} hard {}",
                    limit.resource, limit.soft, limit.hard
                ));
                match e.is_errno(Errno::EPERM) {
                    true => e.hint("raising a hard limit needs CAP_SYS_RESOURCE"),
                    false => e,
                }
            })?;
        }
        Ok(())
    }

    /// Lets a ready init go on: it waits for `start`, if it has a listener.
    pub(crate) fn release(&self) -> Result<()> {
        self.channel.send(&Message::Proceed(self.ignored))
    }

    /// Lets a ready init run its program, if it does not yet, and waits until it does. A
    /// listener of its filter goes to `pass_on`.
    ///
    /// # Errors
    /// Why the program could not be executed, in init's words.
    pub(crate) fn start(
        &self,
        pass_on: Option<impl FnOnce(OwnedFd) -> Result<()>>,
        interrupts: Option<&Interrupts>,
    ) -> Result<()> {
        trace::step("wait for execve", || {
            if !self.executing {
                self.release()?;
            }
            match self.channel.await_execve(pass_on, interrupts, self.executing)? {
                Started::Executed => Ok(()),
                Started::Failed(error) => Err(error),
            }
        })
    }

    /// Init's pid, as the runtime sees it.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Init's pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Whether init ends until then, with or without a word why.
    fn ends_within(&self, patience: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.pidfd(), PollFlags::POLLIN)];
        poll(&mut fds, patience).is_ok_and(|ready| ready > 0)
    }

    /// Why something could not be done to init: who has died has no namespaces,
    /// and can't be moved, and then the reason is its own.
    pub fn reason(&mut self, plan: &Plan, id_maps: Option<&IdMaps>, e: Error) -> Error {
        // on its way out a process loses its namespaces first
        let is_ending = [Errno::ENOENT, Errno::ESRCH].iter().any(|errno| e.is_errno(*errno));
        let patience =
            if is_ending { PollTimeout::from(END_PATIENCE_MS) } else { PollTimeout::ZERO };
        let ended = self.ends_within(patience);
        let own = ended.then(|| self.serve(plan, id_maps, None, |_, _| Ok(())));
        own.and_then(Result::err).unwrap_or(e)
    }

    /// The master of the container's pty.
    pub fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().map(AsFd::as_fd)
    }

    /// The master of the container's pty, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Kills init and reaps it.
    pub fn kill(&self) {
        end(self.pidfd());
    }

    fn unexpected_death(&self) -> Error {
        let kind = if never_ran(&self.child) { ErrorKind::Unborn } else { ErrorKind::System };
        let how = match wait_for_end(self.pidfd()) {
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            Ok(WaitStatus::Exited(_, code)) => format!("exited with code {code}"),
            _ => "has gone".to_owned(),
        };
        Error::new(kind, format!("the container's init {how} during its set-up"))
    }
}
