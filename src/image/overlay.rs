//! Overlays of layers, mounted by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use crate::error::{Error, Result, Step};
use crate::sys::mount::{FsContext, MountAttr, attr, clone_tree, mount_setattr};

/// The parts of an overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayPlan {
    /// The layers from the bottom up, as [`Image::layers`] has them.
    ///
    /// [`Image::layers`]: super::store::Image::layers
    pub lower: Vec<PathBuf>,
    /// Where changes go. Without it the overlay is read-only.
    pub upper: Option<PathBuf>,
    /// An empty directory on the file system of `upper`.
    pub work: Option<PathBuf>,
}

/// Mounts the overlay; it is in no mount table before someone moves it there,
/// and gone when the descriptor is closed.
///
/// # Errors
/// Invalid for a plan that overlayfs has no form for; System with the kernel's
/// own words otherwise.
pub fn mount_detached(plan: &OverlayPlan) -> Result<OwnedFd> {
    let step = || "mount the overlay of the image's layers";
    match (&plan.upper, &plan.work, plan.lower.as_slice()) {
        (_, _, []) => Err(Error::invalid("no layers").step(step())),
        (None, _, [only]) => read_only(only).step(step),
        (Some(_), None, _) => {
            Err(Error::invalid("an upper directory needs a work one").step(step()))
        }
        _ => match overlay(plan, Layers::Appended) {
            // lowerdir+ came with Linux 6.5
            Err(e) if e.is_errno(Errno::EINVAL) => overlay(plan, Layers::Joined),
            other => other,
        }
        .step(step),
    }
}

/// One layer alone is no overlay for the kernel: a read-only view of it is the
/// same.
fn read_only(layer: &Path) -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, layer, false, 0)?;
    let attr = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), false, &attr)?;
    Ok(tree)
}

#[derive(Clone, Copy)]
enum Layers {
    /// `lowerdir+`, once a layer.
    Appended,
    /// `lowerdir`, all in one string.
    Joined,
}

fn overlay(plan: &OverlayPlan, form: Layers) -> Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set("source", "overlay")?;
    // overlayfs names the uppermost layer first
    let layers = plan.lower.iter().rev();
    match form {
        Layers::Appended => {
            for layer in layers {
                context.set("lowerdir+", text(layer)?)?;
            }
        }
        Layers::Joined => {
            let layers = layers.map(|layer| Ok(escape(text(layer)?)));
            let joined = layers.collect::<Result<Vec<_>>>()?.join(":");
            context.set("lowerdir", &joined)?;
        }
    }
    if let (Some(upper), Some(work)) = (&plan.upper, &plan.work) {
        context.set("upperdir", &escape_commas(text(upper)?, form))?;
        context.set("workdir", &escape_commas(text(work)?, form))?;
    }
    context.mount(0)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::invalid(format!("{}: not UTF-8", path.display())))
}

/// In `lowerdir` a colon separates layers and a backslash escapes.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Kernels from before `lowerdir+` take the upper directories' backslashes as
/// escapes, too.
fn escape_commas(path: &str, form: Layers) -> String {
    match form {
        Layers::Appended => path.to_owned(),
        Layers::Joined => path.replace('\\', "\\\\").replace(',', "\\,"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        assert_eq!(escape(r"/a:b,c\d"), r"/a\:b\,c\\d");
    }

    #[test]
    fn a_plan_without_layers_is_refused() {
        assert!(mount_detached(&OverlayPlan::default()).is_err());
    }
}
