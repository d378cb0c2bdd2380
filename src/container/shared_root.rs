//! The root of a container without a mount namespace: one mount in the caller's,
//! below which all of the container's mounts are, and with which they go.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step};
use crate::sys::fs::{mount_id, open_dir};
use crate::sys::mount::{MountAttr, clone_tree_at, mount_setattr, move_mount};

/// Where the mount is, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRoot {
    /// The directory that it covers, without links.
    path: PathBuf,
    /// The kernel's number of it (proc_pid_mountinfo(5), field 1).
    id: u64,
    /// The mount namespace that it is in: the inode of /proc/self/ns/mnt.
    #[serde(default)]
    namespace: u64,
}

/// A root that is not mounted yet.
pub(super) struct Detached {
    tree: OwnedFd,
    place: OwnedFd,
}

impl SharedRoot {
    /// Makes the mount, in no place yet: what is known of it can be kept first.
    ///
    /// `given` is a detached mount that takes the place of the directory's own.
    pub(super) fn prepare(rootfs: &Path, given: Option<OwnedFd>) -> Result<(Self, Detached)> {
        let step = || format!("rootfs {}", rootfs.display());
        let place = open_dir(rootfs).step(step)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).step(step)?;
        let tree = match given {
            Some(tree) => tree,
            None => clone_tree_at(place.as_fd(), true)
                .map_err(|e| Error::from(e).step("open_tree").step(step()))?,
        };
        let id = mount_id(tree.as_fd()).step(step)?;
        let namespace = mount_namespace().step(step)?;
        Ok((SharedRoot { path, id, namespace }, Detached { tree, place }))
    }

    /// Takes the mount and all below it away; it may be gone already. From another
    /// mount namespace it is out of reach, which is a warning.
    pub(super) fn remove(&self) -> Result<()> {
        let step = || format!("unmount the rootfs {}", self.path.display());
        if self.namespace != 0 && mount_namespace().step(step)? != self.namespace {
            crate::logging::warn(&format!(
                "the mount at {} may be left: it is in the mount namespace of who created the \
                 container, mnt:[{}], and this is another one",
                self.path.display(),
                self.namespace
            ));
            return Ok(());
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let top = match open(&self.path, flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.step(step)?,
        };
        if mount_id(top.as_fd()).step(step)? != self.id {
            return Ok(());
        }
        // by what was looked at: the path may lead elsewhere by now
        let found = format!("/proc/self/fd/{}", top.as_raw_fd());
        umount2(found.as_str(), MntFlags::MNT_DETACH).step(step)
    }
}

fn mount_namespace() -> std::io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/mnt")?.ino())
}

impl Detached {
    /// Puts the mount in its place. What is mounted below it later is seen in no
    /// other mount namespace.
    pub(super) fn attach(self) -> Result<OwnedFd> {
        move_mount(self.tree.as_fd(), self.place.as_fd()).step(|| "mount the rootfs")?;
        let private = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
        mount_setattr(self.tree.as_fd(), true, &private).step(|| "make the rootfs private")?;
        Ok(self.tree)
    }
}
