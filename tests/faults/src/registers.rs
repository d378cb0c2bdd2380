//! A system call in the registers of a stopped process.

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// Number and arguments of the call that a process is about to make.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call(pid: Pid) -> Result<(i64, [u64; 6])> {
    let r = nix::sys::ptrace::getregs(pid)?;
    Ok((r.orig_rax.cast_signed(), [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]))
}

/// Puts a number that no call has in the place of the call: nothing happens.
#[cfg(target_arch = "x86_64")]
pub(crate) fn skip(pid: Pid) -> Result<()> {
    let mut r = nix::sys::ptrace::getregs(pid)?;
    r.orig_rax = u64::MAX;
    nix::sys::ptrace::setregs(pid, r)
}

/// What the call that has just ended gives back.
#[cfg(target_arch = "x86_64")]
pub(crate) fn result(pid: Pid) -> Result<i64> {
    Ok(nix::sys::ptrace::getregs(pid)?.rax.cast_signed())
}

/// Makes the call that has just ended give back this errno.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fail(pid: Pid, errno: Errno) -> Result<()> {
    let mut r = nix::sys::ptrace::getregs(pid)?;
    r.rax = i64::from(-(errno as i32)).cast_unsigned();
    nix::sys::ptrace::setregs(pid, r)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn call(_pid: Pid) -> Result<(i64, [u64; 6])> {
    Err(Errno::ENOSYS)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn skip(_pid: Pid) -> Result<()> {
    Err(Errno::ENOSYS)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn result(_pid: Pid) -> Result<i64> {
    Err(Errno::ENOSYS)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn fail(_pid: Pid, _errno: Errno) -> Result<()> {
    Err(Errno::ENOSYS)
}
