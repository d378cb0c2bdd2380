//! A directory, against what it is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fmt::Display;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, makedev};
use nix::unistd::{Whence, lseek};
use twox_hash::XxHash3_128;

use super::expected::{Expected, Node, NodeKind};
use super::form;
use super::listing::{Data, Special, escaped};
use super::names::join;
use crate::error::Result;
use crate::sys::fs::{name_path, open_dir, open_plain, xattrs_at};
use crate::sys::walk::Walk;

const BUFFER: usize = 256 << 10;

/// How much there was.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

/// Goes through all that is below `dir`, and tells `problem` path by path what is not
/// as expected.
///
/// # Errors
/// A directory that can't be read.
pub(super) fn check(
    dir: &Path,
    expected: &Expected,
    problem: &mut dyn FnMut(String, String),
) -> Result<Found> {
    let mut walk = Walk::new(open_dir(dir)?)?;
    let mut check = Check {
        expected,
        problem,
        found: Found::default(),
        inodes: BTreeMap::new(),
        seen: BTreeSet::new(),
        buffer: vec![0; BUFFER],
    };
    check.file(walk.here(), c".", b"")?;
    loop {
        let Some(name) = walk.next_name() else {
            if walk.leave()? {
                continue;
            }
            break;
        };
        let path = join(walk.path().as_os_str().as_bytes(), name.to_bytes());
        if check.file(walk.here(), &name, &path)? {
            walk.enter(&name)?;
        }
    }
    let missing: Vec<_> = expected.paths().filter(|path| !check.seen.contains(*path)).collect();
    for path in missing {
        (check.problem)(escaped(path), "it is missing".to_owned());
    }
    Ok(check.found)
}

struct Check<'a> {
    expected: &'a Expected,
    problem: &'a mut dyn FnMut(String, String),
    found: Found,
    /// The inode of each file that was come by, by its number.
    inodes: BTreeMap<usize, u64>,
    seen: BTreeSet<&'a [u8]>,
    buffer: Vec<u8>,
}

impl<'a> Check<'a> {
    /// The answer is whether it is a directory that belongs there.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<bool> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        self.found.files += 1;
        let expected = self.expected;
        let Some((known, number, node)) = expected.node(path) else {
            self.tell(path, "it is not in the image's layer");
            return Ok(false);
        };
        self.seen.insert(known);
        let (is, wanted) = (kind(&stat), node_kind(&node.kind));
        if is != wanted {
            self.tell(path, format_args!("it is a {is}, not a {wanted}"));
            return Ok(false);
        }
        self.facts(path, node, &stat);
        self.attributes(dir, name, path, node)?;
        match self.inodes.insert(number, stat.st_ino) {
            None => self.content(dir, name, path, node, &stat)?,
            Some(first) if first != stat.st_ino && stat.st_mode & libc::S_IFMT != libc::S_IFDIR => {
                self.tell(path, "it is no more the same file as the other names that it had");
                self.content(dir, name, path, node, &stat)?;
            }
            Some(_) => {}
        }
        Ok(node.kind == NodeKind::Dir)
    }

    fn tell(&mut self, path: &[u8], what: impl Display) {
        let path = if path.is_empty() { ".".to_owned() } else { escaped(path) };
        (self.problem)(path, what.to_string());
    }

    fn facts(&mut self, path: &[u8], node: &Node, stat: &FileStat) {
        let is_link = matches!(node.kind, NodeKind::Symlink(_));
        let mode = stat.st_mode & 0o7777;
        // a symbolic link has none of its own
        if !is_link && mode != node.mode {
            self.tell(path, format_args!("its mode is {mode:04o}, not {:04o}", node.mode));
        }
        if (stat.st_uid, stat.st_gid) != (node.uid, node.gid) {
            let (uid, gid) = (stat.st_uid, stat.st_gid);
            self.tell(
                path,
                format_args!("its owner is {uid}:{gid}, not {}:{}", node.uid, node.gid),
            );
        }
        if let Some(wanted) = node.mtime
            && (stat.st_mtime, stat.st_mtime_nsec) != wanted
        {
            let (secs, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
            let (wanted_secs, wanted_nanos) = wanted;
            self.tell(
                path,
                format_args!("its time is {secs}.{nanos:09}, not {wanted_secs}.{wanted_nanos:09}"),
            );
        }
        let device = match node.kind {
            NodeKind::Special(Special::Char | Special::Block, (major, minor)) => {
                makedev(u64::from(major), u64::from(minor))
            }
            NodeKind::Whiteout => 0,
            _ => return,
        };
        if stat.st_rdev != device {
            self.tell(path, "its device number has changed");
        }
    }

    fn attributes(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        node: &Node,
    ) -> Result<()> {
        let mut wanted = node.xattrs.clone();
        if node.is_opaque {
            wanted.insert(form::opaque().to_bytes().to_vec(), b"y".to_vec());
        }
        for (key, value) in xattrs_at(dir, name_path(name))? {
            let key = key.into_bytes();
            // what is the machine's own is no matter of the image's
            if form::kept_name(&key).is_none() {
                continue;
            }
            match wanted.remove(&key) {
                Some(other) if other == value => {}
                Some(_) => {
                    self.tell(path, format_args!("its attribute {} has changed", escaped(&key)));
                }
                None => {
                    self.tell(path, format_args!("it has an attribute {}", escaped(&key)));
                }
            }
        }
        for key in wanted.keys() {
            self.tell(path, format_args!("its attribute {} is missing", escaped(key)));
        }
        Ok(())
    }

    fn content(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        node: &Node,
        stat: &FileStat,
    ) -> Result<()> {
        match &node.kind {
            NodeKind::File(data) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                if size != data.size {
                    let wanted = data.size;
                    self.tell(path, format_args!("its size is {size}, not {wanted}"));
                    return Ok(());
                }
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let file = open_plain(dir, name_path(name), flags, Mode::empty())?;
                match self.is_same(&File::from(file), data) {
                    Ok(true) => {}
                    Ok(false) => self.tell(path, "its content has changed"),
                    // a bad block, say: what is behind it is to be looked at all the same
                    Err(e) => self.tell(path, format_args!("it can't be read: {e}")),
                }
            }
            NodeKind::Symlink(target) => {
                let is = readlinkat(dir, name)?;
                if is.as_bytes() != target {
                    let (is, target) = (escaped(is.as_bytes()), escaped(target));
                    self.tell(path, format_args!("it leads to {is}, not to {target}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_same(&mut self, file: &File, data: &Data) -> Result<bool> {
        let whole = [(0, data.size)];
        let runs = data.runs.as_deref().unwrap_or(&whole);
        let mut hasher = XxHash3_128::new();
        let mut end = 0;
        for (offset, len) in runs {
            if !self.is_zero(file, end, *offset)? {
                return Ok(false);
            }
            self.read(file, *offset, *len, |piece| hasher.write(piece))?;
            end = offset + len;
        }
        Ok(self.is_zero(file, end, data.size)? && hasher.finish_128() == data.hash)
    }

    fn read(
        &mut self,
        file: &File,
        mut at: u64,
        len: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        let end = at + len;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let into = self.buffer.get_mut(..want).unwrap_or_default();
            file.read_exact_at(into, at)?;
            each(into);
            at += want as u64;
            self.found.bytes += want as u64;
        }
        Ok(())
    }

    /// Whether a part that is to be a hole has nothing but zeros, wherever the file
    /// system keeps those.
    fn is_zero(&mut self, file: &File, mut at: u64, end: u64) -> Result<bool> {
        let seek = |at: u64, whence| lseek(file, i64::try_from(at).unwrap_or(i64::MAX), whence);
        let mut zero = true;
        while zero && at < end {
            let start = match seek(at, Whence::SeekData) {
                Err(Errno::ENXIO) => return Ok(true),
                other => u64::try_from(other?).unwrap_or(end),
            };
            if start >= end {
                break;
            }
            let stop = u64::try_from(seek(start, Whence::SeekHole)?).unwrap_or(end).min(end);
            self.read(file, start, stop - start, |piece| zero &= piece.iter().all(|b| *b == 0))?;
            at = stop;
        }
        Ok(zero)
    }
}

fn kind(stat: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) {
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFLNK => "symbolic link",
        SFlag::S_IFIFO => "fifo",
        SFlag::S_IFCHR if stat.st_rdev == 0 => "whiteout",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "socket",
    }
}

fn node_kind(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File(_) => "file",
        NodeKind::Dir => "directory",
        NodeKind::Symlink(_) => "symbolic link",
        NodeKind::Special(Special::Fifo, _) => "fifo",
        NodeKind::Special(Special::Char, (0, 0)) | NodeKind::Whiteout => "whiteout",
        NodeKind::Special(Special::Char, _) => "character device",
        NodeKind::Special(Special::Block, _) => "block device",
    }
}
