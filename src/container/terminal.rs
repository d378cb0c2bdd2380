//! The runtime's end of a container's pty.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use crate::error::{Result, Step};

/// Sends a pty's master to whoever listens on a Unix socket, as containerd's
/// shim and conmon expect it: one descriptor, and its name as the data.
pub(super) fn send_master(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("--console-socket {}", path.display());
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).step(step)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path).step(step)?).step(step)?;
    let fds = [master.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(b"/dev/ptmx")];
    sendmsg::<()>(socket.as_raw_fd(), &data, &control, MsgFlags::MSG_NOSIGNAL, None).step(step)?;
    Ok(())
}
