//! Descriptors that go to whoever asked for them: the runtime's end of a pty, and
//! pidfds.

use std::io::{IoSlice, IsTerminal};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use crate::error::{Result, Step};
use crate::sys::uninterrupted;

/// Has a pty whose output goes to a pipe or a file end its lines as those do, without a
/// carriage return, as runc has it. A terminal gets what a terminal would.
pub(super) fn end_lines_plainly(master: BorrowedFd<'_>) -> Result<()> {
    if std::io::stdout().is_terminal() {
        return Ok(());
    }
    let step = || "set the pty's mode";
    let mut mode = tcgetattr(master).step(step)?;
    mode.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(master, SetArg::TCSANOW, &mode).step(step)
}

/// Sends a pty's master to whoever listens on a Unix socket, as containerd's
/// shim and conmon expect it: one descriptor, and its name as the data.
pub(super) fn send_master(path: &Path, master: BorrowedFd<'_>) -> Result<()> {
    send(path, master, b"/dev/ptmx").step(|| format!("--console-socket {}", path.display()))
}

/// Sends a pidfd to whoever listens on a Unix socket, as runc does: with
/// `standard` as the data for a container's init, with `setns` for a process of
/// `exec`.
pub(super) fn send_pidfd(path: &Path, data: &str, pidfd: BorrowedFd<'_>) -> Result<()> {
    send(path, pidfd, data.as_bytes()).step(|| format!("--pidfd-socket {}", path.display()))
}

/// Sends init's pidfd to whoever listens on the socket that an annotation names.
pub(super) fn send_pidfd_as_asked(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("annotations.run.oci.pidfd_receiver: {}", path.display());
    send(path, pidfd, b"pidfd").step(step)
}

fn send(path: &Path, fd: BorrowedFd<'_>, data: &[u8]) -> Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(path)?;
    uninterrupted(|| connect(socket.as_raw_fd(), &address))?;
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(data)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &data, &control, flags, None))?;
    Ok(())
}
