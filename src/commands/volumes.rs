//! The volumes of a container from an image: those of `-v`, and those that the
//! image's configuration asks for.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Error, Result, Step};
use crate::image::bind::{Bind, Source, VolumeWords};
use crate::image::store::{Image, Store};
use crate::sandbox::copy_tree;
use crate::spec::check_bind;
use crate::sys::fs::{open_dir, open_in_root};
use crate::volume::Volumes;

/// The most volumes that an image's configuration may ask for: each gets a copy of
/// what the image has there.
const MOST: usize = 256;

/// What is to be mounted, by its words.
pub(super) struct Wanted(Vec<VolumeWords>);

impl Wanted {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        let words = |text: &String| {
            let words = VolumeWords::parse(text)?;
            // before a volume is made for it
            check_bind(&words.destination, &words.options)
                .map_err(|e| e.step(format!("volume {text:?}")))?;
            Ok(words)
        };
        let all = texts.iter().map(words).collect::<Result<Vec<_>>>()?;
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
        let paths = config.and_then(|c| c.volumes().clone()).unwrap_or_default();
        let mut binds = Vec::new();
        for destination in destinations(&paths)? {
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

/// The places that an image's configuration names, each once however it is spelt.
fn destinations(paths: &[String]) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for path in paths {
        let wrong = |what| Err(Error::invalid(format!("volume {path:?} of the image: {what}")));
        let mut plain = PathBuf::from("/");
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => plain.push(name),
                Component::ParentDir => return wrong(".. is in it"),
                _ => {}
            }
        }
        if plain.parent().is_none() {
            return wrong("it is the root");
        }
        all.insert(plain);
    }
    if all.len() > MOST {
        return Err(Error::invalid(format!(
            "the image asks for {} volumes, more than {MOST}",
            all.len()
        )));
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_once_however_it_is_spelt() {
        let strings = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let found = destinations(&strings(&["/usr", "/usr/", "/./usr", "usr//", "/usr/lib"]));
        let wanted = ["/usr", "/usr/lib"].map(PathBuf::from);
        assert_eq!(found.unwrap().into_iter().collect::<Vec<_>>(), wanted);
        for bad in ["/usr/../etc", "..", "/", "", "."] {
            let e = destinations(&strings(&[bad])).unwrap_err();
            assert!(e.to_string().contains("of the image"), "{e}");
        }
        let mut many: Vec<_> = (0..MOST).map(|n| format!("/{n}")).collect();
        assert_eq!(destinations(&many).unwrap().len(), MOST);
        many.push("/one".to_owned());
        let e = destinations(&many).unwrap_err();
        assert!(e.to_string().contains("257 volumes, more than 256"), "{e}");
    }
}
