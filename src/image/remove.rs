//! Removal from the store, and what stands in its way.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::import::Staging;
use super::record::{Record, Reference, read_dir_json, record_file};
use super::store::Store;
use super::tree;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::lock::Sharing;

impl Store {
    /// Removes images, and the layers that nothing else uses.
    ///
    /// It is all or nothing: a name that isn't there or a layer in use refuses
    /// the whole call. Imports under way are waited for.
    ///
    /// # Errors
    /// NotFound for a name, State for a layer in use.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        // by short names as well
        let names = names.iter().map(|name| Ok(self.find(name)?.name));
        let names = names.collect::<Result<Vec<_>>>()?;
        let _lock = self.lock(Sharing::Exclusive)?;
        let (going, staying): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|r| names.contains(&r.name));
        let kept = used_layers(&staying);
        let doomed: BTreeSet<_> = used_layers(&going).difference(&kept).cloned().collect();
        let references = self.live_references()?;
        self.check_unused(&doomed, &references)?;
        for record in &going {
            let Some(file) = record_file(&record.name) else {
                continue;
            };
            fs::remove_file(self.path().join("images").join(file))?;
        }
        let held = references.into_iter().flat_map(|r| r.layers);
        self.sweep(&kept.into_iter().chain(held).collect(), &staying)
    }

    fn check_unused(&self, doomed: &BTreeSet<Digest>, references: &[Reference]) -> Result<()> {
        for reference in references {
            if reference.layers.iter().any(|layer| doomed.contains(layer)) {
                return Err(Error::new(
                    ErrorKind::State,
                    format!(
                        "image {}: in use by {} (tare umount it, or delete the container, first)",
                        reference.image,
                        reference.owner.display()
                    ),
                ));
            }
        }
        for layer in doomed {
            if self.is_mounted(layer)? {
                return Err(Error::new(
                    ErrorKind::State,
                    format!(
                        "layer {}: an overlay of it is mounted (unmount it first)",
                        layer.short()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Removes every layer and document that isn't needed: those of the images
    /// that went, and those of imports that died between two steps.
    fn sweep(&self, kept: &BTreeSet<Digest>, staying: &[Record]) -> Result<()> {
        let staging = Staging::new(self)?;
        for (digest, path) in digest_entries(&self.path().join("layers"))? {
            if !kept.contains(&digest) && !self.is_mounted(&digest)? {
                // out of the way first: a kill must not leave half a layer
                staging.take(&path, digest.hex())?;
            }
        }
        let documents: BTreeSet<&Digest> =
            staying.iter().flat_map(|r| [&r.digest, &r.config_digest]).collect();
        for (digest, path) in digest_entries(&self.path().join("blobs"))? {
            if !documents.contains(&digest) {
                fs::remove_file(path)?;
            }
        }
        staging.remove()
    }

    fn is_mounted(&self, layer: &Digest) -> Result<bool> {
        let path = self.layer_path(layer);
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo")?;
        let path = path.to_string_lossy();
        Ok(mounts.lines().any(|line| line.contains(path.as_ref())))
    }

    /// References whose owner is there; the others are removed.
    fn live_references(&self) -> Result<Vec<Reference>> {
        let mut live = Vec::new();
        for reference in read_dir_json::<Reference>(&self.path().join("refs"))? {
            match reference.owner.symlink_metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.release(&reference.owner)?,
                _ => live.push(reference),
            }
        }
        Ok(live)
    }
}

fn used_layers(records: &[Record]) -> BTreeSet<Digest> {
    let layers = records.iter().flat_map(|r| &r.layers);
    layers.map(|layer| layer.diff_id.clone()).collect()
}

/// Every `DIR/ALGORITHM/HEX`.
fn digest_entries(dir: &Path) -> Result<Vec<(Digest, PathBuf)>> {
    let mut all = Vec::new();
    for algorithm in ["sha256", "sha512"] {
        let entries = match open_dir(&dir.join(algorithm)) {
            Err(nix::errno::Errno::ENOENT) => continue,
            other => tree::names(other?.as_fd())?,
        };
        for (name, _) in entries {
            let name = name.to_string_lossy();
            if let Ok(digest) = Digest::parse(&format!("{algorithm}:{name}")) {
                all.push((digest, dir.join(algorithm).join(name.as_ref())));
            }
        }
    }
    Ok(all)
}
