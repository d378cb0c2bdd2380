//! The figures of a cgroup (cgroup-v2.rst, "Core Interface Files" and
//! "Controllers"; psi.rst).
//!
//! What the kernel does not tell is `None`, never 0: a controller that is not
//! enabled for the cgroup has no files there, and some figures are younger than
//! Linux 5.14.

mod parse;
mod watch;

use std::collections::BTreeMap;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::Serialize;

use super::{Cgroup, tree};
use crate::error::{Error, Result, Step};
use parse::Flat;
pub use watch::{MemoryEvents, MemoryWatch};

/// How much to read of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What a table of many containers shows: a dozen small files.
    Brief,
    /// Everything, memory.stat, huge pages and processor sets among it.
    Full,
}

/// All figures of a cgroup.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Processors and memory nodes that it may use; only with [`Detail::Full`].
    pub cpuset: Option<CpuSet>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Reads and writes of block devices, one entry a device.
    pub io: Option<Vec<DeviceIo>>,
    /// Huge pages by their size as the kernel writes it (`2MB`, `1GB`); only
    /// with [`Detail::Full`].
    pub huge_pages: BTreeMap<String, HugePages>,
    /// Time lost for want of a processor.
    pub cpu_pressure: Option<Pressure>,
    /// Time lost for want of memory.
    pub memory_pressure: Option<Pressure>,
    /// Time lost in waiting for block devices.
    pub io_pressure: Option<Pressure>,
}

/// cpu.stat; all times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cpu {
    /// `usage_usec`
    pub usage: u64,
    /// `user_usec`
    pub user: u64,
    /// `system_usec`
    pub system: u64,
    /// Only with the cpu controller.
    pub throttling: Option<Throttling>,
}

/// The figures of cpu.max in cpu.stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttling {
    /// `nr_periods`
    pub periods: u64,
    /// `nr_throttled`
    pub throttled_periods: u64,
    /// `throttled_usec`, microseconds.
    pub throttled: u64,
}

/// The cpuset controller: numbers, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuSet {
    /// cpuset.cpus.effective
    pub cpus: Vec<u16>,
    /// cpuset.mems.effective
    pub mems: Vec<u16>,
}

/// The memory controller; all sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// memory.current
    pub usage: u64,
    /// memory.max; `None` without a limit.
    pub limit: Option<u64>,
    /// memory.peak (Linux 5.19); only with [`Detail::Full`].
    pub peak: Option<u64>,
    /// memory.events
    pub events: Option<MemoryEvents>,
    /// Swap, where the kernel counts it.
    pub swap: Option<Swap>,
    /// memory.stat; only with [`Detail::Full`].
    pub stat: BTreeMap<String, u64>,
}

/// memory.swap.*, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swap {
    /// memory.swap.current
    pub usage: u64,
    /// memory.swap.max; `None` without a limit, and with [`Detail::Brief`].
    pub limit: Option<u64>,
    /// `max` of memory.swap.events; only with [`Detail::Full`].
    pub at_limit: Option<u64>,
}

/// The pids controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pids {
    /// pids.current
    pub current: u64,
    /// pids.max; `None` without a limit.
    pub limit: Option<u64>,
}

/// One line of io.stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceIo {
    /// Major number of the device.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Reads.
    pub read: Transfers,
    /// Writes.
    pub write: Transfers,
    /// Discards.
    pub discard: Transfers,
}

/// Transfers in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfers {
    /// `rbytes`, `wbytes`, `dbytes`
    pub bytes: u64,
    /// `rios`, `wios`, `dios`: requests.
    pub count: u64,
}

/// hugetlb.SIZE.*, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HugePages {
    /// hugetlb.SIZE.current
    pub usage: u64,
    /// `max` of hugetlb.SIZE.events: how often the limit was reached.
    pub at_limit: Option<u64>,
}

/// A file of pressure stall information.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Pressure {
    /// Some of the processes waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub some: Option<Stall>,
    /// All of them waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<Stall>,
}

/// Time that processes waited.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

impl Cgroup {
    /// Its figures, and those of the cgroups below it.
    ///
    /// # Errors
    /// A file that is there and can't be read. Of a cgroup that is gone there
    /// are no figures.
    pub fn stats(&self, detail: Detail) -> Result<Stats> {
        let full = detail == Detail::Full;
        Ok(Stats {
            cpu: self.flat("cpu.stat")?.and_then(|flat| Cpu::of(&flat)),
            cpuset: if full { self.cpuset()? } else { None },
            memory: self.memory(full)?,
            pids: self.pids()?,
            io: self.text("io.stat")?.map(|text| parse::io(&text)),
            huge_pages: if full { self.huge_pages()? } else { BTreeMap::new() },
            cpu_pressure: self.pressure("cpu.pressure")?,
            memory_pressure: self.pressure("memory.pressure")?,
            io_pressure: self.pressure("io.pressure")?,
        })
    }

    /// The text of a file; `None` without its controller.
    fn text(&self, file: &str) -> Result<Option<String>> {
        match tree::read_figures(self.dir(), file) {
            Ok(text) => Ok(Some(text)),
            // no such file; removed; pressure is not counted, or the cgroup is a
            // threaded one
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => {
                Err(Error::errno(errno).step(format!("read {}/{file}", self.path().display())))
            }
        }
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        // "max" is no number
        Ok(self.text(file)?.and_then(|text| text.trim().parse().ok()))
    }

    fn flat(&self, file: &str) -> Result<Option<Flat>> {
        Ok(self.text(file)?.map(|text| Flat::of(&text)))
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        Ok(self.text(file)?.map(|text| parse::pressure(&text)))
    }

    fn cpuset(&self) -> Result<Option<CpuSet>> {
        let Some(cpus) = self.text("cpuset.cpus.effective")? else { return Ok(None) };
        let mems = self.text("cpuset.mems.effective")?.unwrap_or_default();
        Ok(Some(CpuSet { cpus: parse::list(&cpus), mems: parse::list(&mems) }))
    }

    fn memory(&self, full: bool) -> Result<Option<Memory>> {
        let Some(usage) = self.number("memory.current")? else { return Ok(None) };
        Ok(Some(Memory {
            usage,
            limit: self.number("memory.max")?,
            peak: if full { self.number("memory.peak")? } else { None },
            events: self.flat("memory.events")?.map(|flat| MemoryEvents::of(&flat)),
            swap: self.swap(full)?,
            stat: match full {
                true => self.flat("memory.stat")?.unwrap_or_default().0,
                false => BTreeMap::new(),
            },
        }))
    }

    fn swap(&self, full: bool) -> Result<Option<Swap>> {
        let Some(usage) = self.number("memory.swap.current")? else { return Ok(None) };
        if !full {
            return Ok(Some(Swap { usage, ..Swap::default() }));
        }
        let at_limit = self.flat("memory.swap.events")?.and_then(|flat| flat.get("max"));
        Ok(Some(Swap { usage, limit: self.number("memory.swap.max")?, at_limit }))
    }

    fn pids(&self) -> Result<Option<Pids>> {
        let Some(current) = self.number("pids.current")? else { return Ok(None) };
        Ok(Some(Pids { current, limit: self.number("pids.max")? }))
    }

    fn huge_pages(&self) -> Result<BTreeMap<String, HugePages>> {
        let mut all = BTreeMap::new();
        for size in self.huge_page_sizes()? {
            let Some(usage) = self.number(&format!("hugetlb.{size}.current"))? else { continue };
            let events = self.flat(&format!("hugetlb.{size}.events"))?;
            let at_limit = events.and_then(|flat| flat.get("max"));
            all.insert(size, HugePages { usage, at_limit });
        }
        Ok(all)
    }

    /// By the names of the files: `hugetlb.2MB.current`.
    fn huge_page_sizes(&self) -> Result<Vec<String>> {
        let step = || format!("read {}", self.path().display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = match Dir::openat(self.dir(), ".", flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
            other => other.step(step)?,
        };
        let mut sizes = Vec::new();
        for entry in entries.iter() {
            let entry = entry.step(step)?;
            let name = entry.file_name().to_string_lossy();
            let size = name.strip_prefix("hugetlb.").and_then(|n| n.strip_suffix(".current"));
            // hugetlb.2MB.rsvd.current counts what is promised, not what is used
            sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
        }
        Ok(sizes)
    }
}

impl Cpu {
    fn of(flat: &Flat) -> Option<Self> {
        let throttling = flat.get("nr_periods").map(|periods| Throttling {
            periods,
            throttled_periods: flat.get("nr_throttled").unwrap_or_default(),
            throttled: flat.get("throttled_usec").unwrap_or_default(),
        });
        Some(Cpu {
            usage: flat.get("usage_usec")?,
            user: flat.get("user_usec")?,
            system: flat.get("system_usec")?,
            throttling,
        })
    }
}
