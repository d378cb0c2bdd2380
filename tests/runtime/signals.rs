//! A signal that ends a command, at any moment: what it was asked is done and said to be
//! done, or there is nothing of it.

use std::path::PathBuf;

use nix::libc;

use crate::rootless::of_user;
use crate::support::{Container, Invocation, Output, args, wait_gone};
use crate::traced::{MOMENTS, Victim, signal_at_call, stride};

/// Sends SIGTERM at moments spread over the command and at each of the last calls, and
/// shows `judge` how it ended; every possible end has to be among them.
fn at_each_moment(
    prepare: impl Fn(&Container),
    command: impl Fn(&Container) -> Invocation,
    judge: impl Fn(&Container, Output),
) {
    let new = || Container::new(|config| args(config, &["sleep-forever"]));
    at_each_moment_of(new, prepare, command, judge);
}

fn at_each_moment_of(
    make: impl Fn() -> Container,
    prepare: impl Fn(&Container),
    command: impl Fn(&Container) -> Invocation,
    judge: impl Fn(&Container, Output),
) {
    let new = || {
        let c = make();
        prepare(&c);
        c
    };
    let c = new();
    let calls = signal_at_call(command(&c), Victim::Runtime, usize::MAX, libc::SIGTERM).calls;
    let mut done = 0;
    for n in (1..=calls).filter(|n| n % stride(calls, MOMENTS) == 0 || n + 12 > calls) {
        let c = new();
        println!("SIGTERM at call {n} of {calls}");
        let output = signal_at_call(command(&c), Victim::Runtime, n, libc::SIGTERM).output;
        done += usize::from(output.code == 0);
        judge(&c, output);
    }
    assert!(done > 0, "a signal that comes late ends nothing");
}

/// Interrupted: with a word of it, or before there was anything to undo.
#[track_caller]
fn assert_interrupted(output: Output, code: i32) {
    if output.code != 128 + libc::SIGTERM {
        output.fails_with_code(code, &["interrupted by SIGTERM"]);
    }
}

/// Where the commands are asked to write the number of their process.
fn pid_file(c: &Container) -> PathBuf {
    c.bundle.path().join("pid")
}

fn to_pid_file(c: &Container) -> [String; 2] {
    ["--pid-file".to_owned(), pid_file(c).to_str().unwrap().to_owned()]
}

#[track_caller]
fn assert_all_or_nothing(c: &Container, output: Output, status: &str) {
    assert_eq!(pid_file(c).exists(), output.code == 0, "{output:#?}");
    if output.code == 0 {
        assert_eq!(c.status(), status);
        c.delete_by_force().ok();
    } else {
        assert_interrupted(output, 1);
    }
    wait_gone("what is left of it", || c.traces().is_empty());
}

#[test]
fn a_create_is_whole_or_undone() {
    at_each_moment(
        |_| {},
        |c| {
            let [option, path] = to_pid_file(c);
            c.on_bundle("create", &[&option, &path])
        },
        |c, output| assert_all_or_nothing(c, output, "created"),
    );
}

#[test]
fn a_run_that_does_not_stay_is_whole_or_undone() {
    at_each_moment(
        |_| {},
        |c| {
            let [option, path] = to_pid_file(c);
            c.on_bundle("run", &["--detach", &option, &path])
        },
        |c, output| assert_all_or_nothing(c, output, "running"),
    );
}

#[test]
fn a_start_has_called_or_not() {
    at_each_moment(
        |c| drop(c.on_bundle("create", &[]).run().ok()),
        |c| c.on_id("start", &[], &[]),
        |c, output| match output.code {
            0 => assert_eq!(c.status(), "running"),
            1 => {
                output.fails_with(&["interrupted by SIGTERM", "the container was stopped"]);
                assert_eq!(c.status(), "stopped");
            }
            code => {
                assert_eq!(code, 128 + libc::SIGTERM, "{output:#?}");
                assert_eq!(c.status(), "created");
                c.start().ok();
                assert_eq!(c.status(), "running");
            }
        },
    );
}

#[test]
fn an_exec_that_does_not_stay_has_a_process_or_none() {
    exec_at_each_moment(|| Container::new(|config| args(config, &["sleep-forever"])));
}

/// A helper makes it.
#[test]
fn an_exec_of_an_ordinary_user_has_a_process_or_none() {
    exec_at_each_moment(|| of_user(|config| args(config, &["sleep-forever"])));
}

fn exec_at_each_moment(make: fn() -> Container) {
    at_each_moment_of(
        make,
        |c| {
            c.on_bundle("create", &[]).run().ok();
            c.start().ok();
        },
        |c| {
            let [option, path] = to_pid_file(c);
            c.exec(&["--detach", &option, &path], &["sleep-forever"])
        },
        |c, output| {
            let processes = || c.on_id("ps", &["--format", "json"], &[]).run().ok().json();
            let count = || processes().as_array().unwrap().len();
            assert_eq!(pid_file(c).exists(), output.code == 0, "{output:#?}");
            if output.code == 0 {
                assert_eq!(count(), 2);
            } else {
                assert_interrupted(output, 255);
                wait_gone("the process", || count() == 1);
            }
        },
    );
}

/// In a paused container there is nobody to hand a signal on to.
#[test]
fn a_foreground_exec_in_a_paused_container_ends_by_a_signal() {
    let c = Container::new(|config| args(config, &["sleep-forever"]));
    c.on_bundle("create", &[]).run().ok();
    c.start().ok();
    c.on_id("pause", &[], &[]).run().ok();
    let running = c.exec(&["--ignore-paused"], &["exit", "5"]).spawn();
    let count = || {
        let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
        procs.lines().count()
    };
    wait_gone("the lack of a second process", || count() == 2);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().fails_with_code(255, &["interrupted by SIGTERM"]);
    wait_gone("the process", || count() == 1);
    assert_eq!(c.status(), "paused");
}
