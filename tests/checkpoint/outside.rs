//! What a container has from outside of it, and finds again there.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::Counter;
use crate::support::{add_mount, namespace_of, namespace_path, temp_dir};

#[test]
#[ignore = "needs CRIU: integration/test"]
fn bind_mounts_come_from_the_host_again() {
    let data = temp_dir();
    std::fs::create_dir(data.path().join("below")).unwrap();
    std::fs::write(data.path().join("file"), "before").unwrap();
    let mut c = Counter::new(&["count"], |config| {
        let source = data.path().to_str().unwrap();
        add_mount(
            config,
            json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ro"]}),
        );
        add_mount(
            config,
            json!({"destination": "/etc/one", "type": "bind", "source": data.path().join("file"),
                "options": ["bind"]}),
        );
    });
    c.checkpoint(&[]).ok();
    std::fs::write(data.path().join("file"), "after").unwrap();
    // a fresh root file system has no places for mounts
    std::fs::remove_dir(c.bundle.rootfs().join("data")).unwrap();
    std::fs::remove_dir_all(c.bundle.rootfs().join("etc")).unwrap();
    c.restore(&[]);
    c.counts();
    assert_eq!(c.exec(&[], &["read", "/data/file"]).run().ok().stdout, "after\n");
    assert_eq!(c.exec(&[], &["read", "/etc/one"]).run().ok().stdout, "after\n");
    assert_eq!(c.exec(&[], &["create", "/data/new", "x"]).run().stdout, "EROFS\n");
    assert_eq!(c.exec(&[], &["append", "/etc/one", "x"]).run().ok().stdout, "ok\n");
}

/// A process with namespaces of its own.
struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "echo there; exec cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Holder(child)
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn namespaces_are_joined_again() {
    let holder = Holder::new(&["--net", "--uts", "--ipc"]);
    let mut c = Counter::new(&["count"], |config| {
        for (kind, name) in [("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
            namespace_path(config, kind, &holder.path(name));
        }
        config.as_object_mut().unwrap().remove("hostname");
    });
    c.there_and_back(&[]);
    for kind in ["net", "uts", "ipc"] {
        assert_eq!(namespace_of(c.pid(), kind), namespace_of(holder.0.id(), kind), "{kind}");
    }
}

/// A process of another's pid namespace has its number there again.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_pid_namespace_is_joined_again() {
    let holder = Holder::new(&["--pid", "--fork", "--kill-child"]);
    let children = format!("/proc/{0}/task/{0}/children", holder.0.id());
    let first = std::fs::read_to_string(children).unwrap();
    let path = format!("/proc/{}/ns/pid", first.trim());
    let mut c = Counter::new(&["count"], |config| namespace_path(config, "pid", &path));
    let inside = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap().to_owned();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let before = inside(c.pid());
    c.there_and_back(&[]);
    assert_eq!(inside(c.pid()), before);
    let of_holder = std::fs::read_link(&path).unwrap();
    assert_eq!(namespace_of(c.pid(), "pid"), of_holder.to_str().unwrap());
}
