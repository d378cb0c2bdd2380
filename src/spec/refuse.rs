//! Fields that tare can't honour: each is named, none is ignored.

use oci_spec::runtime::Spec;

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
