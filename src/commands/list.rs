//! `tare list`.

use std::io::Write;

use crate::cli::{GlobalArgs, ListArgs, ListFormat};
use crate::container::State;
use crate::error::{ErrorKind, Step};

pub(super) fn run(global: &GlobalArgs, args: &ListArgs) -> anyhow::Result<()> {
    let store = super::store(global)?;
    let mut states = Vec::new();
    let mut out = std::io::stdout().lock();
    for id in store.ids()? {
        if args.quiet {
            writeln!(out, "{id}").step(|| super::PRINTING)?;
            continue;
        }
        match store.find(&id).and_then(|entry| State::of(&entry)) {
            Ok(state) => states.push(state),
            // deleted since its name was read
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // one broken container is no reason to hide the others
            Err(e) => crate::logging::warn(&format!("list: {id}: {e}")),
        }
    }
    if args.quiet {
        return Ok(());
    }
    match args.format {
        ListFormat::Json => {
            writeln!(out, "{}", serde_json::to_string(&states)?).step(|| super::PRINTING)?
        }
        ListFormat::Table => table(&mut out, &states)?,
    }
    Ok(())
}

fn table(out: &mut impl Write, states: &[State]) -> crate::error::Result<()> {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|s| {
        [
            s.id.clone(),
            s.pid.to_string(),
            s.status.to_string(),
            s.bundle.display().to_string(),
            s.created.clone(),
            s.owner.clone(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    for line in super::table::lines(&rows) {
        writeln!(out, "{line}").step(|| super::PRINTING)?;
    }
    Ok(())
}
