//! memory.max: the kill, and its name.

use serde_json::json;

use crate::support::args;
use crate::{MIB, figure, file, limited};

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_program_beyond_its_limit_is_killed_and_run_says_why() {
    let limit = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let container = limited(limit, &["alloc", &(64 * MIB).to_string()]);
    let output = container.run().ends_with_code(137);
    assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
    for text in [&container.id, "out of memory", "killed 1 process", "limit of 16 MiB", "peak"] {
        assert!(output.stderr.contains(text), "no {text}: {output:#?}");
    }
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_program_within_its_limit_runs_in_silence() {
    let limit = json!({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}});
    let output = limited(limit, &["alloc", &(8 * MIB).to_string()]).run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("ok\n", ""));
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_failure_that_was_not_the_kernels_gets_no_such_reason() {
    let limit = json!({"memory": {"limit": 32 * MIB}});
    let output = limited(limit, &["exit", "3"]).run().ends_with_code(3);
    assert_eq!(output.stderr, "");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_child_that_is_killed_is_named_when_the_program_fails_too() {
    let limit = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let child = format!("alloc-in-child {}", 64 * MIB);
    let container = limited(limit, &["each", &child, "open /nowhere r"]);
    let output = container.run().ends_with_code(1);
    assert_eq!(output.stdout, "SIGKILL\nENOENT\n");
    assert!(output.stderr.contains("killed 1 process at the limit of 16 MiB"), "{output:#?}");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_limit_above_the_container_is_told_from_its_own() {
    let container = limited(json!({}), &["alloc", &(64 * MIB).to_string()]);
    let parent = container.cgroup();
    let path = format!("/{}/inner", container.id);
    container.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    std::fs::create_dir(&parent).unwrap();
    std::fs::write(parent.join("cgroup.subtree_control"), "+memory").unwrap();
    std::fs::write(parent.join("memory.max"), (16 * MIB).to_string()).unwrap();
    let output = container.run();
    std::fs::remove_dir(&parent).unwrap();
    let output = output.ends_with_code(137);
    assert!(output.stderr.contains("a limit that is not the container's own"), "{output:#?}");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_figures_stay_until_delete() {
    let limit = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let container = limited(limit, &["alloc", &(64 * MIB).to_string()]);
    let mut output = container.create();
    container.start().ok();
    container.ended(&mut output);
    assert_eq!(container.status(), "stopped");
    assert_eq!(figure(&container, "memory.events", "oom_kill"), 1);
    assert_eq!(file(&container, "memory.max"), (16 * MIB).to_string());
    container.delete().ok();
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_limit_that_init_does_not_fit_into_is_the_reason_of_a_failed_create() {
    // less than what a process needs to be at all
    let container = limited(json!({"memory": {"limit": 4096, "swap": 4096}}), &["wait"]);
    for command in ["create", "run"] {
        let failed = container.on_bundle(command, &[]).run();
        failed.fails_with(&["out of memory", "limit of 4 KiB"]);
        container.assert_gone();
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_containers_tmpfs_counts() {
    let limit = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let container = limited(limit, &["exit", "0"]);
    container.bundle.edit(|config| args(config, &["fill", "/dev/shm/big", "33554432"]));
    let output = container.run().ends_with_code(137);
    assert!(output.stderr.contains("out of memory"), "{output:#?}");
}

/// What the runtime itself needs on the way is little, and gone when the program
/// runs.
#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_small_program_starts_within_a_small_limit() {
    let limit = json!({"memory": {"limit": 4 * MIB, "swap": 4 * MIB}, "pids": {"limit": 1}});
    let container = limited(limit, &["say", "hello"]);
    let output = container.run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello\n", ""));
    let mut output = container.create();
    container.start().ok();
    assert_eq!(output.line(), "hello");
    container.ended(&mut output);
    assert_eq!(figure(&container, "memory.events", "max"), 0);
    // none of the runtime's own memory is the container's (memory.peak: Linux 5.19)
    if container.cgroup().join("memory.peak").exists() {
        let peak: u64 = file(&container, "memory.peak").parse().unwrap();
        assert!(peak < 2 * MIB, "{peak}");
    }
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn whatever_the_limit_a_container_runs_or_says_why_it_does_not() {
    for kib in [8, 64, 128, 256, 384, 512, 768, 1024, 2048] {
        let limit = json!({"memory": {"limit": kib << 10, "swap": kib << 10}});
        let container = limited(limit, &["say", "hello"]);
        let output = container.run();
        match output.code {
            0 => assert_eq!(output.stdout, "hello\n", "{kib} KiB: {output:#?}"),
            _ => assert!(output.stderr.contains("out of memory"), "{kib} KiB: {output:#?}"),
        }
        container.assert_gone();
    }
}
