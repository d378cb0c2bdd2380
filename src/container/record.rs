//! What is kept of a container between two commands.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::shared_root::SharedRoot;
use crate::cgroup::{Cgroup, CgroupRecord, OutOfMemory};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{HookPlan, ListenerPlan};
use crate::sys::fs::{Replacement, open_file, read_whole};
use crate::sys::process::pidfd_open;
use crate::sys::uninterrupted;

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitProcess {
    /// Its pid on the host.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

/// The persisted facts of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its id.
    pub id: String,
    /// ociVersion of its configuration.
    pub oci_version: String,
    /// Directory of its bundle.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// Annotations of its configuration.
    pub annotations: BTreeMap<String, String>,
    /// User id of who created it.
    pub owner: u32,
    /// Its init; `None` while it is being created.
    pub init: Option<InitProcess>,
    /// Its cgroup.
    pub cgroup: CgroupRecord,
    /// Without a pid namespace of its own the end of init ends nobody else.
    pub own_pid_namespace: bool,
    /// Who answers calls in the container's place, once it is started.
    #[serde(default)]
    pub seccomp_listener: Option<ListenerPlan>,
    /// Init runs hooks of its own in `start`, and may hang in them.
    #[serde(default)]
    pub has_start_hooks: bool,
    /// Hooks for after `start`.
    pub poststart: Vec<HookPlan>,
    /// Hooks for after `delete`.
    pub poststop: Vec<HookPlan>,
    /// Directories and files that go with the container (the upper directory of
    /// an image's overlay, the note that the image is in use).
    pub scratch: Vec<PathBuf>,
    /// The cgroup was there before: until init is in it, its processes are
    /// somebody else's.
    pub cgroup_was_there: bool,
    /// Its program may run before the record has its init: whoever finds none waits for
    /// who makes the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
    /// Limits and device rules in effect.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub resources: LinuxResources,
    /// The group of resctrl that it is in, if its configuration asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt_group: Option<PathBuf>,
    /// Groups of resctrl that go with the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rdt_groups: Vec<PathBuf>,
    /// Its root's mount in the namespace of who created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_root: Option<SharedRoot>,
}

fn is_empty(resources: &LinuxResources) -> bool {
    *resources == LinuxResources::default()
}

impl InitProcess {
    /// Looks a live process up by its pid.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: Pid) -> Result<Self> {
        InitProcess::with_ignored(pid).map(|(init, _)| init)
    }

    /// The same, and the signals that it ignores, as bits.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn with_ignored(pid: Pid) -> Result<(Self, u64)> {
        let found = stat(pid)?;
        let found =
            found.ok_or_else(|| Error::from(Errno::ESRCH).step(format!("process {pid}")))?;
        Ok((InitProcess { pid: pid.as_raw(), start_time: found.start_time }, found.ignored))
    }

    /// True while it lives: a zombie has ended.
    pub fn is_alive(self) -> Result<bool> {
        match stat(self.pid())? {
            Some(found) if found.start_time == self.start_time => {
                Ok(found.runs || !has_ended(self.pid())?)
            }
            _ => Ok(false),
        }
    }

    /// A pidfd of it; `None` when it has ended.
    pub fn open(self) -> Result<Option<OwnedFd>> {
        let pidfd = match pidfd_open(self.pid()) {
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            other => other.step(|| format!("pidfd_open {}", self.pid))?,
        };
        // checked after the pidfd is there: from now on the pid can't change hands
        Ok(self.is_alive()?.then_some(pidfd))
    }

    /// Its pid.
    pub fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }
}

/// Whether the last thread of a process has ended: one whose first thread has looks
/// like a zombie, and a pidfd knows better (pidfd_open(2)).
fn has_ended(pid: Pid) -> Result<bool> {
    let pidfd = match pidfd_open(pid) {
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(true),
        other => other.step(|| format!("pidfd_open {pid}"))?,
    };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO).step(|| format!("poll process {pid}"))? > 0)
}

/// What is asked of a process (proc_pid_stat(5)).
struct Stat {
    start_time: u64,
    /// Its first thread does.
    runs: bool,
    /// Signals, the first 31 alone.
    ignored: u64,
}

/// Looks at a process; `None` if there is none.
fn stat(pid: Pid) -> Result<Option<Stat>> {
    let mut buffer = [0u8; 1024];
    let path = format!("/proc/{pid}/stat");
    let read = open_file(Path::new(&path), OFlag::empty())
        .and_then(|file| uninterrupted(|| nix::unistd::read(&file, &mut buffer)));
    let text = match read {
        // one read: the kernel writes the line whole, and 1024 bytes hold it
        Ok(length) => String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()),
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(e) => return Err(Error::from(e).step(format!("read {path}"))),
    };
    // the name, in parentheses, may hold anything: count from its end
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    // from the third field on: the 22nd, and the 33rd
    let mut number = |skipped| fields.nth(skipped).and_then(|field| field.parse().ok());
    match (number(18), number(10)) {
        (Some(start_time), Some(ignored)) => {
            Ok(Some(Stat { start_time, runs: state != "Z" && state != "X", ignored }))
        }
        _ => Err(Error::new(ErrorKind::System, format!("{path} lacks fields"))),
    }
}

impl Record {
    /// Reads the record in a state directory.
    ///
    /// # Errors
    /// ENOENT before it was written; text that is not a record.
    pub fn load(dir: impl AsFd) -> Result<Self> {
        use nix::fcntl::openat;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(dir, NAME, flags, nix::sys::stat::Mode::empty()).step(|| NAME)?;
        let bytes = read_whole(fd).step(|| NAME)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(ErrorKind::System, format!("{NAME} is damaged: {e}")))
    }

    /// Writes the record. It is not synced: no process that it tells of
    /// outlives a reboot.
    pub fn save(&self, dir: impl AsFd) -> Result<()> {
        self.prepare(&dir)?.take_place(&dir).step(|| format!("save {NAME}"))
    }

    /// The same but for the last step, after which others see it.
    pub(super) fn prepare(&self, dir: impl AsFd) -> Result<Replacement> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::new(ErrorKind::System, format!("encode {NAME}: {e}")))?;
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        Replacement::write(dir, NAME, &bytes, mode, false).step(|| format!("save {NAME}"))
    }
}

/// The file of the record.
pub(super) const NAME: &str = "state.json";

impl Record {
    /// The container's own cgroup.
    ///
    /// # Errors
    /// It has none, or that one is gone.
    pub(super) fn own_cgroup(&self) -> Result<Cgroup> {
        if self.cgroup.path.as_os_str().is_empty() {
            return Err(Error::unsupported("the container has no cgroup of its own")
                .hint("none was delegated to who created it: see docs/rootless.md"));
        }
        Cgroup::open(self.cgroup.clone())
    }

    /// Whether nobody of the container can be left: with the init of a pid
    /// namespace all in it have ended. Who is in its cgroup then, came after it.
    pub(super) fn has_ended(&self) -> Result<bool> {
        match self.init {
            Some(init) if self.own_pid_namespace => Ok(!init.is_alive()?),
            _ => Ok(false),
        }
    }

    /// What the kernel killed in the container for want of memory; of a cgroup
    /// that was there before, the figures tell of others as well.
    pub(super) fn out_of_memory(&self) -> Option<OutOfMemory> {
        if self.cgroup_was_there { None } else { self.cgroup.out_of_memory() }
    }

    /// The same error, with the kernel's reason if it killed for want of memory.
    pub(super) fn explain(&self, error: Error) -> Error {
        if self.cgroup_was_there { error } else { self.cgroup.explain(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_processes_apart() {
        let me = InitProcess::of(nix::unistd::getpid()).unwrap();
        assert!(me.is_alive().unwrap());
        let other = InitProcess { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive().unwrap());
        assert!(other.open().unwrap().is_none());
        let none = InitProcess { pid: i32::MAX, start_time: 1 };
        assert!(none.open().unwrap().is_none());
    }
}
