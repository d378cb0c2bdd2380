//! `events`: the figures of a container as JSON, and its end. That it is out of
//! memory is in tests/limits/stats.rs.

use serde_json::{Value, json};

use crate::support::{Container, args, pipe};

fn waiting() -> Container {
    Container::new(|config| args(config, &["wait"]))
}

/// A figure of cpu.stat, in nanoseconds.
fn cpu_stat(container: &Container, key: &str) -> u64 {
    let text = std::fs::read_to_string(container.cgroup().join("cpu.stat")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap().parse::<u64>().unwrap() * 1000
}

fn stats(container: &Container) -> Value {
    let output = container.on_id("events", &["--stats"], &[]).run().ok();
    assert_eq!(output.stdout.lines().count(), 1, "{output:#?}");
    let event = output.json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id)));
    event["data"].clone()
}

#[test]
fn one_line_has_the_kernels_figures_in_runcs_shape() {
    let c = waiting();
    let _output = c.started();
    let data = stats(&c);
    let mut keys: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = "blkio cpu cpuset hugetlb intel_rdt memory network_interfaces pids";
    assert_eq!(keys.join(" "), expected);
    let usage = &data["cpu"]["usage"];
    let total = usage["total"].as_u64().unwrap();
    // the container waits: what it has used does not change, but for its last moment
    assert!(total > 0 && total <= cpu_stat(&c, "usage_usec"), "{usage}");
    assert!(usage["user"].as_u64().unwrap() + usage["kernel"].as_u64().unwrap() <= total + 2000);
    if c.cgroup().join("cpu.pressure").exists() {
        for key in ["avg10", "avg60", "avg300", "total"] {
            assert!(data["cpu"]["psi"]["some"][key].is_number(), "{data}");
        }
    }
}

#[test]
fn a_figure_whose_controller_is_missing_is_absent() {
    let c = waiting();
    let _output = c.started();
    let data = stats(&c);
    for (file, pointer) in [
        ("memory.current", "/memory/usage"),
        ("memory.swap.current", "/memory/swap"),
        ("memory.stat", "/memory/raw"),
        ("pids.current", "/pids/current"),
        ("io.stat", "/blkio/ioServiceBytesRecursive"),
        ("io.stat", "/blkio/ioServicedRecursive"),
        ("cpuset.cpus.effective", "/cpuset/cpus"),
        ("hugetlb.2MB.current", "/hugetlb/2MB"),
    ] {
        let is_there = c.cgroup().join(file).exists();
        assert_eq!(data.pointer(pointer).is_some(), is_there, "{file}: {data}");
    }
}

#[test]
fn a_created_container_has_figures_a_stopped_one_has_none() {
    let c = waiting();
    let mut output = c.create();
    assert!(stats(&c)["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    c.kill("KILL").ok();
    c.ended(&mut output);
    for flags in [&["--stats"][..], &[]] {
        c.on_id("events", flags, &[]).run().fails_with(&[&c.id, "container not running"]);
    }
    c.delete().ok();
    c.on_id("events", &["--stats"], &[]).run().fails_with(&["does not exist"]);
}

#[test]
fn an_interval_that_is_none_is_refused() {
    let c = waiting();
    for interval in ["0s", "-5s", "5", "soon", ""] {
        let flag = format!("--interval={interval}");
        // whether there is such a container does not matter
        c.on_id("events", &[&flag], &[]).run().fails_with(&[&flag]);
        c.on_id("events", &["--interval", interval, "--stats"], &[]).run().fails_with(&[&flag]);
    }
}

#[test]
fn figures_come_at_each_interval_until_the_container_ends() {
    let c = waiting();
    let mut output = c.started();
    let (mut lines, writer) = pipe();
    let events = c.on_id("events", &["--interval", "0m0.05s"], &[]).stdout(writer).spawn();
    let mut total = 0;
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.line()).unwrap();
        assert_eq!(event["type"], "stats");
        let now = event["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
        assert!(now >= total, "{now} after {total}");
        total = now;
    }
    c.kill("KILL").ok();
    c.ended(&mut output);
    events.wait().ok();
    for line in lines.rest().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["type"], "stats", "{line}");
    }
}

#[test]
fn it_ends_with_the_container_however_long_the_interval_is() {
    let c = waiting();
    let mut output = c.started();
    let events = c.on_id("events", &["--interval", "2562047h"], &[]).spawn();
    c.kill("KILL").ok();
    c.ended(&mut output);
    // it may have come too late to see the container alive
    let output = events.wait();
    assert_eq!(output.stdout, "");
    assert!(output.code == 0 || output.stderr.contains("container not running"), "{output:#?}");
}

#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    let c = waiting();
    let _output = c.started();
    for interval in ["1h", "1ms"] {
        let (lines, writer) = pipe();
        let events = c.on_id("events", &["--interval", interval], &[]).stdout(writer).spawn();
        drop(lines);
        let output = events.wait().ok();
        assert_eq!(output.stderr, "");
    }
    assert_eq!(c.status(), "running");
}
