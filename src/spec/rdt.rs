//! linux.intelRdt: shares of caches and memory bandwidth (resctrl).

use oci_spec::runtime::{Linux, LinuxIntelRdt};

use crate::error::{Error, Result};

/// Names that the file system has itself in each group.
const RESERVED: [&str; 5] = [".", "..", "info", "mon_data", "mon_groups"];

/// Which group the container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RdtGroup {
    /// One of its own, with its id for a name; it goes with the container.
    Own,
    /// The default group: the root of the file system.
    Root,
    /// One that others may share; it stays.
    Named(String),
}

/// What the container's group has to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdtPlan {
    /// Which.
    pub group: RdtGroup,
    /// Lines for its file `schemata`, in this order.
    pub lines: Vec<String>,
    /// A monitoring group of the container's own.
    pub monitoring: bool,
}

impl RdtPlan {
    pub(super) fn resolve(linux: Option<&Linux>) -> Result<Option<Self>> {
        let Some(given) = linux.and_then(|l| l.intel_rdt().as_ref()) else { return Ok(None) };
        Ok(Some(RdtPlan {
            group: group(given.clos_id().as_deref())?,
            lines: lines(given)?,
            monitoring: given.enable_monitoring().unwrap_or(false),
        }))
    }
}

fn group(id: Option<&str>) -> Result<RdtGroup> {
    match id.filter(|id| !id.is_empty()) {
        None => Ok(RdtGroup::Own),
        Some("/") => Ok(RdtGroup::Root),
        Some(id) if RESERVED.contains(&id) || id.contains(['/', '\n', '\0']) => {
            Err(Error::invalid(format!("linux.intelRdt.closID: {id:?} is not the name of a group")))
        }
        Some(id) => Ok(RdtGroup::Named(id.to_owned())),
    }
}

pub(super) fn lines(given: &LinuxIntelRdt) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let fields = [
        ("l3CacheSchema", given.l3_cache_schema(), "L3"),
        ("memBwSchema", given.mem_bw_schema(), "MB:"),
    ];
    for (name, text, start) in fields {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { continue };
        if !text.starts_with(start) {
            return Err(Error::invalid(format!(
                "linux.intelRdt.{name}: {text:?} does not begin with {start}"
            )));
        }
        lines.push(line(name, text)?);
    }
    for (index, text) in given.schemata().iter().flatten().enumerate() {
        lines.push(line(&format!("schemata[{index}]"), text)?);
    }
    Ok(lines)
}

fn line(name: &str, text: &str) -> Result<String> {
    // two lines in one would be written as one and compared as none
    if text.contains('\n') || !text.contains(':') {
        return Err(Error::invalid(format!(
            "linux.intelRdt.{name}: {text:?} is not a line like L3:0=ff;1=ff"
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<RdtPlan> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"intelRdt":{json}}}"#)).unwrap();
        RdtPlan::resolve(Some(&linux)).map(Option::unwrap)
    }

    #[test]
    fn groups_and_lines() {
        let plan =
            resolve(r#"{"schemata":["L2:0=f"],"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=ff"}"#)
                .unwrap();
        assert_eq!(plan.group, RdtGroup::Own);
        assert_eq!(plan.lines, ["L3:0=ff", "MB:0=20", "L2:0=f"]);
        assert_eq!(resolve(r#"{"closID":"/"}"#).unwrap().group, RdtGroup::Root);
        let named = resolve(r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
        assert_eq!((named.group, named.monitoring), (RdtGroup::Named("gold".into()), true));
        for (json, part) in [
            (r#"{"closID":"a/b"}"#, "linux.intelRdt.closID"),
            (r#"{"closID":".."}"#, "linux.intelRdt.closID"),
            (r#"{"closID":"info"}"#, "linux.intelRdt.closID"),
            (r#"{"memBwSchema":"L3:0=1"}"#, "linux.intelRdt.memBwSchema"),
            (r#"{"l3CacheSchema":"L3:0=f\nMB:0=1"}"#, "linux.intelRdt.l3CacheSchema"),
            (r#"{"schemata":["L3:0=f","x"]}"#, "linux.intelRdt.schemata[1]"),
        ] {
            let text = resolve(json).unwrap_err().to_string();
            assert!(text.starts_with(part), "{json}: {text}");
        }
    }
}
