//! Terminals: one for a foreground `run`, and the socket that receives one.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

use super::{Invocation, Pipe, is_readable};

/// A pty whose other side is a command's stdio and controlling terminal.
pub struct Terminal {
    /// What the command writes
    pub output: Pipe,
    master: std::fs::File,
    slave: OwnedFd,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Self {
        let pty = openpty(Some(&size(rows, columns)), None).unwrap();
        Terminal {
            output: Pipe::new(pty.master.try_clone().unwrap()),
            master: pty.master.into(),
            slave: pty.slave,
        }
    }

    /// The side that is a command's.
    pub fn side(&self) -> OwnedFd {
        self.slave.try_clone().unwrap()
    }

    /// What a command writes, up to the end of the last that has the other side.
    pub fn into_output(self) -> Pipe {
        self.output
    }

    /// Makes this the command's terminal, as a shell in it would.
    pub fn attach(&self, command: Invocation) -> Invocation {
        let side = || self.side();
        let command = command.stdin(side()).stdout(side()).stderr(side());
        let action = || {
            nix::unistd::setsid()?;
            // SAFETY: stdin is the terminal's other side.
            if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: two system calls, no allocation.
        unsafe { command.before_exec(action) }
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// A probe that waits here gets SIGINT for Ctrl-C.
    #[track_caller]
    pub fn expect_interrupts(&mut self) {
        self.output.expect("READY");
        self.type_in("\u{3}");
        let mut line = self.output.line();
        // the echo of the key, and perhaps the size that was set meanwhile
        while line == "GOT SIGWINCH" {
            line = self.output.line();
        }
        assert_eq!(line.trim_start_matches("^C"), "GOT SIGINT");
    }

    /// As a terminal's window does; the kernel sends SIGWINCH to the
    /// foreground process group.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(self.master.as_raw_fd(), size(rows, columns));
    }

    /// The same with the size of the window in pixels.
    pub fn resize_with_pixels(&self, (rows, columns): (u16, u16), (width, height): (u16, u16)) {
        let size = Winsize { ws_xpixel: width, ws_ypixel: height, ..size(rows, columns) };
        resize(self.master.as_raw_fd(), size);
    }

    pub fn attributes(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// Raw mode: no echo, no lines, no signals by keys.
    pub fn is_raw(&self) -> bool {
        let flags = self.attributes().local_flags;
        !flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn resize(terminal: RawFd, size: Winsize) {
    // SAFETY: the request reads a winsize.
    let result = unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The descriptor that the next caller of this socket sends.
pub fn receive_fd(listener: &UnixListener) -> OwnedFd {
    assert!(is_readable(listener, super::timeout()), "no one calls");
    let (stream, _) = listener.accept().unwrap();
    assert!(is_readable(&stream, super::timeout()), "no one sends");
    let mut data = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut data)];
    let mut room = nix::cmsg_space!([RawFd; 4]);
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
            .unwrap();
    let fds: Vec<RawFd> = message
        .cmsgs()
        .unwrap()
        .flat_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(fds.len(), 1, "one descriptor, the terminal's");
    // SAFETY: the kernel has just installed it for us.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}
