//! `events` and `stats`: figures that the controllers count, and news of a
//! container that is out of memory.

use serde_json::{Value, json};

use crate::support::{Container, pipe};
use crate::{MIB, file, limited};

fn stats(container: &Container) -> Value {
    container.on_id("events", &["--stats"], &[]).run().ok().json()["data"].clone()
}

#[track_caller]
fn number(data: &Value, pointer: &str) -> u64 {
    let found = data.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no {pointer} in {data}"))
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_kill_for_want_of_memory_is_told_before_the_end() {
    let limit = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let container = limited(limit, &["alloc", &(64 * MIB).to_string()]);
    let mut output = container.create();
    let (mut lines, writer) = pipe();
    let flags = ["--interval", "20ms"];
    let events = container.on_id("events", &flags, &[]).stdout(writer).spawn();
    // the watch is there
    assert!(lines.line().contains(r#""type":"stats""#));
    container.start().ok();
    container.ended(&mut output);
    events.wait().ok();
    let rest = lines.rest();
    let told: Vec<Value> = rest.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let news: Vec<&Value> = told.iter().filter(|event| event["type"] == "oom").collect();
    let sum = |key: &str| -> u64 {
        news.iter().map(|event| number(event, &format!("/data/{key}"))).sum()
    };
    assert!(news.iter().all(|event| event["id"] == container.id), "{rest}");
    assert_eq!(crate::figure(&container, "memory.events", "oom_kill"), sum("oom_kill"), "{rest}");
    assert_eq!(crate::figure(&container, "memory.events", "oom"), sum("oom"), "{rest}");
    assert_eq!(sum("oom_kill"), 1, "{rest}");
    // it was the container's own limit
    assert_eq!(sum("oom_local"), sum("oom"), "{rest}");
    assert!(sum("oom") > 0, "{rest}");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn news_of_a_limit_above_and_of_one_below_are_told_apart() {
    // the limit is that of the cgroup above, then of one inside
    for (limited_at, container_at) in [("", "inner"), ("inner", "")] {
        let container = limited(
            json!({"memory": {"limit": -1}}),
            &["each", "wait", "alloc-in-child 67108864", "wait"],
        );
        let top = container.cgroup();
        let inner = top.join("inner");
        let path = format!("/{}/{container_at}", container.id);
        container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        if container_at == "inner" {
            std::fs::create_dir(&top).unwrap();
            std::fs::write(top.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let mut output = container.started();
        if container_at.is_empty() {
            std::fs::create_dir(&inner).unwrap();
            std::fs::write(inner.join("cgroup.procs"), container.pid().to_string()).unwrap();
            std::fs::write(top.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        std::fs::write(top.join(limited_at).join("memory.max"), (16 * MIB).to_string()).unwrap();
        let (mut lines, writer) = pipe();
        let flags = ["--interval", "20ms"];
        let events = container.on_id("events", &flags, &[]).stdout(writer).spawn();
        assert!(lines.line().contains(r#""type":"stats""#));
        container.kill("TERM").ok();
        assert_eq!([output.line(), output.line()], ["GOT SIGTERM", "SIGKILL"]);
        let (mut oom, mut killed) = (0, 0);
        while killed == 0 {
            let event: Value = serde_json::from_str(&lines.line()).unwrap();
            if event["type"] == "oom" {
                oom += number(&event, "/data/oom");
                killed += number(&event, "/data/oom_kill");
                assert_eq!(number(&event, "/data/oom_local"), 0, "{event}");
            }
        }
        // what is below counts here as well, what is above does not
        assert_eq!((oom > 0, killed), (container_at.is_empty(), 1));
        container.delete_by_force().ok();
        events.wait().ok();
        if container_at == "inner" {
            std::fs::remove_dir(&top).unwrap();
        }
        container.assert_gone();
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn figures_are_those_of_the_files() {
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB},
        "pids": {"limit": 17},
        "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"},
    });
    let container = limited(resources, &["children", "3"]);
    let _output = container.started();
    let data = stats(&container);
    assert_eq!(number(&data, "/pids/current"), 4);
    assert_eq!(number(&data, "/pids/limit"), 17);
    assert_eq!(number(&data, "/memory/usage/limit"), 64 * MIB);
    // both together, where the kernel counts swap
    if container.cgroup().join("memory.swap.current").exists() {
        assert_eq!(number(&data, "/memory/swap/limit"), 96 * MIB);
        assert!(number(&data, "/memory/swap/usage") >= number(&data, "/memory/usage/usage"));
    }
    let usage = number(&data, "/memory/usage/usage");
    assert!((1..=64 * MIB).contains(&usage), "{usage}");
    assert!(number(&data, "/memory/raw/anon") > 0);
    assert_eq!(data["cpuset"]["cpus"], json!([0]));
    assert!(data["cpu"]["throttling"]["periods"].is_u64(), "{data}");
    assert_eq!(file(&container, "pids.current"), "4");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn without_a_limit_memory_has_the_largest_number_and_pids_none() {
    let container = limited(json!({"memory": {"limit": -1}, "pids": {"limit": -1}}), &["wait"]);
    let _output = container.started();
    let data = stats(&container);
    if container.cgroup().join("memory.max").exists() {
        assert_eq!(number(&data, "/memory/usage/limit"), u64::MAX);
    }
    assert_eq!(data.pointer("/pids/limit"), None);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn memory_and_processor_time_move() {
    let resources = json!({"memory": {"limit": 64 * MIB}, "cpu": {"quota": 20_000}});
    let words = ["each", "say A", "fill /dev/shm/big 16777216", "burn 300", "say B", "wait"];
    let container = limited(resources, &words);
    let mut output = container.create();
    let before = stats(&container);
    container.start().ok();
    while output.line() != "READY" {}
    let after = stats(&container);
    let grown = |pointer: &str| number(&after, pointer) - number(&before, pointer);
    assert!(grown("/memory/usage/usage") >= 12 * MIB, "{after}");
    assert!(grown("/memory/cache") >= 12 * MIB, "{after}");
    assert!(grown("/cpu/usage/total") >= 20_000_000, "{after}");
    assert!(grown("/cpu/throttling/periods") > 0, "{after}");
    assert!(grown("/cpu/throttling/throttledTime") > 0, "{after}");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn reads_of_a_disk_are_counted() {
    let (_, major, minor) = crate::io::disk();
    let read = format!("read-device /dev/disk {MIB}");
    let container = limited(json!({}), &["each", &read, "wait"]);
    crate::io::give_disk(&container, json!({"weight": 100}));
    let mut output = container.started();
    let data = stats(&container);
    let entries = data["blkio"]["ioServiceBytesRecursive"].as_array().unwrap();
    let of_disk = |op: &str| {
        let mut all = entries.iter();
        all.find(|e| e["major"] == major && e["minor"] == minor && e["op"] == op).cloned()
    };
    assert!(number(&of_disk("Read").unwrap(), "/value") >= MIB, "{data}");
    container.kill("KILL").ok();
    container.ended(&mut output);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_table_and_the_metrics_show_limits_and_pids() {
    let resources = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 17}});
    let container = limited(resources, &["children", "3"]);
    let _output = container.started();
    let table = container.on_id("stats", &["--no-stream"], &[]).run().ok().stdout;
    for text in ["  64 MiB  ", "  4/17  "] {
        assert!(table.contains(text), "no {text} in {table}");
    }
    let text = container.on_id("stats", &["--format", "openmetrics"], &[]).run().ok().stdout;
    for (name, value) in [
        ("tare_memory_limit_bytes", 64 * MIB),
        ("tare_pids", 4),
        ("tare_pids_limit", 17),
        ("tare_memory_oom_kills_total", 0),
    ] {
        let line = format!("\n{name}{{id=\"{}\"}} {value}\n", container.id);
        assert!(text.contains(&line), "no {line} in {text}");
    }
}
