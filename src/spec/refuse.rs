//! Fields that this version can't honour: each is named, none is ignored.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

/// Refuses the first field that is set and not supported.
pub(super) fn unsupported(spec: &Spec) -> Result<()> {
    let fields =
        platform_fields(spec).into_iter().chain(process_fields(spec)).chain(linux_fields(spec));
    for (name, is_set) in fields {
        if is_set {
            return Err(Error::unsupported(format!("{name}: not supported yet")));
        }
    }
    Ok(())
}

fn platform_fields(spec: &Spec) -> Vec<(&'static str, bool)> {
    vec![
        ("vm", spec.vm().is_some()),
        ("windows", spec.windows().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("zos", spec.zos().is_some()),
    ]
}

fn process_fields(spec: &Spec) -> Vec<(&'static str, bool)> {
    let Some(process) = spec.process() else {
        return Vec::new();
    };
    let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    vec![
        ("process.commandLine", set(process.command_line())),
        ("process.apparmorProfile", set(process.apparmor_profile())),
        ("process.selinuxLabel", set(process.selinux_label())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ]
}

fn linux_fields(spec: &Spec) -> Vec<(&'static str, bool)> {
    let Some(linux) = spec.linux() else {
        return Vec::new();
    };
    vec![
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|d| !d.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty())),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|l| !l.is_empty())),
    ]
}
