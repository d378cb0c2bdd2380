//! What the store holds, against what was recorded of it.
//!
//! A blob has its digest for a name. A layer's files are held against its listing, and
//! that against the digest in the layer's record.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde::Serialize;

use super::blob::Blob;
use super::digest::{Algorithm, Digest, Hasher};
use super::expected::Expected;
use super::listing::lines;
use super::remove::digest_entries;
use super::store::{Record, Store};
use super::tree_check::{Found, check};
use crate::error::{Error, Result, Step};
use crate::sys::lock::Sharing;

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// `image`, `blob` or `layer`.
    pub kind: &'static str,
    /// An image's name; the digest of a blob; a layer's diff ID.
    pub name: String,
    /// A file of a layer: its path, with %XX for what is not printable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Blobs that were read.
    pub blobs: u64,
    /// Layers that were read.
    pub layers: u64,
    /// Files in these.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// In the order of kinds, names and paths.
    pub problems: Vec<Problem>,
}

impl Verified {
    fn add(&mut self, other: Verified) {
        self.blobs += other.blobs;
        self.layers += other.layers;
        self.files += other.files;
        self.bytes += other.bytes;
        self.problems.extend(other.problems);
    }
}

/// A part of the work.
enum Task {
    Blob(Digest),
    Layer(Digest),
}

impl Store {
    /// Reads all that these images have in the store, or all that the store holds, and
    /// holds it against what was recorded. Nothing is removed meanwhile.
    ///
    /// # Errors
    /// NotFound for a name; System for what can't be read at all. What is found wrong is
    /// in the answer.
    pub fn verify(&self, names: &[String]) -> Result<Verified> {
        if !self.is_used()? {
            // never used
            names.iter().try_for_each(|name| self.find(name).map(drop))?;
            return Ok(Verified::default());
        }
        let _lock = self.lock(Sharing::Shared)?;
        let images = match names {
            [] => self.list()?,
            names => names.iter().map(|name| self.find(name)).collect::<Result<_>>()?,
        };
        let mut verified = Verified::default();
        for image in &images {
            let missing = self.missing(image)?.into_iter();
            verified.problems.extend(missing.map(|what| Problem {
                kind: "image",
                name: image.name.clone(),
                path: None,
                what,
            }));
        }
        verified.add(self.work(self.tasks(names, &images)?)?);
        verified.problems.sort();
        Ok(verified)
    }

    /// What an image can't be used without and is not there.
    fn missing(&self, image: &Record) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (what, digest) in [("manifest", &image.digest), ("config", &image.config_digest)] {
            if !self.has_blob(digest)? {
                all.push(format!("its {what} {digest} is missing"));
            }
        }
        let layers: BTreeSet<_> = image.diff_ids().collect();
        for diff_id in layers {
            if !is_there(&self.layer_path(diff_id))? {
                all.push(format!("its layer {diff_id} is missing"));
            }
        }
        Ok(all)
    }

    fn tasks(&self, names: &[String], images: &[Record]) -> Result<VecDeque<Task>> {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for image in images {
            layers.extend(image.diff_ids().cloned());
            blobs.extend([image.digest.clone(), image.config_digest.clone()]);
            blobs.extend(image.layers.iter().map(|layer| layer.digest.clone()));
        }
        if names.is_empty() {
            let entries = |dir| digest_entries(&self.path().join(dir));
            layers.extend(entries("layers")?.into_iter().map(|(digest, _)| digest));
            blobs.extend(entries("blobs")?.into_iter().map(|(digest, _)| digest));
        }
        // layers take longer
        Ok(layers.into_iter().map(Task::Layer).chain(blobs.into_iter().map(Task::Blob)).collect())
    }

    /// Does the work side by side, as far as there are processors.
    fn work(&self, tasks: VecDeque<Task>) -> Result<Verified> {
        let workers = thread::available_parallelism().map_or(2, usize::from).min(tasks.len());
        let queue = Mutex::new(tasks);
        let done = Mutex::new(Ok(Verified::default()));
        let work = || {
            while let Some(task) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                let one = self.task(&task);
                let Ok(mut all) = done.lock() else { return };
                match (one, all.as_mut()) {
                    (Ok(one), Ok(all)) => all.add(one),
                    (Err(e), Ok(_)) => *all = Err(e),
                    (_, Err(_)) => return,
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..workers {
                // those that are there do the work of one that can't be had
                drop(thread::Builder::new().spawn_scoped(scope, work));
            }
            work();
        });
        done.into_inner()
            .unwrap_or_else(|_| Err(Error::new(crate::ErrorKind::System, "a thread panicked")))
    }

    fn task(&self, task: &Task) -> Result<Verified> {
        match task {
            Task::Blob(digest) => self.blob(digest).step(|| format!("blob {digest}")),
            Task::Layer(diff_id) => self.layer(diff_id).step(|| format!("layer {diff_id}")),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Verified> {
        let file = match File::open(self.blob_path(digest)) {
            // only kept on request
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Verified::default()),
            other => other?,
        };
        let size = file.metadata()?.size();
        let blob = Blob { file, offset: 0, size, digest: digest.clone() };
        let mut verified = Verified { blobs: 1, bytes: size, ..Verified::default() };
        let what = match blob.hash() {
            Ok(found) if found == *digest => return Ok(verified),
            Ok(found) => format!("its content has changed: the digest is {found}"),
            Err(e) => format!("it can't be read: {e}"),
        };
        let name = digest.to_string();
        verified.problems.push(Problem { kind: "blob", name, path: None, what });
        Ok(verified)
    }

    fn layer(&self, diff_id: &Digest) -> Result<Verified> {
        let path = self.layer_path(diff_id);
        if !is_there(&path)? {
            // the image's problem, if it is one's
            return Ok(Verified::default());
        }
        let mut verified = Verified { layers: 1, ..Verified::default() };
        let mut problem = |path, what| {
            let name = diff_id.to_string();
            verified.problems.push(Problem { kind: "layer", name, path, what });
        };
        let expected = match self.expected(diff_id) {
            Ok(Some(expected)) => expected,
            Ok(None) => {
                problem(None, UNRECORDED.to_owned());
                return Ok(verified);
            }
            Err(e) => {
                problem(None, format!("its record is damaged: {e}"));
                return Ok(verified);
            }
        };
        let found = check(&path.join("diff"), &expected, &mut |path, what| {
            problem(Some(path), what);
        });
        match found {
            Ok(Found { files, bytes }) => (verified.files, verified.bytes) = (files, bytes),
            Err(e) => problem(None, format!("it can't be read: {e}")),
        }
        Ok(verified)
    }

    /// What a layer's files are to be; `None` where an earlier version has recorded
    /// nothing.
    fn expected(&self, diff_id: &Digest) -> Result<Option<Expected>> {
        let missing = || Error::invalid("layer.json is missing");
        let facts = self.layer_facts(diff_id)?.ok_or_else(missing)?;
        let Some(digest) = facts.listing else { return Ok(None) };
        let listing = File::open(self.layer_path(diff_id).join("listing")).step(|| "listing")?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        lines(&listing, |line| {
            hasher.update(line);
            Ok(())
        })?;
        let found = hasher.finish();
        if found != digest {
            return Err(Error::invalid(format!("the listing's digest is {found}, not {digest}")));
        }
        Expected::read(&listing).map(Some)
    }
}

const UNRECORDED: &str = "nothing was recorded to verify it by (it was imported by an earlier \
                          version: another image import records it)";

fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => Ok(other.map(|_| true)?),
    }
}
