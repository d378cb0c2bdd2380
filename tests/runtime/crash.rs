//! kill -9 of the runtime at any moment: `delete --force` cleans up, and the
//! same id works again.
//!
//! The moments are system calls: the runtime is traced and killed on its n-th
//! one, so that a test that fails names the n to look at with strace.

use std::time::Duration;

use nix::libc;

use crate::support::{Container, Invocation, args, pipe, wait_gone};

/// How many moments of a command are tried.
const MOMENTS: usize = 40;

/// Runs the command up to its n-th system call and kills it there. The number
/// of calls that it made, and whether it came to its end before.
fn run_until_call(command: Invocation, n: usize) -> (usize, bool) {
    // SAFETY: one system call.
    let command = unsafe {
        command.before_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    let running = command.spawn();
    let pid = i32::try_from(running.pid()).unwrap();
    let mut stops = 0;
    loop {
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }, pid);
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            std::mem::forget(running);
            return (stops / 2, true);
        }
        let signal = match libc::WSTOPSIG(status) {
            libc::SIGTRAP => 0,
            other => other,
        };
        // two stops a call: on its way in and out
        stops += usize::from(signal == 0);
        if stops / 2 >= n {
            kill_traced(pid);
            std::mem::forget(running);
            return (stops / 2, false);
        }
        // SAFETY: a stopped child of ours.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) };
    }
}

fn kill_traced(pid: i32) {
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &raw mut status, libc::__WALL);
    }
}

/// Tries moments spread over the whole command; `prepare` brings the container
/// to where the command starts.
fn at_each_moment(
    new: impl Fn() -> Container,
    prepare: impl Fn(&Container),
    command: impl Fn(&Container) -> Invocation,
) {
    let c = new();
    prepare(&c);
    let (calls, ended) = run_until_call(command(&c), usize::MAX);
    assert!(ended);
    let step = (calls / MOMENTS).max(1);
    for n in (1..=calls).step_by(step) {
        let c = new();
        prepare(&c);
        println!("killing at call {n} of {calls}");
        run_until_call(command(&c), n);
        let output = c.delete_by_force();
        assert_eq!(output.code, 0, "killed at call {n} of {calls}: {output:?}");
        let what = format!("traces of a command killed at call {n} of {calls}");
        wait_gone(&what, || c.traces().is_empty());
        // the second time over the same id, as an engine that tries again
        let again = c.on_bundle("create", &[]).run();
        assert_eq!(again.code, 0, "after a kill at call {n} of {calls}: {again:?}");
        c.delete_by_force().ok();
    }
}

fn container() -> Container {
    Container::new(|c| args(c, &["sleep-forever"]))
}

#[test]
fn a_killed_create_can_be_cleaned_up() {
    at_each_moment(container, |_| {}, |c| c.on_bundle("create", &[]));
}

#[test]
fn a_killed_start_can_be_cleaned_up() {
    at_each_moment(
        container,
        |c| drop(c.on_bundle("create", &[]).run().ok()),
        |c| c.on_id("start", &[], &[]),
    );
}

#[test]
fn a_killed_delete_can_be_tried_again() {
    at_each_moment(
        container,
        |c| drop(c.on_bundle("create", &[]).run().ok()),
        |c| c.on_id("delete", &["--force"], &[]),
    );
}

#[test]
fn a_create_whose_init_is_killed_ends_with_an_error() {
    let c = Container::new(|config| {
        args(config, &["wait"]);
        // a hook that holds the create until it is told to go on
        config["hooks"]["createRuntime"] = serde_json::json!([{
            "path": crate::support::probe(),
            "args": ["probe", "sleep-forever"],
            "timeout": 20,
        }]);
    });
    let (_output, writer) = pipe();
    let running = c.on_bundle("create", &[]).stdout(writer).spawn();
    // the cgroup is where init shows first
    let procs = c.cgroup().join("cgroup.procs");
    let ids = || {
        let text = std::fs::read_to_string(&procs).unwrap_or_default();
        text.lines().filter_map(|l| l.parse::<i32>().ok()).collect::<Vec<_>>()
    };
    wait_gone("the time before init", || !ids().is_empty());
    for pid in ids() {
        // SAFETY: numbers only.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    // past the hook's own timeout nobody may wait
    assert!(running.ends_within(Duration::from_secs(25)));
    assert_eq!(running.wait().code, 1);
    c.delete_by_force();
    wait_gone("traces", || c.traces().is_empty());
}
