//! Network devices of the host that move into the container. The host is a
//! network namespace of the test's own.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::support::{
    Container, Invocation, Pipe, args, drop_namespace, map_users, namespace_path, probe,
};

/// A network namespace, held by a process.
struct Net {
    holder: Child,
}

impl Net {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .arg("--net")
            .arg(probe())
            .arg("wait")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Pipe::new(holder.stdout.take().unwrap().into()).expect("READY");
        Net { holder }
    }

    /// With two devices joined to each other, and addresses on the first.
    fn with_devices() -> Self {
        let net = Net::new();
        net.ip("link add tt0 type veth peer name tt1");
        net.ip("addr add 192.0.2.7/24 dev tt0");
        net.ip("addr add 2001:db8::7/64 dev tt0 nodad");
        net.ip("addr add 198.51.100.1/24 dev tt0 scope link");
        net.ip("link set tt0 up");
        net.ip("link set tt1 up");
        net
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// `ip WORDS` in there.
    fn ip(&self, words: &str) {
        let file = self.path();
        let status = Command::new("nsenter")
            .args([&format!("--net={file}"), "ip"])
            .args(words.split(' '))
            .status()
            .unwrap();
        assert!(status.success(), "ip {words}");
    }

    /// What the probe sees in there.
    fn interfaces(&self) -> Value {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .arg(probe())
            .arg("interfaces")
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Has the runtime take this namespace for the host's.
    fn around(&self, command: Invocation) -> Invocation {
        let namespace = File::open(self.path()).unwrap();
        // SAFETY: one system call.
        unsafe {
            command.before_exec(move || Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?))
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn with_devices(devices: Value) -> Container {
    Container::new(|config| {
        config["linux"]["netDevices"] = devices;
        args(config, &["interfaces"]);
    })
}

/// False, with the reason, on a machine without the tools.
fn has_tools() -> bool {
    let has = ["ip", "nsenter", "unshare"].iter().all(|tool| {
        let found = Command::new(tool).arg("--help").output();
        found.is_ok()
    });
    if !has {
        println!("skipped: needs ip, nsenter and unshare");
    }
    has
}

fn addresses(device: &Value) -> Vec<&str> {
    let mut all: Vec<&str> =
        device["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    // what the kernel makes of the device's own number
    all.retain(|a| !a.starts_with("fe80:"));
    all.sort_unstable();
    all
}

#[test]
fn a_device_moves_in_with_its_lasting_addresses_and_is_up() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    let c = with_devices(json!({"tt0": {}}));
    let seen = net.around(c.on_bundle("run", &[])).run().ok().json();
    assert_eq!(seen["tt0"]["up"], true, "{seen}");
    // the one of link scope is no lasting one
    assert_eq!(addresses(&seen["tt0"]), ["192.0.2.7/24", "2001:db8::7/64"]);
    // the container's namespace has gone, and a virtual device with it
    crate::support::wait_gone("the device", || net.interfaces().get("tt1").is_none());
    c.assert_gone();
}

#[test]
fn devices_get_their_names() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    let c = with_devices(json!({"tt0": {"name": "eth%d"}, "tt1": {"name": "uplink"}}));
    let seen = net.around(c.on_bundle("run", &[])).run().ok().json();
    let names: Vec<&String> = seen.as_object().unwrap().keys().collect();
    assert_eq!(names, ["eth0", "lo", "uplink"]);
    assert_eq!(seen["uplink"]["up"], true);
    assert_eq!(addresses(&seen["eth0"]), ["192.0.2.7/24", "2001:db8::7/64"]);
}

#[test]
fn a_device_moves_into_a_joined_namespace_and_stays_there() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    let other = Net::new();
    let c = with_devices(json!({"tt0": {"name": "inner"}}));
    c.bundle.edit(|config| namespace_path(config, "network", &other.path()));
    let seen = net.around(c.on_bundle("run", &[])).run().ok().json();
    assert_eq!(addresses(&seen["inner"]), ["192.0.2.7/24", "2001:db8::7/64"]);
    assert_eq!(other.interfaces()["inner"]["up"], true);
    assert!(net.interfaces().get("tt0").is_none());
}

/// Both devices are on the host, as they were.
#[track_caller]
fn assert_back(net: &Net) {
    let seen = net.interfaces();
    assert_eq!(seen["tt0"]["up"], true, "{seen}");
    assert_eq!(seen["tt1"]["up"], true, "{seen}");
    let lasting = ["192.0.2.7/24", "2001:db8::7/64"];
    assert!(lasting.iter().all(|a| addresses(&seen["tt0"]).contains(a)), "{seen}");
}

#[test]
fn a_create_that_fails_later_brings_the_devices_back() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    let c = with_devices(json!({"tt0": {"name": "inner"}, "tt1": {}}));
    c.bundle.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    for command in ["create", "run"] {
        net.around(c.on_bundle(command, &[])).run().fails_with(&["/no/such/program"]);
        assert_back(&net);
        c.assert_gone();
    }
}

#[test]
fn what_can_not_move_is_refused_and_the_rest_brought_back() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    for (devices, text) in [
        (json!({"tt0": {}, "tt9": {}}), "linux.netDevices.tt9"),
        (json!({"tt0": {}, "tt1": {"name": "lo"}}), "has a lo already"),
        (json!({"lo": {"name": "loop"}}), "linux.netDevices.lo"),
    ] {
        let c = with_devices(devices);
        net.around(c.on_bundle("create", &[])).run().fails_with(&[text]);
        assert_back(&net);
        c.assert_gone();
    }
}

#[test]
fn devices_need_a_namespace_to_move_to() {
    let c = with_devices(json!({"tt0": {}}));
    c.bundle.edit(|config| drop_namespace(config, "network"));
    c.assert_refused(&["linux.netDevices", "network namespace"]);
    for name in ["a/b", "sixteen-letters-", "a b", "%s"] {
        with_devices(json!({"tt0": {"name": name}})).assert_refused(&["linux.netDevices.tt0.name"]);
    }
}

#[test]
fn a_device_moves_into_a_user_namespace() {
    if !has_tools() {
        return;
    }
    let net = Net::with_devices();
    let c = with_devices(json!({"tt0": {}}));
    c.bundle.edit(map_users);
    c.bundle.give_rootfs_to(100_000);
    let seen = net.around(c.on_bundle("run", &[])).run().ok().json();
    assert_eq!(addresses(&seen["tt0"]), ["192.0.2.7/24", "2001:db8::7/64"]);
}
