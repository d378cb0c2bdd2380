//! process.scheduler, ioPriority, execCPUAffinity; linux.memoryPolicy,
//! personality.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonalityDomain,
    LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType,
    MemoryPolicyModeType as Mode, Process, Scheduler,
};
use serde::{Deserialize, Serialize};

use super::numbers::mask;
use crate::error::{Error, Result};
use crate::sys::sched::SchedAttr;

/// SCHED_DEADLINE (linux/sched.h).
const SCHED_DEADLINE: u32 = 6;

/// SCHED_FLAG_RESET_ON_FORK (linux/sched.h).
const RESET_ON_FORK: u64 = 1;

/// Most memory nodes that any kernel is built for.
const MAX_NODE: usize = 1023;

/// Most processors that any kernel is built for.
pub(super) const MAX_PROCESSOR: usize = 8191;

/// Modes of linux.memoryPolicy and their numbers (linux/mempolicy.h).
pub(super) const MEMORY_MODES: [(Mode, &str, i32); 7] = [
    (Mode::MpolDefault, "MPOL_DEFAULT", 0),
    (Mode::MpolBind, "MPOL_BIND", 2),
    (Mode::MpolInterleave, "MPOL_INTERLEAVE", 3),
    (Mode::MpolWeightedInterleave, "MPOL_WEIGHTED_INTERLEAVE", 6),
    (Mode::MpolPreferred, "MPOL_PREFERRED", 1),
    (Mode::MpolPreferredMany, "MPOL_PREFERRED_MANY", 5),
    (Mode::MpolLocal, "MPOL_LOCAL", 4),
];

/// Flags of linux.memoryPolicy and their bits (linux/mempolicy.h).
pub(super) const MEMORY_FLAGS: [(MemoryPolicyFlagType, &str, i32); 3] = [
    (MemoryPolicyFlagType::MpolFNumaBalancing, "MPOL_F_NUMA_BALANCING", 1 << 13),
    (MemoryPolicyFlagType::MpolFRelativeNodes, "MPOL_F_RELATIVE_NODES", 1 << 14),
    (MemoryPolicyFlagType::MpolFStaticNodes, "MPOL_F_STATIC_NODES", 1 << 15),
];

/// Class and level for disks (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriorityPlan {
    /// IOPRIO_CLASS_*.
    pub class: u16,
    /// 0, the highest, to 7.
    pub level: u16,
}

/// A memory policy (set_mempolicy(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicyPlan {
    /// MPOL_* with its flags.
    pub mode: i32,
    /// Nodes as bits, 64 a word.
    pub nodes: Vec<u64>,
}

/// Processors for the processes of `exec`, as lists that are checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAffinity {
    /// Before the process is in the container's cgroup.
    pub initial: Option<String>,
    /// From then on.
    pub last: Option<String>,
}

/// How the container's program is scheduled.
#[derive(Debug, Clone, Default)]
pub struct SchedulingPlan {
    /// Policy and parameters.
    pub scheduler: Option<SchedAttr>,
    /// For disks.
    pub io_priority: Option<IoPriorityPlan>,
    /// For processes of `exec`.
    pub exec_affinity: Option<ExecAffinity>,
    /// For memory.
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// PER_* (personality(2)).
    pub personality: Option<u32>,
}

impl SchedulingPlan {
    pub(super) fn resolve(process: &Process, linux: Option<&Linux>) -> Result<Self> {
        Ok(SchedulingPlan {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            exec_affinity: process.exec_cpu_affinity().as_ref().map(exec_affinity).transpose()?,
            memory_policy: memory_policy(linux)?,
            personality: personality(linux)?,
        })
    }

    /// Why a process that is scheduled so can't fork and have its child be
    /// scheduled so too; `None` if it can.
    pub fn forbids_fork(&self) -> Option<&'static str> {
        let attr = self.scheduler.as_ref()?;
        if attr.flags & RESET_ON_FORK != 0 {
            Some("with SCHED_FLAG_RESET_ON_FORK a child is scheduled as ever")
        } else if attr.policy == SCHED_DEADLINE {
            Some("SCHED_DEADLINE without SCHED_FLAG_RESET_ON_FORK forbids to fork")
        } else {
            None
        }
    }

    /// True when the process can't make another one at all.
    pub fn is_alone(&self) -> bool {
        let deadline = |a: &SchedAttr| a.policy == SCHED_DEADLINE && a.flags & RESET_ON_FORK == 0;
        self.scheduler.as_ref().is_some_and(deadline)
    }
}

fn scheduler(given: &Scheduler) -> Result<SchedAttr> {
    let policy = policy_number(*given.policy())?;
    let nice = given.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::invalid(format!(
            "process.scheduler.nice: {nice} is not within -20..19"
        )));
    }
    let flags = given.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag));
    let attr = SchedAttr {
        policy,
        flags,
        nice,
        priority: priority(given)?,
        runtime: given.runtime().unwrap_or(0),
        deadline: given.deadline().unwrap_or(0),
        period: given.period().unwrap_or(0),
        ..SchedAttr::default()
    };
    check_deadline(&attr)?;
    Ok(attr)
}

fn policy_number(policy: Policy) -> Result<u32> {
    Ok(match policy {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => {
            return Err(Error::invalid(
                "process.scheduler.policy: SCHED_ISO is reserved: no Linux has it",
            ));
        }
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => SCHED_DEADLINE,
    })
}

fn flag_bit(flag: Flag) -> u64 {
    match flag {
        Flag::SchedResetOnFork => RESET_ON_FORK,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    }
}

fn priority(given: &Scheduler) -> Result<u32> {
    let value = given.priority().unwrap_or(0);
    let real_time = matches!(given.policy(), Policy::SchedFifo | Policy::SchedRr);
    let allowed = if real_time { 1..=99 } else { 0..=0 };
    match u32::try_from(value) {
        Ok(priority) if allowed.contains(&priority) => Ok(priority),
        _ if real_time => Err(Error::invalid(format!(
            "process.scheduler.priority: {value} is not within 1..99, which {} needs",
            given.policy()
        ))),
        _ => Err(Error::invalid(format!(
            "process.scheduler.priority: {value} with {}: only SCHED_FIFO and SCHED_RR have one",
            given.policy()
        ))),
    }
}

fn check_deadline(attr: &SchedAttr) -> Result<()> {
    let times = [("runtime", attr.runtime), ("deadline", attr.deadline), ("period", attr.period)];
    if attr.policy != SCHED_DEADLINE {
        return match times.iter().find(|(_, value)| *value != 0) {
            None => Ok(()),
            Some((name, value)) => Err(Error::invalid(format!(
                "process.scheduler.{name}: {value} is for SCHED_DEADLINE only"
            ))),
        };
    }
    // a period of 0 is the deadline (sched_setattr(2))
    let period = if attr.period == 0 { attr.deadline } else { attr.period };
    if attr.runtime == 0 || attr.runtime > attr.deadline || attr.deadline > period {
        return Err(Error::invalid(format!(
            "process.scheduler: SCHED_DEADLINE needs 0 < runtime {} <= deadline {} <= period {}",
            attr.runtime, attr.deadline, attr.period
        )));
    }
    Ok(())
}

fn io_priority(given: &LinuxIOPriority) -> Result<IoPriorityPlan> {
    let class = match given.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(given.priority()) {
        Ok(level) if level <= 7 => Ok(IoPriorityPlan { class, level }),
        _ => Err(Error::invalid(format!(
            "process.ioPriority.priority: {} is not within 0..7",
            given.priority()
        ))),
    }
}

fn exec_affinity(given: &ExecCPUAffinity) -> Result<ExecAffinity> {
    let list = |name: &str, text: &Option<String>| {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        mask(text, MAX_PROCESSOR)
            .map(|_bits| Some(text.to_owned()))
            .map_err(|e| e.step(format!("process.execCPUAffinity.{name}")))
    };
    Ok(ExecAffinity {
        initial: list("initial", given.initial())?,
        last: list("final", given.cpu_affinity_final())?,
    })
}

fn memory_policy(linux: Option<&Linux>) -> Result<Option<MemoryPolicyPlan>> {
    let Some(given) = linux.and_then(|l| l.memory_policy().as_ref()) else { return Ok(None) };
    let (name, number) = MEMORY_MODES
        .iter()
        .find(|(mode, _, _)| *mode == given.mode())
        .map_or(("MPOL_DEFAULT", 0), |(_, name, number)| (*name, *number));
    let list = given.nodes().as_deref().unwrap_or_default();
    let nodes = if list.is_empty() { Vec::new() } else { mask(list, MAX_NODE).map_err(nodes)? };
    match (given.mode(), nodes.is_empty()) {
        (Mode::MpolDefault | Mode::MpolLocal, false) => {
            return Err(nodes_error(&format!("{name} takes none")));
        }
        (Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred, true) | (_, false) => {}
        (_, true) => return Err(nodes_error(&format!("{name} needs one at least"))),
    }
    let flags = memory_flags(given, name, nodes.is_empty())?;
    Ok(Some(MemoryPolicyPlan { mode: number | flags, nodes }))
}

fn nodes(e: Error) -> Error {
    e.step("linux.memoryPolicy.nodes")
}

fn nodes_error(text: &str) -> Error {
    nodes(Error::invalid(text))
}

fn memory_flags(
    given: &oci_spec::runtime::LinuxMemoryPolicy,
    mode: &str,
    no_nodes: bool,
) -> Result<i32> {
    use MemoryPolicyFlagType as F;
    let list = given.flags().as_deref().unwrap_or_default();
    let error = |text: String| Err(Error::invalid(format!("linux.memoryPolicy.flags: {text}")));
    let has = |flag: F| list.contains(&flag);
    if has(F::MpolFStaticNodes) && has(F::MpolFRelativeNodes) {
        return error("MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other".into());
    }
    if no_nodes && (has(F::MpolFStaticNodes) || has(F::MpolFRelativeNodes)) {
        return error(format!("{mode} without nodes takes no flag that is about nodes"));
    }
    if has(F::MpolFNumaBalancing)
        && !matches!(given.mode(), Mode::MpolBind | Mode::MpolPreferredMany)
    {
        return error(format!("MPOL_F_NUMA_BALANCING does not go with {mode}"));
    }
    let bits = MEMORY_FLAGS.iter().filter(|(flag, _, _)| has(*flag));
    Ok(bits.fold(0, |all, (_, _, bit)| all | bit))
}

fn personality(linux: Option<&Linux>) -> Result<Option<u32>> {
    let Some(given) = linux.and_then(|l| l.personality().as_ref()) else { return Ok(None) };
    if let Some(flag) = given.flags().iter().flatten().next() {
        return Err(Error::unsupported(format!(
            "linux.personality.flags[0]: {flag:?}: the specification knows none"
        )));
    }
    Ok(Some(match given.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(process: &str, linux: &str) -> Result<SchedulingPlan> {
        let process = format!(r#"{{"user":{{}},"cwd":"/","args":["a"]{process}}}"#);
        let linux: Linux = serde_json::from_str(linux).unwrap();
        SchedulingPlan::resolve(&serde_json::from_str(&process).unwrap(), Some(&linux))
    }

    #[test]
    fn numbers_are_the_kernels() {
        let plan = resolve(
            r#","scheduler":{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"flags":
                ["SCHED_FLAG_RECLAIM"]},"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":4}"#,
            r#"{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]},
                "personality":{"domain":"LINUX32"}}"#,
        )
        .unwrap();
        let attr = plan.scheduler.unwrap();
        assert_eq!((attr.policy, attr.flags, attr.runtime, attr.deadline), (6, 2, 1, 2));
        assert!(plan.is_alone() && plan.forbids_fork().is_some());
        assert_eq!(plan.io_priority, Some(IoPriorityPlan { class: 3, level: 4 }));
        let policy = MemoryPolicyPlan { mode: 2 | (1 << 15), nodes: vec![1, 2] };
        assert_eq!(plan.memory_policy, Some(policy));
        assert_eq!(plan.personality, Some(8));
    }

    #[test]
    fn wrong_input_names_the_field() {
        for (json, start) in [
            (r#""policy":"SCHED_ISO""#, "process.scheduler.policy"),
            (r#""policy":"SCHED_OTHER","nice":20"#, "process.scheduler.nice"),
            (r#""policy":"SCHED_OTHER","priority":1"#, "process.scheduler.priority"),
            (r#""policy":"SCHED_FIFO""#, "process.scheduler.priority: 0"),
            (r#""policy":"SCHED_RR","priority":100"#, "process.scheduler.priority"),
            (r#""policy":"SCHED_BATCH","period":1"#, "process.scheduler.period"),
            (r#""policy":"SCHED_DEADLINE""#, "process.scheduler: SCHED_DEADLINE needs"),
            (r#""policy":"SCHED_DEADLINE","runtime":3,"deadline":2"#, "process.scheduler: "),
        ] {
            let text = resolve(&format!(",\"scheduler\":{{{json}}}"), "{}").unwrap_err();
            assert!(text.to_string().starts_with(start), "{json}: {text}");
        }
        for (json, start) in [
            (r#""mode":"MPOL_BIND""#, "linux.memoryPolicy.nodes: MPOL_BIND needs"),
            (r#""mode":"MPOL_LOCAL","nodes":"0""#, "linux.memoryPolicy.nodes: MPOL_LOCAL takes"),
            (r#""mode":"MPOL_BIND","nodes":"x""#, "linux.memoryPolicy.nodes: \"x\""),
            (
                r#""mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]"#,
                "linux.memoryPolicy.flags",
            ),
            (
                r#""mode":"MPOL_PREFERRED","flags":["MPOL_F_STATIC_NODES"]"#,
                "linux.memoryPolicy.flags",
            ),
        ] {
            let text = resolve("", &format!("{{\"memoryPolicy\":{{{json}}}}}")).unwrap_err();
            assert!(text.to_string().starts_with(start), "{json}: {text}");
        }
        let text = resolve(r#","execCPUAffinity":{"initial":"3-1"}"#, "{}").unwrap_err();
        assert!(text.to_string().starts_with("process.execCPUAffinity.initial"), "{text}");
        let text = resolve(r#","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#, "{}");
        assert!(text.unwrap_err().to_string().starts_with("process.ioPriority.priority"));
    }
}
