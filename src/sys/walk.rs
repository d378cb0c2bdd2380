//! Walks through trees, however deep they are.
//!
//! A program that runs in a container nests directories as deep as it likes: deeper
//! than a process may have files open, and with longer paths than the kernel takes. So
//! a walk goes by one name at a time, holds a few of the directories that it came
//! through open, and goes back through `..` to the others, if that leads to where it
//! came from.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::{Mode, fstat};

use super::SysResult;
use super::dirents::{Named, fresh_names};
use super::fs::{name_path, open_plain};

/// How many directories above the current one are open at a time.
pub(super) const OPEN: usize = 24;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

/// A place in a tree of directories. Symbolic links and mounts are not entered.
#[derive(Debug)]
pub struct Place {
    here: OwnedFd,
    /// Directories above that are open, the nearest last.
    open: VecDeque<OwnedFd>,
    /// Those above these, by device and inode, the nearest last.
    closed: Vec<(dev_t, ino_t)>,
}

impl Place {
    /// The top of a tree.
    pub fn new(top: OwnedFd) -> Self {
        Place { here: top, open: VecDeque::new(), closed: Vec::new() }
    }

    /// The directory.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Goes into a directory.
    ///
    /// # Errors
    /// ELOOP for a symbolic link, EXDEV for a mount. The place is as before then.
    pub fn enter(&mut self, name: &CStr) -> SysResult<()> {
        let below = open_plain(self.here(), name_path(name), DIRECTORY, Mode::empty())?;
        if self.open.len() == OPEN
            && let Some(far) = self.open.front()
        {
            self.closed.push(identity(far.as_fd())?);
            self.open.pop_front();
        }
        self.open.push_back(std::mem::replace(&mut self.here, below));
        Ok(())
    }

    /// Goes back to the directory above; false at the top.
    ///
    /// # Errors
    /// ESTALE if the directory has been moved to another one meanwhile.
    pub fn leave(&mut self) -> SysResult<bool> {
        if let Some(above) = self.open.pop_back() {
            self.here = above;
            return Ok(true);
        }
        let Some(wanted) = self.closed.last() else { return Ok(false) };
        let flags = DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let above = openat(&self.here, "..", flags, Mode::empty())?;
        if identity(above.as_fd())? != *wanted {
            return Err(Errno::ESTALE);
        }
        self.closed.pop();
        self.here = above;
        Ok(true)
    }
}

fn identity(dir: BorrowedFd<'_>) -> SysResult<(dev_t, ino_t)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A walk that comes by all names of a tree: [`Walk::next_name`] until there is none, then
/// [`Walk::leave`] until that says that it was the top.
#[derive(Debug)]
pub struct Walk {
    place: Place,
    /// Names that have not been come by, a list a directory.
    todo: Vec<Vec<Named>>,
    path: Vec<u8>,
}

impl Walk {
    /// Begins at the top of a tree, which has just been opened.
    ///
    /// # Errors
    /// A directory that can't be listed.
    pub fn new(top: OwnedFd) -> SysResult<Self> {
        let place = Place::new(top);
        let todo = vec![listed(&place)?];
        Ok(Walk { place, todo, path: Vec::new() })
    }

    /// The directory that the walk is in.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.place.here()
    }

    /// Its path from the top, which may be longer than the kernel takes; empty at the top.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The next name in it.
    pub fn next_name(&mut self) -> Option<CString> {
        self.next_named().map(|(name, _)| name)
    }

    /// The same with its type, where the file system tells it: what it was when the
    /// directory was entered.
    pub fn next_named(&mut self) -> Option<(CString, Option<Type>)> {
        self.todo.last_mut()?.pop()
    }

    /// Goes into a directory of it.
    ///
    /// # Errors
    /// As [`Place::enter`].
    pub fn enter(&mut self, name: &CStr) -> SysResult<()> {
        self.place.enter(name)?;
        match listed(&self.place) {
            Ok(names) => self.todo.push(names),
            Err(e) => {
                self.place.leave()?;
                return Err(e);
            }
        }
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        Ok(())
    }

    /// Goes back to the directory above; false at the top.
    ///
    /// # Errors
    /// As [`Place::leave`].
    pub fn leave(&mut self) -> SysResult<bool> {
        let above = self.place.leave()?;
        self.todo.pop();
        let end = self.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.path.truncate(end);
        Ok(above)
    }
}

fn listed(place: &Place) -> SysResult<Vec<Named>> {
    match fresh_names(place.here()) {
        // removed by somebody while it was open here
        Err(Errno::ENOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// Opens a directory below `top` by a path of any length, as [`open_plain`] does.
///
/// # Errors
/// As [`open_plain`]; EXDEV for a path that leads out.
pub fn open_deep(top: BorrowedFd<'_>, path: &Path) -> SysResult<OwnedFd> {
    let mut here = open_plain(top, Path::new("."), DIRECTORY, Mode::empty())?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                here = open_plain(here.as_fd(), Path::new(name), DIRECTORY, Mode::empty())?;
            }
            Component::CurDir => {}
            _ => return Err(Errno::EXDEV),
        }
    }
    Ok(here)
}

/// For tests: nests directories below `top`, with a file in each.
#[cfg(test)]
pub(super) fn nest(top: &Path, depth: usize) {
    let mut here = super::fs::open_dir(top).unwrap();
    for n in 0..depth {
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        open_plain(here.as_fd(), Path::new("file"), flags, Mode::S_IRUSR).unwrap();
        let name = format!("d{n}");
        nix::sys::stat::mkdirat(&here, name.as_str(), Mode::S_IRWXU).unwrap();
        here = open_plain(here.as_fd(), Path::new(&name), DIRECTORY, Mode::empty()).unwrap();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use crate::sys::fs::open_dir;
    use crate::sys::remove::remove_tree;

    /// Every name, and the longest path.
    fn walked(top: &Path) -> (usize, usize) {
        let mut walk = Walk::new(open_dir(top).unwrap()).unwrap();
        let (mut count, mut longest) = (0, 0);
        loop {
            let Some(name) = walk.next_name() else {
                if walk.leave().unwrap() {
                    continue;
                }
                assert!(walk.path().as_os_str().is_empty());
                return (count, longest);
            };
            count += 1;
            if name.to_bytes().starts_with(b"d") {
                walk.enter(&name).unwrap();
                longest = longest.max(walk.path().as_os_str().len());
            }
        }
    }

    #[test]
    fn however_deep_every_name_is_come_by() {
        let dir = tempfile::tempdir().unwrap();
        for depth in [0, 1, OPEN - 1, OPEN, OPEN + 1, 3000] {
            let top = dir.path().join("top");
            std::fs::create_dir(&top).unwrap();
            nest(&top, depth);
            // a second branch at the top: the way back leads all the way up
            std::fs::create_dir_all(top.join("dx/dy")).unwrap();
            let (count, longest) = walked(&top);
            assert_eq!(count, 2 * depth + 2);
            assert!(depth < 3000 || longest > 12_000, "{longest}");
            remove_tree(&top).unwrap();
        }
    }

    #[test]
    fn what_is_moved_away_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        nest(dir.path(), OPEN + 3);
        let mut place = Place::new(open_dir(dir.path()).unwrap());
        for n in 0..OPEN + 2 {
            place.enter(&CString::new(format!("d{n}")).unwrap()).unwrap();
        }
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        // the second one, whose descriptor is closed by now
        std::fs::rename(dir.path().join("d0/d1"), dir.path().join("elsewhere/d1")).unwrap();
        for _ in 0..OPEN {
            assert!(place.leave().unwrap());
        }
        assert_eq!(place.leave(), Err(Errno::ESTALE));
    }

    #[test]
    fn links_are_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        let mut place = Place::new(open_dir(dir.path()).unwrap());
        assert!(place.enter(c"link").is_err());
        place.enter(c"d").unwrap();
        let top = open_dir(dir.path()).unwrap();
        open_deep(top.as_fd(), Path::new("./d/.")).unwrap();
        assert!(open_deep(top.as_fd(), Path::new("link")).is_err());
        assert!(open_deep(top.as_fd(), Path::new("d/..")).is_err());
    }
}
