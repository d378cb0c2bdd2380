//! A command as ptrace(2) shows it: call by call, with a signal at one of them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;

use nix::libc;

use crate::support::{Invocation, Output};

/// How many moments of a command are tried, unless `TARE_TEST_WALK=all` asks for
/// each of its system calls.
pub(crate) const MOMENTS: usize = 40;

/// From one moment to the next.
pub(crate) fn stride(calls: usize, most: usize) -> usize {
    let all = std::env::var("TARE_TEST_WALK").is_ok_and(|value| value == "all");
    if all { 1 } else { (calls / most).max(1) }
}

/// Who is killed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Victim {
    /// The command itself
    Runtime,
    /// What it has cloned: the container's init
    Init,
}

/// A command that was traced.
pub(crate) struct Traced {
    /// System calls of the victim, up to its end
    pub(crate) calls: usize,
    /// Whether it got the signal before
    pub(crate) is_signalled: bool,
    /// Of the command
    pub(crate) output: Output,
}

/// Runs the command, and sends the victim a signal when it enters its n-th system call.
pub(crate) fn signal_at_call(command: Invocation, victim: Victim, n: usize, signal: i32) -> Traced {
    // SAFETY: one system call.
    let command = unsafe {
        command.before_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    let running = command.spawn();
    let runtime = i32::try_from(running.pid()).unwrap();
    let mut others = BTreeSet::new();
    let mut stops = 0;
    let mut is_signalled = false;
    let code = loop {
        let (pid, status) = next_stop();
        if pid != runtime {
            others.insert(pid);
        }
        if !libc::WIFSTOPPED(status) {
            others.remove(&pid);
            match pid == runtime {
                true if libc::WIFEXITED(status) => break libc::WEXITSTATUS(status),
                true => break 128 + libc::WTERMSIG(status),
                false => continue,
            }
        }
        let is_call = libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80;
        if is_call && (pid == runtime) == (victim == Victim::Runtime) {
            stops += 1;
            // two stops a call: on its way in and out
            if stops / 2 >= n && !is_signalled {
                is_signalled = true;
                // SAFETY: numbers only.
                unsafe { libc::kill(pid, signal) };
                if signal == libc::SIGKILL {
                    continue;
                }
            }
        }
        go_on(pid, status, victim);
    };
    // an init that we trace can't be reaped by anyone else: it would stay
    for pid in others.clone() {
        // SAFETY: our tracee, and a place for its status.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    while !others.is_empty() {
        let (pid, status) = next_stop();
        if !libc::WIFSTOPPED(status) {
            others.remove(&pid);
        }
    }
    Traced { calls: stops / 2, is_signalled, output: running.reaped(code) }
}

/// The next event of a tracee of this thread; those of other tests are theirs.
fn next_stop() -> (i32, i32) {
    let mut status = 0;
    // SAFETY: a place for the status.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(pid > 0, "waitpid: {}", std::io::Error::last_os_error());
    (pid, status)
}

/// Lets a stopped tracee run up to its next system call.
fn go_on(pid: i32, status: i32, victim: Victim) {
    let signal = match libc::WSTOPSIG(status) {
        // calls, the stop at exec, the news of a clone, the first stop of a child
        stop if stop & 0x7f == libc::SIGTRAP => 0,
        libc::SIGSTOP => 0,
        signal => signal,
    };
    let mut options = libc::PTRACE_O_TRACESYSGOOD;
    if victim == Victim::Init {
        // children are traced too; else an init that is left alone lives on
        options |= libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;
    }
    // SAFETY: a stopped tracee of ours; it may have been killed meanwhile, and
    // then both calls fail, which the next wait tells.
    unsafe {
        libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options);
        libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal);
    }
}
