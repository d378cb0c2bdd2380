//! `features`: what callers look for, and that it is true.

use serde_json::{Value, json};

use crate::support::{Container, Tare, add_mount, args, temp_dir};

fn features() -> Value {
    Tare::new().command(["features"]).run().ok().json()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_versions_are_taken_in_a_config() {
    let features = features();
    for name in ["ociVersionMin", "ociVersionMax"] {
        let c = Container::new(|config| {
            config["ociVersion"] = features[name].clone();
            args(config, &["exit", "0"]);
        });
        c.run().ok();
    }
}

#[test]
fn every_mount_option_is_taken() {
    let options = words(&features()["mountOptions"]);
    for option in ["rro", "rbind", "nosuid", "rslave", "noatime"] {
        assert!(options.iter().any(|o| o == option), "{option} is not in {options:?}");
    }
    let dir = temp_dir();
    let c = Container::new(|config| {
        for (n, option) in options.iter().enumerate() {
            let mount = match option.as_str() {
                "bind" | "rbind" => json!({
                    "destination": format!("/m{n}"), "source": "/proc/version",
                    "options": [option],
                }),
                "idmap" | "ridmap" => json!({
                    "destination": format!("/m{n}"), "source": dir.path(),
                    "options": ["bind", option],
                    "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
                    "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
                }),
                "copy-symlink" | "src-nofollow" | "dest-nofollow" => json!({
                    "destination": format!("/m{n}"), "source": "/proc/version",
                    "options": ["bind", option],
                }),
                "remount" => json!({"destination": "/dev/shm", "options": [option]}),
                _ => json!({
                    "destination": format!("/m{n}"), "type": "tmpfs", "source": "tmpfs",
                    "options": [option],
                }),
            };
            add_mount(config, mount);
        }
        args(config, &["exit", "0"]);
    });
    c.run().ok();
}

#[test]
fn every_namespace_is_taken() {
    let features = features();
    let c = Container::new(|config| {
        let kinds = words(&features["linux"]["namespaces"]);
        let list: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        assert_eq!(list.len(), 8);
        config["linux"]["namespaces"] = json!(list);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        args(config, &["exit", "0"]);
    });
    c.bundle.give_rootfs_to(100_000);
    c.run().ok();
}

#[test]
fn what_is_said_to_be_there_works_and_the_rest_is_refused_by_name() {
    let linux = features()["linux"].clone();
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let dir = temp_dir();
    let asked = [
        (&linux["seccomp"], "linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        (&linux["mountExtensions"]["idmap"], "mounts[7].uidMappings", map),
        (&linux["netDevices"], "linux.netDevices", json!({})),
    ];
    for (feature, name, value) in asked {
        let c = Container::new(|config| {
            match name {
                "mounts[7].uidMappings" => add_mount(
                    config,
                    json!({
                        "destination": "/data", "source": dir.path(), "options": ["bind", "idmap"],
                        "uidMappings": value, "gidMappings": value,
                    }),
                ),
                _ => config["linux"][name.trim_start_matches("linux.")] = value,
            }
            args(config, &["exit", "0"]);
        });
        match feature["enabled"].as_bool().unwrap() {
            true => drop(c.run().ok()),
            false => c.assert_refused(&[name, "not supported"]),
        }
    }
}

#[test]
fn every_hook_runs() {
    let hooks = words(&features()["hooks"]);
    assert_eq!(hooks.len(), 6);
    for hook in hooks {
        // what can't be executed shows that it was tried
        let c = Container::new(|config| {
            args(config, &["exit", "0"]);
            config["hooks"][&hook] = json!([{"path": "/no/such/hook"}]);
        });
        let output = c.run();
        assert!(output.stderr.contains(&format!("hooks.{hook}[0]")), "{output:?}");
        assert_eq!(output.code, if hook == "poststop" { 0 } else { 1 }, "{hook}");
    }
}

#[test]
fn every_capability_is_known() {
    let all = words(&features()["linux"]["capabilities"]);
    assert_eq!(all.len(), 41);
    let c = Container::new(|config| {
        config["process"]["capabilities"] = json!({"bounding": all});
        args(config, &["exit", "0"]);
    });
    let output = c.run().ok();
    assert!(!output.stderr.contains("not known"), "{output:?}");
}

#[test]
fn every_word_of_seccomp_is_taken() {
    // which the probe has no use for
    const CALLS: [&str; 9] = [
        "vhangup",
        "acct",
        "swapon",
        "swapoff",
        "reboot",
        "iopl",
        "ioperm",
        "settimeofday",
        "sync",
    ];
    let seccomp = features()["linux"]["seccomp"].clone();
    let rule = |call: &str, action: &str, op: &str| {
        json!({"names": [call], "action": action, "args":
            [{"index": 0, "value": 7, "valueTwo": 7, "op": op}]})
    };
    let (eq, errno) = ("SCMP_CMP_EQ", "SCMP_ACT_ERRNO");
    let mut actions = words(&seccomp["actions"]);
    actions.retain(|action| action != "SCMP_ACT_NOTIFY");
    let operators = words(&seccomp["operators"]);
    assert_eq!((actions.len(), operators.len()), (8, 7));
    let by_action = actions.iter().zip(CALLS).map(|(action, call)| rule(call, action, eq));
    let by_operator = operators.iter().zip(CALLS).map(|(op, call)| rule(call, errno, op));
    for rules in [by_action.collect::<Vec<_>>(), by_operator.collect()] {
        let c = Container::new(|config| {
            args(config, &["exit", "0"]);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
                "architectures": seccomp["archs"], "flags": seccomp["supportedFlags"],
            });
        });
        assert_eq!(c.run().ok().stderr, "");
    }
    assert_eq!(seccomp["knownFlags"], seccomp["supportedFlags"]);
    // needs somebody who answers
    Container::new(|c| {
        let rules = [rule(CALLS[0], "SCMP_ACT_NOTIFY", eq)];
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    })
    .assert_refused(&["linux.seccomp.listenerPath"]);
}

#[test]
fn every_word_of_the_memory_policy_is_known() {
    let policy = features()["linux"]["memoryPolicy"].clone();
    let known = |policy: Value| {
        let c = Container::new(|config| {
            config["linux"]["memoryPolicy"] = policy;
            args(config, &["exit", "0"]);
        });
        let output = c.run();
        assert!(!output.stderr.contains("unknown variant"), "{output:?}");
    };
    for mode in words(&policy["modes"]) {
        known(json!({"mode": mode, "nodes": "0"}));
    }
    for flag in words(&policy["flags"]) {
        known(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}));
    }
}

#[test]
fn labels_and_shares_are_honoured_or_missing_in_the_kernel_but_never_unsupported() {
    let linux = features()["linux"].clone();
    for name in ["apparmor", "selinux", "intelRdt"] {
        assert_eq!(linux[name]["enabled"], true, "{name}");
    }
    let table = [
        ("process", "apparmorProfile", json!("no-such-profile")),
        ("process", "selinuxLabel", json!("u:r:no:s0")),
        ("linux", "mountLabel", json!("u:r:no:s0")),
        ("linux", "intelRdt", json!({"closID": "no-such", "enableMonitoring": true})),
        ("linux", "intelRdt", json!({"schemata": ["L3:0=f"]})),
    ];
    for (parent, field, value) in table {
        let c = Container::new(|config| {
            config[parent][field] = value;
            args(config, &["exit", "0"]);
        });
        let output = c.run();
        assert!(!output.stderr.contains("not supported"), "{output:?}");
        let names_it = output.stderr.contains(&format!("{parent}.{field}"));
        assert!(output.code == 0 || names_it, "{output:?}");
    }
}

#[test]
fn what_engines_read_is_there() {
    let features = features();
    let linux = &features["linux"];
    assert_eq!(linux["cgroup"]["v2"], true);
    assert_eq!(linux["cgroup"]["v1"], false);
    assert_eq!(linux["mountExtensions"]["idmap"]["enabled"], true);
    assert!(words(&linux["capabilities"]).contains(&"CAP_CHECKPOINT_RESTORE".to_owned()));
    assert!(words(&linux["memoryPolicy"]["modes"]).contains(&"MPOL_BIND".to_owned()));
    let version = Tare::new().bare(["--version"]).run().ok().stdout;
    let said = features["annotations"]["tare.version"].as_str().unwrap();
    assert!(version.contains(&format!("version {said}\n")), "{version}");
}
