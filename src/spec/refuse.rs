//! Fields that this version can't honour: each is named, none is ignored.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

/// Refuses the first field that is set and not supported.
pub(super) fn unsupported(spec: &Spec) -> Result<()> {
    for (name, is_set) in platform_fields(spec).into_iter().chain(process_fields(spec)) {
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
    vec![("process.commandLine", set(process.command_line()))]
}
