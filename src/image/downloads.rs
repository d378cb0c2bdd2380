//! What downloads that broke off have left in the store: kept for the next try,
//! though not for ever.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::store::Store;
use crate::error::{Result, Step};
use crate::sys::lock::{FileLock, Sharing};

/// How long it is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    /// Where images are downloaded to, a directory each, locked while one comes.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.path().join("downloads")
    }

    /// Downloads that nobody came back for, locked.
    pub(crate) fn stale_downloads(&self) -> Result<Vec<(PathBuf, FileLock)>> {
        let entries = match fs::read_dir(self.downloads()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.step(|| "read the downloads")?,
        };
        let mut stale = Vec::new();
        for entry in entries {
            let entry = entry?;
            let age = entry.metadata().and_then(|found| found.modified()).ok();
            if age.and_then(|time| time.elapsed().ok()).is_none_or(|age| age < KEPT) {
                continue;
            }
            let path = entry.path();
            let dir = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.step(|| format!("open {}", path.display()))?,
            };
            let Some(lock) = FileLock::try_now(dir, Sharing::Exclusive)? else { continue };
            if lock.is_of(&path)? {
                stale.push((path, lock));
            }
        }
        Ok(stale)
    }
}
