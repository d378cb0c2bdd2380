//! Limits that change while the program runs.

use std::io::{Seek, Write};

use serde_json::{Value, json};

use crate::support::{Container, Output, Pipe};
use crate::{MIB, figure, file, limited};

fn update(container: &Container, flags: &[&str]) -> Output {
    container.on_id("update", flags, &[]).run()
}

/// `update ID --resources -` with these.
fn update_with(container: &Container, resources: &Value) -> Output {
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(resources.to_string().as_bytes()).unwrap();
    stdin.rewind().unwrap();
    container.on_id("update", &["--resources", "-"], &[]).stdin(stdin).run()
}

/// A container that waits for a change, and then goes on with these words of the
/// probe.
fn waiting(resources: Value, words: &[&str]) -> (Container, Pipe) {
    let mut all = vec!["each", "wait"];
    all.extend(words);
    let container = limited(resources, &all);
    let output = container.started();
    (container, output)
}

fn goes_on(container: &Container, output: &mut Pipe) {
    container.kill("TERM").ok();
    assert_eq!(output.line(), "GOT SIGTERM");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn more_memory_lets_the_program_have_it() {
    let limits = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let child = format!("alloc-in-child {}", 48 * MIB);
    let (container, mut output) = waiting(limits, &[&child, "wait", &child, "wait", &child]);
    goes_on(&container, &mut output);
    assert_eq!(output.line(), "SIGKILL");
    assert_eq!(output.line(), "READY");
    update(&container, &["--memory", "128m", "--memory-swap", "128m"]).ok();
    goes_on(&container, &mut output);
    assert_eq!(output.line(), "exit 0");
    assert_eq!(output.line(), "READY");
    update(&container, &["--memory", "16m"]).ok();
    goes_on(&container, &mut output);
    assert_eq!(output.line(), "SIGKILL");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_program_that_does_not_fit_any_more_is_told_of() {
    let limits = json!({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}});
    // nothing that the kernel could take back
    let container = limited(limits, &["each", "fill /dev/shm/big 33554432", "wait"]);
    let mut output = container.create();
    container.start().ok();
    assert_eq!([output.line(), output.line()], ["ok", "READY"]);
    let updated = update(&container, &["--memory", "8m", "--memory-swap", "8m"]).ok();
    for text in ["linux.resources.memory.limit", "out of memory", "limit of 8 MiB", "peak"] {
        assert!(updated.stderr.contains(text), "no {text}: {updated:#?}");
    }
    container.ended(&mut output);
    assert_eq!(container.status(), "stopped");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_limit_on_processes_comes_and_goes() {
    // made without any limit: the controllers have to come first
    let words = ["fork-until-denied 20"];
    let (container, mut output) = waiting(json!({}), &words);
    update(&container, &["--pids-limit", "8"]).ok();
    assert_eq!(file(&container, "pids.max"), "8");
    goes_on(&container, &mut output);
    assert_eq!(output.line(), r#"{"denied":"EAGAIN","made":7}"#);

    let (container, mut output) = waiting(json!({"pids": {"limit": 8}}), &words);
    update(&container, &["--pids-limit", "-1"]).ok();
    goes_on(&container, &mut output);
    assert_eq!(output.line(), r#"{"denied":"never","made":20}"#);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn controllers_come_all_the_way_down_to_a_container_that_had_none() {
    let container = limited(json!({}), &["wait"]);
    let path = format!("/{}/a/b", container.id);
    container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = container.started();
    update(&container, &["--memory", "64m", "--pids-limit", "9"]).ok();
    let read = |name: &str| std::fs::read_to_string(container.cgroup().join(name)).unwrap();
    assert_eq!(read("a/b/memory.max").trim(), (64 * MIB).to_string());
    assert_eq!(read("a/b/pids.max").trim(), "9");
    container.kill("KILL").ok();
    container.ended(&mut output);
    container.delete().ok();
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_quota_bounds_a_program_that_runs_already() {
    let (container, mut output) = waiting(json!({}), &["burn 2000", "wait"]);
    update(&container, &["--cpu-quota", "5000"]).ok();
    goes_on(&container, &mut output);
    let used: Value = serde_json::from_str(&output.line()).unwrap();
    let (cpu, wall) = (used["cpuMs"].as_u64().unwrap(), used["wallMs"].as_u64().unwrap());
    // a twentieth, and what each period is late; without the quota it is all
    assert!(cpu <= wall / 2, "{used}");
    assert!(figure(&container, "cpu.stat", "nr_throttled") > 0);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_other_half_of_a_pair_stays() {
    let limits = json!({
        "cpu": {"quota": 40_000, "period": 80_000, "shares": 2048},
        "memory": {"limit": 32 * MIB, "swap": 48 * MIB},
    });
    let container = limited(limits, &["wait"]);
    let _output = container.started();
    for (flags, name, text) in [
        (["--cpu-quota", "20000"], "cpu.max", "20000 80000"),
        (["--cpu-period", "50000"], "cpu.max", "20000 50000"),
        (["--cpu-quota", "-1"], "cpu.max", "max 50000"),
        (["--cpu-share", "1024"], "cpu.weight", "100"),
        (["--cpu-idle", "1"], "cpu.idle", "1"),
        (["--cpu-share", "262144"], "cpu.idle", "1"),
        // what the idle one could not have
        (["--cpu-idle", "0"], "cpu.weight", "10000"),
        (["--memory", "40m"], "memory.max", "41943040"),
        // swap is as much as it was
        (["--memory", "40m"], "memory.swap.max", "16777216"),
        (["--memory-swap", "44m"], "memory.swap.max", "4194304"),
        (["--memory-reservation", "8m"], "memory.low", "8388608"),
        (["--memory", "-1"], "memory.swap.max", "max"),
        (["--memory", "-1"], "memory.max", "max"),
    ] {
        update(&container, &flags).ok();
        assert_eq!(file(&container, name), text, "{flags:?}");
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_burst_and_its_quota_change_in_either_direction() {
    let limits = json!({"cpu": {"quota": 50_000, "burst": 30_000}});
    let container = limited(limits, &["wait"]);
    let _output = container.started();
    for (quota, burst) in [("20000", "10000"), ("60000", "60000"), ("1000", "0")] {
        update(&container, &["--cpu-quota", quota, "--cpu-burst", burst]).ok();
        assert_eq!(file(&container, "cpu.max"), format!("{quota} 100000"));
        assert_eq!(file(&container, "cpu.max.burst"), burst);
    }
    update(&container, &["--cpu-burst", "2000"])
        .fails_with(&["linux.resources.cpu.burst: 2000 is more than the quota of 1000"]);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_program_is_moved_to_other_processors() {
    let limits = json!({"cpu": {"cpus": "0"}});
    let (container, mut output) = waiting(limits, &["affinity", "wait", "affinity"]);
    update(&container, &["--cpuset-cpus", "1", "--cpuset-mems", "0"]).ok();
    goes_on(&container, &mut output);
    assert_eq!(output.line(), "[1]");
    assert_eq!(output.line(), "READY");
    update(&container, &["--cpuset-cpus", "0-1"]).ok();
    goes_on(&container, &mut output);
    assert_eq!(output.line(), "[0,1]");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_change_that_fails_leaves_what_was_there() {
    let limits = json!({
        "pids": {"limit": 9},
        "memory": {"limit": 32 * MIB},
        "cpu": {"quota": 50_000, "cpus": "0"},
    });
    let container = limited(limits, &["wait"]);
    let _output = container.started();
    let asked = json!({
        "pids": {"limit": 5},
        "memory": {"limit": 8 * MIB, "reservation": 4 * MIB},
        "cpu": {"quota": 20_000, "shares": 2048, "cpus": "4000"},
    });
    update_with(&container, &asked).fails_with(&["linux.resources.cpu.cpus", "4000"]);
    let shown = [
        ("pids.max", "9"),
        ("memory.max", "33554432"),
        ("memory.low", "0"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0"),
    ];
    for (name, text) in shown {
        assert_eq!(file(&container, name), text, "{name}");
    }
    // nor does the record have any of it: the period goes with the old quota
    update(&container, &["--cpu-period", "200000"]).ok();
    assert_eq!(file(&container, "cpu.max"), "50000 200000");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn less_than_what_is_in_use_is_refused_if_asked_for() {
    let (container, _output) = waiting(json!({"memory": {"limit": 32 * MIB}}), &[]);
    for memory in [
        json!({"limit": 4096, "checkBeforeUpdate": true}),
        json!({"limit": 4096, "swap": 4096, "checkBeforeUpdate": true}),
    ] {
        let output = update_with(&container, &json!({"memory": memory}));
        output.fails_with(&["linux.resources.memory.", "rejecting memory", "bytes are in use"]);
        assert_eq!(file(&container, "memory.max"), (32 * MIB).to_string());
        assert_eq!(file(&container, "memory.swap.max"), "max");
    }
    let enough = json!({"memory": {"limit": 30 * MIB, "checkBeforeUpdate": true}});
    update_with(&container, &enough).ok();
    assert_eq!(file(&container, "memory.max"), (30 * MIB).to_string());
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_rate_for_a_disk_is_changed_and_put_back() {
    let (_, major, minor) = crate::io::disk();
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let limits = json!({"blockIO": {"throttleReadBpsDevice": device(1_000_000)}});
    let container = limited(limits, &["wait"]);
    let _output = container.started();
    let line = |rates: &str| format!("{major}:{minor} {rates}");
    let asked = json!({"blockIO": {"throttleWriteIOPSDevice": device(300)}});
    update_with(&container, &asked).ok();
    let both = line("rbps=1000000 wbps=max riops=max wiops=300");
    assert_eq!(file(&container, "io.max"), both);
    let wrong = json!({
        "blockIO": {"throttleReadBpsDevice": device(5_000_000)},
        "unified": {"pids.max": "few"},
    });
    update_with(&container, &wrong).fails_with(&["unified[\"pids.max\"]"]);
    assert_eq!(file(&container, "io.max"), both);
    let none = json!({"blockIO": {
        "throttleReadBpsDevice": device(0), "throttleWriteIOPSDevice": device(0),
    }});
    update_with(&container, &none).ok();
    assert_eq!(file(&container, "io.max"), "");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn unified_names_any_file() {
    let container = limited(json!({"memory": {"limit": 64 * MIB}}), &["wait"]);
    let _output = container.started();
    let asked = json!({
        "memory": {"limit": 48 * MIB},
        "unified": {"memory.max": "33554432", "memory.high": "30000000"},
    });
    update_with(&container, &asked).ok();
    assert_eq!(file(&container, "memory.max"), "33554432");
    assert_eq!(file(&container, "memory.high"), "29999104");
    update_with(&container, &json!({"unified": {"memory.nonesuch": "1"}})).fails_with(&[
        "linux.resources.unified[\"memory.nonesuch\"]",
        "the memory controller of this kernel has no memory.nonesuch",
    ]);
}
