//! stdout for a process that must not be held up by it.

use std::io::{IsTerminal, Stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::write;

use crate::error::Result;

/// A pipe that is ready for output takes this much at once (PIPE_BUF, pipe(7)).
const TAKEN_AT_ONCE: usize = 4096;

/// Device of every pty's master, which a second open makes another one of (pty(7)).
const PTMX: (u64, u64) = (5, 2);

/// stdout, or a description of its own of the file that it is.
///
/// O_NONBLOCK belongs to the description, which the caller's shell has as well and goes on
/// with: it is not for this process to set. Pipes and terminals can be opened once more.
pub(super) struct Outlet {
    stdout: Stdout,
    own: Option<OwnedFd>,
    is_socket: bool,
}

impl Outlet {
    /// Opens stdout once more where that helps and works. Else a terminal whose reader
    /// pauses may hold up who writes to it.
    pub(super) fn stdout() -> Self {
        let stdout = std::io::stdout();
        let Ok(stat) = fstat(&stdout) else {
            return Outlet { stdout, own: None, is_socket: false };
        };
        let is_socket = kind(&stat) == SFlag::S_IFSOCK;
        let own = is_worth_it(&stdout, &stat).then(reopen).and_then(std::result::Result::ok);
        Outlet { stdout, own, is_socket }
    }

    /// Writes some of these bytes, when it is ready for output: how many; 0 if it was not.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize> {
        let some = bytes.get(..TAKEN_AT_ONCE).unwrap_or(bytes);
        let written = if self.is_socket {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            send(self.stdout.as_raw_fd(), some, flags)
        } else {
            write(self, some)
        };
        match written {
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(0),
            // not open for output: nobody is to have it
            Err(Errno::EBADF) => Ok(some.len()),
            other => Ok(other?),
        }
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_ref().map_or_else(|| self.stdout.as_fd(), OwnedFd::as_fd)
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// A pipe or a terminal that writes may be held up by, and that this process may write to.
fn is_worth_it(stdout: &Stdout, stat: &FileStat) -> bool {
    let Ok(flags) = fcntl(stdout, FcntlArg::F_GETFL).map(OFlag::from_bits_retain) else {
        return false;
    };
    let is_terminal = stdout.is_terminal() && (major(stat.st_rdev), minor(stat.st_rdev)) != PTMX;
    !flags.contains(OFlag::O_NONBLOCK)
        && flags & OFlag::O_ACCMODE != OFlag::O_RDONLY
        && (kind(stat) == SFlag::S_IFIFO || is_terminal)
}

fn reopen() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open("/proc/self/fd/1", flags, Mode::empty())
}
