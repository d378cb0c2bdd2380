//! Fields that tare can't honour: each is named, none is ignored.

use oci_spec::runtime::Spec;

use super::namespaces::NamespacePlan;
use crate::error::{Error, Result};

/// Refuses the first field that is set and not for a container on Linux.
pub(super) fn unsupported(spec: &Spec) -> Result<()> {
    const ELSEWHERE: &str = "is for another system: tare runs containers on Linux";
    let process = spec.process().as_ref();
    let command_line = process.and_then(|p| p.command_line().as_deref());
    let fields = [
        ("vm", spec.vm().is_some(), "tare has no virtual machines: the kernel is the host's"),
        ("windows", spec.windows().is_some(), ELSEWHERE),
        ("solaris", spec.solaris().is_some(), ELSEWHERE),
        ("zos", spec.zos().is_some(), ELSEWHERE),
        (
            "process.commandLine",
            command_line.is_some_and(|text| !text.is_empty()),
            "is for Windows: give process.args",
        ),
    ];
    match fields.into_iter().find(|(_, is_set, _)| *is_set) {
        Some((name, _, reason)) => Err(Error::unsupported(format!("{name}: {reason}"))),
        None => Ok(()),
    }
}

/// Refuses what a container that can mount nothing can't have.
pub(super) fn mounts(spec: &Spec, namespaces: &NamespacePlan) -> Result<()> {
    if !namespaces.mounts_nothing() {
        return Ok(());
    }
    let linux = spec.linux().as_ref();
    let has = |list: Option<&[String]>| list.is_some_and(|list| !list.is_empty());
    let word = linux.and_then(|l| l.rootfs_propagation().as_deref());
    let devices = linux.and_then(|l| l.devices().as_deref());
    for (name, is_set) in [
        ("mounts", spec.mounts().as_ref().is_some_and(|list| !list.is_empty())),
        ("root.readonly", spec.root().as_ref().is_some_and(|r| r.readonly() == Some(true))),
        ("process.terminal", spec.process().as_ref().is_some_and(|p| p.terminal() == Some(true))),
        ("linux.devices", devices.is_some_and(|list| !list.is_empty())),
        ("linux.maskedPaths", has(linux.and_then(|l| l.masked_paths().as_deref()))),
        ("linux.readonlyPaths", has(linux.and_then(|l| l.readonly_paths().as_deref()))),
        ("linux.rootfsPropagation", word.is_some_and(|word| !word.is_empty())),
    ] {
        if is_set {
            return Err(Error::unsupported(format!(
                "{name}: a new user namespace has no power over the mount namespace that it joins"
            ))
            .hint("leave it out, join the mounts' user namespace as well, or make both"));
        }
    }
    Ok(())
}
