//! Descriptors for the caller: the runtime's end of a pty, and pidfds.

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
    send("--console-socket", path, b"/dev/ptmx", master)
}

/// Sends a pidfd to whoever listens on a Unix socket, as runc does: with
/// `standard` as the data for a container's init, with `setns` for a process of
/// `exec`.
pub(super) fn send_pidfd(path: &Path, data: &str, pidfd: BorrowedFd<'_>) -> Result<()> {
    send("--pidfd-socket", path, data.as_bytes(), pidfd)
}

fn send(option: &str, path: &Path, data: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("{option} {}", path.display());
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).step(step)?;
    let address = UnixAddr::new(path).step(step)?;
    uninterrupted(|| connect(socket.as_raw_fd(), &address)).step(step)?;
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(data)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &data, &control, flags, None))
        .map(drop)
        .step(step)
}
