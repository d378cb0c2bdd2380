//! System calls and their names, without a Rust runtime's opinion.

use std::ffi::CString;
use std::io::{Error, Write};
use std::os::raw::c_int;

/// One line on stdout; a closed stdout is the reader's decision, not an error.
pub(crate) fn print_line(text: &str) {
    write_all(1, format!("{text}\n").as_bytes());
}

/// One line on stderr.
pub(crate) fn eprint_line(text: &str) {
    write_all(2, format!("{text}\n").as_bytes());
}

/// Writes everything, by write(2) only: std's stdout would keep a partial line.
pub(crate) fn write_all(fd: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length describe `bytes`.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) if last_errno() == libc::EINTR => {}
            Err(_) => return,
        }
    }
}

pub(crate) fn last_errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn cstring(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// The result of a call that answers -1 on error: `ok` or the errno's name.
pub(crate) fn verdict(result: c_int) -> Result<(), String> {
    if result < 0 {
        return Err(errno_name(last_errno()));
    }
    Ok(())
}

/// The same for std's errors.
pub(crate) fn io_name(e: &Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), errno_name)
}

/// Appends a line to a file in one write, so that several writers don't mix.
pub(crate) fn append_line(path: &str, line: &str) -> Result<(), Error> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(format!("{line}\n").as_bytes())
}

macro_rules! names {
    ($value:expr, $($name:ident)*) => {
        match $value {
            $(v if v == libc::$name => Some(stringify!($name)),)*
            _ => None,
        }
    };
}

pub(crate) fn errno_name(errno: i32) -> String {
    names!(errno, EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM
        EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE
        ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE ENAMETOOLONG ENOSYS ENOTEMPTY
        ELOOP EOPNOTSUPP EADDRINUSE EOVERFLOW EUSERS EDQUOT ENOTCONN ECONNRESET ECONNREFUSED)
    .map_or_else(|| format!("errno {errno}"), str::to_owned)
}

const SIGNALS: [(&str, c_int); 31] = [
    ("SIGHUP", libc::SIGHUP),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGILL", libc::SIGILL),
    ("SIGTRAP", libc::SIGTRAP),
    ("SIGABRT", libc::SIGABRT),
    ("SIGBUS", libc::SIGBUS),
    ("SIGFPE", libc::SIGFPE),
    ("SIGKILL", libc::SIGKILL),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGSEGV", libc::SIGSEGV),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGPIPE", libc::SIGPIPE),
    ("SIGALRM", libc::SIGALRM),
    ("SIGTERM", libc::SIGTERM),
    ("SIGSTKFLT", libc::SIGSTKFLT),
    ("SIGCHLD", libc::SIGCHLD),
    ("SIGCONT", libc::SIGCONT),
    ("SIGSTOP", libc::SIGSTOP),
    ("SIGTSTP", libc::SIGTSTP),
    ("SIGTTIN", libc::SIGTTIN),
    ("SIGTTOU", libc::SIGTTOU),
    ("SIGURG", libc::SIGURG),
    ("SIGXCPU", libc::SIGXCPU),
    ("SIGXFSZ", libc::SIGXFSZ),
    ("SIGVTALRM", libc::SIGVTALRM),
    ("SIGPROF", libc::SIGPROF),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGIO", libc::SIGIO),
    ("SIGPWR", libc::SIGPWR),
    ("SIGSYS", libc::SIGSYS),
];

pub(crate) fn signal_name(signal: c_int) -> String {
    SIGNALS
        .iter()
        .find(|(_, number)| *number == signal)
        .map_or_else(|| signal.to_string(), |(name, _)| (*name).to_owned())
}

pub(crate) fn signal_number(name: &str) -> Option<c_int> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name || known.strip_prefix("SIG") == Some(name))
        .map(|(_, number)| *number)
        .or_else(|| name.parse().ok())
}

/// A set with every signal in it.
pub(crate) fn all_signals() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is a valid one, and sigfillset only fills it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}
