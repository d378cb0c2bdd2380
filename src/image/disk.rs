//! What trees take of the disk.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};

use super::tree::{name_path, names};
use crate::error::{Result, Step};
use crate::sys::fs::{open_dir, open_plain};

/// Bytes of the blocks of `path` and all below it; a file with several names
/// counts once. What isn't there, or goes meanwhile, is nothing.
///
/// # Errors
/// System for what can't be read.
pub(crate) fn usage(path: &Path) -> Result<u64> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(0);
    };
    let parent = match open_dir(parent) {
        Err(Errno::ENOENT) => return Ok(0),
        other => other.step(|| format!("open {}", path.display()))?,
    };
    let mut linked = BTreeSet::new();
    let mut bytes = 0u64;
    let mut todo = vec![PathBuf::from(name)];
    while let Some(path) = todo.pop() {
        let stat = match fstatat(&parent, &path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => other.step(|| format!("stat {}", path.display()))?,
        };
        let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_dir || stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        if is_dir {
            let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
            match open_plain(parent.as_fd(), &path, flags, Mode::empty()) {
                Err(Errno::ENOENT) => {}
                dir => {
                    let found = names(dir?.as_fd())?;
                    todo.extend(found.iter().map(|(name, _)| path.join(name_path(name))));
                }
            }
        }
    }
    Ok(bytes)
}
