//! User namespaces that are there for their maps alone.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::process::{CloneHow, clone_child, close_all_but, exit_now};
use super::uninterrupted;
use crate::error::{Result, Step};

/// A user namespace with these maps (lines as in user_namespaces(7)) that no
/// process is in, as an idmapped mount takes one.
///
/// # Errors
/// What clone3 says; EINVAL for maps that overlap, EPERM for ids that are not
/// the caller's to map.
pub fn with_maps(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let how = CloneHow { namespaces: CloneFlags::CLONE_NEWUSER, ..CloneHow::default() };
    let (mut closed, gate) = std::io::pipe().step(|| "pipe")?;
    // it is there for its namespace, which a descriptor keeps when it is gone;
    // and it ends with this process, whatever becomes of that
    let child = clone_child(how, || {
        close_all_but(3, &[closed.as_raw_fd()]).unwrap_or_default();
        // nothing comes but the end
        closed.read(&mut [0]).unwrap_or_default();
        exit_now(0)
    })
    .step(|| "clone3")?;
    let made = map(child.pid, uid_map, gid_map);
    drop(gate);
    uninterrupted(|| waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED))
        .step(|| "wait for a helper")?;
    made
}

fn map(pid: Pid, uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    for (file, text) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        // one write: the kernel takes a map whole or not at all
        File::options()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .step(|| format!("write {file}"))?;
    }
    let path = format!("/proc/{pid}/ns/user");
    open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).step(|| path.clone())
}
