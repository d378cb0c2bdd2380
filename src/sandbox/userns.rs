//! The runtime itself as root of a user namespace of its own: what an ordinary
//! user needs for the files of images, which have many owners and any mode.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::getpid;

use super::idmap::{GROUPS, IdMaps, Kind, USERS, own_ranges};
use super::protocol::{Channel, Message};
use super::spawn::wait_for_end;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::IdMapping;
use crate::sys::caller::caller;
use crate::sys::process::{self, CloneHow, clone_child};

/// Makes this process root of a new user namespace, with a mount namespace of
/// its own. The user is root in it, and what /etc/subuid and /etc/subgid give
/// him are the ids from 1 on; without that (or without newuidmap) there is no
/// id but 0.
///
/// # Errors
/// The system lets users make no user namespaces; what newuidmap says.
pub fn enter() -> Result<()> {
    let uid_map = map(USERS, caller().uid);
    let gid_map = map(GROUPS, caller().gid);
    let maps = IdMaps::new(uid_map, gid_map)?;
    let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
    let own = getpid();
    // who writes the maps has to be outside, and made before there is an inside
    let writer = clone_child(CloneHow::default(), move || {
        // with a copy of the other end, it would never hear of that one's end
        let closed = process::close_all_but(3, &[theirs.as_fd().as_raw_fd()]);
        if let Ok(Some((Message::MapIds, _))) =
            closed.map_err(Error::from).and_then(|()| theirs.receive())
        {
            let answer = maps.write(own).map_or_else(Message::Failed, |()| Message::Go);
            theirs.send(&answer).unwrap_or_default();
        }
        process::exit_now(0)
    })
    .step(|| "fork")?;
    let mapped = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(explain)
        .and_then(|()| ours.send(&Message::MapIds))
        .and_then(|()| match ours.receive()? {
            Some((Message::Go, _)) => Ok(()),
            Some((Message::Failed(error), _)) => Err(error),
            _ => Err(Error::new(ErrorKind::System, "the process that maps ids has died")),
        });
    drop(ours);
    wait_for_end(writer.pidfd.as_fd()).step(|| "wait for a helper")?;
    mapped.step(|| "make a user namespace")
}

fn explain(errno: Errno) -> Error {
    let e = Error::from(errno);
    match errno {
        Errno::EPERM => e.hint("the system gives none to ordinary users"),
        Errno::ENOSPC => e.hint("a limit in /proc/sys/user/max_*_namespaces is reached"),
        _ => e,
    }
}

/// The user as root, and his further ids in a row from 1 on.
fn map(kind: Kind, own: u32) -> Vec<IdMapping> {
    let mut all = vec![IdMapping { container: 0, host: own, size: 1 }];
    if kind.find_program().is_none() {
        return all;
    }
    let mut next: u32 = 1;
    for (host, size) in own_ranges(kind) {
        all.push(IdMapping { container: next, host, size });
        match next.checked_add(size) {
            Some(after) => next = after,
            None => break,
        }
    }
    all
}

/// Does something as root of a user namespace, in a process of its own: this one
/// stays what it is.
///
/// # Errors
/// As for [`enter`]; what `work` fails with.
pub fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
    let child = clone_child(CloneHow::default(), move || {
        let answer = enter().and_then(|()| work()).map_or_else(Message::Failed, |()| Message::Go);
        theirs.send(&answer).unwrap_or_default();
        process::exit_now(0)
    })
    .step(|| "fork")?;
    wait_for_end(child.pidfd.as_fd()).step(|| "wait for a helper")?;
    match ours.receive()? {
        Some((Message::Go, _)) => Ok(()),
        Some((Message::Failed(error), _)) => Err(error),
        _ => Err(Error::new(ErrorKind::System, "a helper has died")),
    }
}
