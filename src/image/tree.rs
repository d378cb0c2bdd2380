//! Whole trees by descriptor: removal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Result, Step};
use crate::sys::fs::open_plain;
pub(crate) use crate::sys::fs::{name_path, names};

/// Removes `path` in `dir` with all that it holds. What isn't there is fine.
///
/// Symbolic links are removed, not followed. Directories are kept as a list of
/// paths, not as a stack of descriptors: a hostile layer may nest deeper than a
/// process may have files open.
pub(crate) fn remove(dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
    match unlinkat(dir, path, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(e) => return Err(e).step(|| format!("remove {}", path.display())),
    }
    let mut found = vec![path.to_owned()];
    let mut done = Vec::new();
    while let Some(path) = found.pop() {
        let step = || format!("remove {}", path.display());
        let here = open(dir, &path)?;
        for (name, _) in names(here.as_fd())? {
            match unlinkat(&here, name_path(&name), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) => found.push(path.join(name_path(&name))),
                Err(e) => return Err(e).step(step),
            }
        }
        done.push(path);
    }
    // a directory was found after its parent, so this order empties it first
    for path in done.into_iter().rev() {
        unlinkat(dir, &path, UnlinkatFlags::RemoveDir)
            .step(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn open(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    open_plain(dir, path, flags, Mode::empty()).step(|| format!("open {}", path.display()))
}
