//! Mounts of a container, and the directories that tare keeps things in.

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, openat};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, chdir, pivot_root, unlinkat};

use super::Host;
use super::kernel::explained;
use super::report::Finding;
use super::trial::{self, COVERED};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::overlay::{OverlayPlan, mount_detached};
use crate::sys::fs::{mount_id, open_dir};
use crate::sys::mount::{FsContext, clone_tree, move_mount};
use crate::sys::mountinfo::mounts;

/// The file systems of the default config, each mounted and let go.
pub(super) fn container_mounts(host: &Host) -> Finding {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC;
    let attempt = trial::within(host, namespaces, || {
        trial::cut_off()?;
        for fstype in ["proc", "tmpfs", "devpts", "mqueue", "sysfs"] {
            FsContext::open(fstype)?.mount(0)?;
        }
        Ok(())
    });
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) => {
            let finding = Finding::because("the default config wants it", &e);
            match e.raw_errno() {
                // mount_too_revealing in the kernel
                Some(Errno::EPERM) if host.is_root() => finding.hint(
                    "where /proc or /sys is partly covered, as in a container, a new one may not \
                     show more: start the container around this one privileged",
                ),
                Some(Errno::ENODEV) => finding.hint("boot a kernel that has this file system"),
                _ => finding,
            }
        }
    }
}

/// A tmpfs over [`COVERED`], in the mount namespace of a trial.
fn cover() -> Result<OwnedFd> {
    trial::cut_off()?;
    let mount = FsContext::open("tmpfs")?.mount(0)?;
    move_mount(mount.as_fd(), open_dir(Path::new(COVERED))?.as_fd()).step(|| "move_mount")?;
    Ok(mount)
}

pub(super) fn device_nodes(host: &Host) -> Finding {
    let attempt = trial::within(host, CloneFlags::CLONE_NEWNS, || {
        let mount = cover()?;
        if host.is_root() {
            let mode = Mode::from_bits_truncate(0o666);
            mknodat(&mount, "null", SFlag::S_IFCHR, mode, makedev(1, 3)).step(|| "mknod")?;
            openat(&mount, "null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                .step(|| "open a node that was made")?;
        } else {
            // nobody makes nodes in a user namespace: the host's are bound
            clone_tree(AT_FDCWD, Path::new("/dev/null"), false, 0).step(|| "bind /dev/null")?;
        }
        Ok(())
    });
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) => {
            let finding = Finding::because("for /dev/null and the like", &e);
            match e.raw_errno() {
                Some(Errno::EPERM) => finding.hint(
                    "needs CAP_MKNOD outside of any user namespace, and a device cgroup that allows it",
                ),
                _ => finding,
            }
        }
    }
}

pub(super) fn pivot(host: &Host) -> Finding {
    let attempt = trial::within(host, CloneFlags::CLONE_NEWNS, || {
        cover()?;
        chdir(COVERED).step(|| "chdir")?;
        pivot_root(".", ".").map_err(Error::from)
    });
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) if e.is_errno(Errno::EINVAL) => {
            Finding::fallback("the root is the initial ramfs, which can't be left that way")
                .hint("give create and run --no-pivot")
        }
        Err(e) => explained(Finding::because("to leave the host's root", &e), &e, "2.4"),
    }
}

/// Does `work` in a fresh directory next to where `place` is or would be, and
/// removes that.
///
/// All of it in a child, for a file system may be one that never answers.
fn in_scratch<T>(
    host: &Host,
    place: &Path,
    namespaces: CloneFlags,
    work: impl FnOnce(&Path) -> Result<T>,
) -> Result<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    // no container can have this name
    let name = format!(".tare-doctor~{}", std::process::id());
    let attempt = || {
        let dir = nearest(place)?.join(&name);
        DirBuilder::new().mode(0o700).create(&dir).step(|| format!("mkdir {}", dir.display()))?;
        let result = work(&dir);
        std::fs::remove_dir_all(&dir).step(|| format!("remove {}", dir.display()))?;
        result
    };
    match namespaces.is_empty() {
        true => trial::apart(attempt),
        false => trial::within(host, namespaces, attempt),
    }
}

/// The path itself, or the first directory above it that is there.
pub(super) fn nearest(place: &Path) -> Result<PathBuf> {
    for dir in place.ancestors() {
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => return Ok(dir.to_owned()),
            Ok(_) => return Err(Error::from(Errno::ENOTDIR).step(dir.display())),
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(e) => return Err(Error::from(e).step(dir.display())),
        }
    }
    Err(Error::from(Errno::ENOENT).step(place.display()))
}

/// Type of the file system that an open directory is on, and which of `options`
/// its mount has.
fn file_system(table: &[u8], dir: BorrowedFd<'_>, options: &[&str]) -> (String, Vec<String>) {
    let id = mount_id(dir).ok();
    let Some(mount) = mounts(table).find(|mount| id.is_some() && mount.id() == id) else {
        return ("an unknown file system".to_owned(), Vec::new());
    };
    let set = options.iter().filter(|o| mount.has_option(o)).map(|o| (*o).to_owned());
    (String::from_utf8_lossy(mount.fstype()).into_owned(), set.collect())
}

pub(super) fn state_root(host: &Host) -> Finding {
    let path = match &host.places.state_root {
        Ok(path) => path,
        Err(e) => return Finding::missing(e.to_string()),
    };
    let attempt = in_scratch(host, path, CloneFlags::empty(), |dir| {
        let fd = open_dir(dir)?;
        // `start` calls on a socket there; the way by the descriptor is never too long
        let name = format!("/proc/self/fd/{}/start", fd.as_raw_fd());
        UnixListener::bind(name).step(|| "make a socket")?;
        let kind = file_system(&host.mounts, fd.as_fd(), &[]).0;
        let lock = Flock::lock(fd, FlockArg::LockExclusiveNonblock);
        lock.map_err(|(_, e)| Error::from(e)).step(|| "lock")?;
        Ok(kind)
    });
    match attempt {
        Ok(kind) => Finding::ok(format!("{} ({kind})", path.display())),
        Err(e) => Finding::because(&format!("no container can be kept in {}", path.display()), &e)
            .hint(match e.raw_errno() {
                Some(Errno::ENOTDIR) => "give a directory, or one that can be made: --root DIR",
                Some(Errno::ENOENT) => "give a directory of a file system for files: --root DIR",
                _ => "give a directory that this user may write to: --root DIR",
            }),
    }
}

/// Mount options that one would not expect where images are kept.
const BARRIERS: [&str; 3] = ["noexec", "nosuid", "nodev"];

pub(super) fn store(host: &Host) -> Finding {
    let path = match &host.places.store {
        Ok(path) => path,
        Err(e) => return Finding::missing(e.to_string()),
    };
    let attempt = in_scratch(host, path, CloneFlags::empty(), |dir| {
        let fd = open_dir(dir)?;
        let space = fstatvfs(&fd).step(|| "statfs")?;
        let free = space.blocks_available().saturating_mul(space.fragment_size());
        let (kind, set) = file_system(&host.mounts, fd.as_fd(), &BARRIERS);
        Ok((kind, set, free))
    });
    match attempt {
        Ok((kind, set, free)) => {
            let text = format!("{} ({kind}, {} free)", path.display(), size(free));
            Finding::ok(match set.is_empty() {
                true => text,
                false => format!("{text}; its {} do not reach into overlays", set.join(", ")),
            })
        }
        Err(e) => Finding::because(&format!("no image can be kept in {}", path.display()), &e)
            .hint("give a directory that this user may write to: --store DIR"),
    }
}

/// Bytes for people, in powers of 1024.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while scaled >= 1024 {
        let Some(next) = units.next() else { break };
        (scaled, unit) = (scaled / 1024, next);
    }
    format!("{scaled} {unit}")
}

/// An overlay with its upper directory where the store is: read through it,
/// write to it, and remove a file of the layer.
pub(super) fn overlay(host: &Host) -> Finding {
    let Ok(path) = &host.places.store else {
        return Finding::missing("not tried without a place for images");
    };
    let namespaces = if host.is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNS };
    match in_scratch(host, path, namespaces, try_overlay) {
        Ok(()) => Finding::ok(""),
        Err(e) => {
            let finding = Finding::because("run --image can't work", &e);
            match e.raw_errno() {
                Some(Errno::ENODEV) => finding.hint("boot a kernel with CONFIG_OVERLAY_FS"),
                Some(Errno::EPERM | Errno::EACCES) => explained(finding, &e, "5.11"),
                _ => finding.hint(
                    "put the store on a local file system such as ext4, xfs, btrfs or tmpfs \
                     (--store DIR); unpack --rootfs-mode copy does without overlays",
                ),
            }
        }
    }
}

pub(super) fn try_overlay(dir: &Path) -> Result<()> {
    for name in ["lower", "upper", "work"] {
        DirBuilder::new().mode(0o700).create(dir.join(name)).step(|| name)?;
    }
    File::create(dir.join("lower/file")).and_then(|mut file| file.write_all(b"x"))?;
    let plan = OverlayPlan {
        lower: vec![dir.join("lower")],
        upper: Some(dir.join("upper")),
        work: Some(dir.join("work")),
        volatile: false,
    };
    use_overlay(mount_detached(&plan)?.as_fd())
}

/// Changes an overlay whose layer has a `file` of one byte.
pub(super) fn use_overlay(overlay: BorrowedFd<'_>) -> Result<()> {
    let open = |name: &str, flags: OFlag| {
        let mode = Mode::from_bits_truncate(0o600);
        openat(overlay, name, flags | OFlag::O_CLOEXEC, mode).map(File::from)
    };
    let mut text = String::new();
    let mut file = open("file", OFlag::O_RDWR).step(|| "copy up")?;
    file.read_to_string(&mut text).step(|| "read")?;
    drop(file);
    if text != "x" {
        return Err(Error::new(ErrorKind::System, "the layer's file has lost its content"));
    }
    open("new", OFlag::O_CREAT | OFlag::O_WRONLY).step(|| "create a file")?;
    unlinkat(overlay, "file", UnlinkatFlags::NoRemoveDir).step(|| "hide the layer's file")
}

pub(super) fn lowerdir_plus(host: &Host) -> Finding {
    let attempt = trial::within(host, CloneFlags::CLONE_NEWNS, || {
        let _mount = cover()?;
        let context = FsContext::open("overlay")?;
        for name in ["upper", "lower"] {
            let layer = Path::new(COVERED).join(name);
            DirBuilder::new().create(&layer).step(|| name)?;
            context.set("lowerdir+", &layer.to_string_lossy())?;
        }
        // kernels before the option take its word, and find it strange only here
        context.mount(0).map(drop)
    });
    match attempt {
        Ok(()) => Finding::ok(""),
        Err(e) if e.is_errno(Errno::EINVAL) => Finding::fallback(
            "before Linux 6.5: an image's layers share one option, which holds fewer of them",
        ),
        Err(e) => Finding::info_because("not tried without overlayfs", &e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (5 << 30, "5 GiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_nearest_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert_eq!(nearest(path).unwrap(), path);
        assert_eq!(nearest(&path.join("a/b")).unwrap(), path);
        File::create(path.join("file")).unwrap();
        assert!(nearest(&path.join("file")).unwrap_err().is_errno(Errno::ENOTDIR));
        assert!(nearest(&path.join("file/a")).is_err());
    }
}
