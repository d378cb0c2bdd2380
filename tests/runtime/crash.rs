//! kill -9 of the runtime at any moment: `delete --force` cleans up, and the
//! same id works again.
//!
//! The moments are system calls: the runtime is traced and killed on its n-th
//! one, so that a test that fails names the n to look at with strace.

use std::collections::BTreeSet;

use nix::libc;

use crate::support::{Container, Invocation, args, drop_namespace, pipe, wait_gone};
use crate::traced::{MOMENTS, Victim, signal_at_call, stride};

/// Tries moments spread over the whole command; `prepare` brings the container
/// to where the command starts.
fn at_each_moment(
    new: impl Fn() -> Container,
    prepare: impl Fn(&Container),
    command: impl Fn(&Container) -> Invocation,
) {
    let c = new();
    prepare(&c);
    let calls = signal_at_call(command(&c), Victim::Runtime, usize::MAX, libc::SIGKILL).calls;
    for n in (1..=calls).step_by(stride(calls, MOMENTS)) {
        let c = new();
        prepare(&c);
        println!("killing at call {n} of {calls}");
        signal_at_call(command(&c), Victim::Runtime, n, libc::SIGKILL);
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
fn a_killed_create_without_a_mount_namespace_can_be_cleaned_up() {
    let shares_mounts = || {
        Container::new(|c| {
            args(c, &["sleep-forever"]);
            drop_namespace(c, "mount");
        })
    };
    at_each_moment(shares_mounts, |_| {}, |c| c.on_bundle("create", &[]));
}

/// An init that nobody has let go has ended with its maker: it can't be started.
#[test]
fn a_start_after_a_killed_create_starts_a_whole_container_or_none() {
    let create = |c: &Container| c.on_bundle("create", &[]);
    let c = container();
    let calls = signal_at_call(create(&c), Victim::Runtime, usize::MAX, libc::SIGKILL).calls;
    let mut started = 0;
    // the last of its calls are those between the record's name and init's leave
    let moments = (1..=calls).step_by(stride(calls, MOMENTS / 2));
    for n in moments.chain(calls.saturating_sub(12)..=calls).collect::<BTreeSet<_>>() {
        println!("killing at call {n} of {calls}");
        let c = container();
        signal_at_call(create(&c), Victim::Runtime, n, libc::SIGKILL);
        let start = c.start();
        if start.code == 0 {
            started += 1;
            assert_eq!(c.status(), "running");
            c.delete_by_force().ok();
        } else {
            start.fails_with(&[&c.id]);
            // never taken for one that runs
            let state = c.on_id("state", &[], &[]).run();
            assert!(!state.stdout.contains("running"), "{state:#?}");
            c.delete_by_force().ok();
        }
        wait_gone("the container", || c.traces().is_empty());
    }
    assert!(started > 0, "killed after its last word, a create is a create");
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
fn a_killed_exec_leaves_the_container_as_it_was() {
    let c = container();
    c.on_bundle("create", &[]).run().ok();
    c.start().ok();
    let pid_file = c.bundle.path().join("pid");
    let exec = || c.exec(&["--pid-file", pid_file.to_str().unwrap()], &["exit", "0"]);
    let calls = signal_at_call(exec(), Victim::Runtime, usize::MAX, libc::SIGKILL).calls;
    for n in (1..=calls).step_by(stride(calls, MOMENTS)) {
        println!("killing at call {n} of {calls}");
        signal_at_call(exec(), Victim::Runtime, n, libc::SIGKILL);
        wait_gone("the process of an exec that was killed", || {
            let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
            procs.trim() == c.pid().to_string()
        });
        assert_eq!(c.status(), "running");
    }
    exec().run().ok();
    c.delete_by_force().ok();
    c.assert_gone();
}

/// strace(1) kills it at the call to init: the name of the socket has been moved.
#[test]
fn a_start_that_was_killed_before_its_call_can_be_made_again() {
    let c = Container::new(|c| args(c, &["wait"]));
    if !c.tare.is_tare() {
        println!("skipped: how another runtime starts a container is its own affair");
        return;
    }
    let mut output = c.create();
    let inject = "inject=connect:signal=SIGKILL";
    let killed = std::process::Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=connect", "-e", inject])
        .args([env!("CARGO_BIN_EXE_tare"), "--root", c.tare.root().to_str().unwrap()])
        .args(["start", &c.id])
        .status()
        .unwrap();
    assert!(!killed.success());
    c.start().ok();
    while output.line() != "READY" {}
    c.start().fails_with(&["cannot start an already running container"]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
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
fn a_killed_run_can_be_cleaned_up() {
    let ends = || Container::new(|c| args(c, &["exit", "0"]));
    at_each_moment(ends, |_| {}, |c| c.on_bundle("run", &[]));
    at_each_moment(container, |_| {}, |c| c.on_bundle("run", &["--detach"]));
}

fn start(c: &Container) {
    c.on_bundle("create", &[]).run().ok();
    c.start().ok();
}

#[test]
fn a_killed_command_on_a_running_container_can_be_cleaned_up() {
    at_each_moment(container, start, |c| c.on_id("pause", &[], &[]));
    at_each_moment(container, start, |c| c.on_id("kill", &[], &["KILL"]));
    at_each_moment(container, start, |c| c.on_id("kill", &["--all"], &["USR1"]));
    at_each_moment(container, start, |c| c.exec(&["--detach"], &["sleep-forever"]));
}

#[test]
fn a_killed_resume_can_be_cleaned_up() {
    let pause = |c: &Container| {
        start(c);
        c.on_id("pause", &[], &[]).run().ok();
    };
    at_each_moment(container, pause, |c| c.on_id("resume", &[], &[]));
}

#[test]
fn a_killed_update_can_be_cleaned_up() {
    let resources = serde_json::json!({
        "unified": {"cgroup.max.depth": "3"},
        "devices": [{"allow": true, "access": "rwm"}],
    });
    let prepare = |c: &Container| {
        std::fs::write(c.bundle.path().join("resources"), resources.to_string()).unwrap();
        start(c);
    };
    at_each_moment(container, prepare, |c| {
        let path = c.bundle.path().join("resources");
        c.on_id("update", &["--resources", path.to_str().unwrap()], &[])
    });
}

#[test]
fn a_killed_delete_of_a_stopped_container_can_be_tried_again() {
    let stop = |c: &Container| {
        start(c);
        c.kill("KILL").ok();
        wait_gone("init", || c.status() == "stopped");
    };
    at_each_moment(container, stop, |c| c.on_id("delete", &[], &[]));
}

#[test]
fn a_create_whose_init_dies_undoes_itself() {
    let c = container();
    let calls =
        signal_at_call(c.on_bundle("create", &[]), Victim::Init, usize::MAX, libc::SIGKILL).calls;
    c.delete_by_force().ok();
    assert!(calls > 10, "the init was not traced");
    for n in (1..=calls).step_by(stride(calls, MOMENTS)) {
        println!("killing init at call {n} of {calls}");
        let c = container();
        let traced = signal_at_call(c.on_bundle("create", &[]), Victim::Init, n, libc::SIGKILL);
        if traced.output.code == 0 {
            // at its very end create is done, and does not look back
            assert!(!traced.is_signalled || n + 10 > calls, "{:#?}", traced.output);
            c.delete_by_force().ok();
        } else {
            traced.output.fails_with(&[&c.id]);
        }
        c.assert_gone();
    }
}

#[test]
fn a_create_whose_init_is_killed_ends_with_an_error() {
    let c = Container::new(|config| {
        args(config, &["wait"]);
        // a hook that holds the create until it is told to go on
        config["hooks"]["createRuntime"] = serde_json::json!([{
            "path": crate::support::probe(),
            "args": ["probe", "sleep-forever"],
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
    // without an init nobody waits for a hook
    running.wait().fails_with(&["the container's init "]);
    c.assert_gone();
}
