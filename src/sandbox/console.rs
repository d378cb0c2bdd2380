//! The container's terminal: a pty of its own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use super::over_proc;
use super::path::Missing;
use crate::error::{Error, Result, Step};
use crate::spec::ProcessPlan;
use crate::sys::fs::open_in_root;
use crate::sys::{mount, process};

/// DEVPTS_SUPER_MAGIC (linux/magic.h).
const DEVPTS: FsType = FsType(0x1cd1);

/// Both ends of a pty.
pub(super) struct Pty {
    pub(super) master: OwnedFd,
    pub(super) terminal: OwnedFd,
}

/// Opens a pty of the container's own devpts and binds its terminal to
/// /dev/console.
pub(super) fn open(root: BorrowedFd<'_>) -> Result<Pty> {
    let pty = open_pty(root)?;
    let (console, _) = over_proc::place(root, Path::new("/dev/console"), Missing::File)
        .step(|| "process.terminal: /dev/console")?;
    let tree = mount::clone_tree_at(pty.terminal.as_fd(), false).step(|| "open_tree of the pty")?;
    mount::move_mount(tree.as_fd(), console.as_fd()).step(|| "mount /dev/console")?;
    Ok(pty)
}

/// Opens a pty of the container's own devpts.
///
/// The terminal is got from the master, not by its name: what the image or
/// another container puts at /dev/pts or /dev/console does not matter.
pub(super) fn open_pty(root: BorrowedFd<'_>) -> Result<Pty> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = open_in_root(root, Path::new("/dev/pts/ptmx"), flags, Mode::empty())
        .step(|| "process.terminal: open /dev/pts/ptmx (a devpts has to be mounted there)")?;
    let found = fstatfs(&master).step(|| "statfs of the pty")?;
    if found.filesystem_type() != DEVPTS {
        return Err(Error::invalid("process.terminal: /dev/pts/ptmx is not on a devpts"));
    }
    process::unlock_pty(master.as_fd()).step(|| "unlock the pty")?;
    let terminal = process::open_pty_peer(master.as_fd()).step(|| "open the pty")?;
    Ok(Pty { master, terminal })
}

/// Makes the terminal this session's, and stdin, stdout and stderr.
pub(super) fn take(terminal: &OwnedFd, plan: &ProcessPlan) -> Result<()> {
    if let Some((rows, columns)) = plan.console_size {
        process::set_window_size(terminal.as_fd(), rows, columns).step(|| "process.consoleSize")?;
    }
    fchown(terminal, Some(Uid::from_raw(plan.uid)), None::<Gid>).step(|| "chown of the pty")?;
    process::set_controlling_terminal(terminal.as_fd()).step(|| "set the controlling terminal")?;
    let streams = dup2_stdin(terminal).and(dup2_stdout(terminal)).and(dup2_stderr(terminal));
    streams.step(|| "make the pty stdin, stdout and stderr")
}
