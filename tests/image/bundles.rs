//! Root file systems and bundles: what is merged, what is undone.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::layout::*;

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if found.is_err() {
        eprintln!("skipped: {program} is not installed");
    }
    found.is_ok()
}

/// Layers with every kind of change.
fn changing() -> Vec<Layer> {
    let busybox = fs::read("/bin/busybox").unwrap_or_default();
    let tool = Entry { data: busybox, ..file("bin/busybox", "") }.mode(0o755);
    let base = vec![
        dir("./"),
        dir("bin"),
        tool,
        hardlink("bin/true", "bin/busybox"),
        hardlink("bin/cat", "bin/busybox"),
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n"),
        file("etc/group", "root:x:0:\nvideo:x:44:app\n"),
        dir("gone"),
        file("gone/a", "a"),
        dir("covered").mode(0o700),
        file("covered/old", "old"),
        dir("covered/deep"),
        file("covered/deep/er", "deeper"),
        file("removed", "removed"),
        file("kept", "kept").owner(9, 9),
        file("to-dir", "file"),
        dir("to-file"),
        file("to-file/x", "x"),
        dir("merged"),
        file("merged/one", "1"),
    ];
    let middle = vec![
        file(".wh.gone", ""),
        file(".wh.removed", ""),
        dir("covered").mode(0o711).owner(2, 2),
        file("covered/.wh..wh..opq", ""),
        file("covered/new", "new"),
        file(".wh.to-dir", ""),
        dir("to-dir"),
        file("to-dir/y", "y"),
        file("to-file", "now a file"),
        file("merged/two", "2"),
        file("merged/.wh.absent", ""),
    ];
    let top = vec![
        file("removed", "back"),
        file("covered/old", "again"),
        hardlink("covered/twin", "covered/old"),
        file("merged/.wh.one", ""),
    ];
    vec![layer(&base, "gzip"), layer(&middle, "zstd"), layer(&top, "none")]
}

fn unpack(scene: &Scene, image: &Path, bundle: &str, mode: &str) -> std::path::PathBuf {
    let bundle = scene.path(bundle);
    let (image, to) = (image.to_str().unwrap(), bundle.to_str().unwrap());
    scene.ok(&["unpack", image, to, "--rootfs-mode", mode]);
    bundle
}

/// Names and contents, without what an overlay can't show alike.
fn contents(root: &Path) -> Vec<String> {
    let lines = listing(root).into_iter();
    lines.filter(|line| !line.starts_with(' ')).collect()
}

#[test]
fn overlay_copy_and_umoci_agree() {
    let scene = Scene::new();
    let path = simple(&scene.path("oci"), "x", &changing());
    let overlay = unpack(&scene, &path, "overlay", "overlay");
    let copy = unpack(&scene, &path, "copy", "copy");
    let merged = listing(&overlay.join("rootfs"));
    assert_eq!(merged, listing(&copy.join("rootfs")));
    let has_line = |start: &str| merged.iter().any(|line| line.starts_with(start));
    assert!(has_line("covered/new ") && has_line("covered/old ") && has_line("merged/two "));
    for gone in ["gone", "covered/deep", "merged/one", "to-file/x"] {
        assert!(!has_line(&format!("{gone} ")), "{gone} is still there");
    }
    if has("umoci") {
        // it knows no zstd
        let layers: Vec<_> = changing_entries_as_gzip();
        let plain = simple(&scene.path("gzip"), "x", &layers);
        let out = scene.path("umoci");
        let image = format!("{}:x", plain.display());
        let umoci = Command::new("umoci").args(["unpack", "--image", &image]).arg(&out).output();
        let umoci = umoci.unwrap();
        assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
        assert_eq!(contents(&overlay.join("rootfs")), contents(&out.join("rootfs")));
    }
    for bundle in [&overlay, &copy] {
        scene.ok(&["umount", bundle.to_str().unwrap()]);
        assert!(!bundle.try_exists().unwrap());
    }
    scene.ok(&["image", "rm", "x"]);
    scene.assert_store_is_empty();
}

fn changing_entries_as_gzip() -> Vec<Layer> {
    let repack = |layer: Layer| {
        let data = match layer.media_type.rsplit('+').next() {
            Some("zstd") => zstd::decode_all(layer.blob.as_slice()).unwrap(),
            Some("gzip") => return layer,
            _ => layer.blob,
        };
        raw_layer(&data, "gzip")
    };
    changing().into_iter().map(repack).collect()
}

#[test]
fn a_bundle_in_use_keeps_its_image() {
    let scene = Scene::new();
    let path = simple(&scene.path("oci"), "x", &changing());
    let bundle = unpack(&scene, &path, "bundle", "overlay");
    let to = bundle.to_str().unwrap();
    assert!(scene.fails(&["image", "rm", "x"]).contains("in use"));
    assert!(scene.fails(&["unpack", "x", to]).contains("not empty"));
    let held = fs::File::open(bundle.join("rootfs/etc/passwd")).unwrap();
    assert!(scene.fails(&["umount", to]).contains("in use"));
    drop(held);
    fs::write(bundle.join("mine"), "kept").unwrap();
    scene.ok(&["umount", to]);
    assert_eq!(fs::read_dir(&bundle).unwrap().count(), 1, "only the user's file stays");
    assert!(scene.fails(&["umount", to]).contains("not a bundle"));
    scene.ok(&["image", "rm", "x"]);
    scene.assert_store_is_empty();
}

#[test]
fn a_failed_unpack_leaves_nothing() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene.path("oci"));
    let config = json!({"Cmd": ["/bin/true"], "User": "nobody-here"});
    let user = layout.image(&changing(), HOST, config);
    let empty = layout.image(&changing(), HOST, json!({}));
    let big = layout.image(&changing(), HOST, json!({"Cmd": ["x"], "User": "4294967296"}));
    layout.tag(user, "user").tag(empty, "empty").tag(big, "big");
    scene.import(&layout.finish());
    let bundle = scene.path("bundle");
    // other tests mount meanwhile
    let here = scene.dir.path().to_str().unwrap().to_owned();
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&here)).count()
    };
    for (image, word) in [("user", "no such user"), ("empty", "no program"), ("big", "range")] {
        for mode in ["overlay", "copy"] {
            let before = mounts();
            let to = bundle.to_str().unwrap();
            let line = scene.fails(&["unpack", image, to, "--rootfs-mode", mode]);
            assert!(line.contains(word), "{line}");
            assert!(!bundle.try_exists().unwrap());
            assert_eq!(mounts(), before);
        }
    }
    assert!(scene.fails(&["unpack", "nope", "b"]).contains("does not exist"));
    scene.ok(&["image", "rm", "user", "empty", "big"]);
    scene.assert_store_is_empty();
}

#[test]
fn passwd_cannot_lead_out_or_block() {
    let scene = Scene::new();
    let cases = [
        ("fifo", entry(b'6', "etc/passwd"), "not a regular file"),
        ("huge", file("etc/passwd", &"x".repeat(5 << 20)), "more than"),
        ("link", symlink("etc/passwd", "../../../../../../etc/passwd"), "symbolic links"),
    ];
    for (name, passwd, word) in cases {
        let mut layout = Layout::new(&scene.path(name));
        let config = json!({"Cmd": ["x"], "User": "daemon"});
        let image = layout.image(&[layer(&[passwd], "none")], HOST, config);
        scene.import(&layout.tag(image, name).finish());
        let bundle = scene.path("bundle");
        let line = scene.fails(&["unpack", name, bundle.to_str().unwrap()]);
        assert!(line.contains(word), "{name}: {line}");
    }
}

#[test]
fn an_overlay_of_many_layers() {
    let scene = Scene::new();
    let make =
        |n: usize| layer(&[file(&format!("f{n}"), ""), file("last", &n.to_string())], "none");
    let mut layers: Vec<_> = (0..150).map(make).collect();
    // the same layer twice: what it has shows at its upper place
    layers.push(layers[3].clone());
    let path = simple(&scene.path("oci"), "many", &layers);
    let bundle = unpack(&scene, &path, "bundle", "overlay");
    let rootfs = bundle.join("rootfs");
    assert_eq!(fs::read_dir(&rootfs).unwrap().count(), 151);
    assert_eq!(fs::read(rootfs.join("last")).unwrap(), b"3");
    scene.ok(&["umount", bundle.to_str().unwrap()]);
}

#[test]
fn an_image_without_layers() {
    let scene = Scene::new();
    let path = simple(&scene.path("oci"), "empty", &[]);
    for mode in ["overlay", "copy"] {
        let bundle = unpack(&scene, &path, mode, mode);
        assert_eq!(fs::read_dir(bundle.join("rootfs")).unwrap().count(), 0);
        scene.ok(&["umount", bundle.to_str().unwrap()]);
    }
}

#[test]
fn runc_runs_the_bundle() {
    let scene = Scene::new();
    if !has("runc") || !Path::new("/bin/busybox").try_exists().unwrap() {
        return;
    }
    let mut layout = Layout::new(&scene.path("oci"));
    let config = json!({
        "Entrypoint": ["/bin/cat"], "Cmd": ["/removed", "/merged/two"],
        "User": "app", "WorkingDir": "/etc",
    });
    let image = layout.image(&changing(), HOST, config);
    let bundle = unpack(&scene, &layout.tag(image, "x").finish(), "bundle", "overlay");
    // on a hybrid host the unified hierarchy is shown where runc looks for it
    let script = "test ! -d /sys/fs/cgroup/unified || \
                  mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; \
                  exec runc --root \"$1/runc\" run --bundle \"$2\" tare-image-test-$$";
    let out = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([scene.dir.path(), &bundle])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(text, "back2", "{}", String::from_utf8_lossy(&out.stderr));
    scene.ok(&["umount", bundle.to_str().unwrap()]);
}
