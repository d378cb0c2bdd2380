//! Volumes: directories that outlive the containers that use them.
//!
//! ```text
//! STORE/volumes/NAME/            locked while it is made, filled or removed
//! STORE/volumes/NAME/data/       what containers see
//! STORE/volumes/NAME/users/DIR   one a container: it names the directory DIR that is
//!                                there as long as the container is
//! STORE/volumes/.gone-…          on its way out
//! ```
//!
//! A use is noted in a file, and counts as long as what the note names is there:
//! it needs no process, so a runtime that was killed neither ends nor leaks it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sys::fs::{names, open_dir, replace_file};
use crate::sys::lock::{FileLock, Sharing};
use crate::sys::remove::remove_tree;

/// The volumes of a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    dir: PathBuf,
}

/// A volume as `volume ls` and `volume inspect` show it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The directory that containers see.
    pub data: PathBuf,
    /// When it was made.
    pub created: SystemTime,
    /// The directories of the containers that use it.
    pub users: Vec<PathBuf>,
}

impl Volumes {
    /// The volumes in a store of images; nothing is made yet.
    pub fn of(store: &Path) -> Self {
        Volumes { dir: store.join("volumes") }
    }

    /// Makes a volume; false if it was there already. The name is checked by the
    /// caller.
    ///
    /// # Errors
    /// System for a store that can't be written.
    pub fn create(&self, name: &str) -> Result<bool> {
        let step = || format!("volume {name}");
        let mut dirs = DirBuilder::new();
        dirs.recursive(true).mode(0o700).create(&self.dir).step(step)?;
        let volume = self.dir.join(name);
        let made = match DirBuilder::new().mode(0o700).create(&volume) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            other => other.map(|()| true).step(step)?,
        };
        // one that was killed half-way is completed here
        dirs.create(volume.join("users")).step(step)?;
        make_data(&volume.join("data")).step(step)?;
        Ok(made)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// System for a store that can't be read.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut all = Vec::new();
        for name in entries(&self.dir)? {
            let Ok(name) = name.into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            match self.find(&name) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => all.push(other?),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One volume.
    ///
    /// # Errors
    /// NotFound.
    pub fn find(&self, name: &str) -> Result<Volume> {
        let path = self.dir.join(name);
        let found = match fs::symlink_metadata(path.join("users")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(name)),
            other => other.step(|| format!("volume {name}"))?,
        };
        let users = users(&path)?;
        let created = found.created().or_else(|_unknown| found.modified())?;
        Ok(Volume { name: name.to_owned(), data: path.join("data"), created, users })
    }

    /// The note that `owner`, a container's directory, uses the volume.
    pub fn note(&self, name: &str, owner: &Path) -> PathBuf {
        self.dir.join(name).join("users").join(owner.file_name().unwrap_or_default())
    }

    /// Makes the volume if it is not there, and notes that `owner` uses it: until
    /// that path is gone, or the note. If it is empty and nobody else uses it, `fill`
    /// is called with a directory that becomes its content.
    ///
    /// # Errors
    /// What `fill` fails with; the volume is as before then.
    pub fn join(
        &self,
        name: &str,
        owner: &Path,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<PathBuf> {
        let step = || format!("volume {name}");
        let _lock = loop {
            self.create(name)?;
            // somebody may have removed it since
            if let Some(lock) = self.lock(name).step(step)? {
                break lock;
            }
        };
        let path = self.dir.join(name);
        let data = path.join("data");
        make_data(&data).step(step)?;
        let users = users(&path)?;
        let note = self.note(name, owner);
        let dir = open_dir(&path.join("users")).step(step)?;
        let file = note.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mode = Mode::from_bits_truncate(0o600);
        replace_file(dir.as_fd(), &file, owner.as_os_str().as_bytes(), mode, false).step(step)?;
        if users.is_empty() && entries(&data)?.is_empty() {
            fill_data(&path, fill).step(step)?;
        }
        Ok(data)
    }

    /// Removes volumes, if nobody uses any of them.
    ///
    /// # Errors
    /// NotFound; State for one in use, and then all stay.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        let mut locks = Vec::new();
        let mut sorted = names.to_vec();
        // in one order, or two such commands could wait for each other
        sorted.sort();
        sorted.dedup();
        for name in &sorted {
            let lock = self.lock(name).step(|| format!("volume {name}"))?;
            locks.push(lock.ok_or_else(|| missing(name))?);
            if let Some(user) = users(&self.dir.join(name))?.first() {
                let text = format!("volume {name}: in use by {}", container_of(user));
                return Err(Error::new(ErrorKind::State, text).hint("delete the container first"));
            }
        }
        for name in &sorted {
            let gone = self.dir.join(format!(".gone-{}-{name}", std::process::id()));
            let step = || format!("remove volume {name}");
            // out of the way first: a kill must not leave half a volume
            fs::rename(self.dir.join(name), &gone).step(step)?;
        }
        drop(locks);
        self.sweep()
    }

    /// Removes what is on its way out, of removals that were killed as well.
    fn sweep(&self) -> Result<()> {
        for name in entries(&self.dir)? {
            if name.as_bytes().starts_with(b".gone-")
                && let Err(e) = remove_tree(&self.dir.join(&name))
            {
                // the volumes are gone all the same, and the next removal tries again
                let text = Error::from(e).step(format!("remove {}", name.to_string_lossy()));
                crate::logging::warn(&text.to_string());
            }
        }
        Ok(())
    }

    /// The volume's lock; `None` if there is no volume of that name (any more).
    fn lock(&self, name: &str) -> Result<Option<FileLock>> {
        let path = self.dir.join(name);
        let dir = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let opened = dir.metadata()?;
        let lock = FileLock::wait(dir, Sharing::Exclusive).step(|| "lock")?;
        match fs::symlink_metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => {
                Ok(Some(lock))
            }
            _ => Ok(None),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("volume {name} {}", phrase::DOES_NOT_EXIST))
        .hint("see tare volume ls")
}

/// The id of the container whose directory this is.
pub fn container_of(owner: &Path) -> String {
    let name = owner.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id = name.rsplit_once('.').map_or(name.as_str(), |(id, _)| id);
    format!("container {id}")
}

fn make_data(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755))),
    }
}

/// Owners that are there; notes of others are removed.
fn users(volume: &Path) -> Result<Vec<PathBuf>> {
    let dir = volume.join("users");
    let mut live = Vec::new();
    for name in entries(&dir)? {
        let note = dir.join(&name);
        let owner = match fs::read(&note) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => PathBuf::from(std::ffi::OsString::from_vec(other?)),
        };
        match owner.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::remove_file(&note) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            },
            _ => live.push(owner),
        }
    }
    live.sort();
    Ok(live)
}

/// Names in a directory; none where there is no directory.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    match open_dir(dir) {
        Err(nix::errno::Errno::ENOENT) => Ok(Vec::new()),
        other => {
            let fd = other.step(|| format!("open {}", dir.display()))?;
            let all = names(fd.as_fd())?.into_iter();
            Ok(all.map(|(name, _)| std::ffi::OsString::from_vec(name.into_bytes())).collect())
        }
    }
}

/// Fills a directory beside the data, and puts it in its place when it is whole.
fn fill_data(volume: &Path, fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let fresh = volume.join("fresh");
    let clear = || remove_tree(&fresh).map_err(Error::from);
    clear()?;
    make_data(&fresh)?;
    let filled = fill(open_dir(&fresh)?.as_fd());
    let placed = filled.and_then(|()| Ok(fs::rename(&fresh, volume.join("data"))?));
    placed.map_err(|e| e.undone(clear()))
}
