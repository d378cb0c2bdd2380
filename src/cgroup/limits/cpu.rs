//! linux.resources.cpu.

use oci_spec::runtime::LinuxCpu;

use super::{Absent, LimitsPlan, Setting};
use crate::error::{Error, Result};

const FIELD: &str = "linux.resources.cpu";
/// The kernel's own default, which other runtimes write out as well.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn plan(cpu: &LinuxCpu, plan: &mut LimitsPlan) -> Result<()> {
    if cpu.realtime_runtime().is_some_and(|us| us != 0) {
        return Err(no_realtime("realtimeRuntime"));
    }
    if cpu.realtime_period().is_some_and(|us| us != 0) {
        return Err(no_realtime("realtimePeriod"));
    }
    let idle = idle(cpu.idle())?;
    // before the weight: a cgroup that is idle refuses one
    if let Some(value) = idle {
        let setting = Setting::new("cpu.idle", value, "linux.resources.cpu.idle");
        plan.settings.push(unless_zero(setting));
    }
    match cpu.shares() {
        None | Some(0) => {}
        // idle is a weight, the least of all: the kernel takes no other
        Some(_) if idle == Some("1") => plan.warnings.push(format!(
            "{FIELD}.shares has no effect on a container that is idle ({FIELD}.idle)"
        )),
        Some(shares) => plan.settings.push(Setting::new(
            "cpu.weight",
            weight(shares).to_string(),
            "linux.resources.cpu.shares",
        )),
    }
    bandwidth(cpu, plan)?;
    for (file, field, list) in [
        ("cpuset.cpus", "linux.resources.cpu.cpus", cpu.cpus()),
        ("cpuset.mems", "linux.resources.cpu.mems", cpu.mems()),
    ] {
        let list = list.as_deref().unwrap_or_default().trim();
        if list.is_empty() {
            continue;
        }
        if !is_list(list) {
            return Err(Error::invalid(format!(
                "{field}: \"{list}\" is not a list of numbers and ranges like 0-3,5"
            )));
        }
        plan.settings.push(Setting::new(file, list, field));
    }
    Ok(())
}

/// Zero is what holds without the file as well.
fn unless_zero(setting: Setting) -> Setting {
    let absent = if setting.value == "0" { Absent::Ignore } else { Absent::Fail };
    setting.when_absent(absent)
}

fn no_realtime(name: &str) -> Error {
    Error::unsupported(format!("{FIELD}.{name}: cgroup2 has no realtime budget of a cgroup"))
}

fn idle(idle: Option<i64>) -> Result<Option<&'static str>> {
    match idle {
        None => Ok(None),
        Some(0) => Ok(Some("0")),
        Some(1) => Ok(Some("1")),
        Some(other) => Err(Error::invalid(format!("{FIELD}.idle: {other} is not 0 or 1"))),
    }
}

/// Shares of cgroup v1 (2 to 262144, 1024 by default) as a weight of cgroup2
/// (1 to 10000, 100 by default).
///
/// The curve is a parabola through the two ends and the default on logarithmic
/// scales; a straight line would give the default a weight of 39, far less
/// than that of a cgroup which nobody configured.
fn weight(shares: u64) -> u16 {
    match shares {
        0..=2 => 1,
        1024 => 100,
        262_144.. => 10_000,
        between => {
            // below 2^18: exact
            let log = f64::from(u32::try_from(between).unwrap_or(u32::MAX)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            let weight = 10f64.powf(exponent).ceil();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to what fits"
            )]
            let weight = weight.clamp(1.0, 10_000.0) as u16;
            weight
        }
    }
}

fn bandwidth(cpu: &LinuxCpu, plan: &mut LimitsPlan) -> Result<()> {
    // zero is what callers send for "not given"
    let quota = cpu.quota().filter(|us| *us != 0);
    let period = cpu.period().filter(|us| *us != 0);
    if let Some(us) = period
        && !(1_000..=1_000_000).contains(&us)
    {
        return Err(Error::invalid(format!(
            "{FIELD}.period: {us} is not between 1000 and 1000000 microseconds"
        )));
    }
    // any negative number has always meant "no limit"
    let limit = quota.and_then(|us| u64::try_from(us).ok());
    if let Some(us) = limit
        && us < 1_000
    {
        return Err(Error::invalid(format!(
            "{FIELD}.quota: {us} is less than 1000 microseconds, the kernel's minimum"
        )));
    }
    if quota.is_some() || period.is_some() {
        let quota = limit.map_or_else(|| "max".to_owned(), |us| us.to_string());
        let value = format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD));
        let field = match cpu.quota() {
            Some(us) if us != 0 => "linux.resources.cpu.quota",
            _ => "linux.resources.cpu.period",
        };
        plan.settings.push(Setting::new("cpu.max", value, field));
    }
    if let Some(burst) = cpu.burst() {
        if let Some(limit) = limit.filter(|limit| burst > *limit) {
            return Err(Error::invalid(format!(
                "{FIELD}.burst: {burst} is more than the quota of {limit}"
            )));
        }
        let field = "linux.resources.cpu.burst";
        plan.settings.push(unless_zero(Setting::new("cpu.max.burst", burst.to_string(), field)));
    }
    Ok(())
}

/// `0-3,5`: the kernel checks the numbers against the machine.
fn is_list(list: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    list.split(',').map(str::trim).all(|part| {
        // a step, `0-7:2/4`, may follow the range
        let range = part.split_once(':').map_or(part, |(range, _step)| range);
        match range.split_once('-') {
            Some((first, last)) => number(first) && number(last),
            None => number(range),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn shares_follow_the_curve() {
        for (shares, expected) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (102, 17),
            (512, 59),
            (1023, 100),
            (1024, 100),
            (1025, 101),
            (2048, 174),
            (4096, 303),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        let weights: Vec<_> = (0..300_000).map(weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn weight_and_idle() {
        check(&[
            (r#"{"cpu": {}}"#, ""),
            (r#"{"cpu": {"shares": 0}}"#, ""),
            (r#"{"cpu": {"shares": 1024}}"#, "cpu.weight=100"),
            (r#"{"cpu": {"idle": 1}}"#, "cpu.idle=1"),
            (r#"{"cpu": {"idle": 1, "shares": 1024}}"#, "cpu.idle=1"),
            (r#"{"cpu": {"idle": 0, "shares": 1024}}"#, "cpu.idle=0; cpu.weight=100"),
            (r#"{"cpu": {"idle": 2}}"#, "linux.resources.cpu.idle: 2 is not 0 or 1"),
        ]);
    }

    #[test]
    fn quota_period_and_burst() {
        check(&[
            (r#"{"cpu": {"quota": 50000}}"#, "cpu.max=50000 100000"),
            (r#"{"cpu": {"quota": 50000, "period": 200000}}"#, "cpu.max=50000 200000"),
            (r#"{"cpu": {"period": 200000}}"#, "cpu.max=max 200000"),
            (r#"{"cpu": {"quota": -1}}"#, "cpu.max=max 100000"),
            (r#"{"cpu": {"quota": 0, "period": 0}}"#, ""),
            (
                r#"{"cpu": {"quota": 50000, "burst": 20000}}"#,
                "cpu.max=50000 100000; cpu.max.burst=20000",
            ),
            (r#"{"cpu": {"burst": 0}}"#, "cpu.max.burst=0"),
            (
                r#"{"cpu": {"quota": 50000, "burst": 50001}}"#,
                "linux.resources.cpu.burst: 50001 is more than the quota of 50000",
            ),
            (
                r#"{"cpu": {"quota": 999}}"#,
                "linux.resources.cpu.quota: 999 is less than 1000 microseconds, the kernel's minimum",
            ),
            (
                r#"{"cpu": {"period": 999}}"#,
                "linux.resources.cpu.period: 999 is not between 1000 and 1000000 microseconds",
            ),
            (
                r#"{"cpu": {"realtimeRuntime": 950000}}"#,
                "linux.resources.cpu.realtimeRuntime: cgroup2 has no realtime budget of a cgroup",
            ),
            (
                r#"{"cpu": {"realtimePeriod": 950000}}"#,
                "linux.resources.cpu.realtimePeriod: cgroup2 has no realtime budget of a cgroup",
            ),
            (r#"{"cpu": {"realtimePeriod": 0, "realtimeRuntime": 0}}"#, ""),
        ]);
    }

    #[test]
    fn cpus_and_mems() {
        check(&[
            (r#"{"cpu": {"cpus": "0-1,3", "mems": "0"}}"#, "cpuset.cpus=0-1,3; cpuset.mems=0"),
            (r#"{"cpu": {"cpus": "", "mems": " "}}"#, ""),
            (r#"{"cpu": {"cpus": "0-7:2/4"}}"#, "cpuset.cpus=0-7:2/4"),
            (
                r#"{"cpu": {"cpus": "0-"}}"#,
                "linux.resources.cpu.cpus: \"0-\" is not a list of numbers and ranges like 0-3,5",
            ),
            (
                r#"{"cpu": {"mems": "a"}}"#,
                "linux.resources.cpu.mems: \"a\" is not a list of numbers and ranges like 0-3,5",
            ),
        ]);
    }
}
