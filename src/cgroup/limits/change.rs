//! A change of limits that are in effect: which writes it comes to, and what is
//! in effect after them.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxRdma, LinuxRdmaBuilder,
    LinuxResources,
};

use super::{LimitsPlan, Setting, plan};
use crate::error::Result;

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The writes.
    pub plan: LimitsPlan,
    /// All that is in effect once they are done.
    pub resources: LinuxResources,
}

/// Turns `asked`, the resources that are to change, into writes. What it leaves
/// out stays as it is in `current`; where one file or one check needs two
/// fields, the other one comes from there.
///
/// # Errors
/// As for [`plan`].
pub fn change(current: &LinuxResources, asked: &LinuxResources) -> Result<Change> {
    let mut whole = asked.clone();
    if let Some(memory) = asked.memory() {
        whole.set_memory(Some(merged_memory(current.memory(), memory)));
    }
    if let Some(cpu) = asked.cpu() {
        whole.set_cpu(Some(merged_cpu(current.cpu(), cpu)));
    }
    let mut plan = plan(&whole)?;
    plan.settings.retain(|setting| is_asked(setting, asked));
    let mut resources = merged(current, asked, &whole);
    forget_overwritten(&mut resources, asked, &plan.settings);
    Ok(Change { plan, resources })
}

/// Zero and "" are what callers send for "not given".
fn is_given<T: Default + PartialEq>(value: Option<T>) -> bool {
    value.is_some_and(|value| value != T::default())
}

/// False for a file that is among the writes for a check's sake alone.
fn is_asked(setting: &Setting, asked: &LinuxResources) -> bool {
    if setting.is_unified() {
        return true;
    }
    let memory = asked.memory().unwrap_or_default();
    let cpu = asked.cpu().clone().unwrap_or_default();
    match setting.file.as_ref() {
        "memory.max" => is_given(memory.limit()),
        // the end of the one limit has always been that of the other
        "memory.swap.max" => is_given(memory.swap()) || memory.limit() == Some(-1),
        "memory.low" => is_given(memory.reservation()),
        "cpu.idle" => cpu.idle().is_some(),
        // the kernel forgets the weight of what becomes idle
        "cpu.weight" => is_given(cpu.shares()) || cpu.idle().is_some(),
        "cpu.max" => is_given(cpu.quota()) || is_given(cpu.period()),
        "cpu.max.burst" => cpu.burst().is_some(),
        "cpuset.cpus" => is_given(cpu.cpus().clone()),
        "cpuset.mems" => is_given(cpu.mems().clone()),
        _ => true,
    }
}

fn merged_memory(current: &Option<LinuxMemory>, asked: &LinuxMemory) -> LinuxMemory {
    let current = current.unwrap_or_default();
    let given = |asked: Option<i64>, current: Option<i64>| {
        if is_given(asked) { asked } else { current }
    };
    let mut memory = *asked;
    memory.set_limit(given(asked.limit(), current.limit()));
    memory.set_reservation(given(asked.reservation(), current.reservation()));
    memory.set_swap(given(asked.swap(), merged_swap(&current, asked.limit())));
    memory
}

/// The spec's swap includes the memory limit: with a new limit, the same swap of
/// its own is another sum.
fn merged_swap(current: &LinuxMemory, limit: Option<i64>) -> Option<i64> {
    let limit = limit.filter(|limit| *limit != 0);
    match (limit, current.limit(), current.swap()) {
        (Some(-1), ..) => Some(-1),
        (Some(new), Some(old), Some(sum)) if new > 0 && sum > 0 => {
            // without a limit, the sum was the swap alone
            Some(sum.saturating_sub(old.max(0)).saturating_add(new))
        }
        (_, _, swap) => swap,
    }
}

fn merged_cpu(current: &Option<LinuxCpu>, asked: &LinuxCpu) -> LinuxCpu {
    let current = current.clone().unwrap_or_default();
    let mut cpu = asked.clone();
    if !is_given(asked.shares()) {
        cpu.set_shares(current.shares());
    }
    if !is_given(asked.quota()) {
        cpu.set_quota(current.quota());
    }
    if !is_given(asked.period()) {
        cpu.set_period(current.period());
    }
    if !is_given(asked.cpus().clone()) {
        cpu.set_cpus(current.cpus().clone());
    }
    if !is_given(asked.mems().clone()) {
        cpu.set_mems(current.mems().clone());
    }
    cpu.set_burst(asked.burst().or(current.burst()));
    cpu.set_idle(asked.idle().or(current.idle()));
    cpu
}

/// All that is in effect; `whole` has the memory and cpu of both already.
fn merged(
    current: &LinuxResources,
    asked: &LinuxResources,
    whole: &LinuxResources,
) -> LinuxResources {
    let mut all = current.clone();
    if let Some(memory) = whole.memory() {
        let mut memory = *memory;
        // was meant for this change alone
        memory.set_check_before_update(None);
        all.set_memory(Some(memory));
    }
    if whole.cpu().is_some() {
        all.set_cpu(whole.cpu().clone());
    }
    if asked.pids().is_some() {
        all.set_pids(*asked.pids());
    }
    if let Some(block_io) = asked.block_io() {
        all.set_block_io(Some(merged_block_io(current.block_io(), block_io)));
    }
    let same_size = |a: &LinuxHugepageLimit, b: &LinuxHugepageLimit| a.page_size() == b.page_size();
    all.set_hugepage_limits(merged_list(
        current.hugepage_limits(),
        asked.hugepage_limits(),
        same_size,
    ));
    for (name, asked) in asked.rdma().iter().flatten() {
        let limits = all.rdma_mut().get_or_insert_default().entry(name.clone()).or_default();
        *limits = merged_rdma(*limits, *asked);
    }
    for (file, value) in asked.unified().iter().flatten() {
        all.unified_mut().get_or_insert_default().insert(file.clone(), value.clone());
    }
    if is_given(asked.devices().clone()) {
        all.set_devices(asked.devices().clone());
    }
    all
}

fn merged_rdma(current: LinuxRdma, asked: LinuxRdma) -> LinuxRdma {
    let handles = asked.hca_handles().or(current.hca_handles());
    let objects = asked.hca_objects().or(current.hca_objects());
    // the type has no setters but these
    let mut limits = LinuxRdmaBuilder::default();
    if let Some(handles) = handles {
        limits = limits.hca_handles(handles);
    }
    if let Some(objects) = objects {
        limits = limits.hca_objects(objects);
    }
    limits.build().unwrap_or(asked)
}

fn merged_block_io(current: &Option<LinuxBlockIo>, asked: &LinuxBlockIo) -> LinuxBlockIo {
    let current = current.clone().unwrap_or_default();
    let mut all = current.clone();
    if is_given(asked.weight()) {
        all.set_weight(asked.weight());
    }
    all.set_weight_device(merged_list(current.weight_device(), asked.weight_device(), |a, b| {
        (a.major(), a.minor()) == (b.major(), b.minor())
    }));
    macro_rules! throttle {
        ($get:ident, $set:ident) => {
            all.$set(merged_list(current.$get(), asked.$get(), |a, b| {
                (a.major(), a.minor()) == (b.major(), b.minor())
            }))
        };
    }
    throttle!(throttle_read_bps_device, set_throttle_read_bps_device);
    throttle!(throttle_write_bps_device, set_throttle_write_bps_device);
    throttle!(throttle_read_iops_device, set_throttle_read_iops_device);
    throttle!(throttle_write_iops_device, set_throttle_write_iops_device);
    all
}

/// Each of `asked` in the place of the same one of `current`.
fn merged_list<T: Clone>(
    current: &Option<Vec<T>>,
    asked: &Option<Vec<T>>,
    is_same: impl Fn(&T, &T) -> bool,
) -> Option<Vec<T>> {
    let Some(asked) = asked else { return current.clone() };
    let mut all = current.clone().unwrap_or_default();
    all.retain(|old| !asked.iter().any(|new| is_same(old, new)));
    all.extend(asked.iter().cloned());
    Some(all)
}

/// What `unified` once wrote to a file that another field has written to now is
/// not in effect any more.
fn forget_overwritten(all: &mut LinuxResources, asked: &LinuxResources, settings: &[Setting]) {
    let Some(unified) = all.unified_mut() else { return };
    let again = asked.unified().clone().unwrap_or_default();
    for setting in settings.iter().filter(|s| !s.is_unified() && !s.is_keyed()) {
        if !again.contains_key(setting.file.as_ref()) {
            unified.remove(setting.file.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{resources, shown};
    use super::*;

    /// Holds, for what is in effect and what is asked for: the writes, and what is
    /// in effect after them; or the error.
    fn check(table: &[(&str, &str, &str, &str)]) {
        for (current, asked, writes, after) in table {
            match change(&resources(current), &resources(asked)) {
                Ok(change) => {
                    assert_eq!(shown(&change.plan), *writes, "{current} and {asked}");
                    assert_eq!(change.resources, resources(after), "{current} and {asked}");
                }
                Err(e) => assert_eq!(e.to_string(), *writes, "{current} and {asked}"),
            }
        }
    }

    #[test]
    fn swap_goes_by_the_limit_in_effect() {
        check(&[
            (
                r#"{"memory":{"limit":100,"swap":150}}"#,
                r#"{"memory":{"limit":300}}"#,
                "memory.max=300",
                r#"{"memory":{"limit":300,"swap":350}}"#,
            ),
            (
                r#"{"memory":{"limit":100,"swap":150}}"#,
                r#"{"memory":{"swap":400,"limit":0}}"#,
                "memory.swap.max=300",
                r#"{"memory":{"limit":100,"swap":400}}"#,
            ),
            (
                r#"{"memory":{"limit":100,"swap":150}}"#,
                r#"{"memory":{"limit":-1}}"#,
                "memory.swap.max=max; memory.max=max",
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
            ),
            (
                r#"{"memory":{"limit":-1,"swap":50}}"#,
                r#"{"memory":{"limit":100}}"#,
                "memory.max=100",
                r#"{"memory":{"limit":100,"swap":150}}"#,
            ),
            (
                r#"{"memory":{"limit":100}}"#,
                r#"{"memory":{"reservation":30,"checkBeforeUpdate":true}}"#,
                "memory.low=30",
                r#"{"memory":{"limit":100,"reservation":30}}"#,
            ),
            (
                "{}",
                r#"{"memory":{"swap":50}}"#,
                "linux.resources.memory.swap: 50 includes the memory limit, and there is none",
                "",
            ),
        ]);
    }

    #[test]
    fn quota_and_period_are_one_write() {
        check(&[
            (
                r#"{"cpu":{"quota":50000,"period":200000}}"#,
                r#"{"cpu":{"quota":30000}}"#,
                "cpu.max=30000 200000",
                r#"{"cpu":{"quota":30000,"period":200000}}"#,
            ),
            (
                r#"{"cpu":{"quota":50000}}"#,
                r#"{"cpu":{"period":20000,"shares":0,"cpus":""}}"#,
                "cpu.max=50000 20000",
                r#"{"cpu":{"quota":50000,"period":20000}}"#,
            ),
            (
                r#"{"cpu":{"quota":50000}}"#,
                r#"{"cpu":{"burst":10000}}"#,
                "cpu.max.burst=10000",
                r#"{"cpu":{"quota":50000,"burst":10000}}"#,
            ),
            (
                r#"{"cpu":{"quota":50000}}"#,
                r#"{"cpu":{"burst":60000}}"#,
                "linux.resources.cpu.burst: 60000 is more than the quota of 50000",
                "",
            ),
            (
                r#"{"cpu":{"shares":1024}}"#,
                r#"{"cpu":{"cpus":"0"}}"#,
                "cpuset.cpus=0",
                r#"{"cpu":{"shares":1024,"cpus":"0"}}"#,
            ),
        ]);
    }

    #[test]
    fn a_weight_outlives_idleness() {
        check(&[
            (
                r#"{"cpu":{"shares":512}}"#,
                r#"{"cpu":{"idle":1}}"#,
                "cpu.idle=1",
                r#"{"cpu":{"shares":512,"idle":1}}"#,
            ),
            (
                r#"{"cpu":{"shares":512,"idle":1}}"#,
                r#"{"cpu":{"idle":0}}"#,
                "cpu.idle=0; cpu.weight=59",
                r#"{"cpu":{"shares":512,"idle":0}}"#,
            ),
            (
                r#"{"cpu":{"idle":1}}"#,
                r#"{"cpu":{"shares":512}}"#,
                "",
                r#"{"cpu":{"shares":512,"idle":1}}"#,
            ),
        ]);
        let idle = resources(r#"{"cpu":{"idle":1}}"#);
        let warnings = change(&idle, &resources(r#"{"cpu":{"shares":9}}"#)).unwrap().plan.warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn lists_are_changed_entry_by_entry() {
        check(&[
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"1GB","limit":2}]}"#,
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":3}]}"#,
                "hugetlb.2MB.max=3; hugetlb.2MB.rsvd.max=3",
                r#"{"hugepageLimits":[{"pageSize":"1GB","limit":2},{"pageSize":"2MB","limit":3}]}"#,
            ),
            (
                r#"{"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}"#,
                r#"{"blockIO":{"weight":0,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2}]}}"#,
                "io.max=8:0 rbps=2",
                r#"{"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2}]}}"#,
            ),
            (
                r#"{"rdma":{"a":{"hcaHandles":1}}}"#,
                r#"{"rdma":{"a":{"hcaObjects":2}}}"#,
                "rdma.max=a hca_object=2",
                r#"{"rdma":{"a":{"hcaHandles":1,"hcaObjects":2}}}"#,
            ),
            (
                r#"{"pids":{"limit":5},"devices":[{"allow":false}]}"#,
                r#"{"pids":{"limit":-1},"devices":[]}"#,
                "pids.max=max",
                r#"{"devices":[{"allow":false}],"pids":{"limit":-1}}"#,
            ),
        ]);
    }

    #[test]
    fn the_last_to_write_a_file_is_in_effect() {
        check(&[
            (
                r#"{"unified":{"memory.max":"8192","io.max":"8:0 rbps=1"}}"#,
                r#"{"memory":{"limit":4096}}"#,
                "memory.max=4096",
                r#"{"memory":{"limit":4096},"unified":{"io.max":"8:0 rbps=1"}}"#,
            ),
            (
                r#"{"memory":{"limit":4096}}"#,
                r#"{"unified":{"memory.max":"8192"}}"#,
                "memory.max=8192",
                r#"{"memory":{"limit":4096},"unified":{"memory.max":"8192"}}"#,
            ),
        ]);
    }
}
