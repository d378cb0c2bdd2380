//! System calls that no crate wraps safely: the one place with `unsafe`.
//!
//! A function here is one call (or one call and its documented fallback). It
//! takes typed arguments, returns `nix`'s errno, and knows nothing of
//! containers.
#![allow(unsafe_code, reason = "this module is the fence around it")]

pub mod bpf;
pub mod exe;
pub mod fs;
pub mod mount;
pub mod net;
pub mod process;
pub mod seccomp;

use nix::errno::Errno;

/// The result of one system call.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// Turns the return value of `libc::syscall` into a result.
fn check(ret: libc::c_long) -> SysResult<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
