//! AppArmor and SELinux: refused where the kernel has them not, and what they
//! say where it has.

use serde_json::json;

use crate::support::{Container, args};

fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.trim() == "Y")
}

fn has_selinux() -> bool {
    std::fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs")
}

#[test]
fn a_profile_that_can_not_be_had_is_refused() {
    let c = Container::new(|c| c["process"]["apparmorProfile"] = json!("no-such-profile"));
    if has_apparmor() {
        c.assert_refused(&["process.apparmorProfile", "no-such-profile", "is loaded"]);
    } else {
        c.assert_refused(&["process.apparmorProfile", "not enabled in this kernel"]);
    }
}

#[test]
fn no_profile_and_unconfined_are_the_same() {
    for profile in ["", "unconfined"] {
        let c = Container::new(|config| {
            config["process"]["apparmorProfile"] = json!(profile);
            args(config, &["read", "/proc/self/attr/current"]);
        });
        let output = c.run();
        if has_apparmor() {
            assert_eq!(output.ok().stdout.trim_end(), "unconfined", "{profile:?}");
        } else {
            // no module answers there
            assert_eq!(output.stdout.trim_end(), "EINVAL", "{profile:?}: {output:?}");
        }
    }
}

#[test]
fn a_label_that_can_not_be_had_is_refused() {
    let process = Container::new(|c| c["process"]["selinuxLabel"] = json!("no:such:label:s0"));
    let mount = Container::new(|c| c["linux"]["mountLabel"] = json!("no:such:label:s0"));
    if has_selinux() {
        process.assert_refused(&["process.selinuxLabel", "no:such:label:s0"]);
        mount.assert_refused(&["context", "no:such:label:s0"]);
    } else {
        process.assert_refused(&["process.selinuxLabel", "SELinux is not enabled"]);
        mount.assert_refused(&["linux.mountLabel", "SELinux is not enabled"]);
    }
}

#[test]
fn empty_labels_are_nothing() {
    let c = Container::new(|config| {
        config["process"]["selinuxLabel"] = json!("");
        config["linux"]["mountLabel"] = json!("");
        args(config, &["say", "runs"]);
    });
    assert_eq!(c.lines(), ["runs"]);
}
