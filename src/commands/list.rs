//! `tare list`.

use std::io::Write;
use std::path::PathBuf;

use nix::errno::Errno;
use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::{GlobalArgs, ListArgs, ListFormat};
use crate::container::{ContainerId, Containers, State};
use crate::error::{Error, ErrorKind, Step};

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
    let all = super::store(global)?.containers()?;
    // a path that was mistyped looks as if nothing were there
    if let Some(root) = global.root.as_ref().filter(|_| !all.has_root()) {
        let e = Error::from(Errno::ENOENT).step(format!("--root {}", root.display()));
        return Err(e.hint("it is made with the first container").into());
    }
    let text = match args.format {
        _ if args.quiet => ids(&all),
        ListFormat::Json => {
            let listed: Vec<Listed> = all.ids.iter().filter_map(|id| look_at(&all, id)).collect();
            serde_json::to_string(&listed)? + "\n"
        }
        ListFormat::Table => {
            let listed: Vec<Listed> = all.ids.iter().filter_map(|id| look_at(&all, id)).collect();
            table(&listed)
        }
    };
    // in one write: of many containers, each line would be one
    std::io::stdout().lock().write_all(text.as_bytes()).step(|| super::PRINTING)?;
    Ok(())
}

fn ids(all: &Containers) -> String {
    let is_ours =
        |id: &&ContainerId| !all.find(id).and_then(|entry| entry.is_foreign()).unwrap_or(false);
    all.ids.iter().filter(is_ours).map(|id| format!("{id}\n")).collect()
}

fn look_at(all: &Containers, id: &ContainerId) -> Option<Listed> {
    let entry = match all.find(id) {
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

fn table(listed: &[Listed]) -> String {
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
    super::table::lines(&rows).join("\n") + "\n"
}
