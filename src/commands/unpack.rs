//! `unpack`.

use crate::cli::{GlobalArgs, RootfsMode, UnpackArgs};
use crate::image::store::Store;
use crate::image::unpack::{RootfsForm, unpack};

/// Makes the bundle.
pub(super) fn run(global: &GlobalArgs, args: &UnpackArgs) -> anyhow::Result<i32> {
    let store = Store::open(global.store.as_deref())?;
    let image = store.resolve(&args.image, &super::image::selector(&args.select)?)?;
    let form = match args.rootfs_mode {
        RootfsMode::Overlay => RootfsForm::Overlay,
        RootfsMode::Copy => RootfsForm::Copy,
    };
    unpack(&store, &image, &args.bundle, form)?;
    Ok(0)
}
