//! The directories of one layer, however deep, by their paths.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::form;
use super::listing::escaped;
use super::names::join;
use crate::error::{Result, Step};
use crate::sys::fs::{open_plain, xattr_at};
use crate::sys::walk::Place;

/// What one layer has at a path.
pub(super) enum There {
    /// A directory, and whether what it lies in hides lower layers.
    Dir {
        hides: bool,
    },
    Nothing {
        hides: bool,
    },
    /// A file, a link, a whiteout, there or above it.
    Other,
}

/// A visit to a layer. From one path to the next it goes back only to where they part: with
/// sorted paths it enters each directory twice at most (`a!` comes between `a` and `a/b`),
/// however many of the paths lead through it.
pub(super) struct Visit {
    place: Place,
    path: Vec<u8>,
    /// Of each directory of the path, whether what it lies in hides lower layers.
    hides: Vec<bool>,
}

impl Visit {
    pub(super) fn new(top: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        let top = open_plain(top, Path::new("."), flags, Mode::empty())?;
        Ok(Visit { place: Place::new(top), path: Vec::new(), hides: Vec::new() })
    }

    /// The directory that [`Visit::go`] has come to, if it came to one.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.place.here()
    }

    /// Goes to a directory, or as far as there are any on its path.
    ///
    /// # Errors
    /// A directory that can't be opened.
    pub(super) fn go(&mut self, path: &[u8]) -> Result<There> {
        while !is_in(path, &self.path) {
            self.leave().step(|| escaped(path))?;
        }
        let rest = path.get(self.path.len()..).unwrap_or_default();
        for name in rest.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let hides = self.hides() || is_opaque(self.here())?;
            let file = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
            match self.place.enter(&file) {
                Ok(()) => {}
                Err(Errno::ENOENT) => return Ok(There::Nothing { hides }),
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(There::Other),
                Err(e) => return Err(e).step(|| escaped(path)),
            }
            self.path = join(&self.path, name);
            self.hides.push(hides);
        }
        Ok(There::Dir { hides: self.hides() })
    }

    fn hides(&self) -> bool {
        self.hides.last().is_some_and(|hides| *hides)
    }

    fn leave(&mut self) -> Result<()> {
        self.place.leave()?;
        self.hides.pop();
        let end = self.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.path.truncate(end);
        Ok(())
    }
}

/// Whether a path is a directory's or leads through it.
fn is_in(path: &[u8], dir: &[u8]) -> bool {
    let rest = path.strip_prefix(dir);
    rest.is_some_and(|rest| dir.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a directory of a layer hides what lower ones have in it.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    Ok(xattr_at(dir, Path::new("."), form::opaque())?.is_some_and(|value| value == b"y"))
}
