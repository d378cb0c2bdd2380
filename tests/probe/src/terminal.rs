//! Words for which stdin or stdout is a terminal, and for more than a line of text.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::raw::c_int;

use crate::sys::{self, cstring, print_line};
use crate::waiting::fork;

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    let number = || args.first().and_then(|text| text.parse().ok());
    Some(match word {
        "take" => take(number()?),
        "numbers" => numbers(number()?),
        "read-line" => read_line(args.first()?),
        "close-streams" => close_streams(),
        "hold-terminal" => hold_terminal(),
        _ => return None,
    })
}

/// Reads byte by byte as they come: in raw mode, so that lines and their length mean
/// nothing and nothing is echoed.
fn take(bytes: usize) -> c_int {
    make_raw();
    print_line("READY");
    let (mut taken, mut sum) = (0, 0_u64);
    let mut buffer = [0_u8; 4096];
    while taken < bytes {
        // SAFETY: the length is the buffer's.
        let n = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(n @ 1..) = usize::try_from(n) else { break };
        taken += n;
        sum += buffer[..n].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    print_line(&format!("TAKEN {taken} {sum}"));
    0
}

fn make_raw() {
    // SAFETY: an all-zero termios is a place for the answer; both calls take one.
    unsafe {
        let mut mode: libc::termios = std::mem::zeroed();
        libc::tcgetattr(0, &raw mut mode);
        libc::cfmakeraw(&raw mut mode);
        libc::tcsetattr(0, libc::TCSANOW, &raw const mode);
    }
}

fn numbers(most: usize) -> c_int {
    let text: String = (0..=most).map(|n| format!("{n}\n")).collect();
    sys::write_all(1, text.as_bytes());
    0
}

/// Answers where the line has come from.
fn read_line(path: &str) -> c_int {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return 1 };
    let mut line = String::new();
    if BufReader::new(&file).read_line(&mut line).is_err() {
        return 1;
    }
    sys::write_all(file.as_raw_fd(), format!("LINE {line}").as_bytes());
    0
}

fn close_streams() -> c_int {
    // SAFETY: a C string and numbers.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        (0..3).map(|fd| libc::dup2(null, fd)).min().map_or(1, |least| c_int::from(least < 0))
    }
}

/// Ends once the child writes; the child opens the terminal again whenever it is hung up.
fn hold_terminal() -> c_int {
    let Ok(path) = std::fs::read_link("/proc/self/fd/1") else { return 1 };
    let path = cstring(&path.to_string_lossy());
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe(pipe.as_mut_ptr()) } < 0 {
        return 1;
    }
    match fork() {
        Ok(None) => {}
        Ok(Some(_child)) => {
            // SAFETY: one byte of room.
            let n = unsafe { libc::read(pipe[0], [0_u8].as_mut_ptr().cast(), 1) };
            return c_int::from(n != 1);
        }
        Err(_) => return 1,
    }
    // SAFETY: numbers, a C string, and bytes with their length.
    unsafe {
        libc::setsid();
        let mut has_told = false;
        loop {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_NOCTTY);
            if fd < 0 && sys::last_errno() == libc::ENOENT {
                // the master is gone
                libc::_exit(0);
            }
            while libc::write(fd, [b'x'; 4096].as_ptr().cast(), 4096) > 0 {
                if !has_told {
                    libc::write(pipe[1], [b'x'].as_ptr().cast(), 1);
                    has_told = true;
                }
            }
            libc::close(fd);
        }
    }
}
