//! Medians, quartiles, and how sure a ratio of two medians is.

/// What is said of a row of figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) min: f64,
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
}

/// `None` for no figures at all.
pub(crate) fn summary(figures: &[f64]) -> Option<Summary> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let min = *sorted.first()?;
    Some(Summary {
        n: sorted.len(),
        min,
        q1: quantile(&sorted, 0.25),
        median: quantile(&sorted, 0.5),
        q3: quantile(&sorted, 0.75),
    })
}

/// Between two figures it goes straight from one to the other.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len().saturating_sub(1)) as f64;
    let below = at.floor() as usize;
    let get = |i: usize| sorted.get(i).or(sorted.last()).copied().unwrap_or(f64::NAN);
    get(below) + (get(below + 1) - get(below)) * (at - at.floor())
}

/// Where the ratio of the medians of `a` and `b` lies in 95 of 100 cases: the
/// figures are drawn anew from themselves (a bootstrap).
pub(crate) fn ratio_interval(a: &[f64], b: &[f64], random: &mut Random) -> Option<(f64, f64)> {
    const DRAWS: usize = 1000;
    if a.len() < 5 || b.len() < 5 {
        return None;
    }
    let mut ratios: Vec<f64> =
        (0..DRAWS).map(|_| redrawn_median(a, random) / redrawn_median(b, random)).collect();
    ratios.sort_by(f64::total_cmp);
    Some((quantile(&ratios, 0.025), quantile(&ratios, 0.975)))
}

fn redrawn_median(figures: &[f64], random: &mut Random) -> f64 {
    let mut drawn: Vec<f64> =
        figures.iter().filter_map(|_| figures.get(random.below(figures.len()))).copied().collect();
    drawn.sort_by(f64::total_cmp);
    quantile(&drawn, 0.5)
}

/// Random numbers from a seed (splitmix64): the same order on a second run.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 where there is none.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        match limit {
            0 => 0,
            // the slight preference for small numbers is of no matter here
            limit => (self.next() % limit as u64) as usize,
        }
    }

    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_figures() {
        let found = summary(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(found, Summary { n: 4, min: 1.0, q1: 1.75, median: 2.5, q3: 3.25 });
        let one = summary(&[7.0]).unwrap();
        assert_eq!((one.min, one.q1, one.median, one.q3), (7.0, 7.0, 7.0, 7.0));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn an_interval_holds_the_ratio() {
        let a: Vec<f64> = (0..40).map(|i| 10.0 + f64::from(i % 7) * 0.1).collect();
        let b: Vec<f64> = a.iter().map(|x| x * 2.0).collect();
        let (low, high) = ratio_interval(&a, &b, &mut Random::new(1)).unwrap();
        assert!(low <= 0.5 && 0.5 <= high && high - low < 0.05, "{low} {high}");
        assert_eq!(ratio_interval(&a, &[1.0], &mut Random::new(1)), None);
    }

    #[test]
    fn a_seed_gives_an_order() {
        let shuffled = |seed| {
            let mut all: Vec<u32> = (0..20).collect();
            Random::new(seed).shuffle(&mut all);
            all
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_eq!(Random::new(1).below(0), 0);
    }
}
