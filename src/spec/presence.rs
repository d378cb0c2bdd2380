//! Fields that the specification requires and the parser fills in with 0, "" or
//! false. Whether they are there is looked up in the text, which is read once
//! more only where such a value was found.

use oci_spec::runtime::{IOPriorityClass, Linux, LinuxDeviceType, LinuxIdMapping, Process, Spec};
use serde_json::Value;

use crate::error::{Error, Result};

/// Objects, as pointers (`*` is each one of a list), and what each has to have.
const REQUIRED: [(&str, &[&str]); 15] = [
    ("process/rlimits/*", &["type", "soft", "hard"]),
    ("process/consoleSize", &["height", "width"]),
    ("process/ioPriority", &["class", "priority"]),
    ("linux/uidMappings/*", &["containerID", "hostID", "size"]),
    ("linux/gidMappings/*", &["containerID", "hostID", "size"]),
    ("mounts/*/uidMappings/*", &["containerID", "hostID", "size"]),
    ("mounts/*/gidMappings/*", &["containerID", "hostID", "size"]),
    ("linux/resources/pids", &["limit"]),
    ("linux/resources/hugepageLimits/*", &["pageSize", "limit"]),
    ("linux/resources/devices/*", &["allow"]),
    ("linux/resources/blockIO/weightDevice/*", &["major", "minor"]),
    ("linux/resources/blockIO/throttleReadBpsDevice/*", &["major", "minor", "rate"]),
    ("linux/resources/blockIO/throttleWriteBpsDevice/*", &["major", "minor", "rate"]),
    ("linux/resources/blockIO/throttleReadIOPSDevice/*", &["major", "minor", "rate"]),
    ("linux/resources/blockIO/throttleWriteIOPSDevice/*", &["major", "minor", "rate"]),
];

/// # Errors
/// The first field that is missing, by its path.
pub(super) fn check(spec: &Spec, text: &[u8]) -> Result<()> {
    let process = spec.process().as_ref().is_some_and(process_has_gaps);
    let linux = spec.linux().as_ref().is_some_and(linux_has_gaps);
    if !process && !linux && !maps_have_gaps(spec, text) {
        return Ok(());
    }
    let value: Value = crate::json::parse(text)?;
    for (pointer, fields) in REQUIRED {
        let parts: Vec<&str> = pointer.split('/').collect();
        each(&value, &parts, String::new(), &mut |path, object| has(path, object, fields))?;
    }
    each(&value, &["linux", "devices", "*"], String::new(), &mut |path, device| {
        match device.get("type").and_then(Value::as_str) {
            // a fifo has no number
            Some("p") => has(path, device, &["path"]),
            _ => has(path, device, &["path", "major", "minor"]),
        }
    })
}

fn process_has_gaps(process: &Process) -> bool {
    let limits = process.rlimits().iter().flatten();
    let size = process.console_size();
    let priority = process.io_priority();
    limits.into_iter().any(|limit| limit.soft() == 0 || limit.hard() == 0)
        || size.is_some_and(|size| size.height() == 0 || size.width() == 0)
        || priority
            .is_some_and(|p| p.priority() == 0 || p.class() == IOPriorityClass::IoprioClassBe)
}

fn linux_has_gaps(linux: &Linux) -> bool {
    let devices = linux.devices().iter().flatten();
    let numberless = |d: &oci_spec::runtime::LinuxDevice| {
        d.typ() != LinuxDeviceType::P && (d.major() == 0 || d.minor() == 0)
    };
    let resources = linux.resources().as_ref().is_some_and(|r| {
        let rules = r.devices().iter().flatten();
        let pages = r.hugepage_limits().iter().flatten();
        r.pids().is_some_and(|pids| pids.limit() == 0)
            || r.block_io().is_some()
            || pages.into_iter().any(|page| page.limit() == 0)
            // all engines deny all at first, with `allow`: a rule that denies one
            // thing is rare
            || rules.into_iter().any(|rule| !rule.allow() && rule.typ().is_some())
    });
    resources || devices.into_iter().any(numberless)
}

/// Nearly all maps begin at 0 inside, so that number says nothing: the field's name
/// has to be there as often as there are ranges.
fn maps_have_gaps(spec: &Spec, text: &[u8]) -> bool {
    const INSIDE: &[u8] = b"\"containerID\"";
    let linux = spec.linux().iter().flat_map(|l| [l.uid_mappings(), l.gid_mappings()]);
    let mounts = spec.mounts().iter().flatten().flat_map(|m| [m.uid_mappings(), m.gid_mappings()]);
    let maps: Vec<&LinuxIdMapping> = linux.chain(mounts).flatten().flatten().collect();
    maps.iter().any(|map| map.host_id() == 0 || map.size() == 0)
        || (!maps.is_empty()
            && text.windows(INSIDE.len()).filter(|part| *part == INSIDE).count() < maps.len())
}

/// Calls `visit` with each value behind a pointer, and its path.
fn each(
    value: &Value,
    parts: &[&str],
    path: String,
    visit: &mut dyn FnMut(&str, &Value) -> Result<()>,
) -> Result<()> {
    match (parts.split_first(), value) {
        (_, Value::Null) => Ok(()),
        (None, object) => visit(&path, object),
        (Some((&"*", rest)), Value::Array(all)) => {
            for (at, one) in all.iter().enumerate() {
                each(one, rest, format!("{path}[{at}]"), visit)?;
            }
            Ok(())
        }
        (Some((name, rest)), Value::Object(fields)) => match fields.get(*name) {
            Some(field) => {
                let dot = if path.is_empty() { "" } else { "." };
                each(field, rest, format!("{path}{dot}{name}"), visit)
            }
            None => Ok(()),
        },
        // the parser has taken the text: there is nothing else
        _ => Ok(()),
    }
}

fn has(path: &str, object: &Value, fields: &[&str]) -> Result<()> {
    match fields.iter().find(|field| object.get(**field).is_none()) {
        Some(field) => Err(Error::invalid(format!("{path}.{field}: is missing"))),
        None => Ok(()),
    }
}
