//! Figures as JSON, in the shape that programs know from runc. What the kernel
//! does not tell is left out; docs/metrics.md says where each comes from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::container::stats::{
    self, DeviceIo, HugePages, MemoryEvents, Pressure, Stats, Transfers,
};

/// What runc writes for "no limit".
const UNLIMITED: u64 = u64::MAX;

/// All figures of a container.
#[derive(Debug, Serialize)]
pub(super) struct Figures<'a> {
    cpu: Cpu,
    cpuset: CpuSet<'a>,
    memory: Memory<'a>,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<&'a str, Entry>,
    intel_rdt: Nothing,
    /// runc has figures only of interfaces that itself has made: none.
    network_interfaces: Option<Nothing>,
}

#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<CpuUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttling: Option<Throttling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

/// Nanoseconds.
#[derive(Debug, Serialize)]
struct CpuUsage {
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    /// Nanoseconds.
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct CpuSet<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<&'a [u16]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mems: Option<&'a [u16]>,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<Entry>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    kernel_tcp: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_count: Option<EventCount>,
}

/// Bytes, and how often the limit was reached.
#[derive(Debug, Default, Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failcnt: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EventCount {
    max: u64,
    oom: u64,
    oom_kill: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Option::is_none")]
    io_service_bytes_recursive: Option<Vec<BlockEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_serviced_recursive: Option<Vec<BlockEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Serialize)]
struct BlockEntry {
    major: u64,
    minor: u64,
    op: &'static str,
    value: u64,
}

impl<'a> Figures<'a> {
    pub(super) fn of(stats: &'a Stats) -> Self {
        let cpuset = stats.cpuset.as_ref();
        Figures {
            cpu: Cpu::of(stats),
            cpuset: CpuSet { cpus: cpuset.map(|c| &*c.cpus), mems: cpuset.map(|c| &*c.mems) },
            memory: Memory::of(stats),
            pids: Pids {
                current: stats.pids.map(|pids| pids.current),
                limit: stats.pids.and_then(|pids| pids.limit),
            },
            blkio: BlockIo::of(stats),
            hugetlb: stats.huge_pages.iter().map(|(size, h)| (&**size, Entry::huge(h))).collect(),
            intel_rdt: Nothing {},
            network_interfaces: None,
        }
    }
}

impl Cpu {
    fn of(stats: &Stats) -> Self {
        let nanoseconds = |microseconds: u64| microseconds.saturating_mul(1000);
        let usage = |cpu: stats::Cpu| CpuUsage {
            total: nanoseconds(cpu.usage),
            kernel: nanoseconds(cpu.system),
            user: nanoseconds(cpu.user),
        };
        let throttling = |t: stats::Throttling| Throttling {
            periods: t.periods,
            throttled_periods: t.throttled_periods,
            throttled_time: nanoseconds(t.throttled),
        };
        Cpu {
            usage: stats.cpu.map(usage),
            throttling: stats.cpu.and_then(|cpu| cpu.throttling).map(throttling),
            psi: stats.cpu_pressure,
        }
    }
}

impl<'a> Memory<'a> {
    fn of(stats: &'a Stats) -> Self {
        let memory = stats.memory.as_ref();
        let stat = |key: &str| memory?.stat.get(key).copied();
        let part = |key| stat(key).map(|usage| Entry { usage, ..Entry::default() });
        Memory {
            cache: stat("file"),
            usage: memory.map(Entry::memory),
            swap: memory.and_then(Entry::memory_and_swap),
            kernel: part("kernel"),
            kernel_tcp: part("sock"),
            raw: memory.map(|memory| &memory.stat).filter(|stat| !stat.is_empty()),
            psi: stats.memory_pressure,
            event_count: memory.and_then(|memory| memory.events).map(EventCount::of),
        }
    }
}

impl EventCount {
    fn of(events: MemoryEvents) -> Self {
        EventCount { max: events.max, oom: events.oom, oom_kill: events.oom_kill }
    }
}

impl Entry {
    fn memory(memory: &stats::Memory) -> Self {
        Entry {
            limit: Some(memory.limit.unwrap_or(UNLIMITED)),
            usage: memory.usage,
            max: memory.peak,
            failcnt: memory.events.map(|events| events.max),
        }
    }

    /// Both together, as with cgroup v1 and with runc.
    fn memory_and_swap(memory: &stats::Memory) -> Option<Self> {
        let swap = memory.swap?;
        let limit = memory.limit.zip(swap.limit).map(|(a, b)| a.saturating_add(b));
        Some(Entry {
            // of the brief figures that of swap is not one
            limit: (!memory.stat.is_empty()).then(|| limit.unwrap_or(UNLIMITED)),
            usage: memory.usage.saturating_add(swap.usage),
            max: None,
            failcnt: swap.at_limit,
        })
    }

    fn huge(pages: &HugePages) -> Self {
        Entry { usage: pages.usage, failcnt: pages.at_limit, ..Entry::default() }
    }
}

impl BlockIo {
    fn of(stats: &Stats) -> Self {
        let entries = |figure: fn(&Transfers) -> u64| {
            Some(stats.io.as_ref()?.iter().flat_map(|device| entries(device, figure)).collect())
        };
        BlockIo {
            io_service_bytes_recursive: entries(|transfers| transfers.bytes),
            io_serviced_recursive: entries(|transfers| transfers.count),
            psi: stats.io_pressure,
        }
    }
}

fn entries(device: &DeviceIo, figure: fn(&Transfers) -> u64) -> [BlockEntry; 3] {
    let DeviceIo { major, minor, .. } = *device;
    let entry = |op, transfers| BlockEntry { major, minor, op, value: figure(transfers) };
    [entry("Read", &device.read), entry("Write", &device.write), entry("Discard", &device.discard)]
}
