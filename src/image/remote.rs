//! What a program that fetches images from elsewhere needs to know of their
//! documents: which others they name. An import verifies them once more.

use oci_spec::image::Descriptor;

use super::digest::Digest;
use super::limits::Limits;
use super::manifest;
use super::select::{self, Platform};
use crate::error::{Error, ErrorKind, Result};

/// Something that a document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A manifest or an index that an index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where it is.
    pub part: Part,
    /// Whether the index says for which platform it is: an artifact has none.
    pub names_platform: bool,
}

/// What is at the end of an image's name.
#[derive(Debug)]
pub enum Document {
    /// Manifests for this platform, the one that suits best first; and what else
    /// the index has, in words.
    Index(Vec<Offer>, Vec<String>),
    /// An image: its config, its layers from the bottom up.
    Manifest(Part, Vec<Part>),
}

/// Parses a manifest or an index.
///
/// # Errors
/// What is neither, or could be taken for both; no container image.
pub fn document(bytes: &[u8], what: &str, wanted: &Platform, limits: &Limits) -> Result<Document> {
    if manifest::has_manifests(bytes, what)? {
        let index = manifest::index(bytes, what)?;
        let useful = |d: &&Descriptor| {
            let media_type = d.media_type().as_ref();
            let is_known = manifest::is_manifest(media_type) || manifest::is_index(media_type);
            is_known && d.artifact_type().is_none()
        };
        let offers = index.manifests().iter().filter(useful).cloned().collect();
        let (ranked, others) = select::rank(offers, wanted);
        let offer =
            |d: &Descriptor| Ok(Offer { part: part(d)?, names_platform: d.platform().is_some() });
        let offers = ranked.iter().map(offer).collect::<Result<_>>();
        return Ok(Document::Index(offers.map_err(|e| e.step(what))?, others));
    }
    let manifest = manifest::manifest(bytes, what, limits)?;
    let layers = manifest.layers.into_iter();
    let layers = layers.map(|layer| Part { digest: layer.digest, size: layer.size }).collect();
    Ok(Document::Manifest(part(&manifest.config).map_err(|e| e.step(what))?, layers))
}

fn part(descriptor: &Descriptor) -> Result<Part> {
    let digest = Digest::parse(descriptor.digest().as_ref())?;
    Ok(Part { digest, size: descriptor.size() })
}

/// The diff IDs of an image with this many layers, by its config.
///
/// # Errors
/// A config that is broken, or that is for another platform.
pub fn diff_ids(config: &[u8], layers: usize, wanted: &Platform) -> Result<Vec<Digest>> {
    let (config, ids) = manifest::config(config, layers)?;
    let platform = Platform::of_config(&config);
    match wanted.suits(&platform) {
        Some(_) => Ok(ids),
        None => Err(other_platforms(wanted, vec![platform.to_string()])),
    }
}

/// The error that an image is there for other platforms only.
pub fn other_platforms(wanted: &Platform, mut others: Vec<String>) -> Error {
    others.sort();
    others.dedup();
    let list = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    let text = format!("no image for {wanted}, only for {list} (choose one with --platform)");
    Error::new(ErrorKind::NotFound, text)
}
