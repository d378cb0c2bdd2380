//! Directories of imports under way: whoever dies leaves one that is not locked.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::digest::Digest;
use super::store::Store;
use super::tree;
use crate::error::{Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::lock::{FileLock, Sharing};

/// A directory of one import, locked as long as its process lives.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    _lock: FileLock,
}

static STAGINGS: AtomicU64 = AtomicU64::new(0);

impl Staging {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let parent = store.path().join("staging");
        // between its making and its locking a directory looks stale
        let _gate = gate(&parent)?;
        let count = STAGINGS.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = nanos.map_or(0, |t| t.subsec_nanos());
        let path = parent.join(format!("{}-{count}-{nanos:08x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).step(|| format!("make {}", path.display()))?;
        let lock = File::open(&path).step(|| "open the staging directory").and_then(|dir| {
            FileLock::wait(dir, Sharing::Exclusive).step(|| "lock the staging directory")
        });
        match lock {
            Ok(lock) => Ok(Staging { path, _lock: lock }),
            Err(e) => Err(match fs::remove_dir(&path) {
                Ok(()) => e,
                Err(left) => e.hint(format!("and its undoing failed: {left}")),
            }),
        }
    }

    /// Where a layer is being made.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        let algorithm = diff_id.algorithm().name();
        self.path.join(format!("{algorithm}-{}", diff_id.hex()))
    }

    /// Where a blob is being copied to.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.path.join(format!("{algorithm}-{}.blob", digest.hex()))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a directory in here, to be removed.
    pub(crate) fn take(&self, path: &Path, name: &str) -> Result<()> {
        fs::rename(path, self.path.join(name)).step(|| format!("remove {}", path.display()))
    }

    /// Removes all that is left in it, and itself.
    pub(crate) fn remove(self) -> Result<()> {
        remove_dir(&self.path).step(|| "clean up")
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    tree::remove(open_dir(parent)?.as_fd(), Path::new(name))
}

/// Held while a staging directory is made or judged.
fn gate(parent: &Path) -> Result<FileLock> {
    let dir = File::open(parent).step(|| format!("open {}", parent.display()))?;
    FileLock::wait(dir, Sharing::Exclusive).step(|| "lock the staging directories")
}

/// Whether an import is at work in a staging directory, or has just removed it.
pub(crate) fn is_alive(path: &Path) -> Result<bool> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        other => Ok(FileLock::try_now(other?, Sharing::Exclusive)?.is_none()),
    }
}

/// Removes what imports that died have left.
pub(crate) fn clean(store: &Store) -> Result<()> {
    let parent = store.path().join("staging");
    let mut stale = Vec::new();
    {
        let _gate = gate(&parent)?;
        for (name, _) in tree::names(open_dir(&parent)?.as_fd())? {
            let path = parent.join(tree::name_path(&name));
            let dir = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if let Some(lock) = FileLock::try_now(dir, Sharing::Exclusive)? {
                stale.push((path, lock));
            }
        }
    }
    for (path, _lock) in &stale {
        remove_dir(path).step(|| "clean up after an import that died")?;
    }
    Ok(())
}

/// A file without a name, for what has to be read out of order but comes as a
/// stream.
///
/// The lock of the store is given back: nobody can remove what has no name.
pub(crate) fn nameless(store: &Store, _lock: FileLock) -> Result<File> {
    static FILES: AtomicU64 = AtomicU64::new(0);
    let count = FILES.fetch_add(1, Ordering::Relaxed);
    let name = format!("archive-{}-{count}", std::process::id());
    let path = store.path().join("staging").join(name);
    let step = || format!("make {}", path.display());
    let file = File::options().read(true).write(true).create_new(true).open(&path).step(step)?;
    match fs::remove_file(&path) {
        // another import may have cleaned up in between
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).step(step),
        _ => Ok(file),
    }
}
