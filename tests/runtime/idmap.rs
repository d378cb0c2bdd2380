//! Mounts that show files under other owners.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mounts::{bind, tmpfs};
use crate::support::{Container, Tare, USER, add_mount, args, map_users, namespace_path, temp_dir};

/// A directory that can be written by all, with a file of 0:0 and one of 5:6.
fn files() -> TempDir {
    let dir = temp_dir();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for (name, uid, gid) in [("root", 0, 0), ("other", 5, 6)] {
        std::fs::write(dir.path().join(name), name).unwrap();
        chown(dir.path().join(name), Some(uid), Some(gid)).unwrap();
    }
    dir
}

/// Uid and gid, of what the probe's `stat` has printed.
fn owner(line: &str) -> (u64, u64) {
    let found: Value = serde_json::from_str(line).unwrap();
    (found["uid"].as_u64().unwrap(), found["gid"].as_u64().unwrap())
}

const WORDS: [&str; 4] = ["each", "stat /data/root", "stat /data/other", "create /data/new x"];

/// The owners of both files inside, then that of a new file on the host.
fn owners(c: &Container, dir: &Path) -> [(u64, u64); 3] {
    let lines = c.lines();
    assert_eq!(lines[2], "ok", "{lines:?}");
    let new = std::fs::metadata(dir.join("new")).unwrap();
    [owner(&lines[0]), owner(&lines[1]), (new.uid().into(), new.gid().into())]
}

fn in_user_namespace(edit: impl FnOnce(&mut Value)) -> Container {
    let c = Container::new(|config| {
        map_users(config);
        edit(config);
    });
    c.bundle.give_rootfs_to(100_000);
    c
}

fn with_maps(mut mount: Value, uids: Value, gids: Value) -> Value {
    mount["uidMappings"] = uids;
    mount["gidMappings"] = gids;
    mount
}

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

#[test]
fn owners_on_disk_are_ids_of_the_container() {
    for option in ["idmap", "ridmap"] {
        let dir = files();
        let c = in_user_namespace(|config| {
            add_mount(config, bind(dir.path(), "/data", &["rbind", option]));
            args(config, &WORDS);
        });
        assert_eq!(owners(&c, dir.path()), [(0, 0), (5, 6), (0, 0)], "{option}");
        c.delete_by_force();
        c.assert_gone();
    }
    // without it they have no id in there
    let dir = files();
    let c = in_user_namespace(|config| {
        add_mount(config, bind(dir.path(), "/data", &["rbind"]));
        args(config, &WORDS);
    });
    assert_eq!(owners(&c, dir.path()), [(65534, 65534), (65534, 65534), (100_000, 100_000)]);
}

#[test]
fn a_mount_may_have_maps_of_its_own() {
    for options in [["rbind", "idmap"], ["rbind", "rw"]] {
        let dir = files();
        let c = Container::new(|config| {
            let mount = bind(dir.path(), "/data", &options);
            add_mount(config, with_maps(mount, map(0, 1000, 10), map(0, 2000, 10)));
            config["process"]["user"] = json!({"uid": 1003, "gid": 2004});
            args(config, &WORDS);
        });
        std::fs::set_permissions(c.bundle.rootfs().join("probe"), PermissionsExt::from_mode(0o755))
            .unwrap();
        let expected = [(1000, 2000), (1005, 2006), (3, 4)];
        assert_eq!(owners(&c, dir.path()), expected, "{options:?}");
    }
}

#[test]
fn maps_of_the_mount_win_over_those_of_the_container() {
    let dir = files();
    let c = in_user_namespace(|config| {
        let mount = bind(dir.path(), "/data", &["rbind", "idmap", "ro"]);
        add_mount(config, with_maps(mount, map(0, 100_100, 10), map(0, 100_200, 10)));
        args(config, &WORDS);
    });
    let lines = c.lines();
    assert_eq!((owner(&lines[0]), owner(&lines[1])), ((100, 200), (105, 206)));
    assert_eq!(lines[2], "EROFS");
}

#[test]
fn maps_may_stand_behind_the_word() {
    let dir = files();
    let c = Container::new(|config| {
        let option = "idmap=uids=0-1000-3#5-2000-1;gids=0-100-10";
        add_mount(config, bind(dir.path(), "/data", &["rbind", option]));
        args(config, &WORDS[..3]);
    });
    let lines = c.lines();
    assert_eq!((owner(&lines[0]), owner(&lines[1])), ((1000, 100), (2000, 106)));
    // an id of the container, whose 0 is 100000 outside
    let c = in_user_namespace(|config| {
        let option = "ridmap=uids=@0-30-10;gids=@0-0-10";
        add_mount(config, bind(dir.path(), "/data", &["rbind", option]));
        args(config, &WORDS[..3]);
    });
    let lines = c.lines();
    assert_eq!((owner(&lines[0]), owner(&lines[1])), ((30, 0), (35, 6)));
}

#[test]
fn only_ridmap_reaches_the_mounts_below() {
    for (option, below) in [("idmap", 0), ("ridmap", 1000)] {
        let dir = temp_dir();
        let c = Container::new(|config| {
            let mount = bind(dir.path(), "/data", &["rbind", option]);
            add_mount(config, with_maps(mount, map(0, 1000, 10), map(0, 1000, 10)));
            args(config, &["each", "stat /data", "stat /data/sub"]);
        });
        let lines = crate::submounts::lines_with_submount(&c, dir.path());
        assert_eq!((owner(&lines[0]).0, owner(&lines[1]).0), (1000, below), "{option}");
    }
}

#[test]
fn a_source_that_is_closed_to_the_containers_root_can_be_idmapped() {
    let closed = temp_dir();
    chown(closed.path(), Some(4242), Some(4242)).unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let c = in_user_namespace(|config| {
        add_mount(config, bind(&closed.path().join("data"), "/data", &["bind", "idmap"]));
        args(config, &["read", "/data/file"]);
    });
    std::fs::create_dir(closed.path().join("data")).unwrap();
    std::fs::write(closed.path().join("data/file"), "seen").unwrap();
    std::fs::set_permissions(closed.path().join("data"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(c.lines(), ["seen"]);
}

#[test]
fn a_joined_user_namespace_has_maps_as_well() {
    let first = in_user_namespace(|c| args(c, &["wait"]));
    let _output = first.started();
    let path = format!("/proc/{}/ns/user", first.pid());
    let dir = files();
    let c = Container::new(|config| {
        namespace_path(config, "user", &path);
        add_mount(config, bind(dir.path(), "/data", &["rbind", "idmap"]));
        args(config, &WORDS);
    });
    c.bundle.give_rootfs_to(100_000);
    assert_eq!(owners(&c, dir.path()), [(0, 0), (5, 6), (0, 0)]);
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let maps = |mount| with_maps(mount, map(0, 1000, 10), map(0, 1000, 10));
    let proc = maps(bind(Path::new("/proc/sys"), "/data", &["bind", "idmap"]));
    Container::new(|c| add_mount(c, proc)).assert_refused(&[
        "mount /data (bind from /proc/sys)",
        "idmap",
        "file system of the source",
    ]);
    let overlap = json!([
        {"containerID": 0, "hostID": 1000, "size": 10},
        {"containerID": 5, "hostID": 5000, "size": 10},
    ]);
    let dir = temp_dir();
    let mount = with_maps(bind(dir.path(), "/data", &["bind"]), overlap, map(0, 0, 1));
    Container::new(|c| add_mount(c, mount)).assert_refused(&[
        "mounts[",
        "uidMappings[1]",
        "overlaps with [0]",
    ]);
}

#[test]
fn what_can_not_be_is_refused_before_anything_is_done() {
    let dir = temp_dir();
    let plain = bind(dir.path(), "/data", &["bind", "idmap"]);
    Container::new(|c| add_mount(c, plain.clone()))
        .assert_refused(&["mounts[7].options", "user namespace"]);
    let maps = |mount| with_maps(mount, map(0, 1000, 10), map(0, 1000, 10));
    Container::new(|c| add_mount(c, maps(tmpfs("/t", &[]))))
        .assert_refused(&["mounts[7].options", "bind mounts alone"]);
    let mut one = maps(plain);
    one.as_object_mut().unwrap().remove("gidMappings");
    Container::new(|c| add_mount(c, one)).assert_refused(&["mounts[7].uidMappings", "gidMappings"]);
    let odd = bind(dir.path(), "/data", &["bind", "idmap=uids=0-0"]);
    Container::new(|c| add_mount(c, odd)).assert_refused(&["mounts[7].options", "uids=0-0"]);
}

#[test]
fn an_ordinary_user_is_told_that_it_takes_root() {
    let dir = temp_dir();
    let c = Container::under(&Tare::of_user(), |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map(0, USER, 1);
        config["linux"]["gidMappings"] = map(0, USER, 1);
        // the group that terminals belong to has no id in there
        config["mounts"][2]["options"] = json!(["newinstance"]);
        add_mount(config, bind(dir.path(), "/data", &["rbind", "idmap"]));
    });
    c.bundle.give_to(USER);
    c.assert_refused(&["mount /data", "idmap", "ordinary user"]);
}

#[test]
fn the_hosts_mount_of_the_source_stays_as_it_is() {
    let dir = files();
    let c = in_user_namespace(|config| {
        add_mount(config, bind(dir.path(), "/data", &["rbind", "idmap"]));
        args(config, &["wait"]);
    });
    let mut output = c.started();
    assert_eq!(c.traces().mounts, [""; 0]);
    assert_eq!(std::fs::metadata(dir.path().join("other")).unwrap().uid(), 5);
    c.kill("KILL").ok();
    c.ended(&mut output);
}
