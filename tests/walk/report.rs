//! The probe's report, without what differs from container to container.

use serde_json::Value;

use crate::support::{Container, namespace_of};

/// The report of this container as the one of any other with the same config.
pub fn normal(text: &str, c: &Container) -> Value {
    normal_of(text, &c.id, c.bundle.path().to_str())
}

/// The same by names alone.
pub fn normal_of(text: &str, id: &str, bundle: Option<&str>) -> Value {
    let mut text = text.replace(id, "ID");
    if let Some(bundle) = bundle {
        text = text.replace(bundle, "BUNDLE");
    }
    // the directories of an image's container are named after a process
    let parts: Vec<&str> = text.split("containers/ID.").collect();
    let text = parts
        .iter()
        .enumerate()
        .map(|(at, part)| match at {
            0 => (*part).to_owned(),
            _ => format!("containers/ID{}", part.trim_start_matches(|c: char| c.is_ascii_digit())),
        })
        .collect::<String>();
    let mut value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    clean(&mut value);
    if let Some(mounts) = value["mounts"].as_array_mut() {
        // mountinfo is in the order of ids, which the kernel uses again
        mounts.sort_by_cached_key(|mount| (mount["target"].to_string(), mount.to_string()));
    }
    if let Some(Value::Object(namespaces)) = value.get_mut("namespaces") {
        for (kind, name) in namespaces.iter_mut() {
            let is_host = *name == namespace_of(std::process::id(), kind);
            *name = Value::from(if is_host { "the host's" } else { "another" });
        }
    }
    if let Some(Value::Object(fds)) = value.get_mut("fds") {
        for target in fds.values_mut() {
            let text = target.as_str().unwrap_or_default();
            // pipe:[N], and /tmp/#N (deleted)
            let kind = text.split([':', '#']).next().unwrap_or_default().to_owned();
            *target = Value::from(kind);
        }
    }
    // the hour of the test
    if let Some(report) = value.as_object_mut() {
        report.remove("clocks");
    }
    // a keyring of its own: that of the tests' session is never seen inside
    if value["keyring"].is_i64() {
        value["keyring"] = Value::from("a number");
    }
    value
}

/// Takes numbers away that the kernel hands out as they come.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["id", "parent", "device", "dev", "ino"] {
                if map.get(key).is_some_and(|v| !v.is_object()) {
                    map.remove(key);
                }
            }
            map.values_mut().for_each(clean);
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        _ => {}
    }
}

/// Where two reports differ, one line each.
pub fn differences(a: &Value, b: &Value) -> Vec<String> {
    fn walk(path: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
                for key in keys {
                    let (x, y) = (x.get(key), y.get(key));
                    let null = Value::Null;
                    walk(&format!("{path}/{key}"), x.unwrap_or(&null), y.unwrap_or(&null), found);
                }
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                for (at, (x, y)) in x.iter().zip(y).enumerate() {
                    walk(&format!("{path}/{at}"), x, y, found);
                }
            }
            _ if a != b => found.push(format!("{path}: {a} became {b}")),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk("", a, b, &mut found);
    found
}
