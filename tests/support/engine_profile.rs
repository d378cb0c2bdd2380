//! A profile of system calls as engines give it: what an ordinary program needs
//! is allowed, what reaches the whole machine is not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The newest call of Linux 5.16: as if the profile was written then.
const NEWEST: usize = 449;

/// Calls that an unprivileged container has no use for.
const REFUSED: [&str; 58] = [
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "clone",
    "clone3",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "socket",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uprobe",
    "uretprobe",
    "uselib",
];

fn allowed() -> BTreeSet<&'static str> {
    let native = (0..=NEWEST).filter_map(syscalls::x86_64::Sysno::new).map(|call| call.name());
    let i386 = (0..=NEWEST).filter_map(syscalls::x86::Sysno::new).map(|call| call.name());
    let arm = (0..=NEWEST).filter_map(syscalls::arm::Sysno::new).map(|call| call.name());
    let generic = (0..=NEWEST).filter_map(syscalls::aarch64::Sysno::new).map(|call| call.name());
    let all = native.chain(i386).chain(arm).chain(generic).chain(["newfstatat", "set_tls"]);
    all.filter(|name| !REFUSED.contains(name)).collect()
}

/// The profile for these architectures.
pub(crate) fn engine_profile(architectures: &[&str]) -> Value {
    let arg = |index: u32, op: &str, value: u64| json!({"index": index, "value": value, "op": format!("SCMP_CMP_{op}")});
    let allow = |call: &str, arg: Value| json!({"names": [call], "action": "SCMP_ACT_ALLOW", "args": [arg]});
    let mut rules = vec![json!({"names": allowed(), "action": "SCMP_ACT_ALLOW"})];
    // the default personality, and the few others that programs ask for
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(allow("personality", arg(0, "EQ", persona)));
    }
    // all families of sockets but AF_ALG and AF_VSOCK
    rules.extend([
        allow("socket", arg(0, "LT", 38)),
        allow("socket", arg(0, "EQ", 39)),
        allow("socket", arg(0, "GT", 40)),
    ]);
    // no new namespaces: their flags are an argument of clone, and in memory,
    // out of reach, for clone3
    let mut flags = arg(0, "MASKED_EQ", 0x7e02_0000);
    flags["valueTwo"] = json!(0);
    rules.push(allow("clone", flags));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": rules,
    })
}
