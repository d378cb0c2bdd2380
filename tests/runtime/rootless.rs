//! Containers of an ordinary user, who has no capability at all.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::support::{
    Container, Tare, Terminal, USER, add_mount, args, cgroup2_mount, link_or_copy, namespace_of,
    namespace_path, temp_dir,
};

/// A container of this user's in which he is root, and nobody else is.
fn of(tare: &Tare, edit: impl FnOnce(&mut Value)) -> Container {
    let c = Container::under(tare, |config| {
        for_user(config);
        edit(config);
    });
    c.bundle.give_to(USER);
    c
}

pub(crate) fn of_user(edit: impl FnOnce(&mut Value)) -> Container {
    of(&Tare::of_user(), edit)
}

pub(crate) fn for_user(config: &mut Value) {
    let linux = config["linux"].as_object_mut().unwrap();
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    linux.insert("uidMappings".into(), map.clone());
    linux.insert("gidMappings".into(), map);
    // the group that terminals belong to has no id in there
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

#[test]
fn an_ordinary_user_is_root_in_a_container() {
    let c = of_user(|_| {});
    let report = c.json();
    assert_eq!(report["uid_map"], json!([[0, USER, 1]]));
    assert_eq!(report["gid_map"], json!([[0, USER, 1]]));
    assert_eq!(report["uids"]["effective"], 0);
    assert_eq!(report["groups"], json!([]));
    assert_eq!(report["setgroups"], "deny");
    assert_eq!(report["pid"], 1);
    assert_eq!(report["hostname"], "probe");
    assert_eq!(report["dev"]["null"]["minor"], 3);
    let own = format!("user:[{}]", std::fs::metadata("/proc/self/ns/user").unwrap().ino());
    assert_ne!(report["namespaces"]["user"], json!(own));
    c.assert_gone();
}

#[test]
fn the_whole_lifecycle() {
    let c = of_user(|c| args(c, &["wait"]));
    let mut output = c.create();
    assert_eq!(c.status(), "created");
    c.start().ok();
    output.expect("READY");
    assert_eq!(c.state()["owner"], USER.to_string());
    let listed = c.tare.command(["list", "--quiet"]).run().ok();
    assert_eq!(listed.stdout.trim(), c.id);
    c.kill("USR1").ok();
    assert!(output.line().contains("USR1"));
    c.kill("KILL").ok();
    c.ended(&mut output);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn hooks_of_an_ordinary_user_are_run_by_that_user() {
    let dir = temp_dir();
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let file = dir.path().join("log");
    let kinds =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let c = of_user(|config| {
        args(config, &["exit", "0"]);
        let log = json!({"destination": dir.path(), "source": dir.path(), "type": "bind",
            "options": ["bind"]});
        add_mount(config, log);
        for kind in kinds {
            // startContainer finds its program in the container
            let probe =
                if kind == "startContainer" { "/probe".into() } else { dir.path().join("probe") };
            config["hooks"][kind] = json!([{"path": probe, "args": ["probe", "hook", file, kind]}]);
        }
    });
    link_or_copy(crate::support::probe(), &dir.path().join("probe"));
    c.run().ok();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|l| l["hook"].as_str().unwrap()).collect();
    assert_eq!(names, kinds);
    for line in &lines {
        let is_inside =
            ["createContainer", "startContainer"].contains(&line["hook"].as_str().unwrap());
        let uid = if is_inside { 0 } else { USER };
        assert_eq!(line["seen"]["uids"]["effective"], uid, "{}", line["hook"]);
        assert_eq!(line["seen"]["fds"].as_object().unwrap().len(), 3, "{}", line["hook"]);
    }
    c.assert_gone();
}

#[test]
fn without_a_cgroup_a_signal_still_reaches_all() {
    let c = of_user(|c| args(c, &["children", "2"]));
    let mut output = c.create();
    c.start().ok();
    assert_eq!(output.line(), r#"{"children":[2,3]}"#);
    output.expect("READY");
    assert!(!c.cgroup().try_exists().unwrap());
    c.on_id("kill", &["--all"], &["USR1"]).run().ok();
    let init = c.pid();
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    assert_eq!(children.split_whitespace().count(), 2, "{children}");
    for pid in children.split_whitespace() {
        // they have every signal blocked: it waits for them
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:\t")).unwrap();
        let pending = u64::from_str_radix(pending, 16).unwrap();
        assert_eq!(pending & (1 << (nix::libc::SIGUSR1 - 1)), 1 << (nix::libc::SIGUSR1 - 1));
    }
    c.on_id("kill", &["--all"], &["KILL"]).run().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn files_of_the_containers_root_are_the_users() {
    let c = of_user(|c| args(c, &["each", "create /made x", "open /dev/null rw"]));
    assert_eq!(c.lines(), ["ok", "ok"]);
    let found = std::fs::metadata(c.bundle.rootfs().join("made")).unwrap();
    assert_eq!((found.uid(), found.gid()), (USER, USER));
}

#[test]
fn spec_writes_a_config_that_runs() {
    let c = of_user(|_| {});
    std::fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    let bundle = c.bundle.path().to_str().unwrap();
    c.tare.bare(["spec", "--rootless", "--bundle", bundle]).run().ok();
    c.bundle.edit(|config| {
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        let words = ["each", "list /sys", "create /sys/kernel/made x", "mkdir /sys/fs/cgroup/made"];
        args(config, &words);
    });
    let lines = c.lines();
    assert!(lines[0].contains("kernel"), "{lines:?}");
    assert_eq!(lines[1..], ["EROFS", "EROFS"]);
    // the network is the host's
    c.bundle.edit(|config| args(config, &["report"]));
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(c.json()["namespaces"]["net"], json!(own.to_str().unwrap()));
}

#[test]
fn a_sysfs_that_is_not_to_be_had_is_the_hosts_read_only() {
    let c = of_user(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "network");
        // without ro
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "sysfs" {
                mount["options"] = json!(["nosuid"]);
            }
        }
        args(config, &["each", "create /sys/kernel/made x", "list /sys/firmware"]);
    });
    assert_eq!(c.lines(), ["EROFS", "[]"]);
}

#[test]
fn a_container_without_a_user_namespace_is_refused() {
    let c = of_user(|config| {
        let linux = config["linux"].as_object_mut().unwrap();
        linux["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    c.assert_refused(&["linux.namespaces", "needs a user namespace", "tare spec --rootless"]);
}

#[test]
fn groups_that_the_kernel_denies_are_refused() {
    of_user(|config| config["process"]["user"]["additionalGids"] = json!([0]))
        .assert_refused(&["process.user.additionalGids", "setgroups"]);
}

#[test]
fn ids_that_the_maps_lack_are_refused() {
    for (user, field) in [
        (json!({"uid": 7, "gid": 0}), "process.user.uid: 7"),
        (json!({"uid": 0, "gid": 7}), "process.user.gid: 7"),
        (json!({"uid": 0, "gid": 0, "additionalGids": [9]}), "process.user.additionalGids: 9"),
    ] {
        of_user(|config| config["process"]["user"] = user).assert_refused(&[field, "Mappings"]);
    }
    of_user(|config| {
        let mount = json!({"destination": "/t", "type": "tmpfs", "options": ["gid=5"]});
        add_mount(config, mount);
    })
    .assert_refused(&["mount /t (tmpfs)", "gid=5", "linux.gidMappings"]);
}

#[test]
fn limits_need_a_delegated_cgroup_and_the_error_says_how_to_get_one() {
    of_user(|config| config["linux"]["resources"]["pids"] = json!({"limit": 9})).assert_refused(&[
        "linux.resources.pids.limit",
        "no cgroup is delegated to this user",
        "Delegate=yes",
    ]);
    // those that are none hold without one
    let none = json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}});
    let c = of_user(|config| {
        let all = config["linux"]["resources"].as_object_mut().unwrap();
        all.extend(none.as_object().unwrap().clone());
        args(config, &["exit", "0"]);
    });
    c.run().ok();
    // the word for those who want to know of it at once
    let tare = Tare::of_user().with(&["--rootless=false"]);
    of(&tare, |_| {}).assert_refused(&["cgroup", cgroup2_mount().to_str().unwrap()]);
    Tare::of_user().bare(["--rootless=perhaps", "list"]).run().fails_with(&["--rootless=perhaps"]);
}

#[test]
fn without_a_cgroup_nothing_is_paused_or_limited_and_ps_still_works() {
    let c = of_user(|config| args(config, &["children", "2"]));
    let _output = c.started();
    assert!(!c.cgroup().try_exists().unwrap());
    c.on_id("pause", &[], &[]).run().fails_with(&["no cgroup of its own"]);
    c.on_id("update", &["--pids-limit", "5"], &[])
        .run()
        .fails_with(&["linux.resources.pids.limit", "no cgroup of its own"]);
    let pids = c.on_id("ps", &["--format", "json"], &[]).run().ok().json();
    assert_eq!(pids.as_array().unwrap().len(), 3);
    assert!(pids.as_array().unwrap().contains(&json!(c.pid())));
    assert_eq!(c.status(), "running");
}

#[test]
fn without_pid_namespace_and_cgroup_nothing_would_hold_the_processes() {
    of_user(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
    })
    .assert_refused(&["pid namespace", "cgroup"]);
}

#[test]
fn the_state_is_in_the_users_runtime_directory() {
    let c = of_user(|c| args(c, &["exit", "0"]));
    let bundle = c.bundle.path().to_str().unwrap();
    c.tare.bare(["run", "--keep", "--bundle", bundle, &c.id]).run().ok();
    let root = c.tare.home().join("run/tare");
    let found = std::fs::metadata(&root).unwrap();
    assert_eq!((found.uid(), found.permissions().mode() & 0o7777), (USER, 0o1700));
    assert!(root.join(&c.id).is_dir());
    c.tare.bare(["delete", &c.id]).run().ok();
    let output = c.tare.bare(["list"]).env("XDG_RUNTIME_DIR", "").run();
    output.fails_with(&["XDG_RUNTIME_DIR", "--root"]);
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    let c = of_user(|_| {});
    let theirs = temp_dir();
    let bundle = c.bundle.path().to_str().unwrap();
    let root = theirs.path().to_str().unwrap();
    let run = |root: &str| c.tare.bare(["--root", root, "run", "--bundle", bundle, &c.id]).run();
    run(root).fails_with(&[root, "belongs to uid 0"]);
    std::os::unix::fs::chown(theirs.path(), Some(USER), Some(USER)).unwrap();
    std::fs::set_permissions(theirs.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    run(root).fails_with(&[root, "others may write to it"]);
}

#[test]
fn a_device_that_the_host_lacks_is_named() {
    of_user(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/nonesuch", "type": "c", "major": 1, "minor": 3}]);
    })
    .assert_refused(&["device /dev/nonesuch"]);
    let report = of_user(|config| {
        config["linux"]["devices"] = json!([{"path": "/dev/queue", "type": "p"}]);
    })
    .json();
    assert_eq!(report["dev"]["queue"]["type"], "p");
}

#[test]
fn what_a_mount_of_the_host_has_locked_stays() {
    let source = temp_dir();
    std::fs::set_permissions(source.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = source.path().to_str().unwrap().to_owned();
    let on = path.clone();
    let prepare = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        let flags =
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        Ok(mount(Some("none"), on.as_str(), Some("tmpfs"), flags, none)?)
    };
    // SAFETY: three system calls.
    let tare = unsafe { Tare::of_user_after(Some(Box::new(prepare))) };
    let report = of(&tare, |config| {
        let options = ["rbind", "rw", "suid", "dev", "exec", "strictatime", "nosymfollow"];
        add_mount(config, json!({"destination": "/data", "source": path, "options": options}));
    })
    .json();
    let mounts = report["mounts"].as_array().unwrap();
    let data = mounts.iter().find(|m| m["target"] == "/data").unwrap();
    let options = data["options"].as_array().unwrap();
    for option in ["nosuid", "nodev", "noexec", "noatime", "nosymfollow"] {
        assert!(options.contains(&json!(option)), "no {option} in {options:?}");
    }
}

#[test]
fn a_proc_with_something_over_it_is_explained() {
    let prepare = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        // as maskedPaths of a container around this one do
        Ok(mount(Some("none"), "/proc/irq", Some("tmpfs"), MsFlags::empty(), none)?)
    };
    // SAFETY: three system calls.
    let tare = unsafe { Tare::of_user_after(Some(Box::new(prepare))) };
    of(&tare, |_| {}).assert_refused(&["mount /proc (proc)", "maskedPaths"]);
}

#[test]
fn a_message_queue_file_system_needs_its_namespace() {
    of_user(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "ipc");
    })
    .assert_refused(&["mount /dev/mqueue (mqueue)", "ipc namespace"]);
}

#[test]
fn a_binary_that_is_the_users_own_runs_from_a_copy() {
    let tare = Tare::of_user();
    let own = tare.home().join("own");
    std::fs::create_dir(&own).unwrap();
    let own = own.join("tare");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg(tare.home().join("tare")).arg(&own).status().unwrap().success());
    std::os::unix::fs::chown(&own, Some(USER), Some(USER)).unwrap();
    let c = of(&tare.at(&own), |c| args(c, &["wait"]));
    let _output = c.create();
    let exe = std::fs::read_link(format!("/proc/{}/exe", c.pid())).unwrap();
    assert!(exe.to_str().unwrap().starts_with("/memfd:tare"), "{exe:?}");
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn a_terminal_of_an_ordinary_user() {
    let c = of_user(|config| {
        config["process"]["terminal"] = json!(true);
        args(config, &["stat", "/dev/console"]);
    });
    let mut terminal = Terminal::new(24, 80);
    terminal.attach(c.on_bundle("run", &[])).run().ok();
    let line = terminal.output.line();
    assert!(line.contains("\"type\":\"c\""), "{line}");
}

#[test]
fn maps_without_root_are_refused() {
    of_user(|config| {
        let map = json!([{"containerID": 5, "hostID": USER, "size": 1}]);
        config["linux"]["uidMappings"] = map;
    })
    .assert_refused(&["linux.uidMappings", "id 0"]);
}

#[test]
fn an_ordinary_user_joins_the_namespaces_of_his_containers() {
    let tare = Tare::of_user();
    let first = of(&tare, |c| args(c, &["wait"]));
    let _output = first.started();
    let pid = first.pid();
    let second = of(&tare, |config| {
        for (word, kind) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            namespace_path(config, word, &format!("/proc/{pid}/ns/{kind}"));
        }
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        config.as_object_mut().unwrap().remove("hostname");
    });
    let report = second.json();
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(report["namespaces"][kind], namespace_of(pid, kind), "{kind}");
    }
    assert_eq!(report["uid_map"], json!([[0, USER, 1]]));
    assert_eq!(report["hostname"], "probe");
}

/// Makes the process root of a user namespace, as an engine of a user's does
/// before it starts a runtime.
fn become_root_of_a_namespace() -> std::io::Result<()> {
    // the change of user before has closed /proc/self
    nix::sys::prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let map = format!("0 {USER} 1");
    for (file, text) in [("setgroups", "deny"), ("uid_map", &map), ("gid_map", &map)] {
        std::fs::write(format!("/proc/self/{file}"), text)?;
    }
    Ok(())
}

#[test]
fn root_of_a_user_namespace_needs_no_second_one() {
    let c = of_user(|config| {
        let linux = config["linux"].as_object_mut().unwrap();
        linux["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    let run = || {
        // SAFETY: system calls on short texts, in a child of few threads.
        unsafe { c.on_bundle("run", &[]).before_exec(become_root_of_a_namespace) }.run()
    };
    let report = run().ok().json();
    assert_eq!(report["uid_map"], json!([[0, USER, 1]]));
    assert_eq!(report["dev"]["null"]["minor"], 3);
    c.assert_gone();
    c.bundle.edit(|config| config["process"]["user"]["uid"] = json!(7));
    run().fails_with(&["process.user.uid: 7", "/etc/subuid"]);
    let groups = json!({"uid": 0, "gid": 0, "additionalGids": [0]});
    c.bundle.edit(|config| config["process"]["user"] = groups);
    run().fails_with(&["process.user.additionalGids", "setgroups"]);
    c.assert_gone();
}

#[test]
fn the_clocks_of_an_ordinary_users_container_can_be_shifted() {
    let c = of_user(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000}});
        args(config, &["read", "/proc/self/timens_offsets"]);
    });
    let lines = c.lines();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["monotonic", "1000", "0"]);
}

#[test]
fn a_filter_needs_no_root() {
    for no_new_privileges in [true, false] {
        let c = of_user(|config| {
            let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
            config["linux"]["seccomp"] =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            args(config, &["each", "mkdir /tmp", "read /proc/self/status"]);
        });
        let lines = c.lines();
        assert_eq!(lines[0], "EPERM");
        assert!(lines.contains(&"Seccomp:\t2".to_owned()), "{lines:?}");
    }
}

#[test]
fn a_lower_oom_score_needs_root() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let own: i32 = own.trim().parse().unwrap();
    // what is so already is no reason to fail
    of_user(|config| config["process"]["oomScoreAdj"] = json!(own)).run().ok();
    let report = of_user(|config| config["process"]["oomScoreAdj"] = json!(own + 100)).json();
    assert_eq!(report["oom_score_adj"], own + 100);
    of_user(|config| config["process"]["oomScoreAdj"] = json!(-1000))
        .assert_refused(&["process.oomScoreAdj", "CAP_SYS_RESOURCE"]);
}

#[test]
fn a_higher_rlimit_needs_root() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    if hard == nix::libc::RLIM_INFINITY {
        println!("skipped: there is no limit to go beyond");
        return;
    }
    let limit = |hard: u64| json!([{"type": "RLIMIT_NPROC", "soft": 100, "hard": hard}]);
    of_user(|config| config["process"]["rlimits"] = limit(hard)).run().ok();
    of_user(|config| config["process"]["rlimits"] = limit(hard + 1))
        .assert_refused(&["process.rlimits", "CAP_SYS_RESOURCE"]);
}

/// A user with these lines in /etc/subuid and /etc/subgid, and a name: the
/// host's files stay as they are.
fn user_with_ids(lines: &str) -> Option<Tare> {
    for need in ["/usr/bin/newuidmap", "/usr/bin/newgidmap", "/etc/subuid", "/etc/subgid"] {
        if !std::path::Path::new(need).is_file() {
            println!("skipped: there is no {need}");
            return None;
        }
    }
    let files = temp_dir();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = format!("taretest:x:{USER}:{USER}::/:/bin/false\n");
    let ids = write("ids", lines);
    let passwd = write("passwd", &(passwd + &user));
    let prepare = move || {
        let _keep = &files;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        for (from, to) in [(&ids, "/etc/subuid"), (&ids, "/etc/subgid"), (&passwd, "/etc/passwd")] {
            mount(Some(from), to, none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    };
    // SAFETY: system calls; the paths are short, and nix needs no memory for them.
    Some(unsafe { Tare::of_user_after(Some(Box::new(prepare))) })
}

fn map_more(config: &mut Value, first: u32, size: u32) {
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": first, "size": size},
    ]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

#[test]
fn ranges_of_etc_subuid_are_mapped() {
    let Some(tare) = user_with_ids("taretest:1912000:1000\n") else { return };
    let report = of(&tare, |config| {
        map_more(config, 1_912_000, 1000);
        config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
    })
    .json();
    assert_eq!(report["uid_map"], json!([[0, USER, 1], [1, 1_912_000, 1000]]));
    assert_eq!(report["uids"]["effective"], 5);
    assert_eq!(report["gids"]["effective"], 6);
    assert_eq!(report["groups"], json!([7]));
    assert_eq!(report["setgroups"], "allow");
}

#[test]
fn ranges_that_are_not_the_users_are_refused_with_those_that_are() {
    let Some(tare) = user_with_ids("taretest:1912000:1000\n") else { return };
    of(&tare, |config| map_more(config, 1_920_000, 1000)).assert_refused(&[
        "linux.uidMappings",
        "newuidmap ended with code 1",
        "/etc/subuid",
        "1912000:1000",
    ]);
}
