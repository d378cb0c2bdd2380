//! The reading end of a pipe or a terminal, with a deadline on every read.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::is_readable;

/// What the other side has written so far, and what it will write.
pub struct Pipe {
    file: std::fs::File,
    buffer: Vec<u8>,
    ended: bool,
}

/// A pipe; the writing end goes to the process that is watched. Neither end
/// gets into other children.
pub fn pipe() -> (Pipe, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (Pipe::new(reader), writer)
}

impl Pipe {
    /// Reads from this descriptor.
    pub fn new(reader: OwnedFd) -> Self {
        Pipe { file: reader.into(), buffer: Vec::new(), ended: false }
    }

    /// The next line without its end, or None at the end of the pipe.
    pub fn try_line(&mut self) -> Option<String> {
        let deadline = Instant::now() + super::timeout();
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned());
            }
            self.fill(deadline, "a line");
        }
    }

    /// The next line; the test fails at the end of the pipe.
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line, but the pipe has ended")
    }

    /// The next line has to be this one.
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Everything up to the end: the moment when the last process that holds
    /// the writing end is gone.
    pub fn rest(&mut self) -> String {
        let deadline = Instant::now() + super::timeout();
        while !self.ended {
            self.fill(deadline, "the end of the output");
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// True when nothing is there to be read now.
    pub fn is_silent(&mut self) -> bool {
        self.buffer.is_empty() && !is_readable(&self.file, Duration::ZERO)
    }

    fn fill(&mut self, deadline: Instant, what: &str) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            is_readable(&self.file, left),
            "no sign of {what} after {:?}; so far: {:?}",
            super::timeout(),
            String::from_utf8_lossy(&self.buffer)
        );
        let mut chunk = [0; 4096];
        match self.file.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            // the master of a terminal says so when its other side is closed
            Err(e) if e.raw_os_error() == Some(nix::libc::EIO) => self.ended = true,
            Err(e) => panic!("read: {e}"),
        }
    }
}
