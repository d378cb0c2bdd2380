//! How the program is scheduled: processors, disks, memory nodes, domain.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Container, map_users, probe};

fn with_scheduler(scheduler: Value) -> Container {
    Container::new(|c| c["process"]["scheduler"] = scheduler)
}

/// What the runtime's refusal looks like on a kernel or in a cgroup that gives
/// no real-time to anyone; the test is of no use there.
fn no_real_time(output: &crate::support::Output) -> bool {
    let denied = output.stderr.contains("sched_setattr") && output.code == 1;
    if denied {
        println!("skipped: no real-time scheduling for anyone here: {}", output.stderr.trim_end());
    }
    denied
}

/// True when this machine lets root have this policy outside of containers.
fn host_allows(policy: &str) -> bool {
    let mut words = vec![policy];
    if policy == "--deadline" {
        words.extend(["--sched-runtime", "1000000", "--sched-period", "100000000"]);
    }
    words.extend([if policy == "--deadline" { "0" } else { "1" }, "true"]);
    std::process::Command::new("chrt").args(words).status().is_ok_and(|s| s.success())
}

#[test]
fn policy_and_nice_are_the_configs() {
    for (name, policy, nice) in
        [("SCHED_OTHER", 0, 7), ("SCHED_OTHER", 0, -5), ("SCHED_BATCH", 3, 3)]
    {
        let seen = with_scheduler(json!({"policy": name, "nice": nice})).json();
        assert_eq!(seen["scheduler"]["policy"], policy, "{name}");
        assert_eq!(seen["scheduler"]["nice"], nice, "{name}");
    }
    let seen = with_scheduler(json!({"policy": "SCHED_IDLE"})).json();
    assert_eq!(seen["scheduler"]["policy"], 5);
    let seen = Container::new(|_| {}).json();
    assert_eq!(seen["scheduler"]["policy"], 0);
}

#[test]
fn real_time_policies_have_a_priority() {
    for (name, policy) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let output = with_scheduler(json!({"policy": name, "priority": 7})).run();
        if !host_allows("--fifo") && no_real_time(&output) {
            return;
        }
        let seen = output.ok().json();
        assert_eq!(seen["scheduler"]["policy"], policy);
        assert_eq!(seen["scheduler"]["priority"], 7);
    }
}

#[test]
fn a_deadline_is_the_configs() {
    let scheduler = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000,
        "period": 100_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
    });
    let output = with_scheduler(scheduler).run();
    if !host_allows("--deadline") && no_real_time(&output) {
        return;
    }
    let seen = output.ok().json()["scheduler"].clone();
    assert_eq!([&seen["policy"], &seen["flags"]], [6, 1 | 4]);
    assert_eq!(seen["runtime"], 1_000_000);
    assert_eq!(seen["deadline"], 50_000_000);
    assert_eq!(seen["period"], 100_000_000);
}

#[test]
fn scheduling_that_makes_no_sense_is_refused() {
    for (scheduler, text) in [
        (json!({"policy": "SCHED_ISO"}), "SCHED_ISO"),
        (json!({"policy": "SCHED_SPORADIC"}), "process.scheduler.policy"),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice"),
        (json!({"policy": "SCHED_OTHER", "nice": -21}), "process.scheduler.nice"),
        (json!({"policy": "SCHED_BATCH", "priority": 1}), "process.scheduler.priority"),
        (json!({"policy": "SCHED_FIFO", "priority": 100}), "process.scheduler.priority"),
        (json!({"policy": "SCHED_FIFO", "priority": 1, "runtime": 1}), "process.scheduler.runtime"),
        (json!({"policy": "SCHED_DEADLINE"}), "process.scheduler"),
        (json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FLY"]}), "process.scheduler.flags"),
    ] {
        with_scheduler(scheduler).assert_refused(&[text]);
    }
}

#[test]
fn what_the_kernel_refuses_names_the_field_and_leaves_nothing() {
    // no period may be that long
    let scheduler = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 1_u64 << 60});
    with_scheduler(scheduler).assert_refused(&["process.scheduler", "sched_setattr"]);
}

#[test]
fn a_policy_that_children_do_not_have_goes_with_no_tiny_init() {
    let c = with_scheduler(json!({
        "policy": "SCHED_OTHER", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }));
    c.on_bundle("run", &["--init"]).run().fails_with(&["--init", "RESET_ON_FORK"]);
    c.assert_gone();
    let c = with_scheduler(json!({"policy": "SCHED_BATCH", "nice": 5}));
    let seen = c.on_bundle("run", &["--init"]).run().ok().json();
    assert_eq!([&seen["scheduler"]["policy"], &seen["scheduler"]["nice"]], [3, 5]);
}

#[test]
fn the_priority_for_disks_is_the_configs() {
    for (class, number, level) in
        [("IOPRIO_CLASS_RT", 1, 0), ("IOPRIO_CLASS_BE", 2, 6), ("IOPRIO_CLASS_IDLE", 3, 4)]
    {
        let seen = Container::new(|c| {
            c["process"]["ioPriority"] = json!({"class": class, "priority": level});
        })
        .json();
        assert_eq!(seen["io_priority"], json!([number, level]), "{class}");
    }
    Container::new(|c| {
        c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    })
    .assert_refused(&["process.ioPriority.priority", "8"]);
}

#[test]
fn a_runtime_that_is_pinned_pins_no_container() {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let ours: Vec<usize> = (0..CpuSet::count()).filter(|n| all.is_set(*n).unwrap()).collect();
    if ours.len() < 2 {
        println!("skipped: there is one processor only");
        return;
    }
    let c = Container::new(|_| {});
    let mut one = CpuSet::new();
    one.set(ours[0]).unwrap();
    // SAFETY: system calls only.
    let command = unsafe {
        c.on_bundle("run", &[]).before_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &one)?))
    };
    assert_eq!(command.run().ok().json()["processors"], json!(ours));
}

#[test]
fn the_memory_policy_is_the_configs() {
    // MPOL_* and the flags as in linux/mempolicy.h
    for (policy, mode, nodes) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), 2, 1),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), 3, 1),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), 1, 1),
        (json!({"mode": "MPOL_LOCAL"}), 4, 0),
        (json!({"mode": "MPOL_DEFAULT"}), 0, 0),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            2 | (1 << 15),
            1,
        ),
    ] {
        let c = Container::new(|c| c["linux"]["memoryPolicy"] = policy.clone());
        assert_eq!(c.json()["memory_policy"], json!([mode, nodes]), "{policy}");
    }
}

#[test]
fn a_memory_policy_that_can_not_be_is_refused() {
    for (policy, text) in [
        (json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy.nodes"),
        (json!({"mode": "MPOL_LOCAL", "nodes": "0"}), "linux.memoryPolicy.nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "0-"}), "linux.memoryPolicy.nodes"),
        (json!({"mode": "MPOL_FAR"}), "linux.memoryPolicy.mode"),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0",
                "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            "linux.memoryPolicy.flags",
        ),
        // a node that no machine here has
        (json!({"mode": "MPOL_BIND", "nodes": "1000"}), "set_mempolicy"),
    ] {
        Container::new(|c| c["linux"]["memoryPolicy"] = policy).assert_refused(&[text]);
    }
}

#[test]
fn the_personality_is_the_configs() {
    let seen = Container::new(|c| c["linux"]["personality"] = json!({"domain": "LINUX32"})).json();
    assert_eq!(seen["personality"], 8);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(seen["machine"], "i686");
    }
    let seen = Container::new(|c| c["linux"]["personality"] = json!({"domain": "LINUX"})).json();
    assert_eq!(seen["personality"], 0);
    assert_eq!(seen["machine"], std::env::consts::ARCH);
    Container::new(|config| {
        config["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    })
    .assert_refused(&["linux.personality.flags", "ADDR_NO_RANDOMIZE"]);
}

#[test]
fn processors_for_exec_are_checked_by_create() {
    for wrong in ["1-0", "x", "0,", "9999"] {
        Container::new(|c| c["process"]["execCPUAffinity"] = json!({"final": wrong}))
            .assert_refused(&["process.execCPUAffinity"]);
    }
}

#[test]
fn it_all_works_in_a_user_namespace() {
    let c = Container::new(|config| {
        map_users(config);
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": -3});
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 3});
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    });
    c.bundle.give_rootfs_to(100_000);
    let seen = c.json();
    assert_eq!([&seen["scheduler"]["policy"], &seen["scheduler"]["nice"]], [3, -3]);
    assert_eq!(seen["io_priority"], json!([1, 3]));
    assert_eq!(seen["memory_policy"], json!([2, 1]));
    // the probe itself can tell these apart
    let host = std::process::Command::new(probe()).arg("report").output().unwrap();
    let host: Value = serde_json::from_slice(&host.stdout).unwrap();
    assert_ne!(host["io_priority"], seen["io_priority"]);
}
