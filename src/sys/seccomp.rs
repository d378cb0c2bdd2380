//! seccomp(2): a filter of system calls for this process and all that come of it.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{SysResult, check};

const SET_MODE_FILTER: libc::c_uint = 1;

/// Every thread of the process gets the filter.
pub const FLAG_TSYNC: u32 = 1;
/// Actions but ALLOW are logged.
pub const FLAG_LOG: u32 = 1 << 1;
/// No mitigation of speculative store bypass for the filter's sake.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// A descriptor on which calls with NOTIFY arrive (Linux 5.0).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// What is being answered can be interrupted by a deadly signal only (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// One instruction of classic BPF (struct sock_filter).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// The operation.
    pub code: u16,
    /// How many instructions a jump leaves out when its test is true.
    pub yes: u8,
    /// How many when it is false.
    pub no: u8,
    /// The constant.
    pub k: u32,
}

/// struct sock_fprog
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    insns: *const Insn,
}

/// Loads a filter. With [`FLAG_NEW_LISTENER`] there is a descriptor in the
/// answer (close-on-exec).
///
/// # Errors
/// EACCES without no_new_privs and CAP_SYS_ADMIN; EINVAL for flags or a program
/// that the kernel does not take.
pub fn load(insns: &[Insn], flags: u32) -> SysResult<Option<OwnedFd>> {
    let len = libc::c_ushort::try_from(insns.len()).map_err(|_too_long| Errno::E2BIG)?;
    let program = Program { len, insns: insns.as_ptr() };
    // SAFETY: the struct is that of the kernel, and it and the instructions,
    // whose number goes with it, live through the call.
    let ret = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(ret).map_err(|_range| Errno::EBADF)?;
    // SAFETY: the call has just returned it, and nobody else has it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
