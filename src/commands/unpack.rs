//! `unpack`.

use crate::cli::{GlobalArgs, UnpackArgs};

/// Makes the bundle.
pub(super) fn run(_global: &GlobalArgs, _args: &UnpackArgs) -> anyhow::Result<i32> {
    anyhow::bail!("not yet")
}
