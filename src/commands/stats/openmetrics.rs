//! Figures as OpenMetrics text (the OpenMetrics specification 1.0, "Text
//! format"): names, units and sources are in docs/metrics.md.

use std::fmt::Write;

use crate::container::stats::{DeviceIo, Stall, Stats};
use crate::container::{Sample, Status};

/// A family of figures: the same name, type and unit.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// Its figures of one container.
    figures: fn(&Sample) -> Vec<Figure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

/// One sample: labels beside `id`, and the value as it is written.
struct Figure {
    labels: Vec<(&'static str, String)>,
    value: String,
}

/// Units that a name may end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

const FAMILIES: [Family; 21] = [
    Family {
        name: "tare_container",
        kind: Kind::Info,
        help: "Status of a container.",
        figures: |sample| {
            vec![Figure { labels: vec![("status", status(sample.status))], value: one() }]
        },
    },
    counter("tare_cpu_usage_seconds", "Processor time.", |s| {
        time(s.stats.cpu.map(|cpu| cpu.usage))
    }),
    counter("tare_cpu_user_seconds", "Processor time in programs.", |s| {
        time(s.stats.cpu.map(|cpu| cpu.user))
    }),
    counter("tare_cpu_system_seconds", "Processor time in the kernel.", |s| {
        time(s.stats.cpu.map(|cpu| cpu.system))
    }),
    counter("tare_cpu_periods", "Periods of the processor limit in which something ran.", |s| {
        plain(throttling(&s.stats, |t| t.periods))
    }),
    counter("tare_cpu_throttled_periods", "Periods in which the limit was reached.", |s| {
        plain(throttling(&s.stats, |t| t.throttled_periods))
    }),
    counter("tare_cpu_throttled_seconds", "Time held back by the processor limit.", |s| {
        time(throttling(&s.stats, |t| t.throttled))
    }),
    gauge("tare_memory_usage_bytes", "Memory in use.", |s| {
        plain(s.stats.memory.as_ref().map(|memory| memory.usage))
    }),
    gauge("tare_memory_limit_bytes", "Limit of memory; absent without one.", |s| {
        plain(s.stats.memory.as_ref().and_then(|memory| memory.limit))
    }),
    gauge("tare_memory_swap_usage_bytes", "Swap in use.", |s| {
        plain(s.stats.memory.as_ref().and_then(|memory| memory.swap).map(|swap| swap.usage))
    }),
    counter("tare_memory_limit_hits", "Times that usage was about to exceed the limit.", |s| {
        plain(s.stats.memory.as_ref().and_then(|memory| memory.events).map(|events| events.max))
    }),
    counter("tare_memory_oom", "Times that no memory could be had.", |s| {
        plain(s.stats.memory.as_ref().and_then(|memory| memory.events).map(|events| events.oom))
    }),
    counter("tare_memory_oom_kills", "Processes killed for want of memory.", |s| {
        plain(
            s.stats.memory.as_ref().and_then(|memory| memory.events).map(|events| events.oom_kill),
        )
    }),
    gauge("tare_pids", "Processes and threads.", |s| plain(s.stats.pids.map(|pids| pids.current))),
    gauge("tare_pids_limit", "Limit of processes and threads; absent without one.", |s| {
        plain(s.stats.pids.and_then(|pids| pids.limit))
    }),
    counter("tare_io_read_bytes", "Bytes read from a block device.", |s| {
        devices(s, |device| device.read.bytes)
    }),
    counter("tare_io_written_bytes", "Bytes written to a block device.", |s| {
        devices(s, |device| device.write.bytes)
    }),
    counter("tare_io_reads", "Reads of a block device.", |s| {
        devices(s, |device| device.read.count)
    }),
    counter("tare_io_writes", "Writes to a block device.", |s| {
        devices(s, |device| device.write.count)
    }),
    counter("tare_pressure_some_seconds", "Time in which some process waited.", |s| {
        pressure(s, |p| p.some)
    }),
    counter("tare_pressure_full_seconds", "Time in which all processes waited.", |s| {
        pressure(s, |p| p.full)
    }),
];

const fn counter(
    name: &'static str,
    help: &'static str,
    figures: fn(&Sample) -> Vec<Figure>,
) -> Family {
    Family { name, kind: Kind::Counter, help, figures }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    figures: fn(&Sample) -> Vec<Figure>,
) -> Family {
    Family { name, kind: Kind::Gauge, help, figures }
}

/// The whole exposition.
pub(super) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    for family in &FAMILIES {
        family.write(samples, &mut text).unwrap_or_default();
    }
    text + "# EOF\n"
}

impl Family {
    /// A string takes all that is written to it.
    fn write(&self, samples: &[Sample], text: &mut String) -> std::fmt::Result {
        let Family { name, kind, help, figures } = self;
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Info => ("info", "_info"),
        };
        writeln!(text, "# TYPE {name} {kind}")?;
        if let Some(unit) = name.rsplit('_').next().filter(|last| UNITS.contains(last)) {
            writeln!(text, "# UNIT {name} {unit}")?;
        }
        writeln!(text, "# HELP {name} {help}")?;
        for sample in samples {
            for figure in figures(sample) {
                write!(text, "{name}{suffix}{{id=\"{}\"", escaped(&sample.id))?;
                for (label, value) in &figure.labels {
                    write!(text, ",{label}=\"{}\"", escaped(value))?;
                }
                writeln!(text, "}} {}", figure.value)?;
            }
        }
        Ok(())
    }
}

/// A label's value, as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn status(status: Status) -> String {
    status.to_string()
}

fn one() -> String {
    "1".to_owned()
}

fn plain(figure: Option<u64>) -> Vec<Figure> {
    figure
        .map(|figure| Figure { labels: Vec::new(), value: figure.to_string() })
        .into_iter()
        .collect()
}

/// Microseconds, as seconds.
fn time(microseconds: Option<u64>) -> Vec<Figure> {
    let figure = |us| Figure { labels: Vec::new(), value: seconds(us) };
    microseconds.map(figure).into_iter().collect()
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

fn throttling(
    stats: &Stats,
    figure: fn(crate::container::stats::Throttling) -> u64,
) -> Option<u64> {
    stats.cpu?.throttling.map(figure)
}

fn devices(sample: &Sample, figure: fn(&DeviceIo) -> u64) -> Vec<Figure> {
    let one = |device: &DeviceIo| Figure {
        labels: vec![("device", format!("{}:{}", device.major, device.minor))],
        value: figure(device).to_string(),
    };
    sample.stats.io.iter().flatten().map(one).collect()
}

fn pressure(
    sample: &Sample,
    line: fn(crate::container::stats::Pressure) -> Option<Stall>,
) -> Vec<Figure> {
    let Stats { cpu_pressure, memory_pressure, io_pressure, .. } = sample.stats;
    [("cpu", cpu_pressure), ("memory", memory_pressure), ("io", io_pressure)]
        .into_iter()
        .filter_map(|(resource, pressure)| {
            let labels = vec![("resource", resource.to_owned())];
            Some(Figure { labels, value: seconds(line(pressure?)?.total) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn microseconds_keep_their_zeros() {
        assert_eq!(seconds(0), "0.000000");
        assert_eq!(seconds(12_000_034), "12.000034");
    }

    #[test]
    fn without_containers_the_families_are_there() {
        let text = text(&[]);
        assert_eq!(text.matches("# TYPE ").count(), FAMILIES.len());
        assert!(text.ends_with("# EOF\n"));
    }
}
