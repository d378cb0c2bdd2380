//! An import: what the store lacks goes into a staging directory, is synced
//! once, and is renamed to where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::syncfs;

use super::digest::Digest;
use super::extract::Extracted;
use super::layout::Layout;
use super::limits::Limits;
use super::manifest::Layer;
use super::parents;
use super::pipeline::{self, Job};
use super::progress::Progress;
use super::record::{LayerFacts, LayerRecord, Record, check_name};
use super::select::{Choice, Selector, choose};
use super::store::Store;
use super::tree;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::lock::{FileLock, Sharing};

/// What to import, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name in the store; by default the image's tag or the file's name.
    pub name: Option<String>,
    /// Which images of the layout.
    pub selector: Selector,
    /// Bounds.
    pub limits: Limits,
}

/// A layer that the store lacks.
struct Missing<'a> {
    diff_id: &'a Digest,
    layer: &'a Layer,
}

/// Imports what is at `path`; the records are in the layout's order.
pub(crate) fn import(store: &Store, path: &Path, options: &Options) -> Result<Vec<Record>> {
    let step = || format!("import {}", path.display());
    import_steps(store, path, options).map_err(|e| e.step(step()))
}

fn import_steps(store: &Store, path: &Path, options: &Options) -> Result<Vec<Record>> {
    let layout = Layout::open(path, &options.limits)?;
    let choices = choose(&layout, &options.selector, &options.limits)?;
    let names = names(&layout, &choices, options)?;
    let _lock = store.prepare()?;
    clean_staging(store)?;
    let missing = missing(store, &choices)?;
    if !missing.is_empty() {
        let staging = Staging::new(store)?;
        let done = unpack_all(&layout, &missing, &staging, &options.limits);
        let done = done.and_then(|done| {
            parents::adopt(store, &staging, &choices, &done)?;
            commit(store, &staging, &done)
        });
        let cleaned = staging.remove();
        // the first error is the one to tell
        done.and(cleaned)?;
    }
    choices.iter().zip(names).map(|(choice, name)| record(store, choice, name)).collect()
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

/// Layers to unpack, each once, the largest first: it decides when all is done.
fn missing<'a>(store: &Store, choices: &'a [Choice]) -> Result<Vec<Missing<'a>>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for choice in choices {
        for (diff_id, layer) in choice.diff_ids.iter().zip(&choice.manifest.layers) {
            if seen.insert(diff_id) && store.layer_facts(diff_id)?.is_none() {
                all.push(Missing { diff_id, layer });
            }
        }
    }
    all.sort_by_key(|missing| std::cmp::Reverse(missing.layer.size));
    Ok(all)
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
    let progress = Progress::new();
    let work = || {
        while let Some(missing) = next() {
            let bar = progress.layer(missing.layer);
            let one = unpack_one(layout, missing, staging, limits, &|n| bar.set(n));
            bar.finish();
            let Ok(mut all) = done.lock() else { return };
            match (one, all.as_mut()) {
                (Ok(facts), Ok(all)) => {
                    all.insert(missing.diff_id.clone(), facts);
                }
                (Err(e), Ok(_)) => {
                    *all = Err(e.step(format!("layer {}", missing.layer.digest)));
                    return;
                }
                // another layer has failed: the first error is the one to tell
                (_, Err(_)) => return,
            }
        }
    };
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 1..workers.min(missing.len()) {
            // those that are there do the work of one that can't be had
            drop(thread::Builder::new().spawn_scoped(scope, work));
        }
        work();
    });
    done.into_inner()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::System, "a thread of the import panicked")))
}

fn unpack_one(
    layout: &Layout,
    missing: &Missing<'_>,
    staging: &Staging,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Extracted> {
    let dir = staging.layer(missing.diff_id);
    DirBuilder::new().mode(0o700).create(&dir)?;
    let diff = dir.join("diff");
    make_open_dir(&diff)?;
    let job = Job {
        blob: layout.blob(&missing.layer.digest, missing.layer.size)?,
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
    let record = LayerFacts { bytes: facts.bytes, files: facts.files };
    let bytes = serde_json::to_vec(&record).map_err(|e| Error::invalid(e.to_string()))?;
    let file = File::create_new(dir.join("layer.json"))?;
    io::Write::write_all(&mut &file, &bytes)?;
    Ok(facts)
}

/// Makes a directory that containers see as `/`: 0755 whatever the caller's
/// mask is.
pub(crate) fn make_open_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes the layers count: on disk first, then under their names.
fn commit(store: &Store, staging: &Staging, done: &Done) -> Result<()> {
    let dir = open_dir(&staging.path)?;
    // one sync of the file system costs less than one of each file
    syncfs(&dir).step(|| "sync the layers")?;
    for diff_id in done.keys() {
        let target = store.layer_path(diff_id);
        let from = staging.layer(diff_id);
        match renameat2(AT_FDCWD, &from, AT_FDCWD, &target, RenameFlags::RENAME_NOREPLACE) {
            // another import was first: both are the same, and ours goes
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).step(|| format!("rename layer {diff_id}")),
        }
    }
    Ok(())
}

fn record(store: &Store, choice: &Choice, name: String) -> Result<Record> {
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
    if let Ok(there) = store.find_exactly(&name)
        && there.digest == choice.digest
        && there.config_digest == choice.config_digest
        && there.layers == layers
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
        created: choice.config.created().clone(),
        imported: now.map_or(0, |t| t.as_secs()),
        layers,
    };
    store.write_record(&record)?;
    Ok(record)
}

/// A directory of one import, locked as long as its process lives.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    _lock: FileLock,
}

static STAGINGS: AtomicU64 = AtomicU64::new(0);

impl Staging {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let parent = store.path().join("staging");
        // between its making and its locking a directory looks stale
        let _gate = gate(&parent)?;
        let count = STAGINGS.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = nanos.map_or(0, |t| t.subsec_nanos());
        let path = parent.join(format!("{}-{count}-{nanos:08x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).step(|| format!("make {}", path.display()))?;
        let lock = File::open(&path).step(|| "open the staging directory").and_then(|dir| {
            FileLock::wait(dir, Sharing::Exclusive).step(|| "lock the staging directory")
        });
        match lock {
            Ok(lock) => Ok(Staging { path, _lock: lock }),
            Err(e) => Err(match fs::remove_dir(&path) {
                Ok(()) => e,
                Err(left) => e.hint(format!("and its undoing failed: {left}")),
            }),
        }
    }

    /// Where a layer is being made.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        let algorithm = diff_id.algorithm().name();
        self.path.join(format!("{algorithm}-{}", diff_id.hex()))
    }

    /// Moves a directory in here, to be removed.
    pub(crate) fn take(&self, path: &Path, name: &str) -> Result<()> {
        fs::rename(path, self.path.join(name)).step(|| format!("remove {}", path.display()))
    }

    /// Removes all that is left in it, and itself.
    pub(crate) fn remove(self) -> Result<()> {
        remove_dir(&self.path).step(|| "clean up")
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    tree::remove(open_dir(parent)?.as_fd(), Path::new(name))
}

/// Held while a staging directory is made or judged.
fn gate(parent: &Path) -> Result<FileLock> {
    let dir = File::open(parent).step(|| format!("open {}", parent.display()))?;
    FileLock::wait(dir, Sharing::Exclusive).step(|| "lock the staging directories")
}

/// Removes what imports that died have left.
fn clean_staging(store: &Store) -> Result<()> {
    let parent = store.path().join("staging");
    let mut stale = Vec::new();
    {
        let _gate = gate(&parent)?;
        for (name, _) in tree::names(open_dir(&parent)?.as_fd())? {
            let path = parent.join(tree::name_path(&name));
            let dir = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if let Some(lock) = FileLock::try_now(dir, Sharing::Exclusive)? {
                stale.push((path, lock));
            }
        }
    }
    for (path, _lock) in &stale {
        remove_dir(path).step(|| "clean up after an import that died")?;
    }
    Ok(())
}
