//! process.apparmorProfile, process.selinuxLabel, linux.mountLabel.

use oci_spec::runtime::{Linux, Process};

use super::mounts::{FsOption, MountKind, MountPlan};
use crate::error::{Error, Result};

/// File systems that take no label of the container: the kernel has its own.
const UNLABELLED: [&str; 3] = ["proc", "sysfs", "mqueue"];

/// What the kernel's security modules are asked for; `None` is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelPlan {
    /// Name of an AppArmor profile that is loaded.
    pub apparmor: Option<String>,
    /// SELinux context of the program.
    pub selinux: Option<String>,
    /// SELinux context of the container's file systems.
    pub mount: Option<String>,
}

impl LabelPlan {
    pub(super) fn resolve(process: &Process, linux: Option<&Linux>) -> Result<Self> {
        let mount = linux.and_then(|l| l.mount_label().as_deref());
        Ok(LabelPlan {
            apparmor: label("process.apparmorProfile", process.apparmor_profile().as_deref())?,
            selinux: label("process.selinuxLabel", process.selinux_label().as_deref())?,
            mount: label("linux.mountLabel", mount)?,
        })
    }

    /// Gives the mount label to the file systems that are made for the
    /// container, unless the config labels one itself. By `option`, or `context`.
    pub(super) fn label_mounts(&self, mounts: &mut [MountPlan], option: Option<&str>) {
        let Some(label) = &self.mount else { return };
        for mount in mounts {
            let MountKind::Filesystem { fstype, options, .. } = &mut mount.kind else { continue };
            let labelled = options.iter().any(|option| option.key.ends_with("context"));
            if !labelled && !UNLABELLED.contains(&fstype.as_str()) {
                let key = option.unwrap_or("context").to_owned();
                options.push(FsOption { key, value: Some(label.clone()) });
            }
        }
    }
}

fn label(field: &str, text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.contains(|c: char| c.is_control()) {
        return Err(Error::invalid(format!("{field}: {text:?} is not a name")));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::NamespacePlan;

    #[test]
    fn empty_is_nothing() {
        let process = r#"{"user":{},"cwd":"/","apparmorProfile":"","selinuxLabel":""}"#;
        let process: Process = serde_json::from_str(process).unwrap();
        assert_eq!(LabelPlan::resolve(&process, None).unwrap(), LabelPlan::default());
        let process = r#"{"user":{},"cwd":"/","apparmorProfile":"a\nb"}"#;
        let process: Process = serde_json::from_str(process).unwrap();
        let text = LabelPlan::resolve(&process, None).unwrap_err().to_string();
        assert!(text.starts_with("process.apparmorProfile: "), "{text}");
    }

    #[test]
    fn file_systems_are_labelled_once() {
        let mount = |text: &str| {
            let (mount, none) = (serde_json::from_str(text).unwrap(), NamespacePlan::default());
            MountPlan::resolve(0, &mount, Path::new("/b"), &none).unwrap()
        };
        let mut mounts = [
            mount(r#"{"destination":"/a","type":"tmpfs"}"#),
            mount(r#"{"destination":"/p","type":"proc"}"#),
            mount(r#"{"destination":"/c","type":"tmpfs","options":["rootcontext=x"]}"#),
        ];
        let plan = LabelPlan { mount: Some("u:r:t,s0".into()), ..LabelPlan::default() };
        let mut others = mounts.clone();
        plan.label_mounts(&mut others, Some("fscontext"));
        let MountKind::Filesystem { options, .. } = &others[0].kind else { panic!("{others:?}") };
        assert_eq!(options[0].key, "fscontext");
        plan.label_mounts(&mut mounts, None);
        let keys = mounts.map(|m| match m.kind {
            MountKind::Filesystem { options, .. } => {
                options.into_iter().map(|o| o.key).collect::<Vec<_>>().join(",")
            }
            _ => String::new(),
        });
        assert_eq!(keys, ["context", "", "rootcontext"]);
    }
}
