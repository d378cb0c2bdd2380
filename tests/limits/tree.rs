//! Where the limits are: controllers on the way down, and who may change them.

use serde_json::json;

use crate::support::{add_mount, cgroup2_mount};
use crate::{MIB, limited};

fn own_cgroup() -> String {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned()
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn controllers_are_enabled_all_the_way_down_and_the_way_goes_again() {
    let resources = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}});
    let container = limited(resources, &["wait"]);
    let path = format!("/{}/a/b", container.id);
    container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = container.started();
    let read = |name: &str| std::fs::read_to_string(container.cgroup().join(name)).unwrap();
    assert_eq!(read("a/b/pids.max").trim(), "9");
    assert_eq!(read("a/b/memory.max").trim(), (64 * MIB).to_string());
    for parent in ["", "a/"] {
        let enabled = read(&format!("{parent}cgroup.subtree_control"));
        for controller in ["memory", "pids"] {
            assert!(enabled.split_whitespace().any(|c| c == controller), "{parent}: {enabled}");
        }
    }
    container.kill("KILL").ok();
    container.ended(&mut output);
    container.delete().ok();
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_container_without_limits_has_all_controllers() {
    let container = limited(json!({}), &["each", "read /sys/fs/cgroup/cgroup.controllers", "wait"]);
    let path = format!("/{}/a/b", container.id);
    container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = container.create();
    container.start().ok();
    let there = std::fs::read_to_string(cgroup2_mount().join("cgroup.controllers")).unwrap();
    assert!(there.contains("memory") && there.contains("pids"), "{there}");
    // those who divide the cgroup from inside find what there is
    output.expect(there.trim());
    // and there are figures
    let data = container.on_id("events", &["--stats"], &[]).run().ok().json()["data"].clone();
    assert_eq!(data["pids"]["current"], 1, "{data}");
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|used| used > 0), "{data}");
    container.kill("KILL").ok();
    container.ended(&mut output);
    container.delete().ok();
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_cgroup_with_processes_hands_nothing_down_and_the_error_says_so() {
    let own = own_cgroup();
    assert_ne!(own, "/", "the tests themselves are in a cgroup below the root");
    let container = limited(json!({"pids": {"limit": 9}}), &["wait"]);
    let path = format!("{own}/{}", container.id);
    container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    container.assert_refused(&["linux.resources.pids.limit", "processes of its own"]);
    // a path of the same kind without limits needs no controller
    container.bundle.edit(|config| {
        config["linux"]["resources"].as_object_mut().unwrap().remove("pids");
    });
    let _output = container.started();
    // and gets none: with some, that cgroup would be a threaded one
    let handed = std::fs::read_to_string(
        cgroup2_mount().join(own.trim_start_matches('/')).join("cgroup.subtree_control"),
    );
    assert_eq!(handed.unwrap().trim(), "");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_container_does_not_change_its_own_limits() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = cgroup2_mount().to_str().unwrap();
    let line = mounts.lines().find(|l| l.split(' ').nth(4) == Some(mount)).unwrap();
    assert!(line.contains("nsdelegate"), "cgroup2 is mounted without nsdelegate: {line}");
    let words = [
        "each",
        "write /sys/fs/cgroup/pids.max max",
        "write /sys/fs/cgroup/memory.max max",
        "read /sys/fs/cgroup/pids.max",
    ];
    let resources = json!({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}});
    let container = limited(resources, &words);
    container.bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        // writable: what keeps the limits is the kernel alone
        add_mount(
            config,
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
        );
    });
    assert_eq!(container.lines(), ["EPERM", "EPERM", "9"]);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_cgroup_below_has_the_controllers_to_make_limits_of_its_own() {
    let words = [
        "each",
        "mkdir /sys/fs/cgroup/inner",
        "read /sys/fs/cgroup/cgroup.controllers",
        "write /sys/fs/cgroup/memory.low 0",
    ];
    let container = limited(json!({"memory": {"limit": 64 * MIB}}), &words);
    container.bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        add_mount(
            config,
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
        );
    });
    let lines = container.lines();
    assert_eq!(lines[0], "ok");
    assert!(lines[1].split(' ').any(|c| c == "memory"), "{lines:?}");
    assert_eq!(lines[2], "EPERM");
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_leftover_that_was_split_takes_the_next_container() {
    let container = limited(json!({"pids": {"limit": 9}}), &["exit", "0"]);
    let leftover = container.cgroup();
    std::fs::create_dir(&leftover).unwrap();
    std::fs::create_dir(leftover.join("inner")).unwrap();
    std::fs::write(leftover.join("cgroup.subtree_control"), "+pids +memory").unwrap();
    container.run().ok();
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_create_writes_each_file_once_or_twice_at_most() {
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 2048, "quota": 40_000, "period": 50_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
    });
    let container = limited(resources, &["exit", "0"]);
    let trace = container.bundle.path().join("trace");
    let words = ["-f", "-e", "trace=openat", "-o", trace.to_str().unwrap()];
    // it follows the container to its end
    container.on_bundle("run", &[]).through("strace".as_ref(), &words).run().ok();
    let trace = std::fs::read_to_string(trace).unwrap();
    let written = |name: &str| {
        let opened = format!("{name}\", O_WRONLY");
        trace.lines().filter(|line| line.contains(&opened)).count()
    };
    for name in [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
    ] {
        assert!((1..=2).contains(&written(name)), "{name}: {trace}");
    }
    // init is born where it belongs, and the way down is there after the first one
    assert_eq!(written("cgroup.procs"), 0, "{trace}");
    assert!(written("cgroup.subtree_control") <= 1, "{trace}");
}
