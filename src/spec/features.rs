//! What this build can do, as the specification has it (features.md,
//! features-linux.md): whatever the machine that it runs on can do.

use serde_json::{Value, json};

use super::scheduling::{MEMORY_FLAGS, MEMORY_MODES};
use super::{OCI_VERSION, mounts};

/// linux.seccomp is honoured.
const SECCOMP: bool = false;

/// uidMappings and gidMappings of mounts are honoured.
const IDMAPPED_MOUNTS: bool = false;

/// The systemd cgroup driver.
const SYSTEMD: bool = false;

/// Process label, mount label and profile are honoured.
const LABELS: bool = true;

/// linux.netDevices is honoured.
const NET_DEVICES: bool = true;

/// linux.intelRdt is honoured.
const INTEL_RDT: bool = true;

/// The features structure.
pub fn features(commit: &str) -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": mounts::option_words(),
        "linux": linux(),
        "annotations": {"tare.version": env!("CARGO_PKG_VERSION"), "tare.commit": commit},
        // no annotation changes what tare does
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

fn linux() -> Value {
    // in the kernel's order
    let mut capabilities: Vec<caps::Capability> = caps::all().into_iter().collect();
    capabilities.sort_unstable_by_key(caps::Capability::index);
    let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    json!({
        "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        "capabilities": capabilities,
        "cgroup": {
            "v1": false, "v2": true, "systemd": SYSTEMD, "systemdUser": SYSTEMD, "rdma": true,
        },
        "seccomp": {"enabled": SECCOMP},
        "apparmor": {"enabled": LABELS},
        "selinux": {"enabled": LABELS},
        "intelRdt": {"enabled": INTEL_RDT, "schemata": INTEL_RDT, "monitoring": INTEL_RDT},
        "memoryPolicy": {
            "modes": MEMORY_MODES.map(|(_, name, _)| name),
            "flags": MEMORY_FLAGS.map(|(_, name, _)| name),
        },
        "mountExtensions": {"idmap": {"enabled": IDMAPPED_MOUNTS}},
        "netDevices": {"enabled": NET_DEVICES},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_specifications() {
        let value = features("x");
        let parsed: oci_spec::runtime::Features = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap()["linux"]["cgroup"]["v2"], true);
        for capability in value["linux"]["capabilities"].as_array().unwrap() {
            let name = capability.as_str().unwrap();
            assert!(super::super::process::capability(name).is_some(), "{name}");
        }
    }
}
