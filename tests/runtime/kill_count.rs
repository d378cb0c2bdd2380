//! Commands given in a cgroup that was once emptied by cgroup.kill: Linux (6.14, and
//! stable releases of that time) kills at its birth whoever goes from there into
//! another cgroup. On older ones these containers are as any others.

use std::path::PathBuf;

use serde_json::json;

use crate::support::{
    Container, Invocation, args, cgroup2_mount, map_users, namespace_path, pipe, unique_id,
    wait_gone,
};

/// A cgroup that was killed and lives on.
struct Killed(PathBuf);

impl Killed {
    fn new() -> Self {
        let path = cgroup2_mount().join(unique_id());
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("cgroup.kill"), "1").unwrap();
        Killed(path)
    }

    /// The same command, given in there.
    fn inside(&self, command: Invocation) -> Invocation {
        command.through_shell(&format!("echo $$ >{}/cgroup.procs", self.0.display()))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            wait_gone("who was in the cgroup", || std::fs::remove_dir(&self.0).is_ok());
        }
        std::fs::remove_dir(&self.0).ok();
    }
}

/// The cgroup of a process of the container, as the container's own init has it.
fn cgroup_of(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

#[test]
fn a_container_is_made_and_runs_in_its_own_cgroup() {
    let killed = Killed::new();
    let c = Container::new(|config| args(config, &["each", "read /proc/self/cgroup", "exit 3"]));
    let output = killed.inside(c.on_bundle("run", &[])).run().ends_with_code(3);
    assert!(output.stdout.lines().any(|line| line == "0::/"), "{output:#?}");
    assert_eq!(output.stderr, "");
    c.assert_gone();
}

#[test]
fn a_container_is_created_and_started_and_entered() {
    let killed = Killed::new();
    let c = Container::new(|config| args(config, &["wait"]));
    let (mut output, writer) = pipe();
    killed.inside(c.on_bundle("create", &[])).stdout(writer).run().ok();
    assert_eq!(c.status(), "created");
    killed.inside(c.on_id("start", &[], &[])).run().ok();
    assert_eq!(output.line(), "READY");
    assert_eq!(cgroup_of(c.pid()), format!("/{}", c.id));
    std::fs::create_dir(c.cgroup().join("sub")).unwrap();
    for (flags, seen) in [(&[][..], "0::/"), (&["--cgroup", "sub"][..], "0::/sub")] {
        let read = c.exec(flags, &["read", "/proc/self/cgroup"]);
        let read = killed.inside(read).run().ok();
        assert!(read.stdout.lines().any(|line| line == seen), "{read:#?}");
    }
    killed.inside(c.exec(&[], &["exit", "4"])).run().ends_with_code(4);
    c.kill("KILL").ok();
    output.rest();
    killed.inside(c.on_id("delete", &[], &[])).run().ok();
    c.assert_gone();
}

#[test]
fn an_exec_finds_the_cgroup_that_init_has_made_for_itself() {
    let killed = Killed::new();
    let c = Container::new(|config| args(config, &["wait"]));
    let _output = c.started();
    let leaf = c.cgroup().join("leaf");
    std::fs::create_dir(&leaf).unwrap();
    std::fs::write(leaf.join("cgroup.procs"), c.pid().to_string()).unwrap();
    let controllers = std::fs::read_to_string(c.cgroup().join("cgroup.controllers")).unwrap();
    if let Some(controller) = controllers.split_whitespace().next() {
        let handed = format!("+{controller}");
        std::fs::write(c.cgroup().join("cgroup.subtree_control"), handed).unwrap();
        let read = killed.inside(c.exec(&[], &["read", "/proc/self/cgroup"])).run().ok();
        assert!(read.stdout.lines().any(|line| line == "0::/leaf"), "{read:#?}");
    }
}

#[test]
fn a_helper_that_joins_namespaces_is_moved_as_well() {
    let killed = Killed::new();
    let first = Container::new(|config| args(config, &["wait"]));
    let _output = first.started();
    let network = format!("/proc/{}/ns/net", first.pid());
    let c = Container::new(|config| {
        map_users(config);
        namespace_path(config, "network", &network);
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        args(config, &["read", "/proc/self/cgroup"]);
    });
    c.bundle.give_rootfs_to(100_000);
    let output = killed.inside(c.on_bundle("run", &[])).run().ok();
    assert!(output.stdout.lines().any(|line| line == "0::/"), "{output:#?}");
    c.assert_gone();
}

#[test]
fn what_fails_later_is_undone_and_tried_once() {
    let killed = Killed::new();
    let log = tempfile::NamedTempFile::new().unwrap();
    let c = Container::new(|config| {
        let append = format!("echo once >>{}; exit 9", log.path().display());
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", append]},
        ]});
    });
    for command in ["create", "run"] {
        let failed = killed.inside(c.on_bundle(command, &[])).run();
        failed.fails_with(&["createRuntime", "9"]);
        c.assert_gone();
    }
    assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "once\nonce\n");
}
