//! linux.resources.memory.

use oci_spec::runtime::LinuxMemory;

use super::{AboveUse, Absent, LimitsPlan, Setting};
use crate::error::{Error, Result};

const FIELD: &str = "linux.resources.memory";

/// A size as the spec has it: absent and zero leave the file alone, -1 lifts
/// the limit. Callers send zero for "not given", and other runtimes take it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Unset,
    Max,
    Bytes(u64),
}

impl Size {
    fn parse(value: Option<i64>, name: &str) -> Result<Self> {
        match value {
            None | Some(0) => Ok(Size::Unset),
            Some(-1) => Ok(Size::Max),
            Some(bytes) => u64::try_from(bytes).map(Size::Bytes).map_err(|_negative| {
                Error::invalid(format!(
                    "{FIELD}.{name}: {bytes} is not a size in bytes, nor -1 for no limit"
                ))
            }),
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Size::Unset => None,
            Size::Max => Some("max".to_owned()),
            Size::Bytes(bytes) => Some(bytes.to_string()),
        }
    }
}

pub(super) fn plan(memory: &LinuxMemory, plan: &mut LimitsPlan) -> Result<()> {
    v1_only(memory, plan)?;
    let limit = Size::parse(memory.limit(), "limit")?;
    let sum = Size::parse(memory.swap(), "swap")?;
    let swap = swap(limit, sum)?;
    let above_use = |what, size| match (memory.check_before_update(), size) {
        (Some(true), Size::Bytes(bytes)) => Some(AboveUse { what, bytes, file: "memory.current" }),
        _ => None,
    };
    if let Some(value) = swap.text() {
        // without swap in the kernel there is no file, and nothing to limit
        let harmless = matches!(swap, Size::Max | Size::Bytes(0));
        let absent = if harmless { Absent::Ignore } else { Absent::Fail };
        let mut setting = Setting::new("memory.swap.max", value, "linux.resources.memory.swap");
        setting.above_use = above_use("memory+swap limit", sum);
        plan.settings.push(setting.when_absent(absent));
    }
    if let Some(value) = limit.text() {
        let mut setting = Setting::new("memory.max", value, "linux.resources.memory.limit");
        setting.above_use = above_use("memory limit", limit);
        plan.settings.push(setting);
    }
    if let Some(value) = Size::parse(memory.reservation(), "reservation")?.text() {
        let field = "linux.resources.memory.reservation";
        plan.settings.push(Setting::new("memory.low", value, field));
    }
    Ok(())
}

/// The spec's swap counts memory and swap together, cgroup2's counts swap alone.
fn swap(limit: Size, swap: Size) -> Result<Size> {
    match (limit, swap) {
        // cgroup v1 could not limit the sum and leave its part unlimited:
        // lifting one has always lifted both
        (Size::Max, Size::Unset) => Ok(Size::Max),
        (_, Size::Unset | Size::Max) | (Size::Max, _) => Ok(swap),
        (Size::Unset, Size::Bytes(sum)) => Err(Error::invalid(format!(
            "{FIELD}.swap: {sum} includes the memory limit, and there is none"
        ))),
        (Size::Bytes(limit), Size::Bytes(sum)) => {
            sum.checked_sub(limit).map(Size::Bytes).ok_or_else(|| {
                Error::invalid(format!(
                    "{FIELD}.swap: {sum} is less than the limit of {limit} that it includes"
                ))
            })
        }
    }
}

fn v1_only(memory: &LinuxMemory, plan: &mut LimitsPlan) -> Result<()> {
    if memory.swappiness().is_some() {
        return Err(Error::unsupported(format!(
            "{FIELD}.swappiness: cgroup2 has no swappiness of a cgroup"
        )));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(Error::unsupported(format!(
            "{FIELD}.disableOOMKiller: cgroup2 can't turn the OOM killer off"
        )));
    }
    for (name, value) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
        if value.is_some_and(|value| value > 0) {
            plan.warnings
                .push(format!("{FIELD}.{name} is ignored: memory.limit counts kernel memory, too"));
        }
    }
    if memory.use_hierarchy() == Some(false) {
        plan.warnings.push(format!(
            "{FIELD}.useHierarchy is ignored: cgroup2 always counts the whole subtree"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::super::tests::{check, resources};
    use super::*;

    #[test]
    fn limit_and_reservation() {
        check(&[
            (r#"{"memory": {}}"#, ""),
            (r#"{"memory": {"limit": 4194304}}"#, "memory.max=4194304"),
            (r#"{"memory": {"limit": 0}}"#, ""),
            (
                r#"{"memory": {"limit": -5}}"#,
                "linux.resources.memory.limit: -5 is not a size in bytes, nor -1 for no limit",
            ),
            (r#"{"memory": {"reservation": 100}}"#, "memory.low=100"),
            (r#"{"memory": {"reservation": -1}}"#, "memory.low=max"),
            (
                r#"{"memory": {"reservation": -2}}"#,
                "linux.resources.memory.reservation: -2 is not a size in bytes, nor -1 for no limit",
            ),
        ]);
    }

    #[test]
    fn swap_is_the_sum_less_the_limit() {
        check(&[
            (r#"{"memory": {"limit": 100, "swap": 300}}"#, "memory.swap.max=200; memory.max=100"),
            (r#"{"memory": {"limit": 100, "swap": 100}}"#, "memory.swap.max=0; memory.max=100"),
            (r#"{"memory": {"limit": 100, "swap": -1}}"#, "memory.swap.max=max; memory.max=100"),
            (r#"{"memory": {"limit": 100, "swap": 0}}"#, "memory.max=100"),
            (r#"{"memory": {"limit": -1}}"#, "memory.swap.max=max; memory.max=max"),
            (r#"{"memory": {"limit": -1, "swap": 50}}"#, "memory.swap.max=50; memory.max=max"),
            (r#"{"memory": {"swap": -1}}"#, "memory.swap.max=max"),
            (
                r#"{"memory": {"swap": 50}}"#,
                "linux.resources.memory.swap: 50 includes the memory limit, and there is none",
            ),
            (
                r#"{"memory": {"limit": 100, "swap": 99}}"#,
                "linux.resources.memory.swap: 99 is less than the limit of 100 that it includes",
            ),
            (
                r#"{"memory": {"limit": 100, "swap": -7}}"#,
                "linux.resources.memory.swap: -7 is not a size in bytes, nor -1 for no limit",
            ),
        ]);
    }

    #[test]
    fn a_kernel_without_swap_is_no_error_where_nothing_is_lost() {
        for (json, absent) in [
            (r#"{"memory": {"limit": 1, "swap": 1}}"#, Absent::Ignore),
            (r#"{"memory": {"limit": 1, "swap": -1}}"#, Absent::Ignore),
            (r#"{"memory": {"limit": 1, "swap": 2}}"#, Absent::Fail),
        ] {
            let plan = plan(&resources(json)).unwrap();
            assert_eq!(plan.settings[0].absent, absent, "{json}");
        }
    }

    #[test]
    fn check_before_update_compares_with_the_use() {
        let compared = |json| {
            let settings = plan(&resources(json)).unwrap().settings;
            settings.iter().map(|s| s.above_use.map(|a| (a.what, a.bytes))).collect::<Vec<_>>()
        };
        assert_eq!(
            compared(r#"{"memory": {"limit": 9, "swap": 12, "checkBeforeUpdate": true}}"#),
            [Some(("memory+swap limit", 12)), Some(("memory limit", 9))]
        );
        assert_eq!(
            compared(r#"{"memory": {"limit": -1, "checkBeforeUpdate": true}}"#),
            [None, None]
        );
        assert_eq!(compared(r#"{"memory": {"limit": 9, "checkBeforeUpdate": false}}"#), [None]);
    }

    #[test]
    fn fields_of_v1() {
        check(&[
            (
                r#"{"memory": {"swappiness": 60}}"#,
                "linux.resources.memory.swappiness: cgroup2 has no swappiness of a cgroup",
            ),
            (
                r#"{"memory": {"disableOOMKiller": true}}"#,
                "linux.resources.memory.disableOOMKiller: cgroup2 can't turn the OOM killer off",
            ),
            (r#"{"memory": {"disableOOMKiller": false}}"#, ""),
            (r#"{"memory": {"kernel": -1, "kernelTCP": 0}}"#, ""),
        ]);
        let json = r#"{"memory": {"kernel": 9, "kernelTCP": 9, "useHierarchy": false}}"#;
        assert_eq!(plan(&resources(json)).unwrap().warnings.len(), 3);
    }
}
