//! `umount`.

use crate::cli::{GlobalArgs, UmountArgs};

/// Takes the bundle apart.
pub(super) fn run(_global: &GlobalArgs, _args: &UmountArgs) -> anyhow::Result<i32> {
    anyhow::bail!("not yet")
}
