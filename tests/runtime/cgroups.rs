//! cgroup2: where the container is, its limits, its devices.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::support::{
    Container, add_mount, args, cgroup2_mount, drop_namespace, is_alive, map_users, pipe, wait_gone,
};

fn cgroup_of(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("0::"));
    line.unwrap().to_owned()
}

fn has_controller(name: &str) -> bool {
    let all = std::fs::read_to_string(cgroup2_mount().join("cgroup.controllers")).unwrap();
    all.split_whitespace().any(|c| c == name)
}

#[test]
fn an_absolute_path_is_below_the_mount() {
    let c = Container::new(|c| args(c, &["wait"]));
    assert!(!c.cgroup().exists());
    let mut output = c.started();
    assert_eq!(cgroup_of(c.pid()), format!("/{}", c.id));
    let processes = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(processes.trim(), c.pid().to_string());
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert!(!c.cgroup().exists());
}

#[test]
fn the_container_sees_itself_as_the_root() {
    let c = Container::new(|config| {
        args(config, &["each", "read /proc/self/cgroup", "read /sys/fs/cgroup/cgroup.procs"]);
    });
    let lines = c.lines();
    assert!(lines.contains(&"0::/".to_owned()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "1");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_part() {
    let report = Container::new(|_| {}).json();
    let mounts = report["mounts"].as_array().unwrap();
    let mount = mounts.iter().rfind(|m| m["target"] == "/sys/fs/cgroup").unwrap();
    assert_eq!(mount["fstype"], "cgroup2");
    assert_eq!(mount["root"], "/");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount["options"].as_array().unwrap().contains(&json!(option)), "{mount}");
    }
}

#[test]
fn a_cgroup_mount_type_of_version_2_is_the_same() {
    let c = Container::new(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["type"] != "cgroup");
        add_mount(
            config,
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup"}),
        );
        args(config, &["each", "read /sys/fs/cgroup/cgroup.procs", "mkdir /sys/fs/cgroup/sub"]);
    });
    assert_eq!(c.lines(), ["1", "ok"]);
    c.delete_by_force();
    c.assert_gone();
}

/// What a container with a writable mount of its cgroup does there, and who the
/// cgroup's owner is on the host.
fn divides(edit: impl FnOnce(&mut Value)) -> (Vec<String>, u32) {
    let c = Container::new(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
        add_mount(config, mount);
        let words = [
            "each",
            "mkdir /sys/fs/cgroup/leaf",
            "write /sys/fs/cgroup/leaf/cgroup.procs 1",
            "write /sys/fs/cgroup/cgroup.max.depth 7",
            "read /proc/self/cgroup",
            "wait",
        ];
        args(config, &words);
        edit(config);
    });
    if c.bundle.config()["linux"].get("uidMappings").is_some() {
        c.bundle.give_rootfs_to(100_000);
    }
    let mut output = c.create();
    c.start().ok();
    let mut lines = Vec::new();
    loop {
        match output.line() {
            line if line == "READY" => break,
            line => lines.push(line),
        }
    }
    lines.retain(|line| !line.contains(':') || line.starts_with("0::"));
    let owner = std::os::unix::fs::MetadataExt::uid(&c.cgroup().metadata().unwrap());
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
    (lines, owner)
}

#[test]
fn who_may_write_to_his_cgroup_divides_it() {
    let divided = |last: &str| ["ok", "ok", "EACCES", last].map(str::to_owned).to_vec();
    // root of a user namespace, and somebody in there
    assert_eq!(divides(map_users), (divided("0::/leaf"), 100_000));
    let (lines, owner) = divides(|config| {
        map_users(config);
        config["process"]["user"] = json!({"uid": 7, "gid": 7});
    });
    assert_eq!((lines, owner), (divided("0::/leaf"), 100_007));
    // a user of the host
    let (lines, owner) = divides(|config| config["process"]["user"] = json!({"uid": 7, "gid": 7}));
    assert_eq!((lines, owner), (divided("0::/leaf"), 7));
}

#[test]
fn the_cgroup_stays_roots_without_a_view_of_its_own_or_with_a_read_only_one() {
    let (lines, owner) = divides(|config| {
        map_users(config);
        let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["options"] = json!(["ro"]);
    });
    assert_eq!((lines[0].as_str(), owner), ("EROFS", 0));
    let (lines, owner) = divides(|config| {
        map_users(config);
        drop_namespace(config, "cgroup");
    });
    assert_eq!((lines[0].as_str(), owner), ("EACCES", 0));
}

#[test]
fn a_cgroup_that_was_there_is_roots_again_after_a_create_that_fails() {
    let c = Container::new(|config| {
        map_users(config);
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
        add_mount(config, mount);
        config["process"]["args"] = json!(["/nowhere"]);
    });
    c.bundle.give_rootfs_to(100_000);
    std::fs::create_dir(c.cgroup()).unwrap();
    // the second one takes over what the first has left
    for command in ["create", "run"] {
        c.on_bundle(command, &[]).run().fails_with(&["/nowhere"]);
        let found = [c.cgroup(), c.cgroup().join("cgroup.procs")];
        let owners =
            found.map(|path| std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap()));
        assert_eq!(owners, [0, 0]);
    }
    std::fs::remove_dir(c.cgroup()).unwrap();
    c.assert_gone();
}

#[test]
fn without_a_path_the_cgroup_bears_the_containers_name() {
    let c = Container::new(|config| {
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        args(config, &["wait"]);
    });
    let mut output = c.started();
    let path = cgroup_of(c.pid());
    assert!(path.contains(&c.id), "{path}");
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn a_path_of_several_parts_is_made_on_the_way() {
    let c = Container::new(|c| args(c, &["wait"]));
    let path = format!("/{}/middle/leaf", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = c.started();
    assert_eq!(cgroup_of(c.pid()), path);
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
    assert!(!c.cgroup().join("middle/leaf").exists());
    // whether the parents go is the runtime's choice: others may use them
    for parent in ["middle", ""] {
        std::fs::remove_dir(c.cgroup().join(parent)).ok();
    }
}

#[test]
fn a_path_that_climbs_out_is_refused_or_stays_below() {
    let c = Container::new(|c| args(c, &["wait"]));
    let path = format!("/../../{}", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let output = c.on_bundle("create", &[]).run();
    if output.code == 0 {
        assert_eq!(cgroup_of(c.pid()), format!("/{}", c.id));
    }
}

#[test]
fn cgroups_that_the_container_made_go_with_it() {
    let c = Container::new(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        add_mount(
            config,
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
        );
        args(
            config,
            &[
                "each",
                "mkdir /sys/fs/cgroup/a",
                "mkdir /sys/fs/cgroup/a/b",
                "mkdir /sys/fs/cgroup/c",
            ],
        );
    });
    assert_eq!(c.lines(), ["ok"; 3]);
    c.assert_gone();
}

/// A limit: its controller, the field, the value, and the file that shows it.
const LIMITS: [(&str, &str, i64, &str, &str); 5] = [
    ("memory", "/memory/limit", 64 << 20, "memory.max", "67108864"),
    ("memory", "/memory/reservation", 32 << 20, "memory.low", "33554432"),
    ("cpu", "/cpu/quota", 50_000, "cpu.max", "50000 100000"),
    ("cpu", "/cpu/shares", 1024, "cpu.weight", ""),
    ("pids", "/pids/limit", 7, "pids.max", "7"),
];

fn set_resource(config: &mut Value, field: &str, value: i64) {
    let mut parts = field.trim_start_matches('/').split('/');
    let (group, name) = (parts.next().unwrap(), parts.next().unwrap());
    config["linux"]["resources"][group][name] = json!(value);
}

#[test]
fn limits_are_in_effect_or_refused_by_name() {
    for (controller, field, value, file, text) in LIMITS {
        let c = Container::new(|config| {
            set_resource(config, field, value);
            args(config, &["wait"]);
        });
        if has_controller(controller) {
            let _output = c.started();
            let seen = std::fs::read_to_string(c.cgroup().join(file)).unwrap();
            assert!(text.is_empty() || seen.trim() == text, "{file}: {seen}");
        } else {
            let path = format!("linux.resources{}", field.replace('/', "."));
            c.assert_refused(&[&path, controller]);
        }
    }
}

#[test]
fn the_error_for_a_missing_controller_says_where_it_is() {
    if has_controller("memory") {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_v1_memory = |line: &&str| {
        line.split_once(" - cgroup ")
            .is_some_and(|(_, tail)| tail.split([',', ' ']).any(|o| o == "memory"))
    };
    let Some(line) = mounts.lines().find(is_v1_memory) else {
        return;
    };
    let place = line.split(' ').nth(4).unwrap();
    Container::new(|c| set_resource(c, "/memory/limit", 64 << 20)).assert_refused(&[place]);
}

#[test]
fn limits_that_mean_none_are_no_limits() {
    Container::new(|config| {
        set_resource(config, "/memory/limit", -1);
        set_resource(config, "/pids/limit", -1);
        args(config, &["exit", "0"]);
    })
    .run()
    .ok();
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    Container::new(|c| set_resource(c, "/memory/limit", -5))
        .assert_refused(&["linux.resources.memory.limit", "-5"]);
    Container::new(|c| set_resource(c, "/cpu/quota", 10))
        .assert_refused(&["linux.resources.cpu.quota", "10"]);
}

/// Opens of a device under these rules: by reading, writing, both.
fn opens(rules: Value) -> Vec<String> {
    Container::new(|config| {
        // kmsg: not in any runtime's default list, and there on every machine
        config["linux"]["devices"] = json!([
            {"path": "/dev/msg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666},
        ]);
        config["linux"]["resources"]["devices"] = rules;
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
        }
        args(config, &["each", "open /dev/msg r", "open /dev/msg w", "open /dev/msg rw"]);
    })
    .lines()
}

fn deny_all() -> Value {
    json!({"allow": false, "access": "rwm"})
}

#[test]
fn a_device_that_no_rule_allows_is_denied() {
    assert_eq!(opens(json!([deny_all()])), ["EPERM"; 3]);
}

#[test]
fn rules_for_devices_allow_what_they_say() {
    let allow = |access: &str| {
        json!([
            deny_all(),
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": access},
        ])
    };
    assert_eq!(opens(allow("rwm")), ["ok"; 3]);
    assert_eq!(opens(allow("w")), ["EPERM", "ok", "EPERM"]);
    assert_eq!(opens(allow("r")), ["ok", "EPERM", "EPERM"]);
    assert_eq!(opens(allow("m")), ["EPERM"; 3]);
}

#[test]
fn rules_for_devices_may_leave_out_numbers() {
    let any_minor = json!({"allow": true, "type": "c", "major": 1, "access": "rw"});
    assert_eq!(opens(json!([deny_all(), any_minor])), ["ok"; 3]);
    let other_type = json!({"allow": true, "type": "b", "major": 1, "access": "rw"});
    assert_eq!(opens(json!([deny_all(), other_type])), ["EPERM"; 3]);
    let everything = json!({"allow": true, "access": "rwm"});
    assert_eq!(opens(json!([everything])), ["ok"; 3]);
}

#[test]
fn a_later_rule_wins() {
    let rule =
        |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    assert_eq!(opens(json!([deny_all(), rule(true), rule(false)])), ["EPERM"; 3]);
    assert_eq!(opens(json!([deny_all(), rule(false), rule(true)])), ["ok"; 3]);
}

#[test]
fn rules_do_not_shut_out_the_default_devices() {
    let words = ["each", "open /dev/null rw", "open /dev/urandom r", "open /dev/ptmx rw"];
    let c = Container::new(|config| {
        config["linux"]["resources"]["devices"] = json!([deny_all()]);
        args(config, &words);
    });
    assert_eq!(c.lines(), ["ok"; 3]);
}

#[test]
fn nodes_can_be_made_but_not_opened() {
    let c = Container::new(|config| {
        config["linux"]["resources"]["devices"] = json!([deny_all()]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        args(config, &["each", "mknod /dev/kmsg c 1 11", "open /dev/kmsg w"]);
    });
    assert_eq!(c.lines(), ["ok", "EPERM"]);
}

#[test]
fn a_rule_for_devices_that_makes_no_sense_is_refused() {
    for (rule, text) in [
        (json!({"allow": true, "type": "x", "access": "r"}), "linux.resources.devices"),
        (json!({"allow": true, "type": "c", "access": "rq"}), "linux.resources.devices"),
    ] {
        Container::new(|c| c["linux"]["resources"]["devices"] = json!([deny_all(), rule]))
            .assert_refused(&[text]);
    }
}

#[test]
fn all_processes_of_the_container_are_in_its_cgroup() {
    let c = Container::new(|c| args(c, &["children", "3", "setsid"]));
    let mut output = c.started();
    let processes = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(processes.lines().count(), 4);
    let ids: Vec<u32> = processes.lines().map(|l| l.parse().unwrap()).collect();
    c.delete_by_force().ok();
    c.ended(&mut output);
    wait_gone("the container's processes", || !ids.iter().any(|p| is_alive(*p)));
    assert!(!Path::new(&c.cgroup()).exists());
}

/// A mount namespace of the command's own.
fn own_mounts(with: CloneFlags) -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | with)?;
    let none = None::<&str>;
    Ok(mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?)
}

#[test]
fn cgroup2_is_where_this_process_sees_it() {
    // as on a machine with nothing but cgroup2, whatever is beside it here
    let usual = "/sys/fs/cgroup";
    let c = Container::new(|c| args(c, &["wait"]));
    let (mut output, writer) = pipe();
    let run = c.on_bundle("run", &[]).stdout(writer);
    let bound = move || {
        own_mounts(CloneFlags::empty())?;
        let none = None::<&str>;
        Ok(mount(Some(cgroup2_mount()), usual, none, MsFlags::MS_BIND, none)?)
    };
    cgroup2_mount();
    // SAFETY: system calls; the path is known since the line before.
    let running = unsafe { run.before_exec(bound) }.spawn();
    output.expect("READY");
    assert_eq!(cgroup_of(c.pid()), format!("/{}", c.id));
    c.kill("TERM").ok();
    running.wait().ok();
    c.assert_gone();
}

#[test]
fn a_private_view_begins_at_the_callers_own_cgroup() {
    let c = Container::new(|c| args(c, &["wait"]));
    let outer = cgroup2_mount().join(format!("{}-outer", c.id));
    std::fs::create_dir(&outer).unwrap();
    let procs = std::fs::File::options().write(true).open(outer.join("cgroup.procs")).unwrap();
    let (mut output, writer) = pipe();
    let run = c.on_bundle("run", &[]).stdout(writer);
    let enter = move || {
        std::io::Write::write_all(&mut &procs, b"0")?;
        own_mounts(CloneFlags::CLONE_NEWCGROUP)?;
        let (usual, kind, none) = ("/sys/fs/cgroup", Some("cgroup2"), None::<&str>);
        if cgroup2_mount() == Path::new(usual) {
            // the kernel takes no second one of the same kind in the same place
            umount2(usual, MntFlags::MNT_DETACH)?;
        }
        Ok(mount(kind, usual, kind, MsFlags::empty(), none)?)
    };
    // SAFETY: system calls.
    let running = unsafe { run.before_exec(enter) }.spawn();
    output.expect("READY");
    let name = outer.file_name().unwrap().to_str().unwrap();
    assert_eq!(cgroup_of(c.pid()), format!("/{name}/{}", c.id));
    c.kill("TERM").ok();
    running.wait().ok();
    std::fs::remove_dir(&outer).unwrap();
    c.assert_gone();
}

#[test]
fn a_failed_create_takes_the_cgroups_on_the_way_with_it() {
    let c = Container::new(|config| {
        config["process"]["args"] = json!(["/nowhere"]);
    });
    let path = format!("/{}/middle/leaf", c.id);
    c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.assert_refused(&["/nowhere"]);
}

#[test]
fn who_came_later_to_the_same_cgroup_is_left_alone() {
    let first = Container::new(|config| args(config, &["wait"]));
    let path = format!("/{}", first.id);
    first.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = first.started();
    first.kill("KILL").ok();
    first.ended(&mut output);
    let second = Container::new(|config| args(config, &["wait"]));
    second.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = second.started();
    first.on_id("kill", &["--all"], &["KILL"]).run().ok();
    assert_eq!(first.on_id("ps", &["--format", "json"], &[]).run().ok().stdout, "[]\n");
    assert_eq!(second.status(), "running");
    second.kill("KILL").ok();
    second.ended(&mut output);
    second.delete().ok();
    first.delete().ok();
    first.assert_gone();
    second.assert_gone();
}
