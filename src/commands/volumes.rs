//! The volumes of a container from an image: those of `-v`, and those that the
//! image's configuration asks for.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Error, Result, Step};
use crate::image::bind::{Bind, Source, VolumeWords};
use crate::image::store::{Image, Store};
use crate::sandbox::copy_tree;
use crate::sys::fs::{open_dir, open_in_root};
use crate::volume::Volumes;

/// What is to be mounted, by its words.
pub(super) struct Wanted(Vec<VolumeWords>);

impl Wanted {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        let all = texts.iter().map(|text| VolumeWords::parse(text));
        let all = all.collect::<Result<Vec<_>>>()?;
        for (at, words) in all.iter().enumerate() {
            let path = &words.destination;
            if all.iter().take(at).any(|other| other.destination == *path) {
                return Err(Error::invalid(format!("volume {}: given twice", path.display())));
            }
        }
        Ok(Wanted(all))
    }

    /// Where the uses of volumes by a container are noted: that goes with it.
    pub(super) fn notes(&self, store: &Store, bundle: &Path) -> Vec<PathBuf> {
        let volumes = Volumes::of(store.path());
        let name = |words: &VolumeWords| match &words.source {
            Source::Volume(name) => Some(volumes.note(name, bundle)),
            _ => None,
        };
        self.0.iter().filter_map(name).collect()
    }

    /// Makes and fills what is missing; the mounts of all.
    pub(super) fn mounts(
        &self,
        store: &Store,
        image: &Image,
        bundle: &Path,
        rootfs: BorrowedFd<'_>,
    ) -> Result<Vec<Bind>> {
        let volumes = Volumes::of(store.path());
        let mut own = Own { bundle, rootfs, next: 0 };
        let mut binds = own.configured(image, &self.0)?;
        for words in &self.0 {
            let fill = |to: BorrowedFd<'_>| match words.stays_empty {
                true => Ok(()),
                false => copy_from(rootfs, &words.destination, to),
            };
            let source = match &words.source {
                Source::Path(path) => path.clone(),
                Source::Volume(name) => volumes.join(name, bundle, fill)?,
                Source::Anonymous => own.make(fill)?,
            };
            binds.push(words.bind(&source));
        }
        // one below another comes after it, and is not hidden by it
        binds.sort_by_key(|bind| bind.destination.components().count());
        Ok(binds)
    }
}

/// Volumes without a name: they lie in the container's directory.
struct Own<'a> {
    bundle: &'a Path,
    rootfs: BorrowedFd<'a>,
    next: u32,
}

impl Own<'_> {
    fn make(&mut self, fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<PathBuf> {
        let parent = self.bundle.join("volumes");
        let path = parent.join(self.next.to_string());
        self.next += 1;
        let step = || format!("volume {}", path.display());
        match std::fs::create_dir(&parent) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.step(step)?,
        }
        crate::image::store::make_open_dir(&path).step(step)?;
        fill(open_dir(&path)?.as_fd()).step(step)?;
        Ok(path)
    }

    /// Those of the image's Volumes that `-v` has nothing for.
    fn configured(&mut self, image: &Image, taken: &[VolumeWords]) -> Result<Vec<Bind>> {
        let config = image.config.config().as_ref();
        let mut paths = config.and_then(|c| c.volumes().clone()).unwrap_or_default();
        paths.sort();
        paths.dedup();
        let mut binds = Vec::new();
        for path in paths {
            let destination = Path::new("/").join(path);
            if taken.iter().any(|words| words.destination == destination) {
                continue;
            }
            let words = VolumeWords {
                source: Source::Anonymous,
                destination,
                options: Vec::new(),
                stays_empty: false,
            };
            let rootfs = self.rootfs;
            let source = self.make(|to| copy_from(rootfs, &words.destination, to))?;
            binds.push(words.bind(&source));
        }
        Ok(binds)
    }
}

/// Copies what the image has at a path. Where it has no directory there is nothing
/// to copy.
fn copy_from(rootfs: BorrowedFd<'_>, path: &Path, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    let from = match open_in_root(rootfs, path, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other.step(|| format!("open {}", path.display()))?,
    };
    copy_tree(from.as_fd(), to).step(|| "copy what the image has there")
}
