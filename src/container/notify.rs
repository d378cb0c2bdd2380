//! sd_notify(3): the caller's service manager hears when the program is ready.
//!
//! The container gets a socket of its own, at /run/notify/notify.sock; the
//! manager's is not for it. What it says there is passed on by whoever waits:
//! `run`, or a `start` that has NOTIFY_SOCKET as well. Only READY=1 is passed
//! on: other words would be about a process that the manager does not know.

use std::ffi::{CString, OsString};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv,
    sendmsg, socket,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, pipe2, unlinkat};

use super::store::Entry;
use crate::error::{Error, Result, Step};
use crate::spec::{AttrChange, MountPlan, Plan};
use crate::sys::mount::attr;
use crate::sys::uninterrupted;

/// In the state directory: what the container sees as [`INSIDE`].
const DIRECTORY: &str = "notify";

/// The socket in it.
const SOCKET: &str = "notify.sock";

/// Where the directory is in the container.
const INSIDE: &str = "/run/notify";

/// How long the manager may take to hear, in milliseconds.
const BARRIER_PATIENCE: u16 = 5000;

/// The socket of the caller's service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySocket(OsString);

impl NotifySocket {
    /// What NOTIFY_SOCKET of this process says; `None` without one.
    ///
    /// # Errors
    /// It is neither a path nor an abstract name.
    pub fn from_env() -> Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        match name.as_bytes().first() {
            Some(b'/' | b'@') => Ok(Some(NotifySocket(name))),
            _ => Err(Error::unsupported(format!(
                "NOTIFY_SOCKET={name:?}: neither a path nor an abstract name"
            ))),
        }
    }

    /// Gives the container a directory for its own socket.
    pub(super) fn share(&self, plan: &mut Plan, state: &Path) {
        let attrs = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let attrs = AttrChange::setting(attrs);
        plan.mounts.push(MountPlan::bind(state.join(DIRECTORY), INSIDE.into(), attrs));
        let env = &mut plan.process.env;
        env.retain(|entry| !entry.as_bytes().starts_with(b"NOTIFY_SOCKET="));
        env.extend(CString::new(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}")));
    }

    fn address(&self) -> Result<UnixAddr> {
        let bytes = self.0.as_bytes();
        Ok(match bytes.strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name)?,
            None => UnixAddr::new(Path::new(&self.0))?,
        })
    }

    /// Says that the program is ready and, if it is to be watched by itself,
    /// which process it is; returns once the manager has heard it.
    fn say_ready(&self, main: Option<Pid>) -> Result<()> {
        let step = || format!("NOTIFY_SOCKET {:?}", self.0);
        let to = datagram().step(step)?;
        connect(to.as_raw_fd(), &self.address().step(step)?).step(step)?;
        let text = match main {
            Some(pid) => format!("MAINPID={pid}\nREADY=1"),
            None => "READY=1".to_owned(),
        };
        send(to.as_fd(), text.as_bytes(), None).step(step)?;
        // the manager looks at who has spoken, and forgets the words of a
        // process that has ended: wait until it has closed this pipe
        let (heard, end) = pipe2(OFlag::O_CLOEXEC)?;
        send(to.as_fd(), b"BARRIER=1", Some(end.as_fd())).step(step)?;
        drop(end);
        let patience = PollTimeout::from(BARRIER_PATIENCE);
        let closed = || poll(&mut [PollFd::new(heard.as_fd(), PollFlags::POLLIN)], patience);
        uninterrupted(closed).step(step)?;
        Ok(())
    }
}

fn datagram() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

fn send(to: BorrowedFd<'_>, text: &[u8], fd: Option<BorrowedFd<'_>>) -> nix::Result<usize> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|fds| [ControlMessage::ScmRights(fds)]);
    let control = rights.as_ref().map(|r| r.as_slice()).unwrap_or_default();
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(text)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Makes the directory that [`NotifySocket::share`] gives to the container.
pub(super) fn make_directory(entry: &Entry) -> Result<()> {
    let step = || format!("mkdir {DIRECTORY} in the state directory");
    let mode = Mode::from_bits_truncate(0o755);
    mkdirat(entry.dir(), DIRECTORY, mode).step(step)?;
    // whatever the caller's umask is
    fchmodat(entry.dir(), DIRECTORY, mode, FchmodatFlags::FollowSymlink).step(step)
}

/// The container's socket, with this process at its end.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    manager: NotifySocket,
}

impl Listener {
    /// Binds the container's socket; `None` if it was created without one.
    pub(super) fn bind(entry: &Entry, manager: NotifySocket) -> Result<Option<Self>> {
        let step = || "the container's notify socket";
        // by descriptor: a path in a sockaddr has 108 bytes
        let path = format!("/proc/self/fd/{}/{DIRECTORY}/{SOCKET}", entry.dir().as_raw_fd());
        match unlinkat(AT_FDCWD, path.as_str(), UnlinkatFlags::NoRemoveDir) {
            // of a start that was killed
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(Error::from(e).step(step())),
        }
        let socket = datagram().step(step)?;
        match bind(socket.as_raw_fd(), &UnixAddr::new(path.as_str()).step(step)?) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.step(step)?,
        }
        // the program may be any user
        let mode = Mode::from_bits_truncate(0o777);
        fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink).step(step)?;
        Ok(Some(Listener { socket, manager }))
    }

    /// Reads one message and passes READY=1 on; true when it was in it.
    pub(super) fn relay(&self, main: Option<Pid>) -> Result<bool> {
        let mut buffer = [0u8; 4096];
        // descriptors that come along are dropped: that is what a barrier waits for
        let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            other => other.step(|| "read the container's notify socket")?,
        };
        let message = buffer.get(..length).unwrap_or_default();
        let is_ready = message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
        if is_ready && let Err(e) = self.manager.say_ready(main) {
            // a manager that has gone is no reason to end the container
            crate::logging::warn(&format!("the program is ready, but: {e}"));
        }
        Ok(is_ready)
    }

    /// Waits until the program is ready or has ended.
    pub fn wait(&self, init: BorrowedFd<'_>, pid: Pid) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
                PollFd::new(init, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.step(|| "poll")?,
            };
            let [message, end] = fds.map(|fd| fd.any().unwrap_or(false));
            if message && self.relay(Some(pid))? {
                return Ok(());
            }
            if end && !message {
                return Ok(());
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
