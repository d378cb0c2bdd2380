//! The runtime's own binary, out of the reach of containers.
//!
//! A program in a container can be a script whose interpreter is
//! /proc/self/exe: the kernel then executes the runtime's binary inside the
//! container, where it can be opened for writing once nobody runs it
//! (CVE-2019-5736). So what enters a container never runs from the host's
//! binary as the host sees it.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::execveat;

use super::mount::{MountAttr, attr, clone_tree, mount_setattr};
use crate::error::{Error, Result, Step};

const SELF: &str = "/proc/self/exe";

/// Makes sure that this process runs from a file that nobody can write to:
/// returns if it does, else executes the same binary with the same arguments
/// through a detached read-only mount of it. No copy, no environment variable:
/// the file itself tells which of the two it is.
///
/// # Errors
/// No permission for the mount.
pub fn protect() -> Result<()> {
    let step = || "protect the runtime's binary";
    let own = open(SELF, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    if fstatvfs(&own).step(step)?.flags().contains(FsFlags::ST_RDONLY) {
        // before Linux 6.14 execveat named the process after a descriptor
        nix::sys::prctl::set_name(c"tare").step(step)?;
        return Ok(());
    }
    let clone = read_only_clone().map_err(|e| e.step(step()))?;
    // an argument with a NUL inside can't have come from execve
    let args: Vec<_> =
        std::env::args_os().filter_map(|a| CString::new(a.into_vec()).ok()).collect();
    let env: Vec<_> = std::env::vars_os().filter_map(entry).collect();
    let Err(e) = execveat(clone.as_fd(), c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Err(Error::from(e).step(step()))
}

fn read_only_clone() -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, Path::new(SELF), false, 0).step(|| "open_tree")?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), false, &read_only).step(|| "mount_setattr")?;
    Ok(tree)
}

fn entry((name, value): (OsString, OsString)) -> Option<CString> {
    let mut text = name.into_vec();
    text.push(b'=');
    text.extend(value.into_vec());
    CString::new(text).ok()
}
