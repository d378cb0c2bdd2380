//! Annotations that change what tare does. All others are for others, and pass
//! through to `state` and to hooks (config.md, Annotations).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const MOUNT_CONTEXT: &str = "run.oci.mount_context_type";
const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
const FAIL_UNKNOWN_CALL: &str = "run.oci.seccomp_fail_unknown_syscall";
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";

/// A file with options for CRIU, which can be told to run programs.
pub const CRIU_CONFIG: &str = "org.criu.config";

/// Those that are honoured: `features` names them, since whoever lets others set
/// annotations has to know.
pub(super) const HONOURED: [&str; 10] = [
    // a dot at the end: all that begin so
    "org.systemd.property.",
    CRIU_CONFIG,
    HOOKS_STDERR,
    HOOKS_STDOUT,
    KEEP_GROUPS,
    MOUNT_CONTEXT,
    PIDFD_RECEIVER,
    SECCOMP_RECEIVER,
    FAIL_UNKNOWN_CALL,
    "run.oci.systemd.subgroup",
];

/// Those that another runtime honours and tare does not: the container would be
/// another one than its maker expects.
const REFUSED: [(&str, &str); 5] = [
    ("run.oci.handler", "tare executes what the kernel executes"),
    ("run.oci.seccomp_bpf_data", "a ready filter can't be checked: linux.seccomp describes one"),
    (
        "run.oci.seccomp.plugins",
        "tare loads no code of others: linux.seccomp.listenerPath names an agent",
    ),
    ("run.oci.systemd.force_cgroup_v1", "tare is for cgroup v2"),
    (
        "run.oci.delegate-cgroup",
        "with a cgroup namespace and a writable mount of it, the container can divide its own cgroup",
    ),
];

/// What a mount's label is called (mount(8), SELinux).
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Longest path of a Unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Files that hooks write to in place of the pipe from which their last words
/// are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookOutput {
    /// For stdout; absolute.
    pub stdout: Option<PathBuf>,
    /// For stderr; absolute.
    pub stderr: Option<PathBuf>,
}

/// What a container's annotations ask of tare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationPlan {
    /// The caller's supplementary groups stay, in place of the config's.
    pub keep_groups: bool,
    /// Name of the mount option for linux.mountLabel, if not `context`.
    pub mount_context: Option<&'static str>,
    /// Socket of the agent for system calls, if the config names none.
    pub seccomp_receiver: Option<PathBuf>,
    /// A system call in the profile that nobody knows is an error.
    pub fail_unknown_call: bool,
    /// Socket for init's pidfd.
    pub pidfd_receiver: Option<PathBuf>,
    /// Where hooks write to.
    pub hook_output: HookOutput,
}

impl AnnotationPlan {
    /// Checks all annotations, and takes out what is for tare.
    ///
    /// # Errors
    /// The first one that is wrong or refused, by its key.
    pub(super) fn resolve(all: &BTreeMap<String, String>) -> Result<Self> {
        if all.contains_key("") {
            return Err(Error::invalid("annotations: a key is an empty string"));
        }
        for (key, reason) in REFUSED {
            if given(all, key).is_some() {
                return Err(Error::unsupported(format!("annotations.{key}: {reason}")));
            }
        }
        Ok(AnnotationPlan {
            keep_groups: is_on(all, KEEP_GROUPS),
            mount_context: mount_context(all)?,
            seccomp_receiver: socket(all, SECCOMP_RECEIVER)?,
            fail_unknown_call: is_on(all, FAIL_UNKNOWN_CALL),
            pidfd_receiver: socket(all, PIDFD_RECEIVER)?,
            hook_output: HookOutput::of(all)?,
        })
    }
}

impl HookOutput {
    /// Takes the two files out of a container's annotations.
    ///
    /// # Errors
    /// A path that is not absolute.
    pub fn of(all: &BTreeMap<String, String>) -> Result<Self> {
        Ok(HookOutput { stdout: path(all, HOOKS_STDOUT)?, stderr: path(all, HOOKS_STDERR)? })
    }
}

fn given<'a>(all: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    all.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// There, and anything but 0: as crun takes them.
fn is_on(all: &BTreeMap<String, String>, key: &str) -> bool {
    all.get(key).is_some_and(|value| value != "0")
}

fn mount_context(all: &BTreeMap<String, String>) -> Result<Option<&'static str>> {
    let Some(word) = given(all, MOUNT_CONTEXT) else { return Ok(None) };
    match CONTEXTS.iter().find(|context| **context == word) {
        Some(context) => Ok(Some(context)),
        None => Err(Error::invalid(format!(
            "annotations.{MOUNT_CONTEXT}: {word:?} is none of context, fscontext, defcontext, \
             rootcontext"
        ))),
    }
}

fn path(all: &BTreeMap<String, String>, key: &str) -> Result<Option<PathBuf>> {
    let Some(text) = given(all, key) else { return Ok(None) };
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Error::invalid(format!("annotations.{key}: {text:?} is not an absolute path")));
    }
    Ok(Some(PathBuf::from(text)))
}

fn socket(all: &BTreeMap<String, String>, key: &str) -> Result<Option<PathBuf>> {
    let found = path(all, key)?;
    match found.as_ref().map(|path| path.as_os_str().len()) {
        Some(length) if length > MAX_SOCKET_PATH => Err(Error::invalid(format!(
            "annotations.{key}: {length} bytes are too many for the path of a socket \
             ({MAX_SOCKET_PATH})"
        ))),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> Result<AnnotationPlan> {
        let all = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        AnnotationPlan::resolve(&all)
    }

    #[test]
    fn those_of_others_change_nothing() {
        let others = [
            ("org.example.key", "value"),
            ("run.oci.systemd.subgroup", "x"),
            ("run.oci.handler", ""),
            ("org.systemd.property.TimeoutStopUSec", "uint64 1"),
            ("run.oci.keep_original_groups", "0"),
        ];
        assert_eq!(resolve(&others).unwrap(), AnnotationPlan::default());
    }

    #[test]
    fn what_is_honoured() {
        let plan = resolve(&[
            ("run.oci.keep_original_groups", "1"),
            ("run.oci.mount_context_type", "rootcontext"),
            ("run.oci.seccomp.receiver", "/s"),
            ("run.oci.seccomp_fail_unknown_syscall", ""),
            ("run.oci.pidfd_receiver", "/p"),
            ("run.oci.hooks.stdout", "/o"),
            ("run.oci.hooks.stderr", "/e"),
        ]);
        let plan = plan.unwrap();
        assert!(plan.keep_groups && plan.fail_unknown_call);
        assert_eq!(plan.mount_context, Some("rootcontext"));
        assert_eq!(plan.seccomp_receiver, Some(PathBuf::from("/s")));
        assert_eq!(plan.pidfd_receiver, Some(PathBuf::from("/p")));
        let output = HookOutput { stdout: Some("/o".into()), stderr: Some("/e".into()) };
        assert_eq!(plan.hook_output, output);
    }
}
