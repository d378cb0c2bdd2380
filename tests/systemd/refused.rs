//! What is refused before anything is made. These need no systemd.

use serde_json::json;

use crate::container;
use crate::support::{Container, Tare, USER, map_self};

/// Neither `create` nor `run` of this leaves anything behind.
#[track_caller]
fn refused(c: &Container, texts: &[&str]) {
    for command in ["create", "run"] {
        let invocation = c.on_bundle(command, &[]);
        // whatever this machine has: there is no bus
        invocation
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
            .run()
            .fails_with(texts);
        c.assert_gone();
    }
}

#[test]
fn a_machine_without_systemd_is_told_so() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    refused(&c, &["--systemd-cgroup", "/nonexistent/bus", "no such file", "running systemd"]);
}

#[test]
fn a_users_session_without_a_bus_is_told_so() {
    let c = container(&Tare::of_user(), &["wait"], |config| map_self(config, USER));
    c.bundle.give_to(USER);
    refused(&c, &["--systemd-cgroup", "/run/bus", "no such file"]);
}

#[test]
fn other_forms_of_cgroups_path_are_refused_by_name() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    for (path, text) in [
        ("/a/b", "slice:prefix:name"),
        ("system.slice:box", "slice:prefix:name"),
        ("system.slice:a:b:c", "slice:prefix:name"),
        ("system:a:b", ".slice"),
        ("a.slice/a-b.slice:c:d", "/ inside"),
        ("system.slice:a:", "no name"),
        ("system.slice:a:b.slice", "is a slice"),
        ("system.slice:a:b c", "' ' inside"),
    ] {
        c.bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        refused(&c, &["linux.cgroupsPath", text]);
    }
}

#[test]
fn annotations_that_can_be_no_property_are_refused_by_name() {
    let c = container(&Tare::new(), &["wait"], |_| {});
    for (key, value, text) in [
        ("org.systemd.property.TimeoutStopUSec", "ten", "ten is no value"),
        ("org.systemd.property.Slice", "'a.slice'", "set by tare itself"),
        ("org.systemd.property.After", "['a'", "goes on with"),
        ("run.oci.systemd.subgroup", "../up", "not the name of a cgroup"),
    ] {
        c.bundle.edit(|config| config["annotations"] = json!({key: value}));
        refused(&c, &["annotations", key, text]);
    }
}
