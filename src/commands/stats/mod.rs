//! `tare stats`.

mod live;
mod openmetrics;
mod table;

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::shape::Figures;
use crate::cli::{GlobalArgs, StatsArgs, StatsFormat};
use crate::container::{ContainerId, Entry, Sample, Status, Store};
use crate::error::{Error, ErrorKind, Result, Step, phrase};

/// One container in the JSON form.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    pid: i32,
    status: Status,
    data: Figures<'a>,
}

pub(super) fn run(global: &GlobalArgs, args: &StatsArgs) -> anyhow::Result<()> {
    let interval = super::duration::positive("--interval", &args.interval)?;
    let ids: Vec<ContainerId> =
        args.ids.iter().map(|id| ContainerId::parse(id)).collect::<Result<_>>()?;
    let source = Source { store: super::store(global)?, ids };
    let first = source.first()?;
    let text = match args.format {
        StatsFormat::Table if !args.no_stream && std::io::stdout().is_terminal() => {
            return Ok(live::run(&source, first, interval)?);
        }
        StatsFormat::Table => table::lines(&first, &[]).join("\n") + "\n",
        StatsFormat::Json => serde_json::to_string(&rows(&first))? + "\n",
        StatsFormat::Openmetrics => openmetrics::text(&first),
    };
    Ok(std::io::stdout().write_all(text.as_bytes()).step(|| super::PRINTING)?)
}

fn rows(samples: &[Sample]) -> Vec<Row<'_>> {
    samples.iter().map(Row::of).collect()
}

impl<'a> Row<'a> {
    fn of(sample: &'a Sample) -> Self {
        Row {
            id: &sample.id,
            pid: sample.init.pid,
            status: sample.status,
            data: Figures::of(&sample.stats),
        }
    }
}

/// The containers that are asked for: these, or all.
struct Source {
    store: Store,
    ids: Vec<ContainerId>,
}

impl Source {
    /// The first look: a container that was named has to be there, and to run.
    fn first(&self) -> Result<Vec<Sample>> {
        if self.ids.is_empty() {
            return self.again();
        }
        let sample = |id: &ContainerId| {
            let sample =
                self.store.find(id).and_then(|entry| Sample::of(&entry)).map_err(|e| e.step(id))?;
            sample.ok_or_else(|| Error::new(ErrorKind::State, phrase::NOT_RUNNING).step(id))
        };
        self.ids.iter().map(sample).collect()
    }

    /// Any look: who has ended is no longer there.
    fn again(&self) -> Result<Vec<Sample>> {
        if self.ids.is_empty() {
            let all = self.store.containers()?;
            return Ok(samples(&all.ids, |id| all.find(id)));
        }
        Ok(samples(&self.ids, |id| self.store.find(id)))
    }
}

fn samples(ids: &[ContainerId], find: impl Fn(&ContainerId) -> Result<Entry>) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(ids.len());
    for id in ids {
        match find(id).and_then(|entry| Sample::of(&entry)) {
            Ok(sample) => samples.extend(sample),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // one broken container is no reason to hide the others
            Err(e) => crate::logging::warn(&format!("stats: {id}: {e}")),
        }
    }
    samples
}
