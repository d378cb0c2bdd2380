//! One clock for processes of which some are in another time namespace.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// How far this process' monotonic clock is ahead of the runtime's, nanoseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// How often two clocks are read together, for one time without an interruption in
/// between.
const ATTEMPTS: usize = 8;

/// The runtime's monotonic clock: nanoseconds. No system call, where the kernel
/// gives processes a clock to read (vdso(7)).
pub(super) fn now() -> u64 {
    let own = nanoseconds(ClockId::CLOCK_MONOTONIC);
    (own - AHEAD.load(Ordering::Relaxed)).cast_unsigned()
}

/// How much processor time this process has had since it was made, and how long it
/// has waited for a processor: nanoseconds. Without the kernel's statistics of
/// that, the first alone.
pub(super) fn spent() -> u64 {
    let own = nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID).cast_unsigned();
    // proc(5): time on a processor, time waiting for one, turns
    let waited = std::fs::read_to_string("/proc/self/schedstat").ok();
    let waited = waited.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    own.saturating_add(waited.unwrap_or(0))
}

/// The monotonic clock and one that no namespace shifts, at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Both {
    monotonic: i64,
    real: i64,
}

impl Both {
    pub(super) fn read() -> Self {
        let attempt = || {
            let before = nanoseconds(ClockId::CLOCK_MONOTONIC);
            let real = nanoseconds(ClockId::CLOCK_REALTIME);
            let after = nanoseconds(ClockId::CLOCK_MONOTONIC);
            (after - before, Both { monotonic: before + (after - before) / 2, real })
        };
        let mut best = attempt();
        for _ in 1..ATTEMPTS {
            let next = attempt();
            best = if next.0 < best.0 { next } else { best };
        }
        best.1
    }

    /// This process has another monotonic clock since then: what it is ahead is
    /// left out from now on. What lies in between has to be so short that nobody
    /// sets the machine's time meanwhile.
    pub(super) fn since(self) {
        let now = Both::read();
        let shift = (now.monotonic - self.monotonic) - (now.real - self.real);
        AHEAD.fetch_add(shift, Ordering::Relaxed);
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    // Linux has all three
    let time = clock_gettime(clock).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    time.0.saturating_mul(1_000_000_000).saturating_add(time.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_shifted_goes_on() {
        let before = now();
        Both::read().since();
        let after = now();
        // less than a thread may have to wait for a processor
        assert!(after.abs_diff(before) < 10_000_000_000, "{before} {after}");
        assert!(AHEAD.load(Ordering::Relaxed).abs() < 1_000_000_000);
        assert!(spent() > 0);
    }
}
