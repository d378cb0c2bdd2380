//! Layers merged into a plain directory: what an overlay of them would show.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};

use super::form;
use super::tree::{self, name_path, names};
use crate::error::{Result, Step};
use crate::sys::copy::{Attributes, Entry, Finish, Links, Rules, dress_directory};
use crate::sys::fs::{open_dir, open_plain, xattrs_at};

/// Copies the merged view of `layers` (from the bottom up) into `target`, an
/// empty directory.
///
/// # Errors
/// System for whatever can't be read or written; what was written stays.
pub(crate) fn merge(layers: &[PathBuf], target: &Path) -> Result<()> {
    let to = open_dir(target)?;
    let mut rest = BTreeMap::new();
    for layer in layers {
        let from = open_dir(layer).step(|| format!("layer {}", layer.display()))?;
        let mut copier =
            Copier { from: from.as_fd(), to: to.as_fd(), links: Links::new(), rest: &mut rest };
        copier.layer()?;
    }
    // now that nothing more is made in them
    for (path, rest) in rest {
        match open_plain(to.as_fd(), &path, DIR, Mode::empty()) {
            Ok(fd) => rest.give(fd.as_fd(), &Merged)?,
            // a layer further up has put something else there
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

struct Copier<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    links: Links,
    rest: &'a mut BTreeMap<PathBuf, Finish>,
}

impl Copier<'_> {
    fn layer(&mut self) -> Result<()> {
        let root = PathBuf::from(".");
        self.attributes(&root)?;
        let mut todo = vec![root];
        while let Some(path) = todo.pop() {
            let step = || format!("copy {}", path.display());
            let from = open_plain(self.from, &path, DIR, Mode::empty()).step(step)?;
            let to = open_plain(self.to, &path, DIR, Mode::empty()).step(step)?;
            for (name, _) in names(from.as_fd())? {
                let below = path.join(name_path(&name));
                let place = Entry::of(from.as_fd(), to.as_fd(), &name)?;
                let dir = self.entry(&place, &below);
                if dir.step(|| format!("copy {}", below.display()))? {
                    todo.push(below);
                }
            }
        }
        Ok(())
    }

    /// Copies one entry; the answer is whether it is a directory.
    fn entry(&mut self, place: &Entry<'_>, path: &Path) -> Result<bool> {
        if place.format() == SFlag::S_IFDIR {
            self.dir(place, path)?;
            return Ok(true);
        }
        tree::remove(place.to, name_path(place.name))?;
        if !is_whiteout(place) {
            place.copy(self.to, path, &mut self.links, &Merged)?;
        }
        Ok(false)
    }

    fn dir(&mut self, place: &Entry<'_>, path: &Path) -> Result<()> {
        let opaque = xattrs_at(place.from, name_path(place.name))?
            .iter()
            .any(|(name, value)| name.as_c_str() == form::opaque() && value == b"y");
        let there = fstatat(place.to, place.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_dir = there.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFDIR);
        if opaque || !is_dir {
            tree::remove(place.to, name_path(place.name))?;
            mkdirat(place.to, place.name, Mode::from_bits_truncate(0o700))?;
        }
        self.attributes(path)
    }

    /// A directory's attributes; the rest comes at the end.
    fn attributes(&mut self, path: &Path) -> Result<()> {
        let from = open_plain(self.from, path, DIR, Mode::empty())?;
        let to = open_plain(self.to, path, DIR, Mode::empty())?;
        let rest = dress_directory(from.as_fd(), to.as_fd(), &Merged)?;
        self.rest.insert(path.to_owned(), rest);
        Ok(())
    }
}

fn is_whiteout(place: &Entry<'_>) -> bool {
    place.format() == SFlag::S_IFCHR && place.stat.st_rdev == 0
}

/// What an overlay shows of the attributes.
struct Merged;

impl Rules for Merged {
    fn attributes(&self, all: Attributes) -> Result<Attributes> {
        plain_xattrs(all)
    }
}

/// Without the overlay's own attributes; those that an image has of that name
/// lose the escape that they have in a layer.
fn plain_xattrs(all: Attributes) -> Result<Attributes> {
    let mut plain = Vec::new();
    for (name, value) in all {
        if let Some(name) = form::merged_name(name.as_bytes()) {
            let name = CString::new(name.as_ref()).map_err(|_nul| Errno::EINVAL)?;
            plain.push((name, value));
        }
    }
    Ok(plain)
}
