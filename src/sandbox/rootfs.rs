//! The container's root: put in place, sealed, and made `/`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::mounts::{change, kind_of};
use crate::error::{Error, Result, Step};
use crate::spec::{AttrChange, Propagation, RootfsPlan};
use crate::sys::fs::open_in_root;
use crate::sys::mount::{self, FsContext, attr};
use crate::sys::spent::Spent;

/// How the old root is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// pivot_root, then the old root is unmounted.
    Pivot,
    /// Moved over `/`, then chroot: where the root is the initial ramfs.
    Move,
    /// chroot alone: the mount namespace is joined, and others live in it.
    Chroot,
}

/// Cuts the new mount namespace off from the host's, so that nothing mounted
/// here is seen there. Mounts of the host still arrive, unless the config
/// says otherwise: bind mounts with `rslave` live from that.
pub(super) fn cut_off(plan: &RootfsPlan) -> Result<()> {
    let default = Propagation { kind: MsFlags::MS_SLAVE, recursive: true };
    let mut wanted = plan.propagation.unwrap_or(default);
    if wanted.kind == MsFlags::MS_UNBINDABLE {
        // nothing could be bound any more: the container's root becomes so at the end
        wanted.kind = MsFlags::MS_PRIVATE;
    }
    let recursive = if wanted.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    mount(None::<&str>, "/", None::<&str>, wanted.kind | recursive, None::<&str>)
        .step(|| "set the propagation of /")?;
    Ok(())
}

/// Whether mounts of the container are the host's as well, if nothing is done about it.
fn reaches_host(plan: &RootfsPlan) -> bool {
    plan.propagation.is_some_and(|p| p.kind == MsFlags::MS_SHARED || !p.recursive)
}

/// Keeps what is mounted at `place`, the root's directory, from the peers of the
/// mount that it is on.
pub(super) fn keep_apart(plan: &RootfsPlan, place: BorrowedFd<'_>) -> Result<()> {
    if !reaches_host(plan) {
        return Ok(());
    }
    // what is mounted on a shared mount shows up at its peers: at the host by
    // the directory's real path: a link on the way would name another mount
    let real = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
        .step(|| "path of the rootfs")?;
    let parent = mount_point_of(&real)?;
    mount(None::<&str>, parent.as_str(), None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .step(|| format!("make {parent} private"))
}

/// The mount point that a path is on: the longest one that is a prefix.
fn mount_point_of(path: &Path) -> Result<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").step(|| "read mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let best = points.filter(|p| path.starts_with(p)).max_by_key(String::len);
    Ok(best.unwrap_or_else(|| "/".to_owned()))
}

/// Undoes the \ooo of mountinfo (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let code = after.get(1..4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = after.get(4..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// The root as a mount of its own, over the place where it is: what every
/// later path is resolved in.
///
/// `given` is a detached mount that takes the place of the directory.
pub(super) fn attach(place: BorrowedFd<'_>, given: Option<OwnedFd>) -> Result<OwnedFd> {
    let tree = match given {
        Some(tree) => tree,
        None => mount::clone_tree_at(place, true).step(|| "open_tree")?,
    };
    mount::move_mount(tree.as_fd(), place).step(|| "move_mount")?;
    Ok(tree)
}

/// Hides paths: a file becomes /dev/null, a directory an empty read-only
/// tmpfs, the same one for all. What is not there needs no hiding.
pub(super) fn mask(
    root: BorrowedFd<'_>,
    paths: &[std::path::PathBuf],
    spent: &mut Spent,
) -> Result<()> {
    let (mut directory, mut file) = (None, None);
    for path in paths {
        let step = || format!("mask {}", path.display());
        let target = match open_in_root(root, path, OFlag::O_PATH, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(e) => return Err(Error::from(e).step(step())),
        };
        let is_directory = kind_of(target.as_fd()).step(step)? == SFlag::S_IFDIR;
        let first: &mut Option<OwnedFd> = if is_directory { &mut directory } else { &mut file };
        let cover = match (&first, is_directory) {
            // of one in its place: only since Linux 6.15 a detached one will do
            (Some(first), _) => mount::clone_tree_at(first.as_fd(), false).step(step)?,
            (None, true) => empty_directory(spent).map_err(|e| e.step(step()))?,
            (None, false) => null_device().map_err(|e| e.step(step()))?,
        };
        mount::move_mount(cover.as_fd(), target.as_fd()).step(step)?;
        spent.add(target);
        match first {
            Some(_) => spent.add(cover),
            None => *first = Some(cover),
        }
    }
    directory.into_iter().chain(file).for_each(|first| spent.add(first));
    Ok(())
}

fn empty_directory(spent: &mut Spent) -> Result<OwnedFd> {
    let context = FsContext::open("tmpfs")?;
    context.set("source", "tmpfs")?;
    context.set("nr_inodes", "1")?;
    context.set("mode", "755")?;
    let made = context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    spent.add(context.into_fd());
    Ok(made)
}

/// A mount of the host's /dev/null, which is the real one: the container's may
/// have been replaced by something that the host should not lose. Read-only: what is
/// written goes nowhere all the same, and its mode and times stay the host's affair.
fn null_device() -> Result<OwnedFd> {
    let null = mount::clone_tree(AT_FDCWD, Path::new("/dev/null"), false, 0)
        .step(|| "open_tree /dev/null")?;
    let found = fstat(&null)?;
    let is_null = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
        && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3);
    if !is_null {
        return Err(Error::invalid("the host's /dev/null is not the null device"));
    }
    let all = attr::RDONLY | attr::NOSUID | attr::NOEXEC;
    change(null.as_fd(), false, AttrChange::setting(all)).step(|| "make /dev/null read-only")?;
    Ok(null)
}

/// Makes paths read-only, with the mounts below them as they are.
pub(super) fn make_readonly(
    root: BorrowedFd<'_>,
    paths: &[std::path::PathBuf],
    spent: &mut Spent,
) -> Result<()> {
    let read_only = AttrChange::setting(attr::RDONLY);
    for path in paths {
        let step = || format!("make {} read-only", path.display());
        let target = match open_in_root(root, path, OFlag::O_PATH, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(e) => return Err(Error::from(e).step(step())),
        };
        let tree = mount::clone_tree_at(target.as_fd(), true).step(step)?;
        change(tree.as_fd(), false, read_only).step(step)?;
        mount::move_mount(tree.as_fd(), target.as_fd()).step(step)?;
        spent.add(target);
        spent.add(tree);
    }
    Ok(())
}

/// Makes the root itself read-only.
pub(super) fn seal(root: BorrowedFd<'_>) -> Result<()> {
    change(root, false, AttrChange::setting(attr::RDONLY)).step(|| "make the root read-only")
}

/// Makes `root` the process' `/`.
pub(super) fn enter(root: BorrowedFd<'_>, plan: &RootfsPlan, leave: Leave) -> Result<()> {
    let old = match leave {
        Leave::Pivot if reaches_host(plan) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            Some(open("/", flags, Mode::empty()).step(|| "open the old root")?)
        }
        _ => None,
    };
    fchdir(root).step(|| "enter the root")?;
    match leave {
        Leave::Pivot => {
            // the old root lands on top of the new one, without a directory
            // for it in the image
            pivot_root(".", ".").step(|| "pivot_root")?;
            if let Some(old) = &old {
                // the unmount must not reach the host; nor may this reach the new root,
                // which "." would be
                fchdir(old).step(|| "enter the old root")?;
                let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
                mount(None::<&str>, ".", None::<&str>, slave, None::<&str>)
                    .step(|| "cut the old root off")?;
            }
            umount2(".", MntFlags::MNT_DETACH).step(|| "unmount the old root")?;
        }
        Leave::Move => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .step(|| "move the root over /")?;
            chroot(".").step(|| "chroot")?;
        }
        Leave::Chroot => chroot(".").step(|| "chroot")?,
    }
    if old.is_some() {
        // else this is where it is
        chdir("/").step(|| "chdir /")?;
    }
    if let Some(p) = plan.propagation {
        let recursive = if p.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
        mount(None::<&str>, "/", None::<&str>, p.kind | recursive, None::<&str>)
            .step(|| "linux.rootfsPropagation")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn mountinfo_escapes() {
        assert_eq!(super::unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(super::unescape(r"/plain\"), r"/plain\");
    }
}
