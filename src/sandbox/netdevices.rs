//! Devices of the host, moved into the container's network namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::{Error, Result, Step};
use crate::spec::{NetDevicePlan, Plan};
use crate::sys::netlink::{Address, Link, Netlink};

/// Devices that were moved, and the way back. It keeps the container's
/// namespace alive: with it, virtual devices would go.
#[derive(Debug)]
pub(crate) struct Moved {
    host: Side,
    container: Side,
    devices: Vec<Device>,
}

/// A network namespace, and a conversation about it.
#[derive(Debug)]
struct Side {
    namespace: OwnedFd,
    netlink: Netlink,
}

#[derive(Debug)]
struct Device {
    /// As it was on the host.
    link: Link,
    addresses: Vec<Address>,
    /// Its number in the container.
    index: i32,
}

/// Moves what the plan names; `None` when that is nothing. What was moved
/// before an error is moved back.
///
/// # Errors
/// A device that is not there or can't be moved, a name that is taken.
pub(crate) fn move_in(plan: &Plan, init: Pid) -> Result<Option<Moved>> {
    if plan.net_devices.is_empty() {
        return Ok(None);
    }
    let path = match plan.namespaces.joins(CloneFlags::CLONE_NEWNET) {
        Some(join) => join.path.clone(),
        None => PathBuf::from(format!("/proc/{init}/ns/net")),
    };
    let host = Side {
        namespace: open_namespace(Path::new("/proc/self/ns/net"))?,
        netlink: Netlink::open().step(|| "netlink")?,
    };
    let namespace = open_namespace(&path)?;
    let netlink = netlink_in(&namespace, &host.namespace)?;
    let container = Side { namespace, netlink };
    let mut moved = Moved { host, container, devices: Vec::new() };
    for device in &plan.net_devices {
        if let Err(e) = moved.take(device) {
            let e = e.step(format!("linux.netDevices.{}", device.host));
            return Err(match moved.move_back() {
                Ok(()) => e,
                Err(left) => e.hint(format!("and its undoing failed: {left}")),
            });
        }
    }
    Ok(Some(moved))
}

fn open_namespace(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .step(|| format!("network namespace {}", path.display()))
}

/// A socket of another namespace: made there, used from here.
fn netlink_in(namespace: &OwnedFd, own: &OwnedFd) -> Result<Netlink> {
    setns(namespace, CloneFlags::CLONE_NEWNET).step(|| "join the network namespace")?;
    let made = Netlink::open();
    setns(own, CloneFlags::CLONE_NEWNET).step(|| "go back to the own network namespace")?;
    made.step(|| "netlink in the container")
}

impl Moved {
    fn take(&mut self, plan: &NetDevicePlan) -> Result<()> {
        let missing = || Error::invalid("the host has no such network device");
        let link = self.host.netlink.link(&plan.host)?.ok_or_else(missing)?;
        let addresses = self.host.netlink.addresses(link.index)?;
        let addresses: Vec<Address> =
            addresses.into_iter().filter(Address::is_permanent_and_global).collect();
        let before = self.container.netlink.links()?;
        if before.iter().any(|other| other.name == plan.inside) {
            let text = format!("the container's network namespace has a {} already", plan.inside);
            return Err(Error::invalid(text));
        }
        let to = self.container.namespace.as_fd();
        let result = self.host.netlink.move_link(link.index, to, &plan.inside);
        // the kernel moves it first and renames it then: whatever it says, look
        // where it is
        let after = self.container.netlink.links()?;
        let is_new = |l: &&Link| !before.iter().any(|old| old.index == l.index);
        let arrived = after
            .iter()
            .filter(is_new)
            .find(|l| l.name == plan.inside || l.name == plan.host || plan.is_template());
        let index = arrived.map(|l| l.index);
        if let Some(index) = index {
            self.devices.push(Device { link, addresses: addresses.clone(), index });
        }
        result.map_err(|e| explain(e).step("move it"))?;
        let index = index.ok_or_else(|| Error::from(Errno::ENODEV).step("find it again"))?;
        settle(&self.container.netlink, index, &addresses, true)
    }

    /// Moves all devices back to where they were, as they were.
    ///
    /// # Errors
    /// The first that could not be; the others are moved all the same.
    pub(crate) fn move_back(self) -> Result<()> {
        let mut result = Ok(());
        for device in self.devices.iter().rev() {
            let name = &device.link.name;
            let to = self.host.namespace.as_fd();
            let back = self.container.netlink.move_link(device.index, to, name);
            let back = back.map_err(Error::from).and_then(|()| {
                let link = self.host.netlink.link(name)?;
                let link = link.ok_or_else(|| Error::from(Errno::ENODEV))?;
                settle(&self.host.netlink, link.index, &device.addresses, device.link.is_up)
            });
            result = result.and(back.map_err(|e| e.step(format!("move {name} back"))));
        }
        result
    }
}

/// Addresses first: for IPv6 they have to be there when the device comes up.
fn settle(netlink: &Netlink, index: i32, addresses: &[Address], up: bool) -> Result<()> {
    for address in addresses {
        match netlink.add_address(index, address) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(Error::from(e).step("give it its address")),
        }
    }
    if up {
        netlink.bring_up(index).step(|| "bring it up")?;
    }
    Ok(())
}

fn explain(errno: Errno) -> Error {
    let e = Error::from(errno);
    match errno {
        Errno::EPERM => e.hint("it needs CAP_NET_ADMIN here and in the container's namespace"),
        Errno::EINVAL => e.hint("the kernel keeps such a device in its namespace"),
        _ => e,
    }
}
