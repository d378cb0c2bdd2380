//! Whether a process stands before or behind a system call.
#![allow(unsafe_code, reason = "a request of ptrace's that nix has for glibc alone")]

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// PTRACE_GET_SYSCALL_INFO (linux/ptrace.h, Linux 5.3).
const GET_SYSCALL_INFO: i64 = 0x420e;

/// Where a process has stopped.
pub(crate) enum Stop {
    Entry,
    Exit,
    Elsewhere,
}

/// Asks where a stopped process is.
pub(crate) fn place(pid: Pid) -> Result<Stop> {
    // struct ptrace_syscall_info: its first byte tells, the rest is not asked for
    let mut op = 0_u8;
    // SAFETY: the kernel writes as many bytes as the third argument says.
    let known = unsafe {
        libc::syscall(libc::SYS_ptrace, GET_SYSCALL_INFO, pid.as_raw(), 1_usize, &raw mut op)
    };
    Errno::result(known)?;
    Ok(match op {
        1 => Stop::Entry,
        2 => Stop::Exit,
        _ => Stop::Elsewhere,
    })
}
