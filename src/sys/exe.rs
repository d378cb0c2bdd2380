//! The runtime's own binary, out of the reach of containers.
//!
//! A program in a container can be a script whose interpreter is
//! /proc/self/exe: the kernel then executes the runtime's binary inside the
//! container, where it can be opened for writing once nobody runs it
//! (CVE-2019-5736). So what enters a container never runs from the host's
//! binary as the host sees it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, execveat, faccessat};

use super::caller::caller;
use super::mount::{MountAttr, attr, clone_tree, mount_setattr};
use super::program;
use crate::error::{Error, Result, Step};

const SELF: &str = "/proc/self/exe";

/// Makes sure that this process runs from a file that nobody can write to:
/// returns if it does, else executes the same binary with the same arguments
/// through a detached read-only mount of it. No copy, no environment variable:
/// the file itself tells which of the two it is.
///
/// An ordinary user may make no mount. Nor may his containers write to a binary
/// that is root's and closed to him; any other one is copied into memory and
/// sealed.
///
/// # Errors
/// No room for a copy.
pub fn protect() -> Result<()> {
    let step = || "protect the runtime's binary";
    // before Linux 6.14 execveat named the process after a descriptor
    let name = || nix::sys::prctl::set_name(c"tare").step(step);
    #[cfg(target_arch = "x86_64")]
    if super::entry::READ_ONLY.load(std::sync::atomic::Ordering::Relaxed) {
        return name();
    }
    let own = open(SELF, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    if fstatvfs(&own).step(step)?.flags().contains(FsFlags::ST_RDONLY) {
        return name();
    }
    let clone = match read_only_clone() {
        Err(e) if e.is_errno(Errno::EPERM) && !caller().is_host_root() => {
            if is_sealed().step(step)? {
                return name();
            }
            if is_out_of_reach(&own).step(step)? {
                return Ok(());
            }
            sealed_copy().step(step)?
        }
        other => other.map_err(|e| e.step(step()))?,
    };
    let args: Vec<_> = program::words().collect();
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

/// True for a file that nobody but the machine's root can write to or chmod.
fn is_out_of_reach(own: &OwnedFd) -> nix::Result<bool> {
    let who = caller();
    if !who.initial || who.uid == 0 || fstat(own)?.st_uid != 0 {
        return Ok(false);
    }
    let flags = AtFlags::AT_EACCESS;
    Ok(faccessat(AT_FDCWD, SELF, AccessFlags::W_OK, flags) == Err(Errno::EACCES))
}

fn is_sealed() -> nix::Result<bool> {
    let own = open(SELF, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    match fcntl(&own, FcntlArg::F_GET_SEALS) {
        Ok(seals) => Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE)),
        // only files in memory have seals
        Err(Errno::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

fn sealed_copy() -> Result<OwnedFd> {
    let sealable = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = match memfd_create("tare", sealable | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        // the flag is of Linux 6.3; before it, all such files can be executed
        Err(Errno::EINVAL) => memfd_create("tare", sealable),
        other => other,
    };
    let mut memory = File::from(memory.step(|| "memfd_create")?);
    std::io::copy(&mut File::open(SELF)?, &mut memory).step(|| "copy")?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).step(|| "seal")?;
    // what is open for writing can't be executed
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    Ok(open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn entry((name, value): (OsString, OsString)) -> Option<CString> {
    let mut text = name.into_vec();
    text.push(b'=');
    text.extend(value.into_vec());
    CString::new(text).ok()
}
