//! The state root: one directory a container, each with its own lock.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::exec::KEPT;
use super::id::ContainerId;
use super::record::{NAME as RECORD, Record};
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sys::caller::caller;
use crate::sys::fs::{name_path, open_dir};
use crate::sys::lock::{FileLock, Sharing};
use crate::sys::remove::remove_at;
use crate::trace;

/// The directory that holds the state of containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// The containers that there are at one moment.
#[derive(Debug)]
pub struct Containers {
    store: Store,
    /// The state root; `None` where none was made yet.
    root: Option<Arc<OwnedFd>>,
    /// Their ids, sorted. Entries that are no ids are left out.
    pub ids: Vec<ContainerId>,
}

/// The state directory of one container.
#[derive(Debug)]
pub struct Entry {
    id: ContainerId,
    path: PathBuf,
    dir: OwnedFd,
    root: Arc<OwnedFd>,
}

/// Held while something about a container changes.
#[derive(Debug)]
pub struct Lock(FileLock);

/// How long whoever makes a container may keep others waiting: the milliseconds up to its
/// program's start, if nothing hangs.
const MAKERS_PATIENCE: Duration = Duration::from_secs(2);

/// The step that a lock is.
const LOCKING: &str = "lock the container";

/// Name of the socket on which an init waits for `start`.
pub(super) const START_SOCKET: &str = "start";

impl Store {
    /// A state root; it is made when the first container is.
    pub fn new(root: PathBuf) -> Self {
        Store { root }
    }

    /// `/run/tare` for root; for others `$XDG_RUNTIME_DIR/tare`, or
    /// `/run/user/UID/tare` where a login has made that directory. Nothing in
    /// /tmp: anybody could have been there first.
    ///
    /// # Errors
    /// An ordinary user with neither.
    pub fn default_root() -> Result<PathBuf> {
        if !caller().has_own_directories() {
            return Ok(PathBuf::from("/run/tare"));
        }
        if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
            return Ok(Path::new(&dir).join("tare"));
        }
        let usual = PathBuf::from(format!("/run/user/{}", caller().uid));
        match std::fs::symlink_metadata(&usual) {
            Ok(found) if found.is_dir() && found.uid() == caller().uid => Ok(usual.join("tare")),
            _ => Err(Error::invalid("no directory for the state of containers")
                .hint("set XDG_RUNTIME_DIR to one that is yours alone, or give --root")),
        }
    }

    /// Reserves an id: makes its state directory, locked.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the id is in use.
    pub fn reserve(&self, id: &ContainerId) -> Result<(Entry, Lock)> {
        let root = Arc::new(self.open_or_make_root()?);
        let mode = Mode::from_bits_truncate(0o700);
        match mkdirat(&*root, id.as_str(), mode) {
            Ok(()) => crate::logging::debug(|| format!("made {}/{id}", self.show())),
            Err(Errno::EEXIST) => {
                return Err(exists(id));
            }
            Err(e) => return Err(Error::from(e).step(format!("mkdir {}/{id}", self.show()))),
        }
        let reserved = self.entry(&root, id).and_then(|entry| {
            let lock = entry.lock()?;
            entry.refuse_taken()?;
            Ok((entry, lock))
        });
        if let Err(e) = reserved {
            let is_gone = e.kind() == ErrorKind::NotFound || e.is_errno(Errno::ENOENT);
            if is_gone || e.kind() == ErrorKind::Exists {
                // deleted before it was locked: what has the name now is another's
                return Err(e);
            }
            // nothing is in it, and nobody else would know whose it is
            let removed = unlinkat(&*root, id.as_str(), UnlinkatFlags::RemoveDir);
            return Err(match removed {
                Ok(()) => e,
                Err(left) => e.hint(format!("and its undoing failed: {}", Error::from(left))),
            });
        }
        reserved
    }

    /// The state directory of a container.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn find(&self, id: &ContainerId) -> Result<Entry> {
        self.find_in(self.open_root()?.as_ref(), id)
    }

    fn find_in(&self, root: Option<&Arc<OwnedFd>>, id: &ContainerId) -> Result<Entry> {
        let found = self.entry(root.ok_or_else(no_container)?, id);
        found.map_err(|e| if e.is_errno(Errno::ENOENT) { no_container() } else { e })
    }

    /// The state root; `None` where none was made yet.
    fn open_root(&self) -> Result<Option<Arc<OwnedFd>>> {
        match open_dir(&self.root) {
            Err(Errno::ENOENT) => Ok(None),
            other => Ok(Some(Arc::new(other.step(|| self.show())?))),
        }
    }

    /// Where the state directory of a container is or would be.
    pub(super) fn path_of(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// All containers.
    ///
    /// # Errors
    /// The state root can't be read.
    pub fn containers(&self) -> Result<Containers> {
        let root = self.open_root()?;
        let ids = root.as_ref().map(|root| ids_in(root).step(|| self.show()));
        Ok(Containers { store: self.clone(), ids: ids.transpose()?.unwrap_or_default(), root })
    }

    fn entry(&self, root: &Arc<OwnedFd>, id: &ContainerId) -> Result<Entry> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = self.path_of(id);
        let dir =
            openat(root, id.as_str(), flags, Mode::empty()).step(|| path.display().to_string())?;
        Ok(Entry { id: id.clone(), path, dir, root: Arc::clone(root) })
    }

    fn open_or_make_root(&self) -> Result<OwnedFd> {
        match open_dir(&self.root) {
            Err(Errno::ENOENT) => {}
            other => return other.step(|| self.show()).and_then(|dir| self.own(dir)),
        }
        let mut builder = std::fs::DirBuilder::new();
        // the sticky bit keeps it from those who clean up old files in
        // XDG_RUNTIME_DIR (the XDG base directory specification)
        builder.recursive(true).mode(if caller().uid == 0 { 0o700 } else { 0o1700 });
        builder.create(&self.root).step(|| format!("make the state root {}", self.show()))?;
        open_dir(&self.root).step(|| self.show()).and_then(|dir| self.own(dir))
    }

    /// What is in there decides which processes get signals: it has to be the
    /// caller's own, and closed to others.
    fn own(&self, dir: OwnedFd) -> Result<OwnedFd> {
        if caller().is_host_root() {
            // whose directory root takes is root's choice
            return Ok(dir);
        }
        let found = fstat(&dir).step(|| self.show())?;
        let owner = found.st_uid;
        // root of a user namespace sees itself as such
        if owner != geteuid().as_raw() {
            return Err(Error::invalid(format!("it belongs to uid {owner}")).step(self.show()));
        }
        if found.st_mode & 0o022 != 0 {
            return Err(Error::invalid("others may write to it").step(self.show()));
        }
        Ok(dir)
    }

    fn show(&self) -> String {
        self.root.display().to_string()
    }
}

impl Containers {
    /// Whether the state root is there: it is made with the first container.
    pub fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// The state directory of one of them, as [`Store::find`] gives it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it was deleted meanwhile.
    pub fn find(&self, id: &ContainerId) -> Result<Entry> {
        self.store.find_in(self.root.as_ref(), id)
    }
}

fn ids_in(root: &OwnedFd) -> nix::Result<Vec<ContainerId>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(root, ".", flags, Mode::empty())?;
    let mut ids = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().ok().and_then(|n| ContainerId::parse(n).ok())
        else {
            continue;
        };
        let is_dir = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            // a file system that does not tell
            None => fstatat(root, id.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|found| {
                SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
            }),
        };
        if is_dir {
            ids.push(id);
        }
    }
    ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(ids)
}

fn exists(id: &ContainerId) -> Error {
    let hint = format!("see tare state {id}, tare delete {id}");
    Error::new(ErrorKind::Exists, phrase::EXISTS).hint(hint)
}

fn no_container() -> Error {
    Error::new(ErrorKind::NotFound, phrase::NO_CONTAINER)
}

impl Entry {
    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The state directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the container's lock.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the container was deleted meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        self.lock_as(Sharing::Exclusive)
    }

    /// Waits for the container's lock, to be shared with others who share it.
    ///
    /// # Errors
    /// As for [`Entry::lock`].
    pub fn share(&self) -> Result<Lock> {
        self.lock_as(Sharing::Shared)
    }

    fn lock_as(&self, sharing: Sharing) -> Result<Lock> {
        let lock = trace::step("lock the container", || {
            let lock = FileLock::wait(self.open_for_lock()?, sharing).step(|| LOCKING)?;
            self.still_there().map(|()| lock)
        })?;
        crate::logging::debug(|| format!("locked {}", self.path.display()));
        Ok(Lock(lock))
    }

    /// For a directory that was just made: somebody may have deleted it, and another one
    /// have made and used it, before this one was open.
    fn refuse_taken(&self) -> Result<()> {
        match fstatat(&self.dir, RECORD, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(()),
            Ok(_) => Err(exists(&self.id)),
            Err(e) => Err(Error::from(e).step(self.path.display())),
        }
    }

    /// Opened anew: a copy of `dir` would share its lock with every other copy.
    fn open_for_lock(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.dir, ".", flags, Mode::empty()).step(|| LOCKING)
    }

    fn still_there(&self) -> Result<()> {
        if fstat(&self.dir).step(|| LOCKING)?.st_nlink == 0 {
            return Err(no_container());
        }
        Ok(())
    }

    /// The container's lock, if nobody holds it.
    ///
    /// # Errors
    /// As for [`Entry::lock`].
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let lock = trace::step("lock the container", || {
            let lock = FileLock::try_now(self.open_for_lock()?, Sharing::Exclusive);
            match lock.step(|| LOCKING)? {
                Some(lock) => self.still_there().map(|()| Some(Lock(lock))),
                None => Ok(None),
            }
        })?;
        if lock.is_some() {
            crate::logging::debug(|| format!("locked {}", self.path.display()));
        }
        Ok(lock)
    }

    /// The record; `None` when its writer was killed before it was there.
    pub fn load(&self) -> Result<Option<Record>> {
        match trace::step("read the record", || Record::load(&self.dir)) {
            Err(e) if e.is_errno(Errno::ENOENT) => Ok(None),
            other => other.map(Some).map_err(|e| e.step(self.path.display())),
        }
    }

    /// The record, for who does not hold the lock: where there is none, whoever is
    /// about to make or to remove the container is waited for, and where its program may
    /// run already, the init that does.
    ///
    /// # Errors
    /// As for [`Entry::load`]; [`ErrorKind::NotFound`] when it is deleted meanwhile.
    pub fn load_settled(&self) -> Result<Option<Record>> {
        loop {
            match self.load()? {
                Some(record) if record.init.is_none() && record.goes_on => {
                    return self.load_named(record);
                }
                Some(record) => return Ok(Some(record)),
                None => {}
            }
            // not until the lock is free: its holder may be in a hook long after the record
            // is there
            if let Some(_lock) = self.try_share()? {
                return self.still_there().and_then(|()| self.load());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn try_share(&self) -> Result<Option<FileLock>> {
        FileLock::try_now(self.open_for_lock()?, Sharing::Shared).step(|| LOCKING)
    }

    /// The record when it has an init, or its maker has given up or takes too long.
    fn load_named(&self, mut record: Record) -> Result<Option<Record>> {
        let deadline = Instant::now() + MAKERS_PATIENCE;
        while record.init.is_none() && Instant::now() < deadline {
            if self.try_share()?.is_some() {
                return self.load();
            }
            // a lock tells nobody that it is free: look again
            std::thread::sleep(Duration::from_millis(1));
            match self.load()? {
                Some(now) => record = now,
                None => return Ok(None),
            }
        }
        Ok(Some(record))
    }

    /// True for a directory that is no container's: without a record, but with
    /// other things in it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn is_foreign(&self) -> Result<bool> {
        match fstatat(&self.dir, RECORD, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {}
            other => return other.map(|_| false).step(|| self.path.display()),
        }
        let names = self.names().step(|| self.path.display())?;
        // the names that they have while they are written
        let begun = [RECORD, KEPT].map(|name| format!(".{name}."));
        let is_begun = |name: &CString| {
            begun.iter().any(|begun| name.to_bytes().starts_with(begun.as_bytes()))
        };
        Ok(!names.iter().all(is_begun))
    }

    /// When something last came into the state directory or went from it.
    ///
    /// # Errors
    /// It can't be looked at.
    pub fn changed(&self) -> Result<time::OffsetDateTime> {
        let found = fstat(&self.dir).step(|| self.path.display())?;
        time::OffsetDateTime::from_unix_timestamp(found.st_mtime)
            .map(|seconds| seconds + time::Duration::nanoseconds(found.st_mtime_nsec))
            .map_err(|_range| Error::invalid("its time is out of range").step(self.path.display()))
    }

    fn names(&self) -> nix::Result<Vec<CString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(&self.dir, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let name = entry?.file_name().to_owned();
            if name.to_bytes() != b"." && name.to_bytes() != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Saves the record.
    pub fn save(&self, record: &Record) -> Result<()> {
        record.save(&self.dir)
    }

    /// Removes a state directory with nothing in it but what every container has; true
    /// if it is gone. To read it would take longer than all of this. What a writer has
    /// left that was killed goes after the record then: nothing else is left of the
    /// container.
    fn remove_usual(&self) -> nix::Result<bool> {
        // a directory in it is another link to this one, where links are counted
        if fstat(&self.dir)?.st_nlink != 2 {
            return Ok(false);
        }
        for name in [KEPT, START_SOCKET, RECORD] {
            match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        match unlinkat(&*self.root, self.id.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(true),
            // of a writer that was killed
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The state directory, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Removes the state directory and the files in it.
    pub fn remove(&self, lock: Lock) -> Result<()> {
        let step = || format!("remove {}", self.path.display());
        if !self.remove_usual().step(step)? {
            let mut names = self.names().step(step)?;
            // the record at last: until then it tells what there is
            names.sort_by_key(|name| name.to_bytes() == RECORD.as_bytes());
            for name in &names {
                remove_at(self.dir.as_fd(), name_path(name)).step(step)?;
            }
            match unlinkat(&*self.root, self.id.as_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(Error::from(e).step(step())),
            }
        }
        lock.0.close();
        crate::logging::debug(|| format!("removed {}", self.path.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_another_has_made_meanwhile_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let (store, id) = (Store::new(root.path().join("s")), ContainerId::parse("c").unwrap());
        let (entry, lock) = store.reserve(&id).unwrap();
        entry.refuse_taken().unwrap();
        drop(lock);
        std::fs::File::create(entry.path().join(RECORD)).unwrap();
        assert_eq!(entry.refuse_taken().unwrap_err().kind(), ErrorKind::Exists);
    }
}
