//! The figures of one container among many.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::figures::has_cgroup;
use super::record::InitProcess;
use super::state::Status;
use super::store::Entry;
use crate::cgroup::Cgroup;
use crate::cgroup::stats::{Detail, Stats};
use crate::error::{ErrorKind, Result, Step};

/// A container at one moment.
#[derive(Debug)]
pub struct Sample {
    /// Its id.
    pub id: String,
    /// Its init.
    pub init: InitProcess,
    /// Created, running or paused.
    pub status: Status,
    /// When its figures were read.
    pub taken: Instant,
    /// How old its init was then.
    pub age: Duration,
    /// Its figures; of a container without a cgroup there are none.
    pub stats: Stats,
}

impl Sample {
    /// Reads the figures that a table shows; `None` of a container that has no
    /// live init.
    ///
    /// # Errors
    /// A record that is damaged; figures that can't be read.
    pub fn of(entry: &Entry) -> Result<Option<Sample>> {
        let Some(record) = entry.load_settled()? else { return Ok(None) };
        let status = Status::of(entry, &record)?;
        let (Some(init), Status::Created | Status::Running | Status::Paused) =
            (record.init, status)
        else {
            return Ok(None);
        };
        let stats = match has_cgroup(&record.cgroup).then(|| Cgroup::open(record.cgroup)) {
            None => Stats::default(),
            Some(Err(e)) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Some(cgroup) => cgroup?.stats(Detail::Brief)?,
        };
        Ok(Some(Sample {
            id: record.id,
            init,
            status,
            taken: Instant::now(),
            age: age(init)?,
            stats,
        }))
    }

    /// Processor time since `before`, or since its start, in percent of one
    /// processor; `None` where it is not counted.
    #[must_use]
    pub fn cpu_percent(&self, before: Option<&Sample>) -> Option<f64> {
        let now = self.stats.cpu?.usage;
        let before = before.filter(|before| before.init == self.init);
        let (used, time) = match before.and_then(|before| Some((before, before.stats.cpu?))) {
            Some((before, cpu)) => {
                (now.saturating_sub(cpu.usage), self.taken.duration_since(before.taken))
            }
            None => (now, self.age),
        };
        let seconds = time.as_secs_f64();
        let used = Duration::from_micros(used).as_secs_f64();
        (seconds > 0.0).then(|| used / seconds * 100.0)
    }
}

/// How long a process has been there.
fn age(init: InitProcess) -> Result<Duration> {
    let step = || "read the clock";
    let ticks = sysconf(SysconfVar::CLK_TCK).step(step)?;
    let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0);
    let ticks = ticks.unwrap_or(100);
    let started = Duration::from_nanos(
        (init.start_time / ticks).saturating_mul(1_000_000_000)
            + (init.start_time % ticks) * 1_000_000_000 / ticks,
    );
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).step(step)?);
    Ok(now.saturating_sub(started))
}
