//! Mounts: file systems, binds, options, propagation, destinations.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::support::{Container, add_mount, args, temp_dir};

/// The last mount on this path: the one that is seen.
pub(crate) fn at<'a>(report: &'a Value, target: &str) -> &'a Value {
    report["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|m| m["target"] == target)
        .unwrap_or_else(|| panic!("nothing on {target} in {:#}", report["mounts"]))
}

pub(crate) fn has(mount: &Value, list: &str, option: &str) -> bool {
    mount[list].as_array().unwrap().contains(&json!(option))
}

pub(crate) fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "t", "options": options})
}

pub(crate) fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

#[test]
fn options_become_flags() {
    // what is asked for, what has to be seen, what must not be
    let table: [(&[&str], &[&str], &[&str]); 14] = [
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
        (&["sync", "dirsync", "iversion"], &["rw"], &[]),
        (&["noiversion", "async", "nolazytime"], &["rw"], &[]),
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
fn a_tmpfs_without_a_mode_is_as_what_it_covers_and_open_where_it_covers_nothing() {
    let c = Container::new(|config| {
        let mounts = ["/there", "/new", "/way/new"].map(|at| tmpfs(at, &["size=1m"]));
        mounts.into_iter().for_each(|mount| add_mount(config, mount));
        add_mount(config, tmpfs("/chosen", &["mode=700"]));
        args(config, &["each", "stat /there", "stat /new", "stat /way/new", "stat /chosen"]);
    });
    let there = c.bundle.rootfs().join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::set_permissions(&there, Permissions::from_mode(0o2751)).unwrap();
    let mode = |line: &String| serde_json::from_str::<Value>(line).unwrap()["mode"].as_u64();
    let modes: Vec<u64> = c.lines().iter().map(|line| mode(line).unwrap()).collect();
    assert_eq!(modes, [0o2751, 0o1777, 0o1777, 0o700]);
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
fn a_mount_goes_into_what_covers_the_one_before() {
    let outside = temp_dir();
    for cover in [
        tmpfs("/t", &["mode=755"]),
        tmpfs("/alias", &["mode=755"]),
        tmpfs("/alias", &[]),
        bind(outside.path(), "/alias", &["bind"]),
    ] {
        let c = Container::new(|config| {
            add_mount(config, tmpfs("/t", &["mode=700"]));
            add_mount(config, cover.clone());
            add_mount(config, tmpfs("/t/x", &["mode=755"]));
            add_mount(config, tmpfs("/t/y", &["mode=755"]));
        });
        std::os::unix::fs::symlink("t", c.bundle.rootfs().join("alias")).unwrap();
        let report = c.on_bundle("run", &[]).run().ok().json();
        let top = at(&report, "/t");
        for inner in ["/t/x", "/t/y"] {
            assert_eq!(at(&report, inner)["parent"], top["id"], "{cover}: {report:#}");
        }
    }
}

#[test]
fn many_mounts_need_few_descriptors() {
    let names: Vec<String> = (0..100).map(|n| format!("/many/{n}")).collect();
    let c = Container::new(|config| {
        for name in &names {
            add_mount(config, tmpfs(name, &["mode=755"]));
        }
        config["linux"]["maskedPaths"] = json!(names);
        config["linux"]["readonlyPaths"] = json!(names);
        args(config, &["report"]);
    });
    for name in &names {
        std::fs::create_dir_all(c.bundle.rootfs().join(&name[1..])).unwrap();
    }
    let few = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, 64, hard)?)
    };
    // SAFETY: two system calls.
    let command = unsafe { c.on_bundle("run", &[]).before_exec(few) };
    let report = command.run().ok().json();
    for name in &names {
        let on_it = report["mounts"].as_array().unwrap().iter().filter(|m| m["target"] == **name);
        // itself, read-only, and what hides it
        assert_eq!(on_it.count(), 3, "{name}");
    }
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
fn an_option_of_a_file_system_on_a_bind_is_warned_about() {
    let outside = temp_dir();
    // the last two are nothing anywhere
    let words = ["mode=755", "size=1k", "sync", "dirsync", "lazytime", "acl", "iversion", "silent"];
    let options: Vec<&str> = ["bind"].into_iter().chain(words).collect();
    let output =
        Container::new(|c| add_mount(c, bind(outside.path(), "/data", &options))).run().ok();
    let lines: Vec<&str> = output.stderr.lines().collect();
    let idle = ["mode", "size", "sync", "dirsync", "lazytime", "acl"];
    assert_eq!(lines.len(), idle.len(), "{lines:#?}");
    for (line, option) in lines.iter().zip(idle) {
        let end = format!("].options: \"{option}\" does nothing to a bind mount");
        assert!(line.starts_with("tare: warning: mounts[") && line.ends_with(&end), "{line}");
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
fn a_remount_changes_what_is_there() {
    let outside = temp_dir();
    let c = Container::new(|config| {
        add_mount(config, bind(outside.path(), "/b", &["bind", "nosuid", "nodev"]));
        let options = ["remount", "bind", "ro", "noexec"];
        add_mount(config, json!({"destination": "/b", "options": options}));
    });
    let mount = at(&c.json(), "/b").clone();
    for option in ["ro", "noexec", "nosuid", "nodev"] {
        assert!(has(&mount, "options", option), "no {option} in {mount}");
    }
    let remount = json!({"destination": "/b", "type": "bind", "options": ["remount", "sise=1m"]});
    Container::new(|c| add_mount(c, remount)).assert_refused(&["mounts[7].options", "sise"]);
    for options in [&["remount"][..], &["remount", "ro"], &["remount", "size=1m"]] {
        let remount = json!({"destination": "/b", "options": options});
        Container::new(|c| add_mount(c, remount))
            .assert_refused(&["mount /b (remount)", "no such file"]);
        let remount = json!({"destination": "/proc/sys", "options": options});
        Container::new(|c| add_mount(c, remount))
            .assert_refused(&["mount /proc/sys (remount): nothing is mounted there"]);
    }
}

#[test]
fn a_remount_gives_its_file_system_new_options() {
    let tmpfs = json!({"destination": "/t", "type": "tmpfs", "source": "t",
        "options": ["size=4m", "sync", "lazytime"]});
    let remount =
        json!({"destination": "/t", "options": ["remount", "size=1m,nosuid", "sync", "async"]});
    let report = Container::new(|config| {
        add_mount(config, tmpfs);
        add_mount(config, remount);
    })
    .json();
    let mount = at(&report, "/t");
    assert!(has(mount, "options", "nosuid"), "{mount}");
    assert!(has(mount, "super_options", "size=1024k"), "{mount}");
    assert!(!has(mount, "super_options", "sync"), "{mount}");
}

#[test]
fn a_remount_of_a_bind_leaves_its_file_system_alone() {
    let options = ["remount", "size=1m", "sync", "async", "ro"];
    let c = Container::new(|config| {
        let tmpfs = json!({"destination": "/t", "type": "tmpfs", "source": "t",
            "options": ["size=4m"]});
        add_mount(config, tmpfs);
        add_mount(config, json!({"destination": "/t", "type": "bind", "options": options}));
    });
    let output = c.run().ok();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let mount = at(&report, "/t");
    assert!(has(mount, "super_options", "size=4096k"), "{mount}");
    assert!(!has(mount, "super_options", "sync") && has(mount, "options", "ro"), "{mount}");
    assert!(output.stderr.contains("\"size\" does nothing to a bind mount"), "{output:?}");
}

#[test]
fn options_in_one_string_are_taken_apart_and_the_last_word_wins() {
    let options = ["size=1m,mode=0701,noexec", "sync,lazytime,exec", "nodev,async", "nofail"];
    let tmpfs = json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": options});
    let output = Container::new(|c| add_mount(c, tmpfs)).run().ok();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let mount = at(&report, "/t");
    for (field, option, is_there) in [
        ("super_options", "size=1024k", true),
        ("super_options", "mode=701", true),
        ("super_options", "sync", false),
        ("options", "nodev", true),
        ("options", "noexec", false),
    ] {
        assert_eq!(has(mount, field, option), is_there, "{option}: {mount}");
    }
    assert!(output.stderr.contains("\"nofail\" does nothing here"), "{}", output.stderr);
}

#[test]
fn devices_of_the_host_can_be_bound() {
    let lines = Container::new(|config| {
        add_mount(config, bind(Path::new("/dev/zero"), "/dev/other", &["bind"]));
        add_mount(config, bind(Path::new("/dev/zero"), "/closed", &["bind", "nodev"]));
        args(config, &["each", "open /dev/other rw", "open /closed rw", "stat /dev/other"]);
    })
    .lines();
    assert_eq!(lines[..2], ["ok", "EACCES"]);
    let found: Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!((&found["major"], &found["minor"]), (&json!(1), &json!(5)));
}

#[test]
fn a_bind_over_a_link_of_the_image_stays_inside() {
    let (outside, source) = (temp_dir(), temp_dir());
    std::fs::write(source.path().join("file"), "bound").unwrap();
    std::fs::write(outside.path().join("file"), "host").unwrap();
    let c = Container::new(|config| {
        let file = source.path().join("file");
        add_mount(config, bind(&file, "/link", &["bind"]));
        add_mount(config, bind(&file, "/up", &["bind"]));
        let there = format!("read {}", outside.path().join("file").display());
        args(config, &["each", "read /link", &there, "read /target"]);
    });
    let rootfs = c.bundle.rootfs();
    std::os::unix::fs::symlink(outside.path().join("file"), rootfs.join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../target", rootfs.join("up")).unwrap();
    assert_eq!(c.lines(), ["bound", "bound", "bound"]);
    assert_eq!(std::fs::read_to_string(outside.path().join("file")).unwrap(), "host");
}

#[test]
fn without_a_cgroup_namespace_all_cgroups_are_seen() {
    for (options, answer) in [(["nosuid", "ro"], "EROFS"), (["nosuid", "rw"], "ok")] {
        let c = Container::new(|config| {
            crate::support::drop_namespace(config, "cgroup");
            let mounts = config["mounts"].as_array_mut().unwrap();
            let cgroup = mounts.iter_mut().find(|m| m["type"] == "cgroup").unwrap();
            cgroup["options"] = json!(options);
        });
        // where /proc/self/cgroup says
        let path = c.cgroup();
        let path = path.strip_prefix(crate::support::cgroup2_mount()).unwrap();
        let own = Path::new("/sys/fs/cgroup").join(path);
        let read = format!("read {}/cgroup.procs", own.display());
        let make = format!("mkdir {}/x", own.display());
        c.bundle.edit(|config| args(config, &["each", &read, &make]));
        assert_eq!(c.lines(), ["1", answer]);
        c.delete_by_force();
        c.assert_gone();
    }
}

#[test]
fn in_a_joined_cgroup_namespace_the_mount_is_its_root() {
    let first = Container::new(|c| args(c, &["wait"]));
    let _output = first.started();
    let path = format!("/proc/{}/ns/cgroup", first.pid());
    let report = Container::new(|c| crate::support::namespace_path(c, "cgroup", &path)).json();
    let mount = at(&report, "/sys/fs/cgroup");
    assert_eq!((&mount["fstype"], &mount["root"]), (&json!("cgroup2"), &json!("/")), "{mount}");
    let lines = Container::new(|config| {
        crate::support::namespace_path(config, "cgroup", &path);
        // the process of the first one, seen from another pid namespace
        args(config, &["read", "/sys/fs/cgroup/cgroup.procs"]);
    })
    .lines();
    assert_eq!(lines, ["0"]);
}

#[test]
fn each_devpts_has_terminals_of_its_own() {
    let lines = Container::new(|config| {
        let options = ["newinstance", "ptmxmode=0600", "mode=0600", "gid=7", "max=1"];
        let mount = json!({"destination": "/pts", "type": "devpts", "options": options});
        add_mount(config, mount);
        args(config, &["each", "list /pts", "stat /pts/ptmx", "list /dev/pts"]);
    })
    .lines();
    assert_eq!((&*lines[0], &*lines[2]), (r#"["ptmx"]"#, r#"["ptmx"]"#));
    assert!(lines[1].contains(r#""mode":384"#), "{}", lines[1]);
}
