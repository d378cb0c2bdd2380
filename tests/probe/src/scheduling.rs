//! How this process is scheduled, and what its clocks show.

use serde_json::{Value, json};

use crate::sys::{errno_name, last_errno};

/// struct sched_attr, as Linux 5.3 has it.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

pub(crate) fn report(report: &mut Value) {
    report["scheduler"] = scheduler();
    report["processors"] = json!(processors());
    report["io_priority"] = io_priority();
    report["memory_policy"] = memory_policy();
    report["clocks"] = clocks();
}

fn scheduler() -> Value {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: a struct of the size that is passed, for the kernel to fill.
    let ret = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if ret < 0 {
        return json!(errno_name(last_errno()));
    }
    json!({
        "policy": attr.policy,
        "flags": attr.flags,
        "nice": attr.nice,
        "priority": attr.priority,
        "runtime": attr.runtime,
        "deadline": attr.deadline,
        "period": attr.period,
    })
}

/// Numbers of the processors that this process may run on.
fn processors() -> Vec<usize> {
    let mut words = [0_u64; 128];
    // SAFETY: a buffer with its size.
    let bytes = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&words), words.as_mut_ptr())
    };
    let bits = usize::try_from(bytes).unwrap_or(0) * 8;
    (0..bits).filter(|n| words[n / 64] & (1 << (n % 64)) != 0).collect()
}

/// Class and level.
fn io_priority() -> Value {
    // SAFETY: numbers only; 1 is IOPRIO_WHO_PROCESS.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    json!([value >> 13, value & 7])
}

/// Mode with flags, and the nodes as bits.
fn memory_policy() -> Value {
    let mut mode: libc::c_int = 0;
    let mut nodes = [0_u64; 16];
    // SAFETY: a place for the mode and for as many bits as are told.
    let ret = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024, 0, 0)
    };
    if ret < 0 {
        return json!(errno_name(last_errno()));
    }
    json!([mode, nodes[0]])
}

/// Whole seconds of the clocks that a time namespace shifts.
fn clocks() -> Value {
    let seconds = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a place for one timespec.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec
    };
    json!({
        "monotonic": seconds(libc::CLOCK_MONOTONIC),
        "boottime": seconds(libc::CLOCK_BOOTTIME),
    })
}
