//! Words that the specification knows and the parser does not, or the other
//! way round. Looked at only when a text was refused.

use std::collections::BTreeSet;

use serde_json::Value;

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
    let process = value.pointer_mut("/process")?;
    let changes = [
        drop_unknown_capabilities(process),
        rename_scheduler_flags(process),
        drop_empty_affinity(process),
    ];
    changes.contains(&true).then(|| value.to_string().into_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_takes_is_left_alone() {
        let text = br#"{"process":{"capabilities":{"bounding":["CAP_KILL"]},"scheduler":
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
