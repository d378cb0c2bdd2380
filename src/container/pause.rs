//! `pause` and `resume`: the container's cgroup, frozen and thawed.

use std::time::{Duration, Instant};

use super::record::Record;
use super::state::Status;
use super::store::Entry;
use crate::error::{Error, ErrorKind, Result, phrase};

/// How long processes may take to stand still, or to go on. One that takes
/// longer hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes every process of a container, and waits until they stand still.
///
/// # Errors
/// It is not running, or paused already; it has no cgroup of its own; a process
/// does not stop in time: then all of them go on.
pub fn pause(entry: &Entry) -> Result<()> {
    let _lock = entry.lock()?;
    let record = loaded(entry)?;
    match Status::of(entry, &record)? {
        Status::Created | Status::Running => {}
        Status::Paused => {
            let error = Error::new(ErrorKind::State, "it is paused already");
            return Err(error.step(phrase::NOT_RUNNING));
        }
        Status::Creating | Status::Stopped => return Err(not_running()),
    }
    record.own_cgroup()?.freeze(true, Instant::now() + PATIENCE)
}

/// Lets the processes of a paused container go on.
///
/// # Errors
/// It is not paused; a cgroup above it is frozen as well.
pub fn resume(entry: &Entry) -> Result<()> {
    let _lock = entry.lock()?;
    let record = loaded(entry)?;
    match Status::of(entry, &record)? {
        Status::Paused => {}
        status => {
            let error = Error::new(ErrorKind::State, format!("it is {status}"));
            return Err(error.step(phrase::NOT_PAUSED));
        }
    }
    record.own_cgroup()?.freeze(false, Instant::now() + PATIENCE)
}

/// The record of a container that was created.
pub(super) fn loaded(entry: &Entry) -> Result<Record> {
    entry.load()?.ok_or_else(not_running)
}

/// What engines look for.
pub(super) fn not_running() -> Error {
    Error::new(ErrorKind::State, phrase::NOT_RUNNING)
}
