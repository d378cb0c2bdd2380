//! A connection to a bus: one socket, one thread, and a deadline on every wait.

use std::collections::VecDeque;
use std::io::{ErrorKind as IoKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::address;
use super::wire::{self, Call, Encoder, Kind, Message};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::uninterrupted;

/// Most bytes that a bus may say before it lets us in.
const LONGEST_GREETING: usize = 4096;

const BUS: &str = "org.freedesktop.DBus";

/// A connection that is let in and has its name.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    patience: Duration,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

/// What a call came to: an answer, or the name and the words of an error.
pub(super) type Answer = std::result::Result<Message, Refusal>;

/// An error that the other side has answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `org.freedesktop.systemd1.NoSuchUnit`
    pub(super) name: String,
    /// What it says to people.
    pub(super) text: String,
}

impl Refusal {
    /// Whether its words name this property (or whatever it is).
    pub(super) fn speaks_of(&self, name: &str) -> bool {
        self.text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name)
    }

    /// As an error of ours.
    pub(super) fn error(self) -> Error {
        let Refusal { name, text } = self;
        let text = if text.is_empty() { name } else { text };
        let text = crate::error::lower_first(text.trim_end_matches('.'));
        Error::new(ErrorKind::System, text)
    }
}

impl Connection {
    /// Connects to the bus at `address` and says hello. `patience` is how long
    /// any one answer may take.
    ///
    /// # Errors
    /// Nobody listens there, it does not let this user in, or it does not answer.
    pub(super) fn open(address: &str, patience: Duration) -> Result<Self> {
        let stream = reach(address, patience)?;
        let mut bus = Connection { stream, patience, serial: 0, signals: VecDeque::new() };
        bus.authenticate()
            .and_then(|()| {
                let hello = bus.send(&bus_call("Hello", "", &[]))?;
                bus.await_answer(hello)?.map_err(Refusal::error)
            })
            .step(|| format!("the bus at {address}"))?;
        Ok(bus)
    }

    /// SASL's EXTERNAL without a user id: the kernel tells the bus who this is,
    /// which is right in a user namespace as well, where our own number is not.
    fn authenticate(&mut self) -> Result<()> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + self.patience;
        let mut line = Vec::new();
        let mut total = 0;
        // a byte at a time: what is behind the last line is a message
        loop {
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            total += 1;
            if total > LONGEST_GREETING {
                return Err(Error::new(ErrorKind::System, "what it says is no greeting of D-Bus"));
            }
            line.extend(byte);
            if !line.ends_with(b"\r\n") {
                continue;
            }
            match line.get(..3) {
                // it asks for data, and has them already
                Some(b"DAT") => line.clear(),
                Some(b"OK ") => return Ok(()),
                _ => {
                    let said = String::from_utf8_lossy(&line).trim_end().to_owned();
                    return Err(Error::new(ErrorKind::System, said).step("it does not let us in"));
                }
            }
        }
    }

    /// Asks for signals that fit a rule (D-Bus specification, Match Rules).
    ///
    /// # Errors
    /// The bus refuses, or does not answer.
    pub(super) fn watch(&mut self, rule: &str) -> Result<()> {
        let mut body = Encoder::default();
        body.str(rule);
        self.call(&bus_call("AddMatch", "s", &body.finish()))?
            .map(drop)
            .map_err(|refusal| refusal.error().step("watch for signals"))
    }

    /// Calls a method and waits for the answer.
    ///
    /// # Errors
    /// The bus is gone or does not answer in time. That the other side refuses
    /// is an [`Answer`].
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Answer> {
        let step = || format!("{}: {}", call.destination, call.member);
        let serial = self.send(call).step(step)?;
        self.await_answer(serial).step(step)
    }

    /// The next signal.
    ///
    /// # Errors
    /// The bus is gone, or none came before the deadline.
    pub(super) fn await_signal(&mut self, deadline: Instant) -> Result<Message> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.receive(deadline)?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    /// How long one answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    fn send(&mut self, call: &Call<'_>) -> Result<u32> {
        self.serial += 1;
        self.write(&call.encode(self.serial))?;
        Ok(self.serial)
    }

    fn await_answer(&mut self, serial: u32) -> Result<Answer> {
        let deadline = Instant::now() + self.patience;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                Kind::Return if message.answers == serial => return Ok(Ok(message)),
                Kind::Error if message.answers == serial => {
                    let text = message.body().string().unwrap_or_default();
                    return Ok(Err(Refusal { name: message.error, text }));
                }
                Kind::Signal => self.signals.push_back(message),
                // nobody has a call to make here, and no other answer is due
                Kind::Return | Kind::Error | Kind::Call => {}
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let malformed = |why| Error::new(ErrorKind::System, why);
        let mut bytes = vec![0; wire::FIXED];
        self.read(&mut bytes, deadline)?;
        let length = wire::length(&bytes).map_err(malformed)?;
        bytes.resize(length, 0);
        self.read(bytes.get_mut(wire::FIXED..).unwrap_or_default(), deadline)?;
        Message::decode(&bytes).map_err(malformed)
    }

    /// Fills the buffer.
    fn read(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_answer(self.patience));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(Error::new(ErrorKind::System, "it has hung up")),
                Ok(read) => buffer = buffer.get_mut(read..).unwrap_or_default(),
                // the time is up, or a signal came: the loop tells which
                Err(e) if matches!(e.kind(), IoKind::WouldBlock | IoKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|e| match e.kind() {
            IoKind::WouldBlock => no_answer(self.patience),
            _ => e.into(),
        })
    }
}

fn bus_call<'a>(member: &'a str, signature: &'a str, body: &'a [u8]) -> Call<'a> {
    Call {
        destination: BUS,
        path: "/org/freedesktop/DBus",
        interface: BUS,
        member,
        signature,
        body,
    }
}

fn no_answer(patience: Duration) -> Error {
    Error::from(Errno::ETIMEDOUT).step(format!("no answer within {} s", patience.as_secs_f32()))
}

/// The first socket of the address at which somebody listens.
fn reach(address: &str, patience: Duration) -> Result<UnixStream> {
    let mut last = Error::from(Errno::ENOENT);
    for socket in address::sockets(address)? {
        match reach_one(&socket, patience) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last.step(format!("connect to the bus at {address}")))
}

fn reach_one(address: &UnixAddr, patience: Duration) -> Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // for connect as well, which waits while the queue of a bus that hangs is full
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    let timeout = TimeVal::new(seconds, i64::from(patience.subsec_micros()));
    setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    match uninterrupted(|| connect(fd.as_raw_fd(), address)) {
        Ok(()) => Ok(UnixStream::from(fd)),
        Err(Errno::EAGAIN) => Err(no_answer(patience)),
        Err(errno) => Err(errno.into()),
    }
}
