//! AppArmor and SELinux: refused where the kernel has them not, and what they
//! say where it has.

use serde_json::json;

use crate::support::{Container, Profile, args, has_apparmor, map_users};

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
fn a_profile_confines_the_program() {
    let rules = "file, capability, signal, deny /secret r,";
    let Some(profile) = Profile::load(rules) else { return };
    for (flags, mapped) in [(&[][..], false), (&["--init"], false), (&[], true)] {
        for no_new_privileges in [false, true] {
            let c = Container::new(|config| {
                if mapped {
                    map_users(config);
                }
                config["process"]["apparmorProfile"] = json!(profile.name);
                config["process"]["noNewPrivileges"] = json!(no_new_privileges);
                config["process"]["user"]["uid"] = json!(1000);
                args(config, &["each", "read /proc/self/attr/current", "open /secret r"]);
            });
            std::fs::write(c.bundle.rootfs().join("secret"), "x").unwrap();
            if mapped {
                c.bundle.give_rootfs_to(100_000);
            }
            let output = c.on_bundle("run", flags).run();
            let confined = format!("{} (enforce)", profile.name);
            let lines: Vec<&str> = output.stdout.lines().collect();
            assert_eq!(lines, [confined.as_str(), "EACCES"], "{output:#?}");
        }
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
