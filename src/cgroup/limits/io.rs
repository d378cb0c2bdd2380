//! linux.resources.blockIO, hugepageLimits and rdma.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use oci_spec::runtime::{LinuxBlockIo, LinuxHugepageLimit, LinuxRdma, LinuxThrottleDevice};

use super::{Absent, LimitsPlan, Setting};
use crate::error::{Error, Result};

const BLOCK_IO: &str = "linux.resources.blockIO";

pub(super) fn block_io(block_io: &LinuxBlockIo, plan: &mut LimitsPlan) -> Result<()> {
    if block_io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(no_leaf_weight(&format!("{BLOCK_IO}.leafWeight")));
    }
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        let field = format!("{BLOCK_IO}.weight");
        plan.settings.push(weight_setting(weight, None, field)?);
    }
    for (at, device) in block_io.weight_device().iter().flatten().enumerate() {
        let field = format!("{BLOCK_IO}.weightDevice[{at}]");
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(no_leaf_weight(&field));
        }
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let number = device_number(device.major(), device.minor(), &field)?;
            plan.settings.push(weight_setting(weight, Some(&number), field)?);
        }
    }
    throttles(block_io, plan)
}

fn no_leaf_weight(field: &str) -> Error {
    Error::unsupported(format!("{field}: cgroup2 has no weight of leaves"))
}

/// BFQ takes the weight as it is; without BFQ it is the io controller's own
/// scale, which begins at 1 and ends at 10000.
fn weight_setting(weight: u16, device: Option<&str>, field: String) -> Result<Setting> {
    if !(10..=1000).contains(&weight) {
        return Err(Error::invalid(format!("{field}: {weight} is not between 10 and 1000")));
    }
    let weight = u32::from(weight);
    let scaled = 1 + (weight - 10) * 9999 / 990;
    let line = |weight: u32| match device {
        Some(device) => format!("{device} {weight}"),
        None => weight.to_string(),
    };
    let setting = Setting::new("io.bfq.weight", line(weight), field);
    Ok(setting.when_absent(Absent::Instead("io.weight", line(scaled))))
}

fn device_number(major: i64, minor: i64, field: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::invalid(format!("{field}: {major}:{minor} is not a device number"))),
    }
}

/// One write a device, with all that is said of it.
fn throttles(block_io: &LinuxBlockIo, plan: &mut LimitsPlan) -> Result<()> {
    type List<'a> = &'a Option<Vec<LinuxThrottleDevice>>;
    let lists: [(&str, &str, List<'_>); 4] = [
        ("rbps", "throttleReadBpsDevice", block_io.throttle_read_bps_device()),
        ("wbps", "throttleWriteBpsDevice", block_io.throttle_write_bps_device()),
        ("riops", "throttleReadIOPSDevice", block_io.throttle_read_iops_device()),
        ("wiops", "throttleWriteIOPSDevice", block_io.throttle_write_iops_device()),
    ];
    let mut devices: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (key, name, list) in lists {
        for (at, device) in list.iter().flatten().enumerate() {
            let field = format!("{BLOCK_IO}.{name}[{at}]");
            let number = device_number(device.major(), device.minor(), &field)?;
            let (line, _) =
                devices.entry(number).or_insert_with_key(|number| (number.clone(), field));
            // zero took a limit away in cgroup v1
            let written = match device.rate() {
                0 => write!(line, " {key}=max"),
                rate => write!(line, " {key}={rate}"),
            };
            written.map_err(|e| Error::invalid(e.to_string()))?;
        }
    }
    for (line, field) in devices.into_values() {
        plan.settings.push(Setting::new("io.max", line, field));
    }
    Ok(())
}

/// Usage and, where the kernel can, reservations: a reservation that fails is
/// an error for mmap, a page fault that fails kills.
pub(super) fn hugepages(
    at: usize,
    limit: &LinuxHugepageLimit,
    plan: &mut LimitsPlan,
) -> Result<()> {
    let field = format!("linux.resources.hugepageLimits[{at}]");
    let size = limit.page_size();
    let is_size = ["KB", "MB", "GB"].iter().any(|unit| {
        size.strip_suffix(unit).is_some_and(|number| {
            number.parse::<u32>().is_ok_and(u32::is_power_of_two) && !number.starts_with('+')
        })
    });
    if !is_size {
        return Err(Error::invalid(format!(
            "{field}.pageSize: \"{size}\" is not a page size like 64KB, 2MB or 1GB"
        )));
    }
    let bytes = limit.limit();
    if bytes < 0 {
        return Err(Error::invalid(format!("{field}.limit: {bytes} is not a size in bytes")));
    }
    let value = bytes.to_string();
    let max = Setting::new(format!("hugetlb.{size}.max"), value.clone(), field.clone());
    let reserved = Setting::new(format!("hugetlb.{size}.rsvd.max"), value, field);
    plan.settings.push(max);
    // Linux 5.7; a kernel without it has the first one
    plan.settings.push(reserved.when_absent(Absent::Ignore));
    Ok(())
}

pub(super) fn rdma(rdma: &HashMap<String, LinuxRdma>, plan: &mut LimitsPlan) -> Result<()> {
    let mut devices: Vec<_> = rdma.iter().collect();
    devices.sort_unstable_by_key(|(name, _)| name.as_str());
    for (name, limits) in devices {
        let field = format!("linux.resources.rdma[\"{name}\"]");
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("{field}: not the name of a device")));
        }
        let mut line = name.clone();
        for (key, value) in
            [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())]
        {
            if let Some(value) = value {
                line = format!("{line} {key}={value}");
            }
        }
        if line != *name {
            plan.settings.push(Setting::new("rdma.max", line, field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::super::tests::{check, resources};
    use super::*;

    #[test]
    fn weights_are_bfqs_with_the_io_controllers_scale_instead() {
        for (weight, scaled) in [(10, "1"), (100, "910"), (500, "4950"), (1000, "10000")] {
            let json = format!(r#"{{"blockIO": {{"weight": {weight}}}}}"#);
            let settings = plan(&resources(&json)).unwrap().settings;
            assert_eq!(settings[0].file, "io.bfq.weight");
            assert_eq!(settings[0].value, weight.to_string());
            let instead = Absent::Instead("io.weight", scaled.to_owned());
            assert_eq!(settings[0].absent, instead);
        }
        check(&[
            (r#"{"blockIO": {"weight": 0}}"#, ""),
            (
                r#"{"blockIO": {"weight": 9}}"#,
                "linux.resources.blockIO.weight: 9 is not between 10 and 1000",
            ),
            (
                r#"{"blockIO": {"leafWeight": 10}}"#,
                "linux.resources.blockIO.leafWeight: cgroup2 has no weight of leaves",
            ),
            (
                r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 300}]}}"#,
                "io.bfq.weight=8:0 300",
            ),
            (
                r#"{"blockIO": {"weightDevice": [{"major": -8, "minor": 0, "weight": 300}]}}"#,
                "linux.resources.blockIO.weightDevice[0]: -8:0 is not a device number",
            ),
        ]);
    }

    #[test]
    fn throttles_are_one_write_a_device() {
        check(&[
            (
                r#"{"blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000},
                                              {"major": 7, "minor": 1, "rate": 0}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2000}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}]}}"#,
                "io.max=7:1 rbps=max; io.max=8:0 rbps=1000 wbps=2000 riops=3 wiops=4",
            ),
            (
                r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": -1, "rate": 1}]}}"#,
                "linux.resources.blockIO.throttleReadBpsDevice[0]: 8:-1 is not a device number",
            ),
        ]);
    }

    #[test]
    fn hugepages_with_reservations() {
        check(&[
            (
                r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#,
                "hugetlb.2MB.max=4194304; hugetlb.2MB.rsvd.max=4194304",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}"#,
                "linux.resources.hugepageLimits[0].pageSize: \"../x\" is not a page size like 64KB, 2MB or 1GB",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#,
                "linux.resources.hugepageLimits[0].pageSize: \"3MB\" is not a page size like 64KB, 2MB or 1GB",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "1GB", "limit": -1}]}"#,
                "linux.resources.hugepageLimits[0].limit: -1 is not a size in bytes",
            ),
        ]);
    }

    #[test]
    fn rdma_is_one_write_a_device() {
        check(&[
            (
                r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000},
                             "mlx4_0": {"hcaObjects": 1000}, "rxe3": {}}}"#,
                "rdma.max=mlx4_0 hca_object=1000; rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
            ),
            (
                r#"{"rdma": {"a b": {"hcaHandles": 3}}}"#,
                "linux.resources.rdma[\"a b\"]: not the name of a device",
            ),
        ]);
    }
}
