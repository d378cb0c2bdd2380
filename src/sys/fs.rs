//! Files by descriptor: openat2 with its resolve flags, whole-file replacement.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::Mode;

use super::SysResult;

/// A path as the kernel takes it.
///
/// # Errors
/// EINVAL when it has a NUL inside.
pub fn cstring(path: &Path) -> SysResult<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno::EINVAL)
}

/// Opens `path` below `root` as if `root` were `/`: symbolic links, `..` and
/// absolute paths stay inside (RESOLVE_IN_ROOT, no magic links; Linux 5.6).
///
/// EAGAIN, which the kernel gives when something was renamed meanwhile, is
/// tried again a bounded number of times.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
) -> SysResult<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlag::RESOLVE_IN_ROOT)
}

/// Opens `path` strictly below `root`: anything that leads out is EXDEV
/// (RESOLVE_BENEATH, no magic links; Linux 5.6).
pub fn open_beneath(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
) -> SysResult<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlag::RESOLVE_BENEATH)
}

fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    how: ResolveFlag,
) -> SysResult<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(how | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut tries = 0;
    loop {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) if tries < 128 => tries += 1,
            other => return other,
        }
    }
}

/// Opens a directory on the host, for use as the base of relative calls.
pub fn open_dir(path: &Path) -> SysResult<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Writes a small file in one piece under a temporary name and renames it over
/// `name`: a reader sees the old bytes or the new ones, whatever is killed.
///
/// It does not sync: what it is used for need not outlive a reboot. Where it
/// has to, pass `sync`.
pub fn replace_file(
    dir: impl AsFd,
    name: &str,
    bytes: &[u8],
    mode: Mode,
    sync: bool,
) -> std::io::Result<()> {
    let temporary = format!(".{name}.{}", std::process::id());
    let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let fd = openat(&dir, temporary.as_str(), flags | OFlag::O_NOFOLLOW, mode)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    renameat(&dir, temporary.as_str(), &dir, name)?;
    Ok(())
}
