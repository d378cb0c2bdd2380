//! tmpcopyup: what the image has below a destination, copied into the tmpfs that
//! is about to hide it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mkdirat};

use crate::error::{Error, Result, Step};
use crate::sys::caller::is_initial;
use crate::sys::copy::{self, Attributes, Finish, Links, Rules, dress_directory};
use crate::sys::fs::{name_path, open_plain};
use crate::sys::mount;
use crate::sys::walk::{Place, Walk};

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
    let again = |dir| open_plain(dir, Path::new("."), DIRECTORY, Mode::empty());
    let mut copy = CopyUp {
        from: Walk::new(again(from)?)?,
        to: Place::new(again(to)?),
        top: to,
        links: Links::new(),
        rest: Vec::new(),
    };
    let done = copy.tree();
    done.map_err(|e| e.step(format!("copy {}", Path::new(".").join(copy.from.path()).display())))
}

struct CopyUp<'a> {
    from: Walk,
    to: Place,
    top: BorrowedFd<'a>,
    links: Links,
    /// Of the directories that the walk is in.
    rest: Vec<Finish>,
}

impl CopyUp<'_> {
    fn tree(&mut self) -> Result<()> {
        self.begin()?;
        loop {
            if let Some(name) = self.from.next_name() {
                self.entry(&name).step(|| name.to_string_lossy().into_owned())?;
                continue;
            }
            // now that nothing more is made in it
            if let Some(rest) = self.rest.pop() {
                rest.give(self.to.here(), &Tmpfs)?;
            }
            if !self.from.leave()? {
                return Ok(());
            }
            self.to.leave()?;
        }
    }

    /// A directory that has been entered, in both trees.
    fn begin(&mut self) -> Result<()> {
        self.rest.push(dress_directory(self.from.here(), self.to.here(), &Tmpfs)?);
        Ok(())
    }

    fn entry(&mut self, name: &CStr) -> Result<()> {
        let entry = copy::Entry::of(self.from.here(), self.to.here(), name)?;
        if entry.format() == SFlag::S_IFDIR {
            mkdirat(self.to.here(), name, Mode::S_IRWXU)?;
            self.from.enter(name)?;
            self.to.enter(name)?;
            return self.begin();
        }
        let path = self.from.path().join(name_path(name));
        entry.copy(self.top, &path, &mut self.links, &Tmpfs)
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use nix::fcntl::{AtFlags, openat};
    use nix::sys::stat::{FchmodatFlags, fchmodat, fstatat, futimens};
    use nix::sys::time::TimeSpec;
    use nix::unistd::linkat;

    use crate::sys::fs::open_dir;
    use crate::sys::walk::open_deep;

    const DEPTH: usize = 3000;
    const NAME: &str = "directory";

    fn deep(top: &Path, levels: usize) -> OwnedFd {
        let path: std::path::PathBuf = std::iter::repeat_n(NAME, levels).collect();
        open_deep(open_dir(top).unwrap().as_fd(), &path).unwrap()
    }

    #[test]
    fn a_tree_is_copied_however_deep_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        let mut here = open_dir(&from).unwrap();
        for _ in 0..DEPTH {
            mkdirat(&here, NAME, Mode::S_IRWXU).unwrap();
            fchmodat(&here, NAME, Mode::from_bits_truncate(0o2751), FchmodatFlags::FollowSymlink)
                .unwrap();
            here = openat(&here, NAME, DIRECTORY, Mode::empty()).unwrap();
        }
        // a file with two names, both longer than the kernel takes
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let file = openat(&here, "file", flags, Mode::S_IRUSR).unwrap();
        nix::unistd::write(&file, b"content").unwrap();
        linkat(&here, "file", deep(&from, DEPTH - 1), "other", AtFlags::empty()).unwrap();
        let time = TimeSpec::new(1_000_000_000, 5);
        futimens(&here, &time, &time).unwrap();

        copy_tree(open_dir(&from).unwrap().as_fd(), open_dir(&to).unwrap().as_fd()).unwrap();
        let bottom = std::fs::File::from(deep(&to, DEPTH)).metadata().unwrap();
        assert_eq!(bottom.permissions().mode() & 0o7777, 0o2751);
        assert_eq!((bottom.mtime(), bottom.mtime_nsec()), (1_000_000_000, 5));
        let none = AtFlags::empty();
        let found = fstatat(deep(&to, DEPTH), "file", none).unwrap();
        let other = fstatat(deep(&to, DEPTH - 1), "other", none).unwrap();
        assert_eq!((found.st_size, found.st_nlink, found.st_ino), (7, 2, other.st_ino));
        for path in [&from, &to] {
            crate::sys::remove::remove_tree(path).unwrap();
        }
    }
}
