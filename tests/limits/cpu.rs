//! cpu.max and cpuset.

use serde_json::json;

use crate::support::Container;
use crate::{figure, limited};

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_quota_bounds_the_time_on_a_processor() {
    let quota = json!({"cpu": {"quota": 5_000, "period": 100_000}});
    let container = limited(quota, &["each", "burn 2000", "wait"]);
    let mut output = container.create();
    container.start().ok();
    let used: serde_json::Value = serde_json::from_str(&output.line()).unwrap();
    let (cpu, wall) = (used["cpuMs"].as_u64().unwrap(), used["wallMs"].as_u64().unwrap());
    // a twentieth, and what each period is late; without the quota it is all
    assert!(cpu <= wall / 2, "{used}");
    assert!(figure(&container, "cpu.stat", "nr_throttled") > 0);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_cpuset_is_where_the_program_may_run() {
    for cpus in ["0", "1"] {
        let set = json!({"cpu": {"cpus": cpus, "mems": "0"}});
        let container = limited(set, &["each", "affinity", "read /proc/self/status"]);
        let lines = container.lines();
        assert_eq!(lines[0], format!("[{cpus}]"));
        assert!(lines.contains(&format!("Cpus_allowed_list:\t{cpus}")), "{lines:?}");
        assert!(lines.contains(&"Mems_allowed_list:\t0".to_owned()), "{lines:?}");
    }
}

/// cpu.weight is what the kernel shares by when processors are scarce.
#[test]
#[ignore = "needs the controllers: integration/test"]
fn shares_become_a_weight() {
    let weight = |shares: u64| {
        let container: Container = limited(json!({"cpu": {"shares": shares}}), &["wait"]);
        let _output = container.started();
        crate::file(&container, "cpu.weight").parse::<u64>().unwrap()
    };
    // the ends of both scales and the default in the middle
    assert_eq!(weight(2), 1);
    assert_eq!(weight(1024), 100);
    assert_eq!(weight(262_144), 10_000);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn an_idle_container_is_marked_so() {
    let container = limited(json!({"cpu": {"idle": 1}}), &["wait"]);
    let _output = container.started();
    assert_eq!(crate::file(&container, "cpu.idle"), "1");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_leftover_whose_burst_is_above_the_quota_takes_the_next_container() {
    let cpu = json!({"cpu": {"quota": 40_000, "period": 100_000, "burst": 10_000}});
    let container = limited(cpu, &["wait"]);
    // the controller is there, and then the leftover of somebody
    let mut output = container.started();
    container.kill("KILL").ok();
    container.ended(&mut output);
    container.delete().ok();
    let leftover = container.cgroup();
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("cpu.max"), "90000 100000").unwrap();
    std::fs::write(leftover.join("cpu.max.burst"), "80000").unwrap();
    let _output = container.started();
    assert_eq!(crate::file(&container, "cpu.max"), "40000 100000");
    assert_eq!(crate::file(&container, "cpu.max.burst"), "10000");
}

/// Time on one processor, in microseconds, of two containers that both want all of
/// it: while both do, from when both have begun to the second one's end.
fn shared(first: serde_json::Value, second: serde_json::Value) -> (u64, u64) {
    let pinned = |mut cpu: serde_json::Value| {
        cpu["cpus"] = json!("0");
        cpu
    };
    let burning = |cpu, ms: u32| {
        limited(json!({"cpu": pinned(cpu)}), &["each", "wait", &format!("burn {ms}")])
    };
    // the first one goes on for longer than the second can take
    let containers = [burning(first, 3_600_000), burning(second, 2000)];
    let mut outputs = [containers[0].started(), containers[1].started()];
    for (container, output) in containers.iter().zip(&mut outputs) {
        container.kill("TERM").ok();
        assert_eq!(output.line(), "GOT SIGTERM");
    }
    let used = || [0, 1].map(|n| figure(&containers[n], "cpu.stat", "usage_usec"));
    let before = used();
    assert!(outputs[1].line().contains("cpuMs"));
    let after = used();
    (after[0] - before[0], after[1] - before[1])
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_processor_is_shared_by_weight() {
    // weights of 59 and 934; what the first has once the second has ended, is its own
    let (light, heavy) = shared(json!({"shares": 512}), json!({"shares": 16384}));
    assert!(heavy > 2 * light, "{heavy} us and {light} us");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn an_idle_container_has_what_others_leave() {
    let (idle, other) = shared(json!({"idle": 1}), json!({}));
    assert!(other > 2 * idle, "{other} us and {idle} us");
}
