//! Removal of whole trees, however deep they are.
//!
//! A program that runs in a container nests directories as deep as it likes: deeper
//! than a process may have files open, and with longer paths than the kernel takes.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::SysResult;
use super::fs::{name_path, names, open_dir, open_plain};

/// How many directories are open at a time.
const OPEN: usize = 24;

/// How often a directory may have got new entries that were not moved from here:
/// two that remove one tree move things up below each other.
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
/// Symbolic links are removed, not followed. No descriptor more than a few is held,
/// and no path is longer than one name: what lies too deep to be reached that way is
/// moved to the top first.
///
/// # Errors
/// What is left is the tree, though not as it was. EXDEV or EBUSY for a mount in it.
pub fn remove_at(dir: BorrowedFd<'_>, path: &Path) -> SysResult<()> {
    if !is_filled(dir, path)? {
        return Ok(());
    }
    let Some(top) = Level::open(dir, path)? else { return Ok(()) };
    let mut removal = Removal { dir, path, top, below: Vec::new(), moved: 0, tries: 0 };
    while removal.step()? {}
    Ok(())
}

/// Removes a file or an empty directory; true if there is a directory that is not
/// empty.
fn is_filled(dir: BorrowedFd<'_>, path: &Path) -> SysResult<bool> {
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

/// A directory that is being emptied.
struct Level {
    fd: OwnedFd,
    /// Its name in the level above.
    name: CString,
    /// What was in it and has not been looked at.
    todo: Vec<CString>,
}

impl Level {
    /// `None` if it is gone.
    fn open(dir: BorrowedFd<'_>, path: &Path) -> SysResult<Option<Self>> {
        let fd = match open_plain(dir, path, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        let todo = listed(&fd)?;
        let name = super::fs::cstring(path)?;
        Ok(Some(Level { fd, name, todo }))
    }
}

fn listed(dir: &OwnedFd) -> SysResult<Vec<CString>> {
    match names(dir.as_fd()) {
        // removed by another one while it was open here
        Err(Errno::ENOENT) => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|(name, _)| name).collect()),
    }
}

struct Removal<'a> {
    dir: BorrowedFd<'a>,
    path: &'a Path,
    top: Level,
    below: Vec<Level>,
    /// For the names of what was moved to the top.
    moved: u64,
    tries: u32,
}

impl Removal<'_> {
    /// Removes one entry, or enters it; false when all is done.
    fn step(&mut self) -> SysResult<bool> {
        let depth = self.below.len();
        let here = self.below.last_mut().unwrap_or(&mut self.top);
        let Some(name) = here.todo.pop() else { return self.leave() };
        if !is_filled(here.fd.as_fd(), name_path(&name))? {
            return Ok(true);
        }
        if depth + 1 < OPEN {
            let level = Level::open(here.fd.as_fd(), name_path(&name))?;
            self.below.extend(level);
        } else {
            self.lift(&name)?;
        }
        Ok(true)
    }

    /// Moves a directory of the deepest level to the top.
    fn lift(&mut self, name: &CStr) -> SysResult<()> {
        let here = self.below.last().unwrap_or(&self.top);
        loop {
            let new = format!(".{}-{}", std::process::id(), self.moved);
            self.moved += 1;
            match renameat(&here.fd, name, &self.top.fd, OsStr::new(&new)) {
                Ok(()) => {
                    // a NUL is not in it
                    self.top.todo.extend(CString::new(new));
                    return Ok(());
                }
                Err(Errno::ENOENT) => return Ok(()),
                // what the tree has under that name
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes the directory that has been emptied, and goes on above it.
    fn leave(&mut self) -> SysResult<bool> {
        let (done, above) = match self.below.pop() {
            Some(level) => (level, self.below.last().unwrap_or(&self.top).fd.as_fd()),
            None => {
                if !is_filled(self.dir, self.path)? {
                    return Ok(false);
                }
                self.again()?;
                self.top.todo = listed(&self.top.fd)?;
                return Ok(true);
            }
        };
        if is_filled(above, name_path(&done.name))? {
            self.again()?;
            let here = self.below.last_mut().unwrap_or(&mut self.top);
            here.todo.push(done.name);
        }
        Ok(true)
    }

    fn again(&mut self) -> SysResult<()> {
        self.tries += 1;
        if self.tries > TRIES { Err(Errno::ENOTEMPTY) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    use nix::sys::stat::mkdirat;

    /// Nests directories below `top`, with a file in each.
    fn nest(top: &Path, depth: usize) {
        let mut here = open_dir(top).unwrap();
        for _ in 0..depth {
            let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
            open_plain(here.as_fd(), Path::new("file"), flags, Mode::S_IRUSR).unwrap();
            mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
            here = open_plain(here.as_fd(), Path::new("d"), OFlag::O_DIRECTORY, Mode::empty())
                .unwrap();
        }
    }

    #[test]
    fn deep_trees_go_with_a_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for depth in [0, 1, OPEN - 2, OPEN - 1, OPEN, OPEN + 1, 3000] {
            fs::create_dir(&top).unwrap();
            nest(&top, depth);
            // names that what is moved would have
            for n in 0..3 {
                fs::create_dir(top.join(format!(".{}-{n}", std::process::id()))).unwrap();
            }
            fs::write(top.join(format!(".{}-3", std::process::id())), "").unwrap();
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
