//! `--lsm-profile` and `--lsm-mount-context`: what takes the place of saved labels.

use super::RestoreArgs;
use crate::error::{Error, Result};
use crate::sandbox::labels::{has_apparmor, has_selinux};

/// The first CRIU that replaces the label of mounts; older ones pass over the field.
const REPLACES_CONTEXT: (u64, u64, u64) = (3, 16, 0);

/// Refuses what this kernel or this CRIU has no use for, and would pass over.
pub(super) fn check(args: &RestoreArgs<'_>, criu: (u64, u64, u64)) -> Result<()> {
    if let Some(text) = args.lsm_profile {
        check_profile(text).map_err(|e| e.step(format!("--lsm-profile {text}")))?;
    }
    let Some(label) = args.lsm_mount_context else { return Ok(()) };
    let refused = |why: &str| {
        Err(Error::unsupported(why.to_owned()).step(format!("--lsm-mount-context {label}")))
    };
    if criu < REPLACES_CONTEXT {
        return refused("that takes criu 3.16 or newer");
    }
    match has_selinux() {
        true => Ok(()),
        false => refused("SELinux is not enabled in this kernel"),
    }
}

fn check_profile(text: &str) -> Result<()> {
    let (module, is_enabled) = match text.split_once(':') {
        Some(("apparmor", name)) if !name.is_empty() => ("AppArmor", has_apparmor()),
        Some(("selinux", label)) if !label.is_empty() => ("SELinux", has_selinux()),
        _ => return Err(Error::invalid("give apparmor:NAME or selinux:LABEL")),
    };
    match is_enabled {
        true => Ok(()),
        false => Err(Error::unsupported(format!("{module} is not enabled in this kernel"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_its_module() {
        for wrong in ["", "name", "apparmor:", "selinux:", "smack:x"] {
            let error = check_profile(wrong).unwrap_err().to_string();
            assert!(error.contains("apparmor:NAME"), "{wrong}: {error}");
        }
    }
}
