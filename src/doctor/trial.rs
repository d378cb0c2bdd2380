//! Trying things where they leave nothing behind: in a child process, which
//! takes its namespaces, mounts and limits with it when it ends.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{getegid, geteuid, pipe2};

use super::Host;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::process::{Child, CloneHow, clone_child, exit_now, pidfd_send_signal};

/// The longest that a trial, or another program, may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// A directory that every host with cgroups has, and that a trial in a mount
/// namespace of its own may cover: trials need nothing below it.
pub(super) const COVERED: &str = "/sys";

/// Does `work` in a child that is born in new `namespaces`. An ordinary user
/// gets them together with a user namespace in which they are root.
///
/// # Errors
/// What `work` fails with. Where there is no such child, or none that answers
/// in time: [`untried`].
pub(super) fn within<T: Answer>(
    host: &Host,
    namespaces: CloneFlags,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match host.is_root() {
        true => in_child(namespaces, false, work).unwrap_or_else(|e| Err(untried(&e))),
        false => as_user(namespaces, work),
    }
}

/// As [`within`], with a user namespace in any case.
pub(super) fn as_user<T: Answer>(
    namespaces: CloneFlags,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let namespaces = namespaces | CloneFlags::CLONE_NEWUSER;
    in_child(namespaces, true, work).unwrap_or_else(|e| Err(untried(&e)))
}

/// Does `work` in a plain child: what it does to itself goes with it.
///
/// # Errors
/// As [`within`].
pub(super) fn apart<T: Answer>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    in_child(CloneFlags::empty(), false, work).unwrap_or_else(|e| Err(untried(&e)))
}

/// As [`within`], for what is about the birth itself: clone3's error comes as
/// it is.
///
/// # Errors
/// What clone3 or `work` fails with.
pub(super) fn birth<T: Answer>(
    host: &Host,
    namespaces: CloneFlags,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let own = if host.is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    in_child(namespaces | own, !host.is_root(), work).and_then(|answer| answer)
}

/// What a child can send to its parent.
pub(super) trait Answer: serde::Serialize + serde::de::DeserializeOwned {}
impl<T: serde::Serialize + serde::de::DeserializeOwned> Answer for T {}

/// The error of a trial that could not be made, and so says nothing of what was
/// to be tried. It has no errno, which would be that of something else.
pub(super) fn untried(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::State, format!("not tried: {why}"))
}

/// True for an error of [`untried`].
pub(super) fn is_untried(e: &Error) -> bool {
    e.kind() == ErrorKind::State
}

/// The outer result is that of the birth, the inner one that of `work`.
fn in_child<T: Answer>(
    namespaces: CloneFlags,
    mapped: bool,
    work: impl FnOnce() -> Result<T>,
) -> Result<Result<T>> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).step(|| "pipe")?;
    let ids = (geteuid().as_raw(), getegid().as_raw());
    let how = CloneHow { namespaces, cgroup: None, sibling: false, share_files: false };
    let child = clone_child(how, move || {
        let ready = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Error::from);
        let ready = ready.and_then(|()| if mapped { map_root(ids) } else { Ok(()) });
        let result = ready.and_then(|()| work());
        if let Ok(text) = serde_json::to_vec(&result) {
            // nobody left to tell, if it fails
            File::from(theirs).write_all(&text).unwrap_or_default();
        }
        exit_now(0)
    })
    .step(|| "clone3")?;
    let answer = read_all(ours, DEADLINE);
    end(&child);
    let torn = |_| Error::new(ErrorKind::System, "the process that tried it has died");
    Ok(answer.and_then(|answer| serde_json::from_slice(&answer).map_err(torn)?))
}

/// Kills a child, whatever it does, and reaps it.
pub(super) fn end(child: &Child) {
    // it may have ended by itself
    pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap_or_default();
    // one that hangs in the kernel is not waited for
    if is_ready(child.pidfd.as_fd(), Duration::from_secs(1)) {
        waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)
            .unwrap_or(WaitStatus::StillAlive);
    }
}

/// Waits until a descriptor has something to read, or a process has ended.
pub(super) fn is_ready(fd: BorrowedFd<'_>, most: Duration) -> bool {
    let until = Instant::now() + most;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok_and(|count| count > 0),
        }
    }
}

/// Reads until the other ends are closed.
///
/// # Errors
/// They are not in time.
pub(super) fn read_all(fd: OwnedFd, most: Duration) -> Result<Vec<u8>> {
    let until = Instant::now() + most;
    let mut file = File::from(fd);
    let mut all = Vec::new();
    let mut piece = [0u8; 4096];
    loop {
        if !is_ready(file.as_fd(), until.saturating_duration_since(Instant::now())) {
            let text = format!("no answer within {} s", most.as_secs());
            return Err(Error::new(ErrorKind::System, text));
        }
        match file.read(&mut piece) {
            Ok(0) => return Ok(all),
            Ok(n) => all.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == IoErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Makes the maker of this user namespace its root.
fn map_root((uid, gid): (u32, u32)) -> Result<()> {
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))
}

/// Writes a file of /proc in one write.
pub(super) fn write(path: &str, text: &str) -> Result<()> {
    let file = File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).step(|| format!("write {path}"))
}

/// Cuts this mount namespace off from the one it was copied from.
pub(super) fn cut_off() -> Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).step(|| "set the propagation of /")
}
