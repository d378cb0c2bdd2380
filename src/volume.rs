//! Volumes: directories that outlive the containers that use them.
//!
//! ```text
//! STORE/volumes/NAME/            locked while it is made, filled or removed
//! STORE/volumes/NAME/data/       what containers see
//! STORE/volumes/NAME/users/DIR   one a container: it names the directory DIR that is
//!                                there as long as the container is
//! STORE/volumes/NAME/fresh/      a copy of an image's files that is not whole yet
//! STORE/volumes/.gone-…          on its way out
//! ```
//!
//! A use is noted in a file, and counts as long as what the note names is there and
//! the machine has not been started anew, which ends every container: it needs no
//! process, so a runtime that was killed neither ends nor leaks it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sys::boot;
use crate::sys::fs::{birth_time, names, open_dir, replace_file};
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
        let created = match birth_time(&path.join("users")).step(|| format!("volume {name}"))? {
            Some(created) => created,
            None => found.modified()?,
        };
        Ok(Volume { name: name.to_owned(), data: path.join("data"), created, users })
    }

    /// The note that `owner`, a container's directory, uses the volume.
    pub fn note(&self, name: &str, owner: &Path) -> PathBuf {
        let mut file = OsString::new();
        let owner = owner.file_name().unwrap_or_default();
        if owner.as_bytes().starts_with(b".") {
            // a dot is for notes that are being written; this is in no container's id
            file.push("=");
        }
        file.push(owner);
        self.dir.join(name).join("users").join(file)
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
        prune(&path).step(step)?;
        // before the use is noted: the container of a run that is killed while it
        // copies is no user whose empty volume is to stay as it is
        if users(&path)?.is_empty() && entries(&data)?.is_empty() {
            fill_data(&path, fill).step(step)?;
        }
        let note = self.note(name, owner);
        let dir = open_dir(&path.join("users")).step(step)?;
        let file = note.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mode = Mode::from_bits_truncate(0o600);
        // a NUL is in no path
        let boot = boot::id().unwrap_or_default();
        let text = [owner.as_os_str().as_bytes(), b"\0", boot.as_bytes()].concat();
        replace_file(dir.as_fd(), &file, &text, mode, false).step(step)?;
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
            // out of the way first: a kill must not leave half a volume
            self.set_aside(name).step(|| format!("remove volume {name}"))?;
        }
        drop(locks);
        self.sweep()
    }

    /// Gives a volume a name that nothing has, not even the rest of a removal that
    /// was killed, by a process of the same number.
    fn set_aside(&self, name: &str) -> io::Result<()> {
        let mut n = 0;
        loop {
            let gone = self.dir.join(format!(".gone-{}-{n}", std::process::id()));
            match fs::rename(self.dir.join(name), gone) {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => n += 1,
                other => return other,
            }
        }
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

/// Owners that are there.
fn users(volume: &Path) -> Result<Vec<PathBuf>> {
    let mut live: Vec<_> = notes(volume)?.into_iter().filter_map(|note| note.user).collect();
    live.sort();
    Ok(live)
}

/// Removes notes that count no more, and what is left of some that were being
/// written: for who has the lock, since nobody else writes any then.
fn prune(volume: &Path) -> Result<()> {
    for note in notes(volume)?.into_iter().filter(|note| note.user.is_none()) {
        remove_tree(&note.path)?;
    }
    Ok(())
}

struct Note {
    path: PathBuf,
    /// The owner, if it is there.
    user: Option<PathBuf>,
}

fn notes(volume: &Path) -> Result<Vec<Note>> {
    let dir = volume.join("users");
    let mut all = Vec::new();
    for name in entries(&dir)? {
        let path = dir.join(&name);
        if name.as_bytes().starts_with(b".") {
            // one that is being written
            all.push(Note { path, user: None });
            continue;
        }
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut parts = text.splitn(2, |b| *b == 0);
        let owner = PathBuf::from(OsStr::from_bytes(parts.next().unwrap_or_default()));
        let boot = parts.next().map(String::from_utf8_lossy).filter(|boot| !boot.is_empty());
        let is_gone = match owner.symlink_metadata() {
            Err(e) => e.kind() == io::ErrorKind::NotFound,
            Ok(_) => boot.is_some_and(|boot| boot::is_over(&boot)),
        };
        all.push(Note { path, user: Some(owner).filter(|_| !is_gone) });
    }
    Ok(all)
}

/// Names in a directory; none where there is no directory.
fn entries(dir: &Path) -> Result<Vec<OsString>> {
    match open_dir(dir) {
        Err(nix::errno::Errno::ENOENT) => Ok(Vec::new()),
        other => {
            let fd = other.step(|| format!("open {}", dir.display()))?;
            let all = names(fd.as_fd())?.into_iter();
            Ok(all.map(|(name, _)| OsString::from_vec(name.into_bytes())).collect())
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    struct Scene {
        dir: tempfile::TempDir,
        volumes: Volumes,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let volumes = Volumes::of(dir.path());
            Scene { dir, volumes }
        }

        /// The directory of a container.
        fn owner(&self, name: &str) -> PathBuf {
            let owner = self.dir.path().join(name);
            fs::create_dir(&owner).unwrap();
            owner
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("volumes").join(name)
        }
    }

    fn fill(dir: BorrowedFd<'_>) -> Result<()> {
        Ok(replace_file(dir, "file", b"x", Mode::S_IRUSR, false)?)
    }

    #[test]
    fn a_note_that_is_being_written_is_left_alone() {
        let scene = Scene::new();
        let owner = scene.owner("..a.1");
        scene.volumes.join("vol", &owner, fill).unwrap();
        let writing = scene.path("vol/users/.b.2.2");
        fs::write(&writing, "").unwrap();
        let stale = scene.path("vol/users/c.3");
        fs::write(&stale, scene.dir.path().join("c.3").as_os_str().as_bytes()).unwrap();
        for found in [scene.volumes.find("vol").unwrap(), scene.volumes.list().unwrap().remove(0)] {
            assert_eq!(found.users, std::slice::from_ref(&owner));
        }
        assert!(writing.exists() && stale.exists(), "nothing is removed without the lock");
        scene.volumes.join("vol", &owner, fill).unwrap();
        assert!(!writing.exists() && !stale.exists());
        assert_eq!(scene.volumes.find("vol").unwrap().users, [owner]);
    }

    #[test]
    fn a_restart_of_the_machine_ends_every_use() {
        let scene = Scene::new();
        let owner = scene.owner("a.1");
        scene.volumes.join("vol", &owner, fill).unwrap();
        assert_eq!(scene.volumes.find("vol").unwrap().users, std::slice::from_ref(&owner));
        let path = scene.volumes.note("vol", &owner);
        let note = fs::read(&path).unwrap();
        let boot = boot::id().unwrap();
        assert!(note.ends_with(boot.as_bytes()));
        let other = [owner.as_os_str().as_bytes(), b"\0", &[b'0'; 36]].concat();
        fs::write(&path, &other).unwrap();
        assert!(scene.volumes.find("vol").unwrap().users.is_empty());
        // one that says nothing of it counts
        fs::write(&path, owner.as_os_str().as_bytes()).unwrap();
        assert_eq!(scene.volumes.find("vol").unwrap().users.len(), 1);
        fs::write(&path, &other).unwrap();
        scene.volumes.remove(&["vol".to_owned()]).unwrap();
    }

    #[test]
    fn what_a_killed_removal_left_is_in_nobodys_way() {
        let scene = Scene::new();
        for n in 0..2 {
            let left = scene.path(&format!(".gone-{}-{n}", std::process::id()));
            fs::create_dir_all(left.join("data/below")).unwrap();
        }
        scene.volumes.create("vol").unwrap();
        scene.volumes.remove(&["vol".to_owned()]).unwrap();
        assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), 0);
    }

    #[test]
    fn a_fill_that_was_killed_is_begun_anew() {
        let scene = Scene::new();
        let killed = scene.owner("a.1");
        let half = |dir: BorrowedFd<'_>| {
            fill(dir)?;
            std::panic::resume_unwind(std::boxed::Box::new("killed"))
        };
        let join = || scene.volumes.join("vol", &killed, half);
        assert!(catch_unwind(AssertUnwindSafe(join)).is_err());
        assert!(scene.path("vol/fresh/file").exists() && !scene.path("vol/data/file").exists());
        scene.volumes.join("vol", &scene.owner("b.2"), fill).unwrap();
        assert!(!scene.path("vol/fresh").exists() && scene.path("vol/data/file").exists());
    }
}
