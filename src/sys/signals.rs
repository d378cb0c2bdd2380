//! Signals: what a process does with them, and which it holds back.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

use super::SysResult;

/// Gives every standard signal its default action and unblocks all: what the
/// caller of the runtime ignores is nothing that a container should inherit.
pub fn reset_signals() -> SysResult<()> {
    for signal in 1..=31 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        default_signal(signal)?;
    }
    unblock_signals()
}

/// The same for signals that are known to be ignored: bit 0 is signal 1.
pub fn default_signals(ignored: u64) -> SysResult<()> {
    (1..=31).filter(|signal| ignored >> (signal - 1) & 1 == 1).try_for_each(default_signal)
}

/// Unblocks all signals.
///
/// By sigprocmask: pthread_sigmask gives its errno back, where nix's
/// `thread_set_mask` does not look for it.
pub fn unblock_signals() -> SysResult<()> {
    let none = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None)
}

/// All signals that the kernel knows. What a C library calls all leaves out those
/// that it uses between threads, and with musl one that others use is among them.
pub fn all_signals() -> SigSet {
    // SAFETY: an all-zero set is the empty one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel's set is one of 64 bits, with which every sigset_t begins
    // (sigprocmask(2), "C library/kernel differences").
    unsafe {
        (&raw mut set).cast::<u64>().write(u64::MAX);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Blocks these signals as well; as [`unblock_signals`].
pub fn block_signals(set: &SigSet) -> SysResult<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(set), None)
}

/// Waits for any blocked signal; its number, or 0 when interrupted.
pub fn wait_signal() -> i32 {
    let set = all_signals();
    // SAFETY: the set lives through the call; no siginfo is asked for.
    let signal =
        unsafe { libc::sigwaitinfo(std::ptr::from_ref(set.as_ref()), std::ptr::null_mut()) };
    signal.max(0)
}

/// True when this process ignores a signal, by number.
pub fn ignores(signal: i32) -> bool {
    // SAFETY: an all-zero action is a valid place for the answer.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the answer's place lives through the call.
    let ret = unsafe { libc::sigaction(signal, std::ptr::null(), std::ptr::from_mut(&mut action)) };
    ret == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Gives a signal, by number, its default action.
pub fn default_signal(signal: i32) -> SysResult<()> {
    // SAFETY: the default action runs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// Has a signal end this process, even a pid 1, with the exit code 128 and its number. Up
/// to the next execve, which gives it its default action again (execve(2)).
pub fn exit_at(signal: Signal) -> SysResult<()> {
    extern "C" fn leave(signal: libc::c_int) {
        super::process::exit_now(128 + signal)
    }
    let leave = SigAction::new(SigHandler::Handler(leave), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call, and does not come back.
    unsafe { sigaction(signal, &leave) }.map(drop)
}

/// Has a signal, by number, do nothing.
pub fn ignore_signal(signal: i32) -> SysResult<()> {
    // SAFETY: ignoring runs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// Has a command hear the signals that this process holds back.
pub fn unblock_signals_of(command: &mut Command) {
    // SAFETY: one system call, and an error that is a number.
    unsafe { command.pre_exec(|| Ok(unblock_signals()?)) };
}
