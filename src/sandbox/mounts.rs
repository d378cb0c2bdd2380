//! Carries out the mounts of a plan, by descriptors: each mount is made
//! detached, given its attributes, and only then put in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::path::{Missing, ensure};
use crate::error::{Error, Result, Step};
use crate::spec::{AttrChange, FsOption, MountKind, MountPlan, Propagation};
use crate::sys::caller::{caller, is_initial};
use crate::sys::fs::open_in_root;
use crate::sys::mount::{self, FsContext, MountAttr, attr};

/// What a bind mount brings along, opened before anything changed.
///
/// Sources are paths of the host; in a new user namespace they are opened
/// while init still is the user who made it, and may look into directories
/// that the container's root can't.
pub(super) struct Source {
    tree: OwnedFd,
    is_directory: bool,
}

/// Opens the sources of all bind mounts, by the index of the mount. What is
/// closed to init, in a user namespace, `ask` is to get from the runtime.
pub(super) fn open_sources(
    plans: &[MountPlan],
    cgroup: Option<&Path>,
    ask: impl Fn(usize) -> Result<OwnedFd>,
) -> Result<Vec<Option<Source>>> {
    plans
        .iter()
        .enumerate()
        .map(|(index, plan)| match &plan.kind {
            MountKind::Bind { source, recursive } => {
                let tree = match open_tree(source, *recursive) {
                    Err(e) if e.is_errno(Errno::EACCES) && caller().is_host_root() => ask(index),
                    other => other,
                };
                tree.and_then(Source::new).map(Some).map_err(|e| e.step(plan.label()))
            }
            // a bind of the container's own cgroup: it looks like a mount of
            // its own from inside, and unlike one it waits for no RCU grace
            // period
            MountKind::Cgroup => {
                let cgroup = cgroup.ok_or_else(|| {
                    Error::unsupported("no cgroup2 is to be seen here").step(plan.label())
                })?;
                open_tree(cgroup, false)
                    .and_then(Source::new)
                    .map(Some)
                    .map_err(|e| e.step(plan.label()))
            }
            _ => Ok(None),
        })
        .collect()
}

/// A detached copy of the mount at a path.
fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    mount::clone_tree(AT_FDCWD, path, recursive, 0).map_err(source_error)
}

/// Why the source of a bind mount can't be opened.
pub(super) fn source_error(errno: Errno) -> Error {
    match errno {
        Errno::ENOENT => Error::invalid("source does not exist"),
        Errno::EINVAL => Error::from(Errno::EINVAL).hint(
            "the source may be unbindable; or there are mounts below it, and a user namespace \
             binds them with it alone: rbind",
        ),
        other => Error::from(other).step("open_tree"),
    }
}

impl Source {
    fn new(tree: OwnedFd) -> Result<Self> {
        let is_directory = kind_of(tree.as_fd())? == SFlag::S_IFDIR;
        Ok(Source { tree, is_directory })
    }
}

pub(super) fn kind_of(fd: BorrowedFd<'_>) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits()))
}

/// Carries out one mount below `root`. The mount on /dev stays writable, as
/// the device nodes are still to come: see [`seal_dev`].
pub(super) fn perform(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    source: Option<&Source>,
) -> Result<()> {
    let tree = match (&plan.kind, source) {
        (MountKind::Filesystem { fstype, source, options }, _) => {
            return filesystem(root, plan, fstype, source, options);
        }
        (MountKind::Remount, _) => return remount(root, plan),
        (_, Some(source)) => source,
        (_, None) => return Err(Error::invalid("has no source")),
    };
    let missing = if tree.is_directory { Missing::Directory } else { Missing::File };
    let target = ensure(root, &plan.destination, missing)?;
    if tree.is_directory != (kind_of(target.as_fd())? == SFlag::S_IFDIR) {
        let (from, to) =
            if tree.is_directory { ("a directory", "not") } else { ("not a directory", "is one") };
        return Err(
            Error::from(Errno::ENOTDIR).step(format!("the source is {from}, the destination {to}"))
        );
    }
    change(tree.tree.as_fd(), false, plan.attrs).step(|| "set attributes")?;
    change(tree.tree.as_fd(), true, plan.recursive_attrs).step(|| "set attributes below")?;
    mount::move_mount(tree.tree.as_fd(), target.as_fd()).step(|| "move_mount")?;
    propagate(tree.tree.as_fd(), &plan.propagation)
}

fn filesystem(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    fstype: &str,
    source: &str,
    options: &[FsOption],
) -> Result<()> {
    let target = match fstype {
        // a link in the image must not move them: everything that is written
        // to /proc later counts on it
        "proc" | "sysfs" => real_directory(root, &plan.destination)?,
        _ => ensure(root, &plan.destination, Missing::Directory)?,
    };
    let made = match new_filesystem(target.as_fd(), plan, fstype, source, options) {
        // sysfs shows a network namespace, and that is not ours
        Err(e) if fstype == "sysfs" && e.is_errno(Errno::EPERM) && !is_initial() => {
            return hosts_sysfs(&target, plan);
        }
        other => other.map_err(|e| explain(e, fstype))?,
    };
    mount::move_mount(made.as_fd(), target.as_fd()).step(|| "move_mount")?;
    change(made.as_fd(), true, plan.recursive_attrs).step(|| "set attributes below")?;
    propagate(made.as_fd(), &plan.propagation)
}

/// A new instance of a file system, in no mount table yet.
fn new_filesystem(
    target: BorrowedFd<'_>,
    plan: &MountPlan,
    fstype: &str,
    source: &str,
    options: &[FsOption],
) -> Result<OwnedFd> {
    let context = FsContext::open(fstype)?;
    context.set("source", source)?;
    for option in options {
        match &option.value {
            Some(value) => context.set(&option.key, value)?,
            None => context.set_flag(&option.key)?,
        }
    }
    if fstype == "tmpfs" && !options.iter().any(|o| o.key == "mode") {
        // what the image has there keeps its permissions
        let mode = fstat(target)?.st_mode & 0o7777;
        context.set("mode", &format!("{mode:o}"))?;
    }
    let mut attrs = plan.attrs.set;
    if is_dev(plan) {
        attrs &= !attr::RDONLY;
    }
    context.mount(attrs)
}

/// What a user namespace is missing, where it is not allowed a mount.
fn explain(e: Error, fstype: &str) -> Error {
    if !e.is_errno(Errno::EPERM) || is_initial() {
        return e;
    }
    match fstype {
        "proc" => e.hint(
            "a user namespace needs a pid namespace of its own for it, and a /proc outside that \
             nothing is mounted over: inside a container, one without maskedPaths",
        ),
        "mqueue" => e.hint("a user namespace needs an ipc namespace of its own for it"),
        "tmpfs" | "devpts" | "overlay" => e,
        _ => e.hint("the kernel lets no user namespace mount this file system"),
    }
}

/// In place of a sysfs of the container's own: the host's, read-only with all
/// that is mounted in it.
fn hosts_sysfs(target: &OwnedFd, plan: &MountPlan) -> Result<()> {
    let step = || "bind the host's /sys";
    let tree = mount::clone_tree(AT_FDCWD, Path::new("/sys"), true, 0).step(step)?;
    let all = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    change(tree.as_fd(), true, AttrChange { set: all, clear: 0 }).step(step)?;
    mount::move_mount(tree.as_fd(), target.as_fd()).step(step)?;
    propagate(tree.as_fd(), &plan.propagation)
}

/// A directory that no symbolic link leads to, made if it is missing.
fn real_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let made = ensure(root, path, Missing::Directory)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let how = nix::fcntl::OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(
            nix::fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS | nix::fcntl::ResolveFlag::RESOLVE_BENEATH,
        );
    let opened = nix::fcntl::openat2(root, relative, how).map_err(|e| match e {
        Errno::ELOOP => Error::invalid("a symbolic link in the image leads there: refused"),
        e => Error::from(e),
    })?;
    drop(made);
    Ok(opened)
}

fn remount(root: BorrowedFd<'_>, plan: &MountPlan) -> Result<()> {
    let target = open_in_root(root, &plan.destination, OFlag::O_PATH, Mode::empty())?;
    change(target.as_fd(), false, plan.attrs).step(|| "set attributes")?;
    change(target.as_fd(), true, plan.recursive_attrs).step(|| "set attributes below")?;
    propagate(target.as_fd(), &plan.propagation)
}

fn is_dev(plan: &MountPlan) -> bool {
    plan.destination == Path::new("/dev")
}

/// Makes the mount on /dev read-only now, if the plan wants it so.
pub(super) fn seal_dev(root: BorrowedFd<'_>, plans: &[MountPlan]) -> Result<()> {
    let wants = |p: &&MountPlan| {
        is_dev(p)
            && p.attrs.set & attr::RDONLY != 0
            && matches!(p.kind, MountKind::Filesystem { .. })
    };
    let Some(plan) = plans.iter().rfind(wants) else {
        return Ok(());
    };
    let target = open_in_root(root, &plan.destination, OFlag::O_PATH, Mode::empty())?;
    let read_only = AttrChange { set: attr::RDONLY, clear: 0 };
    change(target.as_fd(), false, read_only).step(|| plan.label())
}

/// True when the container's /dev is a directory of somebody else, in which
/// the runtime makes no nodes.
pub(super) fn dev_is_bound(plans: &[MountPlan]) -> bool {
    plans.iter().any(|p| is_dev(p) && matches!(p.kind, MountKind::Bind { .. }))
}

/// Changes attributes. What a user namespace may not take away from a mount of
/// the host's (read-only, nosuid, nodev, noexec, its access times) stays.
pub(super) fn change(fd: BorrowedFd<'_>, recursive: bool, by: AttrChange) -> nix::Result<()> {
    if by.is_empty() {
        return Ok(());
    }
    let set = |by: AttrChange| {
        let attr = MountAttr { set: by.set, clear: by.clear, ..MountAttr::default() };
        mount::mount_setattr(fd, recursive, &attr)
    };
    match set(by) {
        Err(Errno::EPERM) if !is_initial() => match by.without_what_locks() {
            rest if rest == by => Err(Errno::EPERM),
            rest if rest.is_empty() => Ok(()),
            rest => set(rest),
        },
        other => other,
    }
}

pub(super) fn propagate(fd: BorrowedFd<'_>, list: &[Propagation]) -> Result<()> {
    for p in list {
        let attr = MountAttr { propagation: p.kind.bits(), ..MountAttr::default() };
        mount::mount_setattr(fd, p.recursive, &attr).step(|| "set propagation")?;
    }
    Ok(())
}
