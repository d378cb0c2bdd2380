//! linux.timeOffsets: what a new time namespace adds to the host's clocks.

use oci_spec::runtime::Linux;

use super::namespaces::NamespacePlan;
use crate::error::{Error, Result};
use crate::sys::process::CLONE_NEWTIME;

/// Clocks that a time namespace has of its own (time_namespaces(7)).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// The lines for /proc/PID/timens_offsets: clock, seconds, nanoseconds. Empty
/// when nothing is shifted.
pub(super) fn time_offsets(linux: Option<&Linux>, ns: &NamespacePlan) -> Result<String> {
    let given = linux.and_then(|l| l.time_offsets().as_ref());
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(String::new()) };
    if !ns.makes(CLONE_NEWTIME) {
        return Err(Error::invalid(
            "linux.timeOffsets: are for a new time namespace, and linux.namespaces has none",
        ));
    }
    if let Some(name) = given.keys().find(|name| !CLOCKS.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "linux.timeOffsets: {name:?} is no clock of a time namespace (monotonic, boottime)"
        )));
    }
    let mut lines = String::new();
    for name in CLOCKS {
        let Some(offset) = given.get(name) else { continue };
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanosecs >= 1_000_000_000 {
            return Err(Error::invalid(format!(
                "linux.timeOffsets.{name}.nanosecs: {nanosecs} is a second or more"
            )));
        }
        lines.push_str(&format!("{name} {secs} {nanosecs}\n"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(offsets: &str, kind: &str) -> Result<String> {
        let json = format!(
            r#"{{"namespaces":[{{"type":"mount"}},{{"type":"{kind}"}}],"timeOffsets":{offsets}}}"#
        );
        let linux: Linux = serde_json::from_str(&json).unwrap();
        time_offsets(Some(&linux), &NamespacePlan::resolve(Some(&linux)).unwrap())
    }

    #[test]
    fn lines_for_the_kernel() {
        let offsets = r#"{"boottime":{"secs":7},"monotonic":{"secs":-1,"nanosecs":5}}"#;
        assert_eq!(resolve(offsets, "time").unwrap(), "monotonic -1 5\nboottime 7 0\n");
        assert_eq!(resolve("{}", "pid").unwrap(), "");
    }

    #[test]
    fn wrong_input() {
        for (offsets, kind, part) in [
            (r#"{"boottime":{"secs":7}}"#, "pid", "for a new time namespace"),
            (r#"{"realtime":{"secs":7}}"#, "time", "\"realtime\""),
            (r#"{"boottime":{"nanosecs":1000000000}}"#, "time", "linux.timeOffsets.boottime.nano"),
        ] {
            let text = resolve(offsets, kind).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }
}
