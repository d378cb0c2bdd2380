//! The store: images by name, layers by diff ID, documents by digest.
//!
//! ```text
//! STORE/lock                     shared: uses the store; exclusive: removes from it
//! STORE/images/NAME.json         a Record (NAME percent-encoded)
//! STORE/blobs/ALGORITHM/HEX      manifests and configs; layers' blobs, if they are kept
//! STORE/layers/ALGORITHM/HEX/    diff/: the layer; layer.json: its facts; listing: all
//!                                that is in it, for `image verify`
//! STORE/refs/HEX.json            who else uses layers: bundles, containers
//! STORE/empty/                   the layer of images that have none
//! STORE/staging/…                imports under way, each directory locked
//! STORE/downloads/HEX/           what a pull fetches, locked; kept when it broke off
//! STORE/containers/…             containers from images: their files, their volumes
//! STORE/volumes/NAME/            see `volume`
//! ```
//!
//! What is under `layers` is whole: it was renamed there after a sync. All
//! directories are 0700, or setuid files of images would be within reach of
//! every user.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::image::ImageConfiguration;

use super::digest::Digest;
use super::import;
use super::manifest;
use super::record::{
    LayerFacts, Reference, read_dir_json, record_file, reference_file, write_json,
};
use super::reference::{Reference as Name, Version, is_of_digest, same};
use super::select::Selector;
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sys::SysResult;
use crate::sys::boot;
use crate::sys::caller::caller;
use crate::sys::fs::{open_dir, open_file, read_whole, replace_file};
use crate::sys::lock::{FileLock, Sharing};

pub use super::import::Options as ImportOptions;
pub(crate) use super::import::make_open_dir;
pub(crate) use super::record::check_name;
pub use super::record::{LayerRecord, Record};

/// An image that is ready for use: its layers can't be removed while this
/// value (or a clone) lives.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name in the store.
    pub name: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// The layers' directories, from the bottom up, each once.
    pub layers: Vec<PathBuf>,
    record: Record,
    _lock: Arc<FileLock>,
}

impl Image {
    /// All that the store knows of it.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// A store of images. Opening one touches nothing; directories are made by the
/// first import.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The store at `path`, or the default one.
    ///
    /// # Errors
    /// Invalid when there is no home directory to put the default one into.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = match path {
            Some(path) => std::path::absolute(path)?,
            None => Store::default_path()?,
        };
        Ok(Store { path })
    }

    /// /var/lib/tare for root; $XDG_DATA_HOME/tare or ~/.local/share/tare for
    /// others.
    ///
    /// # Errors
    /// Invalid when neither variable is set.
    pub fn default_path() -> Result<PathBuf> {
        let who = caller();
        // layers of a root without power have the form of a user's
        if !who.has_own_directories() && (who.is_host_root() || !who.initial) {
            return Ok(PathBuf::from("/var/lib/tare"));
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("tare"))
            .ok_or_else(|| {
                Error::invalid("image store: neither XDG_DATA_HOME nor HOME is set (use --store)")
            })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images, by name.
    ///
    /// # Errors
    /// System for a store that can't be read.
    pub fn list(&self) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = read_dir_json(&self.path.join("images"), false)?;
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The record of one image: by its name, a short form of that, its digest,
    /// its config's, or the beginning of one of them.
    ///
    /// # Errors
    /// NotFound when there is none of that name, Invalid when there are several
    /// that differ.
    pub fn find(&self, name: &str) -> Result<Record> {
        let mut found = self.matching(name)?;
        let missing =
            || Error::new(ErrorKind::NotFound, format!("image {name} {}", phrase::DOES_NOT_EXIST));
        let first = found.pop().ok_or_else(|| missing().hint("see tare image ls"))?;
        match found.iter().all(|other| other.digest == first.digest) {
            true => Ok(first),
            false => Err(ambiguous(name, &first, &found)),
        }
    }

    /// All that a name may mean.
    pub(crate) fn matching(&self, name: &str) -> Result<Vec<Record>> {
        if let Some(exact) = self.named(name)? {
            return Ok(vec![exact]);
        }
        let all = self.list()?;
        let pick = |fits: &dyn Fn(&Record) -> bool| -> Vec<Record> {
            all.iter().filter(|record| fits(record)).cloned().collect()
        };
        let named = pick(&|record| same(name, &record.name));
        if !named.is_empty() {
            return Ok(named);
        }
        if let Ok(wanted) = Name::parse(name)
            && let Version::Digest(digest) = &wanted.version
        {
            let beside = |name: &str| Name::parse(name).is_ok_and(|name| name.is_beside(&wanted));
            return Ok(pick(&|r| r.digest == *digest && beside(&r.name)));
        }
        let is_digest = |record: &Record| {
            is_of_digest(name, &record.digest) || is_of_digest(name, &record.config_digest)
        };
        Ok(pick(&is_digest))
    }

    /// The record with exactly that name.
    pub(crate) fn named(&self, name: &str) -> Result<Option<Record>> {
        let Some(file) = record_file(name) else { return Ok(None) };
        match read(&self.path.join("images").join(file)) {
            Ok(bytes) => manifest::json(&bytes, "image record").map(Some),
            // there is none, or it is longer than a file name may be
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
            Err(e) => Err(Error::from(e).step(format!("image {name}"))),
        }
    }

    /// The image of that name in the store, or the one at that path, which is
    /// imported on the way. What has a slash at its beginning or is `.` or
    /// `..`, or begins with one of them and a slash, is a path.
    ///
    /// # Errors
    /// NotFound when it is neither; what an import fails with.
    pub fn resolve(&self, name_or_path: &str, selector: &Selector) -> Result<Image> {
        let path = Path::new(name_or_path);
        let explicit =
            path.is_absolute() || matches!(name_or_path.split('/').next(), Some("." | ".."));
        if !explicit {
            match self.image(name_or_path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    if path.symlink_metadata().is_err() {
                        return Err(e);
                    }
                }
                other => return other,
            }
        }
        let options = import::Options { selector: selector.clone(), ..import::Options::default() };
        let mut records = import::import(self, path, &options)?;
        match (records.pop(), records.is_empty()) {
            (Some(record), true) => self.image(&record.name),
            (Some(last), false) => {
                records.push(last);
                let names: Vec<_> = records.iter().map(|r| r.name.as_str()).collect();
                Err(Error::invalid(format!(
                    "image {name_or_path}: it holds {} (choose one with --ref)",
                    names.join(", ")
                )))
            }
            (None, _) => Err(Error::invalid(format!("image {name_or_path}: it holds none"))),
        }
    }

    /// The image of that name, locked against removal.
    ///
    /// # Errors
    /// NotFound when there is none of that name.
    pub fn image(&self, name: &str) -> Result<Image> {
        // a store without images has no lock yet
        if !self.is_used()? {
            self.find(name)?;
        }
        let lock = self.lock(Sharing::Shared)?;
        let record = self.find(name)?;
        let step = || format!("image {name}");
        let bytes = read(&self.blob_path(&record.config_digest)).step(step)?;
        let (config, _) = manifest::config(&bytes, record.layers.len()).step(step)?;
        let mut layers: Vec<PathBuf> = Vec::new();
        for diff_id in record.diff_ids() {
            let path = self.layer_path(diff_id).join("diff");
            // overlayfs refuses a directory that is twice in the stack; where a
            // layer is, only its uppermost place shows
            layers.retain(|other| *other != path);
            layers.push(path);
        }
        Ok(Image {
            name: record.name.clone(),
            digest: record.digest.clone(),
            config,
            layers,
            record,
            _lock: Arc::new(lock),
        })
    }

    /// Notes that `owner`, a path, uses the image: its layers stay as long as
    /// that path exists or until [`Store::release`].
    ///
    /// # Errors
    /// System when the note can't be written.
    pub fn hold(&self, image: &Image, owner: &Path) -> Result<()> {
        self.note(image, owner, None)
    }

    /// The same for an owner that can't outlive the machine's next start: a container.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub fn hold_until_reboot(&self, image: &Image, owner: &Path) -> Result<()> {
        self.note(image, owner, boot::id().ok())
    }

    fn note(&self, image: &Image, owner: &Path, boot: Option<String>) -> Result<()> {
        let owner = std::path::absolute(owner)?;
        let reference = Reference {
            image: image.name.clone(),
            layers: image.record.diff_ids().cloned().collect(),
            owner,
            boot,
        };
        let file = reference_file(&reference.owner);
        // what ends with the machine needs no disk
        let sync = reference.boot.is_none();
        write_json(&self.path.join("refs"), &file, &reference, sync).step(|| "note the image's use")
    }

    /// The file in which [`Store::hold`] notes the use by `owner`.
    pub fn reference_path(&self, owner: &Path) -> Result<PathBuf> {
        let owner = std::path::absolute(owner)?;
        Ok(self.path.join("refs").join(reference_file(&owner)))
    }

    /// Takes back [`Store::hold`]. It is no error if there was none.
    ///
    /// # Errors
    /// System when the note can't be removed.
    pub fn release(&self, owner: &Path) -> Result<()> {
        let owner = std::path::absolute(owner)?;
        match fs::remove_file(self.path.join("refs").join(reference_file(&owner))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Makes the directories and locks the store for use.
    pub(crate) fn prepare(&self) -> Result<FileLock> {
        let step = || format!("image store {}", self.path.display());
        let mut dirs = DirBuilder::new();
        dirs.recursive(true).mode(0o700);
        for dir in [
            "images",
            "refs",
            "staging",
            "blobs/sha256",
            "blobs/sha512",
            "layers/sha256",
            "layers/sha512",
        ] {
            dirs.create(self.path.join(dir)).step(step)?;
        }
        match make_open_dir(&self.path.join("empty")) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).step(step),
            _ => {}
        }
        self.lock(Sharing::Shared)
    }

    /// False for a store that nothing has been put into.
    pub(crate) fn is_used(&self) -> Result<bool> {
        match self.path.join("lock").symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true).step(|| format!("image store {}", self.path.display())),
        }
    }

    pub(crate) fn lock(&self, how: Sharing) -> Result<FileLock> {
        let step = || format!("image store {}: lock", self.path.display());
        self.check_owner()?;
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true);
        let file = file.open(self.path.join("lock")).step(step)?;
        FileLock::wait(file, how).step(step)
    }

    /// A store is of one user: its layers have the form that his overlays read.
    fn check_owner(&self) -> Result<()> {
        let step = || format!("image store {}", self.path.display());
        let owner = fs::metadata(&self.path).step(step)?.uid();
        if owner == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        Err(Error::invalid(format!("it belongs to uid {owner}"))
            .hint("each user has a store: see --store")
            .step(step()))
    }

    /// The image's layers for an overlay, which needs one at least: an empty
    /// directory for an image without any.
    pub fn layers_or_empty(&self, image: &Image) -> Vec<PathBuf> {
        if image.layers.is_empty() { vec![self.path.join("empty")] } else { image.layers.clone() }
    }

    /// The directory of a layer's files.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.layer_path(diff_id).join("diff")
    }

    /// Where a layer is or will be.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        let algorithm = diff_id.algorithm().name();
        self.path.join("layers").join(algorithm).join(diff_id.hex())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.path.join("blobs").join(algorithm).join(digest.hex())
    }

    /// Whether an import can do without the blob of a layer.
    ///
    /// # Errors
    /// System for a store that can't be read.
    pub fn has_layer(&self, diff_id: &Digest, blob: &Digest, keep_blobs: bool) -> Result<bool> {
        Ok(!import::is_missing(self, diff_id)? && (!keep_blobs || self.has_blob(blob)?))
    }

    /// Whether a blob is kept.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        match self.blob_path(digest).symlink_metadata() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from(e).step(format!("blob {digest}"))),
        }
    }

    /// The facts of a layer that the store has; `None` if it hasn't.
    pub(crate) fn layer_facts(&self, diff_id: &Digest) -> Result<Option<LayerFacts>> {
        super::record::layer_facts(&self.layer_path(diff_id))
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let file = record_file(&record.name)
            .ok_or_else(|| Error::invalid(format!("image name {:?}", record.name)))?;
        write_json(&self.path.join("images"), &file, record, true)
            .step(|| format!("record image {}", record.name))
    }

    pub(crate) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob_path(digest);
        let dir = open_dir(path.parent().unwrap_or(&self.path))?;
        let mode = Mode::from_bits_truncate(0o600);
        Ok(replace_file(dir.as_fd(), digest.hex(), bytes, mode, true)?)
    }

    /// Unpacks what is at `path` into the store.
    ///
    /// # Errors
    /// Invalid for an image that is broken, Unsupported for one that can't be
    /// had; the store is as before then.
    pub fn import(&self, path: &Path, options: &import::Options) -> Result<Vec<Record>> {
        import::import(self, path, options)
    }
}

fn read(path: &Path) -> SysResult<Vec<u8>> {
    open_file(path, OFlag::empty()).and_then(read_whole)
}

fn ambiguous(name: &str, first: &Record, others: &[Record]) -> Error {
    let mut names: Vec<_> = others.iter().chain([first]).map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    Error::invalid(format!("image {name}: this may be {}", names.join(", ")))
}
