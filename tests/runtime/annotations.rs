//! Annotations that change what the runtime does; the rest only passes through.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::support::{Container, Invocation, Tare, args, map_users, receive_fd};

/// With a group that the caller alone has.
fn in_a_group(command: Invocation) -> Invocation {
    // SAFETY: one system call.
    unsafe {
        command.before_exec(|| Ok(nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)])?))
    }
}

fn groups(annotation: Value, edit: impl FnOnce(&mut Value)) -> (Container, Value) {
    let c = Container::new(|config| {
        config["annotations"] = json!({"run.oci.keep_original_groups": annotation});
        edit(config);
    });
    c.bundle.give_rootfs_to(if c.bundle.config()["linux"]["uidMappings"].is_array() {
        100_000
    } else {
        0
    });
    let groups = in_a_group(c.on_bundle("run", &[])).run().ok().json()["groups"].clone();
    (c, groups)
}

#[test]
fn the_callers_groups_stay_if_an_annotation_says_so() {
    let more = |config: &mut Value| config["process"]["user"]["additionalGids"] = json!([5]);
    for annotation in [json!("1"), json!("")] {
        assert_eq!(groups(annotation.clone(), |_| {}).1, json!([4242]));
        assert_eq!(groups(annotation, more).1, json!([4242]));
    }
    assert_eq!(groups(json!("0"), more).1, json!([5]));
    // in a user namespace nobody has a name for them
    assert_eq!(groups(json!("1"), map_users).1, json!([65534]));
}

#[test]
fn who_asks_for_it_gets_a_pidfd_of_init() {
    let c = Container::new(|config| args(config, &["wait"]));
    let path = c.bundle.path().join("receiver");
    let listener = UnixListener::bind(&path).unwrap();
    c.bundle.edit(|config| {
        config["annotations"] = json!({"run.oci.pidfd_receiver": path});
    });
    let mut output = c.create();
    let pidfd = receive_fd(&listener);
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    let line = format!("Pid:\t{}", c.pid());
    assert!(info.lines().any(|l| l == line), "{info}");
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.delete().ok();
}

#[test]
fn without_a_receiver_of_the_pidfd_there_is_no_container() {
    Container::new(|config| {
        config["annotations"] = json!({"run.oci.pidfd_receiver": "/no/such/socket"});
    })
    .assert_refused(&["annotations.run.oci.pidfd_receiver: /no/such/socket: no such file"]);
}

#[test]
fn all_annotations_are_in_the_state() {
    let all = json!({
        "org.example.key": "value", "empty": "", "run.oci.unknown": "x",
        "run.oci.hooks.stdout": "/dev/null", "org.opencontainers.image.stopSignal": "SIGRTMIN+3",
    });
    let c = Container::new(|config| config["annotations"] = all.clone());
    let _output = c.create();
    assert_eq!(c.state()["annotations"], all);
}

#[test]
fn those_that_are_honoured_are_in_features_and_in_the_manual() {
    let features = Tare::new().command(["features"]).run().ok().json();
    let listed = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    let manual = include_str!("../../docs/annotations.md");
    for key in listed {
        let key = key.as_str().unwrap();
        assert!(manual.contains(&format!("`{key}")), "docs/annotations.md lacks {key}");
    }
    for key in ["keep_original_groups", "pidfd_receiver", "hooks.stdout", "seccomp.receiver"] {
        assert!(listed.contains(&json!(format!("run.oci.{key}"))), "{key}: {listed:?}");
    }
    // CRIU runs what its options name
    assert!(listed.contains(&json!("org.criu.config")), "{listed:?}");
}
