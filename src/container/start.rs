//! `start`: one call on the socket on which init waits.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as listen_on,
    socket,
};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::listener::Listener;
use super::record::Record;
use super::state::Status;
use super::store::{Entry, START_SOCKET};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::Channel;
use crate::sandbox::hooks::{self, HookState};

fn seqpacket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .step(|| "start socket")
}

/// The socket's address: by descriptor, as a path in a sockaddr has 108 bytes
/// and a state root may be deeper.
fn address(entry: &Entry) -> Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{START_SOCKET}", entry.dir().as_raw_fd());
    UnixAddr::new(path.as_str()).step(|| "start socket")
}

/// The socket on which init will wait for `start`.
pub(super) fn listen(entry: &Entry) -> Result<OwnedFd> {
    let socket = seqpacket()?;
    bind(socket.as_raw_fd(), &address(entry)?).step(|| "bind the start socket")?;
    listen_on(&socket, Backlog::new(1)?).step(|| "listen on the start socket")?;
    Ok(socket)
}

/// Lets the program of a created container run.
///
/// # Errors
/// The container is not in the state `created`; the program could not be
/// executed, in init's words.
pub fn start(entry: &Entry) -> Result<()> {
    let _lock = entry.lock()?;
    let record = entry.load()?.ok_or_else(|| {
        Error::new(ErrorKind::State, "its creation was killed")
            .hint(format!("tare delete --force {} removes it", entry.id()))
    })?;
    let status = Status::of(entry, &record)?;
    let (Status::Created, Some(init)) = (status, record.init) else {
        return Err(Error::new(
            ErrorKind::State,
            format!("the container is {status}: only a created one can be started"),
        ));
    };
    // nothing is started for somebody who is not there
    let listener = record.seccomp_listener.as_ref().map(Listener::connect).transpose()?;
    let pass_on = listener.map(|l| {
        let record = &record;
        move |fd| l.pass_on(record, init.pid, &fd)
    });
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), &address(entry)?).step(|| "call init")?;
    // it has the call now: from here on the container counts as running
    match unlinkat(entry.dir(), START_SOCKET, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(Error::from(e).step("remove the start socket")),
    }
    if let Err(error) = Channel::from_socket(socket).await_execve(pass_on) {
        if record.seccomp_listener.is_some() {
            // it may wait for answers that nobody will give
            super::delete::end_processes(&record)?;
        } else {
            // it is about to exit: after this command it counts as stopped
            super::delete::wait_for_end(init)?;
        }
        return Err(record.cgroup.explain(error));
    }
    run_poststart(&record, init.pid)
}

/// Runs the poststart hooks. When one fails, the container is stopped.
pub(super) fn run_poststart(record: &Record, pid: i32) -> Result<()> {
    let state = hook_state(record, "running", pid);
    hooks::run("poststart", &record.poststart, &state).map_err(|e| {
        match super::delete::end_processes(record) {
            Ok(()) => e.hint("the container was stopped"),
            Err(left) => e.hint(format!("and stopping the container failed: {left}")),
        }
    })
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
