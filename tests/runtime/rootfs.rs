//! The root file system: read-only, masked and read-only paths, devices, and
//! no way out of it.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::{Container, args};

#[test]
fn a_writable_root_is_the_bundles_directory() {
    let c = Container::new(|c| args(c, &["create", "/made", "inside"]));
    assert_eq!(c.lines(), ["ok"]);
    let text = std::fs::read_to_string(c.bundle.rootfs().join("made")).unwrap();
    assert_eq!(text, "inside");
}

#[test]
fn a_readonly_root_can_not_be_written() {
    let words = ["each", "create /made x", "mkdir /dir", "create /dev/shm/x y", "write /probe x"];
    let c = Container::new(|config| {
        config["root"]["readonly"] = json!(true);
        args(config, &words);
    });
    let lines = c.lines();
    assert_eq!(lines[..3], ["EROFS", "EROFS", "ok"]);
    assert_ne!(lines[3], "ok");
}

#[test]
fn the_rootfs_may_be_an_absolute_path_or_a_link() {
    let other = Container::new(|_| {});
    let path = other.bundle.rootfs();
    let c = Container::new(|config| {
        config["root"]["path"] = json!(path);
        args(config, &["say", "there"]);
    });
    assert_eq!(c.lines(), ["there"]);
    let c = Container::new(|c| args(c, &["say", "there"]));
    std::fs::rename(c.bundle.rootfs(), c.bundle.path().join("real")).unwrap();
    symlink("real", c.bundle.rootfs()).unwrap();
    assert_eq!(c.lines(), ["there"]);
}

#[test]
fn a_rootfs_below_a_closed_directory_of_somebody_else_works() {
    use std::os::unix::fs::{PermissionsExt, chown};
    for propagation in ["", "shared", "rshared", "private", "slave"] {
        let closed = crate::support::temp_dir();
        let c = Container::new(|config| {
            crate::support::map_users(config);
            config["root"]["path"] = json!(closed.path().join("rootfs"));
            config["linux"]["rootfsPropagation"] = json!(propagation);
            args(config, &["each", "create /made x", "read /proc/self/uid_map"]);
        });
        c.bundle.give_rootfs_to(100_000);
        std::fs::rename(c.bundle.rootfs(), closed.path().join("rootfs")).unwrap();
        chown(closed.path(), Some(4242), Some(4242)).unwrap();
        std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let lines = c.lines();
        assert_eq!(lines[0], "ok", "{propagation}");
        assert!(lines[1].contains("100000"), "{lines:?}");
        std::fs::remove_dir_all(closed.path().join("rootfs")).unwrap();
        c.assert_refused(&["rootfs", closed.path().to_str().unwrap()]);
    }
}

#[test]
fn masked_paths_show_nothing() {
    let words = ["each", "read /secret/file", "list /secret", "read /plain", "open /plain w"];
    let c = Container::new(|config| {
        config["linux"]["maskedPaths"] = json!(["/secret", "/plain", "/not/there"]);
        args(config, &words);
    });
    let rootfs = c.bundle.rootfs();
    std::fs::create_dir(rootfs.join("secret")).unwrap();
    std::fs::write(rootfs.join("secret/file"), "hidden").unwrap();
    std::fs::write(rootfs.join("plain"), "hidden").unwrap();
    let lines = c.lines();
    assert_eq!(lines[..3], ["ENOENT", "[]", ""]);
    assert_eq!(std::fs::read_to_string(rootfs.join("plain")).unwrap(), "hidden");
    assert!(!rootfs.join("not").exists());
}

#[test]
fn a_masked_directory_can_not_be_written() {
    let c = Container::new(|config| {
        config["linux"]["maskedPaths"] = json!(["/secret"]);
        args(config, &["create", "/secret/x", "y"]);
    });
    std::fs::create_dir(c.bundle.rootfs().join("secret")).unwrap();
    assert_eq!(c.lines(), ["EROFS"]);
}

#[test]
fn a_masked_file_does_not_hand_out_the_hosts_null_device() {
    let c = Container::new(|config| config["linux"]["maskedPaths"] = json!(["/plain"]));
    std::fs::write(c.bundle.rootfs().join("plain"), "hidden").unwrap();
    let report = c.json();
    let mount = crate::mounts::at(&report, "/plain");
    // its mode and its times are the host's
    for option in ["ro", "nosuid", "noexec"] {
        assert!(mount["options"].as_array().unwrap().contains(&json!(option)), "{mount}");
    }
}

#[test]
fn the_root_can_be_a_read_only_path_but_no_masked_one() {
    let c = Container::new(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/."]);
        args(config, &["each", "create /new x", "open /proc/sys/kernel/hostname w"]);
    });
    assert_eq!(c.lines(), ["EROFS", "EROFS"]);
    Container::new(|config| config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/"]))
        .assert_refused(&["linux.maskedPaths[1]: is the root itself"]);
}

#[test]
fn readonly_paths_can_be_read_only() {
    let words = [
        "each",
        "read /keep/file",
        "open /keep/file w",
        "create /keep/new x",
        "open /proc/sys/kernel/hostname w",
        "read /proc/sys/kernel/hostname",
    ];
    let c = Container::new(|config| {
        config["linux"]["readonlyPaths"] = json!(["/keep", "/proc/sys", "/not/there"]);
        args(config, &words);
    });
    std::fs::create_dir(c.bundle.rootfs().join("keep")).unwrap();
    std::fs::write(c.bundle.rootfs().join("keep/file"), "kept").unwrap();
    assert_eq!(c.lines(), ["kept", "EROFS", "EROFS", "EROFS", "probe"]);
}

#[test]
fn a_readonly_path_keeps_the_flags_of_its_mount() {
    let report = Container::new(|_| {}).json();
    let mounts = report["mounts"].as_array().unwrap();
    let sys = mounts.iter().rfind(|m| m["target"] == "/proc/sys").unwrap();
    assert!(sys["options"].as_array().unwrap().contains(&json!("ro")), "{sys}");
}

#[test]
fn default_devices_and_links_are_there() {
    let report = Container::new(|_| {}).json();
    let dev = &report["dev"];
    let devices = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in devices {
        let d = &dev[name];
        assert_eq!(d["type"], "c", "{name}: {d}");
        assert_eq!([&d["major"], &d["minor"]], [&json!(major), &json!(minor)], "{name}");
        assert_eq!(d["mode"], 0o666, "{name}");
        assert_eq!([&d["uid"], &d["gid"]], [&json!(0), &json!(0)], "{name}");
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        assert_eq!(dev[name]["target"], target, "{name}");
    }
    let ptmx = dev["ptmx"]["target"].as_str().unwrap();
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&ptmx), "{ptmx}");
    // without a terminal there is no console
    assert_eq!(dev["console"], Value::Null);
}

#[test]
fn default_devices_can_be_opened() {
    let words = [
        "each",
        "open /dev/null rw",
        "open /dev/zero rw",
        "open /dev/full rw",
        "open /dev/random r",
        "open /dev/urandom r",
        "open /dev/ptmx rw",
        "open /dev/tty rw",
    ];
    let lines = Container::new(|c| args(c, &words)).lines();
    assert_eq!(lines[..6], ["ok"; 6]);
    // no terminal, but no rule against it either
    assert_eq!(lines[6], "ENXIO");
}

#[test]
fn the_configs_devices_have_their_mode_and_owner() {
    let c = Container::new(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3,
             "fileMode": 0o642, "uid": 5, "gid": 6},
            {"path": "/dev/blk", "type": "b", "major": 7, "minor": 100, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
            {"path": "/dev/sub/dir/zero", "type": "u", "major": 1, "minor": 5},
        ]);
        args(
            config,
            &[
                "each",
                "stat /dev/mine",
                "stat /dev/blk",
                "stat /dev/pipe",
                "stat /dev/sub/dir/zero",
            ],
        );
    });
    let output = c.run().ok().stdout;
    let seen: Vec<Value> = output.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let short = |v: &Value| {
        let n = |key: &str| v[key].as_u64().unwrap();
        (
            v["type"].as_str().unwrap().to_owned(),
            [n("major"), n("minor")],
            n("mode"),
            [n("uid"), n("gid")],
        )
    };
    assert_eq!(short(&seen[0]), ("c".into(), [1, 3], 0o642, [5, 6]));
    assert_eq!(short(&seen[1]), ("b".into(), [7, 100], 0o600, [0, 0]));
    assert_eq!(short(&seen[2]), ("p".into(), [0, 0], 0o622, [0, 0]));
    assert_eq!(seen[3]["type"], "c");
    assert_eq!([&seen[3]["major"], &seen[3]["minor"]], [&json!(1), &json!(5)]);
}

#[test]
fn a_device_of_the_config_can_replace_a_default_one() {
    let c = Container::new(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600},
        ]);
        args(config, &["stat", "/dev/full"]);
    });
    assert_eq!(c.json()["mode"], 0o600);
}

#[test]
fn there_is_no_way_out_of_the_root() {
    let outside = crate::support::temp_dir();
    let marker = outside.path().join("marker");
    std::fs::write(&marker, "").unwrap();
    let c = Container::new(|config| {
        args(config, &["escape", marker.to_str().unwrap()]);
        let caps = json!(["CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = caps.clone();
        }
    });
    let lines = c.lines();
    assert!(lines.iter().all(|l| l.ends_with(": contained")), "{lines:#?}");
}

#[test]
fn the_old_root_is_not_among_the_mounts() {
    let c = Container::new(|_| {});
    let report = c.json();
    let host = c.bundle.path().parent().unwrap().to_str().unwrap();
    for mount in report["mounts"].as_array().unwrap() {
        let target = mount["target"].as_str().unwrap();
        assert!(!target.starts_with(host), "{mount}");
        assert!(!target.contains("oldroot"), "{mount}");
    }
    let roots = report["mounts"].as_array().unwrap().iter().filter(|m| m["target"] == "/");
    assert_eq!(roots.count(), 1);
}

#[test]
fn a_working_directory_outside_is_refused() {
    // what /proc/self/fd/N shows to a careless chdir is a directory of the host
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}/../..");
        let c = Container::new(|c| c["process"]["cwd"] = json!(cwd));
        let output = c.run();
        if output.code == 0 {
            let seen = output.json()["cwd"].clone();
            let seen = seen.as_str().unwrap_or("nowhere");
            assert!(!seen.contains("unreachable") && !seen.contains("nowhere"), "{fd}: {seen}");
        }
        c.delete_by_force();
    }
}

#[test]
fn a_link_in_the_rootfs_does_not_lead_a_mount_out() {
    let outside = crate::support::temp_dir();
    let c = Container::new(|config| {
        crate::support::add_mount(
            config,
            json!({"destination": "/out/there", "type": "tmpfs", "source": "tmpfs"}),
        );
        args(config, &["create", "/out/there/x", "y"]);
    });
    symlink(outside.path(), c.bundle.rootfs().join("out")).unwrap();
    let output = c.run();
    // refused, or resolved inside: either is right, outside is not
    assert!(output.code == 0 || output.code == 1, "{output:?}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_dev_that_is_a_link_does_not_lead_out() {
    let outside = crate::support::temp_dir();
    let c = Container::new(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        args(config, &["say", "up"]);
    });
    symlink(outside.path(), c.bundle.rootfs().join("dev")).unwrap();
    c.run();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_proc_that_is_a_link_is_refused_or_resolved_inside() {
    let outside = crate::support::temp_dir();
    let c = Container::new(|c| args(c, &["list", "/proc"]));
    symlink(outside.path(), c.bundle.rootfs().join("proc")).unwrap();
    c.run();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
