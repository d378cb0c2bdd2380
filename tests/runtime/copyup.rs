//! tmpcopyup: a tmpfs that begins with what the image has there.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod, utimes};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::mounts::{at, bind, has, tmpfs};
use crate::support::{Container, add_mount, args, map_users, temp_dir};

/// Of what the probe's `stat` has printed.
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn with_time(path: &Path, seconds: i64) {
    let time = TimeVal::new(seconds, 0);
    utimes(path, &time, &time).unwrap();
}

fn set_attribute(path: &Path, name: &std::ffi::CStr, value: &[u8]) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: two strings that end in NUL, and a buffer with its length.
    let set = unsafe {
        let value = (value.as_ptr().cast(), value.len());
        nix::libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.0, value.1, 0)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Fills /data of a rootfs with one of each kind.
fn fill(rootfs: &Path) {
    let data = rootfs.join("data");
    std::fs::create_dir_all(data.join("dir/deep")).unwrap();
    std::fs::write(data.join("file"), "text").unwrap();
    std::fs::hard_link(data.join("file"), data.join("dir/same")).unwrap();
    std::fs::write(data.join("dir/deep/program"), "x").unwrap();
    let mode = |path: &str, mode| {
        std::fs::set_permissions(data.join(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    chown(data.join("dir/deep/program"), Some(7), Some(8)).unwrap();
    mode("dir/deep/program", 0o4750);
    symlink("/nowhere/at/all", data.join("link")).unwrap();
    lchown(data.join("link"), Some(9), Some(9)).unwrap();
    mknod(&data.join("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    mknod(&data.join("node"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 7)).unwrap();
    set_attribute(&data.join("file"), c"user.note", b"kept");
    with_time(&data.join("file"), 1_000_000_001);
    chown(data.join("dir"), Some(3), Some(4)).unwrap();
    mode("dir", 0o2755);
    with_time(&data.join("dir"), 1_000_000_002);
    chown(&data, Some(1), Some(2)).unwrap();
    mode("", 0o1777);
    with_time(&data, 1_000_000_003);
}

fn copied(options: &[&str], words: &[&str]) -> Container {
    let options: Vec<&str> = ["tmpcopyup"].iter().chain(options).copied().collect();
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/data", &options));
        args(config, words);
    });
    fill(&c.bundle.rootfs());
    c
}

#[test]
fn everything_is_there_as_the_image_has_it() {
    let paths = ["", "/file", "/dir/same", "/dir", "/dir/deep/program", "/link", "/fifo", "/node"];
    let mut words = vec!["each".to_owned()];
    words.extend(paths.iter().map(|path| format!("stat /data{path}")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let lines = copied(&[], &words).lines();
    let found: Vec<Value> = lines.iter().map(|line| parse(line)).collect();
    let seen: Vec<Value> =
        found.iter().map(|f| json!([f["type"], f["mode"], f["uid"], f["gid"]])).collect();
    assert_eq!(
        seen,
        [
            json!(["directory", 0o1777, 1, 2]),
            json!(["file", 0o644, 0, 0]),
            json!(["file", 0o644, 0, 0]),
            json!(["directory", 0o2755, 3, 4]),
            json!(["file", 0o4750, 7, 8]),
            json!(["link", 0o777, 9, 9]),
            json!(["p", 0o400, 0, 0]),
            json!(["c", 0o400, 0, 0]),
        ]
    );
    // one file with two names, times, the link's text, the node's number
    assert_eq!((&found[1]["ino"], &found[1]["links"]), (&found[2]["ino"], &json!(2)));
    for (at, time) in [(0, 1_000_000_003), (1, 1_000_000_001), (3, 1_000_000_002)] {
        assert_eq!(found[at]["modified"], json!(time), "{}", found[at]);
    }
    assert_eq!(found[5]["target"], "/nowhere/at/all");
    assert_eq!((&found[7]["major"], &found[7]["minor"]), (&json!(1), &json!(7)));
}

#[test]
fn where_the_image_has_nothing_all_users_may_write() {
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/new", &["tmpcopyup"]));
        add_mount(config, tmpfs("/closed", &["tmpcopyup", "ro"]));
        add_mount(config, tmpfs("/chosen", &["tmpcopyup", "mode=700"]));
        let words = ["stat /new", "stat /closed", "create /closed/one x", "stat /chosen"];
        args(config, &[&["each"], &words[..]].concat());
    });
    let lines = c.lines();
    let mode = |at: usize| parse(&lines[at])["mode"].as_u64().unwrap();
    assert_eq!([mode(0), mode(1), mode(3)], [0o1777, 0o1777, 0o700]);
    assert_eq!(lines[2], "EROFS");
}

#[test]
fn contents_and_attributes_come_along_and_changes_do_not_go_back() {
    let words = [
        "each",
        "read /data/file",
        "attribute /data/file user.note",
        "write /data/file new!",
        "read /data/dir/same",
        "create /data/more x",
    ];
    let c = copied(&[], &words);
    let note = match has_user_attributes() {
        true => "kept",
        false => "EOPNOTSUPP",
    };
    assert_eq!(c.lines(), ["text", note, "ok", "new!", "ok"]);
    let data = c.bundle.rootfs().join("data");
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "text");
    assert!(!data.join("more").try_exists().unwrap());
}

/// A tmpfs has them since Linux 6.6.
fn has_user_attributes() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 6)
}

#[test]
fn what_the_config_says_of_the_mount_holds() {
    let words = ["each", "stat /data", "stat /data/file", "create /data/more x", "report"];
    let c = copied(&["ro", "noexec", "mode=2755", "uid=11"], &words);
    let lines = c.lines();
    let (top, report) = (parse(&lines[0]), parse(&lines[3]));
    assert_eq!((&top["mode"], &top["uid"], &top["gid"]), (&json!(0o2755), &json!(11), &json!(2)));
    assert_eq!(parse(&lines[1])["uid"], 0);
    assert_eq!(lines[2], "EROFS");
    let mount = at(&report, "/data");
    assert!(has(mount, "options", "ro") && has(mount, "options", "noexec"), "{mount}");
}

#[test]
fn a_tmpfs_that_is_too_small_is_told() {
    copied(&["nr_inodes=3"], &["exit", "0"]).assert_refused(&[
        "mount /data (tmpfs)",
        "tmpcopyup",
        "nr_inodes",
    ]);
}

#[test]
fn a_destination_that_the_image_lacks_is_empty() {
    let lines = Container::new(|config| {
        add_mount(config, tmpfs("/new/place", &["tmpcopyup"]));
        args(config, &["each", "list /new/place", "create /new/place/x y"]);
    })
    .lines();
    assert_eq!(lines, ["[]", "ok"]);
}

#[test]
fn what_is_mounted_below_stays_behind() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("secret"), "the host's").unwrap();
    let words = ["each", "list /data/dir/deep", "list /data/dir"];
    let c = Container::new(|config| {
        add_mount(config, bind(outside.path(), "/data/dir/deep", &["bind"]));
        add_mount(config, bind(&outside.path().join("secret"), "/data/dir/same", &["bind"]));
        add_mount(config, tmpfs("/data", &["tmpcopyup"]));
        args(config, &[&words[..], &["read /data/dir/same"]].concat());
    });
    fill(&c.bundle.rootfs());
    assert_eq!(c.lines(), [r#"["program"]"#, r#"["deep","same"]"#, "text"]);
}

#[test]
fn a_link_to_the_destination_is_followed_inside() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("secret"), "the host's").unwrap();
    let place = outside.path().to_str().unwrap().to_owned();
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/link", &["tmpcopyup"]));
        args(config, &["each", "list /link", &format!("list {place}")]);
    });
    symlink(outside.path(), c.bundle.rootfs().join("link")).unwrap();
    let inside = c.bundle.rootfs().join(place.trim_start_matches('/'));
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::write(inside.join("own"), "").unwrap();
    assert_eq!(c.lines(), [r#"["own"]"#, r#"["own"]"#]);
}

#[test]
fn it_works_in_a_user_namespace() {
    let paths = ["stat /data/file", "stat /data/dir/deep/program", "list /data", "stat /data"];
    let c = Container::new(|config| {
        map_users(config);
        add_mount(config, tmpfs("/data", &["tmpcopyup"]));
        args(config, &[&["each"], &paths[..]].concat());
    });
    fill(&c.bundle.rootfs());
    // as engines do: the image belongs to the container's ids
    for entry in crate::support::below(&c.bundle.rootfs()) {
        let found = std::fs::symlink_metadata(&entry).unwrap();
        let (uid, gid) = (found.uid() + 100_000, found.gid() + 100_000);
        // the second name of a file that has two
        let is_again = entry.ends_with("dir/same");
        if !is_again && !entry.ends_with("probe") {
            lchown(&entry, Some(uid), Some(gid)).unwrap();
        }
    }
    std::fs::set_permissions(
        c.bundle.rootfs().join("data/dir/deep/program"),
        PermissionsExt::from_mode(0o4750),
    )
    .unwrap();
    c.bundle.give_rootfs_to(100_000);
    let lines = c.lines();
    let seen = |line: &str| {
        let f = parse(line);
        json!([f["mode"], f["uid"], f["gid"], f["links"]])
    };
    assert_eq!(seen(&lines[0]), json!([0o644, 0, 0, 2]));
    assert_eq!(seen(&lines[1]), json!([0o4750, 7, 8, 1]));
    // a device that could not be opened there is left out
    assert_eq!(lines[2], r#"["dir","fifo","file","link"]"#);
    assert_eq!((&parse(&lines[3])["uid"], &parse(&lines[3])["gid"]), (&json!(1), &json!(2)));
}

#[test]
fn deeper_than_files_can_be_open() {
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/data", &["tmpcopyup"]));
        args(config, &["exit", "0"]);
    });
    let mut deep = c.bundle.rootfs().join("data");
    // more than tare may have open below, and less than who removes it all later
    for _ in 0..400 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    let limited = c.on_bundle("run", &[]);
    let lower = || {
        use nix::sys::resource::{Resource, setrlimit};
        Ok(setrlimit(Resource::RLIMIT_NOFILE, 256, 20_000)?)
    };
    // SAFETY: one system call.
    unsafe { limited.before_exec(lower) }.run().ok();
}

/// Deeper than a process may have files open, with paths longer than the kernel takes.
#[test]
fn a_deep_tree_comes_along() {
    use nix::fcntl::{OFlag, open, openat};
    let c = Container::new(|config| {
        add_mount(config, tmpfs("/data", &["tmpcopyup"]));
        args(config, &["each", "list /data", "list /data/d/d/d"]);
    });
    let data = c.bundle.rootfs().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mut here = open(&data, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        nix::sys::stat::mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
        here = openat(&here, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    std::fs::write(data.join("d/d/d/file"), "").unwrap();
    assert_eq!(c.lines(), ["[\"d\"]", "[\"d\",\"file\"]"]);
    tare::sys::remove::remove_tree(&data).unwrap();
}
