//! Device nodes and the fixed links of /dev.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, major, makedev, minor, mknodat,
};
use nix::unistd::{FchownatFlags, Gid, Uid, fchownat, symlinkat};

use super::mounts::change;
use super::over_proc;
use super::path::{Missing, ensure, ensure_parent};
use crate::error::{Error, Result, Step};
use crate::spec::{AttrChange, DevicePlan};
use crate::sys::caller::{caller, is_initial};
use crate::sys::fs::open_in_root;
use crate::sys::mount::{self, attr};

const DEV: &str = "/dev";

/// Links that every container has (runtime-linux.md, dev symbolic links).
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    // the container's own instance of devpts decides what a pty is
    ("ptmx", "pts/ptmx"),
];

/// Makes the nodes. In a user namespace the kernel refuses mknod (but of a
/// fifo), and mounts take their place: the host's node, which has the host's owner
/// and mode, or what `ask` gets for the plan of this index. The answer is /dev, if the
/// last one is in there.
pub(super) fn make(
    root: BorrowedFd<'_>,
    plans: &[DevicePlan],
    in_userns: bool,
    ask: impl Fn(usize) -> Result<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    for (index, plan) in plans.iter().enumerate() {
        let step = || plan.label();
        let parent = plan.path.parent().unwrap_or(Path::new("/"));
        if last.as_ref().is_none_or(|(path, _)| path != parent) {
            let (dir, _) = ensure_parent(root, &plan.path).step(step)?;
            last = Some((parent.to_owned(), dir));
        }
        let (Some((_, dir)), Some(name)) = (&last, plan.path.file_name()) else {
            continue;
        };
        let made = match in_userns && plan.kind != SFlag::S_IFIFO {
            // whoever is root outside can do better than the host's own, which is
            // good enough for those that every container has
            true if caller().is_host_root() && !is_common(plan) => {
                ask(index).and_then(|node| put(root, plan, node))
            }
            true => bind(root, plan),
            false => match node(dir.as_fd(), name, plan) {
                // root of somebody else's user namespace
                Err(e) if e.is_errno(Errno::EPERM) && !is_initial() => bind(root, plan),
                other => other,
            },
        };
        made.step(step)?;
    }
    Ok(last.and_then(|(path, dir)| (path == Path::new(DEV)).then_some(dir)))
}

/// Sees that the nodes are there, where init can neither make nor mount any.
pub(super) fn find(root: BorrowedFd<'_>, plans: &[DevicePlan]) -> Result<()> {
    for plan in plans {
        let step = || format!("device {}", plan.path.display());
        let found = open_in_root(root, &plan.path, OFlag::O_PATH, Mode::empty()).step(step)?;
        if !is_same(&fstat(&found)?, plan) {
            return Err(Error::invalid("something else is there").step(step()));
        }
    }
    Ok(())
}

fn is_same(found: &FileStat, plan: &DevicePlan) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == plan.kind.bits() && found.st_rdev == plan.rdev
}

fn node(dir: BorrowedFd<'_>, name: &OsStr, plan: &DevicePlan) -> Result<()> {
    let mode = Mode::from_bits_truncate(plan.mode);
    // the umask is zero here: the node is born with its mode
    match mknodat(dir, name, plan.kind, mode, plan.rdev) {
        Ok(()) if plan.uid == 0 && plan.gid == 0 => return Ok(()),
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if !is_same(&found, plan) {
                return Err(Error::from(Errno::EEXIST)
                    .step("mknod")
                    .hint("the image has something else there"));
            }
            chmod_node(dir, name, found.st_ino, mode).step(|| "chmod")?;
        }
        Err(e) => return Err(Error::from(e).step("mknod")),
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    fchownat(dir, name, Some(uid), Some(gid), FchownatFlags::AT_SYMLINK_NOFOLLOW)
        .step(|| "chown")?;
    // chown takes setuid and setgid away, but a device has none that matter
    Ok(())
}

/// Changes the mode of the very node that was looked at: who shares the
/// directory could have put a link to a file of the host in its place.
fn chmod_node(dir: BorrowedFd<'_>, name: &OsStr, inode: u64, mode: Mode) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = openat(dir, name, flags, Mode::empty())?;
    if fstat(&node)?.st_ino != inode {
        return Err(Errno::EAGAIN.into());
    }
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    Ok(fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)?)
}

fn bind(root: BorrowedFd<'_>, plan: &DevicePlan) -> Result<()> {
    let found = fstatat(AT_FDCWD, &plan.path, AtFlags::empty())
        .step(|| "the host's node, which a user namespace has to use")?;
    if !is_same(&found, plan) {
        return Err(Error::invalid(format!(
            "a user namespace has to use the host's node, and that one is {}:{}",
            major(found.st_rdev),
            minor(found.st_rdev)
        )));
    }
    let tree = mount::clone_tree(AT_FDCWD, &plan.path, false, 0).step(|| "open_tree")?;
    // a device has no use for either
    let attrs = AttrChange { set: attr::NOSUID | attr::NOEXEC, clear: 0 };
    change(tree.as_fd(), false, attrs).step(|| "set attributes")?;
    put(root, plan, tree)
}

fn put(root: BorrowedFd<'_>, plan: &DevicePlan, node: OwnedFd) -> Result<()> {
    let (target, _) = over_proc::place(root, &plan.path, Missing::File)?;
    mount::move_mount(node.as_fd(), target.as_fd()).step(|| "move_mount")
}

/// A device that everybody may use (config-linux.md, default devices), as it is on
/// every host.
fn is_common(plan: &DevicePlan) -> bool {
    const COMMON: [(&str, u64, u64); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    let is_it = |(path, major, minor): (&str, u64, u64)| {
        plan.path == Path::new(path) && plan.rdev == makedev(major, minor)
    };
    plan.mode == 0o666 && plan.uid == 0 && plan.gid == 0 && COMMON.into_iter().any(is_it)
}

/// Makes the links, in `dev` if that is open; one that the image has already is left as
/// it is.
pub(super) fn links(root: BorrowedFd<'_>, dev: Option<OwnedFd>) -> Result<()> {
    let dev = match dev {
        Some(dev) => dev,
        None => ensure(root, Path::new(DEV), Missing::Directory)?,
    };
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Err(Errno::EEXIST) if name == "ptmx" => {
                replace_ptmx(root, dev.as_fd()).step(|| "replace /dev/ptmx")?;
            }
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(Error::from(e).step(format!("symlink /dev/{name}"))),
        }
    }
    Ok(())
}

/// A /dev/ptmx node of the image would open ptys of the host.
fn replace_ptmx(root: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> Result<()> {
    let found = fstatat(dev, "ptmx", AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let is_node = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    let own = open_in_root(root, Path::new("/dev/pts/ptmx"), OFlag::O_PATH, Mode::empty());
    let has_own = match own {
        Ok(_) => true,
        Err(Errno::ENOENT | Errno::ENOTDIR) => false,
        Err(e) => return Err(Error::from(e).step("open /dev/pts/ptmx")),
    };
    if is_node && has_own {
        nix::unistd::unlinkat(dev, "ptmx", nix::unistd::UnlinkatFlags::NoRemoveDir)?;
        symlinkat("pts/ptmx", dev, "ptmx")?;
    }
    Ok(())
}
