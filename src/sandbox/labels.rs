//! AppArmor and SELinux: what the program becomes at its execve.

use std::fs::File;
use std::io::Write;

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Error, Result, Step};
use crate::spec::LabelPlan;

/// The profile that confines nothing, as engines call it.
const UNCONFINED: &str = "unconfined";

/// Checks that the kernel has what is asked for; nothing is touched.
///
/// # Errors
/// A profile or label for a security module that is not enabled.
pub(crate) fn check(plan: &LabelPlan) -> Result<()> {
    let disabled = |field: &str, module: &str| {
        Err(Error::unsupported(format!("{field}: {module} is not enabled in this kernel")))
    };
    // where nothing is confined, unconfined is what everything is
    if wanted_profile(plan, true).is_some() && !has_apparmor() {
        return disabled("process.apparmorProfile", "AppArmor");
    }
    for (field, label) in
        [("process.selinuxLabel", &plan.selinux), ("linux.mountLabel", &plan.mount)]
    {
        if label.is_some() && !has_selinux() {
            return disabled(field, "SELinux");
        }
    }
    Ok(())
}

fn wanted_profile(plan: &LabelPlan, without_unconfined: bool) -> Option<&str> {
    plan.apparmor.as_deref().filter(|name| !without_unconfined || *name != UNCONFINED)
}

/// Whether AppArmor is on.
pub(crate) fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether SELinux is on: else its file system is not registered.
pub(crate) fn has_selinux() -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.lines().any(|line| line.ends_with("\tselinuxfs")))
}

/// The files that a label is written to, opened while /proc is the host's: an
/// image or a joined mount namespace could have put something else there.
#[derive(Debug, Default)]
pub(super) struct Files {
    apparmor: Option<File>,
    selinux: Option<File>,
}

/// Opens what the plan needs.
pub(super) fn open(plan: &LabelPlan) -> Result<Files> {
    let mut files = Files::default();
    if plan.apparmor.is_some() && wanted_profile(plan, !has_apparmor()).is_some() {
        files.apparmor = Some(attribute("apparmor/exec").step(|| "process.apparmorProfile")?);
    }
    if plan.selinux.is_some() {
        files.selinux = Some(attribute("exec").step(|| "process.selinuxLabel")?);
    }
    Ok(files)
}

fn attribute(name: &str) -> Result<File> {
    let path = format!("/proc/thread-self/attr/{name}");
    let file = File::options().write(true).open(&path).step(|| format!("open {path}"))?;
    // a write that lands in an ordinary file would confine nothing
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Error::invalid(format!("{path} is not on a proc file system")));
    }
    Ok(file)
}

/// Has the next execve take the labels on.
pub(super) fn apply(plan: &LabelPlan, files: Files) -> Result<()> {
    if let (Some(profile), Some(mut file)) = (&plan.apparmor, files.apparmor) {
        file.write_all(format!("exec {profile}").as_bytes()).map_err(|e| {
            let e = Error::from(e).step(format!("process.apparmorProfile {profile:?}"));
            if e.is_errno(Errno::ENOENT) { e.hint("no such profile is loaded") } else { e }
        })?;
    }
    if let (Some(label), Some(mut file)) = (&plan.selinux, files.selinux) {
        file.write_all(label.as_bytes()).map_err(|e| {
            let e = Error::from(e).step(format!("process.selinuxLabel {label:?}"));
            if e.is_errno(Errno::EINVAL) { e.hint("the policy knows no such context") } else { e }
        })?;
    }
    Ok(())
}
