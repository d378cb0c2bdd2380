//! Whose a cgroup is: one that was there before, one that a later container has
//! taken, and those that a container nests.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use serde_json::json;

use crate::support::{Container, Pipe, add_mount, args, drop_namespace, faults};

/// A container in the host's pid namespace, in the cgroup of this path.
fn sharing_pids(path: &str) -> Container {
    let c = Container::new(|config| {
        drop_namespace(config, "pid");
        args(config, &["wait"]);
    });
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c
}

#[track_caller]
fn killed(c: &Container, output: &mut Pipe) {
    c.kill("KILL").ok();
    c.ended(output);
}

#[track_caller]
fn assert_has_no_say(first: &Container) {
    first.on_id("kill", &["--all"], &["KILL"]).run().ok();
    first.kill("KILL").fails_with(&["container not running"]);
    assert_eq!(first.on_id("ps", &["--format", "json"], &[]).run().ok().stdout, "[]\n");
    first.delete().ok();
    first.on_id("state", &[], &[]).run().fails_with(&["does not exist"]);
}

#[test]
fn who_takes_a_cgroup_over_without_a_pid_namespace_is_left_alone() {
    let first = Container::new(|config| {
        drop_namespace(config, "pid");
        args(config, &["wait"]);
    });
    let path = format!("/{}", first.id);
    let mut output = first.started();
    killed(&first, &mut output);
    // the same directory, which the second one has taken over, and then a third
    let second = sharing_pids(&path);
    let mut output = second.started();
    assert_has_no_say(&first);
    assert_eq!(second.status(), "running");
    killed(&second, &mut output);
    let third = sharing_pids(&path);
    let mut output = third.started();
    assert_has_no_say(&second);
    assert_eq!(third.status(), "running");
    third.on_id("kill", &["--all"], &["KILL"]).run().ok();
    third.ended(&mut output);
    third.delete().ok();
    third.assert_gone();
    assert!(!first.cgroup().exists());
}

/// The directory says that it was given, whatever fails between two of its files.
#[test]
fn a_cgroup_that_was_given_away_in_part_is_roots_again() {
    let c = Container::new(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
        add_mount(config, mount);
        config["process"]["user"] = json!({"uid": 7, "gid": 7});
        args(config, &["wait"]);
    });
    std::fs::create_dir(c.cgroup()).unwrap();
    let words = ["--fail", "runtime:fchownat[1~cgroup.subtree_control]=EPERM@1"];
    c.on_bundle("create", &[]).through(faults(), &words).run().fails_with(&["to uid 7"]);
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        let meta = c.cgroup().join(file).metadata().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 0, "{file:?}");
    }
    std::fs::remove_dir(c.cgroup()).unwrap();
    c.assert_gone();
}

#[test]
fn a_new_cgroup_of_the_same_path_is_another_one() {
    let first = sharing_pids("/placeholder");
    let path = format!("/{}", first.id);
    first.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = first.started();
    killed(&first, &mut output);
    std::fs::remove_dir(first.cgroup()).unwrap();
    let second = sharing_pids(&path);
    let mut output = second.started();
    assert_has_no_say(&first);
    assert_eq!(second.status(), "running");
    killed(&second, &mut output);
    second.delete().ok();
    second.assert_gone();
}

#[test]
fn a_create_that_was_killed_has_no_say_in_a_later_containers_cgroup() {
    let first = sharing_pids("/placeholder");
    let path = format!("/{}", first.id);
    first.bundle.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["hooks"] = json!({"createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", "kill -KILL $PPID"]},
        ]});
    });
    first.on_bundle("create", &[]).run().ends_with_code(137);
    crate::support::wait_gone("its init", || {
        std::fs::read_to_string(first.cgroup().join("cgroup.procs")).unwrap().is_empty()
    });
    let second = sharing_pids(&path);
    let mut output = second.started();
    first.delete_by_force().ok();
    assert_eq!(second.status(), "running");
    killed(&second, &mut output);
    second.delete().ok();
    second.assert_gone();
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_as_it_is() {
    let first = Container::new(|config| args(config, &["wait"]));
    let mut output = first.started();
    let second = sharing_pids(&format!("/{}", first.id));
    for command in ["create", "run"] {
        let refused = second.on_bundle(command, &[]).run();
        refused.fails_with(&["the container's cgroup is not empty", &first.id]);
    }
    assert!(second.traces().is_empty());
    assert_eq!(first.status(), "running");
    killed(&first, &mut output);
}

#[test]
fn a_create_that_fails_leaves_the_cgroup_that_was_there() {
    let c = Container::new(|config| config["process"]["args"] = json!(["/nowhere"]));
    std::fs::create_dir(c.cgroup()).unwrap();
    for command in ["create", "run"] {
        c.on_bundle(command, &[]).run().fails_with(&["/nowhere"]);
        let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
        assert_eq!(procs, "");
        assert_eq!(c.traces().cgroups, [c.cgroup()]);
    }
    // its parent was there, the cgroup itself was not
    let path = format!("/{}/made/leaf", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.on_bundle("create", &[]).run().fails_with(&["/nowhere"]);
    assert_eq!(c.traces().cgroups, [c.cgroup()]);
    std::fs::remove_dir(c.cgroup()).unwrap();
    c.assert_gone();
}

/// How deep a container nests its cgroups: no path leads there in one step.
const DEEP: usize = 1500;

/// Makes cgroups, each in the one before; the last of them.
fn nest(top: &Path) -> OwnedFd {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut here = open(top, flags, Mode::empty()).unwrap();
    for _ in 0..DEEP {
        mkdirat(&here, "nested", Mode::S_IRWXU).unwrap();
        here = openat(&here, "nested", flags, Mode::empty()).unwrap();
    }
    here
}

/// As few descriptors as this, for what a command opens.
fn few_descriptors() -> std::io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    Ok(setrlimit(Resource::RLIMIT_NOFILE, 64, 64)?)
}

#[test]
fn cgroups_are_found_and_removed_however_deep_they_are() {
    let c = Container::new(|config| args(config, &["wait"]));
    let mut output = c.started();
    let deepest = nest(&c.cgroup());
    let procs = openat(deepest.as_fd(), "cgroup.procs", OFlag::O_WRONLY, Mode::empty()).unwrap();
    nix::unistd::write(&procs, c.pid().to_string().as_bytes()).unwrap();
    drop((procs, deepest));
    let poor = |command: &str, flags: &[&str], rest: &[&str]| {
        // SAFETY: one system call.
        unsafe { c.on_id(command, flags, rest).before_exec(few_descriptors) }.run().ok()
    };
    let pids = poor("ps", &["--format", "json"], &[]).json();
    assert_eq!(pids, json!([c.pid()]));
    poor("kill", &["--all"], &["USR1"]);
    output.expect("GOT SIGUSR1");
    poor("delete", &["--force"], &[]);
    c.ended(&mut output);
    c.assert_gone();
}
