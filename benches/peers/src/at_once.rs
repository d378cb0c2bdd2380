//! Many containers at the same time: whether they all end well, and whether the
//! processors have anything to wait for.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::bundles::Config;
use crate::figures::Figure;
use crate::measure::Bench;
use crate::process::Runner;
use crate::runtime::Runtime;
use crate::table::TARE;

/// How many.
const AT_ONCE: usize = 16;

impl Bench<'_> {
    /// Runs that many containers, [`AT_ONCE`] of them at any time.
    pub(crate) fn at_once(&mut self, tare: &Runtime, count: usize) -> Result<()> {
        let each = count.div_ceil(AT_ONCE);
        let ids: Vec<Vec<String>> =
            (0..AT_ONCE).map(|_| (0..each).map(|_| self.id()).collect()).collect();
        let runners: Vec<_> = (0..AT_ONCE).map(|n| self.runner.beside(n)).collect();
        let bundles = self.bundles;
        let run = |ids: &[String], runner: &Runner| -> Result<()> {
            for id in ids {
                let mut command = tare.run(bundles, Config::Default, "true", id);
                runner.at_once(&mut command).with_context(|| format!("run {id}"))?;
            }
            Ok(())
        };
        let (work_before, begin) = (processors()?, Instant::now());
        std::thread::scope(|scope| {
            let each = ids.iter().zip(&runners);
            let threads: Vec<_> =
                each.map(|(ids, runner)| scope.spawn(|| run(ids, runner))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_panic) => bail!("a thread has panicked"),
            })
        })?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        let work = processors()?.since(work_before);
        let left = tare.left();
        ensure!(left.is_empty(), "left in the state directory: {}", left.join(" "));
        let runs = (each * AT_ONCE) as f64;
        self.figures.add(Figure::AtOnce, Config::Any, TARE, took / runs);
        self.figures.add(Figure::Busy, Config::Any, TARE, work.busy_percent());
        Ok(())
    }
}

/// Ticks of all processors since the machine's start (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    busy: f64,
    idle: f64,
}

impl Ticks {
    fn of(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let all: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap_or(0.0)).collect();
        // user nice system idle iowait irq softirq steal; the guests' are in user
        let idle: f64 = all.get(3..5)?.iter().sum();
        Some(Ticks { busy: all.iter().take(8).sum::<f64>() - idle, idle })
    }

    fn since(self, before: Ticks) -> Ticks {
        Ticks { busy: self.busy - before.busy, idle: self.idle - before.idle }
    }

    fn busy_percent(self) -> f64 {
        self.busy / (self.busy + self.idle).max(1.0) * 100.0
    }
}

fn processors() -> Result<Ticks> {
    let stat = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    Ticks::of(&stat).context("/proc/stat has no line of all processors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_busy_or_idle() {
        let before = Ticks::of("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1\n").unwrap();
        assert_eq!(before, Ticks { busy: 20.0, idle: 80.0 });
        let after = Ticks::of("cpu  40 10 30 80 20 5 5 0 9 0\n").unwrap();
        assert_eq!(after.since(before), Ticks { busy: 70.0, idle: 20.0 });
        assert!((after.since(before).busy_percent() - 77.78).abs() < 0.01);
        assert_eq!(Ticks::of("intr 1\n"), None);
    }
}
