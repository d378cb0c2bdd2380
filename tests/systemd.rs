//! `--systemd-cgroup`: containers in scopes of systemd.
//!
//! Most of it needs a systemd that runs: those tests are ignored by a plain
//! `cargo test`, and `integration/test` runs them in a guest whose pid 1 is
//! systemd.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

mod support;

#[path = "systemd/later.rs"]
mod later;
#[path = "systemd/refused.rs"]
mod refused;
#[path = "systemd/scope.rs"]
mod scope;
#[path = "systemd/user.rs"]
mod user;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Container, Tare, args, cgroup2_mount, wait_gone};

/// A container that is to be in a scope, with no cgroupsPath: `tare-ID.scope`.
fn container(tare: &Tare, words: &[&str], edit: impl FnOnce(&mut Value)) -> Container {
    Container::under(&tare.with(&["--systemd-cgroup"]), |config| {
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        args(config, words);
        edit(config);
    })
}

fn unit(c: &Container) -> String {
    format!("tare-{}.scope", c.id)
}

/// The scope's cgroup on the host.
fn cgroup(c: &Container) -> PathBuf {
    cgroup2_mount().join("system.slice").join(unit(c))
}

#[track_caller]
fn file(c: &Container, name: &str) -> String {
    let path = cgroup(c).join(name);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// What systemctl prints, whatever its exit code.
fn systemctl(words: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A property of a unit, as systemd has it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", unit, "--value", "-p", name])
}

/// No unit of this name, failed or not, and nothing else of the container.
#[track_caller]
fn assert_gone(c: &Container) {
    assert_eq!(property(&unit(c), "LoadState"), "not-found");
    assert_eq!(property(&unit(c), "ActiveState"), "inactive");
    c.assert_gone();
}

/// Waits until systemd has noticed that a unit has come to its end.
#[track_caller]
fn wait_inactive(unit: &str) {
    wait_gone(unit, || ["inactive", "failed"].contains(&property(unit, "ActiveState").as_str()));
}
