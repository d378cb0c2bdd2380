//! Mounts below mounts: what binds take along, recursive options, propagation.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::mounts::{at, bind, has};
use crate::support::{Container, Invocation, Output, add_mount, args, temp_dir, wait_gone};

/// A directory with a tmpfs mounted at `sub`, in a mount namespace that only
/// the command has: the host's mounts stay as they are.
fn with_submount(c: &Container, dir: &Path, is_shared: bool) -> Value {
    run_with_submount(c, dir, is_shared).json()
}

/// What the program of a container prints line by line, if its `dir` is one with
/// a mount below.
pub(crate) fn lines_with_submount(c: &Container, dir: &Path) -> Vec<String> {
    run_with_submount(c, dir, false).stdout.lines().map(str::to_owned).collect()
}

fn run_with_submount(c: &Container, dir: &Path, is_shared: bool) -> Output {
    command_with_submount(c, dir, is_shared).run().ok()
}

fn command_with_submount(c: &Container, dir: &Path, is_shared: bool) -> Invocation {
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
    unsafe { c.on_bundle("run", &[]).before_exec(action) }
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

/// What an engine asks for where a program mounts things for others (Kubernetes:
/// Bidirectional).
#[test]
fn a_mount_in_a_shared_bind_reaches_the_host() {
    for propagation in ["rshared", "shared"] {
        let outside = temp_dir();
        let c = Container::new(|config| {
            let all = json!(["CAP_SYS_ADMIN"]);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = all.clone();
            }
            config["linux"]["rootfsPropagation"] = json!(propagation);
            add_mount(config, bind(outside.path(), "/b", &["rbind", "rshared"]));
            args(config, &["each", "mount-tmpfs /b/sub", "mount-tmpfs /tmp", "wait"]);
        });
        let running = command_with_submount(&c, outside.path(), true).spawn();
        let table =
            || std::fs::read_to_string(format!("/proc/{}/mountinfo", running.pid())).unwrap();
        let sub = outside.path().join("sub");
        let count = |path: &Path| {
            let field = format!(" {} ", path.display());
            table().lines().filter(|line| line.contains(&field)).count()
        };
        // the one that was there, and the container's over it
        wait_gone("the host without the mount", || count(&sub) == 2);
        // all else is the container's own affair
        assert!(!table().contains(c.bundle.path().to_str().unwrap()), "{}", table());
        c.kill("KILL").ok();
        running.wait().ends_with_code(137);
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
fn recursive_options_reach_the_mounts_below() {
    // what is asked for, what the mount itself has to show, what the one below
    let table: [(&[&str], &[&str], &[&str]); 10] = [
        (&["rro"], &["ro"], &["ro"]),
        (&["ro"], &["ro"], &["rw"]),
        (&["rnosuid", "rnodev", "rnoexec"], &["nosuid", "nodev"], &["nosuid", "nodev", "noexec"]),
        (&["nosuid"], &["nosuid"], &["relatime"]),
        (&["rnoatime"], &["noatime"], &["noatime"]),
        (&["rnoatime", "rrelatime"], &["relatime"], &["relatime"]),
        (&["rnodiratime"], &["nodiratime"], &["nodiratime"]),
        (&["rnosymfollow"], &["nosymfollow"], &["nosymfollow"]),
        (&["rro", "rrw"], &["rw"], &["rw"]),
        (&["ro", "rrw"], &["rw"], &["rw"]),
    ];
    for (options, own, below) in table {
        let outside = temp_dir();
        let all: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
        let c = Container::new(|c| add_mount(c, bind(outside.path(), "/b", &all)));
        let report = with_submount(&c, outside.path(), false);
        for (target, seen) in [("/b", own), ("/b/sub", below)] {
            let mount = at(&report, target);
            for option in seen {
                assert!(has(mount, "options", option), "{options:?}: no {option} in {mount}");
            }
        }
    }
    let outside = temp_dir();
    let c = Container::new(|c| add_mount(c, bind(outside.path(), "/b", &["rbind", "nosuid"])));
    let report = with_submount(&c, outside.path(), false);
    assert!(!has(at(&report, "/b/sub"), "options", "nosuid"), "nosuid is not rnosuid");
}

#[test]
fn strict_access_times_reach_the_mounts_below() {
    let outside = temp_dir();
    let options = ["rbind", "rstrictatime"];
    let c = Container::new(|c| add_mount(c, bind(outside.path(), "/b", &options)));
    let report = with_submount(&c, outside.path(), false);
    for target in ["/b", "/b/sub"] {
        for option in ["relatime", "noatime"] {
            assert!(!has(at(&report, target), "options", option), "{target}: {option}");
        }
    }
}

#[test]
fn the_root_has_the_configs_propagation() {
    for (word, tag) in [
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
    ] {
        let report = Container::new(|c| c["linux"]["rootfsPropagation"] = json!(word)).json();
        let tags = at(&report, "/")["propagation"].as_array().unwrap().clone();
        match tag {
            "" => assert!(tags.is_empty(), "{word}: {tags:?}"),
            _ => assert!(tags.iter().any(|t| t.as_str().unwrap().starts_with(tag)), "{word}"),
        }
        let below = at(&report, "/dev")["propagation"].as_array().unwrap().clone();
        let spreads = word.starts_with('r') && !tag.is_empty();
        assert_eq!(spreads, !below.is_empty(), "{word}: {below:?} on /dev");
    }
    Container::new(|c| c["linux"]["rootfsPropagation"] = json!("rslaves"))
        .assert_refused(&["linux.rootfsPropagation", "rslaves"]);
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
