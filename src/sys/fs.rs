//! Files by descriptor: openat2 with its resolve flags, whole-file replacement.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::dirents::{Named, fresh_names};
use super::{SysResult, check, uninterrupted};

/// A path as the kernel takes it.
///
/// # Errors
/// EINVAL when it has a NUL inside.
pub fn cstring(path: &Path) -> SysResult<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno::EINVAL)
}

/// The number of the mount that a descriptor is on (proc_pid_fdinfo(5), Linux 3.15).
///
/// # Errors
/// There is no /proc; ENODATA where the kernel says nothing of it.
pub fn mount_id(fd: BorrowedFd<'_>) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| Errno::ENODATA.into())
}

/// STATX_ATTR_MOUNT_ROOT, which libc lacks.
const MOUNT_ROOT: u64 = 0x2000;

/// Whether something is mounted right there (statx(2); Linux 5.8).
///
/// # Errors
/// As stat(2).
pub fn is_mount_root(path: &Path) -> SysResult<bool> {
    Ok(statx(path, libc::STATX_BASIC_STATS)?.stx_attributes & MOUNT_ROOT != 0)
}

/// The same of an open file.
///
/// # Errors
/// As fstat(2).
pub fn is_mount_root_at(fd: BorrowedFd<'_>) -> SysResult<bool> {
    let found = statx_at(fd.as_raw_fd(), Path::new(""), libc::STATX_BASIC_STATS)?;
    Ok(found.stx_attributes & MOUNT_ROOT != 0)
}

/// Whether a path is in cgroup2; links are followed.
pub fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The topmost directory of cgroup2 on the way to a cgroup, which need not be there yet.
pub fn top_of_cgroup2(cgroup: &Path) -> &Path {
    let there = cgroup.ancestors().skip_while(|path| !is_cgroup2(path));
    there.take_while(|path| is_cgroup2(path)).last().unwrap_or(cgroup)
}

/// What statx(2) tells of a path; a link at the end is not followed.
fn statx(path: &Path, mask: libc::c_uint) -> SysResult<libc::statx> {
    statx_at(libc::AT_FDCWD, path, mask)
}

fn statx_at(dir: RawFd, path: &Path, mask: libc::c_uint) -> SysResult<libc::statx> {
    let path = cstring(path)?;
    // SAFETY: an all-zero structure is a valid place for the answer.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the name ends with a NUL, and both live through the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_statx,
            dir,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
            mask,
            &raw mut found,
        )
    };
    check(ret)?;
    Ok(found)
}

/// Renames `from` to `to` with RENAME_NOREPLACE or RENAME_EXCHANGE (renameat2(2),
/// Linux 3.15), by nix only where glibc has it.
///
/// # Errors
/// EEXIST: there is what must not be replaced; else as rename(2).
pub fn rename_with(from: &Path, to: &Path, flags: libc::c_uint) -> SysResult<()> {
    let (from, to) = (cstring(from)?, cstring(to)?);
    // SAFETY: both names end with a NUL and live through the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            flags,
        )
    };
    check(ret).map(drop)
}

/// When a file was made (statx(2), Linux 4.11); `None` where its file system does not
/// say. The standard library asks for it with glibc alone.
///
/// # Errors
/// As stat(2); a link at the end is not followed.
pub fn birth_time(path: &Path) -> SysResult<Option<SystemTime>> {
    let found = statx(path, libc::STATX_BTIME)?;
    if found.stx_mask & libc::STATX_BTIME == 0 {
        return Ok(None);
    }
    let seconds = u64::try_from(found.stx_btime.tv_sec).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, found.stx_btime.tv_nsec)))
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

/// The same, but for a path with a symbolic link in it, or at its end: ELOOP
/// (RESOLVE_NO_SYMLINKS).
pub fn open_in_root_unlinked(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
) -> SysResult<OwnedFd> {
    let how = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    resolve(root, path, flags, Mode::empty(), how)
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
    Replacement::write(&dir, name, bytes, mode, sync)?.take_place(&dir)
}

/// Opens a file on the host for reading; more flags may come with it.
///
/// By openat: musl's open asks for close-on-exec twice.
pub fn open_file(path: &Path, flags: OFlag) -> SysResult<OwnedFd> {
    openat(AT_FDCWD, path, flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Reads a regular file that nobody writes to, up to its end: a read that is not filled
/// was the last. The standard library asks for its size and its place first, and reads
/// once more.
///
/// # Errors
/// What read(2) says.
pub fn read_whole(fd: impl AsFd) -> SysResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buf = [0; 8192];
    loop {
        let length = uninterrupted(|| nix::unistd::read(&fd, &mut buf))?;
        bytes.extend_from_slice(buf.get(..length).unwrap_or_default());
        if length < buf.len() {
            return Ok(bytes);
        }
    }
}

/// Reads a regular file that has `size` bytes, or what it has become meanwhile.
///
/// # Errors
/// EFBIG: these are more than `most`. What read(2) says.
pub fn read_sized(fd: impl AsFd, size: usize, most: usize) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0; size + 1];
    let mut filled = 0;
    loop {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        let length = uninterrupted(|| nix::unistd::read(&fd, rest))?;
        filled += length;
        if length == 0 || filled == size {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        if filled > most {
            return Err(Errno::EFBIG);
        }
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
    }
}

/// A file under a temporary name, which is to have another one's.
#[derive(Debug)]
pub struct Replacement {
    temporary: String,
    name: String,
}

impl Replacement {
    /// Writes the file, as [`replace_file`] does.
    ///
    /// # Errors
    /// Nothing is left then.
    pub fn write(
        dir: impl AsFd,
        name: &str,
        bytes: &[u8],
        mode: Mode,
        sync: bool,
    ) -> std::io::Result<Self> {
        static OWN: OnceLock<u32> = OnceLock::new();
        let temporary = format!(".{name}.{}", OWN.get_or_init(std::process::id));
        // exclusive: whatever somebody has put there is not written to
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = match openat(&dir, temporary.as_str(), flags, mode) {
            // of a process with this id that was killed
            Err(Errno::EEXIST) => {
                unlinkat(&dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir)?;
                openat(&dir, temporary.as_str(), flags, mode)?
            }
            other => other?,
        };
        let new = Replacement { temporary, name: name.to_owned() };
        let mut file = File::from(fd);
        let written = file.write_all(bytes);
        match written.and_then(|()| if sync { file.sync_all() } else { Ok(()) }) {
            Ok(()) => Ok(new),
            Err(e) => Err(new.give_up(&dir, e)),
        }
    }

    /// Renames it over the other one, in the directory that it was written to.
    ///
    /// # Errors
    /// It is gone then.
    pub fn take_place(self, dir: impl AsFd) -> std::io::Result<()> {
        let renamed = renameat(&dir, self.temporary.as_str(), &dir, self.name.as_str());
        renamed.map_err(|e| self.give_up(&dir, e.into()))
    }

    fn give_up(&self, dir: impl AsFd, why: std::io::Error) -> std::io::Error {
        // the first error is the one to tell
        unlinkat(dir, self.temporary.as_str(), UnlinkatFlags::NoRemoveDir).unwrap_or_default();
        why
    }
}

/// Opens `path` strictly below `root` on the same mount, and refuses symbolic
/// links anywhere in it (ELOOP), the last component included.
pub fn open_plain(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
) -> SysResult<OwnedFd> {
    let how = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    resolve(root, path, flags, mode, how)
}

/// The names in a directory, without `.` and `..`, and their types where the
/// file system tells them.
pub fn names(dir: BorrowedFd<'_>) -> SysResult<Vec<Named>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    fresh_names(open_plain(dir, Path::new("."), flags, Mode::empty())?.as_fd())
}

/// A name as a path of one part.
pub fn name_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

/// Sets an extended attribute of an open file (not O_PATH).
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> SysResult<()> {
    // SAFETY: a string that ends in NUL, and a buffer passed with its length.
    let ret = unsafe {
        libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(ret).map(drop)
}

/// Removes an extended attribute of an open file (not O_PATH).
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    // SAFETY: a string that ends in NUL.
    let ret = unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) };
    Errno::result(ret).map(drop)
}

/// Sets an extended attribute of `entry` in the directory `dir`, without
/// following it if it is a symbolic link.
///
/// setxattrat(2) is of Linux 6.13; before it the way leads through /proc.
pub fn set_xattr_at(dir: BorrowedFd<'_>, entry: &Path, name: &CStr, value: &[u8]) -> SysResult<()> {
    let path = through_proc(dir, entry)?;
    // SAFETY: two strings that end in NUL, and a buffer with its length.
    let ret = unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(ret).map(drop)
}

/// The extended attributes of `entry` in `dir` (not following a link), by name.
///
/// A file system without them has none.
pub fn xattrs_at(dir: BorrowedFd<'_>, entry: &Path) -> SysResult<Vec<(CString, Vec<u8>)>> {
    let path = through_proc(dir, entry)?;
    let mut names = vec![0u8; 4096];
    loop {
        // SAFETY: a string that ends in NUL, and a buffer with its length.
        let ret =
            unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
        match Errno::result(ret) {
            Ok(n) => {
                names.truncate(usize::try_from(n).unwrap_or(0));
                break;
            }
            // the kernel's own bound is 64 KiB
            Err(Errno::ERANGE) if names.len() < 65536 => names.resize(65536, 0),
            Err(Errno::ENOTSUP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
    }
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
        if let Some(value) = xattr_value(&path, &name)? {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// One extended attribute of `entry` in `dir` (not following a link), if it has it.
pub fn xattr_at(dir: BorrowedFd<'_>, entry: &Path, name: &CStr) -> SysResult<Option<Vec<u8>>> {
    xattr_value(&through_proc(dir, entry)?, name)
}

fn xattr_value(path: &CStr, name: &CStr) -> SysResult<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        // SAFETY: two strings that end in NUL, and a buffer with its length.
        let ret = unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        match Errno::result(ret) {
            Ok(n) => {
                value.truncate(usize::try_from(n).unwrap_or(0));
                return Ok(Some(value));
            }
            Err(Errno::ERANGE) if value.len() < 65536 => value.resize(65536, 0),
            Err(Errno::ENODATA) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

fn through_proc(dir: BorrowedFd<'_>, entry: &Path) -> SysResult<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(entry.as_os_str().as_bytes());
    CString::new(path).map_err(|_nul| Errno::EINVAL)
}

/// Asks the kernel to begin writing a file's dirty pages (sync_file_range with
/// SYNC_FILE_RANGE_WRITE): it does not wait and promises nothing.
pub fn start_writeback(fd: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: integers only.
    let ret = unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    Errno::result(ret).map(drop)
}

/// Makes `to` share the blocks of `from` (FICLONE).
///
/// # Errors
/// EOPNOTSUPP, EINVAL or EXDEV where the file system can't.
pub fn reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: two open descriptors, passed as integers.
    let ret = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    Errno::result(ret).map(drop)
}

/// Asks whether this process may use `path` in a way (`libc::X_OK`), by the bare
/// faccessat2 (Linux 5.8): the C library's faccessat does without where it is not
/// there.
pub fn faccessat2(path: &Path, mode: libc::c_int, flags: libc::c_int) -> SysResult<()> {
    let path = cstring(path)?;
    // SAFETY: a string that ends in NUL and lives through the call, and integers.
    let ret =
        unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, flags) };
    Errno::result(ret).map(drop)
}
