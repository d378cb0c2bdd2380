//! Who answers system calls in a container's place (SCMP_ACT_NOTIFY): the
//! runtime hands the filter's listener to it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, sendmsg,
    socket,
};
use nix::sys::stat::{SFlag, stat};
use serde::Serialize;

use super::record::Record;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::hooks::HookState;
use crate::spec::ListenerPlan;
use crate::sys::uninterrupted;

/// What goes over the socket (config-linux.md, containerProcessState).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    /// Names of the descriptors that come with it.
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: HookState<'a>,
}

/// A connection to who will answer.
#[derive(Debug)]
pub(super) struct Agent {
    socket: OwnedFd,
}

impl Agent {
    /// Whether there is a socket to connect to.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn check(plan: &ListenerPlan) -> Result<()> {
        let step = || format!("linux.seccomp.listenerPath: {}", plan.path.display());
        let found = stat(&plan.path).step(step)?;
        if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFSOCK.bits() {
            return Err(Error::invalid("is no socket").step(step()));
        }
        Ok(())
    }

    /// # Errors
    /// The socket is not there, or nobody listens on it.
    pub(super) fn connect(plan: &ListenerPlan) -> Result<Agent> {
        let step = || format!("linux.seccomp.listenerPath: {}", plan.path.display());
        let address = UnixAddr::new(&plan.path).step(step)?;
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .step(step)?;
        match uninterrupted(|| connect(socket.as_raw_fd(), &address)) {
            Ok(()) => Ok(Agent { socket }),
            Err(e @ Errno::ECONNREFUSED) => {
                Err(Error::from(e).step(step()).hint("nobody listens there"))
            }
            Err(e) => Err(Error::from(e).step(step())),
        }
    }

    /// Hands the listener of the filter of a process over; `status` is that of
    /// its container.
    pub(super) fn pass_on(
        &self,
        record: &Record,
        status: &str,
        pid: i32,
        fd: &OwnedFd,
    ) -> Result<()> {
        let metadata = record.seccomp_listener.as_ref().and_then(|plan| plan.metadata.as_deref());
        let state = ProcessState {
            oci_version: crate::spec::OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata,
            state: super::start::hook_state(
                record,
                status,
                record.init.map_or(pid, |init| init.pid),
            ),
        };
        let bytes = serde_json::to_vec(&state).map_err(|e| {
            Error::new(ErrorKind::System, format!("linux.seccomp: encode the state: {e}"))
        })?;
        let step = || "linux.seccomp.listenerPath: hand the listener over";
        let fds = [fd.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        let (raw, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        let mut sent =
            uninterrupted(|| sendmsg::<()>(raw, &[IoSlice::new(&bytes)], &control, flags, None))
                .step(step)?;
        // a stream may take a long text in pieces
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += uninterrupted(|| send(raw, rest, flags)).step(step)?;
        }
        Ok(())
    }
}
