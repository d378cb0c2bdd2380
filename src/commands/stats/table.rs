//! Figures for people.

use std::collections::HashMap;

use crate::container::stats::{Pressure, Stats};
use crate::container::{Bytes, Sample};

/// Stands for a figure that the kernel does not tell.
const ABSENT: &str = "-";

const HEAD: [&str; 10] =
    ["ID", "STATUS", "CPU %", "MEMORY", "LIMIT", "MEM %", "READ", "WRITTEN", "PIDS", "PSI C/M/I %"];

/// The table's lines. The processor's percent is of the time since `before`, or
/// since the container's start where it is not in there.
pub(super) fn lines(samples: &[Sample], before: &[Sample]) -> Vec<String> {
    let before: HashMap<&str, &Sample> = before.iter().map(|one| (one.id.as_str(), one)).collect();
    let rows = samples.iter().map(|sample| row(sample, before.get(sample.id.as_str()).copied()));
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    crate::commands::table::lines(&rows)
}

fn row(sample: &Sample, before: Option<&Sample>) -> [String; HEAD.len()] {
    let stats = &sample.stats;
    let memory = stats.memory.as_ref();
    let limit = memory.and_then(|memory| memory.limit);
    let io = stats.io.as_ref();
    [
        sample.id.clone(),
        sample.status.to_string(),
        cell(sample.cpu_percent(before), percent),
        cell(memory.map(|memory| memory.usage), bytes),
        cell(limit, bytes),
        cell(memory.zip(limit).and_then(|(memory, limit)| share(memory.usage, limit)), percent),
        cell(io.map(|io| io.iter().map(|device| device.read.bytes).sum()), bytes),
        cell(io.map(|io| io.iter().map(|device| device.write.bytes).sum()), bytes),
        pids(stats),
        pressures(stats),
    ]
}

fn cell<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| ABSENT.to_owned(), show)
}

fn percent(percent: f64) -> String {
    format!("{percent:.1}")
}

fn bytes(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

#[allow(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

fn pids(stats: &Stats) -> String {
    let Some(pids) = stats.pids else { return ABSENT.to_owned() };
    match pids.limit {
        Some(limit) => format!("{}/{limit}", pids.current),
        None => pids.current.to_string(),
    }
}

/// Percent of the last ten seconds in which some process waited.
fn pressures(stats: &Stats) -> String {
    let one = |pressure: Option<Pressure>| {
        cell(pressure.and_then(|p| p.some), |stall| percent(stall.avg10))
    };
    let all = [stats.cpu_pressure, stats.memory_pressure, stats.io_pressure];
    match all {
        [None, None, None] => ABSENT.to_owned(),
        _ => all.map(one).join("/"),
    }
}
