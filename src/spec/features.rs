//! What this build can do, as the specification has it (features.md,
//! features-linux.md): whatever the machine that it runs on can do.

use serde_json::{Value, json};

use super::scheduling::{MEMORY_FLAGS, MEMORY_MODES};
use super::{OCI_VERSION, annotations, mounts};

/// uidMappings and gidMappings of mounts are honoured.
const IDMAPPED_MOUNTS: bool = false;

/// The systemd cgroup driver.
const SYSTEMD: bool = true;

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
        "potentiallyUnsafeConfigAnnotations": annotations::HONOURED,
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
        "seccomp": seccomp(),
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

fn seccomp() -> Value {
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
        ],
        "archs": [
            "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_PPC64",
            "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390X", "SCMP_ARCH_X32",
            "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
        ],
        "knownFlags": flags,
        "supportedFlags": flags,
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
