//! The word that counts: in its memory, so that only a process that goes on knows how
//! far it has got.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::raw::c_int;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use crate::sys::{self, print_line};
use crate::waiting::{block_all, next_signal};

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    match (word, args) {
        ("count", way) => Some(match way_of(way)? {
            Ok(way) => count(way),
            Err(e) => failed(&e),
        }),
        ("lock", [path]) => Some(match lock(path) {
            Ok(_held) => {
                print_line("ok");
                0
            }
            Err(e) => failed(&e),
        }),
        _ => None,
    }
}

fn failed(e: &std::io::Error) -> c_int {
    print_line(&sys::io_name(e));
    1
}

/// What each count goes through before it is printed; it keeps what it needs open.
type Way = Box<dyn FnMut(u8) -> std::io::Result<u8>>;

fn way_of(words: &[&str]) -> Option<std::io::Result<Way>> {
    Some(match words {
        [] => Ok(Box::new(Ok)),
        ["tcp"] => by_connection(),
        ["lock", path] => lock(path).map(holding),
        ["queue"] => with_a_queue(),
        ["unix", path] => by_datagrams(path),
        ["unlinked", path, other] => by_file(path, other),
        _ => return None,
    })
}

/// READY, then COUNT N for each SIGUSR1; SIGTERM ends with the count.
fn count(mut way: Way) -> c_int {
    let set = block_all();
    let mut count: u8 = 0;
    print_line("READY");
    loop {
        match next_signal(&set) {
            libc::SIGUSR1 => count += 1,
            libc::SIGTERM => return c_int::from(count),
            _ => continue,
        }
        match way(count) {
            Ok(heard) => print_line(&format!("COUNT {heard}")),
            Err(e) => print_line(&sys::io_name(&e)),
        }
    }
}

fn holding<T: 'static>(kept: T) -> Way {
    Box::new(move |count| {
        // all of it is the closure's, not only what it uses
        let _kept = &kept;
        Ok(count)
    })
}

/// Through both ends of a connection by way of the loopback device.
fn by_connection() -> std::io::Result<Way> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ours = TcpStream::connect(listener.local_addr()?)?;
    let (mut theirs, _) = listener.accept()?;
    Ok(Box::new(move |count| {
        let mut heard = [count];
        ours.write_all(&heard).and_then(|()| theirs.read_exact(&mut heard))?;
        Ok(heard[0])
    }))
}

/// With a caller that nobody has accepted, and that has gone.
fn with_a_queue() -> std::io::Result<Way> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    drop(TcpStream::connect(listener.local_addr()?)?);
    Ok(holding(listener))
}

/// Each count as a datagram to a socket that somebody else has bound.
fn by_datagrams(path: &str) -> std::io::Result<Way> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(Box::new(move |count| socket.send(&[count]).map(|_| count)))
}

/// Into an open file that has lost the name that it was opened by, and has another one.
fn by_file(path: &str, other: &str) -> std::io::Result<Way> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::hard_link(path, other)?;
    std::fs::remove_file(path)?;
    Ok(Box::new(move |count| file.write_all_at(&[b'0' + count], 0).map(|()| count)))
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
