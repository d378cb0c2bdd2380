//! What the kernel killed in a cgroup for want of memory.

use std::fmt;

use super::{Cgroup, tree};

/// Kills for want of memory, and the figures that tell why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Processes killed in the cgroup and below (memory.events, `oom_kill`).
    pub kills: u64,
    /// True if the cgroup's own limit was reached (memory.events.local, `oom`;
    /// Linux 5.2); false if that of a cgroup above or below, or the machine's.
    pub own_limit: bool,
    /// memory.max, in bytes; `None` without a limit.
    pub limit: Option<u64>,
    /// memory.peak, in bytes; `None` before Linux 5.19.
    pub peak: Option<u64>,
}

impl Cgroup {
    /// What was killed in it for want of memory; `None` if nothing was, or
    /// without the memory controller.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let read = |file| tree::read(self.dir(), file).ok();
        let kills = figure(&read("memory.events")?, "oom_kill").filter(|kills| *kills > 0)?;
        let number = |file| read(file).and_then(|text| text.trim().parse().ok());
        let local = read("memory.events.local").and_then(|text| figure(&text, "oom"));
        Some(OutOfMemory {
            kills,
            own_limit: local.is_some_and(|times| times > 0),
            limit: number("memory.max"),
            peak: number("memory.peak"),
        })
    }
}

/// A figure of a flat-keyed file.
fn figure(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.kills == 1 { "process" } else { "processes" };
        write!(f, "out of memory: the kernel killed {} {noun} ", self.kills)?;
        match (self.own_limit, self.limit) {
            (true, Some(limit)) => write!(f, "at the limit of {}", Bytes(limit))?,
            _ => f.write_str("for a limit that is not the container's own")?,
        }
        match self.peak {
            Some(peak) => write!(f, ", peak {}", Bytes(peak)),
            None => Ok(()),
        }
    }
}

/// A number of bytes, as people write limits.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                let (whole, tenth) = (tenths / 10, tenths % 10);
                return match tenth {
                    0 => write!(f, "{whole} {unit}"),
                    _ => write!(f, "{whole}.{tenth} {unit}"),
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (4096, "4 KiB"),
            (67_108_864, "64 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_figure_is_read_by_its_whole_name() {
        let text = "oom 2\noom_kill 3\noom_group_kill 0\n";
        assert_eq!(figure(text, "oom_kill"), Some(3));
        assert_eq!(figure(text, "oom"), Some(2));
        assert_eq!(figure(text, "max"), None);
    }

    #[test]
    fn the_line_says_whose_limit_it_was() {
        let own =
            OutOfMemory { kills: 1, own_limit: true, limit: Some(8 << 20), peak: Some(8 << 20) };
        assert_eq!(
            own.to_string(),
            "out of memory: the kernel killed 1 process at the limit of 8 MiB, peak 8 MiB"
        );
        let other = OutOfMemory { kills: 2, own_limit: false, limit: None, peak: None };
        assert_eq!(
            other.to_string(),
            "out of memory: the kernel killed 2 processes for a limit that is not the container's own"
        );
    }
}
