//! The container's cgroup, by cgroup2 alone.
//!
//! [`limits::plan`] and [`devices::plan`] turn the config into file writes and
//! an eBPF program without touching the host; [`Hierarchy`] knows where
//! cgroup2 is; [`Cgroup`] is one directory of it. [`systemd`] has systemd make that
//! directory, in an order of its own.
//!
//! The order of a create, and why:
//! 1. [`Cgroup::create_held`]: mkdir, open and lock. Two that are given the same path
//!    at once must not both have it: the lock ends when init is in there, and who has it
//!    looks whether somebody is. Controllers are enabled here and not
//!    later: with processes below, that would wait for an RCU grace period;
//! 2. [`Cgroup::apply`]: the limits; no system call where there are none;
//! 3. the container's init is cloned *into* the cgroup (CLONE_INTO_CGROUP with
//!    [`Cgroup::dir`]): moving a process in by cgroup.procs waits for a grace
//!    period, too, which takes milliseconds;
//! 4. [`Cgroup::attach_devices`], while the init is busy with its mounts and
//!    before it runs anything of the user's, hooks included: the kernel takes
//!    longer to verify and to attach the program than for all the rest, and
//!    none of it has to be waited for before the clone.

pub mod devices;
mod events;
pub mod hierarchy;
mod identity;
pub mod limits;
mod make;
mod offer;
mod oom;
mod owner;
pub mod path;
mod signals;
pub mod stats;
pub mod systemd;
#[cfg(test)]
mod tests;
mod tree;
mod update;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::uninterrupted;
pub use hierarchy::Hierarchy;
pub use identity::Identity;
use limits::{AboveUse, Absent, Setting};
pub use make::Found;
pub use oom::{Bytes, OutOfMemory};
pub use update::Updated;

/// What a later command needs to find a cgroup again, and to leave nothing
/// behind when it removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupRecord {
    /// Its directory.
    pub path: PathBuf,
    /// How many of the directories just above it were made for it.
    #[serde(default)]
    pub made_parents: usize,
    /// Which one it is; `None` while it is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// The unit of systemd whose cgroup it is, or lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<systemd::Scope>,
}

/// A cgroup: its directory, held open.
#[derive(Debug)]
pub struct Cgroup {
    record: CgroupRecord,
    dir: OwnedFd,
    was_there: bool,
}

impl Cgroup {
    /// True if it was not made by the call that gave this value.
    pub fn was_there(&self) -> bool {
        self.was_there
    }

    /// Opens a cgroup that was made before.
    ///
    /// # Errors
    /// It is gone ([`ErrorKind::NotFound`]), be there another one in its place or
    /// not; it can't be opened.
    pub fn open(record: CgroupRecord) -> Result<Self> {
        let path = record.path.clone();
        let cgroup = Self::open_at(AT_FDCWD, &path, record)?;
        let step = || format!("cgroup {}", path.display());
        if identity::is_same(cgroup.record.identity.as_ref(), cgroup.dir()).step(step)? {
            return Ok(cgroup);
        }
        let text = "it is gone, and another container has one in its place";
        Err(Error::new(ErrorKind::NotFound, text).step(step()))
    }

    fn open_at(base: BorrowedFd<'_>, path: &Path, record: CgroupRecord) -> Result<Self> {
        Self::open_as(base, path, record, OFlag::O_PATH)
    }

    fn open_as(
        base: BorrowedFd<'_>,
        path: &Path,
        record: CgroupRecord,
        mode: OFlag,
    ) -> Result<Self> {
        let flags = mode | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match openat(base, path, flags, Mode::empty()) {
            Ok(dir) => Ok(Cgroup { record, dir, was_there: true }),
            Err(errno) => {
                let error = Error::errno(errno).step(format!("cgroup {}", record.path.display()));
                Err(match errno {
                    Errno::ENOENT => error.of_kind(ErrorKind::NotFound),
                    _ => error,
                })
            }
        }
    }

    /// Its directory (O_PATH, but for one that is held), good for CLONE_INTO_CGROUP, for bpf(2), for
    /// open_tree(2) and as the base of relative calls, but not for reading its
    /// entries.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its directory's path.
    pub fn path(&self) -> &Path {
        &self.record.path
    }

    /// What to keep for later commands.
    pub fn record(&self) -> &CgroupRecord {
        &self.record
    }

    /// Writes settings, in their order. On a cgroup that was just created this
    /// belongs before the first process, but for a limit that the runtime's own
    /// steps must not run into: that one may wait until they are done.
    ///
    /// # Errors
    /// The kernel refuses one; those before it are in effect.
    pub fn apply(&self, settings: &[Setting]) -> Result<()> {
        self.check_use(settings)?;
        update::write_all(settings.iter(), |setting| self.write(setting))
    }

    fn write(&self, setting: &Setting) -> Result<()> {
        let (mut file, mut value) = (setting.file.as_ref(), setting.value.as_str());
        let mut written = tree::write(self.dir(), file, value);
        if written == Err(Errno::ENOENT) {
            match &setting.absent {
                Absent::Fail => {}
                Absent::Ignore => written = Ok(()),
                Absent::Instead(other, scaled) => {
                    (file, value) = (other, scaled);
                    written = tree::write(self.dir(), file, value);
                }
            }
        }
        written.map_err(|errno| match (errno, setting.controller()) {
            (Errno::ENOENT, Some(controller)) => Error::unsupported(format!(
                "{}: the {controller} controller of this kernel has no {file}",
                setting.field
            )),
            (Errno::ENOENT, None) => Error::unsupported(format!(
                "{}: this kernel's cgroups have no {file}",
                setting.field
            )),
            _ => {
                let error = Error::errno(errno).step(format!("write \"{value}\" to {file}"));
                let error = error.step(&setting.field);
                match self.to_choose_from(file).filter(|_| errno != Errno::EPERM) {
                    Some(there) => error.hint(format!("there are {there}")),
                    None => error,
                }
            }
        })
    }

    /// The processors, or memory nodes, that a cpuset can be made of.
    fn to_choose_from(&self, file: &str) -> Option<String> {
        if !["cpuset.cpus", "cpuset.mems"].contains(&file) {
            return None;
        }
        let text = tree::read(self.dir(), format!("../{file}.effective").as_str()).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Refuses limits that are no more than what is in use.
    fn check_use(&self, settings: &[Setting]) -> Result<()> {
        for setting in settings {
            let Some(AboveUse { what, bytes, file }) = setting.above_use else { continue };
            let used = match tree::read(self.dir(), file) {
                // without the controller nothing is counted
                Err(Errno::ENOENT) => continue,
                other => other.step(|| format!("read {file}"))?,
            };
            let used: u64 = used.trim().parse().unwrap_or(u64::MAX);
            if bytes <= used {
                return Err(Error::invalid(format!(
                    "{}: rejecting {what} {bytes}: {used} bytes are in use (checkBeforeUpdate)",
                    setting.field
                )));
            }
        }
        Ok(())
    }

    /// Moves a process in. It takes milliseconds: a process that is cloned into
    /// the cgroup needs no move.
    ///
    /// # Errors
    /// No such process, no permission, or a cgroup that hands controllers down.
    pub fn add(&self, pid: Pid) -> Result<()> {
        enter(self.dir(), pid).map_err(|e| e.step(format!("cgroup {}", self.path().display())))
    }

    /// True for one that hands controllers to those below, and so takes no process.
    ///
    /// # Errors
    /// It can't be read.
    pub fn hands_down(&self) -> Result<bool> {
        let handed = tree::read(self.dir(), "cgroup.subtree_control")
            .step(|| format!("read {}/cgroup.subtree_control", self.path().display()))?;
        Ok(!handed.trim().is_empty())
    }

    /// The processes in it; with `recursive`, those of cgroups below as well. A
    /// process that this pid namespace does not have is 0.
    ///
    /// # Errors
    /// It can't be read.
    pub fn procs(&self, recursive: bool) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        tree::procs(self.dir(), recursive, &mut pids)
            .step(|| format!("read the processes of {}", self.path().display()))?;
        Ok(pids)
    }

    /// Removes it with the cgroups below it and the parents that were made for
    /// it, waiting until `deadline` for processes in it to be gone.
    ///
    /// # Errors
    /// There are still processes in it. A cgroup that is gone is no error.
    pub fn remove(self, deadline: Instant) -> Result<()> {
        let Cgroup { record, dir: _held, .. } = self;
        record.remove(deadline)
    }
}

impl CgroupRecord {
    /// True if somebody has asked for it to be frozen (cgroup.freeze), in one
    /// read. No cgroup is not frozen.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn is_frozen(&self) -> Result<bool> {
        if self.path.as_os_str().is_empty() {
            return Ok(false);
        }
        let file = self.path.join("cgroup.freeze");
        let mut value = [0; 1];
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let read = openat(AT_FDCWD, &file, flags, Mode::empty())
            .and_then(|fd| uninterrupted(|| nix::unistd::read(&fd, &mut value)));
        match read {
            Ok(_) => Ok(value == *b"1"),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::errno(errno).step(format!("read {}", file.display()))),
        }
    }

    /// [`Cgroup::out_of_memory`]; `None` as well if the cgroup is gone.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        Cgroup::open(self.clone()).ok()?.out_of_memory()
    }

    /// The same error, with the kernel's reason if it killed for want of memory.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match self.out_of_memory() {
            Some(oom) => error.hint(oom),
            None => error,
        }
    }

    /// Kills what is in the cgroup, removes what is below it, and leaves it: for one
    /// that was there before, and is to be good for others.
    ///
    /// # Errors
    /// There are still processes in it. A cgroup that is gone is no error.
    pub fn empty(&self, deadline: Instant) -> Result<()> {
        match Cgroup::open(self.clone()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.step("empty it")),
            Ok(cgroup) => {
                let emptied =
                    cgroup.kill_each(deadline).and_then(|()| tree::empty(&cgroup, deadline));
                emptied.and(cgroup.take_back())
            }
        }
    }

    /// Removes the cgroup as [`Cgroup::remove`] does; the unit as well, if it has
    /// one. What others have in its place is left alone.
    ///
    /// # Errors
    /// There are still processes in it. A cgroup that is gone is no error.
    pub fn remove(&self, deadline: Instant) -> Result<()> {
        match Cgroup::open(self.clone()) {
            Err(e) if e.kind() == ErrorKind::NotFound => tree::remove_parents(self),
            Err(e) => return Err(e.step("remove it")),
            Ok(_same) => tree::remove(self, deadline)?,
        }
        self.scope.as_ref().map_or(Ok(()), systemd::Scope::stop)
    }
}

/// Moves a process into the cgroup of this directory, as [`Cgroup::add`] does.
///
/// # Errors
/// As there.
pub fn enter(dir: BorrowedFd<'_>, pid: Pid) -> Result<()> {
    tree::write(dir, "cgroup.procs", &pid.to_string())
        .step(|| format!("move process {pid} into it"))
}
