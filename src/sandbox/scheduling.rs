//! Scheduling: what init sets for itself, and what the runtime sets for it.

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, Result, Step};
use crate::spec::SchedulingPlan;
use crate::sys::sched;

/// Init's side: what every process can set for itself, and no one for another.
pub(super) fn set_own(plan: &SchedulingPlan) -> Result<()> {
    if let Some(policy) = &plan.memory_policy {
        sched::set_memory_policy(policy.mode, &policy.nodes).map_err(|e| {
            let hint = match e {
                Errno::EINVAL => "a node that is not there or not allowed, or a newer mode",
                _ => "does the kernel have NUMA?",
            };
            Error::from(e).step("linux.memoryPolicy: set_mempolicy").hint(hint)
        })?;
    }
    if let Some(domain) = plan.personality {
        sched::set_personality(domain).step(|| "linux.personality")?;
    }
    Ok(())
}

/// The runtime's side, once init is ready: in a user namespace init itself may
/// not take precedence over others, and under SCHED_DEADLINE it could not fork
/// for its own set-up.
pub(super) fn set_outside(plan: &SchedulingPlan, init: Pid) -> Result<()> {
    if let Some(priority) = plan.io_priority {
        sched::set_io_priority(init, priority.class, priority.level).map_err(|e| {
            let e = Error::from(e).step("process.ioPriority: ioprio_set");
            match e.is_errno(Errno::EPERM) {
                true => e.hint("IOPRIO_CLASS_RT needs CAP_SYS_NICE"),
                false => e,
            }
        })?;
    }
    if let Some(attr) = &plan.scheduler {
        sched::set_scheduler(init, attr).map_err(|e| {
            let error = Error::from(e).step("process.scheduler: sched_setattr");
            match scheduler_hint(e) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
    }
    Ok(())
}

fn scheduler_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EPERM => Some(
            "what takes precedence needs CAP_SYS_NICE, a real-time policy a budget in its cgroup, \
             and SCHED_DEADLINE all processors",
        ),
        Errno::EBUSY => Some("the processors have no time left for this deadline"),
        Errno::EOPNOTSUPP => Some("the kernel has no utilization clamps"),
        _ => None,
    }
}
