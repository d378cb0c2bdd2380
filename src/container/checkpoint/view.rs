//! CRIU's own view of the host's files: a mount namespace in which the root file system
//! is a mount, as CRIU wants it, and which nobody else is in. Whatever becomes of this
//! command, the host has nothing to unmount.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result, Step};
use crate::sandbox::open_in_child;
use crate::sys::fs::{mount_id, open_dir};
use crate::sys::{SysResult, mountinfo};

/// The mount namespace; it lasts as long as this, and whoever is in it.
#[derive(Debug)]
pub(super) struct View(OwnedFd);

impl View {
    /// One in which each of these directories is mounted at another one, with what is
    /// mounted below it. The others are in `dir`.
    pub(super) fn new(dir: &Path, mounts: &[(&Path, &Path)]) -> Result<Self> {
        let made = open_in_child(|| {
            mount_apart(dir, mounts).map_err(|e| e.raw_errno().unwrap_or(Errno::EIO))?;
            open_namespace()
        });
        made?.map(View).step(|| "mount the root for criu")
    }

    /// A directory, as it is found in there: CRIU can't mount anything in one that was
    /// opened elsewhere.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        open_in_child(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNS)?;
            open_dir(path)
        })?
        .map_err(Error::from)
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_namespace() -> SysResult<OwnedFd> {
    let opened = File::open("/proc/self/ns/mnt").map(OwnedFd::from);
    opened.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// Only the mount below the new ones is cut off from its peers on the host: bind mounts
/// of the container keep theirs.
fn mount_apart(dir: &Path, mounts: &[(&Path, &Path)]) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let id = mount_id(open_dir(dir)?.as_fd())?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let below = mountinfo::mounts(&table).find(|mount| mount.id() == Some(id));
    let below = below.ok_or(Errno::ENOENT)?.point();
    mount(None::<&str>, &below, None::<&str>, MsFlags::MS_SLAVE, None::<&str>)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    for (source, target) in mounts {
        mount(Some(*source), *target, None::<&str>, bind, None::<&str>)?;
    }
    Ok(())
}
