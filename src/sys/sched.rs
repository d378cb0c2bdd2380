//! How the kernel schedules a process: policy, processors, disk, memory nodes,
//! execution domain.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::{SysResult, check};

/// struct sched_attr (linux/sched/types.h), as Linux 5.3 knows it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this struct in bytes; filled in by [`set_scheduler`].
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for the real-time policies, else 0.
    pub priority: u32,
    /// SCHED_DEADLINE: nanoseconds of each period.
    pub runtime: u64,
    /// SCHED_DEADLINE: nanoseconds after the start of a period.
    pub deadline: u64,
    /// SCHED_DEADLINE: nanoseconds.
    pub period: u64,
    /// Lower bound of utilization, 0 to 1024.
    pub util_min: u32,
    /// Upper bound of utilization, 0 to 1024.
    pub util_max: u32,
}

/// Sets policy and parameters of a process (sched_setattr(2)).
///
/// # Errors
/// EPERM without CAP_SYS_NICE for what takes precedence over others, or where
/// its cgroup has no real-time budget; EOPNOTSUPP for clamps that the kernel
/// lacks; EBUSY when the deadlines of all can't be met.
pub fn set_scheduler(pid: Pid, attr: &SchedAttr) -> SysResult<()> {
    let size = u32::try_from(size_of::<SchedAttr>()).map_err(|_range| Errno::E2BIG)?;
    let attr = SchedAttr { size, ..*attr };
    // SAFETY: the kernel reads one struct, whose size is in it, that lives
    // through the call.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), std::ptr::from_ref(&attr), 0)
    })
    .map(drop)
}

/// Lets this process run on every processor that its cpuset has
/// (sched_setaffinity(2)).
pub fn use_all_processors() -> SysResult<()> {
    // more than any kernel knows: it takes what it needs, and of that what the
    // cpuset allows
    use_processors(&[u64::MAX; 128])
}

/// Lets this process run on these processors: number `n` is bit `n % 64` of word
/// `n / 64` (sched_setaffinity(2)).
///
/// # Errors
/// EINVAL when the cpuset has none of them.
pub fn use_processors(bits: &[u64]) -> SysResult<()> {
    let size = size_of_val(bits);
    // SAFETY: a buffer, passed with its size, that lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, bits.as_ptr()) }).map(drop)
}

/// Sets class and level of a process for disks (ioprio_set(2)).
///
/// # Errors
/// EPERM for the real-time class without CAP_SYS_NICE.
pub fn set_io_priority(pid: Pid, class: u16, level: u16) -> SysResult<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = (libc::c_int::from(class) << IOPRIO_CLASS_SHIFT) | libc::c_int::from(level);
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), value) })
        .map(drop)
}

/// Sets the memory policy of this process and of its children to come
/// (set_mempolicy(2)). `nodes` has bit `n % 64` of word `n / 64` for node `n`.
///
/// # Errors
/// EINVAL for a mode that the kernel does not know, and for nodes that are not
/// there or not allowed.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> SysResult<()> {
    // the kernel reads one bit less than it is told
    let bits = nodes.len() * 64 + usize::from(!nodes.is_empty());
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: as many bits as told are behind the pointer, or it is null and
    // the number 0.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// Sets the execution domain of this process (personality(2)).
pub fn set_personality(domain: u32) -> SysResult<()> {
    // SAFETY: an integer only.
    check(libc::c_long::from(unsafe { libc::personality(libc::c_ulong::from(domain)) })).map(drop)
}
