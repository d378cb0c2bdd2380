//! An import: what the store lacks goes into a staging directory, is synced
//! once, and is renamed to where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::unistd::syncfs;

use super::blob::BlobReader;
use super::digest::Digest;
use super::extract::Extracted;
use super::layout::Layout;
use super::limits::Limits;
use super::listing::Name;
use super::manifest::Layer;
use super::parents;
use super::pipeline::{self, Job};
use super::progress::Progress;
use super::record::{LayerFacts, LayerRecord, Record, check_name, layer_facts, write_layer_facts};
use super::select::{Choice, Selector, choose};
use super::staging::{self, Staging};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::{open_dir, remove_xattr, rename_with};

/// What to import, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name in the store; by default the image's tag or the file's name.
    pub name: Option<String>,
    /// Which images of the layout.
    pub selector: Selector,
    /// Bounds.
    pub limits: Limits,
    /// Keep the layers' blobs beside their files: `export` needs them.
    pub keep_blobs: bool,
}

/// A layer of which the store lacks something.
struct Missing<'a> {
    diff_id: &'a Digest,
    layer: &'a Layer,
    /// Its files.
    unpack: bool,
    /// Its blob, if blobs are kept.
    keep: bool,
}

/// Imports what is at `path`; the records are in the layout's order.
pub(crate) fn import(store: &Store, path: &Path, options: &Options) -> Result<Vec<Record>> {
    let step = || format!("import {}", path.display());
    import_steps(store, path, options).map_err(|e| e.step(step()))
}

fn import_steps(store: &Store, path: &Path, options: &Options) -> Result<Vec<Record>> {
    let spool = || store.prepare().and_then(|lock| staging::nameless(store, lock));
    let layout = Layout::open(path, &options.limits, &spool)?;
    let choices = choose(&layout, &options.selector, &options.limits)?;
    let names = names(&layout, &choices, options)?;
    let _lock = store.prepare()?;
    staging::clean(store)?;
    let missing = missing(store, &choices, options.keep_blobs)?;
    let mut staging = None;
    if !missing.is_empty() {
        staging = Some(Staging::new(store)?);
    }
    let done = bring(store, &layout, &choices, &missing, &mut staging, &options.limits);
    let cleaned = staging.map_or(Ok(()), Staging::remove);
    // the first error is the one to tell
    let parents = done.and_then(|parents| cleaned.map(|()| parents))?;
    let all = choices.iter().zip(names).zip(parents);
    all.map(|((choice, name), parents)| record(store, choice, name, parents)).collect()
}

/// Brings what is missing into the store; the answer is the layer that each image has on
/// top of its own, if it takes one.
fn bring(
    store: &Store,
    layout: &Layout,
    choices: &[Choice],
    missing: &[Missing<'_>],
    staging: &mut Option<Staging>,
    limits: &Limits,
) -> Result<Vec<Option<Digest>>> {
    // opened before anything is written: it is told of all that can't be (fsync(2))
    let synced = staging.as_ref().map(|staging| open_dir(staging.path())).transpose()?;
    let done = match staging {
        Some(staging) => unpack_all(layout, missing, staging, limits)?,
        None => Done::new(),
    };
    let mut parents = Vec::new();
    for choice in choices {
        let views = views(store, choice, staging.as_ref(), &done)?;
        parents.push(parents::above(store, staging, &views)?);
    }
    if let Some(staging) = staging {
        let layers = done.keys().chain(parents.iter().flatten());
        let synced = synced.map_or_else(|| open_dir(staging.path()), Ok)?;
        commit(store, staging, synced, (layers.collect(), missing))?;
    }
    Ok(parents)
}

/// The layers of an image, each once, where they are now.
fn views(
    store: &Store,
    choice: &Choice,
    staging: Option<&Staging>,
    done: &Done,
) -> Result<Vec<parents::View>> {
    let mut views: Vec<(&Digest, parents::View)> = Vec::new();
    let mut open = LeftOpen::default();
    for diff_id in &choice.diff_ids {
        let (path, implied, links) = match (done.get(diff_id), staging) {
            (Some(facts), Some(staging)) => {
                let links = facts.links.clone().into_iter().collect();
                (staging.layer(diff_id), facts.implied.clone(), links)
            }
            _ => {
                let (implied, links) =
                    store.layer_facts(diff_id)?.map_or_else(Default::default, LayerFacts::gaps);
                (store.layer_path(diff_id), implied, links)
            }
        };
        open.add(implied.iter(), links.iter().map(|(path, to)| (path, to)))?;
        // an overlay has it where it is uppermost
        views.retain(|(other, _)| *other != diff_id);
        let dir = path.join("diff");
        views.push((diff_id, parents::View { diff_id: diff_id.clone(), dir, implied, links }));
    }
    Ok(views.into_iter().map(|(_, view)| view).collect())
}

fn names(layout: &Layout, choices: &[Choice], options: &Options) -> Result<Vec<String>> {
    if let (Some(_), [_, _, ..]) = (&options.name, choices) {
        let tags: Vec<_> = choices.iter().filter_map(|c| c.tag.as_deref()).collect();
        return Err(Error::invalid(format!(
            "--name for one image, but there are {}: {} (choose one with --ref)",
            choices.len(),
            tags.join(", ")
        )));
    }
    let name = |choice: &Choice| -> Result<String> {
        let name = options.name.clone().or_else(|| choice.tag.clone());
        let name = name.or_else(|| layout.stem().map(str::to_owned));
        let name = name.ok_or_else(|| Error::invalid("the image has no tag (use --name)"))?;
        check_name(&name)?;
        Ok(name)
    };
    choices.iter().map(name).collect()
}

/// Layers to unpack and blobs to keep, each once, the largest first: it decides
/// when all is done.
fn missing<'a>(store: &Store, choices: &'a [Choice], keep: bool) -> Result<Vec<Missing<'a>>> {
    let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
    let mut all = Vec::new();
    for choice in choices {
        for (diff_id, layer) in choice.diff_ids.iter().zip(&choice.manifest.layers) {
            let unpack = layers.insert(diff_id) && is_missing(store, diff_id)?;
            let keep = keep && blobs.insert(&layer.digest) && !store.has_blob(&layer.digest)?;
            if unpack || keep {
                all.push(Missing { diff_id, layer, unpack, keep });
            }
        }
    }
    all.sort_by_key(|missing| std::cmp::Reverse(missing.layer.size));
    Ok(all)
}

/// What an earlier version has left unrecorded is had by unpacking it once more.
pub(crate) fn is_missing(store: &Store, diff_id: &Digest) -> Result<bool> {
    Ok(store.layer_facts(diff_id)?.is_none_or(|facts| facts.listing.is_none()))
}

/// What several layers leave to those below them: it is in memory at the same time.
#[derive(Default)]
struct LeftOpen(usize);

impl LeftOpen {
    /// Bytes of the names.
    const MOST: usize = 32 << 20;

    fn add<'a>(
        &mut self,
        implied: impl Iterator<Item = &'a Vec<u8>>,
        links: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<()> {
        let name = |name: &Vec<u8>| name.len() + size_of::<Vec<u8>>();
        self.0 += implied.map(name).sum::<usize>();
        self.0 += links.map(|(path, to)| name(path) + name(to)).sum::<usize>();
        match self.0 > Self::MOST {
            false => Ok(()),
            true => Err(Error::invalid(
                "the layers together list too few of the directories that their entries lie in",
            )),
        }
    }
}

/// What became of each layer, by diff ID.
pub(crate) type Done = BTreeMap<Digest, Extracted>;

/// Unpacks layers side by side, as many as there are processors.
fn unpack_all(
    layout: &Layout,
    missing: &[Missing<'_>],
    staging: &Staging,
    limits: &Limits,
) -> Result<Done> {
    let queue = Mutex::new(missing.iter());
    let next = || queue.lock().ok()?.next();
    let done = Mutex::new(Ok(Done::new()));
    let open = Mutex::new(LeftOpen::default());
    let progress = Progress::new();
    let work = || {
        while let Some(missing) = next() {
            let bar = progress.layer(missing.layer);
            let one = unpack_one(layout, missing, staging, limits, &|n| bar.set(n));
            let one = one.and_then(|facts| {
                if let (Some(facts), Ok(mut open)) = (&facts, open.lock()) {
                    open.add(facts.implied.iter(), facts.links.iter())?;
                }
                Ok(facts)
            });
            bar.finish();
            let Ok(mut all) = done.lock() else { return };
            match (one, all.as_mut()) {
                (Ok(Some(facts)), Ok(all)) => {
                    all.insert(missing.diff_id.clone(), facts);
                }
                (Ok(None), Ok(_)) => {}
                (Err(e), Ok(_)) => {
                    *all = Err(e.step(format!("layer {}", missing.layer.digest)));
                    return;
                }
                // another layer has failed: the first error is the one to tell
                (_, Err(_)) => return,
            }
        }
    };
    let workers = thread::available_parallelism().map_or(2, usize::from).min(SIDE_BY_SIDE);
    thread::scope(|scope| {
        for _ in 1..workers.min(missing.len()) {
            // those that are there do the work of one that can't be had
            drop(thread::Builder::new().spawn_scoped(scope, || {
                work();
                // while others are at work: less is left for the sync that counts
                if let Ok(dir) = open_dir(staging.path()) {
                    syncfs(&dir).unwrap_or_default();
                }
            }));
        }
        work();
    });
    done.into_inner()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::System, "a thread of the import panicked")))
}

/// Layers at a time, each of which has three threads and some megabytes of buffers.
const SIDE_BY_SIDE: usize = 8;

fn unpack_one(
    layout: &Layout,
    missing: &Missing<'_>,
    staging: &Staging,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<Extracted>> {
    let blob = layout.layer(missing.layer)?;
    let keep = missing.keep.then(|| File::create_new(staging.blob(&blob.digest)));
    let keep = keep.transpose().step(|| "keep the blob")?;
    if !missing.unpack {
        let mut reader = BlobReader::new(&blob);
        reader.copy_to(keep.as_ref());
        reader.verify(progress)?;
        return Ok(None);
    }
    let dir = staging.layer(missing.diff_id);
    DirBuilder::new().mode(0o700).create(&dir)?;
    let diff = dir.join("diff");
    make_open_dir(&diff)?;
    let listing = File::options().read(true).write(true).create_new(true).clone();
    let listing = listing.open(dir.join("listing")).step(|| "make the listing")?;
    let job = Job {
        blob,
        keep: keep.as_ref(),
        listing: &listing,
        compression: missing.layer.compression,
        diff_id: missing.diff_id,
        limits,
        progress,
    };
    let facts = pipeline::unpack(&job, open_dir(&diff)?.as_fd())?;
    if facts.left_out > 0 {
        crate::logging::warn(&format!(
            "layer {}: {} device nodes left out: only root can make them",
            missing.diff_id.short(),
            facts.left_out
        ));
    }
    let record = LayerFacts {
        bytes: facts.bytes,
        files: facts.files,
        listing: facts.listing.clone(),
        implied: facts.implied.iter().map(|path| owned(path)).collect(),
        links: facts.links.iter().map(|(path, to)| (owned(path), owned(to))).collect(),
    };
    write_layer_facts(&dir, &record)?;
    Ok(Some(facts))
}

fn owned(name: &[u8]) -> Name<'static> {
    Name(name.to_vec().into())
}

/// Makes a directory that containers see as `/`: 0755 whatever the caller's
/// mask is, and without access lists that it would have from the directory it is in.
pub(crate) fn make_open_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    let dir = open_dir(path)?;
    for list in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match remove_xattr(dir.as_fd(), list) {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes the layers count: on disk first, then under their names.
fn commit(
    store: &Store,
    staging: &Staging,
    synced: OwnedFd,
    (done, missing): (BTreeSet<&Digest>, &[Missing<'_>]),
) -> Result<()> {
    // one sync of the file system costs less than one of each file
    syncfs(&synced).step(|| "sync the layers")?;
    let layers = done.into_iter().map(|id| (true, id, staging.layer(id), store.layer_path(id)));
    let kept = missing.iter().filter(|missing| missing.keep).map(|missing| &missing.layer.digest);
    let blobs = kept.map(|digest| (false, digest, staging.blob(digest), store.blob_path(digest)));
    for (is_layer, digest, from, target) in layers.chain(blobs) {
        match rename_with(&from, &target, libc::RENAME_NOREPLACE) {
            Ok(()) => {}
            // another import was first, or an earlier version: both are the same, and ours
            // goes
            Err(Errno::EEXIST) if is_layer => {
                complete_record(&from, &target).step(|| format!("record layer {digest}"))?;
            }
            Err(Errno::EEXIST) => {}
            // one of directories alone, which is there already
            Err(Errno::ENOENT) if target.symlink_metadata().is_ok() => {}
            Err(e) => return Err(e).step(|| format!("rename {digest}")),
        }
    }
    Ok(())
}

/// Gives a layer of a version that kept no listing the one that has been made of it now.
/// Its files stay: containers may be using them.
fn complete_record(from: &Path, target: &Path) -> Result<()> {
    if layer_facts(target)?.is_none_or(|facts| facts.listing.is_some()) {
        return Ok(());
    }
    crate::logging::warn(&format!(
        "layer {}: an earlier version has made it, and may have given directories that it does \
         not list the owners and modes of one image: image rm of all that have it, and another \
         import, make it anew",
        target.file_name().unwrap_or_default().to_string_lossy()
    ));
    // the facts name the listing: a kill between the two leaves the layer as it was
    for file in ["listing", "layer.json"] {
        fs::rename(from.join(file), target.join(file))?;
    }
    Ok(())
}

fn record(store: &Store, choice: &Choice, name: String, parents: Option<Digest>) -> Result<Record> {
    let mut layers = Vec::new();
    for (diff_id, layer) in choice.diff_ids.iter().zip(&choice.manifest.layers) {
        let facts = store.layer_facts(diff_id)?;
        let facts = facts.ok_or_else(|| {
            Error::new(ErrorKind::State, format!("layer {diff_id} is gone from the store"))
        })?;
        layers.push(LayerRecord {
            diff_id: diff_id.clone(),
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            size: layer.size,
            unpacked_size: facts.bytes,
            entries: facts.files,
        });
    }
    if let Ok(Some(there)) = store.named(&name)
        && there.digest == choice.digest
        && there.config_digest == choice.config_digest
        && there.layers == layers
        && there.parents == parents
    {
        // nothing is new: a run of an image by its path costs no sync
        return Ok(there);
    }
    store.write_blob(&choice.digest, &choice.manifest_bytes)?;
    store.write_blob(&choice.config_digest, &choice.config_bytes)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let record = Record {
        name,
        digest: choice.digest.clone(),
        config_digest: choice.config_digest.clone(),
        platform: choice.platform.to_string(),
        created: choice.created.clone(),
        imported: now.map_or(0, |t| t.as_secs()),
        layers,
        parents,
    };
    store.write_record(&record)?;
    Ok(record)
}
