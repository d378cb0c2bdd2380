//! Removal from the store, what stands in its way, and what the store takes of
//! the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::digest::Digest;
use super::disk;
use super::record::{Record, Reference, is_lost, read_dir_json, record_file};
use super::staging::{self, Staging};
use super::store::Store;
use super::tree;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::lock::Sharing;
use crate::sys::remove::remove_tree;

/// What nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// `layer`, `blob`, `import` (what one that died has left), `download` (what nobody
    /// came back for) or `container` (of before the machine was started).
    pub kind: &'static str,
    /// The digest's hexadecimal, or a name in a directory of the store.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Garbage {
    fn at(kind: &'static str, digest: &Digest, path: &Path) -> Result<Self> {
        Ok(Garbage { kind, name: digest.hex().to_owned(), bytes: disk::usage(path)? })
    }
}

/// What one kind of things takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many there are.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of those that [`Store::collect`] would remove.
    pub reclaimable: u64,
}

impl Share {
    fn add(&mut self, bytes: u64, unused: bool) {
        self.count += 1;
        self.bytes += bytes;
        self.reclaimable += if unused { bytes } else { 0 };
    }
}

/// What the layers of one image take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its name.
    pub name: String,
    /// Bytes on disk of its layers, each once.
    pub bytes: u64,
    /// Of these, bytes of layers that other images have too.
    pub shared: u64,
}

/// What a store takes of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Layers as files.
    pub layers: Share,
    /// Manifests, configs, and layers' blobs where these are kept.
    pub blobs: Share,
    /// Directories of containers from images.
    pub containers: Share,
    /// Volumes with names; those without are in their containers' directories.
    pub volumes: Share,
    /// What imports that died have left.
    pub unfinished: Share,
    /// What downloads have brought that are under way or broke off.
    pub downloads: Share,
    /// Image by image.
    pub images: Vec<ImageUsage>,
}

impl Store {
    /// Removes images, and the layers that nothing else uses.
    ///
    /// It is all or nothing: a name that isn't there or a layer in use refuses
    /// the whole call. Imports and downloads under way are waited for.
    ///
    /// # Errors
    /// NotFound for a name, State for a layer in use.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        self.names_of(names)?;
        let _lock = self.lock(Sharing::Exclusive)?;
        self.release_abandoned()?;
        let names = self.names_of(names)?;
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
        self.sweep(&kept.into_iter().chain(held).collect(), &staying, false).map(drop)
    }

    /// The names in full. One that means several images is refused even if these
    /// are the same: only one of the names is to go.
    fn names_of(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for name in names {
            let found = self.matching(name)?;
            match found.as_slice() {
                [one] => drop(all.insert(one.name.clone())),
                [] => drop(self.find(name)?),
                several => {
                    let names: Vec<_> = several.iter().map(|r| r.name.as_str()).collect();
                    let names = names.join(", ");
                    return Err(Error::invalid(format!("image {name}: this may be {names}")));
                }
            }
        }
        Ok(all)
    }

    /// Removes what no image and no container needs: layers and documents of
    /// images that got a new version under the same name, and what imports that
    /// died have left. With `dry` it only tells.
    ///
    /// # Errors
    /// System for what can't be read or removed.
    pub fn collect(&self, dry: bool) -> Result<Vec<Garbage>> {
        if !self.is_used()? {
            return Ok(Vec::new());
        }
        let _lock = self.lock(Sharing::Exclusive)?;
        let mut garbage = self.unfinished()?;
        if !dry {
            staging::clean(self)?;
            self.release_abandoned()?;
        }
        garbage.extend(self.forgotten(dry)?);
        garbage.extend(self.ended(dry)?);
        garbage.extend(self.unneeded(dry)?);
        Ok(garbage)
    }

    /// Layers and documents that nothing needs.
    fn unneeded(&self, dry: bool) -> Result<Vec<Garbage>> {
        let images = self.list()?;
        let held = self.live_references()?.into_iter().flat_map(|r| r.layers);
        let kept = used_layers(&images).into_iter().chain(held).collect();
        self.sweep(&kept, &images, dry)
    }

    /// Removes downloads that nobody came back for. With `dry` it only tells.
    pub(crate) fn forgotten(&self, dry: bool) -> Result<Vec<Garbage>> {
        let mut garbage = Vec::new();
        for (path, _lock) in self.stale_downloads()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into();
            garbage.push(Garbage { kind: "download", name, bytes: disk::usage(&path)? });
            if !dry {
                remove_tree(&path).step(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(garbage)
    }

    /// Removes what the containers have left that ended with the machine: nobody can
    /// delete them, since nobody knows of them any more. With `dry` it only tells.
    fn ended(&self, dry: bool) -> Result<Vec<Garbage>> {
        let mut garbage = Vec::new();
        let unnoted = self.unnoted()?;
        let stale = self.references()?.into_iter().filter(Reference::is_stale);
        for owner in &stale.map(|one| one.owner).chain(unnoted).collect::<Vec<_>>() {
            let name = owner.file_name().unwrap_or_default().to_string_lossy().into();
            garbage.push(Garbage { kind: "container", name, bytes: disk::usage(owner)? });
            if !dry {
                remove_tree(owner).step(|| format!("remove {}", owner.display()))?;
                self.release(owner)?;
            }
        }
        Ok(garbage)
    }

    /// Directories of containers whose notes a power cut has taken: a note is written
    /// first, and removed last.
    fn unnoted(&self) -> Result<Vec<PathBuf>> {
        let containers = self.path().join("containers");
        // before the notes: others may be at work
        let names = read_names(&containers)?;
        let noted = self.noted()?;
        // by name: a store may be reached by several paths
        let is_noted =
            |name: &String| noted.iter().any(|one| one.owner.file_name() == Some(name.as_ref()));
        let unnoted = names.into_iter().filter(|name| !is_noted(name));
        let dirs = unnoted.map(|name| containers.join(name));
        Ok(dirs.filter(|dir| dir.symlink_metadata().is_ok()).collect())
    }

    /// What imports have left that did not end.
    fn unfinished(&self) -> Result<Vec<Garbage>> {
        let parent = self.path().join("staging");
        let mut all = Vec::new();
        for (name, _) in tree::names(open_dir(&parent)?.as_fd())? {
            let path = parent.join(tree::name_path(&name));
            if staging::is_alive(&path)? {
                continue;
            }
            let bytes = disk::usage(&path)?;
            all.push(Garbage { kind: "import", name: name.to_string_lossy().into(), bytes });
        }
        Ok(all)
    }

    /// What could go, without waiting for imports and downloads under way: they may
    /// be about to need some of it.
    fn reclaimable(&self) -> Result<BTreeSet<String>> {
        if !self.is_used()? {
            return Ok(BTreeSet::new());
        }
        let _lock = self.lock(Sharing::Shared)?;
        let all =
            [self.unfinished()?, self.forgotten(true)?, self.ended(true)?, self.unneeded(true)?];
        Ok(all.into_iter().flatten().map(|garbage| garbage.name).collect())
    }

    /// What the store takes of the disk.
    ///
    /// # Errors
    /// System for what can't be read.
    pub fn usage(&self) -> Result<Usage> {
        let unused = self.reclaimable()?;
        let images = self.list()?;
        let mut usage = Usage::default();
        let mut layers = BTreeMap::new();
        for (digest, path) in digest_entries(&self.path().join("layers"))? {
            let bytes = disk::usage(&path)?;
            usage.layers.add(bytes, unused.contains(digest.hex()));
            layers.insert(digest, bytes);
        }
        for (digest, path) in digest_entries(&self.path().join("blobs"))? {
            usage.blobs.add(disk::usage(&path)?, unused.contains(digest.hex()));
        }
        for (dir, share) in [
            ("staging", &mut usage.unfinished),
            ("downloads", &mut usage.downloads),
            ("containers", &mut usage.containers),
            ("volumes", &mut usage.volumes),
        ] {
            for name in read_names(&self.path().join(dir))? {
                let path = self.path().join(dir).join(&name);
                share.add(disk::usage(&path)?, unused.contains(&name));
            }
        }
        for image in &images {
            let own = used_layers(std::slice::from_ref(image));
            let others = used_layers(images.iter().filter(|other| other.name != image.name));
            let sum = |of: &mut dyn Iterator<Item = &Digest>| -> u64 {
                of.filter_map(|digest| layers.get(digest)).sum()
            };
            usage.images.push(ImageUsage {
                name: image.name.clone(),
                bytes: sum(&mut own.iter()),
                shared: sum(&mut own.intersection(&others)),
            });
        }
        Ok(usage)
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
    fn sweep(
        &self,
        kept: &BTreeSet<Digest>,
        staying: &[Record],
        dry: bool,
    ) -> Result<Vec<Garbage>> {
        let mut garbage = Vec::new();
        let staging = if dry { None } else { Some(Staging::new(self)?) };
        for (digest, path) in digest_entries(&self.path().join("layers"))? {
            if !kept.contains(&digest) && !self.is_mounted(&digest)? {
                garbage.push(Garbage::at("layer", &digest, &path)?);
                if let Some(staging) = &staging {
                    // out of the way first: a kill must not leave half a layer
                    staging.take(&path, digest.hex())?;
                }
            }
        }
        garbage.extend(self.half_written(dry)?);
        let blobs = staying.iter().flat_map(|r| {
            let layers = r.layers.iter().map(|layer| &layer.digest);
            [&r.digest, &r.config_digest].into_iter().chain(layers)
        });
        let blobs: BTreeSet<&Digest> = blobs.collect();
        for (digest, path) in digest_entries(&self.path().join("blobs"))? {
            if !blobs.contains(&digest) {
                garbage.push(Garbage::at("blob", &digest, &path)?);
                if !dry {
                    fs::remove_file(path)?;
                }
            }
        }
        staging.map_or(Ok(()), Staging::remove)?;
        Ok(garbage)
    }

    /// Temporary files of records and documents, whose writers died: living ones
    /// have the store's lock.
    fn half_written(&self, dry: bool) -> Result<Vec<Garbage>> {
        let mut garbage = Vec::new();
        for dir in ["images", "refs", "blobs/sha256", "blobs/sha512"] {
            let dir = self.path().join(dir);
            for name in read_names(&dir)?.into_iter().filter(|name| name.starts_with('.')) {
                let path = dir.join(&name);
                garbage.push(Garbage { kind: "import", bytes: disk::usage(&path)?, name });
                if !dry {
                    fs::remove_file(&path).step(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(garbage)
    }

    fn is_mounted(&self, layer: &Digest) -> Result<bool> {
        let path = self.layer_path(layer);
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo")?;
        let path = path.to_string_lossy();
        Ok(mounts.lines().any(|line| line.contains(path.as_ref())))
    }

    /// References that count.
    fn live_references(&self) -> Result<Vec<Reference>> {
        let mut all = self.references()?;
        all.retain(|reference| !reference.is_stale());
        Ok(all)
    }

    /// References whose owner is there.
    fn references(&self) -> Result<Vec<Reference>> {
        let mut all = self.noted()?;
        all.retain(|reference| !self.is_gone(reference));
        Ok(all)
    }

    /// Whether the owner is not there, by its path or, as a store may be reached by
    /// several, by its name among the containers.
    fn is_gone(&self, reference: &Reference) -> bool {
        let named =
            reference.owner.file_name().map(|name| self.path().join("containers").join(name));
        reference.is_abandoned() && named.is_none_or(|dir| dir.symlink_metadata().is_err())
    }

    /// Removes references whose owner is not there. It takes the exclusive lock: a
    /// container's is written before its directory is made.
    fn release_abandoned(&self) -> Result<()> {
        let refs = self.path().join("refs");
        for name in read_names(&refs)? {
            let note = refs.join(&name);
            // the end of a container takes its own one, whatever we lock
            let there = |done: io::Result<Vec<u8>>| match done {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some).step(|| note.display().to_string()),
            };
            if name.ends_with(".json")
                && there(fs::read(&note))?.is_some_and(|bytes| is_lost(&bytes))
            {
                there(fs::remove_file(&note).map(|()| Vec::new()))?;
            }
        }
        let noted = self.noted()?;
        let mut abandoned = noted.iter().filter(|reference| self.is_gone(reference));
        abandoned.try_for_each(|reference| self.release(&reference.owner))
    }

    fn noted(&self) -> Result<Vec<Reference>> {
        read_dir_json(&self.path().join("refs"), true)
    }
}

/// The names in a directory, if it is there.
fn read_names(dir: &Path) -> Result<BTreeSet<String>> {
    match open_dir(dir) {
        Err(nix::errno::Errno::ENOENT) => Ok(BTreeSet::new()),
        other => {
            let names = tree::names(other?.as_fd())?;
            Ok(names.into_iter().map(|(name, _)| name.to_string_lossy().into()).collect())
        }
    }
}

fn used_layers<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeSet<Digest> {
    records.into_iter().flat_map(Record::diff_ids).cloned().collect()
}

/// Every `DIR/ALGORITHM/HEX`.
pub(super) fn digest_entries(dir: &Path) -> Result<Vec<(Digest, PathBuf)>> {
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
