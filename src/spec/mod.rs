//! config.json: reading it, and turning it into a [`Plan`].
//!
//! Everything that the specification leaves open, and every check of the
//! input, ends here: a plan has no "maybe" left, and nothing on the host was
//! touched to make it.

mod annotations;
mod clocks;
pub mod defaults;
mod exec;
mod features;
mod hooks;
mod labels;
mod linux;
mod mounts;
mod namespaces;
mod net;
mod numbers;
mod plan;
mod presence;
mod process;
mod rdt;
mod refuse;
mod resources;
pub mod rootless;
mod scheduling;
mod seccomp;
mod spelling;

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use oci_spec::runtime::Spec;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::{open_file, read_sized};
use crate::trace;

pub use annotations::{AnnotationPlan, CRIU_CONFIG, HookOutput};
pub use exec::{ExecPlan, load_process};
pub use features::features;
pub use hooks::{HookPlan, Hooks};
pub use labels::LabelPlan;
pub use linux::{DevicePlan, SysctlPlan};
pub use mounts::{
    AttrChange, BindPlan, FsOption, IdmapPlan, MountIds, MountKind, MountPlan, Propagation,
    SourceLink,
};
pub(crate) use mounts::{check_bind, lexical};
pub(crate) use namespaces::kind_name as namespace_name;
pub use namespaces::{IdMapping, JoinPlan, NamespacePlan};
pub use net::NetDevicePlan;
pub use plan::{Plan, ResolveArgs, RootfsPlan};
pub use process::{Capabilities, ProcessPlan, RlimitPlan};
pub use rdt::{RdtGroup, RdtPlan};
pub use resources::{parse_resources, schemata};
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
    let (shown, bytes) = (path.display(), || read(&path).step(|| path.display()));
    let bytes = trace::step_on("read the configuration", ("path", &shown), bytes)?;
    trace::step("parse the configuration", || parse(&bytes).step(|| path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // a fifo would make the open wait for ever
    let file = match open_file(path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
        Err(Errno::ENOENT) => {
            return Err(Error::invalid("does not exist").hint("is it a bundle? see --bundle"));
        }
        other => other?,
    };
    let found = fstat(&file)?;
    if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Error::invalid("is not a regular file"));
    }
    let size = u64::try_from(found.st_size).unwrap_or_default();
    if size > MAX_CONFIG {
        return Err(Error::invalid(format!("{size} bytes are too many for a config")));
    }
    let [size, most] = [size, MAX_CONFIG].map(|bytes| usize::try_from(bytes).unwrap_or_default());
    Ok(read_sized(file, size, most)?)
}

/// Parses the text of a config.json and checks its version.
///
/// # Errors
/// As for [`load`].
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    let mut spec: Spec = match crate::json::parse(bytes) {
        Ok(spec) => spec,
        Err(e) => {
            spelling::check(bytes)?;
            let again = match spelling::corrected(bytes) {
                Some(bytes) => crate::json::parse(&bytes),
                None => Err(e),
            };
            again.map_err(spelling::of_the_specification)?
        }
    };
    check_version(spec.version())?;
    resources::drop_empty_pids_of(&mut spec, bytes);
    presence::check(&spec, bytes)?;
    Ok(spec)
}

fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        return Err(Error::invalid("ociVersion: is missing"));
    }
    match major(version) {
        // 1.x is compatible by semantic versioning: unknown fields are ignored
        Some(1) => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("ociVersion: {version} is not supported (tare knows 1.0 to {OCI_VERSION})"),
        )),
        None => Err(Error::invalid(format!("ociVersion: {version:?} is not a version like 1.2.0"))),
    }
}

/// The first number of a semantic version: three of them, and what may follow.
fn major(version: &str) -> Option<u32> {
    let (numbers, rest) = match version.find(['-', '+']) {
        Some(at) => version.split_at(at),
        None => (version, "-0"),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
    // parse takes a sign as well
    let number = |part: &str| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        let is_padded = part.len() > 1 && part.starts_with('0');
        (is_number && !is_padded).then(|| part.parse::<u32>().ok()).flatten()
    };
    let numbers: Vec<u32> = numbers.split('.').map(number).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [major, _, _] if rest.len() > 1 && rest.chars().all(is_plain) => Some(*major),
        _ => None,
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
        for wrong in [
            "banana", "1", "1.2", "1.2.", "1.2.3.4", "1.x.0", "+1.2.0", "1.2.0-", "1.2.0 ",
            "01.2.0",
        ] {
            let text = message(&format!(r#"{{"ociVersion":"{wrong}"}}"#));
            assert!(text.contains("is not a version"), "{wrong}: {text}");
        }
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
