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
use super::links::{self, Linked, Stack};
use super::listing::{Change, Facts, Name, Writer, escaped};
use super::names::parent_and_name;
use super::places::as_path;
use super::record::{LayerFacts, write_layer_facts};
use super::staging::Staging;
use super::store::Store;
use super::visit::{There, Visit};
use crate::error::{Error, Result, Step};
use crate::sys::fs::{open_dir, open_plain, xattrs_at};

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
fn directories(stack: &Stack<'_>, linked: &[Linked<'_>]) -> Result<Found> {
    let implied: BTreeSet<_> = stack.iter().flat_map(|(_, layer)| &layer.implied).collect();
    let seen = look(stack, implied.into_iter().map(Vec::as_slice).collect())?;
    let mut found = Found::new();
    let sources = seen.iter().filter_map(|(path, seen)| Some((seen.source?, *path)));
    each(stack, sources.collect(), |path, wanted| {
        found.insert(path.to_vec(), wanted);
    })?;
    let shown = seen.iter().filter(|(_, seen)| seen.source.is_some());
    each(stack, shown.map(|(path, seen)| (seen.top, *path)).collect(), |path, shown| {
        if found.get(path) == Some(&shown) {
            found.remove(path);
        }
    })?;
    let mut above = Found::new();
    let seen = look(stack, lain_in(&found, linked))?;
    let places = seen.iter().map(|(path, seen)| (seen.source.unwrap_or(seen.top), *path));
    each(stack, places.collect(), |path, facts| {
        above.insert(path.to_vec(), facts);
    })?;
    found.append(&mut above);
    Ok(found)
}

/// The directories that these and the links lie in, but those that are among these.
fn lain_in<'a>(found: &'a Found, linked: &'a [Linked<'_>]) -> Vec<&'a [u8]> {
    let links = linked.iter().flat_map(|linked| &linked.names);
    let mut all = BTreeSet::new();
    for path in found.keys().chain(links) {
        let mut path = path.as_slice();
        while !path.is_empty() {
            path = parent_and_name(path).0;
            // those above it come with it
            if found.contains_key(path) || !all.insert(path) {
                break;
            }
        }
    }
    all.into_iter().collect()
}

/// A directory as the overlay has it, by layers.
struct Seen {
    /// The uppermost that has it.
    top: usize,
    /// The one that says what its attributes are, if any does and it is another.
    source: Option<usize>,
}

/// Looks for directories (sorted) from the top down; the answer is without those that
/// are not to be seen.
fn look<'p>(stack: &Stack<'_>, mut paths: Vec<&'p [u8]>) -> Result<BTreeMap<&'p [u8], Seen>> {
    let mut all: BTreeMap<_, Seen> = BTreeMap::new();
    for (at, (top, layer)) in stack.iter().enumerate().rev() {
        let mut visit = Visit::new(top.as_fd())?;
        let mut below = Vec::new();
        for path in paths {
            let hides = match visit.go(path)? {
                There::Dir { hides } => hides,
                There::Nothing { hides: false } => {
                    below.push(path);
                    continue;
                }
                There::Nothing { hides: true } | There::Other => continue,
            };
            let listed = !layer.implied.contains(path);
            match all.get_mut(path) {
                None => {
                    all.insert(path, Seen { top: at, source: None });
                }
                Some(seen) if listed => seen.source = Some(at),
                Some(_) => {}
            }
            if !listed && !hides {
                below.push(path);
            }
        }
        paths = below;
    }
    Ok(all)
}

/// Reads the attributes of directories that layers have; a layer is known by where it is
/// in the stack.
fn each<'p>(
    stack: &Stack<'_>,
    places: BTreeSet<(usize, &'p [u8])>,
    mut tell: impl FnMut(&'p [u8], Facts<'static>),
) -> Result<()> {
    let mut last: Option<(usize, Visit)> = None;
    for (at, path) in places {
        let mut visit = match last.take() {
            Some((same, visit)) if same == at => visit,
            _ => Visit::new(stack.get(at).ok_or(Errno::ENOENT)?.0.as_fd())?,
        };
        match visit.go(path)? {
            There::Dir { .. } => tell(path, facts(visit.here())?),
            There::Nothing { .. } | There::Other => {
                return Err(Errno::ENOENT).step(|| escaped(path));
            }
        }
        last = Some((at, visit));
    }
    Ok(())
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
