//! Units of the same name, one after the other.

use serde_json::json;

use crate::support::Tare;
use crate::{assert_gone, container, property, systemctl, unit, wait_inactive};

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_later_scope_of_the_same_name_is_left_alone() {
    let first = container(&Tare::new(), &["wait"], |_| {});
    let mut output = first.started();
    let number = property(&unit(&first), "InvocationID");
    first.kill("KILL").ok();
    first.ended(&mut output);
    wait_inactive(&unit(&first));

    let second = container(&Tare::new(), &["wait"], |_| {});
    let path = format!(":tare:{}", first.id);
    second.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    let mut output = second.started();
    assert_ne!(property(&unit(&first), "InvocationID"), number);
    first.on_id("kill", &["--all"], &["KILL"]).run().ok();
    first.delete().ok();
    assert_eq!(second.status(), "running");
    assert_eq!(property(&unit(&first), "ActiveState"), "active");

    second.kill("TERM").ok();
    assert_eq!(second.ended(&mut output), "GOT SIGTERM\n");
    second.delete().ok();
    assert_gone(&first);
    second.assert_gone();
}

#[test]
#[ignore = "needs systemd: integration/test"]
fn a_later_scope_that_has_failed_is_its_owners_to_forget() {
    let first = container(&Tare::new(), &["wait"], |config| {
        crate::support::drop_namespace(config, "pid");
    });
    let mut output = first.started();
    first.kill("KILL").ok();
    first.ended(&mut output);
    wait_inactive(&unit(&first));
    let second = container(&Tare::new(), &["wait"], |config| {
        // over its time it ends as failed, and stays so
        config["annotations"] = json!({
            "org.systemd.property.RuntimeMaxUSec": "uint64 1",
            "org.systemd.property.TimeoutStopUSec": "uint64 1000",
        });
    });
    let path = format!(":tare:{}", first.id);
    second.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    // how far it comes is a matter of chance
    second.on_bundle("create", &[]).run();
    wait_inactive(&unit(&first));
    let failed = property(&unit(&first), "ActiveState");
    first.delete().ok();
    assert_eq!(property(&unit(&first), "ActiveState"), failed);
    second.delete_by_force();
    systemctl(&["reset-failed", &unit(&first)]);
    assert_gone(&first);
}
