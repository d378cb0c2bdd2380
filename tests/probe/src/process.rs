//! What the kernel keeps about this process: ids, capabilities, limits, signals.

use serde_json::{Map, Value, json};

use crate::sys::{last_errno, signal_name};

const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// The numbers have another type with each C library.
const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

pub(crate) fn uids() -> Value {
    let (mut r, mut e, mut s) = (0, 0, 0);
    // SAFETY: three valid places to write to.
    unsafe { libc::getresuid(&raw mut r, &raw mut e, &raw mut s) };
    json!({"real": r, "effective": e, "saved": s})
}

pub(crate) fn gids() -> Value {
    let (mut r, mut e, mut s) = (0, 0, 0);
    // SAFETY: three valid places to write to.
    unsafe { libc::getresgid(&raw mut r, &raw mut e, &raw mut s) };
    json!({"real": r, "effective": e, "saved": s})
}

pub(crate) fn groups() -> Value {
    let mut groups = vec![0; 65536];
    // SAFETY: the length is that of the vector.
    let n = unsafe { libc::getgroups(65536, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(n).unwrap_or(0));
    groups.sort_unstable();
    json!(groups)
}

pub(crate) fn umask() -> u32 {
    // SAFETY: umask can't fail; the old value is put back.
    unsafe {
        let old = libc::umask(0);
        libc::umask(old);
        old
    }
}

fn prctl(option: i32, argument: usize) -> i32 {
    // SAFETY: the options used here take numbers, not pointers.
    unsafe { libc::prctl(option, argument, 0, 0, 0) }
}

pub(crate) fn no_new_privs() -> bool {
    prctl(libc::PR_GET_NO_NEW_PRIVS, 0) == 1
}

pub(crate) fn securebits() -> i32 {
    prctl(libc::PR_GET_SECUREBITS, 0)
}

pub(crate) fn parent_death_signal() -> i32 {
    let mut signal: i32 = 0;
    // SAFETY: the option writes one int to the address.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

pub(crate) fn dumpable() -> i32 {
    prctl(libc::PR_GET_DUMPABLE, 0)
}

/// The five sets, by the system calls rather than /proc: it may not be there.
pub(crate) fn capabilities() -> Value {
    // Version 3 of the interface: two words of 32 bits a set.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut data = [0_u32; 6];
    // SAFETY: header and data have the layout of version 3.
    unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let set = |word: usize| {
        let bits = u64::from(data[word]) | (u64::from(data[word + 3]) << 32);
        named(|n| bits & (1 << n) != 0)
    };
    json!({
        "effective": set(0),
        "permitted": set(1),
        "inheritable": set(2),
        "bounding": named(|n| prctl(libc::PR_CAPBSET_READ, n) == 1),
        "ambient": named(|n| {
            // SAFETY: numbers only.
            let is_set = unsafe {
                libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, n, 0, 0)
            };
            is_set == 1
        }),
    })
}

fn named(is_in: impl Fn(usize) -> bool) -> Vec<&'static str> {
    CAPABILITIES.iter().enumerate().filter(|(n, _)| is_in(*n)).map(|(_, name)| *name).collect()
}

/// Soft and hard; infinity is null.
pub(crate) fn rlimits() -> Value {
    let show = |v: libc::rlim_t| {
        if v == libc::RLIM_INFINITY { Value::Null } else { json!(v) }
    };
    let mut out = Map::new();
    for (name, resource) in RLIMITS {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid place to write to.
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        out.insert(
            name.to_owned(),
            json!({"soft": show(limit.rlim_cur), "hard": show(limit.rlim_max)}),
        );
    }
    Value::Object(out)
}

/// Blocked and ignored signals, real-time ones as numbers.
pub(crate) fn signals() -> Value {
    let mut blocked = Vec::new();
    let mut ignored = Vec::new();
    // SAFETY: zeroed sets and actions are valid, and are only written by the calls.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
        for signal in 1..=64 {
            if libc::sigismember(&raw const mask, signal) == 1 {
                blocked.push(signal_name(signal));
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
            {
                ignored.push(signal_name(signal));
            }
        }
    }
    json!({"blocked": blocked, "ignored": ignored})
}

/// Serial number of the session keyring, or the errno's name.
pub(crate) fn session_keyring() -> Value {
    const KEYCTL_GET_KEYRING_ID: usize = 0;
    const KEY_SPEC_SESSION_KEYRING: isize = -3;
    // SAFETY: numbers only.
    let id = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    };
    if id < 0 {
        return json!(crate::sys::errno_name(last_errno()));
    }
    json!(id)
}

pub(crate) fn personality() -> i32 {
    // SAFETY: the value 0xffffffff only asks.
    unsafe { libc::personality(0xffff_ffff) }
}

/// The terminal's rows and columns on this fd, and its width and height in pixels.
pub(crate) fn winsize(fd: i32) -> Option<((u16, u16), (u16, u16))> {
    // SAFETY: a zeroed winsize is valid, and the request writes one.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) == 0)
            .then_some(((size.ws_row, size.ws_col), (size.ws_xpixel, size.ws_ypixel)))
    }
}
