//! Limits that bite: what the kernel does to a container that reaches one, and
//! what its user gets to see of it.
//!
//! These need the controllers in cgroup2. They are ignored by a plain `cargo
//! test`; `integration/test` runs them, on this machine if it has what they
//! need, else in a guest that has.
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

#[path = "limits/cpu.rs"]
mod cpu;
#[path = "limits/delegated.rs"]
mod delegated;
#[path = "limits/exec.rs"]
mod exec;
#[path = "limits/hugetlb.rs"]
mod hugetlb;
#[path = "limits/io.rs"]
mod io;
#[path = "limits/memory.rs"]
mod memory;
#[path = "limits/pids.rs"]
mod pids;
#[path = "limits/stats.rs"]
mod stats;
#[path = "limits/tree.rs"]
mod tree;
#[path = "limits/update.rs"]
mod update;

use serde_json::{Value, json};
use support::{Container, args, cgroup2_mount};

/// A container with these resources, whose program is the probe with these words.
fn limited(resources: Value, words: &[&str]) -> Container {
    Container::new(|config| {
        let all = config["linux"]["resources"].as_object_mut().unwrap();
        all.extend(resources.as_object().unwrap().clone());
        args(config, words);
    })
}

/// A file of the container's cgroup, on the host.
#[track_caller]
fn file(container: &Container, name: &str) -> String {
    let path = container.cgroup().join(name);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// A figure of a flat-keyed file there.
#[track_caller]
fn figure(container: &Container, name: &str, key: &str) -> u64 {
    let text = file(container, name);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).parse().unwrap()
}

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "needs the controllers: integration/test"]
fn this_machine_has_the_controllers() {
    let all = std::fs::read_to_string(cgroup2_mount().join("cgroup.controllers")).unwrap();
    for name in ["cpu", "cpuset", "io", "memory", "pids"] {
        assert!(all.split_whitespace().any(|c| c == name), "no {name} in {all}");
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn every_file_shows_what_the_config_says() {
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 2048, "quota": 40_000, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
        "unified": {"memory.high": "60000000", "cgroup.max.depth": "3"},
    });
    let container = limited(resources, &["wait"]);
    let _output = container.started();
    let expected = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.high", "59998208"),
        ("cpu.max", "40000 50000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "17"),
        ("cgroup.max.depth", "3"),
    ];
    for (name, text) in expected {
        assert_eq!(file(&container, name), text, "{name}");
    }
    // the same without a limit on them: what the kernel has by itself
    let free = limited(json!({}), &["wait"]);
    let _output = free.started();
    for name in ["memory.max", "pids.max"] {
        let path = free.cgroup().join(name);
        let text = std::fs::read_to_string(path).unwrap_or_else(|_| "max\n".to_owned());
        assert_eq!(text.trim(), "max", "{name}");
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_controller_that_this_machine_lacks_is_named() {
    let controllers = std::fs::read_to_string(cgroup2_mount().join("cgroup.controllers")).unwrap();
    assert!(!controllers.contains("nonesuch"));
    limited(json!({"unified": {"nonesuch.max": "1"}}), &["wait"])
        .assert_refused(&["linux.resources.unified", "nonesuch"]);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_value_that_the_kernel_refuses_is_named_and_undone() {
    limited(json!({"unified": {"memory.max": "a lot"}}), &["wait"])
        .assert_refused(&["linux.resources.unified", "memory.max"]);
    limited(json!({"cpu": {"cpus": "4000"}}), &["wait"]).assert_refused(&[
        "linux.resources.cpu.cpus",
        "out of range",
        "there are 0",
    ]);
}
