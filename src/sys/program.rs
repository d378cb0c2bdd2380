//! The program's beginning and end, in place of the standard library's.
//!
//! That one also makes a stack for a handler of stack overflows, for which it
//! reads /proc/self/maps: some twenty system calls in each start of a program
//! that makes five hundred.

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::SysResult;
use super::signals::ignore_signal;

/// Makes `main` of a function that gives the exit code.
#[macro_export]
macro_rules! main_is {
    ($body:path) => {
        // SAFETY: the C library's start looks for this name, and for a function
        // of this shape behind it.
        #[unsafe(no_mangle)]
        extern "C" fn main(count: i32, words: *const *const core::ffi::c_char) -> i32 {
            // SAFETY: the C library hands over what the kernel gave it.
            unsafe { $crate::sys::program::keep_words(count, words) };
            $crate::sys::program::run($body)
        }
    };
}

pub use main_is;

/// The command line: how many words, and where their addresses are.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Notes where the command line is, for [`words`].
///
/// # Safety
/// Behind `words` are the addresses of `count` words that end with a NUL, for the
/// rest of the process' life.
pub unsafe fn keep_words(count: c_int, words: *const *const c_char) {
    COUNT.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
    WORDS.store(words.cast_mut(), Ordering::Relaxed);
}

/// The words of the command line, the program's name first. The standard library
/// knows them only by a favour of glibc's, or from a `main` of its own.
pub fn words() -> impl Iterator<Item = &'static CStr> {
    let first = WORDS.load(Ordering::Relaxed);
    // SAFETY: as `keep_words` was promised; without it, the count is 0.
    (0..COUNT.load(Ordering::Relaxed)).map(move |i| unsafe { CStr::from_ptr(first.add(i).read()) })
}

/// Runs the program: see [`main_is!`].
pub fn run(body: impl FnOnce() -> u8) -> i32 {
    // whoever writes into a closed pipe is told so
    let prepared = open_missing().and_then(|()| ignore_signal(libc::SIGPIPE));
    let code = match prepared {
        Ok(()) => body(),
        Err(_no_way_to_tell) => 1,
    };
    // what could not be written has been said, or could not be
    std::io::stdout().flush().unwrap_or_default();
    i32::from(code)
}

/// Puts /dev/null where the caller has closed stdin, stdout or stderr: else the
/// next file that is opened would be taken for it.
fn open_missing() -> SysResult<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    super::uninterrupted(|| {
        // SAFETY: the three structures live through the call.
        match unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) } {
            -1 => Err(Errno::last()),
            _ => Ok(()),
        }
    })?;
    for _missing in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // the lowest number that is free, and kept for ever
        std::mem::forget(open("/dev/null", OFlag::O_RDWR, Mode::empty())?);
    }
    Ok(())
}
