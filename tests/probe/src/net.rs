//! Network devices of this namespace.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// By name: is it up, and its addresses with the lengths of their prefixes.
pub(crate) fn interfaces() -> Value {
    let mut found: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: a place for the list; it is walked as getifaddrs(3) says, and freed.
    unsafe {
        if libc::getifaddrs(&raw mut list) != 0 {
            return json!(crate::sys::errno_name(crate::sys::last_errno()));
        }
        let mut at = list;
        while let Some(entry) = at.as_ref() {
            let name = CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned();
            let device = found.entry(name).or_default();
            device.0 = entry.ifa_flags & libc::IFF_UP.cast_unsigned() != 0;
            device.1.extend(address(entry));
            at = entry.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    json!(
        found
            .into_iter()
            .map(|(name, (up, addresses))| (name, json!({"up": up, "addresses": addresses})))
            .collect::<BTreeMap<_, _>>()
    )
}

/// # Safety
/// An entry of getifaddrs.
unsafe fn address(entry: &libc::ifaddrs) -> Option<String> {
    // SAFETY: the caller's promise; the family says which struct it is.
    unsafe {
        let family = i32::from(entry.ifa_addr.as_ref()?.sa_family);
        match family {
            libc::AF_INET => {
                let ip = (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                let mask = (*entry.ifa_netmask.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                Some(format!("{}/{}", Ipv4Addr::from(u32::from_be(ip)), mask.count_ones()))
            }
            libc::AF_INET6 => {
                let ip = (*entry.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                let mask = (*entry.ifa_netmask.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                Some(format!("{}/{bits}", Ipv6Addr::from(ip)))
            }
            _ => None,
        }
    }
}
