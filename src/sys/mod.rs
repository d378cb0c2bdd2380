//! System calls that no crate wraps safely: the one place with `unsafe`.
//!
//! A function here is one call (or one call and its documented fallback). It
//! takes typed arguments, returns `nix`'s errno, and knows nothing of
//! containers.
#![allow(unsafe_code, reason = "this module is the fence around it")]

pub mod boot;
pub mod bpf;
pub mod caller;
pub mod copy;
pub mod dirents;
#[cfg(target_arch = "x86_64")]
pub mod entry;
pub mod exe;
pub mod fs;
pub mod lock;
pub mod mount;
pub mod mountinfo;
pub mod net;
pub mod netlink;
pub mod process;
pub mod program;
pub mod remove;
pub mod sched;
pub mod seccomp;
pub mod shared;
pub mod signals;
pub mod spent;
pub mod userns;
pub mod walk;

use nix::errno::Errno;

/// The result of one system call.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// Makes a call again as long as signals interrupt it.
pub fn uninterrupted<T>(mut call: impl FnMut() -> SysResult<T>) -> SysResult<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Turns the return value of `libc::syscall` into a result.
fn check(ret: libc::c_long) -> SysResult<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
