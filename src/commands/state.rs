//! `tare state`.

use std::io::Write;

use crate::cli::{GlobalArgs, StateArgs};
use crate::container::State;
use crate::error::Step;

pub(super) fn run(global: &GlobalArgs, args: &StateArgs) -> anyhow::Result<()> {
    let state = State::of(&super::find(global, &args.id)?)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&state)?)
        .step(|| super::PRINTING)?;
    Ok(())
}
