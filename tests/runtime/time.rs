//! Time namespaces: new, shifted, joined.

use serde_json::{Value, json};

use crate::support::{Container, args, map_users, namespace_of, namespace_path, probe};

const DAY: i64 = 86400;

/// What the host's clocks show, by the same program.
fn host_clocks() -> Value {
    let output = std::process::Command::new(probe()).arg("report").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["clocks"].clone()
}

fn add_time_namespace(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "time"}));
}

/// How far a container's clock is ahead of the host's, in seconds; the time
/// that the test takes comes on top.
#[track_caller]
fn assert_ahead(seen: &Value, host: &Value, clock: &str, by: i64) {
    let ahead = seen[clock].as_i64().unwrap() - host[clock].as_i64().unwrap();
    assert!((by..by + 60).contains(&ahead), "{clock}: {ahead} and not {by}");
}

#[test]
fn a_new_time_namespace_begins_with_the_hosts_clocks() {
    let host = host_clocks();
    let report = Container::new(add_time_namespace).json();
    let own = namespace_of(std::process::id(), "time");
    assert_ne!(report["namespaces"]["time"], own);
    assert_ahead(&report["clocks"], &host, "monotonic", 0);
    let report = Container::new(|_| {}).json();
    assert_eq!(report["namespaces"]["time"], own);
}

#[test]
fn the_clocks_are_shifted_as_the_config_says() {
    let host = host_clocks();
    let report = Container::new(|config| {
        add_time_namespace(config);
        config["linux"]["timeOffsets"] = json!({
            "monotonic": {"secs": DAY, "nanosecs": 999_999_999},
            "boottime": {"secs": 7 * DAY},
        });
    })
    .json();
    assert_ahead(&report["clocks"], &host, "monotonic", DAY);
    assert_ahead(&report["clocks"], &host, "boottime", 7 * DAY);
}

#[test]
fn hooks_in_the_container_see_its_clocks() {
    let host = host_clocks();
    let c = Container::new(|config| {
        add_time_namespace(config);
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": DAY}});
        config["hooks"] = json!({
            "startContainer": [{"path": "/probe", "args": ["/probe", "hook", "/out", "x"]}],
        });
        args(config, &["read", "/out"]);
    });
    let line: Value = serde_json::from_str(&c.lines()[0]).unwrap();
    assert_ahead(&line["seen"]["clocks"], &host, "boottime", DAY);
}

#[test]
fn a_time_namespace_can_be_joined_by_its_path() {
    let host = host_clocks();
    let first = Container::new(|config| {
        add_time_namespace(config);
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": DAY}});
        args(config, &["wait"]);
    });
    let _output = first.started();
    let path = format!("/proc/{}/ns/time", first.pid());
    let report = Container::new(|c| namespace_path(c, "time", &path)).json();
    assert_eq!(report["namespaces"]["time"], namespace_of(first.pid(), "time"));
    assert_ahead(&report["clocks"], &host, "boottime", DAY);
}

#[test]
fn a_time_namespace_goes_with_a_user_namespace() {
    let host = host_clocks();
    let c = Container::new(|config| {
        add_time_namespace(config);
        map_users(config);
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": DAY}});
    });
    c.bundle.give_rootfs_to(100_000);
    assert_ahead(&c.json()["clocks"], &host, "monotonic", DAY);
}

#[test]
fn a_shifted_container_is_told_apart_and_deleted_like_any() {
    let c = Container::new(|config| {
        add_time_namespace(config);
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": DAY}});
        args(config, &["wait"]);
    });
    let _output = c.started();
    assert_eq!(c.status(), "running");
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn offsets_that_make_no_sense_are_refused() {
    for (offsets, text) in [
        (json!({"realtime": {"secs": 1}}), "realtime"),
        (json!({"monotonic": {"nanosecs": 1_000_000_000}}), "linux.timeOffsets.monotonic.nanosecs"),
        // before the machine's start
        (json!({"boottime": {"secs": -400_000_000_000_i64}}), "linux.timeOffsets"),
    ] {
        Container::new(|config| {
            add_time_namespace(config);
            config["linux"]["timeOffsets"] = offsets;
        })
        .assert_refused(&[text]);
    }
    let own = format!("/proc/{}/ns/time", std::process::id());
    for joins in [false, true] {
        Container::new(|config| {
            if joins {
                namespace_path(config, "time", &own);
            }
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}});
        })
        .assert_refused(&["linux.timeOffsets", "time namespace"]);
    }
}
