//! What the store writes about images and layers, and the names of those files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::listing::Name;
use super::{manifest, tree};
use crate::error::{Error, Result, Step};
use crate::sys::boot;
use crate::sys::fs::{open_dir, replace_file};

/// An image in the store, as `image ls` and `image inspect` show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its name in the store.
    pub name: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The config's digest.
    pub config_digest: Digest,
    /// os/architecture[/variant].
    pub platform: String,
    /// When it was made, by its config.
    pub created: Option<String>,
    /// When it was imported, in seconds since 1970.
    pub imported: u64,
    /// Its layers, from the bottom up.
    pub layers: Vec<LayerRecord>,
    /// The layer on top of these that gives the directories which they don't list the
    /// attributes that they have in layers below, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<Digest>,
}

impl Record {
    /// Bytes of its files, all layers together.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked_size).sum()
    }

    /// What of the store's layers it takes.
    pub(crate) fn diff_ids(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.diff_id).chain(&self.parents)
    }
}

/// A layer of an image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The digest of the unpacked archive, by which the store keeps it.
    pub diff_id: Digest,
    /// The digest of the blob that it came from.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of its files.
    pub unpacked_size: u64,
    /// Its entries.
    pub entries: u64,
}

/// What is known of a layer on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerFacts {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// The digest of its listing; none was made by earlier versions.
    #[serde(default)]
    pub(crate) listing: Option<Digest>,
    /// Directories that it has and doesn't list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) implied: Vec<Name<'static>>,
    /// Hard links in it to files that it doesn't have: their paths and targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<(Name<'static>, Name<'static>)>,
}

/// Paths, and where they lead.
pub(crate) type Paths = Vec<(Vec<u8>, Vec<u8>)>;

impl LayerFacts {
    /// What it leaves to the layers below: directories, and targets of links.
    pub(crate) fn gaps(self) -> (BTreeSet<Vec<u8>>, Paths) {
        let bytes = |name: Name<'static>| name.0.into_owned();
        let links = self.links.into_iter().map(|(path, to)| (bytes(path), bytes(to)));
        (self.implied.into_iter().map(bytes).collect(), links.collect())
    }
}

/// Writes the facts of a layer that is being made.
pub(crate) fn write_layer_facts(layer: &Path, facts: &LayerFacts) -> Result<()> {
    let bytes = serde_json::to_vec(facts).map_err(|e| Error::invalid(e.to_string()))?;
    let file = File::create_new(layer.join("layer.json"))?;
    Ok(io::Write::write_all(&mut &file, &bytes)?)
}

/// The facts of the layer in this directory; `None` if there is none.
pub(crate) fn layer_facts(layer: &Path) -> Result<Option<LayerFacts>> {
    match fs::read(layer.join("layer.json")) {
        Ok(bytes) => manifest::json(&bytes, "layer record").map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A use of layers outside the store. It counts as long as `owner` is there, and, where
/// that ends with the machine, until that is started again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) owner: PathBuf,
    pub(crate) image: String,
    pub(crate) layers: Vec<Digest>,
    /// The machine's boot id, for an owner that ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<String>,
}

impl Reference {
    /// Whether the owner is what an earlier start of the machine has left.
    pub(crate) fn is_stale(&self) -> bool {
        self.boot.as_deref().is_some_and(boot::is_over)
    }

    /// Whether the owner is not there: it is gone, or still to be made.
    pub(crate) fn is_abandoned(&self) -> bool {
        let looked = self.owner.symlink_metadata();
        looked.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }
}

/// Checks a name for the store: `[registry/]path[:tag]`-like.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 200
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/@+".contains(&b))
        && record_file(name).is_some_and(|file| file.len() <= 250);
    if fine {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "image name {name:?}: it must begin with a letter or digit and have only letters, digits \
         and . _ - : / @ + (give one with --name)"
    )))
}

/// The file of a name; `None` for what is no name at all.
pub(crate) fn record_file(name: &str) -> Option<String> {
    use std::fmt::Write;
    if name.is_empty() {
        return None;
    }
    let mut file = String::new();
    for b in name.bytes() {
        if b.is_ascii_alphanumeric() || b"_-".contains(&b) || (b == b'.' && !file.is_empty()) {
            file.push(char::from(b));
        } else {
            write!(file, "%{b:02x}").ok()?;
        }
    }
    file.push_str(".json");
    Some(file)
}

pub(crate) fn reference_file(owner: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    format!("{}.json", Digest::of(owner.as_os_str().as_bytes()).hex())
}

/// With `sync` it is there after a power cut as well.
pub(crate) fn write_json<T: Serialize>(
    dir: &Path,
    file: &str,
    value: &T,
    sync: bool,
) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::invalid(e.to_string()))?;
    let dir = open_dir(dir)?;
    let mode = Mode::from_bits_truncate(0o600);
    Ok(replace_file(dir.as_fd(), file, &bytes, mode, sync)?)
}

/// A file that had its name but not yet all its data when the power was cut.
pub(crate) fn is_lost(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err()
}

/// Every record in a directory; one that isn't there is empty. What another
/// process removes meanwhile, and temporary files, are passed over; so is, where records
/// `may_be_lost`, what a power cut has left without its data.
pub(crate) fn read_dir_json<T: serde::de::DeserializeOwned>(
    dir: &Path,
    may_be_lost: bool,
) -> Result<Vec<T>> {
    let entries = match open_dir(dir) {
        Err(nix::errno::Errno::ENOENT) => return Ok(Vec::new()),
        other => {
            let fd = other.step(|| format!("open {}", dir.display()))?;
            tree::names(fd.as_fd())?
        }
    };
    let mut all = Vec::new();
    for (name, _) in entries {
        let name = name.to_string_lossy();
        if name.starts_with('.') || !name.ends_with(".json") {
            continue;
        }
        match fs::read(dir.join(name.as_ref())) {
            Ok(bytes) if may_be_lost && is_lost(&bytes) => {}
            Ok(bytes) => all.push(manifest::json(&bytes, &format!("{}/{name}", dir.display()))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all)
}
