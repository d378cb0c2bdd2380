//! Images as `docker save`, `podman save` and `skopeo` write them into a
//! docker-archive: a manifest.json with the names of configs and layers (Docker
//! image specification 1.1 and 1.2).
//!
//! There is no manifest in the OCI's sense. One is made here, of the digests that
//! the files have, so that the store knows one kind of image only.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::digest::Digest;
use super::layout::Layout;
use super::limits::Limits;
use super::manifest::{self, CONFIG, Layer, MANIFEST};
use super::reference::{is_of_digest, same};
use super::select::{Choice, Chosen, Configs, Platform, Selector, no_tag};
use crate::error::{Error, Result, Step};

/// An image in manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Chooses images, each tag one.
pub(crate) fn choose(layout: &Layout, selector: &Selector, limits: &Limits) -> Result<Vec<Choice>> {
    let bytes = layout.document("manifest.json", limits)?;
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return Err(Error::unsupported("manifest.json is a manifest alone: skopeo's dir: form")
            .hint("skopeo copy dir:DIR oci-archive:FILE converts it"));
    }
    let saved: Vec<Saved> = manifest::json(&bytes, "manifest.json")?;
    let wanted = selector.platform.clone().unwrap_or_else(Platform::host);
    let mut choices = Vec::new();
    let mut configs = Configs::default();
    for (n, one) in saved.iter().enumerate() {
        let step = || format!("manifest.json: [{n}]");
        let image = load(layout, one, limits, &mut configs).step(step)?;
        let by_digest = |want: &String| is_of_digest(want, &image.config_digest);
        let is_whole = selector.reference.as_ref().is_none_or(by_digest);
        let mut tags: Vec<_> = one.repo_tags.iter().flatten().cloned().map(Some).collect();
        if let Some(want) = selector.reference.as_ref().filter(|_| !is_whole) {
            tags.retain(|tag| tag.as_ref().is_some_and(|tag| is_tag(want, tag)));
        } else if tags.is_empty() {
            tags.push(None);
        }
        if !tags.is_empty() && wanted.suits(&image.platform).is_none() {
            return Err(Error::invalid(format!(
                "no image for {wanted}, only for {} (choose one with --platform)",
                image.platform
            )));
        }
        if choices.len() + tags.len() > limits.images {
            return Err(limits.too_many_images());
        }
        let image = Arc::new(image);
        choices.extend(tags.into_iter().map(|tag| Choice { tag, image: Arc::clone(&image) }));
    }
    match (choices.is_empty(), &selector.reference) {
        (false, _) => Ok(choices),
        (true, None) => Err(Error::invalid("the archive holds no image")),
        (true, Some(want)) => {
            let all = saved.into_iter().filter_map(|one| one.repo_tags).flatten();
            Err(no_tag(want, "archive", all))
        }
    }
}

/// The name, or what is behind its colon.
fn is_tag(want: &str, name: &str) -> bool {
    same(want, name) || name.rsplit_once(':').is_some_and(|(_, tag)| tag == want)
}

fn load(layout: &Layout, saved: &Saved, limits: &Limits, configs: &mut Configs) -> Result<Chosen> {
    let bytes = layout.document(&saved.config, limits)?;
    let config_digest = Digest::of(&bytes);
    let stem = saved.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if let Ok(named) = Digest::parse(&format!("sha256:{stem}"))
        && named != config_digest
    {
        return Err(Error::invalid(format!(
            "{}: wrong digest: the data has {config_digest} (the image is corrupt)",
            saved.config
        )));
    }
    if saved.layers.len() > limits.layers {
        let (count, most) = (saved.layers.len(), limits.layers);
        return Err(Error::invalid(format!("{count} layers, more than {most}")));
    }
    let (config, diff_ids) = manifest::config(&bytes, saved.layers.len())?;
    let layer = |(name, diff_id): (&String, &Digest)| {
        let (blob, compression) = layout.described(name, diff_id)?;
        Ok(Layer {
            digest: blob.digest,
            size: blob.size,
            media_type: compression.media_type().to_owned(),
            compression,
            member: Some(name.clone()),
        })
    };
    let layers = saved.layers.iter().zip(&diff_ids).map(layer).collect::<Result<Vec<_>>>()?;
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_digest, "size": bytes.len()},
        "layers": descriptors,
    });
    let manifest_bytes = manifest.to_string().into_bytes();
    let what = "the manifest made of manifest.json";
    let parsed = manifest::manifest(&manifest_bytes, what, limits)?;
    Ok(Chosen {
        digest: Digest::of(&manifest_bytes),
        platform: Platform::of_config(&config),
        manifest: manifest::Manifest { config: parsed.config, layers },
        manifest_bytes,
        config_bytes: configs.shared(&config_digest, bytes),
        config_digest,
        created: config.created().clone(),
        diff_ids,
    })
}
