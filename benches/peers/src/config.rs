//! The configs that every runtime gets, to the byte the same.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

/// `default`: what `tare spec` writes, without a terminal. The version is what
/// old peers accept, the root a path that all bundles share.
pub(crate) fn default(spec: &Value, rootfs: &Path) -> Value {
    let mut config = spec.clone();
    config["ociVersion"] = json!("1.0.2");
    config["process"]["terminal"] = json!(false);
    config["root"]["path"] = json!(rootfs);
    config
}

/// `limits`: the same with limits that nothing in it reaches, one for a disk if there is
/// such a device.
pub(crate) fn limits(spec: &Value, rootfs: &Path, disk: Option<(u64, u64)>) -> Value {
    let mut config = default(spec, rootfs);
    let resources = &mut config["linux"]["resources"];
    resources["memory"] = json!({"limit": 256 << 20});
    resources["cpu"] = json!({"quota": 100_000, "period": 100_000, "shares": 512});
    resources["pids"] = json!({"limit": 512});
    if let Some((major, minor)) = disk {
        let device = json!([{"major": major, "minor": minor, "rate": 1u64 << 40}]);
        resources["blockIO"] = json!({"throttleReadBpsDevice": device});
    }
    config
}

/// The same for the floor: a file of the cgroup and what is written to it, a line each.
pub(crate) fn floor_limits(config: &Value) -> String {
    let resources = &config["linux"]["resources"];
    let (memory, cpu, pids) = (&resources["memory"], &resources["cpu"], &resources["pids"]);
    if memory.is_null() {
        return String::new();
    }
    let mut lines = format!(
        "memory.max {}\ncpu.weight 59\ncpu.max {} {}\npids.max {}\n",
        memory["limit"], cpu["quota"], cpu["period"], pids["limit"]
    );
    let disk = &resources["blockIO"]["throttleReadBpsDevice"][0];
    if !disk.is_null() {
        let line = format!("io.max {}:{} rbps={}\n", disk["major"], disk["minor"], disk["rate"]);
        lines.push_str(&line);
    }
    lines
}

/// `docker`: what an engine asks for: more capabilities, files bound into /etc,
/// device rules, more masked paths, a root that is writable.
pub(crate) fn docker(rootfs: &Path, etc: &Path) -> Value {
    let capabilities: Vec<String> = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
    .iter()
    .map(|name| format!("CAP_{name}"))
    .collect();
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces = namespaces.map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        // no noNewPrivileges at all: one peer takes false for true
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOSTNAME=0123456789ab"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "oomScoreAdj": 0,
        },
        "root": {"path": rootfs, "readonly": false},
        "hostname": "0123456789ab",
        "mounts": mounts(etc),
        "linux": {
            "resources": {"devices": devices()},
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore",
                "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
                "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
                "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
        },
    })
}

fn mounts(etc: &Path) -> Value {
    let one = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    let bind = |name: &str| {
        let from = etc.join(name);
        one(&format!("/etc/{name}"), "bind", &from.to_string_lossy(), &["rbind", "rprivate"])
    };
    json!([
        one("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        one("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        one(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        one("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        one("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        one("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        one("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        bind("resolv.conf"),
        bind("hostname"),
        bind("hosts"),
    ])
}

fn devices() -> Value {
    let allow = |major: Option<u32>, minor: Option<u32>, access: &str| {
        let mut rule = json!({"allow": true, "type": "c", "access": access});
        for (name, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                rule[name] = json!(number);
            }
        }
        rule
    };
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    let mut rules = vec![json!({"allow": false, "access": "rwm"}), allow(None, None, "m")];
    rules.extend(nodes.map(|(major, minor)| allow(Some(major), Some(minor), "rwm")));
    rules.push(allow(Some(136), None, "rwm"));
    json!(rules)
}

/// Calls that a container of an engine has no need of: they change the machine,
/// or look into the kernel or into others.
const REFUSED: [&str; 52] = [
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
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
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
    "move_pages",
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
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "socket",
    "stime",
    "swapoff",
    "swapon",
    "umount",
    "umount2",
    "unshare",
];

/// A profile of the shape that engines send: nearly all calls of the kernel's
/// own headers allowed by name, some with conditions, the rest an error.
pub(crate) fn seccomp(headers: &[String]) -> Value {
    let mut names: BTreeSet<&str> = headers.iter().flat_map(|text| names_of(text)).collect();
    names.retain(|name| !REFUSED.contains(name));
    let equal = |value: u64| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let allow = |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args});
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // personalities: Linux, uname 2.6, 32 bit, both, and asking for it
    for value in [0, 0x20000, 0x8, 0x20008, 0xffff_ffff] {
        rules.push(allow("personality", equal(value)));
    }
    // any family but that of virtual machines
    rules.push(allow("socket", json!([{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}])));
    // no namespaces by clone; clone3 can't be looked into, so it is not there
    rules.push(allow(
        "clone",
        json!([{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
    ));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// The same for the floor, as the kernel takes it: the allowed calls one after
/// the other, two instructions each, without the conditions.
pub(crate) fn floor_filter(header: &str) -> Vec<u8> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0001;
    let mut filter = Vec::new();
    let mut push = |code: u16, if_not: u8, value: u32| {
        filter.extend_from_slice(&code.to_ne_bytes());
        filter.extend_from_slice(&[0, if_not]);
        filter.extend_from_slice(&value.to_ne_bytes());
    };
    push(LOAD, 0, 0);
    for line in header.lines() {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next().and_then(|word| word.strip_prefix("__NR_")).unwrap_or_default();
        let number = words.next().and_then(|number| number.parse().ok());
        let (false, Some(number)) = (REFUSED.contains(&name) || name.is_empty(), number) else {
            continue;
        };
        push(EQUAL, 1, number);
        push(RETURN, 0, ALLOW);
    }
    push(RETURN, 0, ERRNO);
    filter
}

fn architectures() -> Value {
    match std::env::consts::ARCH {
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    }
}

/// Names of a header's `#define __NR_name number`.
fn names_of(header: &str) -> impl Iterator<Item = &str> {
    header.lines().filter_map(|line| {
        let name = line.strip_prefix("#define __NR_")?.split_whitespace().next()?;
        // not a call, but a number to count from
        (!name.starts_with("3264_") && name != "syscalls" && name != "arch_specific_syscall")
            .then_some(name)
    })
}

/// What `inside check` prints in a container of the config.
pub(crate) fn expected(config: &Value) -> String {
    const NAMES: [(&str, u32); 14] = [
        ("CHOWN", 0),
        ("DAC_OVERRIDE", 1),
        ("FOWNER", 3),
        ("FSETID", 4),
        ("KILL", 5),
        ("SETGID", 6),
        ("SETUID", 7),
        ("SETPCAP", 8),
        ("NET_BIND_SERVICE", 10),
        ("NET_RAW", 13),
        ("SYS_CHROOT", 18),
        ("MKNOD", 27),
        ("AUDIT_WRITE", 29),
        ("SETFCAP", 31),
    ];
    let process = &config["process"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is = |value: &Value| value.as_bool().unwrap_or_default();
    let empty = Vec::new();
    let capabilities = process["capabilities"]["bounding"].as_array().unwrap_or(&empty);
    let bits = capabilities.iter().map(text).fold(0u64, |bits, name| {
        let known = NAMES.iter().find(|(known, _)| name.strip_prefix("CAP_") == Some(*known));
        bits | known.map_or(0, |(_, bit)| 1 << bit)
    });
    let seccomp = if config["linux"]["seccomp"].is_null() { 0 } else { 2 };
    let root = if is(&config["root"]["readonly"]) { "read-only" } else { "writable" };
    format!(
        "pid: 1\nhost: {}\nfiles: 1024\nCapEff:\t{bits:016x}\nCapBnd:\t{bits:016x}\n\
         NoNewPrivs:\t{}\nSeccomp:\t{seccomp}\n/dev/null: device\n/dev/urandom: device\n\
         /dev/pts/ptmx: device\nunlisted device: refused\nkcore: masked\nkeys: masked\nsysctl: read-only\nroot: {root}\n\
         cgroup: there\n",
        text(&config["hostname"]),
        u8::from(is(&process["noNewPrivileges"])),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_the_calls_of_the_headers() {
        let header = "#define __NR_read 0\n#define __NR_mount 165\n#define __NR_syscalls 9\nx\n";
        let profile = seccomp(&[header.to_owned()]);
        assert_eq!(profile["syscalls"][0]["names"], json!(["read"]));
        assert_eq!(profile["syscalls"].as_array().unwrap().len(), 9);
        // load; is it read; allow; else an error
        assert_eq!(floor_filter(header.lines().next().unwrap()).len(), 4 * 8);
    }

    #[test]
    fn a_docker_like_config_is_as_large_as_docker_s() {
        let config = docker(Path::new("/r"), Path::new("/etc"));
        let length = |value: &Value| value.as_array().unwrap().len();
        assert_eq!(length(&config["mounts"]), 10);
        assert_eq!(length(&config["linux"]["maskedPaths"]), 12);
        assert_eq!(length(&config["process"]["capabilities"]["bounding"]), 14);
    }

    #[test]
    fn the_floor_gets_the_same_limits() {
        let spec = json!({"process": {}, "root": {}, "linux": {"resources": {}}});
        let config = limits(&spec, Path::new("/r"), Some((254, 0)));
        assert_eq!(
            floor_limits(&config),
            "memory.max 268435456\ncpu.weight 59\ncpu.max 100000 100000\npids.max 512\n\
             io.max 254:0 rbps=1099511627776\n"
        );
        assert_eq!(floor_limits(&default(&spec, Path::new("/r"))), "");
    }

    #[test]
    fn what_is_expected_follows_the_config() {
        let text = expected(&docker(Path::new("/r"), Path::new("/etc")));
        assert!(text.contains("CapEff:\t00000000a80425fb\n"), "{text}");
        assert!(text.contains("host: 0123456789ab\n") && text.contains("root: writable\n"));
    }
}
