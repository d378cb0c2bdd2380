//! The mount API of Linux 5.2 and later: mounts as file descriptors.
//!
//! Nothing made here is in any mount table before [`move_mount`] puts it
//! there; a mount that is never moved goes with its descriptor.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::{SysResult, check};
use crate::error::{Error, Result, lower_first};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;

/// Attributes for [`FsContext::mount`] and [`mount_setattr`] (linux/mount.h).
pub mod attr {
    /// MOUNT_ATTR_RDONLY.
    pub const RDONLY: u64 = 0x01;
    /// MOUNT_ATTR_NOSUID.
    pub const NOSUID: u64 = 0x02;
    /// MOUNT_ATTR_NODEV.
    pub const NODEV: u64 = 0x04;
    /// MOUNT_ATTR_NOEXEC.
    pub const NOEXEC: u64 = 0x08;
    /// MOUNT_ATTR__ATIME: the mask of the three access time modes.
    pub const ATIME_MASK: u64 = 0x70;
    /// MOUNT_ATTR_RELATIME: the default, the value is zero.
    pub const RELATIME: u64 = 0x00;
    /// MOUNT_ATTR_NOATIME.
    pub const NOATIME: u64 = 0x10;
    /// MOUNT_ATTR_STRICTATIME.
    pub const STRICTATIME: u64 = 0x20;
    /// MOUNT_ATTR_NODIRATIME.
    pub const NODIRATIME: u64 = 0x80;
    /// MOUNT_ATTR_IDMAP.
    pub const IDMAP: u64 = 0x0010_0000;
    /// MOUNT_ATTR_NOSYMFOLLOW.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// A file system being configured (fsopen, fsconfig; Linux 5.2).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    fstype: String,
}

impl FsContext {
    /// Opens a context for a file system type.
    ///
    /// # Errors
    /// ENODEV for a type that the kernel does not have, EPERM without
    /// CAP_SYS_ADMIN over the mount namespace.
    pub fn open(fstype: &str) -> Result<Self> {
        let name = CString::new(fstype).map_err(|_nul| Errno::EINVAL)?;
        // SAFETY: a string that ends in NUL and flags; the call keeps neither.
        let ret = check(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
            .map_err(|e| Error::from(e).step(format!("fsopen {fstype}")))?;
        Ok(FsContext { fd: owned(ret), fstype: fstype.to_owned() })
    }

    /// Opens the file system of a mount, to be configured anew (fspick; Linux 5.2).
    ///
    /// # Errors
    /// EINVAL where nothing is mounted, EPERM without CAP_SYS_ADMIN over the user
    /// namespace that it was mounted in.
    pub fn pick(mounted: BorrowedFd<'_>) -> Result<Self> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: an open descriptor, and an empty string that ends in NUL.
        let ret = check(unsafe {
            libc::syscall(libc::SYS_fspick, mounted.as_raw_fd(), c"".as_ptr(), flags)
        })
        .map_err(|e| Error::from(e).step("fspick"))?;
        Ok(FsContext { fd: owned(ret), fstype: "file system".to_owned() })
    }

    /// Sets `key=value`.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let ckey = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
        let cvalue = CString::new(value).map_err(|_nul| Errno::EINVAL)?;
        // SAFETY: two strings that end in NUL and live through the call.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                FSCONFIG_SET_STRING,
                ckey.as_ptr(),
                cvalue.as_ptr(),
                0,
            )
        });
        ret.map(drop).map_err(|e| self.explain(e, format_args!("option {key}={value}")))
    }

    /// Sets an option whose value is an open file (overlay's layers, Linux 6.13).
    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> Result<()> {
        let ckey = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
        // SAFETY: a string that ends in NUL, and a descriptor that is open.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                FSCONFIG_SET_FD,
                ckey.as_ptr(),
                std::ptr::null::<libc::c_char>(),
                value.as_raw_fd(),
            )
        });
        ret.map(drop).map_err(|e| self.explain(e, format_args!("option {key}")))
    }

    /// Sets an option without a value.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        let ckey = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
        // SAFETY: a string that ends in NUL; the value must be null for a flag.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                FSCONFIG_SET_FLAG,
                ckey.as_ptr(),
                std::ptr::null::<libc::c_char>(),
                0,
            )
        });
        ret.map(drop).map_err(|e| self.explain(e, format_args!("option {key}")))
    }

    /// Makes the superblock and a detached mount of it with `attrs` (see [`attr`]).
    pub fn mount(&self, attrs: u64) -> Result<OwnedFd> {
        self.command(FSCONFIG_CMD_CREATE, "create")?;
        // SAFETY: integers only. The kernel takes the attributes as 32 bits.
        let ret = check(unsafe {
            libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), FSMOUNT_CLOEXEC, attrs)
        })
        .map_err(|e| self.explain(e, format_args!("fsmount")))?;
        Ok(owned(ret))
    }

    /// Has what was set take effect in a file system that is there ([`FsContext::pick`]).
    pub fn reconfigure(&self) -> Result<()> {
        self.command(FSCONFIG_CMD_RECONFIGURE, "reconfigure")
    }

    fn command(&self, command: libc::c_uint, what: &str) -> Result<()> {
        // SAFETY: these commands take neither key nor value.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                std::ptr::null::<libc::c_char>(),
                std::ptr::null::<libc::c_char>(),
                0,
            )
        });
        ret.map(drop).map_err(|e| self.explain(e, format_args!("{what}")))
    }

    /// Its descriptor, which is of no more use.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Joins the errno with what the file system wrote into its context's log.
    fn explain(&self, errno: Errno, what: std::fmt::Arguments<'_>) -> Error {
        let base = Error::from(errno).step(format!("{} {what}", self.fstype));
        let Ok(fd) = self.fd.try_clone() else {
            return base;
        };
        let mut log = std::fs::File::from(fd);
        let mut buf = [0u8; 512];
        match log.read(&mut buf) {
            Ok(n) => {
                let text = String::from_utf8_lossy(buf.get(..n).unwrap_or_default());
                // each message is one letter for its level, a space, the text
                let text = text.trim().get(2..).unwrap_or_default();
                if text.is_empty() { base } else { base.hint(lower_first(text)) }
            }
            Err(_no_message) => base,
        }
    }
}

/// A detached copy of the mount at `path` under `dir` (open_tree with
/// OPEN_TREE_CLONE; Linux 5.2). `recursive` takes the mounts below with it.
///
/// `flags` may add AT_SYMLINK_NOFOLLOW or AT_EMPTY_PATH.
pub fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &Path,
    recursive: bool,
    flags: libc::c_int,
) -> SysResult<OwnedFd> {
    let path = super::fs::cstring(path)?;
    let mut all = OPEN_TREE_CLONE | flags.cast_unsigned() | libc::O_CLOEXEC.cast_unsigned();
    if recursive {
        all |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: a path that ends in NUL, an open descriptor, and flags.
    let ret =
        check(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), all) })?;
    Ok(owned(ret))
}

/// A detached copy of the mount that `fd` (O_PATH will do) is on, rooted at it.
pub fn clone_tree_at(fd: BorrowedFd<'_>, recursive: bool) -> SysResult<OwnedFd> {
    clone_tree(fd, Path::new(""), recursive, libc::AT_EMPTY_PATH)
}

/// Puts a detached mount where `target` (an O_PATH descriptor) is.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: two open descriptors and two empty strings, as the flags allow.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Puts a detached mount where `name`, of one part, is in `dir`. A symbolic link there is
/// not followed.
///
/// # Errors
/// ENOENT: nothing is there. EINVAL: a directory and something else, as a link is.
pub fn move_mount_at(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> SysResult<()> {
    let name = super::fs::cstring(Path::new(name))?;
    if name.as_bytes().contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    // SAFETY: two open descriptors, an empty string as the flags allow, and one that ends
    // with a NUL.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// struct mount_attr (linux/mount.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr {
    /// Attributes to set (see [`attr`]).
    pub set: u64,
    /// Attributes to clear first; setting an access time mode needs
    /// [`attr::ATIME_MASK`] here.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0.
    pub propagation: u64,
    /// The user namespace of an idmapped mount.
    pub userns_fd: u64,
}

/// Changes the attributes of the mount that `mount` is the root of (Linux 5.12).
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> SysResult<()> {
    let mut flags = libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the struct is repr(C), and its size goes with it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Has a detached mount show its files under the owners that `namespace` maps
/// theirs to (MOUNT_ATTR_IDMAP, Linux 5.12; which file systems, depends).
///
/// # Errors
/// EINVAL for a file system that can't be idmapped, or a namespace without maps;
/// EPERM for a mount that is idmapped already, without CAP_SYS_ADMIN where the
/// file system was mounted, and for the machine's first namespace.
pub fn set_idmap(
    mount: BorrowedFd<'_>,
    recursive: bool,
    namespace: BorrowedFd<'_>,
) -> SysResult<()> {
    let userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    let attr = MountAttr { set: attr::IDMAP, userns_fd, ..MountAttr::default() };
    mount_setattr(mount, recursive, &attr)
}

/// Takes ownership of a descriptor that a system call has just returned.
fn owned(ret: libc::c_long) -> OwnedFd {
    // descriptors are ints: the kernel never returns more
    let fd = i32::try_from(ret).unwrap_or(-1);
    // SAFETY: the call that returned it succeeded, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
