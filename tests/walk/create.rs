//! `create`, call by call.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::faulty::{Call, Extent, Faulty, Followed, Step, Verdict, interrupts_of, steps_of, walk};
use crate::judge::{assert_deletable, assert_gone, assert_told};
use crate::report::{differences, normal};
use crate::support::{
    Container, Pipe, add_mount, args, drop_namespace, map_users, namespace_path, pipe, receive_fd,
};

/// A container whose `create` is walked, before it.
struct Scene {
    container: Container,
    /// Who receives the terminal, for a config with one
    console: Option<UnixListener>,
}

impl Scene {
    fn plain() -> Scene {
        Scene { container: Container::new(|_| {}), console: None }
    }

    /// Everything that a config may ask for but a user namespace.
    fn full() -> Scene {
        let container = Container::new(full_config);
        let listener = UnixListener::bind(container.bundle.path().join("console")).unwrap();
        Scene { container, console: Some(listener) }
    }

    /// A user namespace with mappings, and joined namespaces of the host's.
    fn mapped(holder: u32) -> Scene {
        let container = Container::new(|config| {
            drop_namespace(config, "network");
            namespace_path(config, "network", &format!("/proc/{holder}/ns/net"));
            namespace_path(config, "ipc", &format!("/proc/{holder}/ns/ipc"));
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            // an mqueue shows an ipc namespace, and can be mounted by its owner only
            config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "mqueue");
        });
        container.bundle.give_rootfs_to(100_000);
        Scene { container, console: None }
    }

    /// Mounts that take more than one step: with owners of their own, filled with
    /// what the image has.
    fn mounts() -> Scene {
        let container = Container::new(|config| {
            map_users(config);
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
            add_mount(
                config,
                json!({
                    "destination": "/shifted", "source": "data", "options": ["rbind", "idmap"],
                    "uidMappings": map, "gidMappings": map,
                }),
            );
            let options = ["tmpcopyup", "ro"];
            add_mount(config, json!({"destination": "/data", "type": "tmpfs", "options": options}));
        });
        let bundle = container.bundle.path();
        for dir in [bundle.join("data"), container.bundle.rootfs().join("data/dir")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("file"), "text").unwrap();
            std::fs::hard_link(dir.join("file"), dir.join("same")).unwrap();
            std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
        }
        container.bundle.give_rootfs_to(100_000);
        Scene { container, console: None }
    }

    /// `create` with these faults; what the program will print comes by the pipe.
    fn create(&self, faults: &[String]) -> (Followed, Pipe) {
        let c = &self.container;
        let console = c.bundle.path().join("console");
        let flags = match self.console {
            Some(_) => vec!["--console-socket", console.to_str().unwrap()],
            None => vec![],
        };
        let (output, writer): (Pipe, OwnedFd) = pipe();
        let faulty = Faulty { faults, attach: None };
        (faulty.run(c.on_bundle("create", &flags), |command| command.stdout(writer)), output)
    }

    /// `start` of a created container, and its report.
    fn report(&self, mut output: Pipe) -> Value {
        if let Some(listener) = &self.console {
            output = Pipe::new(receive_fd(listener));
        }
        self.container.start().ok();
        normal(&output.line(), &self.container)
    }
}

fn full_config(config: &mut Value) {
    args(config, &["report"]);
    let process = &mut config["process"];
    process["terminal"] = json!(true);
    process["consoleSize"] = json!({"height": 33, "width": 77});
    process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o27});
    process["oomScoreAdj"] = json!(100);
    process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    process["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256},
        {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
    ]);
    process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    config["linux"]["personality"] = json!({"domain": "LINUX32"});
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1000}});
    config["root"]["readonly"] = json!(true);
    config["domainname"] = json!("example");
    let hook = json!([{"path": crate::support::probe(), "args": ["probe", "say", "hook"]}]);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        config["hooks"][kind] = hook.clone();
    }
    config["linux"]["sysctl"] = json!({"net.core.somaxconn": "512", "kernel.shmmax": "65536"});
    config["linux"]["devices"] =
        json!([{"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640}]);
    config["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "5"});
    config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/data", "type": "bind", "source": "/etc",
        "options": ["rbind", "ro", "nosuid", "noexec"],
    }));
}

/// What a fault-free create does, and the report of its container.
struct Reference {
    calls: Vec<Call>,
    report: Value,
}

impl Reference {
    fn of(new: &impl Fn() -> Scene) -> Reference {
        let scene = new();
        let (followed, output) = scene.create(&[]);
        assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
        let report = scene.report(output);
        assert_deletable(&scene.container);
        let again = new();
        let (_, output) = again.create(&[]);
        // a report that differs by itself would prove nothing
        assert_eq!(differences(&report, &again.report(output)), [] as [&str; 0]);
        assert_deletable(&again.container);
        Reference { calls: up_to_ready(followed.calls), report }
    }

    /// One step: told and undone, or as if nothing had been.
    fn take(&self, scene: &Scene, step: &Step) -> Verdict {
        let (followed, output) = scene.create(&[step.fault()]);
        let c = &scene.container;
        if followed.output.code != 0 {
            assert!(followed.failed().is_some(), "fails by itself: {:#?}", followed.output);
            assert_told(&followed, "create", &c.id);
            assert_gone(c);
            return if followed.reached(step) { Verdict::Told } else { Verdict::NotReached };
        }
        let report = scene.report(output);
        let found = differences(&self.report, &report);
        assert!(found.is_empty(), "a success that differs: {found:#?}");
        assert_deletable(c);
        if followed.reached(step) { Verdict::Unharmed } else { Verdict::NotReached }
    }
}

/// Init's calls up to its last word of `create`: what it does then is a matter
/// of `start`, and whether `create` still sees it, of chance.
fn up_to_ready(mut calls: Vec<Call>) -> Vec<Call> {
    let init = ["grandchild", "child"].into_iter();
    let init = init.into_iter().find(|name| calls.iter().any(|c| c.process == *name)).unwrap();
    let sends = calls.iter().rposition(|c| c.process == init && c.name == "sendmsg").unwrap();
    let last = calls[sends].number;
    calls.retain(|c| c.process != init || c.number <= last);
    calls
}

fn of_process(calls: &[Call], which: impl Fn(&str) -> bool) -> Vec<Call> {
    calls.iter().filter(|c| which(&c.process)).cloned().collect()
}

#[test]
fn a_failing_call_of_the_runtime_in_create() {
    let new = Scene::plain;
    let reference = Reference::of(&new);
    let steps = steps_of(&of_process(&reference.calls, |name| name == "runtime"));
    walk("create, the runtime", &steps, Extent::Whole, |step| reference.take(&new(), step));
}

#[test]
fn a_failing_call_of_init_in_create() {
    let new = Scene::plain;
    let reference = Reference::of(&new);
    let steps = steps_of(&of_process(&reference.calls, |name| name != "runtime"));
    walk("create, init", &steps, Extent::Whole, |step| reference.take(&new(), step));
}

#[test]
fn a_failing_call_in_create_with_everything() {
    let new = Scene::full;
    let reference = Reference::of(&new);
    let steps = steps_of(&reference.calls);
    walk("create with everything", &steps, Extent::Sample(110), |step| {
        reference.take(&new(), step)
    });
}

#[test]
fn a_failing_call_for_the_programs_scheduling_and_clocks() {
    const NAMES: [&str; 7] = [
        "sched_setaffinity",
        "sched_setattr",
        "ioprio_set",
        "set_mempolicy",
        "personality",
        "unshare",
        "setns",
    ];
    let new = Scene::full;
    let reference = Reference::of(&new);
    let calls = reference.calls.iter().filter(|c| NAMES.contains(&c.name.as_str())).cloned();
    let calls: Vec<Call> = calls.collect();
    for name in NAMES {
        assert!(calls.iter().any(|c| c.name == name), "no {name} among the calls");
    }
    walk("create with scheduling and clocks", &steps_of(&calls), Extent::Whole, |step| {
        reference.take(&new(), step)
    });
}

#[test]
fn a_failing_call_in_create_with_a_user_namespace_and_joined_ones() {
    let holder = Container::new(|c| args(c, &["sleep-forever"]));
    holder.create();
    let pid = holder.pid();
    let new = || Scene::mapped(pid);
    let reference = Reference::of(&new);
    let steps = steps_of(&reference.calls);
    walk("create with a user namespace", &steps, Extent::Sample(110), |step| {
        reference.take(&new(), step)
    });
}

#[test]
fn a_failing_call_in_mounts_of_several_steps() {
    const NAMES: [&str; 17] = [
        "clone3",
        "copy_file_range",
        "dup3",
        "fchmod",
        "fchmodat",
        "fchown",
        "fchownat",
        "ftruncate",
        "linkat",
        "mkdirat",
        "mount_setattr",
        "open_tree",
        "pipe2",
        "setns",
        "symlinkat",
        "utimensat",
        "waitid",
    ];
    let new = Scene::mounts;
    let reference = Reference::of(&new);
    let calls = reference.calls.iter().filter(|c| NAMES.contains(&c.name.as_str())).cloned();
    let steps = steps_of(&calls.collect::<Vec<_>>());
    walk("create with mounts of several steps", &steps, Extent::Sample(60), |step| {
        reference.take(&new(), step)
    });
}

#[test]
fn an_interrupted_call_in_create_is_made_again() {
    for (what, new) in [
        ("create, interrupted", Scene::plain as fn() -> Scene),
        ("create with everything, interrupted", Scene::full),
        ("create with mounts of several steps, interrupted", Scene::mounts),
    ] {
        let reference = Reference::of(&new);
        let steps = interrupts_of(&reference.calls);
        walk(what, &steps, Extent::Whole, |step| {
            let verdict = reference.take(&new(), step);
            assert!(!matches!(verdict, Verdict::Told), "an interrupted call ends the command");
            verdict
        });
    }
}
