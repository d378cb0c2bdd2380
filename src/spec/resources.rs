//! linux.resources as a text of its own, the way `update` gets it.

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources, Spec};
use serde_json::Value;

use super::rdt;
use crate::error::{Error, Result};

/// Parses the JSON of a `linux.resources` object.
///
/// # Errors
/// Text that is not JSON, or a value of the wrong type, by its path below
/// `linux.resources`.
pub fn parse_resources(text: &[u8]) -> Result<LinuxResources> {
    // the parser takes a list for an object's values in their order
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::invalid("is a list, and not a linux.resources object"));
    }
    let mut resources: LinuxResources = crate::json::parse(text)?;
    drop_empty_pids(&mut resources, text, "/pids/limit");
    Ok(resources)
}

/// The same for the resources in a whole configuration.
pub(super) fn drop_empty_pids_of(spec: &mut Spec, text: &[u8]) {
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources {
        drop_empty_pids(resources, text, "/linux/resources/pids/limit");
    }
}

/// `pids` without a limit sets none; the parser makes it zero, which is a limit.
fn drop_empty_pids(resources: &mut LinuxResources, text: &[u8], path: &str) {
    let is_zero = resources.pids().is_some_and(|pids| pids.limit() == 0);
    // the text is read again only for the one value that leaves it open
    if is_zero
        && let Ok(value) = serde_json::from_slice::<Value>(text)
        && value.pointer(path).is_none()
    {
        resources.set_pids(None);
    }
}

/// Lines of resctrl's `schemata` for a change of caches and memory bandwidth.
///
/// # Errors
/// One that is not such a line.
pub fn schemata(l3_cache: Option<&str>, mem_bandwidth: Option<&str>) -> Result<Vec<String>> {
    let mut asked = LinuxIntelRdt::default();
    asked.set_l3_cache_schema(l3_cache.map(str::to_owned));
    asked.set_mem_bw_schema(mem_bandwidth.map(str::to_owned));
    rdt::lines(&asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_without_a_limit_set_none() {
        let limit = |json: &str| {
            let resources = parse_resources(json.as_bytes()).unwrap();
            resources.pids().map(|pids| pids.limit())
        };
        assert_eq!(limit(r#"{"pids": {}}"#), None);
        assert_eq!(limit(r#"{"pids": {"limit": 0}}"#), Some(0));
        assert_eq!(limit(r#"{"pids": {"limit": -1}}"#), Some(-1));
        let spec = |pids: &str| {
            let text =
                format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let spec = super::super::parse(text.as_bytes()).unwrap();
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().is_some()
        };
        assert!(!spec("{}"));
        assert!(spec(r#"{"limit":0}"#));
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let text = parse_resources(br#"{"memory":{"limit":"1g"}}"#).unwrap_err().to_string();
        assert!(text.starts_with("memory.limit: invalid type: string"), "{text}");
        let text = parse_resources(b" []").unwrap_err().to_string();
        assert_eq!(text, "is a list, and not a linux.resources object");
    }

    #[test]
    fn schemata_are_lines() {
        assert_eq!(schemata(Some("L3:0=f"), Some("MB:0=20")).unwrap(), ["L3:0=f", "MB:0=20"]);
        assert!(schemata(None, None).unwrap().is_empty());
        assert!(schemata(Some("0=f"), None).is_err());
    }
}
