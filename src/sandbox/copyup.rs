//! tmpcopyup: what the image has below a destination, copied into the tmpfs that
//! is about to hide it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, futimens, mkdirat};
use nix::sys::time::TimeSpec;

use crate::error::{Error, Result, Step};
use crate::sys::caller::is_initial;
use crate::sys::copy::{Attributes, Links, Place, Rules, dress_directory};
use crate::sys::fs::{name_path, names, open_plain};
use crate::sys::mount;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

/// Copies what is below `from`, a directory of the image, into `to`, the root of
/// a tmpfs: types, owners, modes, attributes, names of one file, times. What is
/// mounted below `from` stays behind.
///
/// # Errors
/// Whatever can't be read; a tmpfs that is too small.
pub(super) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // a mount of it alone shows the image's own files below other mounts
    let from = mount::clone_tree_at(from, false).map_err(|errno| {
        let e = Error::from(errno).step("open_tree");
        match errno {
            Errno::EINVAL => e.hint(
                "the host has mounts below it, under which a user namespace \
                                     may not look",
            ),
            _ => e,
        }
    })?;
    copy_tree(from.as_fd(), to).map_err(|e| match e.is_errno(Errno::ENOSPC) {
        true => e.hint("the options size or nr_inodes are too small for what the image has there"),
        false => e,
    })
}

/// The same from a directory that nothing is mounted below, to any empty one.
///
/// # Errors
/// Whatever can't be read or written.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    CopyUp { from, to, links: Links::new(), times: Vec::new() }.tree()
}

struct CopyUp<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    links: Links,
    /// Times of directories, parents first.
    times: Vec<(PathBuf, TimeSpec)>,
}

impl CopyUp<'_> {
    /// By paths and not by a stack of descriptors: an image may nest deeper than
    /// a process may have files open.
    fn tree(&mut self) -> Result<()> {
        let mut todo = vec![PathBuf::from(".")];
        while let Some(path) = todo.pop() {
            todo.extend(self.directory(&path).step(|| format!("copy {}", path.display()))?);
        }
        // now that nothing more is made in them
        for (path, time) in &self.times {
            let fd = open_plain(self.to, path, DIRECTORY, Mode::empty())?;
            futimens(&fd, time, time)?;
        }
        Ok(())
    }

    /// Copies what is in one directory that is there already; the answer is the
    /// directories in it.
    fn directory(&mut self, path: &Path) -> Result<Vec<PathBuf>> {
        let from = open_plain(self.from, path, DIRECTORY, Mode::empty())?;
        let to = open_plain(self.to, path, DIRECTORY, Mode::empty())?;
        let time = dress_directory(from.as_fd(), to.as_fd(), &Tmpfs)?;
        self.times.push((path.to_owned(), time));
        let mut below = Vec::new();
        for (name, _) in names(from.as_fd())? {
            let path = path.join(name_path(&name));
            let step = || format!("copy {}", path.display());
            let place = Place::of(from.as_fd(), to.as_fd(), &name).step(step)?;
            if place.format() == SFlag::S_IFDIR {
                mkdirat(&to, name.as_c_str(), Mode::S_IRWXU).step(step)?;
                below.push(path);
            } else {
                place.copy(self.to, &path, &mut self.links, &Tmpfs).step(step)?;
            }
        }
        Ok(below)
    }
}

/// What a tmpfs of a container takes, which may be one of a user namespace.
struct Tmpfs;

impl Rules for Tmpfs {
    fn attributes(&self, mut all: Attributes) -> Result<Attributes> {
        // the policy gives files of a tmpfs their labels
        all.retain(|(name, _)| name.as_c_str() != c"security.selinux");
        Ok(all)
    }

    /// Before Linux 6.6 a tmpfs has no user attributes, and other kinds are a
    /// matter of the kernel's configuration.
    fn attribute(&self, set: nix::Result<()>) -> nix::Result<()> {
        match set {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    /// An owner that the namespace lacks: the container's root has it then.
    fn owner(&self, changed: nix::Result<()>) -> nix::Result<()> {
        match changed {
            Err(Errno::EINVAL) if !is_initial() => Ok(()),
            other => other,
        }
    }

    /// On a tmpfs of a user namespace it could not be opened anyway.
    fn device(&self, made: nix::Result<()>) -> nix::Result<bool> {
        match made {
            Err(Errno::EPERM) if !is_initial() => Ok(false),
            other => other.map(|()| true),
        }
    }
}
