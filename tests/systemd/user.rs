//! Scopes of an ordinary user's manager.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Container, Pipe, Tare, cgroup2_mount, map_self, pipe};
use crate::{container, systemctl, unit};

/// Somebody whom systemd knows by name: `games`, of whom nobody else makes use.
const SOMEBODY: u32 = 5;

const BUS: &str = "unix:path=/run/user/5/bus";
const MANAGER: &str = "user.slice/user-5.slice/user@5.service";

/// The manager of that user, as a login starts it.
struct Session;

impl Session {
    fn new() -> Self {
        systemctl(&["start", &format!("user@{SOMEBODY}.service")]);
        Session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        systemctl(&["stop", &format!("user@{SOMEBODY}.service")]);
        systemctl(&["stop", &format!("user-{SOMEBODY}.slice")]);
    }
}

/// What the user's own systemctl prints.
fn users_systemctl(words: &[&str]) -> String {
    let mut command = Command::new("setpriv");
    let id = SOMEBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "systemctl", "--user"]);
    command.args(words).env("DBUS_SESSION_BUS_ADDRESS", BUS).stdin(Stdio::null());
    String::from_utf8_lossy(&command.output().unwrap().stdout).trim().to_owned()
}

fn users(words: &[&str], edit: impl FnOnce(&mut Value)) -> Container {
    let c = container(&Tare::of(SOMEBODY), words, |config| {
        map_self(config, SOMEBODY);
        edit(config);
    });
    c.bundle.give_to(SOMEBODY);
    c
}

/// `run --detach`, up to READY.
#[track_caller]
fn started(c: &Container) -> Pipe {
    let (mut reader, writer) = pipe();
    let run = c.on_bundle("run", &["--detach"]).env("DBUS_SESSION_BUS_ADDRESS", BUS);
    run.stdout(writer).run().ok();
    while reader.line() != "READY" {}
    reader
}

#[track_caller]
fn assert_gone(c: &Container) {
    assert_eq!(users_systemctl(&["show", &unit(c), "--value", "-p", "LoadState"]), "not-found");
    c.assert_gone();
}

// one after the other: they have one manager
#[test]
#[ignore = "needs systemd: integration/test"]
fn a_users_container_is_in_a_scope_of_the_users_manager() {
    let _session = Session::new();
    let limits = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 3}});
    let c = users(&["wait"], |config| config["linux"]["resources"] = limits);
    let mut output = started(&c);
    let place = cgroup2_mount().join(MANAGER).join("user.slice").join(unit(&c));
    let read = |name: &str| std::fs::read_to_string(place.join(name)).unwrap().trim().to_owned();
    assert_eq!(read("cgroup.procs"), c.pid().to_string());
    assert_eq!(read("pids.max"), "3");
    assert_eq!(read("memory.max"), (64 << 20).to_string());
    assert_eq!(users_systemctl(&["show", &unit(&c), "--value", "-p", "TasksMax"]), "3");
    users_systemctl(&["daemon-reload"]);
    assert_eq!(read("pids.max"), "3");
    // from a session that nothing is delegated to, and so no cgroup of the kernel's
    // that this user could be born into: systemd moves the process
    let report = c.exec_report(&[]);
    assert!(report["cgroup"].as_array().unwrap().contains(&json!("0::/")), "{}", report["cgroup"]);
    let denied = c.exec(&[], &["fork-until-denied", "9"]).run().ok();
    assert_eq!(denied.json(), json!({"made": 1, "denied": "EAGAIN"}));
    c.kill("TERM").ok();
    assert_eq!(output.rest(), "GOT SIGTERM\n");
    // nothing in its environment tells delete where the bus is: the record does
    c.delete().ok();
    assert_gone(&c);
    a_limit_that_is_not_delegated_is_named();
    root_of_a_user_namespace_is_let_in_as_well();
}

fn a_limit_that_is_not_delegated_is_named() {
    // systemd delegates cpu, memory and pids to users
    let c = users(&["wait"], |config| {
        config["linux"]["resources"] = json!({"cpu": {"cpus": "0"}});
    });
    let run = c.on_bundle("run", &[]).env("DBUS_SESSION_BUS_ADDRESS", BUS).run();
    run.fails_with(&["linux.resources.cpu.cpus", "not delegated"]);
    assert_gone(&c);
}

fn root_of_a_user_namespace_is_let_in_as_well() {
    let c = users(&["read", "/proc/self/cgroup"], |config| {
        // the only one that there is in the namespace around
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids][0]["hostID"] = json!(0);
        }
    });
    let mut command = Command::new("setpriv");
    let id = SOMEBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.args(["unshare", "--user", "--map-root-user"]).arg(c.tare.home().join("tare"));
    command.arg("--root").arg(c.tare.root()).args(["--systemd-cgroup", "run", "--bundle"]);
    command.arg(c.bundle.path()).arg(&c.id).stdin(Stdio::null());
    let output = command.env("DBUS_SESSION_BUS_ADDRESS", BUS).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0::/\n", "{output:?}");
    assert_gone(&c);
}
