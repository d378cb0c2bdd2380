//! The runtime's end of a container's pty.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use crate::error::{Result, Step};
use crate::sys::uninterrupted;

/// Sends a pty's master to whoever listens on a Unix socket, as containerd's
/// shim and conmon expect it: one descriptor, and its name as the data.
pub(super) fn send_master(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("--console-socket {}", path.display());
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).step(step)?;
    let address = UnixAddr::new(path).step(step)?;
    uninterrupted(|| connect(socket.as_raw_fd(), &address)).step(step)?;
    let fds = [master.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(b"/dev/ptmx")];
    let flags = MsgFlags::MSG_NOSIGNAL;
    uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &data, &control, flags, None))
        .map(drop)
        .step(step)
}
