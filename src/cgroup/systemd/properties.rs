//! Limits and annotations as properties of a unit (systemd.resource-control(5)).
//!
//! The limits are written to the files of the cgroup as well, exactly. As
//! properties systemd knows them too: else it would put its own defaults in
//! their place when it next writes to the cgroup.

use std::collections::BTreeMap;

use super::text;
use super::value::{Property, Value};
use crate::cgroup::limits::Setting;
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// systemd's "no limit" (CGROUP_LIMIT_MAX, USEC_INFINITY).
const NO_LIMIT: u64 = u64::MAX;

/// The kernel's own period for cpu.max, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Highest number of a processor or memory node that is passed on.
const MOST_PROCESSORS: usize = 1 << 13;

/// A property that an annotation asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Annotated {
    /// The annotation's key.
    pub(super) key: String,
    /// What it asks for.
    pub(super) property: Property,
}

/// The properties that `org.systemd.property.*` annotations ask for. The rest of
/// the key is the name, the value stands in GVariant's text format. A number of
/// seconds, for a name in `…Sec`, becomes one of microseconds for `…USec`, as
/// systemd has it on D-Bus.
///
/// # Errors
/// A name that can't be one, a value that can't be read, a property that is
/// tare's own to set.
pub(super) fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<Annotated>> {
    let ours =
        annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    ours.map(|(key, name, text)| {
        let property = property(name, text)
            .map_err(|why| Error::invalid(why).step(format!("annotations[{key:?}]")))?;
        Ok(Annotated { key: key.clone(), property })
    })
    .collect()
}

fn property(name: &str, text: &str) -> std::result::Result<Property, String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("{name:?} is not the name of a property"));
    }
    if ["PIDs", "PIDFDs", "Slice", "Delegate"].contains(&name) {
        return Err(format!("{name} is set by tare itself"));
    }
    let value = text::parse(text)?;
    match name.strip_suffix("Sec") {
        Some(stem) if !stem.ends_with('U') => {
            let value = Value::U64(microseconds(&value)?);
            Ok(Property::new(&format!("{stem}USec"), value))
        }
        _ => Ok(Property::new(name, value)),
    }
}

fn microseconds(seconds: &Value) -> std::result::Result<u64, String> {
    let whole = match seconds {
        Value::Byte(n) => i128::from(*n),
        Value::I16(n) => i128::from(*n),
        Value::U16(n) => i128::from(*n),
        Value::I32(n) => i128::from(*n),
        Value::U32(n) => i128::from(*n),
        Value::I64(n) => i128::from(*n),
        Value::U64(n) => i128::from(*n),
        Value::Double(n) if *n >= 0.0 && *n < 1e12 => {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range was checked"
            )]
            return Ok((n * 1e6) as u64);
        }
        _ => return Err(format!("{} is not a number of seconds", seconds.shown())),
    };
    u64::try_from(whole * 1_000_000).map_err(|_range| format!("{whole} s are out of range"))
}

/// The properties that limits come to. A file that systemd does not know, and a
/// value that only the kernel can judge, has none.
pub(super) fn of_limits(settings: &[Setting]) -> Vec<Property> {
    let mut all: Vec<Property> = Vec::new();
    for setting in settings {
        for property in of_limit(&setting.file, setting.value.trim()) {
            // the last write to a file counts
            all.retain(|earlier| earlier.name != property.name);
            all.push(property);
        }
    }
    all
}

fn of_limit(file: &str, value: &str) -> Vec<Property> {
    let one = |name: &str, value: Option<Value>| {
        value.map(|value| Property::new(name, value)).into_iter().collect()
    };
    let size = |name| one(name, bytes(value).map(Value::U64));
    let mask = |name| one(name, bits(value).map(|mask| Value::bytes(&mask)));
    match file {
        "memory.max" => size("MemoryMax"),
        "memory.high" => size("MemoryHigh"),
        "memory.low" => size("MemoryLow"),
        "memory.min" => size("MemoryMin"),
        "memory.swap.max" => size("MemorySwapMax"),
        "memory.zswap.max" => size("MemoryZSwapMax"),
        "pids.max" => size("TasksMax"),
        "cpu.weight" => one("CPUWeight", weight(value).map(Value::U64)),
        // idle is a weight for systemd (252), the least of all
        "cpu.idle" if value == "1" => one("CPUWeight", Some(Value::U64(0))),
        "cpu.max" => bandwidth(value).unwrap_or_default(),
        "cpuset.cpus" => mask("AllowedCPUs"),
        "cpuset.mems" => mask("AllowedMemoryNodes"),
        "io.weight" => one("IOWeight", weight(default_of(value)).map(Value::U64)),
        "io.bfq.weight" => {
            one("IOWeight", weight(default_of(value)).map(|w| Value::U64(io_weight(w))))
        }
        _ => Vec::new(),
    }
}

/// `max`, or a number; with the units that the kernel takes.
fn bytes(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(NO_LIMIT);
    }
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (text.get(..at)?, 10),
        (at, 'm' | 'M') => (text.get(..at)?, 20),
        (at, 'g' | 'G') => (text.get(..at)?, 30),
        (at, 't' | 'T') => (text.get(..at)?, 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn weight(text: &str) -> Option<u64> {
    text.parse().ok().filter(|weight| (1..=10_000).contains(weight))
}

/// The weight of all devices without one of their own.
fn default_of(text: &str) -> &str {
    text.strip_prefix("default ").unwrap_or(text)
}

/// The weight from which systemd makes this one of BFQ's (1 to 1000).
fn io_weight(bfq: u64) -> u64 {
    match bfq {
        0..=100 => bfq,
        above => (100 + (above - 100) * 11).min(10_000),
    }
}

/// `50000 100000`: of each 100 ms, 50.
fn bandwidth(text: &str) -> Option<Vec<Property>> {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next()?;
    let given: Option<u64> = match words.next() {
        None => None,
        Some(period) => Some(period.parse().ok().filter(|period| *period > 0)?),
    };
    let per_second = match quota {
        "max" => NO_LIMIT,
        quota => {
            let period = given.unwrap_or(DEFAULT_PERIOD);
            let us = quota.parse::<u64>().ok()?.checked_mul(1_000_000)?.div_ceil(period);
            // systemd keeps whole percents: less than these would be too few
            us.checked_next_multiple_of(10_000)?
        }
    };
    let period = given.map(|us| Property::new("CPUQuotaPeriodUSec", Value::U64(us)));
    let quota = Property::new("CPUQuotaPerSecUSec", Value::U64(per_second));
    Some(period.into_iter().chain([quota]).collect())
}

/// A list like `0-3,5` as bits, the first in the lowest bit of the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (range, step) =
            part.split_once(':').map_or((part, "1/1"), |(range, step)| (range, step));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (used, group) = step.split_once('/')?;
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let (used, group): (usize, usize) = (used.parse().ok()?, group.parse().ok()?);
        if last >= MOST_PROCESSORS || group == 0 {
            return None;
        }
        for number in (first..=last).filter(|number| (number - first) % group < used) {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0u8);
            }
            if let Some(byte) = mask.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::{plan, tests::resources};

    fn of_resources(json: &str) -> String {
        let settings = plan(&resources(json)).unwrap().settings;
        let shown = |p: &Property| format!("{}={}", p.name, p.value.shown());
        of_limits(&settings).iter().map(shown).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn resources_become_properties() {
        for (json, expected) in [
            ("{}", ""),
            (
                r#"{"memory": {"limit": 4096, "reservation": 1024, "swap": 8192}}"#,
                "MemorySwapMax=t 4096; MemoryMax=t 4096; MemoryLow=t 1024",
            ),
            (
                r#"{"memory": {"limit": -1}}"#,
                "MemorySwapMax=t 18446744073709551615; MemoryMax=t 18446744073709551615",
            ),
            (r#"{"pids": {"limit": 64}}"#, "TasksMax=t 64"),
            (r#"{"pids": {"limit": -1}}"#, "TasksMax=t 18446744073709551615"),
            (r#"{"cpu": {"shares": 2048}}"#, "CPUWeight=t 174"),
            (r#"{"cpu": {"idle": 1, "shares": 2048}}"#, "CPUWeight=t 0"),
            (r#"{"cpu": {"idle": 0, "shares": 1024}}"#, "CPUWeight=t 100"),
            (
                r#"{"cpu": {"quota": 50000, "period": 200000}}"#,
                "CPUQuotaPeriodUSec=t 200000; CPUQuotaPerSecUSec=t 250000",
            ),
            // 33.3 % are 34 for systemd
            (
                r#"{"cpu": {"quota": 33300}}"#,
                "CPUQuotaPeriodUSec=t 100000; CPUQuotaPerSecUSec=t 340000",
            ),
            (
                r#"{"cpu": {"quota": -1}}"#,
                "CPUQuotaPeriodUSec=t 100000; CPUQuotaPerSecUSec=t 18446744073709551615",
            ),
            (
                r#"{"cpu": {"cpus": "0-2,9", "mems": "0"}}"#,
                "AllowedCPUs=ay 7 2; AllowedMemoryNodes=ay 1",
            ),
            (r#"{"cpu": {"cpus": "0-7:1/4"}}"#, "AllowedCPUs=ay 17"),
            (r#"{"blockIO": {"weight": 10}}"#, "IOWeight=t 10"),
            (r#"{"blockIO": {"weight": 500}}"#, "IOWeight=t 4500"),
            (r#"{"blockIO": {"weight": 1000}}"#, "IOWeight=t 10000"),
            (r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#, ""),
        ] {
            assert_eq!(of_resources(json), expected, "{json}");
        }
    }

    #[test]
    fn unified_files_become_properties_as_well() {
        for (file, value, expected) in [
            ("memory.high", "64M", "MemoryHigh=t 67108864"),
            ("memory.min", "max", "MemoryMin=t 18446744073709551615"),
            ("memory.zswap.max", "0", "MemoryZSwapMax=t 0"),
            ("memory.max", "a lot", ""),
            ("cpu.max", "max", "CPUQuotaPerSecUSec=t 18446744073709551615"),
            ("cpu.max", "50000", "CPUQuotaPerSecUSec=t 500000"),
            ("cpu.max", "50000 0", ""),
            ("cpu.weight", "0", ""),
            ("cpu.idle", "1", "CPUWeight=t 0"),
            ("cpuset.cpus", "", "AllowedCPUs=ay "),
            ("cpuset.cpus", "0-99999999999", ""),
            ("io.weight", "default 200", "IOWeight=t 200"),
            ("io.weight", "8:0 200", ""),
            ("memory.oom.group", "1", ""),
        ] {
            let json = serde_json::json!({"unified": {file: value}});
            assert_eq!(of_resources(&json.to_string()), expected, "{file} {value}");
        }
    }

    fn of_annotation(key: &str, text: &str) -> String {
        let all = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        match annotated(&all) {
            Ok(found) => found
                .iter()
                .map(|a| format!("{}={}", a.property.name, a.property.value.shown()))
                .collect(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn annotations_become_properties() {
        for (key, text, expected) in [
            ("TimeoutStopUSec", "uint64 10000000", "TimeoutStopUSec=t 10000000"),
            ("TimeoutStopSec", "uint64 10", "TimeoutStopUSec=t 10000000"),
            ("TimeoutStopSec", "10", "TimeoutStopUSec=t 10000000"),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec=t 1500000"),
            ("DefaultDependencies", "true", "DefaultDependencies=b true"),
            ("After", "['a.service', 'b.service']", "After=as \"a.service\" \"b.service\""),
            ("CollectMode", "'inactive-or-failed'", "CollectMode=s \"inactive-or-failed\""),
        ] {
            assert_eq!(of_annotation(&format!("{PREFIX}{key}"), text), expected);
        }
        assert_eq!(of_annotation("org.example.other", "no value at all"), "");
    }

    #[test]
    fn wrong_annotations_are_refused_by_name() {
        for (key, text, expected) in [
            ("TimeoutStopUSec", "ten", "ten is no value: strings stand in quotes"),
            ("TimeoutStopSec", "'ten'", "s \"ten\" is not a number of seconds"),
            ("TimeoutStopSec", "-1", "-1 s are out of range"),
            (
                "TimeoutStopSec",
                "uint64 18446744073709551615",
                "18446744073709551615 s are out of range",
            ),
            ("TimeoutStopSec", "double inf", "d inf is not a number of seconds"),
            ("", "5", "\"\" is not the name of a property"),
            ("A b", "5", "\"A b\" is not the name of a property"),
            ("Slice", "'a.slice'", "Slice is set by tare itself"),
            ("PIDs", "[uint32 1]", "PIDs is set by tare itself"),
        ] {
            let key = format!("{PREFIX}{key}");
            assert_eq!(of_annotation(&key, text), format!("annotations[{key:?}]: {expected}"));
        }
    }
}
