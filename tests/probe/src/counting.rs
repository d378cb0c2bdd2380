//! The word that counts: in its memory, so that only a process that goes on knows how
//! far it has got.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::raw::c_int;

use crate::sys::{self, print_line};
use crate::waiting::{block_all, next_signal};

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    match (word, args) {
        ("count", []) => Some(count(None)),
        ("count", ["tcp"]) => Some(with(connection(), |mut ends| count(Some(&mut ends)))),
        ("count", ["lock", path]) => Some(with(lock(path), |_held| count(None))),
        ("lock", [path]) => Some(with(lock(path), |_held| {
            print_line("ok");
            0
        })),
        _ => None,
    }
}

fn with<T>(made: std::io::Result<T>, go_on: impl FnOnce(T) -> c_int) -> c_int {
    match made {
        Ok(it) => go_on(it),
        Err(e) => {
            print_line(&sys::io_name(&e));
            1
        }
    }
}

/// READY, then COUNT N for each SIGUSR1, which goes through the connection if there is
/// one; SIGTERM ends with the count.
fn count(mut ends: Option<&mut (TcpStream, TcpStream)>) -> c_int {
    let set = block_all();
    let mut count: u8 = 0;
    print_line("READY");
    loop {
        match next_signal(&set) {
            libc::SIGUSR1 => count += 1,
            libc::SIGTERM => return c_int::from(count),
            _ => continue,
        }
        let mut heard = [count];
        if let Some((ours, theirs)) = &mut ends {
            let through = ours.write_all(&heard).and_then(|()| theirs.read_exact(&mut heard));
            if let Err(e) = through {
                print_line(&sys::io_name(&e));
                continue;
            }
        }
        print_line(&format!("COUNT {}", heard[0]));
    }
}

/// Both ends of a connection through the loopback device.
fn connection() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    Ok((ours, theirs))
}

/// A lock on a file, if nobody else has one.
fn lock(path: &str) -> std::io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    // SAFETY: numbers only.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(file),
        _ => Err(std::io::Error::last_os_error()),
    }
}
