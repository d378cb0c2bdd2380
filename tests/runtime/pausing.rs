//! `pause` and `resume`, what else can be done to a paused container, and `ps`.

use serde_json::json;

use crate::support::{Container, add_mount, args, drop_namespace, is_alive, wait_gone};

fn run(c: &Container, command: &str) -> crate::support::Output {
    c.on_id(command, &[], &[]).run()
}

fn frozen(c: &Container) -> bool {
    let events = std::fs::read_to_string(c.cgroup().join("cgroup.events")).unwrap();
    events.lines().any(|line| line == "frozen 1")
}

/// Started and paused, with this program.
fn paused(words: &[&str]) -> (Container, crate::support::Pipe) {
    let c = Container::new(|config| args(config, words));
    let output = c.started();
    run(&c, "pause").ok();
    (c, output)
}

#[test]
fn a_paused_program_stands_still_until_it_is_resumed() {
    let (c, mut output) = paused(&["wait"]);
    assert!(frozen(&c));
    assert_eq!(c.status(), "paused");
    let list = c.tare.command(["list", "--format", "json"]).run().ok().json();
    assert_eq!(list[0]["status"], "paused");
    assert_eq!(list[0]["pid"], c.pid());
    // it comes when it can
    c.kill("USR1").ok();
    assert!(frozen(&c));
    run(&c, "resume").ok();
    assert_eq!(output.line(), "GOT SIGUSR1");
    assert!(!frozen(&c));
    assert_eq!(c.status(), "running");
}

#[test]
fn every_process_of_the_container_is_paused() {
    let (c, _output) = paused(&["children", "3", "setsid"]);
    assert!(frozen(&c));
    run(&c, "resume").ok();
    assert!(!frozen(&c));
}

#[test]
fn what_is_paused_is_not_started_paused_or_deleted() {
    let c = Container::new(|config| args(config, &["wait"]));
    let mut output = c.create();
    run(&c, "resume").fails_with(&[&c.id, "container not paused: it is created"]);
    run(&c, "pause").ok();
    assert_eq!(c.status(), "paused");
    c.start().fails_with(&["cannot start a container in the paused state", "tare resume"]);
    run(&c, "pause").fails_with(&["container not running: it is paused already"]);
    c.delete().fails_with(&["that is not stopped: paused"]);
    run(&c, "resume").ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(output.line(), "READY");
    run(&c, "resume").fails_with(&["container not paused: it is running"]);
}

#[test]
fn a_container_that_has_ended_is_neither_paused_nor_resumed() {
    let c = Container::new(|config| args(config, &["exit", "0"]));
    let mut output = c.create();
    c.start().ok();
    c.ended(&mut output);
    for (command, why) in [
        ("pause", "container not running"),
        ("resume", "container not paused: it is stopped"),
        ("update", "container not running"),
    ] {
        run(&c, command).fails_with(&[&format!("{command} {}: {why}", c.id)]);
    }
    // callers ask for what may be left, and end it: that is nobody
    let table = run(&c, "ps").ok().stdout;
    assert!(table.starts_with("UID") && table.lines().count() == 1, "{table}");
    assert_eq!(c.on_id("ps", &["--format", "json"], &[]).run().ok().stdout, "[]\n");
    for signal in ["KILL", "TERM", "0"] {
        c.on_id("kill", &["--all"], &[signal]).run().ok();
        c.kill(signal).fails_with(&["container not running"]);
    }
    c.delete().ok();
    for command in ["pause", "resume", "ps", "update"] {
        run(&c, command).fails_with(&["does not exist"]);
    }
}

#[test]
fn a_paused_container_is_killed_and_deleted() {
    let (c, mut output) = paused(&["wait"]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();

    let (c, mut output) = paused(&["children", "2", "setsid"]);
    c.on_id("kill", &["--all"], &["9"]).run().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();

    let (c, mut output) = paused(&["wait"]);
    c.delete_by_force().ok();
    c.ended(&mut output);
    c.assert_gone();
}

#[test]
fn a_signal_for_all_leaves_a_paused_container_paused() {
    let (c, mut output) = paused(&["wait"]);
    c.on_id("kill", &["--all"], &["HUP"]).run().ok();
    assert_eq!(c.status(), "paused");
    run(&c, "resume").ok();
    assert_eq!(output.line(), "GOT SIGHUP");
    // and a running one goes on
    c.on_id("kill", &["-a"], &["USR2"]).run().ok();
    assert_eq!(output.line(), "GOT SIGUSR2");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_container_below_a_frozen_cgroup_is_not_resumed_alone() {
    let c = Container::new(|config| args(config, &["wait"]));
    let path = format!("/{}/inner", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let _output = c.started();
    run(&c, "pause").ok();
    let freeze = |value: &str| std::fs::write(c.cgroup().join("cgroup.freeze"), value).unwrap();
    freeze("1");
    run(&c, "resume").fails_with(&[c.cgroup().to_str().unwrap(), "above it is frozen"]);
    assert_eq!(c.status(), "paused");
    // nor is another one made there: its init would never come to say a word
    let other = Container::new(|config| args(config, &["wait"]));
    let beside = format!("/{}/beside", c.id);
    other.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(beside));
    for command in ["create", "run"] {
        other.on_bundle(command, &[]).run().fails_with(&[&beside, "above it is frozen"]);
        other.assert_gone();
    }
    freeze("0");
    run(&c, "resume").ok();
    assert_eq!(c.status(), "running");
}

/// Moves itself into a cgroup of its own.
fn in_nested_cgroup(config: &mut serde_json::Value, rest: &[&str]) {
    config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
    add_mount(
        config,
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
    );
    let mut words = vec!["each", "mkdir /sys/fs/cgroup/a", "write /sys/fs/cgroup/a/cgroup.procs 0"];
    words.extend(rest);
    args(config, &words);
}

fn pids_by_ps(c: &Container) -> Vec<u32> {
    let output = c.on_id("ps", &["--format", "json"], &[]).run().ok();
    assert!(output.stdout.ends_with("]\n"), "{output:#?}");
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn processes_in_nested_cgroups_are_of_the_container() {
    let c = Container::new(|config| in_nested_cgroup(config, &["children 2"]));
    let _output = c.started();
    let inner = std::fs::read_to_string(c.cgroup().join("a/cgroup.procs")).unwrap();
    let mut inner: Vec<u32> = inner.lines().map(|line| line.parse().unwrap()).collect();
    inner.sort_unstable();
    assert_eq!(pids_by_ps(&c), inner);
    assert_eq!(inner.len(), 3);
    run(&c, "pause").ok();
    assert!(frozen(&c));
    assert_eq!(pids_by_ps(&c), inner);
}

#[test]
fn all_are_killed_without_a_pid_namespace_and_in_nested_cgroups() {
    let c = Container::new(|config| {
        drop_namespace(config, "pid");
        in_nested_cgroup(config, &["children 2 setsid"]);
    });
    let mut output = c.started();
    let pids = pids_by_ps(&c);
    assert_eq!(pids.len(), 3);
    c.on_id("kill", &["--all"], &["KILL"]).run().ok();
    c.ended(&mut output);
    wait_gone("the container's processes", || !pids.iter().any(|pid| is_alive(*pid)));
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn ps_prints_what_ps_prints_of_the_container() {
    let c = Container::new(|config| args(config, &["children", "2"]));
    let _output = c.started();
    let pids = pids_by_ps(&c);
    assert_eq!(pids.len(), 3);
    let table = |flags: &[&str], options: &[&str]| {
        let output = c.on_id("ps", flags, options).run().ok();
        output.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = table(&[], &[]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("UID"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.contains("/probe children 2")), "{lines:?}");
    let expected: Vec<String> = pids.iter().map(u32::to_string).collect();
    let column = |lines: &[String]| {
        let mut pids: Vec<u32> = lines[1..].iter().map(|l| l.trim().parse().unwrap()).collect();
        pids.sort_unstable();
        pids.iter().map(u32::to_string).collect::<Vec<_>>()
    };
    // as one word, as engines do it, and as several
    assert_eq!(column(&table(&["--format", "table"], &["-e -o pid"])), expected);
    assert_eq!(column(&table(&["-f", "table"], &["-e", "-o", "pid"])), expected);
    assert_eq!(column(&table(&[], &["-eo", "pid"])), expected);
    c.on_id("ps", &[], &["-e", "-o", "comm"]).run().fails_with(&["column PID"]);
    c.on_id("ps", &[], &["--nonesuch"]).run().fails_with(&["ps --nonesuch: "]);
}

#[test]
fn ps_without_ps_says_so() {
    let c = Container::new(|config| args(config, &["wait"]));
    let _output = c.started();
    let invocation = c.on_id("ps", &[], &[]).env("PATH", c.bundle.path().to_str().unwrap());
    invocation.run().fails_with(&["run ps", "--format json"]);
}
