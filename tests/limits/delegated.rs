//! Limits of an ordinary user, in a cgroup that is delegated to him.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::MIB;
use crate::support::{Container, Tare, USER, args, cgroup2_mount, map_self, unique_id, wait_gone};

/// A cgroup that is the user's, with one in it for the commands that he gives.
struct Delegated {
    path: PathBuf,
}

impl Delegated {
    fn new() -> Self {
        let path = cgroup2_mount().join(unique_id());
        let root = cgroup2_mount().join("cgroup.subtree_control");
        std::fs::write(root, "+memory +pids +cpu").unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(path.join("session")).unwrap();
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "session"] {
            chown(path.join(name), Some(USER), Some(USER)).unwrap();
        }
        Delegated { path }
    }

    /// The user, with his commands in a cgroup of this one.
    fn user(&self) -> Tare {
        let procs = self.path.join("session/cgroup.procs");
        let procs = File::options().write(true).open(procs).unwrap();
        let enter = move || (&procs).write_all(b"0");
        // SAFETY: one system call.
        unsafe { Tare::of_user_after(Some(Box::new(enter))) }
    }

    /// As `linux.cgroupsPath` has it.
    fn name(&self) -> String {
        format!("/{}", self.path.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for path in [self.path.join("session"), self.path.clone()] {
            // in a test that fails there may be more below: that one is told of
            std::fs::remove_dir(path).ok();
        }
    }
}

fn container(tare: &Tare, resources: Value, words: &[&str]) -> Container {
    let c = Container::under(tare, |config| {
        map_self(config, USER);
        let linux = config["linux"].as_object_mut().unwrap();
        linux["resources"].as_object_mut().unwrap().extend(resources.as_object().unwrap().clone());
        linux.remove("cgroupsPath");
        args(config, words);
    });
    c.bundle.give_to(USER);
    c
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn limits_of_a_user_are_in_effect_where_a_cgroup_is_delegated() {
    let delegated = Delegated::new();
    let limits = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 8}});
    let c = container(&delegated.user(), limits, &["wait"]);
    let mut output = c.started();
    // beside the cgroup of who made it, which can hand nothing down
    let cgroup = delegated.path.join(format!("tare-{}", c.id));
    assert_eq!(read(&cgroup, "pids.max"), "8");
    assert_eq!(read(&cgroup, "memory.max"), (64 * MIB).to_string());
    assert_eq!(read(&cgroup, "cgroup.procs"), c.pid().to_string());
    c.on_id("kill", &["--all"], &["KILL"]).run().ok();
    c.ended(&mut output);
    c.delete().ok();
    assert!(!cgroup.try_exists().unwrap());
    c.assert_gone();
    let c =
        container(&delegated.user(), json!({"pids": {"limit": 8}}), &["fork-until-denied", "100"]);
    assert_eq!(c.json(), json!({"made": 7, "denied": "EAGAIN"}));
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_users_program_beyond_its_limit_is_killed_and_run_says_why() {
    let delegated = Delegated::new();
    let limits = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let c = container(&delegated.user(), limits, &["alloc", &(64 * MIB).to_string()]);
    let path = format!("{}/deep/er", delegated.name());
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let output = c.run().ends_with_code(137);
    assert!(output.stderr.contains("killed 1 process at the limit of 16 MiB"), "{output:#?}");
    c.assert_gone();
    assert!(!delegated.path.join("deep").try_exists().unwrap());
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_delegated_cgroup_is_of_no_use_from_outside() {
    let delegated = Delegated::new();
    // the user may make a cgroup there, and the kernel lets no process of his
    // into it that is outside
    let c = container(&Tare::of_user(), json!({"pids": {"limit": 8}}), &["wait"]);
    let path = format!("{}/box", delegated.name());
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.assert_refused(&["linux.resources.pids.limit", &path, "Delegate=yes"]);
    // without limits it does without
    let c = container(&Tare::of_user(), json!({}), &["exit", "0"]);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.run().ok();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_delegated_cgroup_with_the_caller_in_it_takes_a_container_without_limits() {
    let delegated = Delegated::new();
    let procs = File::options().write(true).open(delegated.path.join("cgroup.procs")).unwrap();
    let enter = move || (&procs).write_all(b"0");
    // SAFETY: one system call.
    let tare = unsafe { Tare::of_user_after(Some(Box::new(enter))) };
    let c = container(&tare, json!({}), &["wait"]);
    let mut output = c.started();
    let cgroup = delegated.path.join(format!("tare-{}", c.id));
    assert_eq!(read(&cgroup, "cgroup.procs"), c.pid().to_string());
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    let c = container(&tare, json!({"pids": {"limit": 8}}), &["wait"]);
    c.on_bundle("run", &[])
        .run()
        .fails_with(&["linux.resources.pids.limit", "processes of its own"]);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_user_pauses_and_updates_what_is_his() {
    let delegated = Delegated::new();
    let words = ["each", "wait", "fork-until-denied 100"];
    let c = container(&delegated.user(), json!({"memory": {"limit": 64 * MIB}}), &words);
    let mut output = c.started();
    let cgroup = delegated.path.join(format!("tare-{}", c.id));
    c.on_id("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    c.on_id("update", &["--memory", "48m", "--pids-limit", "8"], &[]).run().ok();
    assert_eq!(read(&cgroup, "memory.max"), (48 * MIB).to_string());
    c.on_id("resume", &[], &[]).run().ok();
    let pids = c.on_id("ps", &["--format", "json"], &[]).run().ok().json();
    assert_eq!(pids, json!([c.pid()]));
    c.kill("TERM").ok();
    assert_eq!(output.line(), "GOT SIGTERM");
    assert_eq!(output.line(), r#"{"denied":"EAGAIN","made":7}"#);
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_session_that_was_once_killed_makes_containers_as_before() {
    let delegated = Delegated::new();
    std::fs::write(delegated.path.join("session/cgroup.kill"), "1").unwrap();
    let c = container(&delegated.user(), json!({"pids": {"limit": 8}}), &["wait"]);
    let mut output = c.started();
    let cgroup = delegated.path.join(format!("tare-{}", c.id));
    assert_eq!(read(&cgroup, "cgroup.procs"), c.pid().to_string());
    assert_eq!(read(&cgroup, "pids.max"), "8");
    let seen = c.exec_report(&[]);
    assert!(seen["cgroup"].as_array().unwrap().contains(&json!("0::/")), "{}", seen["cgroup"]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn an_exec_of_a_user_joins_the_cgroup_from_inside_the_delegated_part() {
    let delegated = Delegated::new();
    let user = delegated.user();
    let c = container(&user, json!({"pids": {"limit": 8}}), &["wait"]);
    let mut output = c.started();
    let seen = c.exec_report(&[]);
    assert!(seen["cgroup"].as_array().unwrap().contains(&json!("0::/")), "{}", seen["cgroup"]);
    // the same state directory, but a command from somewhere else
    let root = user.root().to_str().unwrap();
    let outside = Tare::of_user().bare(["--root", root, "exec", &c.id, "/probe", "exit", "0"]);
    outside.run().fails_with_code(255, &["clone3", "systemd-run --user --scope"]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

/// Whoever joins the namespaces for the process stands still in the container's cgroup.
#[test]
#[ignore = "needs the controllers: integration/test"]
fn an_exec_of_a_user_in_a_paused_container_ends_by_a_signal() {
    let delegated = Delegated::new();
    let c = container(&delegated.user(), json!({}), &["wait"]);
    let mut output = c.started();
    let cgroup = delegated.path.join(format!("tare-{}", c.id));
    let count = || read(&cgroup, "cgroup.procs").lines().count();
    c.on_id("pause", &[], &[]).run().ok();
    for flags in [&["--ignore-paused"][..], &["--ignore-paused", "--detach"]] {
        let running = c.exec(flags, &["exit", "5"]).spawn();
        wait_gone("the lack of a second process", || count() == 2);
        running.signal(nix::sys::signal::Signal::SIGTERM);
        running.wait().fails_with_code(255, &["interrupted by SIGTERM"]);
        wait_gone("the process", || count() == 1);
        assert_eq!(c.status(), "paused");
    }
    // left alone it waits, and runs when the container does
    let running = c.exec(&["--ignore-paused"], &["exit", "5"]).spawn();
    wait_gone("the lack of a second process", || count() == 2);
    c.on_id("resume", &[], &[]).run().ok();
    running.wait().ends_with_code(5);
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}
