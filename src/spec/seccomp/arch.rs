//! Architectures, and the numbers that their system calls have.

use std::collections::BTreeSet;

use oci_spec::runtime::Arch;

/// Added to the number of a call by programs of the x32 ABI of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// More calls than any architecture has.
pub(super) const MOST_CALLS: usize = 512;

/// Calls of ARM that are in no table: they are the kernel's private ones.
const ARM_PRIVATE: [(&str, u32); 6] = [
    ("breakpoint", 0x0f_0001),
    ("cacheflush", 0x0f_0002),
    ("usr26", 0x0f_0003),
    ("usr32", 0x0f_0004),
    ("set_tls", 0x0f_0005),
    ("get_tls", 0x0f_0006),
];

/// First of the numbers that x32 alone has, and the calls behind them (from the
/// kernel's syscall_64.tbl; there will never be more).
const X32_FIRST: u32 = 512;
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// How the arguments of a call lie in struct seccomp_data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Words {
    /// Both halves of an argument count; else the low one alone.
    pub(super) wide: bool,
    /// The high half is the first.
    pub(super) big_endian: bool,
}

/// The architecture that this machine has.
pub(super) fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 }
}

/// Its number in struct seccomp_data (AUDIT_ARCH_*).
pub(super) fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchX32 => Arch::ScmpArchX86_64 as u32,
        other => other as u32,
    }
}

/// The words of its arguments.
pub(super) fn words(arch: Arch) -> Words {
    // the bits of AUDIT_ARCH_*; x32 is a machine of 32 bits here, as it is for
    // libseccomp and for most of the kernel's calls
    let wide = audit(arch) & 0x8000_0000 != 0 && arch != Arch::ScmpArchX32;
    Words { wide, big_endian: audit(arch) & 0x4000_0000 == 0 }
}

/// Calls `visit` with the number and the name of every call. False: there is no
/// table of this architecture.
pub(super) fn each_call(arch: Arch, visit: &mut dyn FnMut(u32, &'static str)) -> bool {
    macro_rules! table {
        ($module:ident) => {{
            use syscalls::$module::Sysno;
            // not `Sysno::iter`, which leaves out the last one
            for id in Sysno::first().id()..=Sysno::last().id() {
                let id = id.cast_unsigned();
                if let Some(call) = usize::try_from(id).ok().and_then(Sysno::new)
                    && let Some(name) = corrected(arch, id, call.name())
                {
                    visit(id, name);
                }
            }
        }};
    }
    match arch {
        Arch::ScmpArchX86_64 => table!(x86_64),
        Arch::ScmpArchX86 => table!(x86),
        Arch::ScmpArchX32 => each_x32_call(visit),
        Arch::ScmpArchAarch64 => table!(aarch64),
        Arch::ScmpArchArm => {
            table!(arm);
            ARM_PRIVATE.iter().for_each(|(name, number)| visit(*number, name));
        }
        Arch::ScmpArchRiscv64 => table!(riscv64),
        Arch::ScmpArchLoongarch64 => table!(loongarch64),
        Arch::ScmpArchPpc64 | Arch::ScmpArchPpc64le => table!(powerpc64),
        Arch::ScmpArchS390x => table!(s390x),
        _ => return false,
    }
    true
}

/// The names of all calls on all architectures that there is a table of.
pub(super) fn all_names() -> BTreeSet<&'static str> {
    const TABLES: [Arch; 9] = [
        Arch::ScmpArchX86_64,
        Arch::ScmpArchX86,
        Arch::ScmpArchX32,
        Arch::ScmpArchAarch64,
        Arch::ScmpArchArm,
        Arch::ScmpArchRiscv64,
        Arch::ScmpArchLoongarch64,
        Arch::ScmpArchPpc64,
        Arch::ScmpArchS390x,
    ];
    let mut names = BTreeSet::new();
    for arch in TABLES {
        each_call(arch, &mut |_, name| {
            names.insert(name);
        });
    }
    names
}

/// The name that profiles have for a call of the crate's tables; `None`: the
/// architecture lacks it.
fn corrected(arch: Arch, number: u32, name: &'static str) -> Option<&'static str> {
    let is_generic = matches!(arch, Arch::ScmpArchAarch64 | Arch::ScmpArchLoongarch64);
    match name {
        "r#break" => Some("break"),
        "fstatat" if is_generic => Some("newfstatat"),
        // times of 64 bits are for machines of 32 bits
        _ if is_generic && (403..=423).contains(&number) => None,
        other => Some(other),
    }
}

/// Numbers on x86_64 of what is in [`X32_OWN`], and of what x32 lacks: found sooner than
/// by name.
const X32_SKIPS: [u32; 47] = [
    13, 15, 16, 19, 20, 45, 46, 47, 54, 55, 59, 101, 127, 128, 129, 131, 134, 156, 174, 177, 178,
    180, 205, 206, 209, 211, 214, 215, 222, 236, 244, 246, 247, 273, 274, 278, 279, 295, 296, 297,
    299, 307, 310, 311, 322, 327, 328,
];

fn each_x32_call(visit: &mut dyn FnMut(u32, &'static str)) {
    each_call(Arch::ScmpArchX86_64, &mut |number, name| {
        if X32_SKIPS.binary_search(&number).is_err() {
            visit(X32_BIT + number, name);
        }
    });
    for (number, name) in (X32_FIRST..).zip(X32_OWN) {
        visit(X32_BIT + number, name);
    }
}

/// A number of the kernel's table, not one of ARM's private ones: the next call
/// that Linux gets will have a higher one.
pub(super) fn is_in_sequence(arch: Arch, number: u32) -> bool {
    arch != Arch::ScmpArchArm || number < 0x0f_0000
}

/// The calls that can also be made by this one, whose first argument then says
/// which is meant.
pub(super) fn multiplexed(by: &str) -> &'static [(&'static str, u64)] {
    const SOCKETCALL: [(&str, u64); 20] = [
        ("socket", 1),
        ("bind", 2),
        ("connect", 3),
        ("listen", 4),
        ("accept", 5),
        ("getsockname", 6),
        ("getpeername", 7),
        ("socketpair", 8),
        ("send", 9),
        ("recv", 10),
        ("sendto", 11),
        ("recvfrom", 12),
        ("shutdown", 13),
        ("setsockopt", 14),
        ("getsockopt", 15),
        ("sendmsg", 16),
        ("recvmsg", 17),
        ("accept4", 18),
        ("recvmmsg", 19),
        ("sendmmsg", 20),
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    match by {
        "socketcall" => &SOCKETCALL,
        "ipc" => &IPC,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of x86_64 that x32 lacks.
    const X32_LACKS: [&str; 11] = [
        "uselib",
        "_sysctl",
        "create_module",
        "get_kernel_syms",
        "query_module",
        "nfsservctl",
        "set_thread_area",
        "get_thread_area",
        "epoll_ctl_old",
        "epoll_wait_old",
        "vserver",
    ];

    #[test]
    fn what_x32_skips_is_skipped_by_number() {
        let mut numbers = Vec::new();
        each_call(Arch::ScmpArchX86_64, &mut |number, name| {
            if X32_OWN.contains(&name) || X32_LACKS.contains(&name) {
                numbers.push(number);
            }
        });
        assert_eq!(numbers, X32_SKIPS);
    }
}
