//! The state of a container, computed from its process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use serde::Serialize;

use super::record::Record;
use super::store::{Entry, Lock, START_SOCKET};
use crate::error::{Error, ErrorKind, Result};

/// Where a container is in its life (runtime.md, State).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its creation has not ended, or was killed in the middle.
    Creating,
    /// Its program waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What `state` and `list` print.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// ociVersion of the configuration.
    pub oci_version: String,
    /// Id.
    pub id: String,
    /// Pid of init on the host; 0 when there is none.
    pub pid: i32,
    /// Status.
    pub status: Status,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root file system.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of who created it, or the uid if it has none.
    pub owner: String,
}

impl Status {
    /// Computes the status of a container.
    pub fn of(entry: &Entry, record: &Record) -> Result<Status> {
        let Some(init) = record.init else { return Ok(Status::Creating) };
        // the socket before the process: `delete` ends init first, so that a socket that
        // went with it is never taken for a program that was started
        let waits = match fstatat(entry.dir(), START_SOCKET, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => true,
            Err(Errno::ENOENT) => false,
            Err(e) => return Err(Error::from(e).step("look for the start socket")),
        };
        if !init.is_alive()? {
            return Ok(Status::Stopped);
        }
        Ok(match (record.cgroup.is_frozen()?, waits) {
            (true, _) => Status::Paused,
            (false, true) => Status::Created,
            (false, false) => Status::Running,
        })
    }

    /// The status of a container that somebody may be changing; `None` where it has no
    /// record.
    pub(super) fn now(entry: &Entry) -> Result<Option<Status>> {
        entry.load()?.map(|record| Status::of(entry, &record)).transpose()
    }

    /// Takes a container's lock, unless it is taken while the status is one for which
    /// `refusal` has an error. Whoever has it may change that at any time.
    pub(super) fn lock_unless(
        entry: &Entry,
        refusal: impl Fn(Status) -> Result<Option<Error>>,
    ) -> Result<Lock> {
        loop {
            if let Some(lock) = entry.try_lock()? {
                return Ok(lock);
            }
            if let Some(error) = Status::now(entry)?.map(&refusal).transpose()?.flatten() {
                return Err(error);
            }
            // a lock tells nobody that it is free, nor a record that it is another one
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl State {
    /// Reads the record of a container and looks at its process.
    ///
    /// # Errors
    /// A record that is damaged, or not there yet.
    pub fn of(entry: &Entry) -> Result<State> {
        let Some(record) = entry.load_settled()? else {
            return Err(Error::new(
                ErrorKind::State,
                "it is being created, or its creation was killed",
            )
            .hint(format!("tare delete --force {} removes it", entry.id())));
        };
        let status = Status::of(entry, &record)?;
        let pid = match (status, record.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        };
        Ok(State {
            oci_version: record.oci_version,
            id: record.id,
            pid,
            status,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: user_name(record.owner),
        })
    }
}

/// Name of a user by the host's passwd; looked up by hand, since the static
/// binary has no name service switch.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    // once for all containers
    static PASSWD: OnceLock<String> = OnceLock::new();
    let text = PASSWD.get_or_init(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    let wanted = uid.to_string();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    });
    name.unwrap_or(wanted)
}
