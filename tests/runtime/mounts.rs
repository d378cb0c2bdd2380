//! Mounts: file systems, binds, options, propagation, destinations.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::support::{Container, add_mount, args, temp_dir};

/// The last mount on this path: the one that is seen.
fn at<'a>(report: &'a Value, target: &str) -> &'a Value {
    report["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|m| m["target"] == target)
        .unwrap_or_else(|| panic!("nothing on {target} in {:#}", report["mounts"]))
}

fn has(mount: &Value, list: &str, option: &str) -> bool {
    mount[list].as_array().unwrap().contains(&json!(option))
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "t", "options": options})
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

#[test]
fn options_become_flags() {
    // what is asked for, what has to be seen, what must not be
    let table: [(&[&str], &[&str], &[&str]); 13] = [
        (&[], &["rw", "relatime"], &["nosuid", "nodev", "noexec"]),
        (&["ro"], &["ro"], &["rw"]),
        (&["nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"], &[]),
        (&["nosuid", "suid"], &[], &["nosuid"]),
        (&["nodev", "dev", "noexec", "exec"], &[], &["nodev", "noexec"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["nodiratime"], &["nodiratime"], &[]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["relatime"], &["relatime"], &[]),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["defaults"], &["rw"], &[]),
        (&["noatime", "atime"], &[], &["noatime"]),
        (&["sync", "dirsync"], &["rw"], &[]),
    ];
    let c = Container::new(|config| {
        for (n, (options, _, _)) in table.iter().enumerate() {
            add_mount(config, tmpfs(&format!("/m{n}"), options));
        }
    });
    let report = c.json();
    for (n, (options, seen, unseen)) in table.iter().enumerate() {
        let mount = at(&report, &format!("/m{n}"));
        for option in *seen {
            assert!(has(mount, "options", option), "{options:?}: no {option} in {mount}");
        }
        for option in *unseen {
            assert!(!has(mount, "options", option), "{options:?}: {option} in {mount}");
        }
    }
}

#[test]
fn links_of_a_mount_can_be_dead() {
    let report = Container::new(|c| add_mount(c, tmpfs("/m", &["nosymfollow"]))).json();
    let mount = at(&report, "/m");
    assert!(has(mount, "options", "nosymfollow"), "{mount}");
}

#[test]
fn file_systems_get_their_own_options() {
    let report = Container::new(|config| {
        add_mount(config, tmpfs("/t", &["size=1m", "mode=1700", "uid=5", "gid=6", "nr_inodes=20"]));
    })
    .json();
    let mount = at(&report, "/t");
    for option in ["size=1024k", "mode=1700", "uid=5", "gid=6", "nr_inodes=20"] {
        assert!(has(mount, "super_options", option), "no {option} in {mount}");
    }
    let pts = at(&report, "/dev/pts");
    for option in ["gid=5", "mode=620", "ptmxmode=666"] {
        assert!(has(pts, "super_options", option), "no {option} in {pts}");
    }
    assert_eq!(at(&report, "/dev/mqueue")["fstype"], "mqueue");
    assert_eq!(at(&report, "/proc")["fstype"], "proc");
    assert_eq!(at(&report, "/sys")["fstype"], "sysfs");
}

#[test]
fn a_size_limit_of_tmpfs_is_in_effect() {
    let lines = Container::new(|config| {
        add_mount(config, tmpfs("/t", &["nr_inodes=2"]));
        args(config, &["each", "create /t/one x", "create /t/two x"]);
    })
    .lines();
    assert_eq!(lines, ["ok", "ENOSPC"]);
}

#[test]
fn mounts_keep_the_configs_order() {
    let lines = Container::new(|config| {
        add_mount(config, tmpfs("/a", &["mode=700"]));
        add_mount(config, tmpfs("/a/b", &["mode=750"]));
        add_mount(config, tmpfs("/c", &["mode=700"]));
        add_mount(config, tmpfs("/c", &["mode=755"]));
        args(config, &["each", "stat /a", "stat /a/b", "stat /c"]);
    })
    .lines();
    let modes: Vec<u64> = lines
        .iter()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["mode"].as_u64().unwrap())
        .collect();
    assert_eq!(modes, [0o700, 0o750, 0o755]);
}

#[test]
fn destinations_are_made_on_the_way() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/a/b/c", &[]));
        add_mount(config, bind(&outside.path().join("file"), "/x/y/file", &["bind"]));
        args(config, &["each", "create /a/b/c/d e", "read /x/y/file", "stat /x/y/file"]);
    });
    let lines = c.lines();
    assert_eq!(lines[..2], ["ok", "text"]);
    assert!(lines[2].contains("\"type\":\"file\""), "{}", lines[2]);
}

#[test]
fn a_relative_destination_starts_at_the_root() {
    let lines = Container::new(|config| {
        config["process"]["cwd"] = json!("/elsewhere");
        add_mount(config, tmpfs("rel/dir", &[]));
        args(config, &["create", "/rel/dir/x", "y"]);
    })
    .lines();
    assert_eq!(lines, ["ok"]);
}

#[test]
fn a_file_is_mounted_over_a_file() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("new"), "new").unwrap();
    let c = Container::new(|config| {
        add_mount(config, bind(&outside.path().join("new"), "/etc/file", &["bind", "ro"]));
        args(config, &["each", "read /etc/file", "open /etc/file w"]);
    });
    std::fs::create_dir(c.bundle.rootfs().join("etc")).unwrap();
    std::fs::write(c.bundle.rootfs().join("etc/file"), "old").unwrap();
    assert_eq!(c.lines(), ["new", "EROFS"]);
    let text = std::fs::read_to_string(c.bundle.rootfs().join("etc/file")).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_bind_shows_the_hosts_directory() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("from-host"), "host").unwrap();
    let lines = Container::new(|config| {
        add_mount(config, bind(outside.path(), "/shared", &["bind"]));
        args(config, &["each", "read /shared/from-host", "create /shared/from-inside inside"]);
    })
    .lines();
    assert_eq!(lines, ["host", "ok"]);
    let text = std::fs::read_to_string(outside.path().join("from-inside")).unwrap();
    assert_eq!(text, "inside");
}

#[test]
fn a_bind_is_known_by_its_option_alone() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    for kind in [json!(null), json!("none"), json!("bind")] {
        let lines = Container::new(|config| {
            let mut mount = bind(outside.path(), "/shared", &["rbind", "rw"]);
            mount["type"] = kind.clone();
            if kind.is_null() {
                mount.as_object_mut().unwrap().remove("type");
            }
            add_mount(config, mount);
            args(config, &["read", "/shared/file"]);
        })
        .lines();
        assert_eq!(lines, ["text"], "type {kind}");
    }
}

#[test]
fn options_of_a_bind_are_the_containers_alone() {
    let outside = temp_dir();
    let report = Container::new(|config| {
        let options = ["bind", "ro", "nosuid", "nodev", "noexec", "noatime"];
        add_mount(config, bind(outside.path(), "/shared", &options));
    })
    .json();
    let mount = at(&report, "/shared");
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(has(mount, "options", option), "no {option} in {mount}");
    }
    // the file system behind it is as it was
    std::fs::write(outside.path().join("still"), "writable").unwrap();
}

#[test]
fn a_relative_source_starts_at_the_bundle() {
    let c = Container::new(|config| {
        add_mount(config, bind(Path::new("data"), "/data", &["bind"]));
        args(config, &["read", "/data/file"]);
    });
    std::fs::create_dir(c.bundle.path().join("data")).unwrap();
    std::fs::write(c.bundle.path().join("data/file"), "text").unwrap();
    let output = c.on_bundle("run", &[]).current_dir(Path::new("/")).run().ok();
    assert_eq!(output.stdout, "text\n");
}

/// A directory with a tmpfs mounted at `sub`, in a mount namespace that only
/// the command has: the host's mounts stay as they are.
fn with_submount(c: &Container, dir: &Path, is_shared: bool) -> Value {
    let dir = dir.to_owned();
    let action = move || {
        let none = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        mount(Some("t"), &dir, Some("tmpfs"), MsFlags::empty(), none)?;
        let flag = if is_shared { MsFlags::MS_SHARED } else { MsFlags::MS_PRIVATE };
        mount(none, &dir, none, flag, none)?;
        std::fs::create_dir(dir.join("sub"))?;
        mount(Some("t"), &dir.join("sub"), Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(())
    };
    // SAFETY: the test's other threads hold no lock that the few allocations
    // in here could wait for: the C library's allocator is safe across fork.
    let command = unsafe { c.on_bundle("run", &[]).before_exec(action) };
    command.run().ok().json()
}

#[test]
fn rbind_takes_submounts_along_and_bind_does_not() {
    for (option, count) in [("rbind", 2), ("bind", 1)] {
        let outside = temp_dir();
        let c = Container::new(|c| add_mount(c, bind(outside.path(), "/b", &[option])));
        let report = with_submount(&c, outside.path(), false);
        let below = report["mounts"].as_array().unwrap().iter();
        let below = below.filter(|m| m["target"].as_str().unwrap().starts_with("/b"));
        assert_eq!(below.count(), count, "{option}");
    }
}

#[test]
fn propagation_of_a_bind_is_the_configs() {
    let table = [
        (["rbind", "rprivate"], "none"),
        (["rbind", "rslave"], "master"),
        (["rbind", "rshared"], "shared"),
        (["rbind", "private"], "none"),
        (["rbind", "slave"], "master"),
        (["rbind", "runbindable"], "unbindable"),
    ];
    for (options, seen) in table {
        let outside = temp_dir();
        let c = Container::new(|config| {
            // the root must not cut the ties that this mount asks for
            config["linux"]["rootfsPropagation"] = json!(match seen {
                "shared" => "rshared",
                _ => "rslave",
            });
            add_mount(config, bind(outside.path(), "/b", &options));
        });
        let report = with_submount(&c, outside.path(), true);
        let tags = at(&report, "/b")["propagation"].as_array().unwrap().clone();
        let is_tagged = |kind: &str| tags.iter().any(|t| t.as_str().unwrap().starts_with(kind));
        match seen {
            "none" => assert!(tags.is_empty(), "{options:?}: {tags:?}"),
            kind => assert!(is_tagged(kind), "{options:?}: {tags:?}"),
        }
    }
}

#[test]
fn nothing_spreads_out_of_a_container_by_default() {
    let report = Container::new(|_| {}).json();
    for mount in report["mounts"].as_array().unwrap() {
        let tags = mount["propagation"].as_array().unwrap();
        let is_shared = tags.iter().any(|t| t.as_str().unwrap().starts_with("shared:"));
        assert!(!is_shared, "{mount}");
    }
}

#[test]
fn the_hosts_mount_table_stays_as_it_is() {
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/t", &[]));
        args(config, &["wait"]);
    });
    let mut output = c.started();
    assert_eq!(c.traces().mounts, [""; 0]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    assert_eq!(c.traces().mounts, [""; 0]);
}

#[test]
fn a_missing_source_is_refused() {
    Container::new(|config| {
        add_mount(config, bind(Path::new("/no/such/source"), "/data", &["bind"]));
    })
    .assert_refused(&["/data", "/no/such/source", "does not exist"]);
}

#[test]
fn an_unknown_option_is_refused() {
    for mount in
        [tmpfs("/t", &["frobnicate"]), bind(Path::new("/etc"), "/t", &["bind", "frobnicate"])]
    {
        Container::new(|c| add_mount(c, mount)).assert_refused(&["frobnicate"]);
    }
}

#[test]
fn an_unknown_file_system_is_refused() {
    Container::new(|config| {
        add_mount(config, json!({"destination": "/t", "type": "nofs", "source": "t"}));
    })
    .assert_refused(&["/t", "nofs"]);
}

#[test]
fn a_mount_over_a_file_by_a_directory_is_refused() {
    let outside = temp_dir();
    Container::new(|c| add_mount(c, bind(outside.path(), "/probe", &["bind"])))
        .assert_refused(&["/probe"]);
}

#[test]
fn a_link_on_the_way_to_a_shared_root_leaves_no_mount_on_the_host() {
    let dir = crate::support::temp_dir();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let none = None::<&str>;
    let shared = nix::mount::MsFlags::MS_SHARED;
    nix::mount::mount(Some("tmpfs"), &real, Some("tmpfs"), nix::mount::MsFlags::empty(), none)
        .unwrap();
    nix::mount::mount(none, &real, none, shared, none).unwrap();
    for propagation in ["shared", "rshared", "slave", "private"] {
        let c = Container::new(|config| {
            config["root"]["path"] = serde_json::json!(link.join("rootfs"));
            config["linux"]["rootfsPropagation"] = serde_json::json!(propagation);
            args(config, &["exit", "0"]);
        });
        let copied = std::process::Command::new("cp")
            .args(["-a", "-T"])
            .args([c.bundle.rootfs(), real.join("rootfs")])
            .status();
        assert!(copied.unwrap().success());
        let output = c.run();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left = table.lines().filter(|l| l.contains(real.to_str().unwrap())).count();
        if left != 1 {
            // not to leave them to the next
            while nix::mount::umount(&real.join("rootfs")).is_ok() {}
        }
        assert_eq!((output.code, left), (0, 1), "{propagation}: {output:?}");
    }
    nix::mount::umount(&real).unwrap();
}
