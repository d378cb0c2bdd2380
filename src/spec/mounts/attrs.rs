//! What can be changed of a mount: attributes and propagation.

use nix::mount::MsFlags;

use crate::sys::mount::attr;

/// A change of propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE.
    pub kind: MsFlags,
    /// For the mounts below as well.
    pub recursive: bool,
}

/// Attributes to set and to clear (see [`attr`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl AttrChange {
    /// True when nothing changes.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    /// The same without what the kernel denies to a user namespace on a mount
    /// that it got from outside: taking a restriction away, and another access
    /// time mode (mount_namespaces(7)).
    #[must_use]
    pub fn without_what_locks(self) -> Self {
        let times = attr::ATIME_MASK | attr::NODIRATIME;
        AttrChange { set: self.set & !times, clear: self.clear & attr::NOSYMFOLLOW }
    }

    /// To set, without anything to clear.
    pub const fn setting(bits: u64) -> Self {
        AttrChange { set: bits, clear: 0 }
    }

    pub(super) fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    pub(super) fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    pub(super) fn set_atime(&mut self, mode: u64) {
        // the three access time modes are one field: the whole of it is
        // cleared first (mount_setattr(2))
        self.clear |= attr::ATIME_MASK;
        self.set = (self.set & !attr::ATIME_MASK) | mode;
    }
}
