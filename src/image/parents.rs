//! Directories that a layer doesn't list although its entries lie in them.
//!
//! An overlay shows the attributes of the uppermost layer that has a directory. A
//! layer with `usr/bin/tool` and no entry for `usr` must not turn the owner, mode and
//! times that a lower layer gave to `usr` into defaults. But the layer is kept once,
//! for all images that have it, and each may have something else below it. So an image
//! whose layers would show the wrong attributes gets one more on top: of nothing but
//! those directories, with what they should have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::attributes::set;
use super::digest::Digest;
use super::form;
use super::import::make_open_dir;
use super::links::{self, Linked};
use super::listing::{Change, Facts, Name, Writer, escaped};
use super::names::parent_and_name;
use super::places::as_path;
use super::record::{LayerFacts, write_layer_facts};
use super::staging::Staging;
use super::store::Store;
use crate::error::{Error, Result, Step};
use crate::sys::fs::{open_dir, open_plain, xattr_at, xattrs_at};

/// The most layers that an overlay has.
const MOST: usize = 500;

/// A layer of an image.
pub(crate) struct View {
    pub(crate) diff_id: Digest,
    /// The directory of its files.
    pub(crate) dir: PathBuf,
    /// The directories in it that it doesn't list.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Hard links to files that it doesn't have: their paths and targets.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The layer that has to go on top of these (from the bottom up, each once), if any:
/// it is in the store, or in `staging` under the name of its digest.
pub(crate) fn above(
    store: &Store,
    staging: &mut Option<Staging>,
    layers: &[View],
) -> Result<Option<Digest>> {
    let tops = layers.iter().map(|layer| open_dir(&layer.dir));
    let tops = tops.collect::<std::result::Result<Vec<OwnedFd>, Errno>>()?;
    let stack: Vec<_> = tops.iter().zip(layers).collect();
    let linked = links::find(&stack)?;
    let found = directories(&stack, &linked).step(|| "directories that no layer lists")?;
    if found.is_empty() {
        return Ok(None);
    }
    if layers.len() >= MOST {
        return Err(Error::unsupported(format!(
            "{} layers, and directories that they don't list or hard links between them: these \
             take one more, and an overlay has {MOST}",
            layers.len()
        )));
    }
    let top = Top { found, linked };
    let digest = top.digest()?;
    if store.layer_facts(&digest)?.is_none() {
        let staging = match staging {
            Some(staging) => staging,
            none => none.insert(Staging::new(store)?),
        };
        top.make(&staging.layer(&digest)).step(|| "directories that no layer lists")?;
    }
    Ok(Some(digest))
}

type Found = BTreeMap<Vec<u8>, Facts<'static>>;

/// All directories of which the layers show the wrong attributes, with those that
/// they should have, and the directories that these and the links lie in.
fn directories(stack: &[(&OwnedFd, &View)], linked: &[Linked<'_>]) -> Result<Found> {
    let implied: BTreeSet<_> = stack.iter().flat_map(|(_, layer)| &layer.implied).collect();
    let mut found = Found::new();
    for path in implied {
        let Some(seen) = look(stack, path)? else { continue };
        let Some(source) = seen.source else { continue };
        let wanted = facts(source.as_fd())?;
        if wanted != facts(seen.top.as_fd())? {
            found.insert(path.clone(), wanted);
        }
    }
    let links = linked.iter().flat_map(|linked| linked.names.iter().cloned());
    for path in found.keys().cloned().chain(links).collect::<Vec<_>>() {
        let mut path = path.as_slice();
        while !path.is_empty() {
            path = parent_and_name(path).0;
            if !found.contains_key(path)
                && let Some(seen) = look(stack, path)?
            {
                found.insert(path.to_vec(), facts(seen.source.unwrap_or(seen.top).as_fd())?);
            }
        }
    }
    Ok(found)
}

/// A directory as the overlay has it.
struct Seen {
    /// In the uppermost layer that has it.
    top: OwnedFd,
    /// In the one that says what its attributes are, if any does and it is another.
    source: Option<OwnedFd>,
}

/// Looks for a directory from the top down; `None` if there is none to be seen.
fn look(stack: &[(&OwnedFd, &View)], path: &[u8]) -> Result<Option<Seen>> {
    let mut seen: Option<Seen> = None;
    for (top, layer) in stack.iter().rev() {
        let (fd, hides) = match open(top.as_fd(), path)? {
            There::Dir(fd, hides) => (fd, hides),
            There::Nothing { hides: false } => continue,
            There::Nothing { hides: true } | There::Other => break,
        };
        let listed = !layer.implied.contains(path);
        match &mut seen {
            None => seen = Some(Seen { top: fd, source: None }),
            Some(seen) if listed => seen.source = Some(fd),
            Some(_) => {}
        }
        if listed || hides {
            break;
        }
    }
    Ok(seen)
}

/// What one layer has at a path.
pub(super) enum There {
    /// A directory, and whether what it lies in hides lower layers.
    Dir(OwnedFd, bool),
    Nothing {
        hides: bool,
    },
    /// A file, a link, a whiteout, there or above it.
    Other,
}

pub(super) fn open(top: BorrowedFd<'_>, path: &[u8]) -> Result<There> {
    let mut here = open_plain(top, Path::new("."), DIR, Mode::empty())?;
    let mut hides = false;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        hides |= is_opaque(here.as_fd())?;
        match open_plain(here.as_fd(), as_path(name), DIR, Mode::empty()) {
            Ok(next) => here = next,
            Err(Errno::ENOENT) => return Ok(There::Nothing { hides }),
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(There::Other),
            Err(e) => return Err(e).step(|| escaped(path)),
        }
    }
    Ok(There::Dir(here, hides))
}

/// Whether a directory of a layer hides what lower ones have in it.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    Ok(xattr_at(dir, Path::new("."), form::opaque())?.is_some_and(|value| value == b"y"))
}

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY);

/// Owner, mode, extended attributes but the overlay's and the machine's own, and times.
fn facts(dir: BorrowedFd<'_>) -> Result<Facts<'static>> {
    stat_facts(dir, Path::new("."), &fstat(dir)?)
}

/// The same of any file in a directory.
pub(super) fn stat_facts(
    dir: BorrowedFd<'_>,
    file: &Path,
    stat: &FileStat,
) -> Result<Facts<'static>> {
    let name = |bytes: Vec<u8>| Name(bytes.into());
    let mut xattrs: Vec<_> = xattrs_at(dir, file)?
        .into_iter()
        // the escaped ones are the image's, and a label is the machine's
        .filter(|(key, _)| {
            let key = key.as_bytes();
            form::merged_name(key).is_some() && form::kept_name(key).is_some()
        })
        .map(|(key, value)| (name(key.into_bytes()), name(value)))
        .collect();
    xattrs.sort();
    Ok(Facts {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs,
    })
}

/// What is in a layer that goes on top.
struct Top<'a> {
    found: Found,
    linked: Vec<Linked<'a>>,
}

impl Top<'_> {
    /// What it is known by: its directories, and which files of which layers.
    fn digest(&self) -> Result<Digest> {
        let mut text = Vec::new();
        for (path, facts) in &self.found {
            let change = Change::Dir { path: path.as_slice().into(), facts: facts.clone() };
            serde_json::to_writer(&mut text, &change).map_err(std::io::Error::from)?;
            text.push(b'\n');
        }
        for Linked { names, source, .. } in &self.linked {
            let names: Vec<_> = names.iter().map(|name| escaped(name)).collect();
            text.extend_from_slice(format!("{source} {}\n", names.join(" ")).as_bytes());
        }
        Ok(Digest::of(&text))
    }

    fn make(&self, layer: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(layer) {
            // for another image of this import
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        let diff = layer.join("diff");
        make_open_dir(&diff)?;
        let top = open_dir(&diff)?;
        let file = File::create_new(layer.join("listing"))?;
        let mut listing = Writer::new(&file);
        for (path, facts) in &self.found {
            let (parent, name) = parent_and_name(path);
            if !path.is_empty() {
                let parent = open_plain(top.as_fd(), as_path(parent), DIR, Mode::empty())?;
                mkdirat(&parent, as_path(name), Mode::S_IRWXU)?;
            }
            listing.add(&Change::Dir { path: path.as_slice().into(), facts: facts.clone() })?;
        }
        for linked in &self.linked {
            linked.make(layer, top.as_fd())?;
            linked.changes()?.iter().try_for_each(|change| listing.add(change))?;
        }
        // now that nothing more is made in them
        for (path, facts) in &self.found {
            let fd = open_plain(top.as_fd(), as_path(path), DIR, Mode::empty())?;
            dress(fd.as_fd(), facts)?;
        }
        let facts = LayerFacts {
            bytes: 0,
            files: self.found.len() as u64,
            listing: Some(listing.finish()?),
            implied: Vec::new(),
            links: Vec::new(),
        };
        write_layer_facts(layer, &facts)
    }
}

/// Gives a directory the attributes of another, but the overlay's own.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    dress(to, &facts(from)?)
}

fn dress(dir: BorrowedFd<'_>, facts: &Facts<'_>) -> Result<()> {
    fchown(dir, Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)))?;
    fchmod(dir, Mode::from_bits_truncate(facts.mode))?;
    for (key, value) in &facts.xattrs {
        set(dir, &key.0, &value.0)?;
    }
    let time = TimeSpec::new(facts.mtime.0, facts.mtime.1);
    Ok(futimens(dir, &time, &time)?)
}
