//! Descriptors that go to whoever asked for them: a container's pty, its init.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use super::create::Console;
use crate::error::{Result, Step};
use crate::sandbox::Spawned;
use crate::spec::Plan;
use crate::sys::uninterrupted;

/// Gives others what they wait for.
pub(super) fn hand_over(console: &Console, plan: &Plan, spawned: &Spawned) -> Result<()> {
    if let (Console::Socket(path), Some(master)) = (console, spawned.console()) {
        send_master(path, master)?;
    }
    match &plan.asked.pidfd_receiver {
        Some(path) => send_pidfd(path, spawned.pidfd()),
        None => Ok(()),
    }
}

/// Sends a pty's master to whoever listens on a Unix socket, as containerd's
/// shim and conmon expect it: one descriptor, and its name as the data.
fn send_master(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    send(path, master, b"/dev/ptmx").step(|| format!("--console-socket {}", path.display()))
}

/// Sends init's pidfd to whoever listens on the socket that an annotation names.
fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("annotations.run.oci.pidfd_receiver: {}", path.display());
    send(path, pidfd, b"pidfd").step(step)
}

fn send(path: &Path, fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(path)?;
    uninterrupted(|| connect(socket.as_raw_fd(), &address))?;
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(name)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &data, &control, flags, None))?;
    Ok(())
}
