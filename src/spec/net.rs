//! linux.netDevices: devices of the host that move into the container.

use nix::sched::CloneFlags;
use oci_spec::runtime::Linux;

use super::namespaces::NamespacePlan;
use crate::error::{Error, Result};

/// IFNAMSIZ without the NUL (linux/if.h).
const MAX_NAME: usize = 15;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevicePlan {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container; with `%d`, the kernel puts a number there.
    pub inside: String,
}

impl NetDevicePlan {
    /// True when the kernel chooses a number for the name.
    pub fn is_template(&self) -> bool {
        self.inside.contains("%d")
    }
}

pub(super) fn net_devices(linux: Option<&Linux>, ns: &NamespacePlan) -> Result<Vec<NetDevicePlan>> {
    let given = linux.and_then(|l| l.net_devices().as_ref());
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(Vec::new()) };
    if !ns.separates(CloneFlags::CLONE_NEWNET) {
        return Err(Error::invalid(
            "linux.netDevices: the container has no network namespace of its own to move them to",
        ));
    }
    let mut plans: Vec<NetDevicePlan> = Vec::with_capacity(given.len());
    for (host, device) in given {
        let inside = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        check_name(host, false).map_err(|e| e.step("linux.netDevices"))?;
        check_name(inside, true).map_err(|e| e.step(format!("linux.netDevices.{host}.name")))?;
        let plan = NetDevicePlan { host: host.clone(), inside: inside.to_owned() };
        if !plan.is_template() && plans.iter().any(|p| p.inside == plan.inside) {
            return Err(Error::invalid(format!(
                "linux.netDevices: two devices would be {inside:?} in the container"
            )));
        }
        plans.push(plan);
    }
    // a map has no order, and numbers of templates are given in one
    plans.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(plans)
}

/// As the kernel's dev_valid_name, and its one template.
fn check_name(name: &str, template: bool) -> Result<()> {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace();
    let fits = !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != "..";
    let plain = if template { name.replacen("%d", "", 1) } else { name.to_owned() };
    if !fits || name.contains(bad) || plain.contains('%') {
        return Err(Error::invalid(format!("{name:?} is not the name of a network device")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(devices: &str, kind: &str) -> Result<Vec<NetDevicePlan>> {
        let json = format!(
            r#"{{"namespaces":[{{"type":"mount"}},{{"type":"{kind}"}}],"netDevices":{devices}}}"#
        );
        let linux: Linux = serde_json::from_str(&json).unwrap();
        net_devices(Some(&linux), &NamespacePlan::resolve(Some(&linux)).unwrap())
    }

    #[test]
    fn names() {
        let plans = resolve(r#"{"b":{"name":"eth%d"},"a":{}}"#, "network").unwrap();
        let names: Vec<_> = plans.iter().map(|p| (p.host.as_str(), p.inside.as_str())).collect();
        assert_eq!(names, [("a", "a"), ("b", "eth%d")]);
        for (devices, part) in [
            (r#"{"a/b":{}}"#, "linux.netDevices: \"a/b\""),
            (r#"{"a%d":{}}"#, "a%d"),
            (r#"{"a":{"name":"%d%d"}}"#, "linux.netDevices.a.name"),
            (r#"{"a":{"name":"%s"}}"#, "linux.netDevices.a.name"),
            (r#"{"a":{"name":"sixteen-letters-"}}"#, "linux.netDevices.a.name"),
            (r#"{"a":{"name":"x"},"b":{"name":"x"}}"#, "two devices"),
        ] {
            let text = resolve(devices, "network").unwrap_err().to_string();
            assert!(text.contains(part), "{devices}: {text}");
        }
        assert!(resolve(r#"{"a":{}}"#, "pid").is_err());
    }
}
