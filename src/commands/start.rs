//! `tare start`.

use crate::cli::{GlobalArgs, StartArgs};
use crate::container::{self, NotifySocket};

pub(super) fn run(global: &GlobalArgs, args: &StartArgs) -> anyhow::Result<()> {
    Ok(container::start(super::find(global, &args.id)?, NotifySocket::from_env()?)?)
}
