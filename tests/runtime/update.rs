//! `update`, as far as it needs no controller: what is asked for and refused,
//! what is put back, device rules. Limits that bite are in tests/limits.

use std::io::{Seek, Write};

use serde_json::{Value, json};

use crate::support::{Container, Output, args};

/// `update ID --resources -` with this text.
fn update_by_stdin(c: &Container, text: &str) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    c.on_id("update", &["--resources", "-"], &[]).stdin(file).run()
}

fn update(c: &Container, flags: &[&str]) -> Output {
    c.on_id("update", flags, &[]).run()
}

fn file(c: &Container, name: &str) -> String {
    std::fs::read_to_string(c.cgroup().join(name)).unwrap().trim().to_owned()
}

fn waiting() -> (Container, crate::support::Pipe) {
    let c = Container::new(|config| args(config, &["wait"]));
    let output = c.started();
    (c, output)
}

/// The limits that the container's record has.
fn recorded(c: &Container) -> Value {
    let path = c.tare.root().join(&c.id).join("state.json");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    record["resources"].clone()
}

#[test]
fn resources_come_from_a_file_or_stdin() {
    let (c, _output) = waiting();
    update_by_stdin(&c, r#"{"unified": {"cgroup.max.depth": "3"}}"#).ok();
    assert_eq!(file(&c, "cgroup.max.depth"), "3");
    let path = c.bundle.path().join("resources.json");
    std::fs::write(&path, r#"{"unified": {"cgroup.max.descendants": "4"}}"#).unwrap();
    let from = format!("--resources={}", path.display());
    update(&c, &[&from]).ok();
    assert_eq!(file(&c, "cgroup.max.descendants"), "4");
    assert_eq!(file(&c, "cgroup.max.depth"), "3");
    // the record knows both: what an update leaves out stays
    assert_eq!(
        recorded(&c)["unified"],
        json!({"cgroup.max.depth": "3", "cgroup.max.descendants": "4"})
    );
    std::fs::remove_file(&path).unwrap();
    update(&c, &[&from]).fails_with(&["--resources", "no such file"]);
}

#[test]
fn flags_beside_a_file_are_passed_over_with_a_warning() {
    let (c, _output) = waiting();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(br#"{"unified": {"cgroup.max.depth": "3"}}"#).unwrap();
    file.rewind().unwrap();
    // as with runc, whatever they say
    let flags = ["--resources", "-", "--memory", "much", "--pids-limit", "5"];
    let updated = c.on_id("update", &flags, &[]).stdin(file).run().ok();
    assert!(updated.stderr.contains("warning: --resources is given"), "{updated:#?}");
    assert_eq!(updated.stderr.lines().count(), 1, "{updated:#?}");
    assert_eq!(self::file(&c, "cgroup.max.depth"), "3");
    assert_eq!((&recorded(&c)["memory"], &recorded(&c)["pids"]), (&Value::Null, &Value::Null));
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let (c, _output) = waiting();
    update(&c, &[]).ok();
    // what engines send for limits that are not theirs to change
    update_by_stdin(
        &c,
        r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "kernelTCP": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "burst": 0, "idle": 0,
                    "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
            "blockIO": {"weight": 0}, "pids": {}}"#,
    )
    .ok();
}

#[test]
fn wrong_words_are_refused_by_name() {
    let (c, _output) = waiting();
    for (flags, texts) in [
        (&["--memory", "much"][..], &["--memory", "\"much\" is not a size"][..]),
        (&["--memory", "-5"], &["--memory"]),
        (&["--memory-swap", "100"], &["linux.resources.memory.swap", "there is none"]),
        (&["--cpu-quota", "10"], &["linux.resources.cpu.quota", "1000 microseconds"]),
        (&["--cpu-idle", "2"], &["linux.resources.cpu.idle"]),
        (&["--cpuset-cpus", "a-b"], &["linux.resources.cpu.cpus", "a-b"]),
        (&["--cpu-rt-runtime", "1000"], &["linux.resources.cpu.realtimeRuntime"]),
        (&["--cpu-rt-period", "1000"], &["linux.resources.cpu.realtimePeriod"]),
        (&["--pids-limit", "-7"], &["linux.resources.pids.limit", "-7"]),
        (&["--blkio-weight", "5"], &["linux.resources.blockIO.weight"]),
        (&["--l3-cache-schema", "x"], &["linux.intelRdt.l3CacheSchema"]),
    ] {
        update(&c, flags).fails_with(texts);
    }
    for (text, texts) in [
        ("{", &["--resources -", "not valid JSON"][..]),
        (r#"{"memory": {"limit": "1g"}}"#, &["--resources -: memory.limit"]),
        (r#"{"memory": {"swappiness": 10}}"#, &["linux.resources.memory.swappiness"]),
        (r#"{"network": {"classID": 7}}"#, &["linux.resources.network.classID"]),
        (r#"{"unified": {"../x.y": "1"}}"#, &["linux.resources.unified"]),
        (r#"{"unified": {"nonesuch.max": "1"}}"#, &["unified", "the nonesuch controller"]),
        (r#"{"unified": {"cgroup.nonesuch": "1"}}"#, &["unified", "no cgroup.nonesuch"]),
    ] {
        update_by_stdin(&c, text).fails_with(texts);
    }
    assert_eq!(recorded(&c), recorded_base());
}

fn recorded_base() -> Value {
    json!({"devices": [{"allow": false, "access": "rwm"}]})
}

#[test]
fn shares_of_caches_need_resctrl() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        return;
    }
    let (c, _output) = waiting();
    for flags in [["--l3-cache-schema", "L3:0=f"], ["--mem-bw-schema", "MB:0=20"]] {
        update(&c, &flags).fails_with(&["linux.intelRdt", "no resctrl file system"]);
    }
}

#[test]
fn a_field_without_a_meaning_is_warned_of() {
    let (c, _output) = waiting();
    let output = update(&c, &["--kernel-memory", "16m"]).ok();
    assert!(output.stderr.contains("memory.kernel is ignored"), "{output:#?}");
}

#[test]
fn a_change_that_fails_half_way_is_put_back() {
    let (c, _output) = waiting();
    update_by_stdin(&c, r#"{"unified": {"cgroup.max.depth": "3"}}"#).ok();
    update_by_stdin(
        &c,
        r#"{"unified": {"cgroup.max.depth": "5", "cgroup.max.descendants": "many"}}"#,
    )
    .fails_with(&["linux.resources.unified[\"cgroup.max.descendants\"]", "many"]);
    assert_eq!(file(&c, "cgroup.max.depth"), "3");
    assert_eq!(recorded(&c)["unified"], json!({"cgroup.max.depth": "3"}));
}

#[test]
fn created_and_paused_containers_are_updated_as_well() {
    let c = Container::new(|config| args(config, &["wait"]));
    let mut output = c.create();
    update_by_stdin(&c, r#"{"unified": {"cgroup.max.depth": "3"}}"#).ok();
    c.start().ok();
    assert_eq!(output.line(), "READY");
    c.on_id("pause", &[], &[]).run().ok();
    update_by_stdin(&c, r#"{"unified": {"cgroup.max.depth": "4"}}"#).ok();
    assert_eq!(file(&c, "cgroup.max.depth"), "4");
    assert_eq!(c.status(), "paused");
}

#[test]
fn a_limit_without_its_controller_says_where_that_is() {
    let all = crate::support::cgroup2_mount().join("cgroup.controllers");
    if std::fs::read_to_string(all).unwrap().split_whitespace().any(|name| name == "pids") {
        return;
    }
    let (c, _output) = waiting();
    update(&c, &["--pids-limit", "5"])
        .fails_with(&["linux.resources.pids.limit", "the pids controller is not in"]);
    assert_eq!(recorded(&c), recorded_base());
}

fn kmsg(access: &str) -> Value {
    json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access})
}

/// A program that opens a device before and after each of `changes`.
fn opens_around(changes: &[&dyn Fn(&Container)]) -> Vec<String> {
    let c = Container::new(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/msg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
        ]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
        }
        let mut words = vec!["each", "open /dev/msg r"];
        for _ in changes {
            words.extend(["wait", "open /dev/msg r"]);
        }
        args(config, &words);
    });
    let mut output = c.create();
    c.start().ok();
    let mut results = vec![output.line()];
    for change in changes {
        assert_eq!(output.line(), "READY");
        change(&c);
        c.kill("TERM").ok();
        assert_eq!(output.line(), "GOT SIGTERM");
        results.push(output.line());
    }
    results
}

#[test]
fn device_rules_are_replaced() {
    let deny = json!({"allow": false, "access": "rwm"});
    let rules = |rules: Value| {
        move |c: &Container| {
            update_by_stdin(c, &json!({"devices": rules}).to_string()).ok();
        }
    };
    let found = opens_around(&[
        &rules(json!([deny, kmsg("r")])),
        &rules(json!([deny])),
        &rules(json!([{"allow": true, "access": "rwm"}])),
        &rules(json!([deny, kmsg("w")])),
    ]);
    assert_eq!(found, ["EPERM", "ok", "EPERM", "ok", "EPERM"]);
}

#[test]
fn devices_stay_as_they_are_unless_the_resources_name_them() {
    let deny = json!({"allow": false, "access": "rwm"});
    let other = |c: &Container| {
        update_by_stdin(c, r#"{"unified": {"cgroup.max.depth": "3"}, "devices": []}"#).ok();
    };
    let wrong = |c: &Container| {
        let text = json!({"devices": [deny, kmsg("r")], "unified": {"cgroup.nonesuch": "1"}});
        update_by_stdin(c, &text.to_string()).fails_with(&["cgroup.nonesuch"]);
    };
    let invalid = |c: &Container| {
        let text = json!({"devices": [kmsg("rq")]}).to_string();
        update_by_stdin(c, &text).fails_with(&["linux.resources.devices[0].access"]);
    };
    assert_eq!(opens_around(&[&other, &wrong, &invalid]), ["EPERM"; 4]);
}
