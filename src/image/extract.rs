//! Entries of one layer into a directory, in the form that overlayfs reads.
//!
//! Every call goes by a descriptor of the entry's parent and one name. Parents
//! are opened below the layer's directory with openat2, which refuses symbolic
//! links and mounts on the way: no entry, whatever it says, names anything
//! outside.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::attributes::{dress, dress_dir, facts, kept_xattrs, spec, write_data};
use super::digest::Digest;
use super::dirs;
use super::entry::{Entry, Kind, shown};
use super::form;
use super::limits::Limits;
use super::listing::{Change, Facts, Name, Special, Writer};
use super::names::{self, classify, clean, join, parent_and_name};
use super::places::{
    as_parent, as_path, is_dir, is_whiteout, is_whiteout_entry, open_dir_at, set_opaque,
};
use super::tarstream::{Source, TarStream};
use super::tree;
use crate::error::{Error, Result, Step};
use crate::sys::fs::{open_plain, set_xattr_at, start_writeback};

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_PATH);

/// Files from this size on are sent to the disk as soon as they are complete,
/// so that the sync at the end of an import finds little to do.
const WRITEBACK: u64 = 1 << 20;

/// Bytes that the names may take of what a layer leaves to those below it, directories
/// and targets of links: they are all that is kept in memory of what has been unpacked.
const OPEN: usize = 16 << 20;

/// What became of a layer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Bytes of regular files.
    pub(crate) bytes: u64,
    /// Files of all kinds.
    pub(crate) files: u64,
    /// Directories that entries lie in but that the layer doesn't list, parents
    /// first. The root is the empty path.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Hard links to files that the layer doesn't have: their paths and targets. A
    /// whiteout is in the place of each.
    pub(crate) links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Device nodes that only root could make.
    pub(crate) left_out: u64,
    /// The digest of the listing.
    pub(crate) listing: Option<Digest>,
}

/// Writes entries below one directory.
pub(crate) struct Extractor<'a> {
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    /// The parent of the last entry: archives go directory by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Bytes of the names in `facts.implied` and `facts.links`.
    left_open: usize,
    listing: Writer<'a>,
    facts: Extracted,
}

/// Unpacks a whole archive into `root`, and writes down what that is made of.
pub(crate) fn extract<S: Source>(
    stream: &mut TarStream<'_, S>,
    root: BorrowedFd<'_>,
    listing: &File,
    limits: &Limits,
) -> Result<Extracted> {
    let mut extractor = Extractor {
        root,
        limits,
        parent: None,
        left_open: 0,
        listing: Writer::new(listing),
        facts: Extracted { implied: BTreeSet::from([Vec::new()]), ..Extracted::default() },
    };
    while let Some(entry) = stream.next().map_err(data_error)? {
        extractor
            .apply(&entry, stream)
            .map_err(|e| e.step(format!("entry {}", shown(&entry.path))))?;
    }
    let Extractor { listing: writer, mut facts, parent, .. } = extractor;
    drop(parent);
    facts.listing = Some(writer.finish()?);
    dirs::complete(root, listing)?;
    Ok(facts)
}

/// An error of the archive's reader: wrong data unless the system failed.
pub(crate) fn data_error(e: io::Error) -> Error {
    let system = e.raw_os_error().is_some();
    let error = Error::from(e);
    if system { error } else { error.of_kind(crate::ErrorKind::Invalid) }
}

impl Extractor<'_> {
    fn apply<S: Source>(&mut self, entry: &Entry, stream: &mut TarStream<'_, S>) -> Result<()> {
        let path = clean(&entry.path, self.limits.path)?;
        self.facts.files += 1;
        if path.is_empty() {
            return self.root_entry(entry);
        }
        let (parent, name) = parent_and_name(&path);
        match classify(parent, name)? {
            names::Name::Ignored => Ok(()),
            // what this layer itself has in a directory's place hides all that lower layers
            // have in that: umoci's layers say so once more, a whiteout for each name
            names::Name::Opaque | names::Name::Whiteout(_) if self.enter(parent)?.is_err() => {
                Ok(())
            }
            names::Name::Opaque => self.make_opaque(parent),
            names::Name::Whiteout(hidden) => {
                if entry.kind != Kind::File {
                    return Err(Error::invalid("a whiteout must be a regular file"));
                }
                self.whiteout(parent, hidden)
            }
            names::Name::Plain => {
                self.enter(parent)??;
                self.create(&path, name, entry, stream)
            }
        }
    }

    fn create<S: Source>(
        &mut self,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        stream: &mut TarStream<'_, S>,
    ) -> Result<()> {
        match entry.kind {
            Kind::File => self.file(name, path, entry, stream),
            Kind::Dir => self.dir(name, path, entry),
            Kind::Symlink => self.symlink(name, path, entry),
            Kind::HardLink => self.hard_link(name, path, entry),
            Kind::Fifo | Kind::Char | Kind::Block => self.node(name, path, entry),
        }
    }

    /// Makes `parent` the current directory of the extraction; the inner error is that it
    /// leads through what is no directory.
    fn enter(&mut self, parent: &[u8]) -> Result<Result<()>> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(Ok(()));
        }
        let opened = match open_plain(self.root, as_path(parent), DIR, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.make_parents(parent)?,
            other => as_parent(parent, other)?,
        };
        Ok(opened.map(|fd| self.parent = Some((parent.to_vec(), fd))))
    }

    /// Opens `parent` component by component, making what is missing; the inner error is as
    /// for [`Extractor::enter`].
    fn make_parents(&mut self, parent: &[u8]) -> Result<Result<OwnedFd>> {
        let mut at = Vec::new();
        let mut fd = open_plain(self.root, Path::new("."), DIR, Mode::empty())?;
        for name in parent.split(|b| *b == b'/') {
            at = join(&at, name);
            let open = || open_plain(fd.as_fd(), as_path(name), DIR, Mode::empty());
            let next = match open() {
                Err(Errno::ENOENT) => {
                    mkdirat(&fd, as_path(name), Mode::from_bits_truncate(0o755))?;
                    self.imply(&at)?;
                    open()
                }
                Err(Errno::ENOTDIR)
                    if is_whiteout(fd.as_fd(), name)? && !self.facts.links.contains_key(&at) =>
                {
                    unlinkat(&fd, as_path(name), UnlinkatFlags::NoRemoveDir)?;
                    mkdirat(&fd, as_path(name), Mode::from_bits_truncate(0o755))?;
                    // lower layers have nothing to say of it
                    self.listing.add(&Change::Fresh { path: at.as_slice().into() })?;
                    set_opaque(open_dir_at(fd.as_fd(), name)?.as_fd())?;
                    open()
                }
                other => other,
            };
            fd = match as_parent(&at, next)? {
                Ok(next) => next,
                blocked => return Ok(blocked),
            };
        }
        Ok(Ok(fd))
    }

    /// Notes a directory that was made for what lies in it.
    fn imply(&mut self, path: &[u8]) -> Result<()> {
        self.left_open += path.len() + size_of::<Vec<u8>>();
        if self.left_open > OPEN {
            return Err(Error::invalid(
                "the layer lists too few of the directories that its entries lie in",
            ));
        }
        self.facts.implied.insert(path.to_vec());
        self.listing.add(&Change::Implied { path: path.into() })
    }

    fn here(&self) -> Result<BorrowedFd<'_>> {
        let parent = self.parent.as_ref();
        let (_, fd) = parent.ok_or_else(|| Error::from(Errno::EBADF))?;
        Ok(fd.as_fd())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(Error::invalid("the root must be a directory"));
        }
        let fd = open_dir_at(self.root, b".")?;
        let facts = dress_dir(fd.as_fd(), entry)?;
        self.list_dir(&[], facts)
    }

    fn list_dir(&mut self, path: &[u8], facts: Facts<'_>) -> Result<()> {
        self.facts.implied.remove(path);
        self.listing.add(&Change::Dir { path: path.into(), facts })
    }

    fn make_opaque(&mut self, parent: &[u8]) -> Result<()> {
        let fd = as_parent(parent, open_dir_at(self.here()?, b"."))??;
        set_opaque(fd.as_fd())?;
        self.listing.add(&Change::Opaque { path: parent.into() })
    }

    fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<()> {
        let here = self.here()?;
        let none = Mode::empty();
        let path = join(parent, hidden);
        let path = Name::from(path.as_slice());
        match mknodat(here, as_path(hidden), SFlag::S_IFCHR, none, 0) {
            // a whiteout is for lower layers: what this layer has stays, and a
            // directory of it hides what lower ones have in it
            Err(Errno::EEXIST) if is_dir(here, hidden)? => {
                let fd = as_parent(parent, open_dir_at(here, hidden))??;
                set_opaque(fd.as_fd())?;
                self.listing.add(&Change::Opaque { path })
            }
            Ok(()) => self.listing.add(&Change::Whiteout { path }),
            Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn file<S: Source>(
        &mut self,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        stream: &mut TarStream<'_, S>,
    ) -> Result<()> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        // the special bits come after the owner, whose change takes them away
        let mode = Mode::from_bits_truncate(entry.mode & 0o777);
        let open =
            |here: BorrowedFd<'_>| openat(here, as_path(name), flags | OFlag::O_CLOEXEC, mode);
        let fd = match open(self.here()?) {
            Err(Errno::EEXIST) => {
                self.clear(name, path)?;
                open(self.here()?)?
            }
            other => other?,
        };
        let file = File::from(fd);
        let data = write_data(&file, entry, stream)?;
        let facts = dress(file.as_fd(), entry)?;
        let time = spec(entry.mtime);
        futimens(&file, &time, &time)?;
        if entry.size >= WRITEBACK {
            // only a hint: the sync at the end is what counts
            start_writeback(file.as_fd()).unwrap_or_default();
        }
        self.facts.bytes = self.facts.bytes.saturating_add(entry.size);
        self.listing.add(&Change::File { path: path.into(), facts, data })
    }

    fn dir(&mut self, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let here = self.here()?;
        let mode = Mode::from_bits_truncate(entry.mode & 0o1777);
        let plain =
            entry.uid == 0 && entry.gid == 0 && entry.mode & 0o6000 == 0 && entry.xattrs.is_empty();
        let facts = match mkdirat(here, as_path(name), mode) {
            Ok(()) if plain => facts(entry, true),
            Ok(()) => dress_dir(open_dir_at(here, name)?.as_fd(), entry)?,
            Err(Errno::EEXIST) if is_dir(here, name)? => {
                dress_dir(open_dir_at(here, name)?.as_fd(), entry)?
            }
            Err(Errno::EEXIST) => {
                // what was here, a whiteout or a file, has hidden everything below
                self.clear(name, path)?;
                mkdirat(self.here()?, as_path(name), mode)?;
                let fd = open_dir_at(self.here()?, name)?;
                set_opaque(fd.as_fd())?;
                self.listing.add(&Change::Fresh { path: path.into() })?;
                dress_dir(fd.as_fd(), entry)?
            }
            Err(e) => return Err(e.into()),
        };
        self.list_dir(path, facts)
    }

    fn symlink(&mut self, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() || entry.link.len() > self.limits.path || entry.link.contains(&0) {
            return Err(Error::invalid(
                "the symbolic link's target is empty, too long or has a NUL",
            ));
        }
        let make = |here: BorrowedFd<'_>| symlinkat(as_path(&entry.link), here, as_path(name));
        self.make(name, path, make)?;
        let facts = self.dress_node(name, entry)?;
        let target = entry.link.as_slice().into();
        self.listing.add(&Change::Symlink { path: path.into(), facts, target })
    }

    fn node(&mut self, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let (kind, special, device) = match entry.kind {
            Kind::Char => (SFlag::S_IFCHR, Special::Char, entry.device),
            Kind::Block => (SFlag::S_IFBLK, Special::Block, entry.device),
            _ => (SFlag::S_IFIFO, Special::Fifo, (0, 0)),
        };
        let number = makedev(u64::from(device.0), u64::from(device.1));
        let mode = Mode::from_bits_truncate(entry.mode);
        let made = self.make(name, path, |here| mknodat(here, as_path(name), kind, mode, number));
        if !form::node(made)? {
            self.facts.left_out += 1;
            return Ok(());
        }
        let facts = self.dress_node(name, entry)?;
        if entry.mode & 0o7000 != 0 {
            let here = self.here()?;
            // it was made above and is no link, so following is no matter
            fchmodat(here, as_path(name), mode, FchmodatFlags::FollowSymlink)?;
        }
        self.listing.add(&Change::Special { path: path.into(), facts, kind: special, device })
    }

    fn hard_link(&mut self, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        let target = clean(&entry.link, self.limits.path).step(|| "hard link")?;
        if target == path {
            return Err(Error::invalid("hard link to itself"));
        }
        let missing = |e: Errno| {
            Error::from(e)
                .of_kind(crate::ErrorKind::Invalid)
                .step(format!("hard link to {}", shown(&target)))
                .hint("its target must be a file")
        };
        let (parent, target_name) = parent_and_name(&target);
        let from = match open_plain(self.root, as_path(parent), DIR, Mode::empty()) {
            Err(Errno::ENOENT) => return self.link_below(name, path, &target),
            other => other.map_err(missing)?,
        };
        if let Some(known) = self.facts.links.get(&target).cloned() {
            return self.link_below(name, path, &known);
        }
        if is_whiteout_entry(from.as_fd(), target_name) {
            return Err(missing(Errno::ENOENT));
        }
        let make = |here: BorrowedFd<'_>| {
            let none = AtFlags::empty();
            linkat(&from, as_path(target_name), here, as_path(name), none)
        };
        match make(self.here()?) {
            Err(Errno::ENOENT) => return self.link_below(name, path, &target),
            Err(Errno::EEXIST) => {
                self.clear(name, path)?;
                make(self.here()?).map_err(missing)?;
            }
            other => other.map_err(missing)?,
        }
        let target = target.as_slice().into();
        self.listing.add(&Change::Link { path: path.into(), target })
    }

    /// Notes a link to a file that a layer below has, if one does: that depends on the
    /// image. What lower layers have under the name is hidden in any.
    fn link_below(&mut self, name: &[u8], path: &[u8], target: &[u8]) -> Result<()> {
        let whiteout =
            |here: BorrowedFd<'_>| mknodat(here, as_path(name), SFlag::S_IFCHR, Mode::empty(), 0);
        self.make(name, path, whiteout)?;
        self.listing.add(&Change::Whiteout { path: path.into() })?;
        self.left_open += path.len() + target.len() + 2 * size_of::<Vec<u8>>();
        if self.left_open > OPEN {
            return Err(Error::invalid("the layer links to too many files that it doesn't have"));
        }
        self.facts.links.insert(path.to_vec(), target.to_vec());
        Ok(())
    }

    /// Makes a node, in place of what has the name already.
    fn make(
        &mut self,
        name: &[u8],
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> Result<()> {
        match make(self.here()?) {
            Err(Errno::EEXIST) => {
                self.clear(name, path)?;
                Ok(make(self.here()?)?)
            }
            other => Ok(other?),
        }
    }

    /// Removes what an earlier entry of this layer put at `path`.
    fn clear(&mut self, name: &[u8], path: &[u8]) -> Result<()> {
        let here = self.here()?;
        if is_dir(here, name)? {
            tree::remove(here, as_path(name))?;
            self.forget_below(path);
        } else {
            unlinkat(here, as_path(name), UnlinkatFlags::NoRemoveDir)?;
            self.facts.links.remove(path);
        }
        self.listing.add(&Change::Gone { path: path.into() })
    }

    /// Forgets what is noted of a directory that is gone. Only what there is of it is looked
    /// at: a layer may bring and take a directory as often as it likes.
    fn forget_below(&mut self, path: &[u8]) {
        // all that begins with the path and a slash, which is followed by 0
        let below = [path, b"/"].concat()..[path, b"0"].concat();
        let dirs: Vec<_> = self.facts.implied.range(below.clone()).cloned().collect();
        for dir in &dirs {
            self.facts.implied.remove(dir);
        }
        self.facts.implied.remove(path);
        let links: Vec<_> = self.facts.links.range(below).map(|(link, _)| link.clone()).collect();
        for link in &links {
            self.facts.links.remove(link);
        }
    }

    /// Owner, attributes and times of what has no descriptor of its own.
    fn dress_node<'e>(&self, name: &[u8], entry: &'e Entry) -> Result<Facts<'e>> {
        let here = self.here()?;
        let name = as_path(name);
        let mut owned = true;
        if entry.uid != 0 || entry.gid != 0 {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let none = AtFlags::AT_SYMLINK_NOFOLLOW;
            owned = form::owned(fchownat(here, name, Some(uid), Some(gid), none))?;
        }
        for (key, value) in kept_xattrs(entry) {
            let key = CString::new(key.as_ref()).map_err(|_nul| Errno::EINVAL)?;
            set_xattr_at(here, name, &key, value).step(|| format!("attribute {key:?}"))?;
        }
        let time = spec(entry.mtime);
        utimensat(here, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(facts(entry, owned))
    }
}
