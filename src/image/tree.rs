//! Whole trees by descriptor: removal.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Result, Step};
pub(crate) use crate::sys::fs::{name_path, names};
use crate::sys::remove::remove_at;

/// Removes `path` in `dir` with all that it holds, as [`remove_at`] does.
pub(crate) fn remove(dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
    remove_at(dir, path).step(|| format!("remove {}", path.display()))
}
