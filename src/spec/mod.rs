//! config.json: reading it, and turning it into a [`Plan`].
//!
//! Everything that the specification leaves open, and every check of the
//! input, ends here: a plan has no "maybe" left, and nothing on the host was
//! touched to make it.

mod clocks;
pub mod defaults;
mod features;
mod labels;
mod linux;
mod mounts;
mod namespaces;
mod net;
mod numbers;
mod plan;
mod process;
mod rdt;
mod refuse;
pub mod rootless;
mod scheduling;
mod seccomp;
mod spelling;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::error::{Error, ErrorKind, Result, Step};

pub use features::features;
pub use labels::LabelPlan;
pub use linux::{DevicePlan, SysctlPlan};
pub(crate) use mounts::lexical;
pub use mounts::{
    AttrChange, BindPlan, FsOption, IdmapPlan, MountIds, MountKind, MountPlan, Propagation,
    SourceLink,
};
pub(crate) use namespaces::kind_name as namespace_name;
pub use namespaces::{IdMapping, JoinPlan, NamespacePlan};
pub use net::NetDevicePlan;
pub use plan::{HookPlan, Hooks, Plan, ResolveArgs, RootfsPlan};
pub use process::{Capabilities, ProcessPlan, RlimitPlan};
pub use rdt::{RdtGroup, RdtPlan};
pub use scheduling::{ExecAffinity, IoPriorityPlan, MemoryPolicyPlan, SchedulingPlan};
pub use seccomp::{ListenerPlan, SeccompPlan};

/// The newest version of the runtime specification that tare knows.
pub const OCI_VERSION: &str = "1.3.0";

/// Most bytes of a config.json: far above any real one.
const MAX_CONFIG: u64 = 16 << 20;

/// Reads `config.json` in a bundle directory.
///
/// # Errors
/// A missing or unreadable file, text that is not JSON (line and column), a
/// value of the wrong type (the field's path), a version that tare does not
/// know.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let bytes = read(&path).step(|| path.display())?;
    parse(&bytes).step(|| path.display())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // a fifo would make the open wait for ever
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::invalid("does not exist").hint("is it a bundle? see --bundle"));
        }
        other => other?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Error::invalid("is not a regular file"));
    }
    if found.len() > MAX_CONFIG {
        return Err(Error::invalid(format!("{} bytes are too many for a config", found.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default() + 1);
    file.take(MAX_CONFIG).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Parses the text of a config.json and checks its version.
///
/// # Errors
/// As for [`load`].
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    let spec: Spec = match crate::json::parse(bytes) {
        Ok(spec) => spec,
        Err(e) => match spelling::corrected(bytes) {
            Some(bytes) => crate::json::parse(&bytes)?,
            None => return Err(e),
        },
    };
    check_version(spec.version())?;
    Ok(spec)
}

fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        return Err(Error::invalid("ociVersion: is missing"));
    }
    let mut parts = version.splitn(3, '.');
    let major = parts.next().and_then(|p| p.parse::<u32>().ok());
    let minor = parts.next().and_then(|p| p.parse::<u32>().ok());
    match (major, minor, parts.next()) {
        // 1.x is compatible by semantic versioning: unknown fields are ignored
        (Some(1), Some(_), Some(_)) => Ok(()),
        (Some(_), Some(_), Some(_)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("ociVersion: {version} is not supported (tare knows 1.0 to {OCI_VERSION})"),
        )),
        _ => Err(Error::invalid(format!("ociVersion: {version:?} is not a version like 1.2.0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn version_is_checked() {
        assert!(parse(br#"{"ociVersion":"1.0.2-dev"}"#).is_ok());
        assert!(parse(br#"{"ociVersion":"1.3.0"}"#).is_ok());
        assert_eq!(message("{}"), "ociVersion: is missing");
        assert!(message(r#"{"ociVersion":"2.0.0"}"#).starts_with("ociVersion: 2.0.0 is not supp"));
        assert!(message(r#"{"ociVersion":"banana"}"#).contains("is not a version"));
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let text = message(r#"{"ociVersion":"1.2.0","root":{"path":"r","readonly":"yes"}}"#);
        assert!(text.starts_with("root.readonly: invalid type: string"), "{text}");
    }

    #[test]
    fn text_that_is_not_json() {
        assert!(message("ociVersion = 1").starts_with("not valid JSON: "));
    }
}
