//! Carries out the mounts of a plan, by descriptors: each mount is made
//! detached, given its attributes, and only then put in its place.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::copyup::copy_up;
use super::over_proc;
use super::path::{MADE, Missing, ensure, ensure_parent, ensure_unfollowed};
use super::sources::Source;
use crate::error::{Error, Result, Step};
use crate::spec::{AttrChange, FsOption, MountKind, MountPlan, Propagation};
use crate::sys::caller::is_initial;
use crate::sys::fs::{is_mount_root_at, open_in_root};
use crate::sys::mount::{self, FsContext, MountAttr, attr};
use crate::sys::spent::Spent;

pub(super) fn kind_of(fd: BorrowedFd<'_>) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits()))
}

/// What one mount leaves for the next.
#[derive(Debug)]
pub(super) struct Mounting<'a> {
    /// The directory that the last one has made, for what is mounted right in it.
    last: Option<(PathBuf, OwnedFd)>,
    spent: &'a mut Spent,
}

impl Drop for Mounting<'_> {
    fn drop(&mut self) {
        self.note(None);
    }
}

impl<'s> Mounting<'s> {
    pub(super) fn new(spent: &'s mut Spent) -> Self {
        Mounting { last: None, spent }
    }

    /// The directory that `path` is in, if no link can be on the way there, and its name.
    fn parent_of<'a>(
        &'a self,
        root: BorrowedFd<'a>,
        path: &'a Path,
    ) -> Option<(BorrowedFd<'a>, &'a OsStr)> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        match &self.last {
            _ if parent == Path::new("/") => Some((root, name)),
            Some((last, dir)) if last == parent => Some((dir.as_fd(), name)),
            _ => None,
        }
    }

    /// `None` where it could be another directory by now.
    fn note(&mut self, last: Option<(&Path, OwnedFd)>) {
        let last = last.map(|(path, dir)| (path.to_owned(), dir));
        let before = std::mem::replace(&mut self.last, last);
        before.into_iter().for_each(|(_, dir)| self.spent.add(dir));
    }
}

/// Carries out one mount below `root`. The mount on /dev stays writable, as
/// the device nodes are still to come: see [`seal_dev`].
pub(super) fn perform(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    source: Option<&Source>,
    mounting: &mut Mounting<'_>,
) -> Result<()> {
    if let MountKind::Filesystem { fstype, source, options, .. } = &plan.kind {
        if let Some(made) = directly(root, plan, (fstype, source, options), mounting) {
            settle(made.as_fd(), plan)?;
            let parent = plan.destination.parent();
            match &mounting.last {
                Some((last, _)) if parent == Some(last) => mounting.spent.add(made),
                _ => mounting.note(Some((&plan.destination, made))),
            }
            return Ok(());
        }
        mounting.note(None);
        return filesystem(root, plan, fstype, source, options);
    }
    // it may be on the way to the last one's place
    mounting.note(None);
    match (&plan.kind, source) {
        (MountKind::Remount(options), _) => remount(root, plan, options),
        (_, Some(Source::Link(text))) => copy_link(root, &plan.destination, text),
        (_, Some(Source::Tree { tree, is_directory })) => {
            bind(root, plan, tree.as_fd(), *is_directory)
        }
        _ => Err(Error::invalid("has no source")),
    }
}

/// A new file system in a directory that is known, which saves the way there. `None`: it
/// has to go the long way, which also tells what is wrong.
fn directly(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    (fstype, source, options): (&str, &str, &[FsOption]),
    mounting: &mut Mounting<'_>,
) -> Option<OwnedFd> {
    // what is there decides about these
    if copies_up(plan) || lacks_mode(fstype, options) || over_proc::is_below(&plan.destination) {
        return None;
    }
    let (dir, name) = mounting.parent_of(root, &plan.destination)?;
    let (made, context) = new_filesystem(None, plan, fstype, source, options).ok()?;
    let in_place = || mount::move_mount_at(made.as_fd(), dir, name);
    let make = || mkdirat(dir, name, MADE);
    let moved = match mounting.last {
        // new itself: what is in there was mounted
        Some((_, ref last)) if last.as_raw_fd() == dir.as_raw_fd() => make()
            .or_else(|e| if e == Errno::EEXIST { Ok(()) } else { Err(e) })
            .and_then(|()| in_place()),
        _ => match in_place() {
            Err(Errno::ENOENT) => make().and_then(|()| in_place()),
            other => other,
        },
    };
    // else both go: some file systems can be there only once
    moved.ok()?;
    mounting.spent.add(context);
    Some(made)
}

fn bind(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    tree: BorrowedFd<'_>,
    is_directory: bool,
) -> Result<()> {
    let missing = if is_directory { Missing::Directory } else { Missing::File };
    let nofollow = matches!(&plan.kind, MountKind::Bind(bind) if bind.dest_nofollow);
    let target = match nofollow {
        true => {
            let target = ensure_unfollowed(root, &plan.destination, missing)?;
            over_proc::refuse(root, target.as_fd(), &plan.destination)?;
            target
        }
        false => over_proc::place(root, &plan.destination, missing)?.0,
    };
    if is_directory != (kind_of(target.as_fd())? == SFlag::S_IFDIR) {
        let (from, to) =
            if is_directory { ("a directory", "not") } else { ("not a directory", "is one") };
        return Err(
            Error::from(Errno::ENOTDIR).step(format!("the source is {from}, the destination {to}"))
        );
    }
    change(tree, false, plan.attrs).step(|| "set attributes")?;
    change(tree, true, plan.recursive_attrs).step(|| "set attributes below")?;
    mount::move_mount(tree, target.as_fd()).step(|| "move_mount")?;
    propagate(tree, &plan.propagation)
}

/// Makes a symbolic link of the host again; one that says the same may be there.
fn copy_link(root: BorrowedFd<'_>, path: &Path, text: &OsStr) -> Result<()> {
    let (dir, name) = ensure_parent(root, path)?;
    match symlinkat(text, &dir, name.as_os_str()) {
        Err(Errno::EEXIST) => match readlinkat(&dir, name.as_os_str()) {
            Ok(found) if found == text => Ok(()),
            _ => Err(Error::from(Errno::EEXIST).step("copy-symlink").hint(format!(
                "the destination is there and no symbolic link to {}",
                Path::new(text).display()
            ))),
        },
        other => other.step(|| "copy-symlink: symlink"),
    }
}

fn filesystem(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    fstype: &str,
    source: &str,
    options: &[FsOption],
) -> Result<()> {
    let (target, was_there) = match fstype {
        // a link in the image must not move them: everything that is written
        // to /proc later counts on it
        "proc" | "sysfs" => (real_directory(root, &plan.destination)?, true),
        _ => over_proc::place(root, &plan.destination, Missing::Directory)?,
    };
    let kept = was_there.then_some(target.as_fd());
    let made = match new_filesystem(kept, plan, fstype, source, options) {
        // sysfs shows a network namespace, and that is not ours
        Err(e) if fstype == "sysfs" && e.is_errno(Errno::EPERM) && !is_initial() => {
            return hosts_sysfs(&target, plan);
        }
        other => other.map_err(|e| explain(e, fstype))?.0,
    };
    if copies_up(plan) {
        // a directory made just now is ours, and says nothing of what the image wants
        if was_there {
            fill(made.as_fd(), target.as_fd(), options).step(|| "tmpcopyup")?;
        }
        change(made.as_fd(), false, AttrChange::setting(attrs_at_first(plan)))
            .step(|| "set attributes")?;
    }
    mount::move_mount(made.as_fd(), target.as_fd()).step(|| "move_mount")?;
    settle(made.as_fd(), plan)
}

/// What comes when a new file system is in its place.
fn settle(made: BorrowedFd<'_>, plan: &MountPlan) -> Result<()> {
    change(made, true, plan.recursive_attrs).step(|| "set attributes below")?;
    propagate(made, &plan.propagation)
}

/// A new instance of a file system, in no mount table yet, and what it was made by. What
/// the image has in its place, `kept`, keeps its permissions; where it has nothing, a tmpfs
/// is open to all users, as /tmp is.
fn new_filesystem(
    kept: Option<BorrowedFd<'_>>,
    plan: &MountPlan,
    fstype: &str,
    source: &str,
    options: &[FsOption],
) -> Result<(OwnedFd, OwnedFd)> {
    let context = FsContext::open(fstype)?;
    context.set("source", source)?;
    set_options(&context, options)?;
    if let (true, Some(kept)) = (lacks_mode(fstype, options), kept) {
        let mode = fstat(kept)?.st_mode & 0o7777;
        context.set("mode", &format!("{mode:o}"))?;
    }
    let attrs = attrs_at_first(plan);
    let made = context.mount(if copies_up(plan) { attrs & !attr::RDONLY } else { attrs })?;
    Ok((made, context.into_fd()))
}

fn set_options(context: &FsContext, options: &[FsOption]) -> Result<()> {
    options.iter().try_for_each(|option| match &option.value {
        Some(value) => context.set(&option.key, value),
        None => context.set_flag(&option.key),
    })
}

fn lacks_mode(fstype: &str, options: &[FsOption]) -> bool {
    fstype == "tmpfs" && !options.iter().any(|o| o.key == "mode")
}

fn copies_up(plan: &MountPlan) -> bool {
    matches!(&plan.kind, MountKind::Filesystem { copies_up: true, .. })
}

/// Without read-only for /dev, as the device nodes are still to come.
fn attrs_at_first(plan: &MountPlan) -> u64 {
    if is_dev(plan) { plan.attrs.set & !attr::RDONLY } else { plan.attrs.set }
}

/// Fills a new tmpfs with what the image has at its place. What the config says
/// of its root counts more than what the image has.
fn fill(made: BorrowedFd<'_>, from: BorrowedFd<'_>, options: &[FsOption]) -> Result<()> {
    let given = fstat(made)?;
    copy_up(from, made)?;
    let has = |key: &str| options.iter().any(|option| option.key == key);
    let uid = has("uid").then_some(Uid::from_raw(given.st_uid));
    let gid = has("gid").then_some(Gid::from_raw(given.st_gid));
    if uid.is_some() || gid.is_some() {
        fchownat(made, ".", uid, gid, AtFlags::empty()).step(|| "chown")?;
    }
    if has("mode") {
        let mode = Mode::from_bits_truncate(given.st_mode);
        fchmodat(made, ".", mode, FchmodatFlags::FollowSymlink).step(|| "chmod")?;
    }
    Ok(())
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
    change(tree.as_fd(), true, AttrChange::setting(all)).step(step)?;
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
    if over_proc::is_below(path) {
        over_proc::refuse(root, opened.as_fd(), path)?;
    }
    Ok(opened)
}

fn remount(root: BorrowedFd<'_>, plan: &MountPlan, options: &[FsOption]) -> Result<()> {
    let target = open_in_root(root, &plan.destination, OFlag::O_PATH, Mode::empty())?;
    if !is_mount_root_at(target.as_fd())? {
        return Err(Error::invalid("nothing is mounted there"));
    }
    if !options.is_empty() {
        let context = FsContext::pick(target.as_fd())?;
        set_options(&context, options)?;
        context.reconfigure()?;
    }
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
    change(target.as_fd(), false, AttrChange::setting(attr::RDONLY)).step(|| plan.label())
}

/// True when the container's /dev is a directory of somebody else, in which
/// the runtime makes no nodes.
pub(super) fn dev_is_bound(plans: &[MountPlan]) -> bool {
    plans.iter().any(|p| is_dev(p) && matches!(p.kind, MountKind::Bind(_)))
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
