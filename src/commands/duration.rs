//! Durations as Go programs write them, and as callers of runc give them.

use std::time::Duration;

use crate::error::{Error, Result};

/// Units, and their nanoseconds. A longer name comes before its own beginning.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `5s`, `1m30s`, `500ms`, `1.5h`: numbers with a unit each.
///
/// # Errors
/// Anything else, and what is not greater than 0; the error begins with `flag`.
pub(super) fn positive(flag: &str, text: &str) -> Result<Duration> {
    let wrong = |why: &str| Error::invalid(format!("{flag}={text}: {why}"));
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let duration =
        parse(rest).ok_or_else(|| wrong("not a duration: give one like 500ms, 5s or 1m30s"))?;
    if negative || duration.is_zero() {
        return Err(wrong("a duration greater than 0 is needed"));
    }
    Ok(duration)
}

fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let (unit, value) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        nanoseconds = nanoseconds.checked_add(times(number, *value)?)?;
        rest = tail.strip_prefix(unit)?;
    }
    // as far as Go's go: 292 years
    i64::try_from(nanoseconds).ok().map(|_fits| Duration::from_nanos(nanoseconds))
}

/// A decimal number times a unit, in nanoseconds.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // more digits than these are less than a nanosecond of an hour
    let digits = fraction.get(..fraction.len().min(13))?;
    let parts: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let part = u64::try_from(parts * u128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_in_go() {
        for (text, nanoseconds) in [
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("2.s", 2_000_000_000),
            ("+1us", 1_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("0h7ns", 7),
        ] {
            assert_eq!(positive("--x", text).unwrap(), Duration::from_nanos(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in ["", "5", "s", ".s", "5 s", "5s ", "1.2.3s", "5x", "--5s", "9999999h", "1e3s"] {
            let error = positive("--x", text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--x={text}: not a duration")), "{error}");
        }
        for text in ["0", "0s", "-5s", "-0", "0.1ns"] {
            let error = positive("--x", text).unwrap_err().to_string();
            assert!(error.contains("greater than 0"), "{text}: {error}");
        }
    }
}
