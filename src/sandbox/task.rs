//! The last steps of whoever becomes a container's program: init, and a process
//! of `exec`.

use std::ffi::CString;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, getcwd};

use super::privileges::{self, Groups};
use super::protocol::{Channel, Message};
use super::{Options, console, hooks, labels, program, scheduling};
use crate::error::{Error, Result, Step};
use crate::spec::{ExecPlan, LabelPlan, Plan, ProcessPlan, SchedulingPlan, SeccompPlan};
use crate::sys::{process, seccomp};
use crate::trace;

/// The program, and what it is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) process: &'a ProcessPlan,
    pub(super) scheduling: &'a SchedulingPlan,
    pub(super) labels: &'a LabelPlan,
    pub(super) seccomp: Option<&'a SeccompPlan>,
}

impl<'a> Task<'a> {
    pub(super) fn of(plan: &'a Plan) -> Self {
        Task {
            process: &plan.process,
            scheduling: &plan.scheduling,
            labels: &plan.labels,
            seccomp: plan.seccomp.as_ref(),
        }
    }

    pub(super) fn of_exec(plan: &'a ExecPlan) -> Self {
        Task {
            process: &plan.process,
            scheduling: &plan.scheduling,
            labels: &plan.labels,
            seccomp: plan.seccomp.as_ref(),
        }
    }

    /// Inside the root: takes on directory, stdio, limits and user; the answer is
    /// the program, found as that user.
    pub(super) fn become_user(
        self,
        channel: &Channel,
        terminal: Option<OwnedFd>,
        files: labels::Files,
        groups: Groups,
    ) -> Result<CString> {
        let process = self.process;
        chdir(&process.cwd).step(|| format!("process.cwd {}", process.cwd.display()))?;
        // a directory outside would give the container a way out; / is never one
        let is_inside = || getcwd().is_ok_and(|cwd| cwd.is_absolute());
        if process.cwd != Path::new("/") && !is_inside() {
            return Err(Error::invalid("process.cwd: lies outside the container's root"));
        }
        match terminal {
            Some(terminal) => console::take(&terminal, process)?,
            None => privileges::own_stdio(process),
        }
        if !trace::step("set limits", || privileges::set_limits(process))? {
            channel.ask(&Message::RaiseLimits)?;
        }
        scheduling::set_own(self.scheduling)?;
        labels::apply(self.labels, files)?;
        trace::step("drop privileges", || {
            privileges::drop_to(process, groups, privileges::kept_for_filter(self))
        })?;
        umask(Mode::from_bits_truncate(process.umask));
        trace::step("find the program", || program::find(process))
    }

    /// The last thing before execve: what the process does from here on, the
    /// profile has to allow. All that the runtime has to know was said before.
    pub(super) fn load_filter(self, channel: &Channel) -> Result<()> {
        let Some(filter) = self.seccomp else { return Ok(()) };
        let listener = seccomp::load(&filter.program, filter.flags).map_err(|e| {
            let error = Error::from(e).step("linux.seccomp: load the filter");
            match e {
                Errno::EBUSY => error.hint("a filter of the caller has a listener already"),
                Errno::EINVAL => error.hint("a flag or an action that this kernel does not know"),
                _ => error,
            }
        })?;
        if let Some(listener) = listener {
            channel.send_with(&Message::Listener, Some(listener.as_fd()))?;
            // closed by execve: a profile need not allow close for our sake
            let _kept = listener.into_raw_fd();
        }
        if privileges::kept_for_filter(self).is_some() {
            privileges::give_up(self.process).map_err(|e| {
                e.hint("without process.noNewPrivileges, linux.seccomp has to allow capset")
            })?;
        }
        Ok(())
    }
}

/// Closes the runtime's descriptors.
pub(super) fn close_all_but(options: Options, keep: &[RawFd]) -> Result<()> {
    let first = RawFd::try_from(options.first_closed_fd()).unwrap_or(RawFd::MAX);
    process::close_all_but(first, keep).step(|| "close the runtime's descriptors: close_range")?;
    // what is preserved is opened up again right before execve
    hooks::keep_descriptors()
}

/// Lets what the caller has preserved live on over execve.
pub(super) fn pass_on_preserved(options: Options) -> Result<()> {
    for fd in 3..options.first_closed_fd() {
        process::pass_on(RawFd::try_from(fd).unwrap_or(-1)).step(|| "--preserve-fds")?;
    }
    Ok(())
}

/// A session, and a session keyring, of its own.
pub(super) fn make_session(id: &str, options: Options) -> Result<()> {
    nix::unistd::setsid().step(|| "make a session")?;
    if options.no_new_keyring {
        return Ok(());
    }
    match process::join_session_keyring(&format!("_ses.{id}")) {
        // a kernel without keyrings has none to leak either
        Ok(()) | Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(Error::from(e).step("make a session keyring")),
    }
}

/// LISTEN_PID of the calling process, where there are sockets to tell of.
pub(super) fn listen_pid(options: Options) -> Option<CString> {
    let tells = options.listen_fds > 0;
    tells.then(|| CString::new(format!("LISTEN_PID={}", nix::unistd::getpid())).ok()).flatten()
}
