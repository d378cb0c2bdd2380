//! The way of a pull: name, manifest, config, layers side by side, index.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use tare::error::{Error, ErrorKind, Result, Step};
use tare::image::digest::{Digest, Hasher};
use tare::image::limits::{Limits, size};
use tare::image::reference::{Reference, Version};
use tare::image::remote::{self, Document, Offer, Part};
use tare::image::select::Platform;
use tare::image::store::Store;

use crate::args::Args;
use crate::blob;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::registry::Registry;

/// How deep an index may nest, and how many manifests of one are looked at.
const DEPTH: usize = 4;
const CANDIDATES: usize = 16;

/// An image's documents, verified.
struct Found {
    digest: Digest,
    manifest: Vec<u8>,
    config: (Digest, Vec<u8>),
    layers: Vec<Part>,
    diff_ids: Vec<Digest>,
}

/// Where to look, and for what.
struct Search<'a> {
    registry: &'a Registry,
    wanted: Platform,
    limits: Limits,
}

/// Downloads an image.
///
/// # Errors
/// One line, with the step that failed.
pub(crate) fn pull(args: &Args) -> Result<()> {
    let reference = Reference::parse(&args.name)?;
    let wanted = args.platform.as_deref().map(Platform::parse).transpose()?;
    let wanted = wanted.unwrap_or_else(Platform::host);
    let registry = Registry::new(args, &reference)?;
    let most = args.max_document_size.as_deref().map(size).transpose();
    let default = Limits::default();
    let json = most.step(|| "--max-document-size")?.unwrap_or(default.json);
    let search = Search { registry: &registry, wanted, limits: Limits { json, ..default } };
    let found = search.named(&reference)?;
    let layout = Layout::new(&args.dir)?;
    let missing = missing(&found, &layout, args)?;
    let room = missing.iter().fold(0u64, |sum, part| sum.saturating_add(part.size));
    layout.check_room(room)?;
    download(&registry, &layout, &missing, args)?;
    layout.write(&found.config.0, &found.config.1)?;
    layout.write(&found.digest, &found.manifest)?;
    layout.finish(&reference.to_string(), &found.digest, &found.manifest)
}

impl Search<'_> {
    fn named(&self, reference: &Reference) -> Result<Found> {
        let most = self.limits.json;
        let version = reference.version.to_string();
        let (bytes, told) = self.registry.document(&version, most).map_err(|e| {
            match e.kind() == ErrorKind::NotFound && version == "latest" {
                true => e.hint("it was asked for the tag latest, which a name without a tag means"),
                false => e,
            }
        })?;
        let digest = match (&reference.version, told) {
            (Version::Digest(digest), _) => digest.clone(),
            (Version::Tag(_), Some(digest)) => digest,
            (Version::Tag(_), None) => Digest::of(&bytes),
        };
        verify(&bytes, &digest)?;
        self.image(digest, bytes, DEPTH)
    }

    /// The image that a document is or leads to.
    fn image(&self, digest: Digest, bytes: Vec<u8>, depth: usize) -> Result<Found> {
        let what = format!("manifest {digest}");
        match remote::document(&bytes, &what, &self.wanted, &self.limits)? {
            Document::Manifest(config, layers) => self.whole(digest, bytes, config, layers),
            Document::Index(offers, others) => self.best(&offers, others, depth),
        }
    }

    /// The first of an index' manifests that is for the platform: one without a
    /// platform leaves that to its config, or is no image.
    fn best(&self, offers: &[Offer], others: Vec<String>, depth: usize) -> Result<Found> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::invalid("indexes are nested too deep"));
        };
        let mut last = remote::other_platforms(&self.wanted, others);
        for Offer { part, names_platform } in offers.iter().take(CANDIDATES) {
            let most = self.limits.json.min(part.size);
            let (bytes, _) = self.registry.document(&part.digest.to_string(), most)?;
            check_size(&bytes, part)?;
            verify(&bytes, &part.digest)?;
            match self.image(part.digest.clone(), bytes, depth) {
                Err(e) if e.kind() == ErrorKind::NotFound => last = e,
                // a signature or the like, beside images for all platforms
                Err(e) if e.kind() == ErrorKind::Unsupported && !names_platform => last = e,
                other => return other,
            }
        }
        Err(last)
    }

    fn whole(
        &self,
        digest: Digest,
        manifest: Vec<u8>,
        config: Part,
        layers: Vec<Part>,
    ) -> Result<Found> {
        let step = |e: Error| e.step(format!("config {}", config.digest));
        let most = self.limits.json;
        if config.size > most {
            return Err(step(Error::invalid(format!("longer than the {most} bytes allowed"))));
        }
        let bytes = self.registry.small_blob(&config.digest, config.size).map_err(step)?;
        check_size(&bytes, &config).map_err(step)?;
        verify(&bytes, &config.digest).map_err(step)?;
        let diff_ids = remote::diff_ids(&bytes, layers.len(), &self.wanted)?;
        Ok(Found { digest, manifest, config: (config.digest, bytes), layers, diff_ids })
    }
}

fn check_size(bytes: &[u8], part: &Part) -> Result<()> {
    let (found, told) = (bytes.len() as u64, part.size);
    if found == told {
        return Ok(());
    }
    Err(Error::invalid(format!("wrong size: {found} bytes, its descriptor says {told}")))
}

fn verify(bytes: &[u8], digest: &Digest) -> Result<()> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    match found == *digest {
        true => Ok(()),
        false => Err(Error::invalid(format!("wrong digest: what came has {found}, not {digest}"))),
    }
}

/// Layers that are neither in the layout nor in the store, each once, the largest
/// first: it decides when all is done.
fn missing(found: &Found, layout: &Layout, args: &Args) -> Result<Vec<Part>> {
    let store = args.store.as_deref().map(|path| Store::open(Some(path))).transpose()?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (diff_id, part) in found.diff_ids.iter().zip(&found.layers) {
        if !seen.insert(&part.digest) || layout.blob(&part.digest).symlink_metadata().is_ok() {
            continue;
        }
        let is_stored = |store: &Store| store.has_layer(diff_id, &part.digest, args.keep_blobs);
        if !store.as_ref().map(is_stored).transpose()?.unwrap_or(false) {
            all.push(part.clone());
        }
    }
    all.sort_by_key(|part| std::cmp::Reverse(part.size));
    Ok(all)
}

/// Downloads layers side by side. The first error ends the others after the layer
/// that they are at.
fn download(registry: &Registry, layout: &Layout, parts: &[Part], args: &Args) -> Result<()> {
    let queue = Mutex::new(parts.iter());
    let failed = Mutex::new(None);
    let progress = Progress::new(args.quiet);
    let next = || match failed.lock().ok()?.is_some() {
        true => None,
        false => queue.lock().ok()?.next(),
    };
    let work = || {
        while let Some(part) = next() {
            let bar = progress.layer(part);
            match blob::fetch(registry, layout, part, &bar) {
                Ok(()) => bar.finish(),
                Err(e) => {
                    if let Ok(mut failed) = failed.lock() {
                        failed.get_or_insert(e.step(format!("layer {}", part.digest)));
                    }
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..usize::from(args.jobs).min(parts.len()) {
            // those that are there do the work of one that can't be had
            drop(thread::Builder::new().spawn_scoped(scope, work));
        }
        work();
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(e)) => Err(e),
        Err(_) => Err(Error::new(ErrorKind::System, "a thread of the download panicked")),
    }
}
