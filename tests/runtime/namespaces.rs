//! Namespaces: new, shared with the host, joined by a path.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Container, args, drop_namespace, map_users, namespace_of, namespace_path};

/// The config's word, and the name under /proc/PID/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
];

fn own(kind: &str) -> String {
    namespace_of(std::process::id(), kind)
}

/// A container in a user namespace whose root is an ordinary user outside.
fn in_user_namespace(edit: impl FnOnce(&mut Value)) -> Container {
    let c = Container::new(|config| {
        map_users(config);
        edit(config);
    });
    c.bundle.give_rootfs_to(100_000);
    c
}

#[test]
fn each_listed_namespace_is_new() {
    let report = Container::new(|_| {}).json();
    for (_, kind) in KINDS {
        assert_ne!(report["namespaces"][kind], own(kind), "{kind}");
    }
    assert_eq!(report["namespaces"]["user"], own("user"));
    assert_eq!(report["pid"], 1);
    assert_eq!(report["ppid"], 0);
    assert_eq!(report["processes"], json!([1]));
}

#[test]
fn a_namespace_that_is_not_listed_is_the_hosts() {
    for (word, kind) in KINDS {
        let report = Container::new(|config| {
            drop_namespace(config, word);
            if word == "uts" {
                config.as_object_mut().unwrap().remove("hostname");
            }
        })
        .json();
        assert_eq!(report["namespaces"][kind], own(kind), "{kind}");
    }
}

/// Mount points of the test's own mount namespace.
fn mount_points() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
}

#[test]
fn mounts_without_a_namespace_are_below_the_rootfs_and_go_with_the_container() {
    let c = Container::new(|config| {
        drop_namespace(config, "mount");
        args(config, &["wait"]);
    });
    let output = c.started();
    assert_eq!(namespace_of(c.pid(), "mnt"), own("mnt"));
    let rootfs = c.bundle.path().join("rootfs");
    let root = std::fs::read_link(format!("/proc/{}/root", c.pid())).unwrap();
    assert_eq!(root, rootfs);
    let own_mounts: Vec<String> = mount_points()
        .into_iter()
        .filter(|point| point.starts_with(rootfs.to_str().unwrap()))
        .collect();
    assert!(own_mounts.contains(&rootfs.to_str().unwrap().to_owned()), "{own_mounts:?}");
    assert!(own_mounts.contains(&format!("{}/proc", rootfs.display())), "{own_mounts:?}");
    drop(output);
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn a_delete_from_another_mount_namespace_says_what_may_be_left() {
    let c = Container::new(|config| {
        drop_namespace(config, "mount");
        args(config, &["sleep-forever"]);
    });
    c.on_bundle("create", &[]).run().ok();
    let rootfs = c.bundle.rootfs();
    let is_mounted = || mount_points().iter().any(|point| *point == *rootfs.to_str().unwrap());
    assert!(is_mounted());
    let delete = c.on_id("delete", &["--force"], &[]);
    let output = delete.through(Path::new("unshare"), &["--mount"]).run().ok();
    let text = format!("the mount at {} may be left", rootfs.display());
    assert!(output.stderr.contains(&text), "{output:#?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
    assert!(is_mounted());
    nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH).unwrap();
    c.assert_gone();
}

#[test]
fn a_container_without_any_namespace_is_the_host_with_another_root() {
    let c = Container::new(|config| {
        config["linux"]["namespaces"] = json!([]);
        config["linux"].as_object_mut().unwrap().remove("sysctl");
        config.as_object_mut().unwrap().remove("hostname");
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs");
    });
    let report = c.json();
    for (_, kind) in KINDS {
        assert_eq!(report["namespaces"][kind], own(kind), "{kind}");
    }
    assert_eq!(report["cwd"], "/");
    c.assert_gone();
}

#[test]
fn a_create_that_fails_leaves_no_mount_without_a_namespace() {
    let c = Container::new(|config| {
        drop_namespace(config, "mount");
        config["process"]["args"] = json!(["/missing"]);
    });
    c.assert_refused(&["/missing"]);
    // a user namespace may mount nothing in the caller's mount namespace
    let c = in_user_namespace(|config| drop_namespace(config, "mount"));
    c.assert_refused(&["linux.namespaces", "add one of type mount"]);
}

#[test]
fn the_loopback_device_of_a_new_network_namespace_is_up() {
    let lines = Container::new(|c| args(c, &["read", "/sys/class/net/lo/flags"])).lines();
    // IFF_UP | IFF_LOOPBACK
    assert_eq!(lines, ["0x9"]);
}

#[test]
fn each_namespace_can_be_joined_by_its_path() {
    let first = Container::new(|c| args(c, &["wait"]));
    let _output = first.started();
    for (word, kind) in KINDS {
        if word == "mount" {
            continue;
        }
        let path = format!("/proc/{}/ns/{kind}", first.pid());
        let report = Container::new(|config| {
            namespace_path(config, word, &path);
            if word == "uts" {
                config.as_object_mut().unwrap().remove("hostname");
            }
        })
        .json();
        assert_eq!(report["namespaces"][kind], namespace_of(first.pid(), kind), "{kind}");
        for (_, other) in KINDS {
            if other != kind {
                assert_ne!(report["namespaces"][other], own(other), "{kind}: {other}");
            }
        }
        match word {
            "uts" => assert_eq!(report["hostname"], "probe"),
            "pid" => assert_ne!(report["pid"], 1),
            _ => {}
        }
    }
}

/// Does something with the path of a mount namespace that is not a container's: a
/// pivot in there would pull its root away.
fn with_mount_namespace<T>(work: impl FnOnce(&str, &str) -> T) -> T {
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(crate::support::probe())
        .arg("wait")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = crate::support::Pipe::new(holder.stdout.take().unwrap().into());
    output.expect("READY");
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let result = work(&path, &namespace_of(holder.id(), "mnt"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    result
}

#[test]
fn a_mount_namespace_can_be_joined_by_its_path() {
    with_mount_namespace(|path, joined| {
        let result = Container::new(|c| namespace_path(c, "mount", path)).run();
        assert_eq!(result.ok().json()["namespaces"]["mnt"], joined);
    });
}

#[test]
fn a_new_user_namespace_uses_the_mounts_that_it_joins() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    with_mount_namespace(|path, _| {
        let plain = |config: &mut Value| {
            namespace_path(config, "mount", path);
            config["mounts"] = json!([]);
            for field in ["maskedPaths", "readonlyPaths"] {
                config["linux"].as_object_mut().unwrap().remove(field);
            }
        };
        let c = in_user_namespace(|config| {
            plain(config);
            args(config, &["each", "open /dev/null rw", "create /made x", "stat /made"]);
        });
        c.assert_refused(&["device /dev/null", "no such file"]);
        let dev = c.bundle.rootfs().join("dev");
        std::fs::create_dir(&dev).unwrap();
        for (name, major, minor) in [
            ("null", 1, 3),
            ("zero", 1, 5),
            ("full", 1, 7),
            ("random", 1, 8),
            ("urandom", 1, 9),
            ("tty", 5, 0),
        ] {
            let node = dev.join(name);
            mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor)).unwrap();
            std::fs::set_permissions(node, std::os::unix::fs::PermissionsExt::from_mode(0o666))
                .unwrap();
        }
        let lines = c.lines();
        assert_eq!(lines[..2], ["ok", "ok"]);
        assert!(lines[2].contains(r#""uid":0"#), "{}", lines[2]);
        let made = std::fs::metadata(c.bundle.rootfs().join("made")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
        // what would need power over them is refused by name
        for (pointer, value) in [
            ("mounts", json!([{"destination": "/t", "type": "tmpfs"}])),
            ("root.readonly", json!(true)),
            ("process.terminal", json!(true)),
            ("linux.devices", json!([{"path": "/dev/x", "type": "p"}])),
            ("linux.maskedPaths", json!(["/x"])),
            ("linux.readonlyPaths", json!(["/x"])),
            ("linux.rootfsPropagation", json!("slave")),
        ] {
            let c = in_user_namespace(|config| {
                plain(config);
                let field = config.pointer_mut(&format!("/{}", pointer.replace('.', "/")));
                match (field, pointer.split_once('.')) {
                    (Some(field), _) => *field = value,
                    (None, Some((parent, field))) => config[parent][field] = value,
                    (None, None) => panic!("{pointer}"),
                }
            });
            c.assert_refused(&[&format!("{pointer}: "), "mount namespace that it joins"]);
        }
    });
}

#[test]
fn root_of_a_user_namespace_is_an_ordinary_user_outside() {
    let c = in_user_namespace(|c| args(c, &["wait"]));
    let _output = c.started();
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert!(status.contains("\nUid:\t100000\t100000\t100000\t100000\n"));
    assert!(status.contains("\nGid:\t100000\t100000\t100000\t100000\n"));
}

#[test]
fn a_user_namespace_has_its_maps() {
    let report = in_user_namespace(|config| {
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    })
    .json();
    assert_ne!(report["namespaces"]["user"], own("user"));
    assert_eq!(report["uid_map"], json!([[0, 100_000, 65536]]));
    assert_eq!(report["gid_map"], json!([[0, 100_000, 65536]]));
    assert_eq!(report["uids"]["effective"], 7);
    assert_eq!(report["gids"]["effective"], 8);
    assert_eq!(report["groups"], json!([9]));
}

#[test]
fn devices_and_mounts_work_in_a_user_namespace() {
    let words = ["each", "open /dev/null rw", "open /dev/shm r", "list /proc/1/ns"];
    let lines = in_user_namespace(|c| args(c, &words)).lines();
    assert_eq!(lines[0..2], ["ok", "ok"]);
    assert!(lines[2].contains("user"));
}

#[test]
fn devices_of_the_host_are_mounted_without_setuid_and_programs() {
    let lines = in_user_namespace(|c| args(c, &["read", "/proc/self/mountinfo"])).lines();
    let null = lines.iter().find(|line| line.contains(" /dev/null ")).unwrap();
    let options: Vec<&str> = null.split(' ').nth(5).unwrap().split(',').collect();
    assert!(options.contains(&"nosuid") && options.contains(&"noexec"), "{null}");
}

#[test]
fn devices_of_a_user_namespace_have_their_mode_and_owner() {
    let c = in_user_namespace(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3,
             "fileMode": 0o642, "uid": 5, "gid": 6},
            {"path": "/dev/sub/blk", "type": "b", "major": 7, "minor": 100, "fileMode": 0o600},
        ]);
        let words = ["each", "stat /dev/mine", "stat /dev/sub/blk", "open /dev/mine w"];
        args(config, &words);
    });
    let lines = c.lines();
    for (line, [major, minor, mode, uid, gid]) in
        lines.iter().zip([[1, 3, 0o642, 5, 6], [7, 100, 0o600, 0, 0]])
    {
        let seen: Value = serde_json::from_str(line).unwrap();
        let wanted = json!({"major": major, "minor": minor, "mode": mode, "uid": uid, "gid": gid});
        for (field, value) in wanted.as_object().unwrap() {
            assert_eq!(seen[field], *value, "{field}: {seen}");
        }
    }
    assert_eq!(lines[2], "ok");
    c.assert_gone();
}

#[test]
fn a_bind_from_below_a_closed_directory_of_somebody_else_works() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let closed = crate::support::temp_dir();
    let source = closed.path().join("data");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "seen").unwrap();
    chown(closed.path(), Some(4242), Some(4242)).unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let c = in_user_namespace(|config| {
        let mount = json!({"destination": "/data", "source": source, "options": ["rbind", "ro"]});
        crate::support::add_mount(config, mount);
        args(config, &["read", "/data/file"]);
    });
    assert_eq!(c.lines(), ["seen"]);
    // not even root finds what is not there
    c.bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.last_mut().unwrap()["source"] = json!(closed.path().join("nothing"));
    });
    c.assert_refused(&["mount /data (bind from", "source does not exist"]);
}

#[test]
fn a_user_namespace_can_be_joined_by_its_path() {
    let first = in_user_namespace(|c| args(c, &["wait"]));
    let _output = first.started();
    let path = format!("/proc/{}/ns/user", first.pid());
    let second = Container::new(|c| namespace_path(c, "user", &path));
    second.bundle.give_rootfs_to(100_000);
    let report = second.json();
    assert_eq!(report["namespaces"]["user"], namespace_of(first.pid(), "user"));
    assert_eq!(report["uid_map"], json!([[0, 100_000, 65536]]));
}

#[test]
fn two_containers_of_a_pod_see_each_other() {
    let first = Container::new(|c| args(c, &["wait"]));
    let _output = first.started();
    let pid = first.pid();
    let report = Container::new(|config| {
        for (word, kind) in KINDS {
            if ["pid", "network", "ipc", "uts"].contains(&word) {
                namespace_path(config, word, &format!("/proc/{pid}/ns/{kind}"));
            }
        }
        config.as_object_mut().unwrap().remove("hostname");
    })
    .json();
    let seen = report["processes"].as_array().unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0], 1);
    assert_eq!(seen[1], report["pid"]);
}

#[test]
fn a_path_of_another_kind_of_namespace_is_refused() {
    let path = format!("/proc/{}/ns/net", std::process::id());
    Container::new(|c| namespace_path(c, "ipc", &path)).assert_refused(&["ipc"]);
}

#[test]
fn a_namespace_path_that_is_not_there_is_refused() {
    Container::new(|c| namespace_path(c, "ipc", "/proc/self/no-such-ns"))
        .assert_refused(&["no-such-ns"]);
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    Container::new(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "ipc"}));
    })
    .assert_refused(&["linux.namespaces", "ipc"]);
}

#[test]
fn a_hostname_without_a_namespace_for_it_is_refused() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    Container::new(|c| drop_namespace(c, "uts")).assert_refused(&["hostname"]);
    let after = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(host, after);
}

#[test]
fn hostname_and_domainname_are_set() {
    let report = Container::new(|config| {
        config["hostname"] = json!("box.example");
        config["domainname"] = json!("example.org");
    })
    .json();
    assert_eq!(report["hostname"], "box.example");
    assert_eq!(report["domainname"], "example.org");
}
