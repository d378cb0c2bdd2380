//! Words that the specification knows and the parser does not, or the other
//! way round. Looked at only when a text was refused.

use std::collections::BTreeSet;

use serde_json::Value;

use super::numbers::mask;
use super::scheduling::MAX_PROCESSOR;
use crate::error::{Error, Result};

/// Flags of process.scheduler: as in the specification, as in the parser.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// The same text in the parser's words, without the capabilities that nobody
/// here knows. `None` if nothing had to be changed: then something else is
/// wrong with it.
pub(super) fn corrected(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let rules = drop_empty_types(&mut value);
    let process = value.pointer_mut("/process")?;
    let changes = [
        rules,
        drop_unknown_capabilities(process),
        rename_scheduler_flags(process),
        drop_empty_affinity(process),
        add_user(process),
    ];
    changes.contains(&true).then(|| value.to_string().into_bytes())
}

/// The same error, in the specification's words.
pub(super) fn of_the_specification(e: Error) -> Error {
    let text = SCHEDULER_FLAGS.iter().fold(e.to_string(), |text, (name, known)| {
        text.replace(&format!("`{known}`"), &format!("`{name}`"))
    });
    Error::new(e.kind(), text)
}

/// What the parser refuses without the name of the field.
///
/// # Errors
/// A list of processors that is none.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    for name in ["initial", "final"] {
        let list = value.pointer(&format!("/process/execCPUAffinity/{name}"));
        if let Some(list) = list.and_then(Value::as_str).filter(|list| !list.is_empty()) {
            mask(list, MAX_PROCESSOR)
                .map_err(|e| e.step(format!("process.execCPUAffinity.{name}")))?;
        }
    }
    Ok(())
}

/// Only `cwd` has to be there (schema/config-schema.json): without a user it is 0.
fn add_user(process: &mut Value) -> bool {
    let Some(process) = process.as_object_mut() else { return false };
    let is_missing = process.get("user").is_none_or(Value::is_null);
    if is_missing {
        process.insert("user".to_owned(), serde_json::json!({}));
    }
    is_missing
}

/// Unknown capabilities are worth a warning, and no failure (config.md,
/// process.capabilities).
fn drop_unknown_capabilities(process: &mut Value) -> bool {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    let sets = sets.into_iter().flat_map(|sets| sets.values_mut());
    let mut unknown = BTreeSet::new();
    for set in sets.filter_map(Value::as_array_mut) {
        set.retain(|name| match name.as_str() {
            Some(text) if super::process::capability(text).is_none() => {
                unknown.insert(text.to_owned());
                false
            }
            _ => true,
        });
    }
    for name in &unknown {
        crate::logging::warn(&format!("process.capabilities: {name} left out: it is not known"));
    }
    !unknown.is_empty()
}

fn rename_scheduler_flags(process: &mut Value) -> bool {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    let mut changed = false;
    for flag in flags.into_iter().flatten() {
        if let Some((_, known)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = Value::from(*known);
            changed = true;
        }
    }
    changed
}

/// An empty list of processors is none (config.md, execCPUAffinity).
fn drop_empty_affinity(process: &mut Value) -> bool {
    let Some(lists) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) else {
        return false;
    };
    let before = lists.len();
    lists.retain(|_, list| list != "");
    lists.len() != before
}

/// A rule for devices without a type is for all of them, and so is one with an empty type.
fn drop_empty_types(value: &mut Value) -> bool {
    let rules = value.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut);
    let objects = rules.into_iter().flatten().filter_map(Value::as_object_mut);
    objects.fold(false, |changed, rule| {
        let is_empty = rule.get("type").is_some_and(|kind| kind == "");
        if is_empty {
            rule.remove("type");
        }
        changed || is_empty
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_takes_is_left_alone() {
        let text = br#"{"process":{"user":{},"capabilities":{"bounding":["CAP_KILL"]},"scheduler":
            {"flags":["SCHED_FLAG_RECLAIM"]},"execCPUAffinity":{"initial":"0"}}}"#;
        assert_eq!(corrected(text), None);
        assert_eq!(corrected(b"{}"), None);
    }

    #[test]
    fn all_flags_of_the_specification_are_parsed() {
        for name in [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ] {
            let text = serde_json::json!({"ociVersion": "1.3.0", "process": {
                "user": {}, "cwd": "/", "scheduler": {
                    "policy": "SCHED_OTHER", "flags": [format!("SCHED_FLAG_{name}")],
                },
                "execCPUAffinity": {"initial": "0", "final": ""},
            }});
            let spec = super::super::parse(text.to_string().as_bytes()).unwrap();
            let scheduler = spec.process().as_ref().unwrap().scheduler().as_ref().unwrap();
            assert_eq!(scheduler.flags().as_ref().unwrap().len(), 1, "{name}");
        }
    }
}
