//! Scopes of the machine's manager.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Tare, args, cgroup2_mount, unique_id};
use crate::{assert_gone, cgroup, container, file, property, systemctl, unit, wait_inactive};

const MIB: u64 = 1 << 20;

fn limit(config: &mut Value, resources: &Value) {
    let all = config["linux"]["resources"].as_object_mut().unwrap();
    all.extend(resources.as_object().unwrap().clone());
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn the_unit_has_the_limits_and_so_have_the_files() {
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 2048, "quota": 33_500, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
        "blockIO": {"weight": 500},
        // of which systemd knows nothing
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
        "unified": {"memory.high": "60000000", "cgroup.max.depth": "3"},
    });
    let c = container(&Tare::new(), &["wait"], |config| limit(config, &resources));
    let mut output = c.started();
    for (name, value) in [
        ("Description", format!("container {}", c.id).as_str()),
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("Transient", "yes"),
        ("ControlGroup", &format!("/system.slice/{}", unit(&c))),
        ("MemoryMax", "67108864"),
        ("MemoryHigh", "60000000"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "33554432"),
        ("CPUWeight", "174"),
        // whole per cent: systemd rounds, now or at its next reload
        ("CPUQuotaPerSecUSec", "670ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "17"),
        ("IOWeight", "4500"),
        ("MemoryAccounting", "yes"),
    ] {
        assert_eq!(property(&unit(&c), name), value, "{name}");
    }
    for (name, value) in [
        ("memory.max", "67108864"),
        ("memory.high", "59998208"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "33554432"),
        ("cpu.weight", "174"),
        ("cpu.max", "33500 50000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "17"),
        ("cgroup.max.depth", "3"),
        ("hugetlb.2MB.max", "4194304"),
        ("cgroup.procs", &c.pid().to_string()),
    ] {
        assert_eq!(file(&c, name), value, "{name}");
    }
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn limits_bite() {
    let forks = container(&Tare::new(), &["fork-until-denied", "100"], |config| {
        limit(config, &json!({"pids": {"limit": 8}}));
    });
    assert_eq!(forks.json(), json!({"made": 7, "denied": "EAGAIN"}));
    assert_gone(&forks);
    // the program is alone from its first moment on
    let one = container(&Tare::new(), &["fork-until-denied", "5"], |config| {
        limit(config, &json!({"pids": {"limit": 1}}));
    });
    assert_eq!(one.json(), json!({"made": 0, "denied": "EAGAIN"}));
    let words = ["alloc", &(64 * MIB).to_string()];
    let memory = container(&Tare::new(), &words, |config| {
        limit(config, &json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    });
    memory.run().ends_with_code(137);
    assert_gone(&memory);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_daemon_reload_leaves_limits_and_device_rules() {
    let words =
        ["each", "wait", "open /dev/log-of-kernel r", "open /dev/null rw", "fork-until-denied 9"];
    let c = container(&Tare::new(), &words, |config| {
        // a node is there: what keeps it closed is the device program alone
        config["linux"]["devices"] =
            json!([{"path": "/dev/log-of-kernel", "type": "c", "major": 1, "minor": 11}]);
        config["process"]["capabilities"]["effective"] = json!(["CAP_SYSLOG"]);
        config["process"]["capabilities"]["permitted"] = json!(["CAP_SYSLOG"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYSLOG"]);
        let resources = json!({
            "memory": {"limit": 64 * MIB},
            "cpu": {"quota": 50_000, "cpus": "0", "shares": 512},
            "pids": {"limit": 5},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
            "unified": {"cgroup.max.depth": "3", "memory.high": "50000000"},
        });
        limit(config, &resources);
    });
    let mut output = c.started();
    let names = [
        "memory.max",
        "memory.high",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "pids.max",
        "cgroup.max.depth",
        "hugetlb.2MB.max",
    ];
    let before = names.map(|name| file(&c, name));
    systemctl(&["daemon-reload"]);
    assert_eq!(names.map(|name| file(&c, name)), before);
    // one more limit by hand: systemd writes to the same cgroup again
    systemctl(&["set-property", "--runtime", &unit(&c), "MemoryMin=4096"]);
    assert_eq!(names.map(|name| file(&c, name)), before);
    assert_eq!(file(&c, "memory.min"), "4096");
    c.kill("TERM").ok();
    let denied = json!({"made": 4, "denied": "EAGAIN"}).to_string();
    let text = c.ended(&mut output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["GOT SIGTERM", "EPERM", "ok"]);
    let forks: Value = serde_json::from_str(lines[3]).unwrap();
    assert_eq!(forks.to_string(), denied);
    c.delete().ok();
    assert_gone(&c);
    // with the rule it can be opened: nothing else has kept it closed
    let resources = c.bundle.config()["linux"]["resources"]["devices"].clone();
    c.bundle.edit(|config| {
        let mut rules = resources.as_array().unwrap().clone();
        rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}));
        config["linux"]["resources"]["devices"] = json!(rules);
        args(config, &["open", "/dev/log-of-kernel", "r"]);
    });
    assert_eq!(c.lines(), ["ok"]);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn what_is_delegated_is_in_the_containers_cgroup() {
    let c = container(
        &Tare::new(),
        &["each", "read /proc/self/cgroup", "read /sys/fs/cgroup/pids.max"],
        |config| {
            limit(config, &json!({"pids": {"limit": 9}}));
        },
    );
    assert_eq!(c.lines(), ["0::/", "9"]);
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_limit_that_an_older_systemd_does_not_know_is_in_effect() {
    // a property since systemd 253
    let c = container(&Tare::new(), &["wait"], |config| {
        limit(config, &json!({"unified": {"memory.zswap.max": "0"}, "pids": {"limit": 5}}));
    });
    let _output = c.started();
    assert_eq!(file(&c, "memory.zswap.max"), "0");
    assert_eq!(property(&unit(&c), "TasksMax"), "5");
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn slices_are_where_their_names_say() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    let top = unique_id().replace('-', "_");
    let path = format!("{top}-b-c.slice:pre:{}", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = c.started();
    let unit = format!("pre-{}.scope", c.id);
    let expected = format!("/{top}.slice/{top}-b.slice/{top}-b-c.slice/{unit}");
    assert_eq!(property(&unit, "ControlGroup"), expected);
    let procs = cgroup2_mount().join(&expected[1..]).join("cgroup.procs");
    assert_eq!(std::fs::read_to_string(procs).unwrap().trim(), c.pid().to_string());
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    // slices stay for the next unit: they are systemd's
    systemctl(&["stop", &format!("{top}.slice")]);
    c.assert_gone();
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn annotations_become_properties_of_the_unit() {
    let c = container(&Tare::new(), &["wait"], |config| {
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.RuntimeMaxSec": "600",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.DefaultDependencies": "true",
            "org.systemd.property.After": "['dbus.service', 'tmp.mount']",
            "org.systemd.property.MemoryMin": "uint64 8192",
        });
    });
    let _output = c.started();
    for (name, value) in [
        ("TimeoutStopUSec", "7s"),
        ("RuntimeMaxUSec", "10min"),
        ("CollectMode", "inactive-or-failed"),
        ("DefaultDependencies", "yes"),
        ("MemoryMin", "8192"),
    ] {
        assert_eq!(property(&unit(&c), name), value, "{name}");
    }
    let after = property(&unit(&c), "After");
    assert!(
        ["dbus.service", "tmp.mount"].iter().all(|u| after.split(' ').any(|a| a == *u)),
        "{after}"
    );
    // one that systemd does not know, or not so: refused by name, nothing stays
    for (key, value) in [("Frobnicate", "true"), ("TimeoutStopUSec", "'soon'")] {
        let key = format!("org.systemd.property.{key}");
        let c = container(&Tare::new(), &["wait"], |config| {
            config["annotations"] = json!({key.as_str(): value});
        });
        c.assert_refused(&["annotations", &key]);
        assert_gone(&c);
    }
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_subgroup_holds_the_container() {
    let c = container(&Tare::new(), &["each", "wait", "read /proc/self/cgroup"], |config| {
        config["annotations"] = json!({"run.oci.systemd.subgroup": "inner"});
        limit(config, &json!({"pids": {"limit": 9}, "memory": {"limit": 64 * MIB}}));
    });
    let mut output = c.started();
    assert_eq!(file(&c, "inner/cgroup.procs"), c.pid().to_string());
    assert_eq!(file(&c, "cgroup.procs"), "");
    for place in ["", "inner/"] {
        assert_eq!(file(&c, &format!("{place}pids.max")), "9", "{place}");
        assert_eq!(file(&c, &format!("{place}memory.max")), (64 * MIB).to_string(), "{place}");
    }
    assert!(file(&c, "inner/cgroup.controllers").contains("cpu"));
    c.kill("TERM").ok();
    assert_eq!(c.ended(&mut output), "GOT SIGTERM\n0::/\n");
    c.delete().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_container_that_ends_takes_its_unit_along() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    let mut output = c.started();
    c.kill("KILL").ok();
    c.ended(&mut output);
    wait_inactive(&unit(&c));
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    assert_gone(&c);
    // and one that runs goes by force, the processes that it shares with the
    // host included
    let shared = container(&Tare::new(), &["children", "3", "setsid"], |config| {
        crate::support::drop_namespace(config, "pid");
    });
    let _output = shared.create();
    shared.start().ok();
    shared.delete_by_force().ok();
    assert_gone(&shared);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn who_stops_the_unit_stops_the_container() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    let mut output = c.started();
    systemctl(&["stop", &unit(&c)]);
    assert_eq!(c.ended(&mut output), "GOT SIGTERM\n");
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_create_that_fails_later_leaves_no_unit() {
    let c = container(&Tare::new(), &["wait"], |config| {
        config["process"]["args"] = json!(["/no-such-program"]);
    });
    c.assert_refused(&["/no-such-program"]);
    assert_gone(&c);
    // a limit that the kernel refuses, and one that systemd does
    for (name, value) in
        [("cgroup.max.depth", "deep"), ("memory.high", "a lot"), ("cpu.weight", "0")]
    {
        let c = container(&Tare::new(), &["wait"], |config| {
            limit(config, &json!({"unified": {name: value}}));
        });
        c.assert_refused(&["linux.resources.unified", name]);
        assert_gone(&c);
    }
    let c = container(&Tare::new(), &["wait"], |config| {
        config["linux"]["resources"]["hugepageLimits"] =
            json!([{"pageSize": "64KB", "limit": 65536}]);
    });
    c.assert_refused(&["linux.resources.hugepageLimits[0]"]);
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_namesake_that_has_failed_is_no_obstacle_and_one_that_runs_is() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    // a scope that is over its time ends as failed, and stays
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--scope", "-p", "RuntimeMaxSec=1", "--unit", &unit(&c)]);
    command.args(["sleep", "1000"]).stdin(Stdio::null());
    assert!(!command.status().unwrap().success());
    wait_inactive(&unit(&c));
    assert_eq!(property(&unit(&c), "ActiveState"), "failed");
    let mut output = c.started();
    assert_eq!(property(&unit(&c), "ActiveState"), "active");
    // another one that wants the same unit
    let other = container(&Tare::new(), &["wait"], |_| {});
    let path = format!(":tare:{}", c.id);
    other.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    other.on_bundle("create", &[]).run().fails_with(&[&unit(&c), "there already"]);
    assert!(other.traces().is_empty());
    assert_eq!(c.status(), "running");
    assert_eq!(property(&unit(&c), "ActiveState"), "active");
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn the_record_knows_the_unit_without_the_option() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    let _output = c.started();
    // as conmon's exec and delete come: without --systemd-cgroup
    let mut plain =
        crate::support::Container::under(&Tare::new(), |config| args(config, &["wait"]));
    plain.id.clone_from(&c.id);
    let root = c.tare.root().to_str().unwrap().to_owned();
    let words = ["--root", &root, "delete", "--force", &c.id];
    plain.tare.bare(words).run().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn init_is_in_its_cgroup_before_anything_of_the_users_runs() {
    let c = container(&Tare::new(), &["exit", "0"], |_| {});
    let seen = c.bundle.path().join("seen");
    // this hook runs while init is on its way to its root
    let script = format!(
        r#"pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'); cat /proc/$pid/cgroup >{}"#,
        seen.display()
    );
    c.bundle.edit(|config| {
        config["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    c.run().ok();
    let text = std::fs::read_to_string(seen).unwrap();
    let place = cgroup(&c);
    let place = place.strip_prefix(cgroup2_mount()).unwrap();
    assert!(text.lines().any(|line| line == format!("0::/{}", place.display())), "{text}");
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_runtime_that_is_killed_leaves_what_delete_removes_by_force() {
    let c = container(&Tare::new(), &["wait"], |config| {
        // the scope is there, the container half made
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", "kill -KILL $PPID"]},
        ]});
    });
    c.on_bundle("create", &[]).run().ends_with_code(137);
    c.delete_by_force().ok();
    assert_gone(&c);
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn systemd_learns_of_limits_that_change() {
    let c = container(&Tare::new(), &["wait"], |config| {
        limit(config, &json!({"pids": {"limit": 9}, "memory": {"limit": 64 * MIB}}));
    });
    let _output = c.started();
    let state = std::fs::read(c.tare.root().join(&c.id).join("state.json")).unwrap();
    let record: tare::container::Record = serde_json::from_slice(&state).unwrap();
    let resources = serde_json::from_value(json!({
        "pids": {"limit": 7}, "cpu": {"quota": 20_000, "cpus": "1"}, "memory": {"limit": -1},
    }));
    let limits = tare::cgroup::limits::plan(&resources.unwrap()).unwrap();
    record.cgroup.scope.unwrap().set_properties(&limits.settings).unwrap();
    for (name, value) in [
        ("TasksMax", "7"),
        ("CPUQuotaPerSecUSec", "200ms"),
        ("AllowedCPUs", "1"),
        ("MemoryMax", "infinity"),
    ] {
        assert_eq!(property(&unit(&c), name), value, "{name}");
    }
    assert_eq!(file(&c, "pids.max"), "7");
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn an_update_is_told_to_the_unit_and_taken_back_with_the_files() {
    let before = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 17}});
    let c = container(&Tare::new(), &["wait"], |config| limit(config, &before));
    let mut output = c.started();
    let shows = |memory: &str, tasks: &str| {
        // what systemd keeps to is what it writes again
        systemctl(&["daemon-reload"]);
        assert_eq!(property(&unit(&c), "MemoryMax"), memory);
        assert_eq!(property(&unit(&c), "TasksMax"), tasks);
        assert_eq!(file(&c, "memory.max"), memory);
        assert_eq!(file(&c, "pids.max"), tasks);
    };
    c.on_id("update", &["--memory", "48m", "--pids-limit", "9"], &[]).run().ok();
    shows("50331648", "9");
    let path = c.bundle.path().join("resources.json");
    let wrong = json!({
        "memory": {"limit": 32 * MIB}, "pids": {"limit": 5},
        "unified": {"cgroup.max.depth": "many"},
    });
    std::fs::write(&path, wrong.to_string()).unwrap();
    let flag = format!("--resources={}", path.display());
    c.on_id("update", &[&flag], &[]).run().fails_with(&["cgroup.max.depth", "many"]);
    shows("50331648", "9");
    c.on_id("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    c.on_id("resume", &[], &[]).run().ok();
    c.kill("TERM").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert_gone(&c);
}
