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
