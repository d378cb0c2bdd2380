//! Which images of a layout: by tag, and by platform where there are several.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex};

use super::digest::Digest;
use super::docker;
use super::layout::Layout;
use super::limits::Limits;
use super::manifest::{self, Manifest, is_index, is_manifest};
use super::reference::same;
use crate::error::{Error, ErrorKind, Result};

const TAG: &str = "org.opencontainers.image.ref.name";
/// Where Docker and containerd put the whole name.
const FULL_NAME: &str = "io.containerd.image.name";
/// How deep an index may nest.
const DEPTH: usize = 4;

/// What the caller wants of a layout or a multi-platform image.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// This tag only.
    pub reference: Option<String>,
    /// This platform, not the host's.
    pub platform: Option<Platform>,
}

/// An operating system, a processor, and its variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Platform {
    /// Parses `os/architecture[/variant]`.
    ///
    /// # Errors
    /// Invalid for another form.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = parts.iter().all(|part| !part.is_empty());
        match parts.as_slice() {
            [os, architecture] if well_formed => Ok(Self::of(os, architecture, None)),
            [os, architecture, variant] if well_formed => {
                Ok(Self::of(os, architecture, Some(variant)))
            }
            _ => Err(Error::invalid(format!(
                "platform {text:?}: not of the form os/architecture[/variant]"
            ))),
        }
    }

    /// The platform that this binary was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self::of("linux", architecture, None)
    }

    /// In the image specification's words, with variants that mean the default
    /// left out.
    fn of(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        let variant = variant.filter(|v| !v.is_empty()).or(implied);
        let variant = match (architecture, variant) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        Platform { os: os.to_ascii_lowercase(), architecture: architecture.to_owned(), variant }
    }

    fn of_descriptor(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref()?;
        Some(Self::of(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            platform.variant().as_deref(),
        ))
    }

    pub(crate) fn of_config(config: &ImageConfiguration) -> Self {
        Self::of(
            &config.os().to_string(),
            &config.architecture().to_string(),
            config.variant().as_deref(),
        )
    }

    /// How well `offered` suits; `None` if it can't run here.
    pub(crate) fn suits(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.variant == offered.variant {
            return Some(100);
        }
        // variants of ARM (v5, v6, v7, …; v8, v9) run what is lower
        let arm = self.architecture.starts_with("arm");
        let floor = if self.architecture == "arm64" { 8 } else { 0 };
        let level = |p: &Platform| match &p.variant {
            Some(v) => v.strip_prefix('v')?.parse::<u32>().ok(),
            None => Some(floor),
        };
        match (level(self), level(offered)) {
            (Some(want), Some(have)) if arm && have <= want => Some(have.min(99)),
            // a plain image runs on any variant of the processor
            _ if offered.variant.is_none() => Some(1),
            _ => None,
        }
    }
}

/// An image of a layout, chosen. Several tags may share it: its documents can be
/// large.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// The name by its annotation, if it has one.
    pub(crate) tag: Option<String>,
    pub(crate) image: Arc<Chosen>,
}

impl Deref for Choice {
    type Target = Chosen;

    fn deref(&self) -> &Chosen {
        &self.image
    }
}

/// An image with its documents verified.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) digest: Digest,
    pub(crate) platform: Platform,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) config_digest: Digest,
    pub(crate) config_bytes: Arc<[u8]>,
    pub(crate) created: Option<String>,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Configurations, each once, as long as an image has it.
#[derive(Default)]
pub(crate) struct Configs(BTreeMap<Digest, Weak<[u8]>>);

impl Configs {
    pub(crate) fn shared(&mut self, digest: &Digest, bytes: Vec<u8>) -> Arc<[u8]> {
        if let Some(there) = self.0.get(digest).and_then(Weak::upgrade) {
            return there;
        }
        let bytes = bytes.into();
        self.0.insert(digest.clone(), Arc::downgrade(&bytes));
        bytes
    }
}

/// Chooses the images to take.
pub(crate) fn choose(layout: &Layout, selector: &Selector, limits: &Limits) -> Result<Vec<Choice>> {
    if layout.is_docker() {
        return docker::choose(layout, selector, limits);
    }
    let bytes = layout.document("index.json", limits).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::invalid("not an OCI layout: it has no index.json"),
        _ => e,
    })?;
    let index = manifest::index(&bytes, "index.json")?;
    let wanted = selector.platform.clone().unwrap_or_else(Platform::host);
    let mut choices = Vec::new();
    let mut loader =
        Loader { layout, limits, images: BTreeMap::new(), configs: Configs::default() };
    for (tag, group) in groups(&index, selector, limits)? {
        let mut offers = Offers::default();
        flatten(layout, &group, limits, DEPTH, &mut offers)?;
        let image = best(&mut loader, offers, &wanted).map_err(|e| match &tag {
            Some(tag) => e.step(format!("image {tag}")),
            None => e,
        })?;
        choices.push(Choice { tag, image });
    }
    Ok(choices)
}

/// Descriptors of one tag, in the layout's order.
type Group<'a> = (Option<String>, Vec<&'a Descriptor>);

fn groups<'a>(
    index: &'a ImageIndex,
    selector: &Selector,
    limits: &Limits,
) -> Result<Vec<Group<'a>>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for descriptor in index.manifests() {
        let note = |key| descriptor.annotations().as_ref()?.get(key).cloned();
        let (tag, full) = (note(TAG), note(FULL_NAME));
        let is_named = |want: &String| {
            [&tag, &full].into_iter().flatten().any(|name| same(want, name))
                || descriptor.digest().as_ref() == want
        };
        if selector.reference.as_ref().is_some_and(|want| !is_named(want)) {
            continue;
        }
        let name = full.or(tag);
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, group)) => group.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
        if groups.iter().filter(|(tag, _)| tag.is_some()).count() > limits.images {
            return Err(limits.too_many_images());
        }
    }
    // what has no tag is left over from retagging where others have one
    if groups.iter().any(|(tag, _)| tag.is_some()) {
        groups.retain(|(tag, _)| tag.is_some());
    }
    match (groups.is_empty(), &selector.reference) {
        (false, _) => Ok(groups),
        (true, None) => Err(Error::invalid("the layout holds no image")),
        (true, Some(want)) => {
            let note = |d: &Descriptor, key| d.annotations().as_ref()?.get(key).cloned();
            let name = |d| note(d, FULL_NAME).or_else(|| note(d, TAG));
            Err(no_tag(want, "layout", index.manifests().iter().filter_map(name)))
        }
    }
}

/// `there` are those that it has.
pub(super) fn no_tag(want: &str, source: &str, there: impl Iterator<Item = String>) -> Error {
    const SHOWN: usize = 5;
    let mut there: Vec<String> = there.take(SHOWN + 1).map(|tag| format!("{tag:?}")).collect();
    if there.len() > SHOWN {
        there.truncate(SHOWN);
        there.push("others".to_owned());
    }
    let error =
        Error::new(ErrorKind::NotFound, format!("no image with the tag {want:?} in the {source}"));
    if there.is_empty() { error } else { error.hint(format!("it has {}", there.join(", "))) }
}

/// What indexes hold.
#[derive(Default)]
struct Offers {
    manifests: Vec<Descriptor>,
    /// The kinds of what is no image.
    others: Vec<String>,
    /// The indexes that have been opened: each once, or a few that list each other many
    /// times would have no end.
    opened: BTreeSet<Digest>,
}

/// The most manifests below one tag.
const MANIFESTS: usize = 10_000;

/// The manifests below descriptors, indexes opened.
fn flatten(
    layout: &Layout,
    descriptors: &[&Descriptor],
    limits: &Limits,
    depth: usize,
    offers: &mut Offers,
) -> Result<()> {
    for descriptor in descriptors {
        let media_type = descriptor.media_type().as_ref();
        if let Some(kind) = descriptor.artifact_type() {
            offers.others.push(kind.to_string());
        } else if is_manifest(media_type) {
            offers.manifests.push((*descriptor).clone());
            if offers.manifests.len() > MANIFESTS {
                return Err(Error::invalid(format!("more than {MANIFESTS} manifests in indexes")));
            }
        } else if is_index(media_type) {
            if depth == 0 {
                return Err(Error::invalid("indexes are nested too deep"));
            }
            if !offers.opened.insert(Digest::parse(descriptor.digest().as_ref())?) {
                continue;
            }
            let (digest, bytes) = document(layout, descriptor, limits)?;
            let index = manifest::index(&bytes, &format!("index {digest}"))?;
            let inner: Vec<&Descriptor> = index.manifests().iter().collect();
            flatten(layout, &inner, limits, depth - 1, offers)?;
        } else {
            offers.others.push(media_type.to_owned());
        }
    }
    Ok(())
}

/// Reads a document by its descriptor and verifies it.
fn document(
    layout: &Layout,
    descriptor: &Descriptor,
    limits: &Limits,
) -> Result<(Digest, Vec<u8>)> {
    let digest = Digest::parse(descriptor.digest().as_ref())?;
    let read = layout.blob(&digest, descriptor.size()).and_then(|blob| blob.read(limits.json));
    match read {
        Ok(bytes) => Ok((digest, bytes)),
        Err(e) => Err(e.step(format!("blob {digest}"))),
    }
}

/// The offers that may suit, the best first; and the platforms of the others.
pub(crate) fn rank(offers: Vec<Descriptor>, wanted: &Platform) -> (Vec<Descriptor>, Vec<String>) {
    let mut others = Vec::new();
    let mut ranked = Vec::new();
    for offer in offers {
        match Platform::of_descriptor(&offer) {
            None => ranked.push((0, offer)),
            Some(platform) => match wanted.suits(&platform) {
                Some(rank) => ranked.push((rank, offer)),
                None => others.push(platform.to_string()),
            },
        }
    }
    // stable: among equals the first one counts
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    (ranked.into_iter().map(|(_, offer)| offer).collect(), others)
}

/// The offer that suits best. A descriptor may leave the platform to the
/// config, so the config has the last word.
fn best(loader: &mut Loader<'_>, offers: Offers, wanted: &Platform) -> Result<Arc<Chosen>> {
    let (ranked, mut seen) = rank(offers.manifests, wanted);
    let mut artifact = None;
    for offer in &ranked {
        let choice = match loader.load(offer) {
            // a signature or the like, beside images for all platforms
            Err(e) if e.kind() == ErrorKind::Unsupported && offer.platform().is_none() => {
                artifact.get_or_insert(e);
                continue;
            }
            other => other?,
        };
        if wanted.suits(&choice.platform).is_some() {
            return Ok(choice);
        }
        seen.push(choice.platform.to_string());
    }
    if seen.is_empty() {
        return Err(artifact.unwrap_or_else(|| {
            Error::unsupported(format!(
                "no container image, but an artifact ({})",
                if offers.others.is_empty() {
                    "an empty index".into()
                } else {
                    offers.others.join(", ")
                }
            ))
        }));
    }
    seen.dedup();
    Err(Error::invalid(format!(
        "no image for {wanted}, only for {} (choose one with --platform)",
        seen.join(", ")
    )))
}

/// Images by their descriptors; those that are chosen are read once.
struct Loader<'a> {
    layout: &'a Layout,
    limits: &'a Limits,
    images: BTreeMap<(String, u64), Weak<Chosen>>,
    configs: Configs,
}

impl Loader<'_> {
    fn load(&mut self, descriptor: &Descriptor) -> Result<Arc<Chosen>> {
        let key = (descriptor.digest().to_string(), descriptor.size());
        if let Some(there) = self.images.get(&key).and_then(Weak::upgrade) {
            return Ok(there);
        }
        let (layout, limits) = (self.layout, self.limits);
        let (digest, manifest_bytes) = document(layout, descriptor, limits)?;
        let manifest = manifest::manifest(&manifest_bytes, &format!("manifest {digest}"), limits)?;
        let (config_digest, config_bytes) = document(layout, &manifest.config, limits)?;
        let (config, diff_ids) = manifest::config(&config_bytes, manifest.layers.len())?;
        let image = Arc::new(Chosen {
            digest,
            platform: Platform::of_config(&config),
            manifest,
            manifest_bytes,
            config_bytes: self.configs.shared(&config_digest, config_bytes),
            config_digest,
            created: config.created().clone(),
            diff_ids,
        });
        self.images.insert(key, Arc::downgrade(&image));
        Ok(image)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn config() -> Vec<u8> {
        let host = Platform::host();
        let config = json!({
            "os": host.os, "architecture": host.architecture,
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        config.to_string().into_bytes()
    }

    fn blob(dir: &Path, data: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(data);
        std::fs::write(dir.join("blobs/sha256").join(digest.hex()), data).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": data.len()})
    }

    /// A layout with two tags for one image, and one for another of the same
    /// configuration.
    fn oci(dir: &Path) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let config = blob(dir, &config(), manifest::CONFIG);
        let tagged = |(tag, note): (&str, &str)| {
            let manifest = json!({
                "schemaVersion": 2, "mediaType": manifest::MANIFEST, "config": config,
                "layers": [], "annotations": {"note": note},
            });
            let mut image = blob(dir, manifest.to_string().as_bytes(), manifest::MANIFEST);
            image["annotations"] = json!({TAG: tag});
            image
        };
        let manifests: Vec<_> = [("a", "x"), ("b", "x"), ("c", "y")].map(tagged).into();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }

    fn saved(dir: &Path) {
        std::fs::write(dir.join("c.json"), config()).unwrap();
        let one = |tags: &[&str]| json!({"Config": "c.json", "RepoTags": tags, "Layers": []});
        let all = json!([one(&["a:1", "b:1"]), one(&["c:1"])]);
        std::fs::write(dir.join("manifest.json"), all.to_string()).unwrap();
    }

    #[test]
    fn images_share_their_documents_and_are_not_too_many() {
        for make in [oci, saved] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path());
            let limits = Limits { images: 3, ..Limits::default() };
            let spool = || Ok(tempfile::tempfile()?);
            let layout = Layout::open(dir.path(), &limits, &spool).unwrap();
            let all = choose(&layout, &Selector::default(), &limits).unwrap();
            let [a, b, c] = all.as_slice() else { panic!("{} images", all.len()) };
            assert!(Arc::ptr_eq(&a.image, &b.image) && !Arc::ptr_eq(&a.image, &c.image));
            assert!(Arc::ptr_eq(&a.config_bytes, &c.config_bytes));
            let limits = Limits { images: 2, ..limits };
            let e = choose(&layout, &Selector::default(), &limits).unwrap_err();
            assert!(e.to_string().contains("more than 2 images"), "{e}");
            let one = Selector { reference: Some(a.tag.clone().unwrap()), platform: None };
            assert_eq!(choose(&layout, &one, &limits).unwrap().len(), 1);
        }
    }

    pub(crate) fn suits(want: &str, have: &str) -> Option<u32> {
        let parse = |text| Platform::parse(text).unwrap();
        parse(want).suits(&parse(have))
    }

    #[test]
    fn platforms() {
        assert!(suits("linux/amd64", "linux/amd64").is_some());
        assert!(suits("linux/x86_64", "linux/amd64/v1").is_some());
        assert!(suits("linux/amd64", "linux/amd64/v3").is_none());
        assert!(suits("linux/amd64", "linux/arm64").is_none());
        assert!(suits("linux/amd64", "windows/amd64").is_none());
        assert!(suits("linux/arm64", "linux/arm64/v8").is_some());
        assert!(suits("linux/arm64", "linux/arm64/v9").is_none());
        assert!(suits("linux/arm/v7", "linux/arm/v6") < suits("linux/arm/v7", "linux/arm/v7"));
        assert!(suits("linux/arm/v6", "linux/arm/v7").is_none());
        assert!(Platform::parse("linux").is_err());
        assert!(Platform::parse("linux//v7").is_err());
    }
}
