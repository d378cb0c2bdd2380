//! What the runtime and the container's init say to each other.
//!
//! One SEQPACKET socket pair for `create` and `run`; a listening SEQPACKET
//! socket in the state directory for `start`. One packet is one message.
//!
//! | from init | answer | when |
//! |---|---|---|
//! | `MapIds` | `Go` | it is in a new user namespace and needs its id mappings |
//! | `AwaitCgroup` | `Go` | it was not born in its cgroup, and must be in there now |
//! | `RunHooks` | `Go` | namespaces and mounts are there, pivot_root comes next |
//! | `MakeDevice` | `Go` + fd | a device node that init may not make |
//! | `OpenSource` | `Go` + fd | a bind mount's source that init may not look at, or whose owners it may not change; with init's user namespace, if they are to become its ids |
//! | `OpenRoot` | `Go` + fd | the root's directory, if init may not look at it |
//! | `RaiseLimits` | `Go` | a hard limit is to be raised, and init may not |
//! | `Console` + fd | none | the master of the new pty |
//! | `Ready` | `Proceed` | everything but the program's start is done |
//! | `Ready` | `Go` | the same from a process of `exec`, if the runtime has something to do then |
//! | `Executing` | none | started: the filter and execve are the next things it does |
//! | `Listener` + fd | none | the filter is loaded; somebody answers calls by this |
//! | `Failed` | none | a step failed; init is about to exit |
//!
//! A runtime that has nothing to do between the two says `Proceed` in advance, at any
//! time: an init that has heard it when everything is done does not stop to ask, and
//! the next that it says is `Executing`.
//!
//! Where a second fork makes the init, the helper in between has a socket pair
//! of its own and says one thing on it: `Moved` (init's pid, with its pidfd) or
//! `Failed`.
//!
//! The end of the stream right after `Executing` means that execve succeeded
//! (the socket is close-on-exec); anywhere else, that init died.
//! Init takes an end of the stream for the death of the runtime and exits.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::interrupts::Interrupts;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::uninterrupted;
use crate::trace;

/// Most bytes of a packet: an error's line and its frame.
const MAX_PACKET: usize = 32 << 10;

/// Most bytes of an error's line on its way; escaped, it may be six times that.
const MAX_ERROR: usize = 4 << 10;

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Message {
    MapIds,
    AwaitCgroup,
    RunHooks,
    OpenSource(usize),
    MakeDevice(usize),
    OpenRoot,
    RaiseLimits,
    Console,
    Moved(i32),
    Ready,
    /// With the signals, as bits, that init has inherited as ignored ones.
    Proceed(Ignored),
    Executing,
    Listener,
    Go,
    Failed(Error),
}

impl Message {
    /// The same message, short enough for a packet: names in an error may be
    /// as long as the config likes.
    fn bounded(&self) -> std::borrow::Cow<'_, Message> {
        match self {
            Message::Failed(error) if error.to_string().len() > MAX_ERROR => {
                std::borrow::Cow::Owned(Message::Failed(error.clone().shortened(MAX_ERROR)))
            }
            other => std::borrow::Cow::Borrowed(other),
        }
    }
}

/// Signals that a process ignores: bit 0 is signal 1.
pub(crate) type Ignored = u64;

/// What came of a start.
#[derive(Debug)]
pub(crate) enum Started {
    /// Init runs the container's program.
    Executed,
    /// It does not, and is about to exit.
    Failed(Error),
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    /// Said before it was asked for.
    proceed: Cell<Option<Ignored>>,
}

impl Channel {
    /// Both ends: the runtime's and init's.
    pub(crate) fn pair() -> Result<(Channel, Channel)> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel::from_socket(a), Channel::from_socket(b)))
    }

    /// A connection that `start` or init's listener has made.
    pub(crate) fn from_socket(socket: OwnedFd) -> Channel {
        Channel { socket, proceed: Cell::new(None) }
    }

    /// Sends a message.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        self.send_with(message, None)
    }

    /// Sends a message, and a descriptor with it.
    pub(crate) fn send_with(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let bytes = serde_json::to_vec(&message.bounded()).map_err(|e| {
            Error::new(ErrorKind::System, format!("encode a message to the other side: {e}"))
        })?;
        let raw = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = raw.as_ref().map(|fds| [ControlMessage::ScmRights(fds)]);
        let control = rights.as_ref().map(|r| r.as_slice()).unwrap_or_default();
        let slices = [IoSlice::new(&bytes)];
        let socket = self.socket.as_raw_fd();
        uninterrupted(|| sendmsg::<()>(socket, &slices, control, MsgFlags::MSG_NOSIGNAL, None))
            .map(drop)
            .step(|| "send a message to the other side")
    }

    /// Waits for a message; `None` at the end of the stream.
    pub(crate) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>> {
        self.receive_with(MsgFlags::empty())
    }

    /// A message that is there already.
    pub(crate) fn receive_now(&self) -> Result<Option<(Message, Option<OwnedFd>)>> {
        match self.receive_with(MsgFlags::MSG_DONTWAIT) {
            Err(e) if e.is_errno(Errno::EAGAIN) => Ok(None),
            other => other,
        }
    }

    fn receive_with(&self, flags: MsgFlags) -> Result<Option<(Message, Option<OwnedFd>)>> {
        let mut buffer = vec![0u8; MAX_PACKET];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, fd) = loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                // the other side has ended with our last message unread. The kernel
                // says so once, before its last words
                Err(Errno::ECONNRESET) => {}
                Err(e) => return Err(Error::from(e).step("wait for the other side")),
                Ok(received) => break (received.bytes, first_fd(&received)?),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(buffer.get(..length).unwrap_or_default());
        let message = message.map_err(|e| {
            Error::new(ErrorKind::System, format!("a message from the other side: {e}"))
        })?;
        Ok(Some((message, fd)))
    }

    /// The runtime's side, after the start: waits until init runs its program,
    /// or says why not, and passes on the listener of its filter. `executing`: it has
    /// said already that it is about to.
    ///
    /// # Errors
    /// Init can't be heard, `pass_on` fails, or a signal has come: whether its
    /// program runs is not known.
    pub(crate) fn await_execve(
        &self,
        pass_on: Option<impl FnOnce(OwnedFd) -> Result<()>>,
        interrupts: Option<&Interrupts>,
        executing: bool,
    ) -> Result<Started> {
        let died = "the container's init died before its program ran";
        self.serve_until_execve(pass_on, interrupts, (executing, died), |_, _| {
            Err(Error::new(ErrorKind::System, "init spoke out of turn"))
        })
    }

    /// The same for a process that has more to say before: `serve` gets that, and
    /// `died` is for one that says nothing more.
    ///
    /// # Errors
    /// What `serve` fails with, too.
    pub(crate) fn serve_until_execve(
        &self,
        mut pass_on: Option<impl FnOnce(OwnedFd) -> Result<()>>,
        interrupts: Option<&Interrupts>,
        (mut executing, died): (bool, &str),
        mut serve: impl FnMut(Message, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Started> {
        loop {
            if let Some(interrupts) = interrupts {
                interrupts.wait_for(self.socket.as_fd())?;
            }
            match self.receive()? {
                None if executing && pass_on.is_none() => {
                    trace::ended(false);
                    return Ok(Started::Executed);
                }
                None => {
                    trace::ended(true);
                    let died = Error::new(ErrorKind::State, died).step("wait for the program");
                    return Ok(Started::Failed(died));
                }
                Some((Message::Executing, _)) => executing = true,
                Some((Message::Listener, Some(fd))) => match pass_on.take() {
                    Some(pass_on) => pass_on(fd)?,
                    None => return Err(Error::new(ErrorKind::System, "init spoke out of turn")),
                },
                Some((Message::Failed(error), _)) => {
                    trace::ended(true);
                    return Ok(Started::Failed(error));
                }
                Some((other, fd)) => serve(other, fd)?,
            }
        }
    }

    /// Init's side: sends a message and waits for `Go`.
    pub(crate) fn ask(&self, message: &Message) -> Result<()> {
        self.ask_for(message, None).map(drop)
    }

    /// Init's side: the same, for the descriptor that comes with the answer; one
    /// may go with the question.
    pub(crate) fn ask_for(
        &self,
        message: &Message,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Option<OwnedFd>> {
        self.send_with(message, fd)?;
        loop {
            match self.receive()? {
                Some((Message::Go, fd)) => return Ok(fd),
                Some((Message::Proceed(ignored), _)) => self.proceed.set(Some(ignored)),
                other => return Err(no_answer(other, message)),
            }
        }
    }

    /// Init's side: says that it is ready, and waits until it may go on, unless it was
    /// told so before. The answer is what it ignores.
    pub(crate) fn ask_to_proceed(&self) -> Result<Ignored> {
        if let Some(ignored) = self.proceed.take() {
            return Ok(ignored);
        }
        match self.receive_now()? {
            Some((Message::Proceed(ignored), _)) => return Ok(ignored),
            // the end of the stream is seen again
            None => {}
            other => return Err(no_answer(other, &Message::Ready)),
        }
        self.send(&Message::Ready)?;
        match self.receive()? {
            Some((Message::Proceed(ignored), _)) => Ok(ignored),
            other => Err(no_answer(other, &Message::Ready)),
        }
    }
}

fn no_answer(received: Option<(Message, Option<OwnedFd>)>, to: &Message) -> Error {
    let what = match received {
        Some((other, _)) => format!("the runtime answered {other:?} to {to:?}"),
        None => "the runtime has died".to_owned(),
    };
    Error::new(ErrorKind::System, what)
}

fn first_fd(received: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Result<Option<OwnedFd>> {
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            return Ok(crate::sys::process::adopt_fd(*fd));
        }
    }
    Ok(None)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
