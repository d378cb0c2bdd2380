//! The network: only what a new namespace needs at birth.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

use super::{SysResult, check};

/// Brings the loopback interface of this network namespace up (netdevice(7)).
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn bring_loopback_up() -> SysResult<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        // signed or not, by architecture
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    // a new loopback interface has no flags but these
    let flags = libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(i16::MAX);
    // SAFETY: the kernel reads one ifreq that lives through the call.
    let ret = unsafe {
        libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request))
    };
    check(libc::c_long::from(ret)).map(drop)
}

/// Sets the NIS domain name of this UTS namespace (setdomainname(2)).
pub fn set_domain_name(name: &str) -> SysResult<()> {
    // SAFETY: a pointer and the length of what is behind it.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(libc::c_long::from(ret)).map(drop)
}
