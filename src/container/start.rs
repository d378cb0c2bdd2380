//! `start`: one call on the socket on which init waits.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::renameat;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as listen_on,
    socket,
};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::agent::Agent;
use super::notify::{Listener, NotifySocket};
use super::record::{InitProcess, Record};
use super::state::Status;
use super::store::{Entry, Lock, START_SOCKET};
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sandbox::hooks::{self, HookState};
use crate::sandbox::{Channel, Interrupts, Started};
use crate::sys::uninterrupted;
use crate::trace;

/// Name of the start socket while it is called.
const CALLED_SOCKET: &str = "called";

fn seqpacket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .step(|| "start socket")
}

/// The socket's address: by descriptor, as a path in a sockaddr has 108 bytes
/// and a state root may be deeper.
fn address(entry: &Entry, name: &str) -> Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{name}", entry.dir().as_raw_fd());
    UnixAddr::new(path.as_str()).step(|| "start socket")
}

/// The socket on which init will wait for `start`.
pub(super) fn listen(entry: &Entry) -> Result<OwnedFd> {
    let socket = seqpacket()?;
    bind(socket.as_raw_fd(), &address(entry, START_SOCKET)?).step(|| "bind the start socket")?;
    listen_on(&socket, Backlog::new(1)?).step(|| "listen on the start socket")?;
    Ok(socket)
}

/// Lets the program of a created container run.
///
/// With `manager`, and for a container that was created with one, it returns
/// once the program has said that it is ready.
///
/// # Errors
/// The container is not in the state `created`; the program could not be
/// executed, in init's words: the container is stopped then. A hook failed: the
/// container is gone.
pub fn start(entry: Entry, manager: Option<NotifySocket>) -> Result<()> {
    let lock = lock(&entry)?;
    let record = entry.load()?.ok_or_else(|| {
        Error::new(ErrorKind::State, "its creation was killed")
            .hint(format!("tare delete --force {} removes it", entry.id()))
    })?;
    let status = Status::of(&entry, &record)?;
    // a start that was killed before its call has left the name of the socket
    let taken_over = status == Status::Running && is_called(&entry)?;
    let (true, Some(init)) = (status == Status::Created || taken_over, record.init) else {
        return Err(not_created(status));
    };
    let ready = manager.map(|manager| Listener::bind(&entry, manager)).transpose()?.flatten();
    // before it runs: a process that ends at once leaves no descriptor to ask for
    let pidfd = init.open()?;
    // nothing is started for somebody who is not there
    let agent = record.seccomp_listener.as_ref().map(Agent::connect).transpose()?;
    // a call can't be taken back: a signal stops what has been called and does not run yet,
    // and comes too late for what does
    let interrupts = Interrupts::watch()?;
    // the lock goes with it: others may want the container while its program makes itself
    // ready
    let started = let_run((entry, lock), record, (init, taken_over), agent, &interrupts);
    match (started, ready, pidfd) {
        (Ok(()), Some(ready), Some(pidfd)) => {
            drop(interrupts);
            ready.wait(pidfd.as_fd(), init.pid())
        }
        (started, _, _) => {
            interrupts.keep();
            started
        }
    }
}

/// Calls init, and waits until its program runs.
fn let_run(
    (entry, lock): (Entry, Lock),
    record: Record,
    (init, taken_over): (InitProcess, bool),
    agent: Option<Agent>,
    interrupts: &Interrupts,
) -> Result<()> {
    let pass_on = agent.map(|agent| {
        let record = &record;
        move |fd| agent.pass_on(record, "created", init.pid, &fd)
    });
    let channel = trace::step("call init", || call_init(&entry, init, taken_over))?;
    let started =
        trace::step("wait for execve", || channel.await_execve(pass_on, Some(interrupts), false));
    match started {
        Ok(Started::Executed) => {}
        Ok(Started::Failed(error)) if error.kind() == ErrorKind::Hook => {
            return Err(delete_after(error, entry, lock, record));
        }
        Ok(Started::Failed(error)) => {
            if record.seccomp_listener.is_some() {
                // it may wait for answers that nobody will give
                super::delete::end_processes(&record)?;
            } else {
                // it is about to exit: after this command it counts as stopped
                super::delete::wait_for_end(init)?;
            }
            return Err(record.explain(error));
        }
        // its program may run by now: who is told of a failure needs to know
        // that it does not
        Err(e) => return Err(stop(&record, e)),
    }
    if let Err(e) = run_poststart(&record, init.pid) {
        return Err(delete_after(e, entry, lock, record));
    }
    Ok(())
}

/// Whoever is at work may be waiting for this command, in a hook: what can't be started
/// whatever comes of that is told at once.
fn lock(entry: &Entry) -> Result<Lock> {
    Status::lock_unless(entry, |status| {
        let refused = match status {
            Status::Creating => true,
            Status::Running => has_no_socket(entry)?,
            _ => false,
        };
        Ok(refused.then(|| not_created(status)))
    })
}

/// Whether init is past its call: a start that was killed before the call has left the
/// socket under its other name, and one that fails gives the first name back. That one is
/// looked at again, for it may come back between two looks; it goes only once more, by
/// another start, and then that one calls.
fn has_no_socket(entry: &Entry) -> Result<bool> {
    Ok(!is_called(entry)? && !has_name(entry, START_SOCKET)?)
}

fn not_created(status: Status) -> Error {
    // the words of runc
    let error = |message: &str| Error::new(ErrorKind::State, format!("cannot start {message}"));
    match status {
        Status::Running => error("an already running container"),
        Status::Stopped => Error::new(ErrorKind::State, phrase::NOT_RUNNING)
            .step("cannot start a container that has stopped"),
        Status::Paused => {
            error("a container in the paused state").hint("tare resume lets it go on")
        }
        other => error(&format!("a container in the {other} state")),
    }
}

/// Whether the socket has the name that it bears during a call.
fn is_called(entry: &Entry) -> Result<bool> {
    has_name(entry, CALLED_SOCKET)
}

fn has_name(entry: &Entry, name: &str) -> Result<bool> {
    match fstatat(entry.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(Error::from(e).step("look for the start socket")),
    }
}

/// Calls init: from here on the container counts as running.
///
/// The socket's name is out of the way before the call and comes back if there
/// was none: a call can't be taken back.
fn call_init(entry: &Entry, init: InitProcess, taken_over: bool) -> Result<Channel> {
    let socket = seqpacket()?;
    let dir = entry.dir();
    if !taken_over {
        renameat(dir, START_SOCKET, dir, CALLED_SOCKET).step(|| "rename the start socket")?;
    }
    let address = address(entry, CALLED_SOCKET)?;
    if let Err(e) = uninterrupted(|| connect(socket.as_raw_fd(), &address)) {
        if e == Errno::ECONNREFUSED && taken_over {
            // the call was made, and its maker killed after it
            unlinkat(dir, CALLED_SOCKET, UnlinkatFlags::NoRemoveDir).unwrap_or_default();
            return Err(not_created(Status::Running));
        }
        if e == Errno::ECONNREFUSED {
            // nobody listens any more: init is on its way out, if not gone
            super::delete::wait_for_end(init)?;
            return Err(Error::new(ErrorKind::State, "call init: the container's init has died"));
        }
        let back = renameat(dir, CALLED_SOCKET, dir, START_SOCKET);
        let e = Error::from(e).step("call init");
        return Err(match back {
            Ok(()) => e,
            Err(left) => e.hint(format!("and its undoing failed: {}", Error::from(left))),
        });
    }
    // the name means nothing any more, and goes with the state directory
    unlinkat(dir, CALLED_SOCKET, UnlinkatFlags::NoRemoveDir).unwrap_or_default();
    Ok(Channel::from_socket(socket))
}

/// Ends a container whose start has failed half-way.
fn stop(record: &Record, e: Error) -> Error {
    match super::delete::end_processes(record) {
        Ok(()) => e.hint("the container was stopped"),
        Err(left) => e.hint(format!("and stopping the container failed: {left}")),
    }
}

/// Removes a container of which a hook has failed (runtime.md, Lifecycle, steps 7
/// and 9: an error, the end of the container, and on at step 12).
fn delete_after(e: Error, entry: Entry, lock: Lock, record: Record) -> Error {
    match super::delete::destroy(&entry, lock, Some(record)) {
        Ok(()) => e.hint("the container was deleted"),
        Err(left) => e.hint(format!("and deleting the container failed: {left}")),
    }
}

/// Runs the poststart hooks. Where one fails, the container has to go.
pub(super) fn run_poststart(record: &Record, pid: i32) -> Result<()> {
    if record.poststart.is_empty() {
        return Ok(());
    }
    let state = hook_state(record, "running", pid);
    hooks::run_outside(&record.poststart, state, &Interrupts::watch()?, None)
}

/// What a hook gets to know.
pub(super) fn hook_state<'a>(record: &'a Record, status: &'a str, pid: i32) -> HookState<'a> {
    HookState {
        oci_version: crate::spec::OCI_VERSION,
        id: &record.id,
        status,
        pid,
        bundle: &record.bundle,
        annotations: &record.annotations,
    }
}
