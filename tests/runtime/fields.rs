//! Fields of config.json, one by one: what is wrong is refused by its path, what
//! the specification says means nothing is ignored.

use serde_json::{Value, json};

use crate::support::{Container, args};

/// See the head of the file.
const REFUSED: &str = include_str!("refused.txt");

/// Sets a field by its JSON pointer, made if it is not there; without a value it
/// is taken away.
pub(crate) fn set(config: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    if config.pointer(parent).is_none() {
        set(config, parent, Some(json!({})));
    }
    match (config.pointer_mut(parent).unwrap(), value) {
        (Value::Array(list), Some(value)) => {
            let at: usize = name.parse().unwrap();
            if at < list.len() { list[at] = value } else { list.push(value) }
        }
        (Value::Object(fields), Some(value)) => drop(fields.insert(name.to_owned(), value)),
        (Value::Object(fields), None) => drop(fields.remove(name).unwrap()),
        (other, _) => panic!("{pointer} in {other}"),
    }
}

/// The changes of a row's first line.
fn changes(row: &str) -> Vec<(&str, Option<Value>)> {
    row.split(" ; ")
        .map(|change| {
            let (pointer, value) = change.split_once(" = ").unwrap();
            (pointer, (value != "-").then(|| serde_json::from_str(value).unwrap()))
        })
        .collect()
}

#[test]
fn what_is_wrong_is_refused_in_one_line_that_names_it() {
    let lines: Vec<&str> =
        REFUSED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let (rows, rest) = lines.as_chunks::<2>();
    assert!(rows.len() > 160 && rest.is_empty(), "{} rows", rows.len());
    let c = Container::new(|_| {});
    let good = c.bundle.config();
    let bundle = c.bundle.path().to_str().unwrap();
    for [row, line] in rows {
        let mut config = good.clone();
        for (pointer, value) in changes(row) {
            set(&mut config, pointer, value);
        }
        c.bundle.write_config(&config.to_string());
        let output = c.on_bundle("create", &[]).run();
        assert_eq!(output.code, 1, "{row}: {output:#?}");
        let line = line.trim().replace("config.json: ", "BUNDLE/config.json: ");
        let wanted = format!("tare: create {}: {}\n", c.id, line.replace("BUNDLE", bundle));
        assert_eq!(output.stderr, wanted, "{row}");
    }
    c.assert_gone();
}

#[test]
fn properties_that_nobody_knows_are_ignored() {
    let unknown = json!({"a": [1, {"b": null}]});
    let c = Container::new(|config| {
        for parent in [
            "",
            "/process",
            "/process/user",
            "/process/capabilities",
            "/process/rlimits/0",
            "/root",
            "/mounts/0",
            "/hooks",
            "/linux",
            "/linux/namespaces/0",
            "/linux/resources",
            "/linux/resources/memory",
            "/linux/resources/devices/0",
        ] {
            set(config, &format!("{parent}/org.example.unknown"), Some(unknown.clone()));
        }
        config["freebsd"] = unknown.clone();
        config["process"]["user"]["username"] = json!("somebody");
        config["annotations"] = json!({"org.example.key": "", "run.oci.unknown": "x"});
        args(config, &["say", "here"]);
    });
    assert_eq!(c.lines(), ["here"]);
}

/// Fields that may be null.
const NULL: [&str; 31] = [
    "/hostname",
    "/domainname",
    "/hooks",
    "/annotations",
    "/vm",
    "/windows",
    "/solaris",
    "/zos",
    "/process/user",
    "/process/env",
    "/process/capabilities",
    "/process/rlimits",
    "/process/consoleSize",
    "/process/scheduler",
    "/process/ioPriority",
    "/process/execCPUAffinity",
    "/process/commandLine",
    "/linux/devices",
    "/linux/sysctl",
    "/linux/seccomp",
    "/linux/intelRdt",
    "/linux/memoryPolicy",
    "/linux/personality",
    "/linux/timeOffsets",
    "/linux/netDevices",
    "/linux/rootfsPropagation",
    "/linux/uidMappings",
    "/linux/maskedPaths",
    "/linux/resources",
    "/mounts/0/options",
    "/mounts/0/uidMappings",
];

#[test]
fn what_is_null_or_empty_is_not_there() {
    let c = Container::new(|config| {
        NULL.iter().for_each(|pointer| set(config, pointer, Some(Value::Null)));
        args(config, &["say", "here"]);
    });
    assert_eq!(c.lines(), ["here"]);
    let c = Container::new(|config| {
        for (pointer, value) in [
            ("/hostname", json!("")),
            ("/process/commandLine", json!("")),
            ("/process/apparmorProfile", json!("")),
            ("/process/selinuxLabel", json!("")),
            ("/process/execCPUAffinity", json!({"initial": "", "final": ""})),
            ("/linux/mountLabel", json!("")),
            ("/linux/rootfsPropagation", json!("")),
            ("/linux/namespaces/0/path", json!("")),
            ("/linux/netDevices", json!({})),
            ("/linux/timeOffsets", json!({})),
            ("/linux/uidMappings", json!([])),
            ("/linux/devices", json!([])),
            ("/linux/resources/devices", json!([{"allow": true, "type": "", "access": "rwm"}])),
            ("/mounts/0/options", json!([""])),
            ("/hooks", json!({"prestart": [], "poststop": null})),
            ("/annotations", json!({"run.oci.handler": ""})),
        ] {
            set(config, pointer, Some(value));
        }
        args(config, &["say", "here"]);
    });
    assert_eq!(c.lines(), ["here"]);
}

#[test]
fn without_a_user_the_program_is_roots() {
    let c =
        Container::new(|config| drop(config["process"].as_object_mut().unwrap().remove("user")));
    let report = c.json();
    assert_eq!(report["uids"], json!({"real": 0, "effective": 0, "saved": 0}));
    assert_eq!(report["gids"], json!({"real": 0, "effective": 0, "saved": 0}));
}

#[test]
fn a_size_without_a_terminal_means_nothing() {
    let c = Container::new(|config| {
        config["process"]["consoleSize"] = json!({"height": 99_999, "width": 7});
    });
    assert_eq!(c.json()["tty"], json!([false, false, false]));
}

#[test]
fn capabilities_that_the_kernel_would_refuse_are_warned_about_and_left_out() {
    let c = Container::new(|config| {
        let all = ["CAP_KILL", "CAP_CHOWN"];
        config["process"]["user"]["uid"] = json!(1000);
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "effective": all, "inheritable": all, "ambient": all,
        });
    });
    let output = c.run().ok();
    for set in ["effective", "inheritable", "ambient"] {
        let warning = format!("warning: process.capabilities.{set}: CAP_CHOWN left out: ");
        assert!(output.stderr.contains(&warning), "{output:?}");
    }
    let seen = output.json();
    for set in ["effective", "permitted", "inheritable", "bounding", "ambient"] {
        assert_eq!(seen["capabilities"][set], json!(["CAP_KILL"]), "{set}");
    }
}
