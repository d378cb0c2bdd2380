//! Removal of whole trees, however deep they are.
//!
//! See [`super::walk`] for why that takes care.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::SysResult;
use super::fs::{name_path, open_dir, open_plain};
use super::walk::Walk;

/// How often something may be in the way that was not there before: what others make in
/// the tree, move or remove.
const TRIES: u32 = 1000;

/// Removes `path` with all that it holds. What isn't there is fine.
///
/// # Errors
/// See [`remove_at`].
pub fn remove_tree(path: &Path) -> SysResult<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    if parent.as_os_str().is_empty() {
        return remove_at(AT_FDCWD, Path::new(name));
    }
    match open_dir(parent) {
        Err(Errno::ENOENT) => Ok(()),
        other => remove_at(other?.as_fd(), Path::new(name)),
    }
}

/// Removes `path` in `dir` with all that it holds. What isn't there is fine.
///
/// Symbolic links are removed, not followed.
///
/// # Errors
/// What is left is the tree. EXDEV or EBUSY for a mount in it.
pub fn remove_at(dir: BorrowedFd<'_>, path: &Path) -> SysResult<()> {
    let mut tries = 0;
    while is_filled(dir, path, false)? {
        match empty(dir, path) {
            // gone or moved by somebody else, with the way back
            Ok(()) | Err(Errno::ENOENT | Errno::ESTALE | Errno::ENOTEMPTY) => {}
            Err(e) => return Err(e),
        }
        tries += 1;
        if tries > TRIES {
            return Err(Errno::ENOTEMPTY);
        }
    }
    Ok(())
}

/// Removes all that is below a directory.
fn empty(dir: BorrowedFd<'_>, path: &Path) -> SysResult<()> {
    let top = open_plain(dir, path, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty())?;
    let mut walk = Walk::new(top)?;
    // the names that it went by
    let mut way: Vec<CString> = Vec::new();
    loop {
        if let Some((name, kind)) = walk.next_named() {
            let is_dir = kind == Some(Type::Directory);
            if is_filled(walk.here(), name_path(&name), is_dir)? {
                match walk.enter(&name) {
                    Ok(()) => way.push(name),
                    Err(Errno::ENOENT) => {}
                    Err(e) => return Err(e),
                }
            }
            continue;
        }
        let (Some(done), true) = (way.pop(), walk.leave()?) else { return Ok(()) };
        if is_filled(walk.here(), name_path(&done), true)? {
            return Err(Errno::ENOTEMPTY);
        }
    }
}

/// Removes a file or an empty directory, which it is tried as first if it probably is one;
/// true if there is a directory that is not empty.
fn is_filled(dir: BorrowedFd<'_>, path: &Path, is_dir: bool) -> SysResult<bool> {
    if is_dir {
        match unlinkat(dir, path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(false),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(true),
            // something else by now
            Err(Errno::ENOTDIR) => {}
            Err(e) => return Err(e),
        }
    }
    match unlinkat(dir, path, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(false),
        Err(Errno::EISDIR) => {}
        Err(e) => return Err(e),
    }
    match unlinkat(dir, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(false),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    use crate::sys::walk::{OPEN, nest};

    #[test]
    fn deep_trees_go_with_a_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for depth in [0, 1, OPEN - 1, OPEN, OPEN + 1, OPEN + 2, 3000] {
            fs::create_dir(&top).unwrap();
            nest(&top, depth);
            fs::create_dir_all(top.join("second/branch")).unwrap();
            remove_tree(&top).unwrap();
            assert!(!top.exists(), "{depth}");
        }
        remove_tree(&top).unwrap();
        remove_tree(&top.join("below")).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir_all(kept.join("inner")).unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(&kept, top.join("link")).unwrap();
        remove_tree(&top).unwrap();
        std::os::unix::fs::symlink(&kept, &top).unwrap();
        remove_tree(&top).unwrap();
        assert!(kept.join("inner").exists() && !top.is_symlink());
    }

    #[test]
    fn two_may_remove_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        nest(&top, 500);
        let at = open_dir(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let one = scope.spawn(|| remove_tree(&top));
            let other = remove_at(at.as_fd(), Path::new("top"));
            one.join().unwrap().unwrap();
            other.unwrap();
        });
        assert!(!top.exists());
    }
}
