//! Who runs tare: root of the machine, root of a user namespace, or neither.

use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use caps::{CapSet, Capability};
use nix::unistd::{getegid, geteuid};

/// Inode of the machine's first user namespace (PROC_USER_INIT_INO,
/// linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// The process as it was when it was first asked about: what it becomes in a
/// user namespace of its own changes nothing about whose files are whose.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// In the user namespace that the machine started with.
    pub initial: bool,
    /// CAP_SYS_ADMIN in its user namespace: a user id says nothing of that.
    pub capable: bool,
}

impl Caller {
    /// Root as the machine knows it, who needs no user namespace, may make
    /// device nodes and load programs into the kernel.
    pub fn is_host_root(&self) -> bool {
        self.initial && self.capable
    }

    /// True when the system's own directories (/run, /var/lib) are not this
    /// caller's: an ordinary user, and root of that user's namespace, who still
    /// has the user's environment.
    pub fn has_own_directories(&self) -> bool {
        self.uid != 0 || !self.initial && std::env::var_os("XDG_RUNTIME_DIR").is_some()
    }
}

/// The caller.
pub fn caller() -> &'static Caller {
    static CALLER: OnceLock<Caller> = OnceLock::new();
    CALLER.get_or_init(|| Caller {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        initial: is_initial(),
        capable: is_capable(),
    })
}

/// True in the user namespace that the machine started with.
pub fn is_initial() -> bool {
    // without /proc nothing works, and the next step says so
    std::fs::metadata("/proc/self/ns/user")
        .map_or(true, |found| found.ino() == INITIAL_USER_NAMESPACE)
}

/// CAP_SYS_ADMIN in the user namespace that this process is in now.
pub fn is_capable() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false)
}
