//! Images of an ordinary user: unpacked, run and removed without root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::layout::*;

/// An id that is nobody's.
const USER: u32 = 1_911_911;
/// The first of those that /etc/subuid gives him in some tests.
const FURTHER: u32 = 1_912_000;

/// A user's home directory, with a store and images in it.
struct Home {
    dir: tempfile::TempDir,
    /// A file to stand in for /etc/subuid and /etc/subgid, and one for
    /// /etc/passwd.
    ids: Option<[PathBuf; 2]>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // the build's directory may be closed to others
        let binary = dir.path().join("tare");
        let built = env!("CARGO_BIN_EXE_tare");
        if fs::hard_link(built, &binary).is_err() {
            assert!(Command::new("cp").arg(built).arg(&binary).status().unwrap().success());
        }
        fs::create_dir(dir.path().join("run")).unwrap();
        for path in [dir.path(), &dir.path().join("run")] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        Home { dir, ids: None }
    }

    /// The same with further ids, if newuidmap is there.
    fn with_ids() -> Option<Self> {
        for need in ["/usr/bin/newuidmap", "/usr/bin/newgidmap", "/etc/subuid", "/etc/subgid"] {
            if !Path::new(need).is_file() {
                eprintln!("skipped: there is no {need}");
                return None;
            }
        }
        let mut home = Home::new();
        let [ids, names] = ["ids", "passwd"].map(|name| home.path(name));
        fs::write(&ids, format!("taretest:{FURTHER}:65536\n")).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        fs::write(&names, format!("{passwd}taretest:x:{USER}:{USER}::/:/bin/false\n")).unwrap();
        home.ids = Some([ids, names]);
        Some(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.path("tare"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        let ids = self.ids.clone();
        let become_user = move || {
            if let Some([ids, names]) = &ids {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
                for (from, to) in
                    [(ids, "/etc/subuid"), (ids, "/etc/subgid"), (names, "/etc/passwd")]
                {
                    mount(Some(from), to, none, MsFlags::MS_BIND, none)?;
                }
            }
            // SAFETY: numbers, and an empty list.
            let results = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                    libc::syscall(libc::SYS_setresgid, USER, USER, USER),
                    libc::syscall(libc::SYS_setresuid, USER, USER, USER),
                ]
            };
            if results.iter().all(|result| *result == 0) {
                return Ok(());
            }
            Err(std::io::Error::last_os_error())
        };
        // SAFETY: system calls on short paths, for which nix needs no memory.
        unsafe { command.pre_exec(become_user) };
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words:?}: {err}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), err.trim_end().lines().count()), (Some(1), 1), "{err}");
        err
    }

    fn store(&self) -> PathBuf {
        self.path(".local/share/tare")
    }

    fn image(&self, layers: &[Layer]) -> PathBuf {
        let path = simple(&self.path("oci"), "box", layers);
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&path).status().unwrap().success());
        path
    }

    fn layer_dir(&self, layer: &Layer) -> PathBuf {
        let hex = layer.diff_id.strip_prefix("sha256:").unwrap();
        self.store().join("layers/sha256").join(hex).join("diff")
    }

    /// Nothing is left of any image or container.
    fn assert_empty(&self) {
        for name in ["staging", "images", "layers/sha256", "blobs/sha256", "refs", "containers"] {
            let left = fs::read_dir(self.store().join(name)).into_iter().flatten();
            let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "left in {name}: {left:?}");
        }
    }
}

fn busybox() -> Option<Vec<u8>> {
    let found = fs::read("/bin/busybox").ok();
    if found.is_none() {
        eprintln!("skipped: there is no /bin/busybox");
    }
    found
}

/// Two layers with all that is harder without root: owners, closed
/// directories, devices, whiteouts, an opaque directory.
fn layers(busybox: Vec<u8>) -> Vec<Layer> {
    let tool = Entry { data: busybox, ..file("bin/busybox", "") }.mode(0o755);
    let mut null = entry(b'3', "null");
    null.dev = (1, 3);
    let base = vec![
        dir("./"),
        dir("bin"),
        tool,
        hardlink("bin/sh", "bin/busybox"),
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n"),
        file("removed", "removed"),
        dir("covered"),
        file("covered/old", "old"),
        dir("closed").mode(0o500),
        file("closed/inside", "inside").mode(0o400),
        dir("theirs").owner(1000, 1001).mode(0o700),
        file("theirs/file", "theirs").owner(1000, 1001).mode(0o4750),
        null,
    ];
    let top = vec![
        file(".wh.removed", ""),
        dir("covered"),
        file("covered/.wh..wh..opq", ""),
        file("covered/new", "new").pax("SCHILY.xattr.user.overlay.opaque", b"x"),
    ];
    vec![layer(&base, "gzip"), layer(&top, "none")]
}

const LOOK: &str = "ls /; cat /covered/*; cat /closed/inside; \
                    stat -c '%u:%g %a' /theirs /theirs/file; echo x >/closed/made; id -u";

#[test]
fn an_image_is_run_by_an_ordinary_user() {
    let Some(busybox) = busybox() else { return };
    let home = Home::new();
    let layers = layers(busybox);
    let image = home.image(&layers);
    let out = home.run(&["image", "import", image.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    assert!(said.contains("1 device nodes left out"), "{said}");
    // owners that he can't have and what was left out are no damage
    assert!(home.ok(&["image", "verify"]).contains("nothing is wrong"));
    let out = home.ok(&["run", "--image", "box", "c1", "--", "/bin/sh", "-c", LOOK]);
    let lines: Vec<&str> = out.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("new")).unwrap();
    for name in ["bin", "covered", "theirs"] {
        assert!(lines[..at].contains(&name), "{lines:?}");
    }
    assert!(!lines[..at].contains(&"removed") && !lines[..at].contains(&"null"), "{lines:?}");
    // one id for all owners; a file of another's keeps its mode
    assert_eq!(lines[at..], ["newinside0:0 700", "0:0 4750", "0"]);
    assert_eq!(home.ok(&["list", "--quiet"]), "");
    let whiteout = home.layer_dir(&layers[1]).join("removed");
    assert!(fs::symlink_metadata(&whiteout).unwrap().file_type().is_char_device());
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn ids_of_an_image_need_ranges() {
    let Some(busybox) = busybox() else { return };
    let home = Home::new();
    let image = home.image(&layers(busybox));
    home.ok(&["image", "import", image.to_str().unwrap()]);
    let error = home.fails(&["run", "--image", "box", "--user", "app", "c1", "--", "/bin/sh"]);
    assert!(error.contains("process.user.uid: 1000") && error.contains("/etc/subuid"), "{error}");
    let error = home.fails(&["unpack", "box", "bundle"]);
    assert!(error.contains("--rootfs-mode copy"), "{error}");
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn with_ranges_an_image_has_its_owners() {
    let Some(busybox) = busybox() else { return };
    let Some(home) = Home::with_ids() else { return };
    let layers = layers(busybox);
    let image = home.image(&layers);
    home.ok(&["image", "import", image.to_str().unwrap()]);
    let theirs = fs::metadata(home.layer_dir(&layers[0]).join("theirs")).unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (FURTHER + 999, FURTHER + 1000));
    assert!(home.ok(&["image", "verify"]).contains("nothing is wrong"));
    let words = ["run", "--image", "box", "--user", "app", "c1", "--", "/bin/sh", "-c"];
    let script = "cat /theirs/file; stat -c '%u:%g' /theirs; id -u; echo x >/theirs/made";
    let out = home.ok(&[&words[..], &[script]].concat());
    assert_eq!(out, "theirs1000:1001\n1000\n");
    // kept, and removed later by a command that is no root of anything yet
    let kept = ["run", "--keep", "--image", "box", "--user", "app", "c2", "--", "/bin/sh", "-c"];
    home.ok(&[&kept[..], &["mkdir -m 0 /theirs/locked"]].concat());
    home.ok(&["delete", "c2"]);
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn a_volume_is_the_users() {
    let Some(busybox) = busybox() else { return };
    for home in [Some(Home::new()), Home::with_ids()].into_iter().flatten() {
        let image = home.image(&layers(busybox.clone()));
        home.run(&["image", "import", image.to_str().unwrap()]);
        let run = |script: &str| {
            let words = ["run", "--image", "box", "-v", "vol:/theirs", "c1", "--", "/bin/sh", "-c"];
            home.ok(&[&words[..], &[script]].concat())
        };
        assert_eq!(run("ls /theirs; mkdir -m 0 /theirs/locked; echo x >/theirs/new"), "file\n");
        assert_eq!(run("cat /theirs/new"), "x\n");
        home.ok(&["volume", "rm", "vol"]);
        assert_eq!(home.ok(&["volume", "ls", "--quiet"]), "");
        home.ok(&["image", "rm", "box"]);
        home.assert_empty();
    }
}

#[test]
fn a_container_of_an_image_takes_more_processes_of_its_user() {
    let Some(busybox) = busybox() else { return };
    let Some(home) = Home::with_ids() else { return };
    let image = home.image(&layers(busybox));
    home.ok(&["image", "import", image.to_str().unwrap()]);
    let wait = "exec </dev/null >/dev/null 2>&1; exec busybox sleep 1000";
    home.ok(&["run", "--detach", "--image", "box", "c1", "--", "/bin/sh", "-c", wait]);
    // busybox executes itself as /proc/self/exe, and then takes its name on
    let script = "until grep -q busybox /proc/1/comm; do sleep 0.01; done; \
                  id -u; cat /theirs/file; cat /proc/1/comm; echo $HOME";
    let outs = [["--user", "0:0"], ["--user", "1000:1001"], ["--cwd", "/"]]
        .map(|flags| home.run(&[&["exec"], &flags[..], &["c1", "/bin/sh", "-c", script]].concat()));
    home.ok(&["delete", "--force", "c1"]);
    for (out, user) in outs.iter().zip(["0", "1000", "0"]) {
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.starts_with(&format!("{user}\ntheirs")), "{out:?}");
        assert!(text.contains("busybox"), "{out:?}");
    }
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn a_bundle_of_an_ordinary_user_runs() {
    let Some(busybox) = busybox() else { return };
    let home = Home::new();
    let image = home.image(&layers(busybox));
    home.ok(&["unpack", image.to_str().unwrap(), "bundle", "--rootfs-mode", "copy"]);
    let root = home.path("bundle/rootfs");
    assert!(!root.join("removed").try_exists().unwrap());
    assert!(!root.join("covered/old").try_exists().unwrap());
    let config = home.path("bundle/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("/bin/true", "/bin/busybox");
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "id -u; cat /closed/inside"]);
    fs::write(&config, value.to_string()).unwrap();
    assert_eq!(home.ok(&["run", "--bundle", "bundle", "c1"]), "0\ninside");
    home.ok(&["umount", "bundle"]);
    home.ok(&["image", "rm", "box"]);
    home.assert_empty();
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    let home = Home::new();
    let image = home.image(&[layer(&[dir("./")], "none")]);
    home.ok(&["image", "import", image.to_str().unwrap()]);
    // by root, whose overlays would not see what a user's layers hide
    let mut command = Command::new(home.path("tare"));
    command.arg("--store").arg(home.store()).args(["run", "--image", "box", "c1", "--", "/x"]);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains(&format!("belongs to uid {USER}")), "{said}");
}
