//! What a config may ask for and not every kernel has.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::statfs::{FsType, statfs};

use super::Host;
use super::report::Finding;
use super::trial;
use crate::error::{Result, Step};
use crate::sys::mount::{FsContext, set_idmap};
use crate::sys::mountinfo::mounts;
use crate::sys::userns::with_maps;

/// CLONE_NEWTIME: libc's type for the flags has no name for it.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// The magic number of selinuxfs (linux/magic.h).
const SELINUX_MAGIC: FsType = FsType(0xf97c_ff8c);

pub(super) fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

pub(super) fn seccomp(_: &Host) -> Finding {
    let Some(actions) = text("/proc/sys/kernel/seccomp/actions_avail") else {
        return Finding::missing("refused: linux.seccomp, which engines set by default")
            .hint("boot a kernel with CONFIG_SECCOMP_FILTER");
    };
    let notify = match actions.split_whitespace().any(|action| action == "user_notif") {
        true => "filters and user notification",
        false => "filters",
    };
    let status = text("/proc/self/status").unwrap_or_default();
    let filtered = status.lines().any(|line| line == "Seccomp:\t2");
    Finding::ok(match filtered {
        true => format!("{notify}; this process is under a filter itself"),
        false => notify.to_owned(),
    })
}

/// True if a security module is active; `None` if that can't be told.
fn has_lsm(name: &str) -> Option<bool> {
    let list = text("/sys/kernel/security/lsm")?;
    Some(list.split(',').any(|lsm| lsm == name))
}

pub(super) fn apparmor(_: &Host) -> Finding {
    let enabled = text("/sys/module/apparmor/parameters/enabled");
    Finding::info(match (enabled.as_deref(), has_lsm("apparmor")) {
        (Some("Y"), _) | (None, Some(true)) => "active",
        (Some(_), _) => "in the kernel, switched off; refused: process.apparmorProfile",
        (None, _) => "not in this kernel; refused: process.apparmorProfile",
    })
}

pub(super) fn selinux(_: &Host) -> Finding {
    let magic = |path| statfs(path).is_ok_and(|found| found.filesystem_type() == SELINUX_MAGIC);
    Finding::info(match (magic("/sys/fs/selinux"), text("/sys/fs/selinux/enforce").as_deref()) {
        (true, Some("1")) => "enforcing",
        (true, _) => "permissive",
        (false, _) if has_lsm("selinux") == Some(true) => {
            "in the kernel, its files are not mounted"
        }
        (false, _) => "not active; refused: process.selinuxLabel, linux.mountLabel",
    })
}

pub(super) fn time_namespace(host: &Host) -> Finding {
    match trial::within(host, NEWTIME, || Ok(())) {
        Ok(()) => Finding::ok(""),
        Err(e) => Finding::because("refused: a time namespace, linux.timeOffsets", &e),
    }
}

/// Gives a detached mount other owners.
pub(super) fn idmap(tree: impl FnOnce() -> Result<OwnedFd>) -> Result<()> {
    let namespace = with_maps("0 100000 65536", "0 100000 65536")?;
    set_idmap(tree()?.as_fd(), false, namespace.as_fd()).step(|| "mount_setattr")
}

pub(super) fn idmapped_mounts(host: &Host) -> Finding {
    if !host.is_root() {
        return Finding::info("refused without root: idmap, uidMappings of mounts");
    }
    match trial::apart(|| idmap(|| FsContext::open("tmpfs")?.mount(0))) {
        Ok(()) => Finding::ok("of a tmpfs; each file system has its own word on it"),
        Err(e) => Finding::info_because("not of a tmpfs, nor perhaps of others", &e),
    }
}

pub(super) fn resctrl(host: &Host) -> Finding {
    if let Some(mount) = mounts(&host.mounts).find(|mount| mount.fstype() == b"resctrl") {
        return Finding::info(format!("mounted at {}", mount.point().display()));
    }
    let known = text("/proc/filesystems").unwrap_or_default();
    let known = known.lines().any(|line| line.split_whitespace().next_back() == Some("resctrl"));
    Finding::info(if known {
        "not mounted; refused: linux.intelRdt"
    } else {
        "not in this kernel or processor; refused: linux.intelRdt"
    })
}
