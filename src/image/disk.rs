//! What trees take of the disk.

use std::collections::BTreeSet;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstatat};

use crate::error::{Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::walk::Walk;

/// Bytes of the blocks of `path` and all below it; a file with several names
/// counts once. What isn't there, or goes meanwhile, is nothing; where a directory that
/// is looked at is moved elsewhere, the sum is of what has been come by until then.
///
/// # Errors
/// System for what can't be read.
pub(crate) fn usage(path: &Path) -> Result<u64> {
    let mut sum = Sum::default();
    let stat = match nix::sys::stat::lstat(path) {
        Err(Errno::ENOENT) => return Ok(0),
        other => other.step(|| format!("stat {}", path.display()))?,
    };
    sum.add(&stat);
    if is_dir(&stat) {
        sum.below(path).step(|| path.display().to_string())?;
    }
    Ok(sum.bytes)
}

fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    /// Files with several names.
    linked: BTreeSet<(u64, u64)>,
}

impl Sum {
    fn add(&mut self, stat: &FileStat) {
        if is_dir(stat) || stat.st_nlink == 1 || self.linked.insert((stat.st_dev, stat.st_ino)) {
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }

    fn below(&mut self, path: &Path) -> Result<()> {
        let top = match open_dir(path) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        self.rest(&mut Walk::new(top)?)
    }

    /// All that a walk has still to come by.
    fn rest(&mut self, walk: &mut Walk) -> Result<()> {
        loop {
            let Some(name) = walk.next_name() else {
                match walk.leave() {
                    Ok(true) => continue,
                    // the way back is lost: a container's program may move what it has
                    Ok(false) | Err(Errno::ESTALE | Errno::ENOENT) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            };
            let stat = fstatat(walk.here(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let stat = match stat {
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            self.add(&stat);
            if is_dir(&stat) {
                match walk.enter(&name) {
                    // gone, or something else by now
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                    other => other?,
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};

    #[test]
    fn a_deep_tree_is_counted_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut here = open_dir(dir.path()).unwrap();
        for _ in 0..3000 {
            mkdirat(&here, "directory", Mode::S_IRWXU).unwrap();
            let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
            here = openat(&here, "directory", flags, Mode::empty()).unwrap();
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let file = openat(&here, "file", flags, Mode::S_IRUSR).unwrap();
        nix::unistd::write(&file, &vec![1; 1 << 20]).unwrap();
        nix::unistd::fsync(&file).unwrap();
        assert!(usage(dir.path()).unwrap() >= 1 << 20);
        crate::sys::remove::remove_tree(&dir.path().join("directory")).unwrap();
        assert_eq!(usage(&dir.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn what_is_moved_meanwhile_ends_the_count() {
        let dir = tempfile::tempdir().unwrap();
        // deeper than a walk holds directories open
        let names: Vec<_> = (0..40).map(|n| format!("d{n}")).collect();
        std::fs::create_dir_all(dir.path().join(names.join("/"))).unwrap();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        let mut walk = Walk::new(open_dir(dir.path()).unwrap()).unwrap();
        for name in &names {
            walk.enter(&std::ffi::CString::new(name.as_str()).unwrap()).unwrap();
        }
        std::fs::rename(dir.path().join("d0/d1"), dir.path().join("elsewhere/d1")).unwrap();
        let mut sum = Sum::default();
        sum.rest(&mut walk).unwrap();
        // and one whose directories are gone
        let mut walk = Walk::new(open_dir(&dir.path().join("elsewhere")).unwrap()).unwrap();
        for name in &names[1..] {
            walk.enter(&std::ffi::CString::new(name.as_str()).unwrap()).unwrap();
        }
        crate::sys::remove::remove_tree(&dir.path().join("elsewhere")).unwrap();
        sum.rest(&mut walk).unwrap();
    }
}
