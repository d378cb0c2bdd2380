//! `tare pause` and `tare resume`.

use crate::cli::{GlobalArgs, PauseArgs};
use crate::container;

pub(super) fn run(global: &GlobalArgs, args: &PauseArgs) -> anyhow::Result<()> {
    Ok(container::pause(&super::find(global, &args.id)?)?)
}

pub(super) fn run_resume(global: &GlobalArgs, args: &PauseArgs) -> anyhow::Result<()> {
    Ok(container::resume(&super::find(global, &args.id)?)?)
}
