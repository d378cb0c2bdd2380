//! `umount`.

use crate::cli::UmountArgs;
use crate::image::unpack::umount;

/// Takes the bundle apart.
pub(super) fn run(args: &UmountArgs) -> anyhow::Result<i32> {
    super::become_root_of_files()?;
    umount(&args.bundle)?;
    Ok(0)
}
