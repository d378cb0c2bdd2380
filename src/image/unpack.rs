//! Bundles from images, and the way back.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::bundle::{RuntimeOverrides, spec_for};
use super::import::make_open_dir;
use super::overlay::{OverlayPlan, mount_detached};
use super::store::{Image, Store};
use super::{copy, manifest, tree};
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::spec::rootless;
use crate::sys::caller::caller;
use crate::sys::fs::{open_dir, replace_file};
use crate::sys::mount::move_mount;

/// What `umount` needs to know, in the bundle.
const MARK: &str = ".tare-bundle.json";

/// How a bundle gets its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootfsForm {
    /// An overlay of the layers, mounted at `rootfs`.
    Overlay,
    /// A plain directory.
    Copy,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    store: PathBuf,
    image: String,
    mode: RootfsForm,
    /// Whether the bundle's directory itself was made by `unpack`.
    made_dir: bool,
}

/// Makes a bundle of an image at `bundle`, a directory that is not there or
/// empty.
///
/// # Errors
/// Exists where there is something already. Nothing is left then, as with all
/// other errors.
pub fn unpack(store: &Store, image: &Image, bundle: &Path, mode: RootfsForm) -> Result<()> {
    let step = || format!("unpack {} to {}", image.name, bundle.display());
    let bundle = std::path::absolute(bundle).step(step)?;
    let made_dir = claim(&bundle).step(step)?;
    let mark = Mark { store: store.path().to_owned(), image: image.name.clone(), mode, made_dir };
    let done = fill(store, image, &bundle, &mark);
    let done = done.map_err(|e| match undo(&bundle, &mark) {
        Ok(()) => e,
        Err(left) => e.hint(format!("and its undoing failed: {left}")),
    });
    done.step(step)
}

/// Makes sure of an empty directory; the answer is whether it was made here.
fn claim(bundle: &Path) -> Result<bool> {
    match DirBuilder::new().mode(0o700).create(bundle) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let dir = open_dir(bundle)?;
            if tree::names(dir.as_fd())?.is_empty() {
                Ok(false)
            } else {
                Err(Error::new(ErrorKind::Exists, "the directory is not empty"))
            }
        }
        Err(e) => Err(e.into()),
    }
}

fn fill(store: &Store, image: &Image, bundle: &Path, mark: &Mark) -> Result<()> {
    let dir = open_dir(bundle)?;
    write(&dir, MARK, &serde_json::to_vec(mark).map_err(json_error)?)?;
    store.hold(image, &bundle.join(MARK))?;
    let rootfs = bundle.join("rootfs");
    make_open_dir(&rootfs)?;
    let layers = store.layers_or_empty(image);
    let root = match mark.mode {
        RootfsForm::Copy => {
            copy::merge(&layers, &rootfs)?;
            // nothing of the store is used any more
            store.release(&bundle.join(MARK))?;
            open_dir(&rootfs)?
        }
        RootfsForm::Overlay => {
            let (upper, work) = (bundle.join("upper"), bundle.join("work"));
            make_open_dir(&upper)?;
            DirBuilder::new().mode(0o700).create(&work)?;
            // a fresh upper directory would show its own attributes as the root's
            copy_root(&layers, &upper)?;
            let (upper, work) = (Some(upper), Some(work));
            mount_detached(&OverlayPlan { lower: layers, upper, work, volatile: false })
                .map_err(|e| e.hint("--rootfs-mode copy does without"))?
        }
    };
    let mut spec = spec_for(&image.config, root.as_fd(), &RuntimeOverrides::default())?;
    // nothing newer is in it, and older runtimes refuse what they don't know
    spec.set_version("1.0.2".to_owned());
    if !caller().capable {
        // this process is root of the user namespace that the container gets
        let (uid_map, gid_map) = rootless::own_maps()?;
        rootless::adapt(&mut spec, &uid_map, &gid_map, false)?;
    }
    let text = serde_json::to_vec_pretty(&spec).map_err(json_error)?;
    write(&dir, "config.json", &text)?;
    if mark.mode == RootfsForm::Overlay {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = nix::fcntl::openat(AT_FDCWD, &rootfs, flags, Mode::empty())?;
        move_mount(root.as_fd(), target.as_fd()).step(|| "mount rootfs")?;
    }
    Ok(())
}

fn write(dir: &OwnedFd, name: &str, bytes: &[u8]) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o600);
    replace_file(dir.as_fd(), name, bytes, mode, false).step(|| format!("write {name}"))
}

fn json_error(e: serde_json::Error) -> Error {
    Error::invalid(e.to_string())
}

/// Gives an upper directory the attributes that the uppermost layer's root has.
///
/// # Errors
/// System when they can't be read or set.
pub fn copy_root(layers: &[PathBuf], upper: &Path) -> Result<()> {
    if let Some(top) = layers.last() {
        let step = || "attributes of the root directory";
        let (top, upper) = (open_dir(top).step(step)?, open_dir(upper).step(step)?);
        super::parents::copy_attributes(top.as_fd(), upper.as_fd()).step(step)?;
    }
    Ok(())
}

/// Takes apart a bundle that [`unpack`] made: unmounts `rootfs`, and removes
/// it, `upper`, `work`, `config.json`, and the directory if it was made by
/// `unpack` and nothing else is in it.
///
/// # Errors
/// NotFound for what is no such bundle, State while `rootfs` is in use.
pub fn umount(bundle: &Path) -> Result<()> {
    let step = || format!("umount {}", bundle.display());
    let bundle = std::path::absolute(bundle).step(step)?;
    let mark: Mark = match fs::read(bundle.join(MARK)) {
        Ok(bytes) => manifest::json(&bytes, MARK).step(step)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let missing = match bundle.symlink_metadata() {
                Ok(_) => Error::new(ErrorKind::NotFound, "not a bundle that tare unpack made"),
                Err(_) => Error::new(ErrorKind::NotFound, phrase::DOES_NOT_EXIST),
            };
            return Err(missing.step(step()));
        }
        Err(e) => return Err(Error::from(e).step(step())),
    };
    undo(&bundle, &mark).step(step)
}

fn undo(bundle: &Path, mark: &Mark) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    if mark.mode == RootfsForm::Overlay {
        match umount2(&rootfs, MntFlags::UMOUNT_NOFOLLOW) {
            // not mounted: never was, or the machine has restarted
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(Errno::EBUSY) => {
                return Err(Error::new(ErrorKind::State, "rootfs is in use")
                    .hint("stop what runs in it first"));
            }
            Err(e) => return Err(e).step(|| "rootfs"),
        }
    }
    let dir = open_dir(bundle)?;
    // the mark last: it is what a second try goes by
    for name in ["rootfs", "upper", "work", "config.json"] {
        tree::remove(dir.as_fd(), Path::new(name))?;
    }
    Store::open(Some(&mark.store))?.release(&bundle.join(MARK))?;
    tree::remove(dir.as_fd(), Path::new(MARK))?;
    if mark.made_dir {
        match fs::remove_dir(bundle) {
            // someone's own files are in it: they stay, and it for them
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}
