//! Images, volumes and neighbours that try to turn the runtime's mounts and
//! writes against the host: each test carries one out.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tare::sys::fs::rename_with;

use crate::mounts::{at, bind, tmpfs};
use crate::support::{Container, add_mount, args, map_users, temp_dir};

#[track_caller]
fn assert_empty(dir: &Path) {
    let found: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(found.is_empty(), "written outside: {found:?}");
}

/// Drops the mounts at and below a path.
fn unmount(config: &mut serde_json::Value, below: &str) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !Path::new(m["destination"].as_str().unwrap()).starts_with(below));
}

/// CVE-2021-30465, and CVE-2025-31133 in its racing form: a container that
/// shares a volume swaps a directory for a link while another one is mounted.
#[test]
fn a_destination_that_is_swapped_while_it_is_mounted_does_not_lead_out() {
    let (outside, volume, file) = (temp_dir(), temp_dir(), temp_dir());
    std::fs::create_dir(volume.path().join("way")).unwrap();
    symlink(outside.path(), volume.path().join("link")).unwrap();
    std::fs::write(file.path().join("file"), "").unwrap();
    let stop = AtomicBool::new(false);
    // where the container's own directory was found, and where the link led to
    let (mut plain, mut followed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (way, link) = (volume.path().join("way"), volume.path().join("link"));
            while !stop.load(Ordering::Relaxed) {
                rename_with(&way, &link, libc::RENAME_EXCHANGE).unwrap();
            }
        });
        for _ in 0..200 {
            let c = Container::new(|config| {
                add_mount(config, bind(volume.path(), "/v", &["bind"]));
                add_mount(config, tmpfs("/v/way/made/here", &[]));
                add_mount(config, tmpfs("/v/way/copied", &["tmpcopyup"]));
                add_mount(config, bind(&file.path().join("file"), "/v/way/file", &["bind"]));
                let options = ["bind", "dest-nofollow"];
                add_mount(config, bind(&file.path().join("file"), "/v/way/nofollow", &options));
                config["linux"]["devices"] =
                    json!([{"path": "/v/way/node", "type": "c", "major": 1, "minor": 3}]);
                config["linux"]["maskedPaths"] = json!(["/v/way/made", "/v/way/file"]);
                config["linux"]["readonlyPaths"] = json!(["/v/way"]);
                config["process"]["cwd"] = json!("/v/way/cwd");
                args(config, &["say", "up"]);
            });
            let output = c.run();
            assert!(output.stdout == "up\n" || output.code != 0, "{output:?}");
            let place = outside.path().strip_prefix("/").unwrap();
            match c.bundle.rootfs().join(place).try_exists().unwrap() {
                true => followed += 1,
                false => plain += 1,
            }
            assert_empty(outside.path());
            c.delete_by_force();
            c.assert_gone();
            if plain > 4 && followed > 4 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(plain > 0 && followed > 0, "{plain} plain, {followed} followed");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: what the image has at /proc or
/// /sys leads their mounts elsewhere.
#[test]
fn a_link_in_the_place_of_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        for target in ["evil", "/evil", "../../evil", "/dev"] {
            let c = Container::new(|_| {});
            std::fs::create_dir(c.bundle.rootfs().join("evil")).unwrap();
            symlink(target, c.bundle.rootfs().join(name)).unwrap();
            c.assert_refused(&[&format!("mount /{name} ("), "symbolic link in the image"]);
        }
    }
    let c = Container::new(|config| config["mounts"][0]["destination"] = json!("/a/proc"));
    symlink("/tmp", c.bundle.rootfs().join("a")).unwrap();
    c.assert_refused(&["mount /a/proc (proc)", "symbolic link in the image"]);
}

/// CVE-2019-16884, CVE-2025-52881: something else is mounted over /proc, and
/// takes the writes that were meant for the kernel.
#[test]
fn writes_for_the_kernel_do_not_go_to_what_is_mounted_over_proc() {
    let fake = temp_dir();
    let files = ["sys/net/ipv4/ip_forward", "self/attr/exec", "self/oom_score_adj", "kcore"];
    for file in files {
        let path = fake.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "fake").unwrap();
    }
    symlink("/", fake.path().join("self/root")).unwrap();
    std::fs::create_dir(fake.path().join("self/fd")).unwrap();
    let c = Container::new(|config| {
        add_mount(config, json!({"destination": "/real", "type": "proc", "source": "proc"}));
        add_mount(config, bind(fake.path(), "/proc", &["bind"]));
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        config["process"]["oomScoreAdj"] = json!(500);
        config["linux"]["readonlyPaths"] = json!([]);
        let words = [
            "each",
            "read /real/sys/net/ipv4/ip_forward",
            "read /real/self/oom_score_adj",
            "read /proc/sys/net/ipv4/ip_forward",
            "read /proc/kcore",
        ];
        args(config, &words);
    });
    assert_eq!(c.lines(), ["1", "500", "fake", ""]);
    for file in files {
        assert_eq!(std::fs::read_to_string(fake.path().join(file)).unwrap(), "fake", "{file}");
    }
}

/// CVE-2025-31133: the image's /dev/null is what masked files would become.
#[test]
fn a_mask_is_not_what_the_image_has_at_dev_null() {
    let dev = temp_dir();
    symlink("/proc/sys/kernel/core_pattern", dev.path().join("null")).unwrap();
    let c = Container::new(|config| {
        unmount(config, "/dev");
        add_mount(config, bind(dev.path(), "/dev", &["bind"]));
        config["linux"]["maskedPaths"] = json!(["/plain"]);
        args(config, &["each", "read /plain", "stat /plain"]);
    });
    std::fs::write(c.bundle.rootfs().join("plain"), "hidden").unwrap();
    let lines = c.lines();
    assert_eq!(lines[0], "");
    assert!(lines[1].contains(r#""type":"c""#) && lines[1].contains(r#""minor":3"#), "{lines:?}");
    // where the runtime makes the nodes, another thing of that name is an error
    for target in ["/proc/sys/kernel/core_pattern", "/etc/made"] {
        let c = Container::new(|c| unmount(c, "/dev"));
        std::fs::create_dir(c.bundle.rootfs().join("dev")).unwrap();
        symlink(target, c.bundle.rootfs().join("dev/null")).unwrap();
        c.assert_refused(&["device /dev/null", "the image has something else there"]);
    }
}

/// A link in the place of a path that is to be masked or read-only.
#[test]
fn a_link_of_the_image_takes_its_mask_to_where_it_leads() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("file"), "the host's").unwrap();
    let place = outside.path().to_str().unwrap().to_owned();
    let c = Container::new(|config| {
        config["linux"]["maskedPaths"] = json!(["/masked", "/masked-file", "/nowhere"]);
        config["linux"]["readonlyPaths"] = json!(["/kept", "/out"]);
        let words = [
            "each",
            "list /real",
            "list /masked",
            "read /text",
            "create /ro/x y",
            "list /out",
            &format!("create {place}/new x"),
        ];
        args(config, &words);
    });
    let rootfs = c.bundle.rootfs();
    for dir in ["real/secret", "ro", place.trim_start_matches('/')] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    std::fs::write(rootfs.join("text"), "hidden").unwrap();
    for (target, link) in [
        ("/real", "masked"),
        ("../../text", "masked-file"),
        ("/gone", "nowhere"),
        ("ro", "kept"),
        (&place, "out"),
    ] {
        symlink(target, rootfs.join(link)).unwrap();
    }
    assert_eq!(c.lines(), ["[]", "[]", "", "EROFS", "[]", "EROFS"]);
    std::fs::write(outside.path().join("file"), "still writable").unwrap();
}

/// Everything that the runtime makes on its way: destinations, nodes, links, the
/// working directory.
#[test]
fn nothing_is_made_behind_a_link_that_leads_out() {
    let (outside, source) = (temp_dir(), temp_dir());
    symlink("/any", source.path().join("link")).unwrap();
    std::fs::write(source.path().join("file"), "").unwrap();
    for link in
        [outside.path().to_owned(), Path::new("/..").join(&outside.path().to_str().unwrap()[1..])]
    {
        let c = Container::new(|config| {
            let (file, dead) = (source.path().join("file"), source.path().join("link"));
            add_mount(config, bind(&file, "/out/file", &["bind"]));
            add_mount(config, bind(&file, "/out/sub/file", &["bind", "dest-nofollow"]));
            add_mount(config, bind(&dead, "/out/link", &["bind", "copy-symlink"]));
            add_mount(config, bind(&dead, "/out/dead", &["bind", "src-nofollow"]));
            add_mount(config, tmpfs("/out/tmp/../tmp", &["tmpcopyup"]));
            config["linux"]["devices"] =
                json!([{"path": "/out/node", "type": "p", "fileMode": 0o600}]);
            config["process"]["cwd"] = json!("/out/cwd");
            args(config, &["list", "/out"]);
        });
        symlink(&link, c.bundle.rootfs().join("out")).unwrap();
        let lines = c.lines();
        assert_eq!(lines, [r#"["cwd","dead","file","link","node","sub","tmp"]"#]);
        assert_empty(outside.path());
    }
}

/// A magic link of /proc knows a file of the host: no path may go through one.
#[test]
fn magic_links_are_no_way_for_a_destination() {
    for destination in ["/proc/self/root/made", "/proc/self/cwd/made", "/way/made"] {
        let c = Container::new(|config| add_mount(config, tmpfs(destination, &[])));
        symlink("/proc/self/root/tmp", c.bundle.rootfs().join("way")).unwrap();
        c.assert_refused(&[&format!("mount {destination} (tmpfs)")]);
    }
    // nor for what is masked or read-only
    let c = Container::new(|config| {
        config["linux"]["maskedPaths"] = json!(["/proc/self/cwd"]);
    });
    c.assert_refused(&["mask /proc/self/cwd"]);
}

/// A link of the image, or the config itself, has a volume take the place of what the kernel
/// says and of what it is told.
#[test]
fn nothing_is_mounted_inside_of_proc() {
    let volume = temp_dir();
    std::fs::write(volume.path().join("file"), "fake").unwrap();
    let file = volume.path().join("file");
    let dir = |at: &str| bind(volume.path(), at, &["bind"]);
    let leads = |place: &str| format!("it leads to {place}, the container's proc file system");
    let inside = |place: &str| format!("{place} is inside the container's /proc");
    for (mount, text) in [
        (dir("/kernel"), leads("/proc/sys/kernel")),
        (tmpfs("/kernel", &[]), leads("/proc/sys/kernel")),
        (tmpfs("/kernel", &["tmpcopyup"]), leads("/proc/sys/kernel")),
        (dir("/whole"), leads("/proc")),
        (dir("/whole/../whole/tty"), leads("/proc/tty")),
        (bind(&file, "/whole/version", &["bind"]), leads("/proc/version")),
        (bind(&file, "/whole/version", &["bind", "dest-nofollow"]), leads("/proc/version")),
        (dir("/proc/sys/kernel"), inside("/proc/sys/kernel")),
        (tmpfs("/proc/sys", &[]), inside("/proc/sys")),
        (json!({"destination": "/proc/tty", "type": "proc"}), inside("/proc/tty")),
        (bind(&file, "/proc/self/environ", &["bind"]), inside("/proc/1/environ")),
        (bind(&file, "/proc/version", &["bind", "dest-nofollow"]), inside("/proc/version")),
    ] {
        let c = Container::new(|config| add_mount(config, mount));
        symlink("/proc/sys/kernel", c.bundle.rootfs().join("kernel")).unwrap();
        symlink("proc", c.bundle.rootfs().join("whole")).unwrap();
        c.assert_refused(&["mounts[7]", &text]);
    }
}

/// A terminal, and this directory for /dev.
fn terminal_in(config: &mut Value, dev: &Path) {
    std::fs::create_dir(dev.join("pts")).unwrap();
    let mounts = config["mounts"].as_array().unwrap();
    let pts = mounts.iter().find(|m| m["destination"] == "/dev/pts").unwrap().clone();
    unmount(config, "/dev");
    add_mount(config, bind(dev, "/dev", &["bind"]));
    add_mount(config, pts);
    config["process"]["terminal"] = json!(true);
}

/// The runtime's own mounts on places that a volume can make links of.
#[test]
fn a_device_that_is_a_link_into_proc_is_refused() {
    let dev = temp_dir();
    symlink("/proc/version", dev.path().join("console")).unwrap();
    let c = Container::new(|config| {
        terminal_in(config, dev.path());
    });
    let mut terminal = crate::support::Terminal::new(24, 80);
    let run = terminal.attach(c.on_bundle("run", &[])).run();
    assert_ne!(run.code, 0);
    let line = terminal.output.line();
    assert!(line.contains("/dev/console: it leads to /proc/version"), "{line}");
    c.assert_gone();

    let c = Container::new(|config| {
        map_users(config);
        config["linux"]["devices"] =
            json!([{"path": "/way/null", "type": "c", "major": 1, "minor": 3}]);
    });
    c.bundle.give_rootfs_to(100_000);
    std::fs::create_dir(c.bundle.rootfs().join("way")).unwrap();
    symlink("/proc/version", c.bundle.rootfs().join("way/null")).unwrap();
    c.assert_refused(&["device /way/null: it leads to /proc/version"]);
}

#[test]
fn files_of_proc_that_show_a_share_of_the_machine_can_be_mounted_over() {
    let files = temp_dir();
    std::fs::write(files.path().join("file"), "a share").unwrap();
    let file = |at: &str| bind(&files.path().join("file"), at, &["bind"]);
    let c = Container::new(|config| {
        for at in ["/proc/cpuinfo", "/proc/uptime", "/by/meminfo"] {
            add_mount(config, file(at));
        }
        // over what covers one already, and in another proc file system
        add_mount(config, file("/proc/cpuinfo"));
        add_mount(config, json!({"destination": "/other", "type": "proc", "source": "proc"}));
        add_mount(config, file("/other/version"));
        let read = ["cpuinfo", "uptime", "meminfo"].map(|name| format!("read /proc/{name}"));
        args(config, &["each", &read[0], &read[1], &read[2], "read /other/version"]);
    });
    symlink("/proc", c.bundle.rootfs().join("by")).unwrap();
    assert_eq!(c.lines(), ["a share"; 4]);
    // a directory of the image's own with that name is as any other
    let c = Container::new(|config| {
        unmount(config, "/proc");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        add_mount(config, file("/proc/version"));
        args(config, &["read", "/proc/version"]);
    });
    assert_eq!(c.lines(), ["a share"]);
}

/// A terminal whose /dev/console is a link of the volume that /dev is.
#[test]
fn a_console_that_is_a_link_stays_inside() {
    let (dev, outside) = (temp_dir(), temp_dir());
    std::fs::write(outside.path().join("file"), "the host's").unwrap();
    symlink(outside.path().join("file"), dev.path().join("console")).unwrap();
    let c = Container::new(|config| {
        terminal_in(config, dev.path());
        args(config, &["stat", outside.path().join("file").to_str().unwrap()]);
    });
    let mut terminal = crate::support::Terminal::new(24, 80);
    terminal.attach(c.on_bundle("run", &[])).run().ok();
    let line = terminal.output.line();
    assert!(line.contains(r#""type":"c""#), "{line}");
    let found = std::fs::read_to_string(outside.path().join("file")).unwrap();
    assert_eq!(found, "the host's");
}

#[test]
fn one_file_system_is_enough_for_all_masks() {
    let dirs: Vec<String> = (0..5).map(|n| format!("/secret{n}")).collect();
    let c = Container::new(|c| c["linux"]["maskedPaths"] = json!(dirs));
    for dir in &dirs {
        std::fs::create_dir(c.bundle.rootfs().join(&dir[1..])).unwrap();
    }
    let report = c.json();
    let devices: BTreeSet<&str> =
        dirs.iter().map(|dir| at(&report, dir)["device"].as_str().unwrap()).collect();
    assert_eq!(devices.len(), 1, "{devices:?}");
}
