//! Device nodes for a user namespace, which may not make any: made by root
//! outside, each on a tmpfs of its own, for init to put in their places.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mknodat, umask};
use nix::unistd::{FchownatFlags, Gid, Pid, Uid, fchownat};

use super::sources::open_in_child;
use crate::error::{Error, Result, Step};
use crate::spec::{DevicePlan, IdMapping, Plan, rootless};
use crate::sys::mount::{FsContext, attr, clone_tree, move_mount};

/// The node's owner outside of init's user namespace.
///
/// # Errors
/// The maps can't be read; they lack the id.
fn owner_outside(plan: &DevicePlan, init: Pid) -> Result<(Uid, Gid)> {
    let (uid_map, gid_map) = rootless::maps_of(init)?;
    let outside = |map: &[IdMapping], id: u32, field: &str| {
        let mapping = map.iter().find(|m| id >= m.container && id - m.container < m.size);
        mapping.map(|m| m.host + (id - m.container)).ok_or_else(|| {
            let text = format!("{field} {id} is not in the maps of the user namespace");
            Error::invalid(text)
        })
    };
    let uid = outside(&uid_map, plan.uid, "uid")?;
    let gid = outside(&gid_map, plan.gid, "gid")?;
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Makes a node, as a mount that is in no place yet. The caller has to be a process
/// of its own: it gets another mount namespace, as the kernel copies mounts of that
/// alone (before Linux 6.15).
fn make(plan: &DevicePlan, (uid, gid): (Uid, Gid)) -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let context = FsContext::open("tmpfs")?;
    context.set("source", "tmpfs")?;
    let tmpfs = context.mount(attr::NOSUID | attr::NOEXEC)?;
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    move_mount(tmpfs.as_fd(), root.as_fd())?;
    umask(Mode::empty());
    let mode = Mode::from_bits_truncate(plan.mode);
    mknodat(&tmpfs, NAME, plan.kind, mode, plan.rdev)?;
    fchownat(&tmpfs, NAME, Some(uid), Some(gid), FchownatFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(clone_tree(tmpfs.as_fd(), Path::new(NAME), false, 0)?)
}

const NAME: &str = "node";

/// What a process can say of an error by its exit code.
fn errno_of(e: &Error) -> Errno {
    e.raw_errno().unwrap_or(Errno::EIO)
}

/// The runtime's side: makes the device of this index in a process of its own.
pub(super) fn node_for(init: Pid, plan: &Plan, index: usize) -> Result<OwnedFd> {
    let Some(device) = plan.devices.get(index) else { return Err(Errno::EINVAL.into()) };
    let made = owner_outside(device, init)
        .and_then(|owner| open_in_child(|| make(device, owner).map_err(|e| errno_of(&e))));
    made.and_then(|made| made.step(|| "make it outside of the user namespace"))
        .map_err(|e| e.step(device.label()))
}
