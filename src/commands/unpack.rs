//! `unpack`.

use crate::cli::{GlobalArgs, RootfsMode, UnpackArgs};
use crate::error::Error;
use crate::image::store::Store;
use crate::image::unpack::{RootfsForm, unpack};
use crate::sys::caller::caller;

/// Makes the bundle.
pub(super) fn run(global: &GlobalArgs, args: &UnpackArgs) -> anyhow::Result<i32> {
    let store = Store::open(global.store.as_deref())?;
    let form = match args.rootfs_mode {
        RootfsMode::Overlay => RootfsForm::Overlay,
        RootfsMode::Copy => RootfsForm::Copy,
    };
    if form == RootfsForm::Overlay && !caller().capable {
        return Err(Error::unsupported(
            "--rootfs-mode overlay: the mount of an ordinary user would \
                                       be there for this command alone",
        )
        .hint("--rootfs-mode copy does")
        .into());
    }
    super::become_root_of_files()?;
    let image = store.resolve(&args.image, &super::image::selector(&args.select)?)?;
    unpack(&store, &image, &args.bundle, form)?;
    Ok(0)
}
