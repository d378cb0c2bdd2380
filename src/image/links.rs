//! Hard links of a layer to files of layers below it.
//!
//! No file has names in two directories of an overlay, so what such a link is in an image
//! lies with the directories of [`super::parents`]: the file once more, under both names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, major, minor, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use twox_hash::XxHash3_128;

use super::listing::{Change, Data, Name, Special, escaped};
use super::names::parent_and_name;
use super::parents::{View, stat_facts};
use super::places::as_path;
use super::visit::{There, Visit, is_opaque};
use crate::error::{Error, Result, Step};
use crate::sys::copy::{Attributes, Entry, Links, Rules};
use crate::sys::fs::{name_path, open_dir, open_plain};

/// The layers of an image from the bottom up, each with its open directory.
pub(super) type Stack<'a> = [(&'a OwnedFd, &'a View)];

/// The most of such links in an image. Real images have some hundreds; each is looked up
/// in every layer, and nothing else bounds what that takes.
const MOST: usize = 16 << 10;

/// A file of a lower layer, and the names that it has in the image.
///
/// It is opened when it is needed: there may be more of them than files may be open.
pub(super) struct Linked<'a> {
    /// All lie in directories that the image shows.
    pub(super) names: BTreeSet<Vec<u8>>,
    /// The directory of the layer that has it.
    layer: BorrowedFd<'a>,
    /// Its path there.
    path: Vec<u8>,
    /// Whether it is seen under that without any doing.
    is_seen: bool,
    /// Which layer's it is, and where: what its content is known by.
    pub(super) source: String,
}

/// Below which layer a link's file is, and its path there.
type Source<'a> = (usize, &'a [u8]);

/// All of them, as far as the image shows them.
///
/// # Errors
/// Invalid for a link to what no layer below has, and for more than [`MOST`].
pub(super) fn find<'a>(stack: &Stack<'a>) -> Result<Vec<Linked<'a>>> {
    let count: usize = stack.iter().map(|(_, view)| view.links.len()).sum();
    if count > MOST {
        return Err(Error::invalid(format!(
            "{count} hard links of layers to files of layers below: more than {MOST}"
        )));
    }
    let mut found = BTreeMap::new();
    // links to links of layers below lead to the same file; those of one layer have been
    // resolved when it was unpacked
    let mut sources: BTreeMap<&[u8], (usize, Source<'_>)> = BTreeMap::new();
    for (at, (_, view)) in stack.iter().enumerate() {
        let mut new = Vec::new();
        for (path, target) in &view.links {
            let (layer, source) = match sources.get(target.as_slice()) {
                Some(&(link_of, known)) if is_still(stack, link_of, at, target)? => known,
                _ => (at, target.as_slice()),
            };
            let Some(owner) = file(stack.get(..layer).unwrap_or_default(), source)? else {
                let (path, target) = (escaped(path), escaped(target));
                return Err(Error::invalid(format!("entry {path}: hard link to {target}")).hint(
                    "its target must be a file that this layer has before it, or one below",
                ));
            };
            new.push((path.as_slice(), (at, (layer, source))));
            if !found.contains_key(&(owner, source)) {
                found.extend(Linked::new(stack, owner, source)?.map(|one| ((owner, source), one)));
            }
            if !has(stack.get(at), path)?
                && is_seen(stack.get(at + 1..).unwrap_or_default(), path)?
                && let Some(linked) = found.get_mut(&(owner, source))
            {
                linked.names.insert(path.clone());
            }
        }
        sources.extend(new);
    }
    // one that upper layers have taken all new names of is as it was
    Ok(found.into_values().filter(Linked::is_needed).collect())
}

impl<'a> Linked<'a> {
    fn new(stack: &Stack<'a>, owner: usize, path: &[u8]) -> Result<Option<Self>> {
        let Some(&(top, view)) = stack.get(owner) else { return Ok(None) };
        let is_seen = is_seen(stack.get(owner + 1..).unwrap_or_default(), path)?;
        let names = is_seen.then(|| path.to_vec()).into_iter().collect();
        let source = format!("{} {}", view.diff_id, escaped(path));
        Ok(Some(Linked { names, layer: top.as_fd(), path: path.to_vec(), is_seen, source }))
    }

    /// Whether it has a name in the image that it does not have without this.
    fn is_needed(&self) -> bool {
        self.names.len() > usize::from(self.is_seen)
    }

    /// The directory that the file is in, and its name.
    fn open(&self) -> Result<(OwnedFd, CString)> {
        let (parent, name) = parent_and_name(&self.path);
        let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
        Ok((open_plain(self.layer, as_path(parent), DIR, Mode::empty())?, name))
    }

    /// Makes the file below `top`, in directories that are there; its listing.
    ///
    /// # Errors
    /// Whatever can't be read or written.
    pub(super) fn make(&self, layer: &Path, top: BorrowedFd<'_>) -> Result<()> {
        let layer = open_dir(layer)?;
        // the name that it has may be one of the record's
        mkdirat(&layer, "file", Mode::S_IRWXU)?;
        let aside = open_plain(layer.as_fd(), Path::new("file"), DIR, Mode::empty())?;
        let (dir, file) = self.open()?;
        let entry = Entry::of(dir.as_fd(), aside.as_fd(), &file)?;
        entry.copy(aside.as_fd(), name_path(&file), &mut Links::new(), &Whole)?;
        for path in &self.names {
            let (parent, name) = parent_and_name(path);
            let parent = open_plain(top, as_path(parent), DIR, Mode::empty())?;
            linkat(&aside, file.as_c_str(), &parent, as_path(name), AtFlags::empty())?;
        }
        unlinkat(&aside, file.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
        Ok(unlinkat(&layer, "file", UnlinkatFlags::RemoveDir)?)
    }

    /// What a listing has of it.
    ///
    /// # Errors
    /// Whatever can't be read.
    pub(super) fn changes(&self) -> Result<Vec<Change<'_>>> {
        let mut others = self.names.iter();
        let Some(first) = others.next() else { return Ok(Vec::new()) };
        let path = Name::from(first.as_slice());
        let (dir, name) = self.open()?;
        let (dir, name) = (dir.as_fd(), name.as_c_str());
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let facts = stat_facts(dir, name_path(name), &stat)?;
        let device = (number(major(stat.st_rdev)), number(minor(stat.st_rdev)));
        let special =
            |kind| Change::Special { path: path.clone(), facts: facts.clone(), kind, device };
        let one = match format(&stat) {
            SFlag::S_IFREG => Change::File { path, facts, data: data(dir, name, &stat)? },
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name)?.as_bytes().to_vec();
                Change::Symlink { path, facts, target: Name(target.into()) }
            }
            SFlag::S_IFCHR => special(Special::Char),
            SFlag::S_IFBLK => special(Special::Block),
            _ => special(Special::Fifo),
        };
        let link = |other: &'_ Vec<u8>| Change::Link {
            path: Name(other.clone().into()),
            target: first.as_slice().into(),
        };
        Ok(std::iter::once(one).chain(others.map(link)).collect())
    }
}

fn number(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn data(dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<Data> {
    use std::io::Read;
    let fd = open_plain(dir, name_path(name), OFlag::O_RDONLY, Mode::empty())?;
    let mut file = std::fs::File::from(fd);
    let mut hasher = XxHash3_128::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer)?;
        let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else { break };
        hasher.write(piece);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Data { size, hash: hasher.finish_128(), runs: None })
}

fn format(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

/// Which layer has the uppermost file of that path. `None` where there is none to be
/// seen, or a directory.
fn file(stack: &Stack<'_>, path: &[u8]) -> Result<Option<usize>> {
    let (parent, name) = parent_and_name(path);
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    for (at, (top, _)) in stack.iter().enumerate().rev() {
        match at_path(top.as_fd(), parent, &name)? {
            At::Nothing => {}
            At::Hidden => return Ok(None),
            At::File(stat) => {
                let is_file = format(&stat) != SFlag::S_IFDIR && !is_whiteout(&stat);
                return Ok(is_file.then_some(at));
            }
        }
    }
    Ok(None)
}

fn is_whiteout(stat: &FileStat) -> bool {
    format(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Whether none of these layers has or hides what layers below them have at a path.
fn is_seen(stack: &Stack<'_>, path: &[u8]) -> Result<bool> {
    let (parent, name) = parent_and_name(path);
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    for (top, _) in stack {
        if !matches!(at_path(top.as_fd(), parent, &name)?, At::Nothing) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the link that layer `link_of` has at a path is what layer `at` finds there.
fn is_still(stack: &Stack<'_>, link_of: usize, at: usize, path: &[u8]) -> Result<bool> {
    let between = stack.get(link_of + 1..at).unwrap_or_default();
    Ok(!has(stack.get(link_of), path)? && is_seen(between, path)?)
}

/// Whether a layer has something at the path of a link of its own: a later entry. The
/// whiteout that is there is the link's.
fn has(layer: Option<&(&OwnedFd, &View)>, path: &[u8]) -> Result<bool> {
    let Some((top, _)) = layer else { return Ok(false) };
    let (parent, name) = parent_and_name(path);
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    let found = at_path(top.as_fd(), parent, &name)?;
    Ok(matches!(found, At::File(stat) if !is_whiteout(&stat)))
}

/// What one layer has of a name.
enum At {
    Nothing,
    /// Lower layers' is not to be seen.
    Hidden,
    File(Box<FileStat>),
}

fn at_path(top: BorrowedFd<'_>, parent: &[u8], name: &CStr) -> Result<At> {
    let mut visit = Visit::new(top)?;
    let hides = match visit.go(parent).step(|| escaped(parent))? {
        There::Dir { hides } => hides || is_opaque(visit.here())?,
        There::Nothing { hides: false } => return Ok(At::Nothing),
        There::Nothing { hides: true } | There::Other => return Ok(At::Hidden),
    };
    match fstatat(visit.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(At::File(Box::new(stat))),
        Err(Errno::ENOENT) if hides => Ok(At::Hidden),
        Err(Errno::ENOENT) => Ok(At::Nothing),
        Err(e) => Err(e.into()),
    }
}

/// A copy is what the layer has.
struct Whole;

impl Rules for Whole {
    fn attributes(&self, all: Attributes) -> Result<Attributes> {
        Ok(all)
    }
}
