//! Overlays of layers, mounted by descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{UnlinkatFlags, chdir, dup3, fchdir, unlinkat};

use super::form;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::mount::{FsContext, MountAttr, attr, clone_tree, mount_setattr};
use crate::sys::process::{self, CloneHow, clone_child};
use crate::sys::uninterrupted;

/// The parts of an overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayPlan {
    /// The layers from the bottom up, as [`Image::layers`] has them.
    ///
    /// [`Image::layers`]: super::store::Image::layers
    pub lower: Vec<PathBuf>,
    /// Where changes go. Without it the overlay is read-only.
    pub upper: Option<PathBuf>,
    /// An empty directory on the file system of `upper`.
    pub work: Option<PathBuf>,
    /// Nothing of `upper` is worth a wait for the disk, at the end of the overlay or when a
    /// program asks for it. Such a pair of directories makes no second overlay (Linux 5.10).
    pub volatile: bool,
}

impl OverlayPlan {
    /// The options that have no value.
    fn flags(&self) -> impl Iterator<Item = &'static str> {
        // the overlay's own attributes are user.overlay.*, in layers and above
        let users = form::is_users().then_some("userxattr");
        users.into_iter().chain(self.volatile.then_some("volatile"))
    }
}

/// Mounts the overlay; it is in no mount table before someone moves it there,
/// and gone when the descriptor is closed.
///
/// # Errors
/// Invalid for a plan that overlayfs has no form for; System with the kernel's
/// own words otherwise.
pub fn mount_detached(plan: &OverlayPlan) -> Result<OwnedFd> {
    let step = || "mount the overlay of the image's layers";
    match (&plan.upper, &plan.work, plan.lower.as_slice()) {
        (_, _, []) => Err(Error::invalid("no layers").step(step())),
        (None, _, [only]) => read_only(only).step(step),
        (Some(_), None, _) => {
            Err(Error::invalid("an upper directory needs a work one").step(step()))
        }
        _ => match of_layers(plan) {
            // the file system could once not write something, and nobody has been told yet
            Err(e) if plan.volatile && e.is_errno(Errno::EIO) => {
                of_layers(&OverlayPlan { volatile: false, ..plan.clone() })
            }
            other => other,
        }
        .step(step),
    }
}

/// The mark by which the kernel refuses to mount the directories of a `volatile` overlay once
/// more, in the directory `work`.
const MARK: [(&str, UnlinkatFlags); 3] = [
    ("work/incompat/volatile/dirty", UnlinkatFlags::NoRemoveDir),
    ("work/incompat/volatile", UnlinkatFlags::RemoveDir),
    ("work/incompat", UnlinkatFlags::RemoveDir),
];

/// Removes the mark of a `volatile` overlay whose directories nobody will mount once more. The
/// overlay may be mounted: it does not look at the mark any more.
///
/// # Errors
/// What can't be removed. That it is not there, or that something else is, is none.
pub fn unmark(dir: BorrowedFd<'_>, work: &Path) -> Result<()> {
    for (path, how) in MARK {
        match unlinkat(dir, &work.join(path), how) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(e) => return Err(e).step(|| format!("remove {path}")),
        }
    }
    Ok(())
}

fn of_layers(plan: &OverlayPlan) -> Result<OwnedFd> {
    match appended(plan) {
        // lowerdir+ came with Linux 6.5
        Err(e) if e.is_errno(Errno::EINVAL) => joined(plan),
        other => other,
    }
}

/// One layer alone is no overlay for the kernel: a read-only view of it is the
/// same.
fn read_only(layer: &Path) -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, layer, false, 0)?;
    let attr = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), false, &attr)?;
    Ok(tree)
}

/// Most bytes of a value that fsconfig(2) takes: 256 with the NUL.
const MAX_VALUE: usize = 255;

fn new_context(plan: &OverlayPlan) -> Result<FsContext> {
    let context = FsContext::open("overlay")?;
    context.set("source", "overlay")?;
    plan.flags().try_for_each(|flag| context.set_flag(flag))?;
    Ok(context)
}

/// Each layer by an option of its own.
fn appended(plan: &OverlayPlan) -> Result<OwnedFd> {
    let context = new_context(plan)?;
    // what stands for a long path has to stay open
    let mut open = Vec::new();
    // overlayfs names the uppermost layer first
    for layer in plan.lower.iter().rev() {
        context.set("lowerdir+", &short(layer, &mut open)?)?;
    }
    if let (Some(upper), Some(work)) = (&plan.upper, &plan.work) {
        context.set("upperdir", &short(upper, &mut open)?)?;
        context.set("workdir", &short(work, &mut open)?)?;
    }
    context.mount(0)
}

/// A path, or a shorter one that leads to the same.
fn short(path: &Path, open: &mut Vec<OwnedFd>) -> Result<String> {
    match path.to_str() {
        Some(text) if text.len() <= MAX_VALUE => Ok(text.to_owned()),
        _ => {
            let fd = open_path(path)?;
            let text = format!("{FDS}/{}", fd.as_raw_fd());
            open.push(fd);
            Ok(text)
        }
    }
}

/// The descriptors of a process, by number. With this as the working directory
/// a path is two or three bytes long, and has nothing in it to escape.
const FDS: &str = "/proc/self/fd";

/// The parts of an overlay as open directories, and the options that name them
/// by their numbers.
struct Numbered {
    /// `lowerdir`, and with an upper directory `upperdir` and `workdir`.
    options: Vec<(&'static str, String)>,
    /// They have to stay open.
    _open: Vec<OwnedFd>,
}

impl Numbered {
    fn open(plan: &OverlayPlan) -> Result<Self> {
        let mut open = Vec::new();
        let mut number = |path: &Path| {
            let fd = open_path(path)?;
            let number = fd.as_raw_fd().to_string();
            open.push(fd);
            Ok::<String, Error>(number)
        };
        let layers = plan.lower.iter().rev().map(|layer| number(layer));
        let mut options = vec![("lowerdir", layers.collect::<Result<Vec<_>>>()?.join(":"))];
        if let (Some(upper), Some(work)) = (&plan.upper, &plan.work) {
            options.push(("upperdir", number(upper)?));
            options.push(("workdir", number(work)?));
        }
        Ok(Numbered { options, _open: open })
    }
}

/// All layers in one option, for kernels that don't take them one by one.
fn joined(plan: &OverlayPlan) -> Result<OwnedFd> {
    let numbered = Numbered::open(plan)?;
    if numbered.options.iter().any(|(_, value)| value.len() > MAX_VALUE) {
        drop(numbered);
        return by_string(plan);
    }
    let _here = WorkingDirectory::change(Path::new(FDS))?;
    let context = new_context(plan)?;
    numbered.options.iter().try_for_each(|(key, value)| context.set(key, value))?;
    context.mount(0)
}

/// By mount(2), which takes a page of options; in a mount namespace of its own,
/// over a directory that nobody sees there.
fn by_string(plan: &OverlayPlan) -> Result<OwnedFd> {
    // the child puts the mount in the place of this one
    let mut place = open("/proc/self/stat", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .step(|| "/proc/self/stat")?;
    let how =
        CloneHow { namespaces: CloneFlags::CLONE_NEWNS, share_files: true, ..CloneHow::default() };
    let child = clone_child(how, || {
        let done = mount_here(plan).and_then(|tree| Ok(dup3(tree, &mut place, OFlag::O_CLOEXEC)?));
        // 0 is success alone: an errno that has no name here is 0 as well
        let code = |e: Error| match e.raw_errno().map_or(0, |errno| errno as i32) {
            errno @ 1..=254 => errno,
            _ => 255,
        };
        process::exit_now(done.err().map_or(0, code))
    })
    .step(|| "clone3")?;
    let wait = || waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
    match uninterrupted(wait).step(|| "wait for the child that mounts the overlay")? {
        WaitStatus::Exited(_, 0) => match fstatfs(&place)?.filesystem_type() {
            OVERLAYFS_SUPER_MAGIC => Ok(place),
            _ => Err(Error::new(ErrorKind::System, "the child has mounted no overlay")),
        },
        WaitStatus::Exited(_, errno) => {
            Err(Error::errno(Errno::from_raw(errno)).step("mount(2) with all layers in one option"))
        }
        _ => Err(Error::new(ErrorKind::System, "the child that mounts the overlay was killed")),
    }
}

fn mount_here(plan: &OverlayPlan) -> Result<OwnedFd> {
    const NO: Option<&str> = None;
    // no mount of this namespace spreads to the one that it was copied from
    mount(NO, "/", NO, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO)?;
    // overlayfs takes directories of mounts of this namespace only: opened here
    let numbered = Numbered::open(plan)?;
    let options = numbered.options.iter().map(|(key, value)| format!("{key}={value}"));
    let options = options.chain(plan.flags().map(str::to_owned));
    let options = options.collect::<Vec<_>>().join(",");
    let target = plan.lower.first().ok_or_else(|| Error::invalid("no layers"))?;
    chdir(FDS)?;
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(clone_tree(AT_FDCWD, target, false, 0)?)
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).step(|| path.display().to_string())
}

/// Another working directory for a while.
struct WorkingDirectory(OwnedFd);

impl WorkingDirectory {
    fn change(to: &Path) -> Result<Self> {
        let before = open_path(Path::new("."))?;
        chdir(to).step(|| to.display().to_string())?;
        Ok(WorkingDirectory(before))
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        // it was the working directory a moment ago
        fchdir(&self.0).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_layers_is_refused() {
        assert!(mount_detached(&OverlayPlan::default()).is_err());
    }
}
