//! `delete`: everything that `create` made goes.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::rdt;
use super::record::{InitProcess, Record};
use super::reserve::remove_scratch;
use super::shared_root::SharedRoot;
use super::start::hook_state;
use super::state::Status;
use super::store::{Entry, Lock};
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::{Interrupts, hooks};
use crate::sys::process::pidfd_send_signal;
use crate::trace;

/// How long a killed process may take to end. One that takes longer hangs in
/// the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last of a pid namespace's processes may take to leave the
/// cgroup when init has ended.
const OTHERS_PATIENCE: Duration = Duration::from_secs(2);

/// How long another command may go on undisturbed.
const FAIR_CHANCE: Duration = Duration::from_secs(2);

/// Removes a container: one that has ended, or whose program was never
/// started; with `force`, any.
///
/// # Errors
/// It runs; something can't be removed (and what).
pub fn delete(entry: Entry, force: bool) -> Result<()> {
    let lock = if force { lock_by_force(&entry)? } else { lock_ended(&entry)? };
    let record = match entry.load() {
        // with force even a damaged record goes: what it told of can't be found.
        // One that only can't be read just now may tell of a container that runs
        Err(e) if force && e.raw_errno().is_none() => None,
        other => other?,
    };
    let Some(record) = record else {
        if force {
            return entry.remove(lock);
        }
        return Err(Error::new(ErrorKind::State, "its creation was killed")
            .hint("delete --force removes what there is"));
    };
    let status = Status::of(&entry, &record)?;
    crate::logging::debug(|| format!("the container is {status}"));
    match status {
        Status::Stopped => {}
        // its program has not run: there is nothing to lose
        Status::Created => {}
        _ if force => {}
        _ => return Err(not_stopped(&entry, status)),
    }
    destroy(&entry, lock, Some(record))
}

/// Whoever is at work may be waiting for this command, in a hook: what can't be deleted
/// meanwhile is told at once.
fn lock_ended(entry: &Entry) -> Result<Lock> {
    Status::lock_unless(entry, |status| {
        let lives = matches!(status, Status::Creating | Status::Running | Status::Paused);
        Ok(lives.then(|| not_stopped(entry, status)))
    })
}

fn not_stopped(entry: &Entry, status: Status) -> Error {
    let id = entry.id();
    let message = format!("cannot delete container {id} that is not stopped: {status}");
    Error::new(ErrorKind::State, message).hint("kill it first, or --force")
}

/// Takes the lock; from a command that hangs with it (in a hook, most likely),
/// by killing the container under its hands.
fn lock_by_force(entry: &Entry) -> Result<Lock> {
    let deadline = Instant::now() + PATIENCE;
    let mut killed = false;
    loop {
        if let Some(lock) = entry.try_lock()? {
            return Ok(lock);
        }
        if Instant::now() > deadline {
            return Err(Error::new(
                ErrorKind::State,
                "another command holds the container and does not end (is a hook hanging?)",
            ));
        }
        if !killed && Instant::now() + PATIENCE > deadline + FAIR_CHANCE {
            killed = true;
            let record = match entry.load() {
                // a damaged record tells of nobody to kill: wait on
                Err(e) if e.raw_errno().is_none() => None,
                other => other?,
            };
            if let Some(record) = record
                && !record.cgroup_was_there
                && let Ok(cgroup) = Cgroup::open(record.cgroup)
            {
                cgroup.kill()?;
            }
        }
        // a lock tells nobody that it is free: look again
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends what lives and removes what there is.
pub(super) fn destroy(entry: &Entry, lock: Lock, record: Option<Record>) -> Result<()> {
    destroy_rest(entry, lock, record, false)
}

/// The same; with `ended`, init is known to have ended.
pub(super) fn destroy_rest(
    entry: &Entry,
    lock: Lock,
    record: Option<Record>,
    ended: bool,
) -> Result<()> {
    if let Some(record) = &record {
        remove_processes(record, ended)?;
        rdt::remove(&record.rdt_groups)?;
        record.shared_root.as_ref().map_or(Ok(()), SharedRoot::remove)?;
        remove_scratch(&record.scratch)?;
    }
    trace::step("remove the state", || entry.remove(lock))?;
    match &record {
        Some(record) => run_poststop(record, 0),
        None => Ok(()),
    }
}

/// Ends all processes and removes the cgroup.
fn remove_processes(record: &Record, ended: bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    if record.init.is_none()
        && (record.cgroup_was_there || record.cgroup.path.as_os_str().is_empty())
    {
        // no process of this container was ever in it
        return Ok(());
    }
    if let (true, Some(init)) = (record.own_pid_namespace, record.init) {
        // the end of init was the end of all: the cgroup is empty, and one call
        // removes it
        if !ended {
            end_init(init, deadline)?;
        }
        let removed = trace::step("remove the cgroup", || {
            record.cgroup.remove(Instant::now() + OTHERS_PATIENCE)
        });
        return match removed {
            // a later container may have taken the same cgroup: who is in there
            // now is none of ours
            Err(e) if e.kind() == ErrorKind::State || e.is_errno(Errno::EBUSY) => {
                crate::logging::warn(&format!("the cgroup is left: {e}"));
                Ok(())
            }
            other => other,
        };
    }
    end_processes(record)?;
    trace::step("remove the cgroup", || record.cgroup.remove(deadline))
}

/// Kills init and whoever else is in the container's cgroup, and waits until
/// they have ended.
pub(super) fn end_processes(record: &Record) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    if let Some(init) = record.init {
        end_init(init, deadline)?;
        if record.own_pid_namespace {
            return Ok(());
        }
    }
    let cgroup = match Cgroup::open(record.cgroup.clone()) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    // without a pid namespace of its own, the end of init ends nobody else
    if cgroup.is_populated()? {
        cgroup.kill()?;
        if !cgroup.wait_unpopulated(deadline)? {
            return Err(Error::new(
                ErrorKind::System,
                format!("processes in {} do not end", cgroup.path().display()),
            ));
        }
    }
    Ok(())
}

fn end_init(init: InitProcess, deadline: Instant) -> Result<()> {
    let Some(pidfd) = init.open()? else { return Ok(()) };
    trace::step_on("end init", ("pid", &init.pid), || {
        match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(Error::from(e).step(format!("kill process {}", init.pid))),
        }
        wait(init, pidfd.as_fd(), deadline)
    })
}

/// Waits for the end of an init that ends by itself.
pub(super) fn wait_for_end(init: InitProcess) -> Result<()> {
    match init.open()? {
        Some(pidfd) => wait(init, pidfd.as_fd(), Instant::now() + PATIENCE),
        None => Ok(()),
    }
}

fn wait(init: InitProcess, pidfd: BorrowedFd<'_>, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => {
                return Err(Error::new(
                    ErrorKind::System,
                    format!("process {} does not end", init.pid),
                ));
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => {
                return Err(Error::from(e).step(format!("wait for process {}", init.pid)));
            }
        }
    }
}

/// Runs the poststop hooks. They are no reason to keep the container: each
/// runs, and a failure is a warning (runtime.md, Lifecycle, step 13).
pub(super) fn run_poststop(record: &Record, pid: i32) -> Result<()> {
    if record.poststop.is_empty() {
        return Ok(());
    }
    // a signal ends the hook that hangs, not those after it
    let interrupts = Interrupts::watch()?;
    for hook in &record.poststop {
        let state = hook_state(record, "stopped", pid);
        if let Err(e) = hooks::run_outside(std::slice::from_ref(hook), state, &interrupts, None) {
            crate::logging::warn(&e.to_string());
        }
    }
    Ok(())
}
