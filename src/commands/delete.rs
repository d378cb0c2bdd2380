//! `tare delete`.

use crate::cli::{DeleteArgs, GlobalArgs};
use crate::container;
use crate::error::ErrorKind;

pub(super) fn run(global: &GlobalArgs, args: &DeleteArgs) -> anyhow::Result<()> {
    let found =
        super::find(global, &args.id).and_then(|entry| container::delete(entry, args.force));
    match found {
        // gone is what --force asks for
        Err(e) if args.force && e.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}
