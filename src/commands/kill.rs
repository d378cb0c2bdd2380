//! `tare kill`.

use crate::cli::{GlobalArgs, KillArgs};
use crate::container;

pub(super) fn run(global: &GlobalArgs, args: &KillArgs) -> anyhow::Result<()> {
    let signal = container::parse_signal(&args.signal)?;
    Ok(container::kill(&super::find(global, &args.id)?, signal, args.all)?)
}
