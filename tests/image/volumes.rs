//! Volumes: what outlives a container, what goes with it, what can't be removed.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::content::{ACL, access_lists};
use crate::layout::{HOST, Layout, Scene, dir, file, layer};
use crate::support::{Invocation, Output, Pipe, Tare, pipe, probe, unique_id};

/// An image of the probe that has things at /data, and wants a volume at /own.
struct Box {
    scene: Scene,
    tare: Tare,
    ids: Vec<String>,
}

impl Box {
    fn new() -> Self {
        let scene = Scene::new();
        let mut program = file("probe", "").mode(0o755);
        program.data = std::fs::read(probe()).unwrap();
        let entries = [
            dir("./"),
            program,
            dir("data").owner(7, 8).mode(0o1770),
            file("data/note", "from the image")
                .owner(5, 6)
                .mode(0o640)
                .pax("SCHILY.xattr.user.colour", b"red"),
            dir("data/below"),
            dir("own").owner(3, 4).mode(0o750),
            file("own/note", "own"),
            dir("list").mode(0o770).pax("SCHILY.xattr.system.posix_acl_default", ACL),
            file("list/file", "x"),
            dir("list/sub"),
        ];
        let mut layout = Layout::new(&scene.path("oci"));
        let config = json!({"Entrypoint": ["/probe"], "Volumes": {"/own": {}}});
        let image = layout.image(&[layer(&entries, "gzip")], HOST, config);
        scene.import(&layout.tag(image, "box").finish());
        Box { scene, tare: Tare::new(), ids: (0..3).map(|_| unique_id()).collect() }
    }

    fn command(&self, n: usize, flags: &[&str], args: &[&str]) -> Invocation {
        let mut words = vec!["run", "--image", "box"];
        words.extend(flags);
        words.extend([self.ids[n].as_str(), "--"]);
        words.extend(args);
        self.stored().command(words)
    }

    fn stored(&self) -> Tare {
        self.tare.with(&["--store", self.scene.path("store").to_str().unwrap()])
    }

    fn run(&self, flags: &[&str], args: &[&str]) -> Output {
        self.command(0, flags, args).run()
    }

    /// The first container, with a volume that stays and one that goes with it, running.
    fn with_volumes(&self) -> Pipe {
        let (mut output, writer) = pipe();
        let flags = ["--detach", "-v", "vol:/data", "-v", "/fresh"];
        self.command(0, &flags, &["wait"]).stdout(writer).run().ok();
        while output.line() != "READY" {}
        output
    }

    fn delete(&self, n: usize) {
        self.stored().command(["delete", "--force", &self.ids[n]]).run().ok();
    }

    /// Ends a container as a power cut does: nothing that it wrote to disk goes with it.
    fn delete_state(&self, n: usize) {
        let containers = self.scene.path("store/containers");
        let aside = self.scene.path("aside");
        std::fs::rename(&containers, &aside).unwrap();
        let refs = self.scene.path("store/refs");
        let note = std::fs::read_dir(&refs).unwrap().next().unwrap().unwrap().path();
        let kept = std::fs::read(&note).unwrap();
        let users = self.scene.path("store/volumes/vol/users");
        let user = std::fs::read_dir(&users).unwrap().next().unwrap().unwrap().path();
        let kept_user = std::fs::read(&user).unwrap();
        self.delete(n);
        std::fs::create_dir_all(&refs).unwrap();
        std::fs::write(note, kept).unwrap();
        std::fs::write(user, kept_user).unwrap();
        std::fs::rename(aside, containers).unwrap();
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.scene.path("store/volumes").join(volume).join("data")
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        for n in 0..self.ids.len() {
            self.delete(n);
        }
    }
}

fn stat(line: &str) -> (u64, u64, u64) {
    let found: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| found[name].as_u64().unwrap();
    (number("mode"), number("uid"), number("gid"))
}

#[test]
fn a_volume_begins_with_the_images_content_and_outlives_the_container() {
    let host = Box::new();
    let words = ["each", "stat /data", "stat /data/note", "create /data/new x", "list /data"];
    let output = host.run(&["-v", "vol:/data"], &words).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(stat(lines[0]), (0o1770, 7, 8));
    assert_eq!(stat(lines[1]), (0o640, 5, 6));
    assert_eq!(lines[2..], ["ok", r#"["below","new","note"]"#]);
    let attribute = std::process::Command::new("python3")
        .args(["-c", "import os,sys; print(os.getxattr(sys.argv[1], 'user.colour').decode())"])
        .arg(host.data("vol").join("note"))
        .output();
    if let Ok(output) = attribute {
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "red\n");
    }
    // what was changed stays, and what the image has does not come again
    let words = ["each", "read /data/new", "list /elsewhere"];
    let output = host.run(&["-v", "vol:/data", "-v", "vol:/elsewhere"], &words).ok();
    assert_eq!(output.stdout, "x\n[\"below\",\"new\",\"note\"]\n");
    let words = ["each", "read /elsewhere/new", "list /data"];
    let output = host.run(&["-v", "vol:/elsewhere"], &words).ok();
    assert_eq!(output.stdout, "x\n[\"below\",\"note\"]\n");
    host.scene.ok(&["volume", "rm", "vol"]);
    assert!(!host.data("vol").parent().unwrap().exists());
}

#[test]
fn options_and_paths() {
    let host = Box::new();
    let words = ["each", "list /data", "create /data/x y"];
    let output = host.run(&["-v", "vol:/data:ro"], &words);
    assert_eq!(output.stdout, "[\"below\",\"note\"]\nEROFS\n");
    let output = host.run(&["-v", "empty:/data:nocopy"], &["each", "list /data"]).ok();
    assert_eq!(output.stdout, "[]\n");
    let shared = host.scene.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/data", shared.display());
    let output = host.run(&["-v", &volume], &["each", "create /data/x y", "list /data"]).ok();
    assert_eq!(output.stdout, "ok\n[\"x\"]\n", "a path of the host is as it is");
    // one below another, in whatever order they are given
    let flags = ["-v", "inner:/data/below", "-v", "outer:/data"];
    host.run(&flags, &["each", "create /data/below/deep x"]).ok();
    assert!(host.data("inner").join("deep").exists());
    for (bad, text) in [
        ("a b:/data", "no volume's name"),
        ("dir/sub:/data", "begins with / or ./"),
        ("vol:data", "absolute DST"),
        ("/srv:/data:nocopy", "nocopy"),
        ("never:/", "volume \"never:/\": its destination is the root itself"),
        ("never:/data/..", "is the root itself"),
        ("never:/data:ro,nosiud", "volume \"never:/data:ro,nosiud\": \"nosiud\" is no option"),
        ("never:/data:remount", "\"remount\" is no option"),
        ("never:/data:tmpcopyup", "tmpcopyup is for tmpfs alone"),
    ] {
        host.run(&["-v", bad], &[]).fails_with(&[text]);
    }
    assert!(!host.scene.ok(&["volume", "ls", "--quiet"]).contains("never"));
    host.run(&["-v", "a:/data", "-v", "b:/data/"], &[]).fails_with(&["given twice"]);
    assert!(!host.scene.ok(&["volume", "ls", "--quiet"]).contains("a\n"));
}

#[test]
fn volumes_of_the_images_config_go_with_the_container() {
    let host = Box::new();
    let words = ["each", "stat /own", "read /own/note", "create /own/new x", "list /fresh"];
    let output = host.run(&["-v", "/fresh"], &words).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(stat(lines[0]), (0o750, 3, 4));
    assert_eq!(lines[1..], ["own", "ok", "[]"]);
    let output = host.run(&[], &["each", "list /own"]).ok();
    assert_eq!(output.stdout, "[\"note\"]\n");
    // a name for it makes it last
    host.run(&["-v", "mine:/own"], &["each", "create /own/new x"]).ok();
    let output = host.run(&["-v", "mine:/own"], &["each", "list /own"]).ok();
    assert_eq!(output.stdout, "[\"new\",\"note\"]\n");
    assert_eq!(host.scene.ok(&["volume", "ls", "--quiet"]), "mine\n");
    let left = std::fs::read_dir(host.scene.path("store/containers")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn a_volume_in_use_stays_whoever_is_killed() {
    let host = Box::new();
    let (mut output, writer) = pipe();
    let running = host.command(0, &["-v", "vol:/data"], &["wait"]).stdout(writer).spawn();
    while output.line() != "READY" {}
    let (mut output, writer) = pipe();
    host.command(1, &["--detach", "-v", "vol:/data"], &["wait"]).stdout(writer).run().ok();
    while output.line() != "READY" {}
    let refused = host.scene.fails(&["volume", "rm", "vol"]);
    assert!(refused.contains("in use by container"), "{refused}");
    running.signal(Signal::SIGKILL);
    running.wait().ends_with_code(137);
    host.delete(1);
    let refused = host.scene.fails(&["volume", "rm", "vol"]);
    assert!(refused.contains(&host.ids[0]), "{refused}");
    let found: Value = serde_json::from_str(&host.scene.ok(&["volume", "inspect", "vol"])).unwrap();
    assert_eq!(found[0]["usedBy"], json!([format!("container {}", host.ids[0])]));
    host.delete(0);
    host.scene.ok(&["volume", "rm", "vol"]);
    let refused = host.scene.fails(&["volume", "rm", "vol"]);
    assert!(refused.contains("does not exist"), "{refused}");
}

#[test]
fn create_list_inspect_remove() {
    let scene = Scene::new();
    assert_eq!(scene.ok(&["volume", "ls", "--quiet"]), "");
    assert_eq!(scene.ok(&["volume", "create", "b", "a"]), "b\na\n");
    scene.ok(&["volume", "create", "a"]);
    let data = scene.path("store/volumes/a/data");
    std::fs::write(data.join("file"), "x").unwrap();
    let found: Value = serde_json::from_str(&scene.ok(&["volume", "ls", "--json"])).unwrap();
    assert_eq!(found[0]["name"], "a");
    assert_eq!(found[0]["mountpoint"], data.to_str().unwrap());
    assert!(scene.ok(&["volume", "ls"]).starts_with("NAME"));
    // all or none
    let refused = scene.fails(&["volume", "rm", "a", "none"]);
    assert!(refused.contains("volume none does not exist"), "{refused}");
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "x");
    for bad in ["../a", ".", "a/b", "", "a b"] {
        let refused = scene.fails(&["volume", "rm", bad]);
        assert!(refused.contains("no volume's name"), "{refused}");
    }
    scene.ok(&["volume", "rm", "a", "b"]);
    let left = std::fs::read_dir(scene.path("store/volumes")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn who_uses_a_volume_makes_it_no_younger() {
    let scene = Scene::new();
    scene.ok(&["volume", "create", "vol"]);
    let created = || {
        let text = scene.ok(&["volume", "inspect", "vol"]);
        serde_json::from_str::<Value>(&text).unwrap()["created"].clone()
    };
    let before = created();
    // as a note that comes or goes
    let users = std::fs::File::open(scene.path("store/volumes/vol/users")).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(86400);
    users.set_modified(later).unwrap();
    assert_eq!(created(), before);
}

#[test]
fn a_fill_that_fails_leaves_the_volume_as_it_was() {
    let host = Box::new();
    // from an id on that the program can't be run under, nothing has happened yet
    host.run(&["-v", "vol:/data", "--user", "nobody-here"], &[]).fails_with(&["nobody-here"]);
    host.scene.ok(&["volume", "rm", "vol"]);
    // the rest of a fill that was killed is no content
    host.scene.ok(&["volume", "create", "vol"]);
    let fresh = host.scene.path("store/volumes/vol/fresh");
    std::fs::create_dir(&fresh).unwrap();
    std::fs::write(fresh.join("half"), "x").unwrap();
    let output = host.run(&["-v", "vol:/data"], &["each", "list /data"]).ok();
    assert_eq!(output.stdout, "[\"below\",\"note\"]\n");
    assert!(!fresh.exists());
}

#[test]
fn gc_leaves_what_volumes_and_containers_hold() {
    let host = Box::new();
    let _output = host.with_volumes();
    host.scene.ok(&["volume", "create", "unused"]);
    // the image that it runs is no longer the one of that name
    let other = layer(&[file("other", "")], "gzip");
    let mut layout = Layout::new(&host.scene.path("other"));
    let image = layout.image(&[other], HOST, json!({}));
    host.scene.import(&layout.tag(image, "box").finish());
    let usage: Value = serde_json::from_str(&host.scene.ok(&["image", "df", "--json"])).unwrap();
    assert_eq!(usage["volumes"]["count"], 2, "{usage}");
    assert_eq!(usage["containers"]["count"], 1, "{usage}");
    for kind in ["layers", "volumes", "containers"] {
        assert_eq!(usage[kind]["reclaimable"], 0, "{usage}");
    }
    let told = host.scene.ok(&["image", "gc"]);
    assert!(!told.contains("layer "), "{told}");
    host.scene.ok(&["image", "rm", "box"]);
    host.scene.ok(&["image", "gc"]);
    let layers = host.scene.path("store/layers/sha256");
    let left = || std::fs::read_dir(&layers).unwrap().count();
    assert_eq!(left(), 1, "that of the container");
    assert!(host.data("vol").join("note").exists() && host.data("unused").exists());
    let bundle = std::fs::read_dir(host.scene.path("store/containers")).unwrap().next().unwrap();
    assert!(bundle.unwrap().path().join("volumes/0").exists());
    host.delete(0);
    assert!(host.scene.ok(&["image", "gc"]).contains("layer "));
    assert_eq!(left(), 0);
    assert!(host.data("vol").join("note").exists() && host.data("unused").exists());
}

/// Replaces the boot id in all files of a directory.
fn of_another_start(dir: &std::path::Path) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim_end();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(boot), "{text}");
        std::fs::write(&path, text.replace(boot, &"0".repeat(boot.len()))).unwrap();
    }
}

#[test]
fn what_an_earlier_start_of_the_machine_has_left_is_in_nobodys_way() {
    let host = Box::new();
    let _output = host.with_volumes();
    let containers = host.scene.path("store/containers");
    let count = || std::fs::read_dir(&containers).unwrap().count();
    for refused in [["image", "rm", "box"], ["volume", "rm", "vol"]] {
        assert!(host.scene.fails(&refused).contains("in use"));
    }
    assert!(!host.scene.ok(&["image", "gc"]).contains("container "));
    // a machine that was switched off: its /run is empty, its disk is not
    of_another_start(&host.scene.path("store/refs"));
    of_another_start(&host.scene.path("store/volumes/vol/users"));
    host.delete_state(0);
    let listed: Value = serde_json::from_str(&host.scene.ok(&["volume", "ls", "--json"])).unwrap();
    assert_eq!(listed[0]["usedBy"], json!([]));
    host.scene.ok(&["image", "rm", "box"]);
    assert_eq!(std::fs::read_dir(host.scene.path("store/layers/sha256")).unwrap().count(), 0);
    let usage: Value = serde_json::from_str(&host.scene.ok(&["image", "df", "--json"])).unwrap();
    assert_eq!(usage["containers"]["count"], 1, "{usage}");
    assert!(usage["containers"]["reclaimable"].as_u64().unwrap() > 0, "{usage}");
    assert!(host.scene.ok(&["image", "gc", "--dry-run"]).contains("container "));
    assert_eq!(count(), 1);
    assert!(host.scene.ok(&["image", "gc"]).contains("container "));
    assert_eq!(count(), 0);
    assert_eq!(std::fs::read_dir(host.scene.path("store/refs")).unwrap().count(), 0);
    host.scene.ok(&["volume", "rm", "vol"]);
}

/// In a container that has a boot id of its own, such as systemd-nspawn's, the host's
/// containers are not of another start of the machine.
#[test]
fn where_the_boot_id_is_mounted_over_no_start_is_an_earlier_one() {
    let host = Box::new();
    let (mut output, writer) = pipe();
    let flags = ["--detach", "-v", "vol:/data"];
    host.command(0, &flags, &["wait"]).stdout(writer).run().ok();
    while output.line() != "READY" {}
    let other = host.scene.path("boot_id");
    std::fs::write(&other, format!("{}\n", "0".repeat(36))).unwrap();
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
    let within = |args: &[&str]| {
        let inner = host.scene.command(args);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        let out = command.arg(&other).arg(inner.get_program()).args(inner.get_args()).output();
        let out = out.unwrap();
        String::from_utf8([out.stdout, out.stderr].concat()).unwrap()
    };
    assert!(!within(&["image", "gc"]).contains("container "));
    for refused in [["image", "rm", "box"], ["volume", "rm", "vol"]] {
        let said = within(&refused);
        assert!(said.contains("in use"), "{said}");
    }
    assert_eq!(std::fs::read_dir(host.scene.path("store/containers")).unwrap().count(), 1);
    host.delete(0);
}

/// Directories in one another, more than a process may have files open.
fn nest(top: &std::path::Path) {
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let mut here = open(top, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
        here = openat(&here, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
}

/// Runs a command that may have 64 files open.
fn cramped(scene: &Scene, args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tare"), "--store"]);
    command.arg(scene.path("store")).args(args).output().unwrap()
}

#[test]
fn a_deep_tree_keeps_neither_a_container_nor_a_volume() {
    let host = Box::new();
    let _output = host.with_volumes();
    let containers = host.scene.path("store/containers");
    let bundle = std::fs::read_dir(&containers).unwrap().next().unwrap().unwrap().path();
    for deep in [bundle.join("upper"), bundle.join("volumes/0"), host.data("vol")] {
        nest(&deep);
    }
    let state = host.tare.root().to_str().unwrap().to_owned();
    let done = cramped(&host.scene, &["--root", &state, "delete", "--force", &host.ids[0]]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(std::fs::read_dir(&containers).unwrap().count(), 0);
    let done = cramped(&host.scene, &["volume", "rm", "vol"]);
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert!(done.status.success());
    assert_eq!(std::fs::read_dir(host.scene.path("store/volumes")).unwrap().count(), 0);
}

/// What keeps it is a mount that only this removal sees: the next one takes the rest.
#[test]
fn a_volume_that_can_not_be_swept_away_is_a_warning() {
    let host = Box::new();
    host.scene.ok(&["volume", "create", "busy", "other"]);
    let data = host.data("busy");
    std::fs::create_dir(data.join("mounted")).unwrap();
    let script = format!("mount -t tmpfs none '{}/mounted' && exec \"$@\"", data.display());
    let words = ["--mount", "--propagation", "private", "sh", "-c", &script];
    let unshare = std::path::Path::new("/usr/bin/unshare");
    let removed = host.stored().command(["volume", "rm", "busy"]).through(unshare, &words).run();
    let removed = removed.ok();
    assert_eq!(removed.stderr.lines().count(), 1, "{removed:#?}");
    for text in ["tare: warning: remove .gone-", "busy"] {
        assert!(removed.stderr.contains(text), "{removed:#?}");
    }
    let volumes = data.parent().unwrap().parent().unwrap();
    let left = || {
        let names = std::fs::read_dir(volumes).unwrap().map(|f| f.unwrap().file_name());
        names.filter(|n| n.to_str().unwrap().starts_with(".gone-")).count()
    };
    assert_eq!(left(), 1);
    let shown = host.stored().command(["volume", "ls"]).run().ok();
    assert!(!shown.stdout.contains("busy") && !shown.stdout.contains("gone"), "{shown:#?}");
    // the name is free
    host.scene.ok(&["volume", "create", "busy"]);
    assert_eq!(host.stored().command(["volume", "rm", "other"]).run().ok().stderr, "");
    assert_eq!(left(), 0);
}

#[test]
fn files_of_a_volume_have_what_the_images_have() {
    let b = Box::new();
    assert_eq!(b.run(&["-v", "vol:/list"], &["exit", "0"]).code, 0);
    let data = b.scene.path("store/volumes/vol/data");
    assert_eq!(access_lists(&data), (false, true));
    for name in ["file", "sub"] {
        assert_eq!(access_lists(&data.join(name)), (false, false), "{name}");
    }
}
