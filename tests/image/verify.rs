//! `image verify`: each kind of damage is found, and what is whole is not.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink as link_to};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod, utimes};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::layout::*;

/// One of each kind, and what later entries do to earlier ones.
fn rich() -> Vec<Entry> {
    let sparse = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.size", "1000000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "0,5,900000,5"),
    ];
    let mut runs = file("GNUSparseFile.0/sparse", "1234567890");
    for (key, value) in sparse {
        runs = runs.pax(key, value.as_bytes());
    }
    vec![
        dir("./"),
        dir("d").mode(0o2775).owner(3, 50).pax("SCHILY.xattr.user.k", b"v"),
        file("d/below", "x"),
        dir("d/dir"),
        file("d/dir/deep", "y").owner(7, 0),
        file("a", "first"),
        file("a", "content").mode(0o4755).pax("SCHILY.xattr.user.key", b"value"),
        hardlink("b", "a"),
        symlink("link", "to/where ever"),
        entry(b'6', "fifo"),
        Entry { dev: (1, 3), ..entry(b'3', "null") },
        Entry { dev: (7, 1), ..entry(b'4', "loop") },
        file("gone/file", "x"),
        file("gone", "a file now"),
        file("then", "a file first"),
        dir("then").mode(0o700),
        file("then/in", ""),
        file(".wh.hidden", ""),
        file("opaque/.wh..wh..opq", ""),
        file("unlisted/deep/file", "z"),
        file("b%d n\u{e4}me", "q"),
        runs,
    ]
}

struct Stored {
    scene: Scene,
    layer: Layer,
}

impl Stored {
    fn new() -> Self {
        let scene = Scene::new();
        let layer = layer(&rich(), "gzip");
        let path = simple(&scene.path("oci"), "box", std::slice::from_ref(&layer));
        scene.ok(&["image", "import", path.to_str().unwrap(), "--keep-blobs"]);
        Stored { scene, layer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.layer_dir(&self.layer).join(name)
    }

    /// The lines but the last, of a store that is damaged.
    fn problems(&self) -> Vec<String> {
        let out = self.scene.run(&["image", "verify"]);
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        assert_eq!(out.status.code(), Some(1));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let last = lines.pop().unwrap();
        let count = lines.len();
        assert!(last.ends_with(&format!("{count} problem{}", if count == 1 { "" } else { "s" })));
        lines
    }

    /// One problem is found, in this file of the layer.
    #[track_caller]
    fn finds(&self, path: &str, what: &str) {
        let wanted = format!("layer {}: {path}: {what}", self.layer.diff_id);
        assert_eq!(self.problems(), [wanted]);
    }
}

/// A change to something, that keeps the time of what it is in.
fn quietly(path: &Path, change: impl FnOnce()) {
    let keep = |path: &Path| {
        let meta = path.symlink_metadata().unwrap();
        let time = std::os::unix::fs::MetadataExt::mtime(&meta);
        (path.to_owned(), TimeVal::new(time, 0))
    };
    let times = [keep(path.parent().unwrap())];
    change();
    for (path, time) in times {
        utimes(&path, &time, &time).unwrap();
    }
}

#[test]
fn what_is_whole_is_found_whole() {
    let stored = Stored::new();
    let told = stored.scene.ok(&["image", "verify"]);
    assert!(told.starts_with("1 layers with ") && told.ends_with(": nothing is wrong\n"), "{told}");
    assert_eq!(stored.scene.ok(&["image", "verify", "box"]), told);
    let found: Value =
        serde_json::from_str(&stored.scene.ok(&["image", "verify", "--json", "box"])).unwrap();
    assert_eq!((&found["problems"], &found["layers"]), (&json!([]), &json!(1)), "{found}");
    // manifest, config, the layer
    assert_eq!(found["blobs"], 3);
    assert!(stored.scene.fails(&["image", "verify", "none"]).contains("does not exist"));
    // the layer is as the archive has it: what lies in a directory with the setgid bit is
    // not of its group
    let owner = |name: &str| {
        let meta = stored.path(name).symlink_metadata().unwrap();
        use std::os::unix::fs::MetadataExt;
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("d"), (3, 50, 0o2775));
    assert_eq!(owner("d/below"), (0, 0, 0o644));
    assert_eq!(owner("d/dir"), (0, 0, 0o755));
    assert_eq!(owner("d/dir/deep"), (7, 0, 0o644));
    let other = Scene::new();
    assert!(other.ok(&["image", "verify"]).starts_with("0 layers"));
    assert!(!other.path("store").exists());
}

#[test]
fn a_blob_that_has_changed_is_found() {
    let stored = Stored::new();
    let blobs = stored.scene.path("store/blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        for damaged in [bytes, whole[..whole.len() - 1].to_vec(), Vec::new()] {
            fs::write(&path, damaged).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let found = stored.problems();
            let start = format!("blob sha256:{name}: its content has changed: the digest is ");
            assert!(found.len() == 1 && found[0].starts_with(&start), "{found:?}");
        }
        fs::write(&path, whole).unwrap();
    }
    stored.scene.ok(&["image", "verify"]);
}

#[test]
fn what_is_not_there_is_found() {
    let stored = Stored::new();
    let image: Value =
        serde_json::from_str(&stored.scene.ok(&["image", "inspect", "box"])).unwrap();
    let manifest = image["digest"].as_str().unwrap();
    let path = stored.scene.path("store/blobs/sha256").join(&manifest[7..]);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(stored.problems(), [format!("image box: its manifest {manifest} is missing")]);
    fs::write(&path, whole).unwrap();
    let layer = stored.scene.layer_dir(&stored.layer).parent().unwrap().to_owned();
    let aside = stored.scene.path("aside");
    fs::rename(&layer, &aside).unwrap();
    let wanted = format!("image box: its layer {} is missing", stored.layer.diff_id);
    assert_eq!(stored.problems(), [wanted]);
    fs::rename(&aside, &layer).unwrap();
    stored.scene.ok(&["image", "verify"]);
    // what was recorded is damaged itself
    let listing = layer.join("listing");
    let whole = fs::read(&listing).unwrap();
    fs::write(&listing, [&whole[..], b"{}\n"].concat()).unwrap();
    let found = stored.problems();
    assert!(found.len() == 1 && found[0].contains("its record is damaged"), "{found:?}");
    fs::write(&listing, &whole).unwrap();
    // a layer of a version that recorded nothing
    let facts = layer.join("layer.json");
    let kept = fs::read(&facts).unwrap();
    fs::write(&facts, r#"{"bytes":1,"files":1}"#).unwrap();
    let found = stored.problems();
    assert!(found.len() == 1 && found[0].contains("nothing was recorded"), "{found:?}");
    fs::write(&facts, kept).unwrap();
    stored.scene.ok(&["image", "verify"]);
}

#[test]
fn content_that_has_changed_is_found() {
    let stored = Stored::new();
    let a = stored.path("a");
    let time = TimeVal::new(1_000_000_000, 0);
    let write = |path: &Path, text: &str, at: u64| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(text.as_bytes(), at).unwrap();
        drop(file);
        fs::set_permissions(&a, Permissions::from_mode(0o4755)).unwrap();
        utimes(path, &time, &time).unwrap();
    };
    // both names of it are that file
    write(&a, "c0ntent", 0);
    let found = stored.problems();
    assert!(found.len() == 1 && found[0].ends_with(": its content has changed"), "{found:?}");
    write(&a, "content", 0);
    write(&a, "content and more", 0);
    let found = stored.problems();
    assert!(found.len() == 1 && found[0].ends_with(": its size is 16, not 7"), "{found:?}");
    fs::File::options().write(true).open(&a).unwrap().set_len(7).unwrap();
    write(&a, "content", 0);
    // of a sparse file, data and holes
    let sparse = stored.path("sparse");
    for at in [3, 900_001, 500_000, 999_999] {
        let before = fs::read(&sparse).unwrap()[at];
        write(&sparse, "!", at as u64);
        stored.finds("sparse", "its content has changed");
        write(&sparse, std::str::from_utf8(&[before]).unwrap(), at as u64);
        // zeros are as good as a hole
        stored.scene.ok(&["image", "verify"]);
    }
}

#[test]
fn files_that_come_and_go_are_found() {
    let stored = Stored::new();
    for (name, shown) in [("d/new", "d/new"), ("new dir/", "new%20dir")] {
        let path = stored.path(name.trim_end_matches('/'));
        quietly(&path, || match name.ends_with('/') {
            true => fs::create_dir(&path).unwrap(),
            false => fs::write(&path, "").unwrap(),
        });
        stored.finds(shown, "it is not in the image's layer");
        quietly(&path, || match path.is_dir() {
            true => fs::remove_dir(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        });
    }
    stored.scene.ok(&["image", "verify"]);
    for (name, shown) in
        [("d/dir/deep", "d/dir/deep"), ("b%d n\u{e4}me", "b%25d%20n%c3%a4me"), ("hidden", "hidden")]
    {
        let (path, aside) = (stored.path(name), stored.scene.path("store/aside"));
        quietly(&path, || fs::rename(&path, &aside).unwrap());
        stored.finds(shown, "it is missing");
        quietly(&path, || fs::rename(&aside, &path).unwrap());
    }
    // another file under one of the names
    let (path, aside) = (stored.path("b"), stored.scene.path("store/aside"));
    quietly(&path, || fs::rename(&path, &aside).unwrap());
    quietly(&path, || {
        let copied = Command::new("cp").arg("-a").arg(&aside).arg(&path).status().unwrap();
        assert!(copied.success());
    });
    let found = stored.problems();
    assert!(found.len() == 1 && found[0].contains("no more the same file"), "{found:?}");
    quietly(&path, || fs::rename(&aside, &path).unwrap());
    stored.scene.ok(&["image", "verify"]);
}

#[test]
fn what_a_file_is_and_whose_is_held_against_the_record() {
    let stored = Stored::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(stored.path(name), Permissions::from_mode(mode)).unwrap();
    };
    mode("d/below", 0o666);
    stored.finds("d/below", "its mode is 0666, not 0644");
    mode("d/below", 0o644);
    mode("then", 0o755);
    stored.finds("then", "its mode is 0755, not 0700");
    mode("then", 0o700);
    mode("unlisted/deep", 0o700);
    stored.finds("unlisted/deep", "its mode is 0700, not 0755");
    mode("unlisted/deep", 0o755);
    chown(stored.path("fifo"), Some(5), None).unwrap();
    stored.finds("fifo", "its owner is 5:0, not 0:0");
    chown(stored.path("fifo"), Some(0), None).unwrap();
    let time = |seconds| {
        let time = TimeVal::new(seconds, 0);
        utimes(&stored.path("gone"), &time, &time).unwrap();
    };
    time(5);
    stored.finds("gone", "its time is 5.000000000, not 1000000000.000000000");
    time(1_000_000_000);
    stored.scene.ok(&["image", "verify"]);
}

#[test]
fn another_type_or_target_is_found() {
    let stored = Stored::new();
    let replaced = |name: &str, make: &dyn Fn(&Path), what: &str| {
        let (path, aside) = (stored.path(name), stored.scene.path("store/aside"));
        quietly(&path, || fs::rename(&path, &aside).unwrap());
        quietly(&path, || make(&path));
        let found = stored.problems();
        let wanted = format!("layer {}: {name}: {what}", stored.layer.diff_id);
        assert!(found.contains(&wanted), "{found:?}");
        quietly(&path, || match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        });
        quietly(&path, || fs::rename(&aside, &path).unwrap());
        stored.scene.ok(&["image", "verify"]);
    };
    let node = |kind, major, minor| {
        move |path: &Path| {
            mknod(path, kind, Mode::from_bits_truncate(0o644), makedev(major, minor)).unwrap();
        }
    };
    replaced("gone", &|p| fs::create_dir(p).unwrap(), "it is a directory, not a file");
    replaced("gone", &|p| link_to("x", p).unwrap(), "it is a symbolic link, not a file");
    replaced("link", &|p| fs::write(p, "").unwrap(), "it is a file, not a symbolic link");
    replaced("then", &|p| fs::write(p, "").unwrap(), "it is a file, not a directory");
    let changed = "it leads to elsewhere, not to to/where%20ever";
    replaced("link", &|p| link_to("elsewhere", p).unwrap(), changed);
    replaced("null", &node(SFlag::S_IFCHR, 1, 5), "its device number has changed");
    replaced("null", &node(SFlag::S_IFCHR, 0, 0), "it is a whiteout, not a character device");
    replaced("loop", &node(SFlag::S_IFCHR, 7, 1), "it is a character device, not a block device");
    replaced("hidden", &node(SFlag::S_IFIFO, 0, 0), "it is a fifo, not a whiteout");
    replaced("fifo", &node(SFlag::S_IFSOCK, 0, 0), "it is a socket, not a fifo");
}

#[test]
fn attributes_are_held_against_the_record() {
    let stored = Stored::new();
    let set = |name: &str, words: &[&str]| {
        let done = Command::new("setfattr").args(words).arg(stored.path(name)).status().unwrap();
        assert!(done.success());
    };
    set("d", &["-n", "user.k", "-v", "w"]);
    stored.finds("d", "its attribute user.k has changed");
    set("d", &["-x", "user.k"]);
    stored.finds("d", "its attribute user.k is missing");
    set("d", &["-n", "user.k", "-v", "v"]);
    set("gone", &["-n", "user.new", "-v", "v"]);
    stored.finds("gone", "it has an attribute user.new");
    set("gone", &["-x", "user.new"]);
    // what hides lower layers is one as well
    set("opaque", &["-x", "trusted.overlay.opaque"]);
    stored.finds("opaque", "its attribute trusted.overlay.opaque is missing");
    set("opaque", &["-n", "trusted.overlay.opaque", "-v", "y"]);
    set("then", &["-x", "trusted.overlay.opaque"]);
    stored.finds("then", "its attribute trusted.overlay.opaque is missing");
    set("then", &["-n", "trusted.overlay.opaque", "-v", "y"]);
    stored.scene.ok(&["image", "verify"]);
}

#[test]
fn only_the_images_that_are_named_are_looked_at() {
    let scene = Scene::new();
    let layers = ["one", "two"].map(|name| layer(&[file(name, name)], "none"));
    for (name, layer) in ["one", "two"].iter().zip(&layers) {
        scene.import(&simple(&scene.path(name), name, std::slice::from_ref(layer)));
    }
    fs::remove_file(scene.layer_dir(&layers[0]).join("one")).unwrap();
    scene.ok(&["image", "verify", "two"]);
    let out = scene.run(&["image", "verify", "--json", "one"]);
    assert_eq!(out.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let problem = json!({
        "kind": "layer", "name": layers[0].diff_id, "path": "one", "what": "it is missing",
    });
    assert_eq!(found["problems"][0], problem, "{found}");
    // as it is told to be made whole
    scene.ok(&["image", "rm", "one"]);
    scene.import(&scene.path("one"));
    scene.ok(&["image", "verify"]);
}

/// A layer that is used is not changed by that.
#[test]
fn what_is_done_in_an_overlay_does_not_touch_the_layer() {
    let stored = Stored::new();
    let bundle = stored.scene.path("bundle");
    stored.scene.ok(&["unpack", "box", bundle.to_str().unwrap()]);
    let rootfs = bundle.join("rootfs");
    fs::write(rootfs.join("a"), "other").unwrap();
    fs::remove_dir_all(rootfs.join("d")).unwrap();
    fs::write(rootfs.join("new"), "").unwrap();
    stored.scene.ok(&["image", "verify"]);
    stored.scene.ok(&["umount", bundle.to_str().unwrap()]);
}
