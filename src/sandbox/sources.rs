//! What bind mounts bring along from the host. For a user namespace it is opened
//! before anything has changed: by init while it has its maker's ids, and by the
//! runtime where only root's own powers, which end at a user namespace, reach.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, AT_FDCWD, OFlag, openat, readlinkat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::wait::WaitStatus;
use nix::unistd::dup3;

use super::idmap::map_text;
use super::mounts::kind_of;
use super::protocol::{Channel, Message};
use super::spawn::wait_for_end;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{BindPlan, IdmapPlan, MountIds, MountKind, MountPlan, Plan, SourceLink};
use crate::sys::SysResult;
use crate::sys::caller::{caller, is_initial};
use crate::sys::fs::{open_dir, top_of_cgroup2};
use crate::sys::mount::{self, FsContext};
use crate::sys::process::{self, CloneHow, clone_child};
use crate::sys::userns;

/// What is to be put at a destination.
pub(super) enum Source {
    /// A detached mount.
    Tree { tree: OwnedFd, is_directory: bool },
    /// The text of a symbolic link, to be made again.
    Link(OsString),
}

impl Source {
    fn tree(tree: OwnedFd) -> Result<Self> {
        let is_directory = kind_of(tree.as_fd())? == SFlag::S_IFDIR;
        Ok(Source::Tree { tree, is_directory })
    }

    /// What [`open_bind`] has opened: a mount, or the symbolic link itself.
    fn of_bind(bind: &BindPlan, opened: OwnedFd) -> Result<Self> {
        if bind.source_link == SourceLink::Copy && kind_of(opened.as_fd())? == SFlag::S_IFLNK {
            return Ok(Source::Link(readlinkat(&opened, "").step(|| "readlink")?));
        }
        Source::tree(opened)
    }
}

/// Init's side: opens the sources of all mounts that have one, by the index of
/// the mount.
pub(super) fn open_all(
    plan: &Plan,
    cgroup: Option<&Path>,
    channel: &Channel,
) -> Result<Vec<Option<Source>>> {
    (0..plan.mounts.len()).map(|index| open(plan, index, cgroup, channel)).collect()
}

/// Init's side: opens the source of one mount, if it has one.
pub(super) fn open(
    plan: &Plan,
    index: usize,
    cgroup: Option<&Path>,
    channel: &Channel,
) -> Result<Option<Source>> {
    let Some(mount) = plan.mounts.get(index) else { return Ok(None) };
    let source = match &mount.kind {
        MountKind::Bind(bind) => {
            open_for(index, bind, channel).and_then(|fd| Source::of_bind(bind, fd))
        }
        MountKind::Cgroup => open_cgroup(plan, cgroup).and_then(Source::tree),
        _ => return Ok(None),
    };
    source.map(Some).map_err(|e| e.step(mount.label()))
}

fn open_for(index: usize, bind: &BindPlan, channel: &Channel) -> Result<OwnedFd> {
    let ask = |namespace: Option<BorrowedFd<'_>>| {
        let fd = channel.ask_for(&Message::OpenSource(index), namespace)?;
        fd.ok_or_else(|| Error::from(Errno::EBADF))
    };
    match &bind.idmap {
        // the file system's owner alone may do that, and init is none in a user
        // namespace
        Some(IdmapPlan { ids: MountIds::Container, .. }) => {
            let own = File::open("/proc/self/ns/user").step(|| "open the user namespace")?;
            ask(Some(own.as_fd()))
        }
        Some(_) => ask(None),
        None => match open_bind(bind) {
            Err(Errno::EACCES) if caller().capable => ask(None),
            other => other.map_err(source_error),
        },
    }
}

fn open_bind(bind: &BindPlan) -> SysResult<OwnedFd> {
    if bind.source_link == SourceLink::Copy {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(AT_FDCWD, &bind.source, flags, Mode::empty())?;
        return match kind_of(found.as_fd())? {
            SFlag::S_IFLNK => Ok(found),
            _ => mount::clone_tree_at(found.as_fd(), bind.recursive),
        };
    }
    let flags = match bind.source_link {
        SourceLink::Mount => nix::libc::AT_SYMLINK_NOFOLLOW,
        _ => 0,
    };
    mount::clone_tree(AT_FDCWD, &bind.source, bind.recursive, flags)
}

fn source_error(errno: Errno) -> Error {
    match errno {
        Errno::ENOENT => Error::invalid("source does not exist"),
        Errno::EINVAL => Error::from(Errno::EINVAL).hint(
            "the source may be unbindable; or there are mounts below it, and a user namespace \
             binds them with it alone: rbind",
        ),
        other => Error::from(other).step("open_tree"),
    }
}

/// A bind of the container's own cgroup: it looks like a mount of its own from
/// inside its cgroup namespace, and unlike one it waits for no RCU grace period.
/// In a joined namespace, whose root is another cgroup, that would show the
/// wrong one: there the mount is new. Without a namespace all cgroups are seen, where
/// /proc/self/cgroup says that its own is; by a bind as well, since a new mount would take
/// the options of the host's back (nsdelegate, memory_recursiveprot).
fn open_cgroup(plan: &Plan, cgroup: Option<&Path>) -> Result<OwnedFd> {
    if plan.namespaces.joins(CloneFlags::CLONE_NEWCGROUP).is_some() {
        match FsContext::open("cgroup2").and_then(|context| context.mount(0)) {
            // a user namespace that does not own the joined one
            Err(e) if e.is_errno(Errno::EPERM) && !is_initial() => {}
            other => return other,
        }
    }
    let cgroup = cgroup.ok_or_else(|| Error::unsupported("no cgroup2 is to be seen here"))?;
    let bind = |path: &Path| mount::clone_tree(AT_FDCWD, path, false, 0);
    if !plan.namespaces.separates(CloneFlags::CLONE_NEWCGROUP) {
        match bind(top_of_cgroup2(cgroup)) {
            // a user namespace gets no mount without those on top of it
            Err(Errno::EINVAL) if !is_initial() => {}
            other => return other.map_err(source_error),
        }
    }
    bind(cgroup).map_err(source_error)
}

/// Init's side: opens the directory of the root file system.
pub(super) fn open_root(path: &Path, channel: &Channel) -> Result<OwnedFd> {
    match open_dir(path) {
        Err(Errno::EACCES) if caller().capable => {
            let fd = channel.ask_for(&Message::OpenRoot, None)?;
            fd.ok_or_else(|| Error::from(Errno::EBADF))
        }
        other => other.step(|| format!("rootfs {}", path.display())),
    }
}

/// The runtime's side of [`open_root`].
pub(super) fn root_for(init: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    open_beside(init, || open_dir(path), Error::from).step(|| format!("rootfs {}", path.display()))
}

/// The runtime's side of [`open_all`]: the source of one bind mount, opened in
/// init's mount namespace, so that it is as locked there as what init opens
/// itself. `namespace` is init's user namespace.
pub(super) fn source_for(
    init: BorrowedFd<'_>,
    plan: &Plan,
    index: usize,
    namespace: Option<OwnedFd>,
) -> Result<OwnedFd> {
    let Some(MountPlan { kind: MountKind::Bind(bind), .. }) = plan.mounts.get(index) else {
        return Err(Errno::EINVAL.into());
    };
    let label = || plan.mounts.get(index).map(MountPlan::label).unwrap_or_default();
    let tree = open_beside(init, || open_bind(bind), source_error).step(label)?;
    if let Some(idmap) = &bind.idmap {
        set_ids(tree.as_fd(), idmap, namespace).step(label)?;
    }
    Ok(tree)
}

fn set_ids(tree: BorrowedFd<'_>, idmap: &IdmapPlan, given: Option<OwnedFd>) -> Result<()> {
    let step = || if idmap.recursive { "ridmap" } else { "idmap" };
    let namespace = match &idmap.ids {
        MountIds::Container => given.ok_or_else(|| Error::from(Errno::EBADF))?,
        MountIds::Own { uid_map, gid_map } => {
            userns::with_maps(&map_text(uid_map), &map_text(gid_map)).step(step)?
        }
    };
    let below = if idmap.recursive { ", or of a mount below it," } else { "" };
    mount::set_idmap(tree, idmap.recursive, namespace.as_fd()).map_err(|errno| {
        let e = Error::from(errno).step(step());
        match errno {
            Errno::EINVAL => e.hint(format!(
                "the kernel can't show the file system of the source{below} under other owners"
            )),
            Errno::EPERM => e.hint(format!(
                "the source{below} is idmapped already, or its file system belongs to a user \
                 namespace that the caller is not root of"
            )),
            _ => e,
        }
    })
}

/// Opens something with root's own powers in init's mount namespace, by a child:
/// the runtime itself can't leave its own without losing its working directory.
fn open_beside(
    init: BorrowedFd<'_>,
    open_it: impl FnOnce() -> SysResult<OwnedFd>,
    explain: impl FnOnce(Errno) -> Error,
) -> Result<OwnedFd> {
    let opened = open_in_child(|| {
        setns(init, CloneFlags::CLONE_NEWNS)?;
        open_it()
    });
    opened?.map_err(explain)
}

/// A descriptor that a child process opens for this one, from where that has gone.
pub(crate) fn open_in_child(
    how: impl FnOnce() -> SysResult<OwnedFd>,
) -> Result<SysResult<OwnedFd>> {
    // the child puts what it opens in the place of this one
    let mut place = fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let shares = CloneHow { share_files: true, ..CloneHow::default() };
    let child = clone_child(shares, || {
        let opened = how().and_then(|fd| dup3(fd, &mut place, OFlag::O_CLOEXEC));
        // an errno without a name is a failure as well
        process::exit_now(opened.err().map_or(0, |errno| match errno as i32 {
            0 => 255,
            number => number,
        }))
    })
    .step(|| "clone3")?;
    match wait_for_end(child.pidfd.as_fd())? {
        WaitStatus::Exited(_, 0) => Ok(Ok(place)),
        WaitStatus::Exited(_, errno) => Ok(Err(Errno::from_raw(errno))),
        _ => Err(Error::new(ErrorKind::System, "a helper was killed")),
    }
}
