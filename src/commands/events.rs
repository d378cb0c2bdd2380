//! `tare events`.

use std::io::Write;
use std::os::fd::AsFd;

use serde::Serialize;

use super::shape::Figures;
use crate::cli::{EventsArgs, GlobalArgs};
use crate::container::stats::MemoryEvents;
use crate::container::{Detail, Event, Live};
use crate::error::{Error, ErrorKind, Result, Step};

/// One line of the answer.
#[derive(Serialize)]
struct Line<'a, T> {
    r#type: &'static str,
    id: &'a str,
    data: T,
}

/// What has come since the line before.
#[derive(Serialize)]
struct OutOfMemory {
    /// Allocations that could not be had.
    oom: u64,
    /// Processes that were killed for it.
    oom_kill: u64,
    /// Of `oom`, those at the container's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_local: Option<u64>,
}

pub(super) fn run(global: &GlobalArgs, args: &EventsArgs) -> anyhow::Result<()> {
    let interval = super::duration::positive("--interval", &args.interval)?;
    let live = Live::of(&super::find(global, &args.id)?)?;
    if args.stats {
        let stats = live.stats(Detail::Full)?;
        return Ok(print(&args.id, "stats", Figures::of(&stats))?);
    }
    let out = std::io::stdout();
    let told = live.watch(interval, out.as_fd(), |event| match event {
        Event::Stats(stats) => print(&args.id, "stats", Figures::of(&stats)),
        Event::OutOfMemory(events) => {
            let MemoryEvents { oom, oom_kill, oom_local, .. } = events;
            print(&args.id, "oom", OutOfMemory { oom, oom_kill, oom_local })
        }
    });
    match told {
        // the reader has enough: an end like any other
        Err(e) if e.is_errno(nix::errno::Errno::EPIPE) => Ok(()),
        other => Ok(other?),
    }
}

fn print<T: Serialize>(id: &str, r#type: &'static str, data: T) -> Result<()> {
    let mut line = serde_json::to_vec(&Line { r#type, id, data })
        .map_err(|e| Error::new(ErrorKind::System, format!("encode the event: {e}")))?;
    line.push(b'\n');
    // one write a line: it is whole for whoever reads along
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).step(|| super::PRINTING)
}
