//! Copies of files with all that belongs to them, by descriptor.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, copy_file_range, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
    futimens, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Gid, Uid, Whence, fchown, fchownat, ftruncate, linkat, lseek, symlinkat};

use super::fs::{name_path, reflink, remove_xattr, set_xattr, set_xattr_at, xattrs_at};
use super::uninterrupted;
use super::walk::open_deep;
use crate::error::{Error, Result, Step};

/// Extended attributes: names and values.
pub type Attributes = Vec<(CString, Vec<u8>)>;

/// What a copy may do differently from its source.
pub trait Rules {
    /// The attributes that the copy gets, of those of the source.
    ///
    /// # Errors
    /// One that can't be had.
    fn attributes(&self, all: Attributes) -> Result<Attributes>;

    /// What became of setting an attribute.
    ///
    /// # Errors
    /// One that the copy can't do without.
    fn attribute(&self, set: nix::Result<()>) -> nix::Result<()> {
        set
    }

    /// What became of a change of owner.
    ///
    /// # Errors
    /// An owner that the copy can't do without.
    fn owner(&self, changed: nix::Result<()>) -> nix::Result<()> {
        changed
    }

    /// What became of a device node: false if it is left out.
    ///
    /// # Errors
    /// One that the copy can't do without.
    fn device(&self, made: nix::Result<()>) -> nix::Result<bool> {
        made.map(|()| true)
    }
}

/// One name in a directory, and the directory that its copy goes to.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The directory that it is in.
    pub from: BorrowedFd<'a>,
    /// The directory of the copy.
    pub to: BorrowedFd<'a>,
    /// Its name in both.
    pub name: &'a CStr,
    /// What lstat says of it.
    pub stat: FileStat,
}

/// Where the first name of each file with several names is in a copy.
pub type Links = HashMap<(u64, u64), PathBuf>;

impl<'a> Entry<'a> {
    /// Looks at a name.
    pub fn of(from: BorrowedFd<'a>, to: BorrowedFd<'a>, name: &'a CStr) -> Result<Self> {
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(Entry { from, to, name, stat })
    }

    /// Its type.
    pub fn format(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode & libc::S_IFMT)
    }

    /// Copies what is no directory, under a name that is free. `path` is the
    /// name's whole path below `top`, the top of the copy: a file that is there
    /// by another name already gets this one as well.
    ///
    /// # Errors
    /// Whatever can't be read or written; half a file may be left.
    pub fn copy(
        &self,
        top: BorrowedFd<'_>,
        path: &Path,
        links: &mut Links,
        rules: &impl Rules,
    ) -> Result<()> {
        if self.stat.st_nlink > 1 {
            let file = (self.stat.st_dev, self.stat.st_ino);
            if let Some(first) = links.get(&file) {
                return self.link(top, first);
            }
            if self.content(rules)? {
                links.insert(file, path.to_owned());
            }
            return Ok(());
        }
        self.content(rules).map(drop)
    }

    /// Gives a file of the copy this name.
    fn link(&self, top: BorrowedFd<'_>, first: &Path) -> Result<()> {
        let link = |dir: BorrowedFd<'_>, path: &Path| {
            linkat(dir, path, self.to, self.name, AtFlags::empty())
        };
        match (link(top, first), first.parent(), first.file_name()) {
            (Err(Errno::ENAMETOOLONG), Some(parent), Some(name)) => {
                Ok(link(open_deep(top, parent)?.as_fd(), Path::new(name))?)
            }
            (linked, ..) => Ok(linked?),
        }
    }

    fn content(&self, rules: &impl Rules) -> Result<bool> {
        let mode = Mode::from_bits_truncate(self.stat.st_mode);
        match self.format() {
            SFlag::S_IFREG => self.file()?,
            SFlag::S_IFLNK => {
                let target = readlinkat(self.from, self.name)?;
                symlinkat(target.as_os_str(), self.to, self.name)?;
            }
            kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) => {
                let made = mknodat(self.to, self.name, kind, mode, self.stat.st_rdev);
                if !rules.device(made)? {
                    return Ok(false);
                }
            }
            kind => mknodat(self.to, self.name, kind, mode, 0)?,
        }
        self.dress(mode, rules)?;
        Ok(true)
    }

    /// Owner, mode, attributes and times, in the order in which none takes away
    /// another.
    fn dress(&self, mode: Mode, rules: &impl Rules) -> Result<()> {
        let (uid, gid) = owner(&self.stat);
        let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
        rules.owner(fchownat(self.to, self.name, Some(uid), Some(gid), nofollow))?;
        if self.format() != SFlag::S_IFLNK {
            // just made, and no link
            fchmodat(self.to, self.name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let path = name_path(self.name);
        for (name, value) in rules.attributes(xattrs_at(self.from, path)?)? {
            rules
                .attribute(set_xattr_at(self.to, path, &name, &value))
                .step(|| format!("attribute {name:?}"))?;
        }
        let time = mtime(&self.stat);
        utimensat(self.to, self.name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    /// The data: shared blocks where the file system can, else copied in the
    /// kernel, holes left out.
    fn file(&self) -> Result<()> {
        let from = self.open_same()?;
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        let to = openat(self.to, self.name, flags | new, Mode::from_bits_truncate(0o600))?;
        match reflink(from.as_fd(), to.as_fd()) {
            Ok(()) => return Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EXDEV | Errno::ENOTTY) => {}
            Err(e) => return Err(e.into()),
        }
        copy_data(&from, &to, self.stat.st_size)
    }

    /// Opens the very file that was looked at: whoever shares the directory
    /// could have put a device or a fifo in its place, whose open does things.
    fn open_same(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(self.from, self.name, flags, Mode::empty())?;
        let stat = fstat(&found)?;
        if (stat.st_dev, stat.st_ino, stat.st_mode)
            != (self.stat.st_dev, self.stat.st_ino, self.stat.st_mode)
        {
            return Err(Error::from(Errno::EAGAIN).step("it is being replaced"));
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(openat(AT_FDCWD, path.as_str(), flags, Mode::empty())?)
    }
}

/// What a directory gets when nothing more is made in it.
#[derive(Debug)]
pub struct Finish {
    time: TimeSpec,
    /// The access list that files would inherit.
    inherited: Option<(CString, Vec<u8>)>,
}

impl Finish {
    /// Gives it to the directory.
    ///
    /// # Errors
    /// Whatever can't be set.
    pub fn give(&self, to: BorrowedFd<'_>, rules: &impl Rules) -> Result<()> {
        if let Some((name, value)) = &self.inherited {
            rules.attribute(set_xattr(to, name, value)).step(|| format!("attribute {name:?}"))?;
        }
        Ok(futimens(to, &self.time, &self.time)?)
    }
}

/// Gives an open directory the owner, mode and attributes of another, and no others. The
/// answer is what comes when it has been filled.
///
/// # Errors
/// Whatever can't be read or set.
pub fn dress_directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    rules: &impl Rules,
) -> Result<Finish> {
    let here = Path::new(".");
    let stat = fstat(from)?;
    let (uid, gid) = owner(&stat);
    rules.owner(fchown(to, Some(uid), Some(gid)))?;
    let mut wanted = rules.attributes(xattrs_at(from, here)?)?;
    for (name, _) in xattrs_at(to, here)? {
        // labels are the machine's own, and others of `system` the file system's
        let is_ours = OURS.iter().any(|start| name.as_bytes().starts_with(start));
        if is_ours && wanted.iter().all(|(one, _)| *one != name) {
            remove_xattr(to, &name).step(|| format!("attribute {name:?}"))?;
        }
    }
    fchmod(to, Mode::from_bits_truncate(stat.st_mode))?;
    let inherited = wanted.iter().position(|(name, _)| name.as_c_str() == INHERITED);
    let inherited = inherited.map(|at| wanted.swap_remove(at));
    for (name, value) in wanted {
        rules.attribute(set_xattr(to, &name, &value)).step(|| format!("attribute {name:?}"))?;
    }
    Ok(Finish { time: mtime(&stat), inherited })
}

/// Attributes that are made by whoever writes a file.
const OURS: [&[u8]; 3] = [b"user.", b"trusted.", b"system.posix_acl_"];

const INHERITED: &CStr = c"system.posix_acl_default";

fn owner(stat: &FileStat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn mtime(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

fn copy_data(from: &OwnedFd, to: &OwnedFd, size: i64) -> Result<()> {
    ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match lseek(from, at, Whence::SeekData) {
            // nothing but a hole to the end
            Err(Errno::ENXIO) => break,
            other => other?,
        };
        let end = lseek(from, start, Whence::SeekHole)?;
        let (mut read, mut write) = (start, start);
        while read < end {
            let left = usize::try_from(end - read).unwrap_or(usize::MAX);
            let n = uninterrupted(|| {
                copy_file_range(from, Some(&mut read), to, Some(&mut write), left)
            });
            match n {
                Ok(0) => return Err(Error::from(Errno::EIO).step("the file shrank")),
                Ok(_) => {}
                Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP) => {
                    copy_by_hand(from, to, read, end)?;
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
        at = end;
    }
    Ok(())
}

/// Between file systems that can't copy among themselves.
fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, mut at: i64, end: i64) -> Result<()> {
    let mut buffer = vec![0u8; 128 << 10];
    while at < end {
        let n = uninterrupted(|| pread(from, &mut buffer, at))?;
        if n == 0 {
            return Err(Error::from(Errno::EIO).step("the file shrank"));
        }
        let mut piece = buffer.get(..n).unwrap_or_default();
        while !piece.is_empty() {
            let n = uninterrupted(|| pwrite(to, piece, at))?;
            piece = piece.get(n..).unwrap_or_default();
            at += i64::try_from(n).unwrap_or(0);
        }
    }
    Ok(())
}
