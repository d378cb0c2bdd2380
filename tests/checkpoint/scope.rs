//! A container in a scope of systemd.

use crate::Counter;
use crate::support::{Container, Tare, args};

/// Whether pid 1 is systemd: `integration/test` has a guest where it is.
fn is_systemd() -> bool {
    std::fs::read_to_string("/proc/1/comm").unwrap().trim() == "systemd"
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_scope_is_made_again() {
    let tare = if is_systemd() { Tare::new().with(&["--systemd-cgroup"]) } else { Tare::new() };
    let c = Container::under(&tare, |config| {
        args(config, &["count"]);
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let mut c = Counter::started(c);
    let cgroup = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let before = cgroup(c.pid());
    assert_eq!(before.contains(".scope"), is_systemd(), "{before}");
    c.there_and_back(&[]);
    assert_eq!(cgroup(c.pid()), before);
    c.delete_by_force().ok();
    c.assert_gone();
}
