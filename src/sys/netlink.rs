//! Routing netlink (rtnetlink(7)), as much of it as moving a device takes.
//!
//! A socket speaks for the network namespace that it was made in, wherever the
//! process goes later.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::{SysResult, uninterrupted};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFF_UP: u32 = 1;

/// IFA_F_PERMANENT (linux/if_addr.h).
const PERMANENT: u32 = 0x80;

/// What the kernel says about an address and nobody may ask for: OPTIMISTIC,
/// DADFAILED, DEPRECATED, TENTATIVE.
const STATUS_FLAGS: u32 = 0x04 | 0x08 | 0x20 | 0x40;

/// Bytes of nlmsghdr, ifinfomsg and ifaddrmsg.
const HEADER: usize = 16;
const LINK_BODY: usize = 16;
const ADDRESS_BODY: usize = 8;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// IFF_UP.
    pub is_up: bool,
}

/// An address of a device: what makes it again on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// True for one that somebody has set, for use in the whole world: not
    /// by a lease, a router's advertisement or the kernel itself.
    pub fn is_permanent_and_global(&self) -> bool {
        // RT_SCOPE_UNIVERSE is 0
        self.flags & PERMANENT != 0 && self.scope == 0
    }
}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens a socket in this process' network namespace.
    pub fn open() -> SysResult<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Netlink { socket })
    }

    /// All devices.
    pub fn links(&self) -> SysResult<Vec<Link>> {
        let answers = self.ask(RTM_GETLINK, NLM_F_DUMP, &[0; LINK_BODY])?;
        Ok(answers.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(link).collect())
    }

    /// The device of this name; `None` if there is none.
    pub fn link(&self, name: &str) -> SysResult<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// The addresses of a device.
    pub fn addresses(&self, index: i32) -> SysResult<Vec<Address>> {
        let answers = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BODY])?;
        let own = answers.iter().filter(|(kind, _)| *kind == RTM_NEWADDR);
        Ok(own.filter_map(address).filter(|(of, _)| *of == index).map(|(_, a)| a).collect())
    }

    /// Moves a device to another namespace, under this name. It is down there,
    /// and has no addresses.
    ///
    /// # Errors
    /// EEXIST when the name is in use there; EINVAL for a device that can't be
    /// moved, such as loopback.
    pub fn move_link(&self, index: i32, to: BorrowedFd<'_>, name: &str) -> SysResult<()> {
        let mut body = link_body(index, 0, 0);
        put_attribute(&mut body, IFLA_NET_NS_FD, &to.as_raw_fd().to_ne_bytes());
        put_attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.ask(RTM_SETLINK, NLM_F_ACK, &body).map(drop)
    }

    /// Brings a device up.
    pub fn bring_up(&self, index: i32) -> SysResult<()> {
        self.ask(RTM_SETLINK, NLM_F_ACK, &link_body(index, IFF_UP, IFF_UP)).map(drop)
    }

    /// Gives a device an address.
    pub fn add_address(&self, index: i32, address: &Address) -> SysResult<()> {
        let index = u32::try_from(index).map_err(|_range| Errno::EINVAL)?.to_ne_bytes();
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend(index);
        for (kind, value) in &address.attributes {
            put_attribute(&mut body, *kind, value);
        }
        let flags = address.flags & !STATUS_FLAGS;
        put_attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
        self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body).map(drop)
    }

    /// One request, and all answers to it: their types and bodies.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> SysResult<Vec<(u16, Vec<u8>)>> {
        let fd = self.socket.as_raw_fd();
        let length = u32::try_from(HEADER + body.len()).map_err(|_range| Errno::E2BIG)?;
        let mut packet = length.to_ne_bytes().to_vec();
        packet.extend(kind.to_ne_bytes());
        packet.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // sequence number and port: one request at a time, and the kernel's own
        packet.extend([0; 8]);
        packet.extend(body);
        uninterrupted(|| send(fd, &packet, MsgFlags::MSG_NOSIGNAL))?;
        let mut answers = Vec::new();
        while !read_answers(fd, &mut answers)? {}
        Ok(answers)
    }
}

/// Reads one packet; true when the last answer was in it.
fn read_answers(fd: RawFd, answers: &mut Vec<(u16, Vec<u8>)>) -> SysResult<bool> {
    // more than the kernel puts into one packet
    let mut buffer = vec![0u8; 64 << 10];
    let length = uninterrupted(|| recv(fd, &mut buffer, MsgFlags::empty()))?;
    let mut rest = buffer.get(..length).unwrap_or_default();
    while rest.len() >= HEADER {
        let size = usize::try_from(number(rest, 0)).unwrap_or(usize::MAX);
        let kind = short(rest, 4);
        let body = rest.get(HEADER..size).ok_or(Errno::EBADMSG)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(body, 0).cast_signed();
                return if code == 0 { Ok(true) } else { Err(Errno::from_raw(-code)) };
            }
            _ => answers.push((kind, body.to_vec())),
        }
        rest = rest.get(aligned(size)..).unwrap_or_default();
    }
    Ok(false)
}

fn link_body(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn link((_, body): &(u16, Vec<u8>)) -> Option<Link> {
    let name = attributes(body, LINK_BODY).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Link {
        index: number(body, 4).cast_signed(),
        name: String::from_utf8_lossy(name).into_owned(),
        is_up: number(body, 8) & IFF_UP != 0,
    })
}

fn address((_, body): &(u16, Vec<u8>)) -> Option<(i32, Address)> {
    let [family, prefix, flags, scope, ..] = body.as_slice() else { return None };
    let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY];
    let all = || attributes(body, ADDRESS_BODY);
    let long_flags = all().find(|(kind, _)| *kind == IFA_FLAGS).map(|(_, v)| number(v, 0));
    let address = Address {
        family: *family,
        prefix: *prefix,
        scope: *scope,
        flags: long_flags.unwrap_or(u32::from(*flags)),
        attributes: all().filter(|(k, _)| kept.contains(k)).map(|(k, v)| (k, v.to_vec())).collect(),
    };
    Some((number(body, 4).cast_signed(), address))
}

/// The attributes after a body's fixed part.
fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let size = usize::from(short(rest, 0));
        let value = rest.get(4..size)?;
        // two bits are flags
        let kind = short(rest, 2) & 0x3fff;
        rest = rest.get(aligned(size)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn put_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let size = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(size.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// Everything in netlink begins at a multiple of four.
fn aligned(size: usize) -> usize {
    size.div_ceil(4) * 4
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    four.map(u32::from_ne_bytes).unwrap_or(0)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    two.map(u16::from_ne_bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back() {
        let mut body = link_body(7, 1, 1);
        put_attribute(&mut body, IFLA_IFNAME, b"eth0\0");
        put_attribute(&mut body, 99, &[]);
        let all: Vec<_> = attributes(&body, LINK_BODY).collect();
        assert_eq!(all, [(IFLA_IFNAME, &b"eth0\0"[..]), (99, &[])]);
        let expected = Link { index: 7, name: "eth0".into(), is_up: true };
        assert_eq!(link(&(RTM_NEWLINK, body.clone())), Some(expected));
        // cut anywhere, it is short of something and no more
        for length in 0..body.len() {
            link(&(RTM_NEWLINK, body[..length].to_vec()));
            address(&(RTM_NEWADDR, body[..length].to_vec()));
        }
    }

    #[test]
    fn the_kernel_knows_loopback() {
        let link = Netlink::open().unwrap().link("lo").unwrap().unwrap();
        assert_eq!(link.index, 1);
    }
}
