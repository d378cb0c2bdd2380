//! Directories that a layer doesn't list although its entries lie in them.
//!
//! An overlay shows the attributes of the uppermost layer that has a
//! directory. A layer with `usr/bin/tool` and no entry for `usr` must not turn
//! the owner, mode and times that a lower layer gave to `usr` into defaults: it
//! takes them over from below.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::entry::shown;
use super::extract::as_path;
use super::form;
use super::import::Done;
use super::select::Choice;
use super::staging::Staging;
use super::store::Store;
use crate::error::{Result, Step};
use crate::sys::fs::{open_dir, open_plain, set_xattr, xattrs_at};

/// Gives every implied directory of the new layers the attributes of the next
/// layer below that has it.
///
/// A layer is kept once; where two images have it above different layers, the
/// image that was imported first decides.
pub(crate) fn adopt(
    store: &Store,
    staging: &Staging,
    choices: &[Choice],
    done: &Done,
) -> Result<()> {
    let mut adopted = std::collections::BTreeSet::new();
    for choice in choices {
        let mut below: Vec<PathBuf> = Vec::new();
        for diff_id in &choice.diff_ids {
            let dir = match done.get(diff_id) {
                Some(_) => staging.layer(diff_id).join("diff"),
                None => store.layer_path(diff_id).join("diff"),
            };
            if let Some(facts) = done.get(diff_id)
                && adopted.insert(diff_id)
                && !facts.implied.is_empty()
            {
                adopt_layer(&dir, &below, &facts.implied)?;
            }
            below.push(dir);
        }
    }
    Ok(())
}

fn adopt_layer(dir: &Path, below: &[PathBuf], implied: &[Vec<u8>]) -> Result<()> {
    let upper = open_dir(dir)?;
    let lowers = below.iter().rev().map(|path| open_dir(path));
    let lowers = lowers.collect::<std::result::Result<Vec<OwnedFd>, Errno>>()?;
    for path in implied {
        let Some(from) = find(&lowers, path)? else {
            continue;
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        let to = open_plain(upper.as_fd(), as_path(path), flags, Mode::empty())?;
        copy_attributes(from.as_fd(), to.as_fd()).step(|| format!("directory {}", shown(path)))?;
    }
    Ok(())
}

/// The directory in the uppermost layer that has something of that name.
fn find(lowers: &[OwnedFd], path: &[u8]) -> Result<Option<OwnedFd>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    for lower in lowers {
        match open_plain(lower.as_fd(), as_path(path), flags, Mode::empty()) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::ENOENT) => {}
            // a file, a link or a whiteout: the directory is new in this layer
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

/// Owner, mode, extended attributes but the overlay's own, and times.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_bits_truncate(stat.st_mode))?;
    for (name, value) in xattrs_at(from, Path::new("."))? {
        // the escaped ones are the image's
        if form::merged_name(name.as_bytes()).is_none() {
            continue;
        }
        set_xattr(to, &name, &value).step(|| format!("attribute {name:?}"))?;
    }
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    futimens(to, &time, &time)?;
    Ok(())
}
