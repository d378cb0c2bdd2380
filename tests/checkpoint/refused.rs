//! What can't be saved or restored, and what is said of it.

use serde_json::json;

use crate::Counter;
use crate::support::{Container, Tare, args, drop_namespace, temp_dir};

#[test]
fn without_criu_the_package_is_named() {
    let c = Counter::new(&["count"], |_| {});
    let nothing = temp_dir();
    let path = nothing.path().to_str().unwrap();
    let images = c.images();
    let flags = ["--image-path", images.to_str().unwrap()];
    let checkpoint = c.on_id("checkpoint", &flags, &[]).env("PATH", path).run();
    checkpoint.fails_with(&[&c.id, "no criu in PATH", "install the package criu"]);
    assert!(!images.exists());
    assert_eq!(c.status(), "running");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("inventory.img"), "").unwrap();
    let other = Container::new(|_| {});
    let restore = other.on_bundle("restore", &flags).env("PATH", path).run();
    restore.fails_with(&[&other.id, "no criu in PATH", "install the package criu"]);
    other.assert_gone();
}

#[test]
fn images_that_are_not_there_are_named() {
    let c = Container::new(|_| {});
    let empty = temp_dir();
    for path in [empty.path().to_owned(), empty.path().join("nowhere")] {
        let path = path.to_str().unwrap();
        let restore = c.on_bundle("restore", &["--image-path", path]).run();
        restore.fails_with(&["--image-path", path, "inventory.img is missing"]);
        c.assert_gone();
    }
}

#[test]
fn only_what_runs_can_be_saved() {
    let c = Container::new(|config| args(config, &["wait"]));
    let images = c.bundle.path().join("images");
    let flags = ["--image-path", images.to_str().unwrap()];
    let checkpoint = || c.on_id("checkpoint", &flags, &[]).run();
    checkpoint().fails_with(&["does not exist"]);
    let mut output = c.create();
    checkpoint().fails_with(&["created"]);
    c.start().ok();
    output.expect("READY");
    c.kill("KILL").ok();
    c.ended(&mut output);
    checkpoint().fails_with(&["container not running"]);
    assert!(!images.exists());
}

#[test]
fn options_are_checked_before_criu_is_called() {
    let c = Counter::new(&["count"], |_| {});
    for (flags, texts) in [
        (&["--parent-path", "/abs"][..], &["--parent-path /abs", "relative"][..]),
        (&["--page-server", "here"], &["--page-server", "ADDRESS:PORT"]),
        (&["--status-fd", "77"], &["--status-fd 77", "not open"]),
        (&["--status-fd", "1"], &["--status-fd", "--lazy-pages"]),
        (&["--lazy-pages"], &["--lazy-pages", "--page-server"]),
        (
            &["--lazy-pages", "--page-server", "127.0.0.1:1", "--pre-dump"],
            &["--lazy-pages", "pre-dump"],
        ),
        (&["--empty-ns", "ipc"], &["--empty-ns ipc", "network only"]),
    ] {
        c.checkpoint(flags).fails_with(texts);
    }
    assert!(!c.images().exists());
}

#[test]
fn what_can_not_come_back_is_refused() {
    let c = Container::new(|config| {
        args(config, &["count"]);
        drop_namespace(config, "mount");
        let linux = config["linux"].as_object_mut().unwrap();
        linux.insert("maskedPaths".into(), json!([]));
        linux.insert("readonlyPaths".into(), json!([]));
        config["mounts"] = json!([]);
    });
    let c = Counter::started(c);
    c.checkpoint(&[]).fails_with(&["linux.namespaces", "mount namespace"]);
}

#[test]
fn an_ordinary_user_is_told_so() {
    let tare = Tare::of_user();
    let c = Container::under(&tare, |_| {});
    c.bundle.give_to(crate::support::USER);
    c.on_bundle("restore", &[]).run().fails_with(&["criu needs the machine's root"]);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn an_id_in_use_and_a_broken_image_leave_nothing() {
    let mut c = Counter::new(&["count"], |_| {});
    c.checkpoint(&["--parent-path", "../none"]).fails_with(&["--parent-path ../none"]);
    assert!(!c.images().exists());
    c.checkpoint(&["--leave-running"]).ok();
    let images = c.images();
    let flags = ["--detach", "--image-path", images.to_str().unwrap()];
    c.on_bundle("restore", &flags).run().fails_with(&["container with given ID already exists"]);
    c.counts();
    let other = Container::new(|config| args(config, &["count"]));
    let core = std::fs::read_dir(&images).unwrap().map(Result::unwrap);
    let core = core.map(|f| f.path()).find(|p| p.to_str().unwrap().contains("core-")).unwrap();
    std::fs::write(core, "nothing").unwrap();
    let log = images.join("restore.log");
    let restore = other.on_bundle("restore", &flags).run();
    restore.fails_with(&["criu: ", log.to_str().unwrap()]);
    assert!(log.is_file());
    other.assert_gone();
}

/// What CRIU would pass over in silence.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn labels_that_nobody_would_look_at_are_refused() {
    let c = Counter::new(&["count"], |_| {});
    c.checkpoint(&["--leave-running"]).ok();
    let images = c.images();
    let other = Container::new(|config| args(config, &["count"]));
    let has =
        |path: &str, text: &str| std::fs::read_to_string(path).is_ok_and(|all| all.contains(text));
    let selinux = has("/proc/filesystems", "selinuxfs");
    let apparmor = has("/sys/module/apparmor/parameters/enabled", "Y");
    for (flags, is_there, texts) in [
        (["--lsm-profile", "nothing"], false, ["--lsm-profile nothing", "apparmor:NAME"]),
        (["--lsm-profile", "selinux:a"], selinux, ["selinux:a", "SELinux is not enabled"]),
        (["--lsm-profile", "apparmor:a"], apparmor, ["apparmor:a", "AppArmor is not enabled"]),
        (["--lsm-mount-context", "a"], selinux, ["--lsm-mount-context a", "SELinux is not"]),
    ] {
        let words = [&["--detach", "--image-path", images.to_str().unwrap()], &flags[..]].concat();
        let restore = other.on_bundle("restore", &words).run();
        if is_there {
            // there is no label to be replaced
            restore.ok();
            other.delete_by_force().ok();
        } else {
            restore.fails_with(&texts);
        }
        other.assert_gone();
    }
}
