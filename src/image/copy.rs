//! Layers merged into a plain directory: what an overlay of them would show.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, copy_file_range, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchown, fchownat, ftruncate, linkat, lseek, symlinkat};

use super::form;
use super::tree::{self, name_path, names};
use crate::error::{Error, Result, Step};
use crate::sys::fs::{open_dir, open_plain, reflink, set_xattr, set_xattr_at, xattrs_at};
use crate::sys::uninterrupted;

/// Copies the merged view of `layers` (from the bottom up) into `target`, an
/// empty directory.
///
/// # Errors
/// System for whatever can't be read or written; what was written stays.
pub(crate) fn merge(layers: &[PathBuf], target: &Path) -> Result<()> {
    let to = open_dir(target)?;
    let mut times = BTreeMap::new();
    for layer in layers {
        let from = open_dir(layer).step(|| format!("layer {}", layer.display()))?;
        let mut copier =
            Copier { from: from.as_fd(), to: to.as_fd(), links: HashMap::new(), times: &mut times };
        copier.layer()?;
    }
    // now that nothing more is made in them
    for (path, time) in times {
        match open_plain(to.as_fd(), &path, DIR, Mode::empty()) {
            Ok(fd) => futimens(&fd, &time, &time)?,
            // a layer further up has put something else there
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

struct Copier<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Where the first name of a file with several is, by inode.
    links: HashMap<u64, PathBuf>,
    times: &'a mut BTreeMap<PathBuf, TimeSpec>,
}

/// One name in a directory of a layer, and its directory in the target.
struct Place<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a CStr,
    stat: FileStat,
}

impl Copier<'_> {
    fn layer(&mut self) -> Result<()> {
        let root = PathBuf::from(".");
        self.attributes(&root)?;
        let mut todo = vec![root];
        while let Some(path) = todo.pop() {
            let step = || format!("copy {}", path.display());
            let from = open_plain(self.from, &path, DIR, Mode::empty()).step(step)?;
            let to = open_plain(self.to, &path, DIR, Mode::empty()).step(step)?;
            for (name, _) in names(from.as_fd())? {
                let below = path.join(name_path(&name));
                let stat = fstatat(&from, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let place = Place { from: from.as_fd(), to: to.as_fd(), name: &name, stat };
                let dir = self.entry(&place, &below);
                if dir.step(|| format!("copy {}", below.display()))? {
                    todo.push(below);
                }
            }
        }
        Ok(())
    }

    /// Copies one entry; the answer is whether it is a directory.
    fn entry(&mut self, place: &Place<'_>, path: &Path) -> Result<bool> {
        if place.format() == SFlag::S_IFDIR {
            self.dir(place, path)?;
            return Ok(true);
        }
        tree::remove(place.to, name_path(place.name))?;
        if place.is_whiteout() {
            return Ok(false);
        }
        if place.stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&place.stat.st_ino) {
                let none = AtFlags::empty();
                linkat(self.to, first, place.to, place.name, none)?;
                return Ok(false);
            }
            self.links.insert(place.stat.st_ino, path.to_owned());
        }
        place.copy()?;
        Ok(false)
    }

    fn dir(&mut self, place: &Place<'_>, path: &Path) -> Result<()> {
        let opaque = xattrs_at(place.from, name_path(place.name))?
            .iter()
            .any(|(name, value)| name.as_c_str() == form::opaque() && value == b"y");
        let there = fstatat(place.to, place.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_dir = there.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFDIR);
        if opaque || !is_dir {
            tree::remove(place.to, name_path(place.name))?;
            mkdirat(place.to, place.name, Mode::from_bits_truncate(0o700))?;
        }
        self.attributes(path)
    }

    /// A directory's attributes; its times come at the end.
    fn attributes(&mut self, path: &Path) -> Result<()> {
        let from = open_plain(self.from, path, DIR, Mode::empty())?;
        let to = open_plain(self.to, path, DIR, Mode::empty())?;
        let stat = fstatat(&from, ".", AtFlags::AT_SYMLINK_NOFOLLOW)?;
        fchown(&to, Some(uid(&stat)), Some(gid(&stat)))?;
        fchmod(&to, Mode::from_bits_truncate(stat.st_mode))?;
        for (name, value) in plain_xattrs(xattrs_at(from.as_fd(), Path::new("."))?)? {
            set_xattr(to.as_fd(), &name, &value).step(|| format!("attribute {name:?}"))?;
        }
        self.times.insert(path.to_owned(), mtime(&stat));
        Ok(())
    }
}

impl Place<'_> {
    fn format(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode & libc::S_IFMT)
    }

    fn is_whiteout(&self) -> bool {
        self.format() == SFlag::S_IFCHR && self.stat.st_rdev == 0
    }

    /// Copies what is no directory, under a name that is free.
    fn copy(&self) -> Result<()> {
        let mode = Mode::from_bits_truncate(self.stat.st_mode);
        match self.format() {
            SFlag::S_IFREG => self.file()?,
            SFlag::S_IFLNK => {
                let target = readlinkat(self.from, self.name)?;
                symlinkat(target.as_os_str(), self.to, self.name)?;
            }
            kind => mknodat(self.to, self.name, kind, mode, self.stat.st_rdev)?,
        }
        let owner = (Some(uid(&self.stat)), Some(gid(&self.stat)));
        fchownat(self.to, self.name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if self.format() != SFlag::S_IFLNK {
            // just made, and no link
            fchmodat(self.to, self.name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let path = name_path(self.name);
        for (name, value) in plain_xattrs(xattrs_at(self.from, path)?)? {
            set_xattr_at(self.to, path, &name, &value).step(|| format!("attribute {name:?}"))?;
        }
        let time = mtime(&self.stat);
        utimensat(self.to, self.name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    /// The data: shared blocks where the file system can, else copied in the
    /// kernel, holes left out.
    fn file(&self) -> Result<()> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let from = openat(self.from, self.name, flags | OFlag::O_RDONLY, Mode::empty())?;
        let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        let to = openat(self.to, self.name, flags | new, Mode::from_bits_truncate(0o600))?;
        match reflink(from.as_fd(), to.as_fd()) {
            Ok(()) => return Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EXDEV | Errno::ENOTTY) => {}
            Err(e) => return Err(e.into()),
        }
        copy_data(&from, &to, self.stat.st_size)
    }
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
                Ok(0) => return Err(Error::from(Errno::EIO).step("the layer's file shrank")),
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
        let n = nix::sys::uio::pread(from, &mut buffer, at)?;
        if n == 0 {
            return Err(Error::from(Errno::EIO).step("the layer's file shrank"));
        }
        let mut piece = buffer.get(..n).unwrap_or_default();
        while !piece.is_empty() {
            let n = nix::sys::uio::pwrite(to, piece, at)?;
            piece = piece.get(n..).unwrap_or_default();
            at += i64::try_from(n).unwrap_or(0);
        }
    }
    Ok(())
}

/// Without the overlay's own attributes; those that an image has of that name
/// lose the escape that they have in a layer.
fn plain_xattrs(all: Vec<(CString, Vec<u8>)>) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut plain = Vec::new();
    for (name, value) in all {
        if let Some(name) = form::merged_name(name.as_bytes()) {
            let name = CString::new(name.as_ref()).map_err(|_nul| Errno::EINVAL)?;
            plain.push((name, value));
        }
    }
    Ok(plain)
}

fn uid(stat: &FileStat) -> Uid {
    Uid::from_raw(stat.st_uid)
}

fn gid(stat: &FileStat) -> Gid {
    Gid::from_raw(stat.st_gid)
}

fn mtime(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}
