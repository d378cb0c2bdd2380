//! The container lives as long as its init, and nobody outlives it.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Container, args, drop_namespace, is_alive, namespace_path, pipe};

#[test]
fn the_end_of_init_ends_all_by_the_pid_namespace() {
    let c = Container::new(|c| args(c, &["abandon", "3"]));
    let (mut output, writer) = pipe();
    c.on_bundle("run", &[]).stdout(writer).run().ok();
    assert_eq!(output.rest(), "LEAVING\n");
    c.assert_gone();
}

#[test]
fn the_end_of_init_ends_all_without_a_pid_namespace() {
    let c = Container::new(|config| {
        drop_namespace(config, "pid");
        args(config, &["abandon", "3"]);
    });
    let (mut output, writer) = pipe();
    c.on_bundle("run", &[]).stdout(writer).run().ok();
    assert_eq!(c.ended(&mut output), "LEAVING\n");
    c.assert_gone();
}

/// A running container without a pid namespace, with children in sessions of
/// their own that hold its stdout.
fn scattered() -> (Container, crate::support::Pipe) {
    let c = Container::new(|config| {
        drop_namespace(config, "pid");
        args(config, &["children", "3", "setsid"]);
    });
    let output = c.started();
    (c, output)
}

#[test]
fn kill_all_reaches_everyone_without_a_pid_namespace() {
    let (c, mut output) = scattered();
    c.on_id("kill", &["--all"], &["KILL"]).run().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn delete_by_force_reaches_everyone_without_a_pid_namespace() {
    let (c, mut output) = scattered();
    c.delete_by_force().ok();
    c.ended(&mut output);
    c.assert_gone();
}

/// The init has ended and nobody has watched: its children still run.
fn left_alone() -> (Container, crate::support::Pipe) {
    let c = Container::new(|config| {
        drop_namespace(config, "pid");
        args(config, &["abandon", "3"]);
    });
    let mut output = c.create();
    let init = c.pid();
    c.start().ok();
    output.expect("LEAVING");
    crate::support::wait_gone("the init", || !is_alive(init));
    assert_eq!(c.status(), "stopped");
    (c, output)
}

#[test]
fn kill_all_reaches_those_who_outlive_the_init() {
    let (c, mut output) = left_alone();
    c.on_id("kill", &["--all"], &["KILL"]).run().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn delete_by_force_reaches_those_who_outlive_the_init() {
    let (c, mut output) = left_alone();
    c.delete_by_force().ok();
    c.ended(&mut output);
    c.assert_gone();
}

#[test]
fn kill_all_sends_any_signal() {
    let (c, mut output) = scattered();
    c.on_id("kill", &["--all"], &["TERM"]).run().ok();
    // the init leaves; its children have blocked the signal
    crate::support::wait_gone("the init", || c.status() == "stopped");
    c.delete_by_force().ok();
    c.ended(&mut output);
    c.assert_gone();
}

#[test]
fn the_end_of_one_leaves_the_other_in_a_joined_pid_namespace() {
    let first = Container::new(|c| args(c, &["wait"]));
    let mut first_output = first.started();
    let path = format!("/proc/{}/ns/pid", first.pid());
    let second = Container::new(|config| {
        namespace_path(config, "pid", &path);
        args(config, &["children", "2", "setsid"]);
    });
    let mut output = second.started();
    second.delete_by_force().ok();
    second.ended(&mut output);
    second.assert_gone();
    assert_eq!(first.status(), "running");
    first.kill("USR1").ok();
    first_output.expect("GOT SIGUSR1");
}

#[test]
fn the_init_of_a_pid_namespace_is_spared_its_own_signals() {
    let lines = Container::new(|c| args(c, &["kill-self", "TERM"])).lines();
    assert_eq!(lines, ["survived"]);
}

#[test]
fn our_init_is_process_1_and_the_program_its_child() {
    let c = Container::new(|_| {});
    let report = c.on_bundle("run", &["--init"]).run().ok().json();
    assert_eq!(report["ppid"], 1);
    assert_ne!(report["pid"], 1);
    assert_eq!(report["processes"], json!([1, report["pid"]]));
    assert_eq!(report["signals"], json!({"blocked": [], "ignored": []}));
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn our_init_reaps_orphans() {
    let c = Container::new(|c| args(c, &["spawn-orphans", "20"]));
    let output = c.on_bundle("run", &["--init"]).run().ok();
    assert_eq!(output.json(), json!({"orphans": 20, "left": 0}));
}

#[test]
fn our_init_keeps_the_programs_exit_code() {
    for (words, code) in [
        (["exit", "0"], 0),
        (["exit", "42"], 42),
        (["kill-self", "TERM"], 143),
        (["kill-self", "KILL"], 137),
    ] {
        let c = Container::new(|c| args(c, &words));
        c.on_bundle("run", &["--init"]).run().ends_with_code(code);
        c.assert_gone();
    }
}

#[test]
fn our_init_forwards_signals() {
    let c = Container::new(|c| args(c, &["wait", "5"]));
    let (mut output, writer) = pipe();
    let running = c.on_bundle("run", &["--init"]).stdout(writer).spawn();
    output.expect("READY");
    running.signal(Signal::SIGUSR2);
    output.expect("GOT SIGUSR2");
    c.kill("HUP").ok();
    output.expect("GOT SIGHUP");
    c.kill("TERM").ok();
    output.expect("GOT SIGTERM");
    running.wait().ends_with_code(5);
}

#[test]
fn our_init_leaves_when_its_program_does() {
    let c = Container::new(|c| args(c, &["abandon", "3"]));
    let (mut output, writer) = pipe();
    c.on_bundle("run", &["--init"]).stdout(writer).run().ok();
    assert_eq!(output.rest(), "LEAVING\n");
    c.assert_gone();
}

#[test]
fn our_init_reports_a_program_that_is_not_there() {
    let c = Container::new(|c| c["process"]["args"] = json!(["/no/such/program"]));
    c.on_bundle("run", &["--init"])
        .run()
        .fails_with(&["/no/such/program", "no such file or directory"]);
    c.assert_gone();
}

#[test]
fn the_tiny_init_does_not_show_the_command_line_that_made_it() {
    let c = Container::new(|config| args(config, &["read", "/proc/1/cmdline"]));
    let output = c.on_bundle("run", &["--init"]).run().ok();
    assert!(output.stdout.starts_with("tare-init\0"), "{output:?}");
    assert!(!output.stdout.contains(&c.id), "{output:?}");
}
