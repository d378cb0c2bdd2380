//! What each of many containers takes: time over their number, memory.

use std::time::Duration;

use anyhow::Result;

use crate::bundles::Config;
use crate::crowd::kib;
use crate::figures::Figure;
use crate::measure::Bench;
use crate::runtime::Runtime;
use crate::stats::summary;
use crate::table::TARE;

/// Parts that the containers are divided into, in their order: the median of each is
/// a point of the line.
pub(crate) const BINS: usize = 20;

/// How long the kernel may be busy with what has gone.
const SETTLING: Duration = Duration::from_millis(1500);

/// How often `state`, `list` and `stats` are asked.
const ASKED: usize = 10;

impl Bench<'_> {
    /// Makes that many, asks about them and takes them away again. All of them once before
    /// it counts: a virtual machine may have to ask its host for each page that it has not
    /// used before.
    pub(crate) fn scale(&mut self, tare: &Runtime, count: usize) -> Result<()> {
        let before: Result<Vec<_>> = (0..count).map(|_| self.member(tare, &mut |_| {})).collect();
        self.disperse(tare, &before?, &mut |_, _| {})?;
        // the kernel takes their namespaces apart
        std::thread::sleep(SETTLING);
        let mut taken = Vec::new();
        nix::unistd::sync();
        let before = kib("/proc/meminfo", "MemAvailable")?;
        let mut members = Vec::with_capacity(count);
        let mut creates = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(self.member(tare, &mut |took| creates.push(took))?);
            self.runner.watch.check()?;
        }
        eprintln!("bench: scale: {count} containers are there");
        taken.extend(creates.iter().map(|took| (Figure::ScaleCreate, *took)));
        taken.extend(slope(&creates).map(|slope| (Figure::ScaleSlope, slope)));
        for (id, _) in &members {
            taken.push((Figure::ScaleStart, self.runner.at_once(&mut tare.on("start", id))?));
        }
        let used = before - kib("/proc/meminfo", "MemAvailable")?;
        taken.push((Figure::ScaleMemory, used / count as f64));
        let mut own = 0.0;
        for (_, pid) in &members {
            own += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss")?;
        }
        taken.push((Figure::ScaleOwn, own / count as f64));
        for at in 0..ASKED {
            if let Some((id, _)) = members.get(at * count / ASKED) {
                taken.push((Figure::ScaleState, self.runner.spaced(&mut tare.on("state", id))?));
            }
            taken.push((Figure::ScaleList, self.on_all(tare, &["list"], count)?));
            let stats = self.on_all(tare, &["stats", "--no-stream"], count)?;
            taken.push((Figure::ScaleStats, stats));
        }
        self.disperse(tare, &members, &mut |figure, took| taken.push((figure, took)))?;
        for (figure, value) in taken {
            self.figures.add(figure, Config::Any, TARE, value);
        }
        Ok(())
    }
}

/// Medians of the parts of a row: the place of each part's middle, and the median.
pub(crate) fn medians(row: &[f64]) -> Vec<(f64, f64)> {
    let bound = |part: usize| part * row.len() / BINS;
    (0..BINS)
        .filter_map(|part| {
            let (from, to) = (bound(part), bound(part + 1));
            let median = summary(row.get(from..to)?)?.median;
            Some(((from + to) as f64 / 2.0, median))
        })
        .collect()
}

/// The straight line that is nearest to some points (least squares): where it begins,
/// and how much it rises for each step.
pub(crate) fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    (spread > 0.0).then(|| (y - together / spread * x, together / spread))
}

/// How many percent more the last of a row takes than the first, on the line through
/// the medians: a moment in which the machine does something else bends it little.
fn slope(row: &[f64]) -> Option<f64> {
    let (first, step) = line(&medians(row))?;
    (first > 0.0).then(|| step * row.len() as f64 / first * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_medians() {
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 0.01;
        assert!(near(slope(&[4.0; 100]), 0.0));
        let mut rising: Vec<f64> = (0..1000).map(|at| 10.0 + f64::from(at) / 1000.0).collect();
        assert!(near(slope(&rising), 10.0), "{:?}", slope(&rising));
        for at in [3, 500, 999] {
            rising[at] = 400.0;
        }
        assert!((slope(&rising).unwrap() - 10.0).abs() < 0.1, "{:?}", slope(&rising));
        assert_eq!(slope(&[]), None);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        assert_eq!(line(&[(0.0, 1.0), (2.0, 5.0)]), Some((1.0, 2.0)));
        assert_eq!(line(&[(1.0, 1.0)]), None);
    }
}
