//! `tare list`.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::{GlobalArgs, ListArgs, ListFormat};
use crate::container::{ContainerId, State, Store};
use crate::error::{Error, ErrorKind, Result, Step};

/// One container in the list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Listed {
    Container(Box<State>),
    Broken(Broken),
}

/// A container without a record that can be read, in the shape of one with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Broken {
    oci_version: &'static str,
    id: String,
    pid: i32,
    status: &'static str,
    bundle: PathBuf,
    rootfs: PathBuf,
    /// The time of the last change: callers parse it.
    created: String,
    owner: String,
}

pub(super) fn run(global: &GlobalArgs, args: &ListArgs) -> anyhow::Result<()> {
    let store = super::store(global)?;
    let mut listed = Vec::new();
    let mut out = std::io::stdout().lock();
    for id in store.ids()? {
        if args.quiet {
            if !store.find(&id).and_then(|entry| entry.is_foreign()).unwrap_or(false) {
                writeln!(out, "{id}").step(|| super::PRINTING)?;
            }
            continue;
        }
        listed.extend(look_at(&store, &id));
    }
    if args.quiet {
        return Ok(());
    }
    match args.format {
        ListFormat::Json => {
            writeln!(out, "{}", serde_json::to_string(&listed)?).step(|| super::PRINTING)?
        }
        ListFormat::Table => table(&mut out, &listed)?,
    }
    Ok(())
}

fn look_at(store: &Store, id: &ContainerId) -> Option<Listed> {
    let entry = match store.find(id) {
        Ok(entry) => entry,
        // deleted since its name was read
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        Err(e) => return Some(Listed::Broken(broken(id, &e, None))),
    };
    match State::of(&entry) {
        Ok(state) => Some(Listed::Container(Box::new(state))),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(_) if entry.is_foreign().unwrap_or(false) => None,
        // no record yet, or never: its creator has the id, or was killed
        Err(e) if e.kind() == ErrorKind::State => {
            Some(Listed::Broken(without_record(id, "creating", entry.changed().ok())))
        }
        // one broken container is no reason to hide the others, nor itself
        Err(e) => Some(Listed::Broken(broken(id, &e, entry.changed().ok()))),
    }
}

fn broken(id: &ContainerId, why: &Error, changed: Option<OffsetDateTime>) -> Broken {
    crate::logging::warn(&format!("list: {id}: {why}"));
    without_record(id, "broken", changed)
}

fn without_record(
    id: &ContainerId,
    status: &'static str,
    changed: Option<OffsetDateTime>,
) -> Broken {
    let changed = changed.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Broken {
        oci_version: crate::spec::OCI_VERSION,
        id: id.to_string(),
        pid: 0,
        status,
        bundle: PathBuf::new(),
        rootfs: PathBuf::new(),
        created: crate::logging::format(changed),
        owner: String::new(),
    }
}

fn table(out: &mut impl Write, listed: &[Listed]) -> Result<()> {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = listed.iter().map(|row| match row {
        Listed::Container(s) => [
            s.id.clone(),
            s.pid.to_string(),
            s.status.to_string(),
            s.bundle.display().to_string(),
            s.created.clone(),
            s.owner.clone(),
        ],
        Listed::Broken(b) => {
            let none = || "-".to_owned();
            [b.id.clone(), none(), b.status.to_owned(), none(), b.created.clone(), none()]
        }
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    for line in super::table::lines(&rows) {
        writeln!(out, "{line}").step(|| super::PRINTING)?;
    }
    Ok(())
}
