//! The documents of an image: index, manifest, configuration.

use std::fmt;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::digest::Digest;
use super::limits::Limits;
use crate::error::{Error, Result};

/// How a layer's archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "a plain archive",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// By the first bytes; zstd may begin with a frame to skip.
    pub(crate) fn by_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The OCI media type of a layer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// By a layer's media type: the OCI ones, the Docker ones, and the old
    /// "nondistributable" ones, whose data may be there.
    pub(crate) fn of(media_type: &str) -> Result<Self> {
        Ok(match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            other => {
                return Err(Error::unsupported(format!(
                    "wrong media type {other:?} for a layer (tar, tar+gzip or tar+zstd)"
                )));
            }
        })
    }
}

/// Whether a media type is an index's.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Whether a media type is a manifest's.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
    )
}

/// The media type of manifests that are made here.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// That of an index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// That of a configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

/// The fields by which a manifest and an index can be told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Parses JSON, naming the field that is wrong.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    crate::json::parse(bytes).map_err(|e| e.step(what))
}

/// An index, refused if it could be taken for a manifest: a document that is
/// both shows one image to a scanner and another to us.
pub(crate) fn index(bytes: &[u8], what: &str) -> Result<ImageIndex> {
    let shape = shape(bytes, what)?;
    let foreign = shape.config.is_some() || shape.layers.is_some() || shape.fs_layers.is_some();
    if foreign || shape.media_type.is_some_and(|m| !is_index(&m)) {
        return Err(Error::invalid(format!("{what}: not an index, but a manifest or both")));
    }
    json(bytes, what)
}

/// The media type that a document names.
pub(crate) fn media_type(bytes: &[u8], what: &str) -> Result<Option<String>> {
    shape(bytes, what).map(|shape| shape.media_type)
}

/// Whether a document has an index's list, whatever it says that it is.
pub(crate) fn has_manifests(bytes: &[u8], what: &str) -> Result<bool> {
    Ok(shape(bytes, what)?.manifests.is_some())
}

fn shape(bytes: &[u8], what: &str) -> Result<Shape> {
    let shape: Shape = json(bytes, what)?;
    if shape.schema_version == 2 {
        Ok(shape)
    } else {
        let version = shape.schema_version;
        Err(Error::unsupported(format!("{what}: schemaVersion {version}, not 2")))
    }
}

/// A manifest and its layers, held against the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Layer>,
}

/// A layer as the manifest has it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) compression: Compression,
    /// Its file in the layout, where that is not named by the digest.
    pub(crate) member: Option<String>,
}

/// A manifest, refused if it could be taken for an index.
pub(crate) fn manifest(bytes: &[u8], what: &str, limits: &Limits) -> Result<Manifest> {
    let shape = shape(bytes, what)?;
    let foreign = shape.manifests.is_some() || shape.fs_layers.is_some();
    if foreign || shape.media_type.is_some_and(|m| !is_manifest(&m)) {
        return Err(Error::invalid(format!("{what}: not a manifest, but an index or both")));
    }
    let manifest: ImageManifest = json(bytes, what)?;
    let config = manifest.config().clone();
    if !is_config(config.media_type().as_ref()) {
        return Err(Error::unsupported(format!(
            "{what}: no container image: its config is {:?}",
            config.media_type().as_ref()
        )));
    }
    let count = manifest.layers().len();
    if count > limits.layers {
        let most = limits.layers;
        return Err(Error::invalid(format!("{what}: {count} layers, more than {most}")));
    }
    let layers = manifest.layers().iter().map(|layer| {
        let media_type = layer.media_type().as_ref();
        Ok(Layer {
            digest: Digest::parse(layer.digest().as_ref())?,
            size: layer.size(),
            compression: Compression::of(media_type)?,
            media_type: media_type.to_owned(),
            member: None,
        })
    });
    let layers = layers.collect::<Result<_>>().map_err(|e| e.step(what))?;
    Ok(Manifest { config, layers })
}

/// A configuration and its diff IDs.
pub(crate) fn config(bytes: &[u8], layers: usize) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let config: ImageConfiguration = json(bytes, "image config")?;
    if config.rootfs().typ() != "layers" {
        return Err(Error::invalid("image config: rootfs.type is not \"layers\""));
    }
    let ids = config.rootfs().diff_ids().iter().map(|id| Digest::parse(id));
    let ids =
        ids.collect::<Result<Vec<_>>>().map_err(|e| e.step("image config: rootfs.diff_ids"))?;
    if ids.len() != layers {
        return Err(Error::invalid(format!(
            "image config: {} diff ids for {layers} layers",
            ids.len()
        )));
    }
    Ok((config, ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_thing() {
        let limits = Limits::default();
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(index(both, "x").is_err());
        assert!(manifest(both, "x", &limits).is_err());
        let disguised = br#"{"schemaVersion":2,"manifests":[],
            "mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
        assert!(index(disguised, "x").is_err());
        assert!(index(br#"{"schemaVersion":2,"manifests":[]}"#, "x").is_ok());
        assert!(index(br#"{"schemaVersion":1,"manifests":[]}"#, "x").is_err());
        assert!(index(br#"{"schemaVersion":2,"manifests":[]} x"#, "x").is_err());
    }
}
