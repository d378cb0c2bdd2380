//! `tare spec`.

use crate::cli::SpecArgs;

pub(super) fn run(args: &SpecArgs) -> anyhow::Result<()> {
    let _args = args;
    anyhow::bail!("not yet")
}
