//! Bad input: each is refused with one line and leaves nothing behind.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use crate::layout::*;

/// Imports a layout that must be refused, and checks what is left.
fn refused(scene: &Scene, layout: &Path, words: &[&str]) {
    let line = scene.fails(&["image", "import", layout.to_str().unwrap()]);
    for word in words {
        assert!(line.contains(word), "{line:?} lacks {word:?}");
    }
    scene.assert_store_is_empty();
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn entries_that_climb_out() {
    let scene = Scene::new();
    let target = scene.path("outside");
    fs::write(&target, "untouched").unwrap();
    let outside = target.to_str().unwrap().to_owned();
    let parent = scene.dir.path().to_str().unwrap().to_owned();
    let up = |name: &str| format!("{}{name}", "../".repeat(12));
    let cases: Vec<(&str, Vec<Entry>, &str)> = vec![
        ("dotdot", vec![file("../../../../../outside", "x")], ".."),
        ("inner-dotdot", vec![file("a/../../x", "x")], ".."),
        ("absolute", vec![file(&outside, "x")], "absolute"),
        ("link-parent", vec![symlink("l", &parent), file("l/outside", "x")], "symbolic link"),
        (
            "deep-link-parent",
            vec![dir("a"), symlink("a/l", &up("")), file("a/l/b/c", "x")],
            "symbolic link",
        ),
        ("link-to-dot", vec![symlink("l", "."), file("l/x", "x")], "symbolic link"),
        ("hardlink-dotdot", vec![hardlink("h", &up("etc/passwd"))], "hard link"),
        ("hardlink-absolute", vec![hardlink("h", &outside)], "hard link"),
        (
            "hardlink-through-link",
            vec![symlink("l", &parent), hardlink("h", "l/outside")],
            "hard link",
        ),
        ("hardlink-missing", vec![hardlink("h", "nothing")], "hard link"),
        ("hardlink-whiteout", vec![file(".wh.a", ""), hardlink("h", "a")], "target must be a file"),
        (
            "hardlink-in-whiteout",
            vec![dir("d"), file("d/.wh.a", ""), hardlink("h", "d/a")],
            "hard link to d/a",
        ),
        ("hardlink-self", vec![file("h", ""), hardlink("h", "h")], "hard link to itself"),
        ("whiteout-of-nothing", vec![file(".wh.", "")], "whiteout"),
        ("whiteout-of-dot", vec![file(".wh..", "")], "whiteout"),
        ("whiteout-of-dotdot", vec![file("a/.wh...", "")], "whiteout"),
        ("whiteout-dir", vec![dir(".wh.a")], "whiteout"),
        ("in-whiteout", vec![file(".wh.a/b", "")], "whiteout"),
        ("file-as-parent", vec![file("f", ""), file("f/x", "")], "not a directory"),
        ("fifo-as-parent", vec![entry(b'6', "f"), file("f/x", "")], "not a directory"),
        ("root-as-file", vec![file(".", "x")], "root"),
        ("empty-name", vec![file("", "x")], "empty path"),
        ("long-name", vec![file(&"n".repeat(256), "x")], "255"),
        ("long-path", vec![file(&format!("{}f", "d/".repeat(2500)), "x")], "longer"),
        ("pax-path", vec![file("a", "x").pax("path", b"../../x")], ".."),
        ("nul", vec![file("a", "x").pax("path", b"a\0b")], "NUL"),
        ("no-target", vec![symlink("l", "")], "target"),
        ("uid", vec![file("a", "").pax("uid", b"4294967295")], "owner"),
        ("big-xattr", vec![file("a", "").pax("SCHILY.xattr.user.a", &[b'x'; 70_000])], "attribute"),
        ("huge-meta", vec![file("a", "").pax("comment", &vec![b'x'; 2 << 20])], "exceed"),
        ("type", vec![entry(b'Z', "a")], "type"),
        ("dir-with-data", vec![Entry { data: vec![0; 512], ..dir("a") }], "data"),
        ("cut-off", vec![Entry { size: Some(1 << 30), ..file("a", "x") }], "ends in the middle"),
    ];
    for (name, entries, word) in cases {
        let layout = simple(&scene.path(name), "x", &[layer(&entries, "gzip")]);
        let line = scene.fails(&["image", "import", layout.to_str().unwrap()]);
        assert!(line.contains(word), "{name}: {line}");
        scene.assert_store_is_empty();
    }
    assert_eq!(fs::read(&target).unwrap(), b"untouched");
}

/// umoci's layers have whiteouts for all that was in a directory which has become a link. They
/// are not followed, wherever that leads: in the store, out of it, or to what lower layers have.
#[test]
fn whiteouts_below_what_is_no_directory_hide_nothing() {
    let scene = Scene::new();
    let outside = scene.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let to = outside.to_str().unwrap().to_owned();
    let up = format!("{}{to}", "../".repeat(12));
    let lower = layer(&[dir("d"), file("d/file", "1"), dir("e"), file("e/file", "2")], "none");
    for (n, target) in [to.as_str(), &up, "e", "/e", ".", "d"].into_iter().enumerate() {
        let over = |what: Entry| {
            let marks =
                ["d/.wh.file", "d/.wh..wh..opq", "d/below/.wh.file", "d/below/.wh..wh..opq"];
            let after = marks.into_iter().map(|mark| file(mark, ""));
            // and one that comes first, when there is no link yet
            [file("d/.wh.first", ""), what].into_iter().chain(after).collect::<Vec<_>>()
        };
        for (kind, what) in [("link", symlink("d", target)), ("file", file("d", "3"))] {
            let upper = layer(&over(what), "none");
            let name = format!("{kind}{n}");
            scene.import(&simple(&scene.path(&name), "x", &[lower.clone(), upper.clone()]));
            let names = |dir: &Path| {
                let entries = fs::read_dir(dir).unwrap();
                let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
                names.sort();
                names
            };
            assert_eq!(names(&scene.layer_dir(&upper)), ["d"], "{name}");
            let bundle = scene.path("bundle");
            scene.ok(&["unpack", "x", bundle.to_str().unwrap()]);
            let root = bundle.join("rootfs");
            let seen = (names(&root), fs::read(root.join("e/file")).unwrap());
            scene.ok(&["umount", bundle.to_str().unwrap()]);
            assert_eq!(seen, (vec!["d".into(), "e".into()], b"2".to_vec()), "{name}");
            scene.ok(&["image", "verify"]);
            scene.ok(&["image", "rm", "x"]);
            assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched", "{name}");
        }
    }
}

/// What comes last for directories, mode and times, goes by their names once more: by then
/// a link may be in the place of one, or of what it lies in.
#[test]
fn directories_that_become_links_before_they_get_their_times() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let scene = Scene::new();
    let outside = scene.path("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::set_permissions(outside.join("sub"), fs::Permissions::from_mode(0o711)).unwrap();
    let seen = || {
        ["", "sub"].map(|name| {
            let meta = fs::metadata(outside.join(name)).unwrap();
            (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.uid())
        })
    };
    let before = seen();
    let to = outside.to_str().unwrap();
    let up = format!("{}{to}", "../".repeat(12));
    for (n, target) in [to, &up].into_iter().enumerate() {
        let entries = [
            dir("a").mode(0o700).owner(7, 7),
            dir("a/sub").mode(0o777).owner(7, 7),
            dir("b").mode(0o777).owner(7, 7),
            file("unlisted/sub/file", "x"),
            symlink("a", target),
            symlink("b", target),
            symlink("unlisted", target),
        ];
        let layer = layer(&entries, "none");
        scene.import(&simple(&scene.path(&format!("oci{n}")), "x", std::slice::from_ref(&layer)));
        assert!(scene.layer_dir(&layer).join("a").symlink_metadata().unwrap().is_symlink());
        // a copy does the same with directories of several layers
        let bundle = scene.path("bundle");
        let bundle = bundle.to_str().unwrap();
        scene.ok(&["unpack", "x", bundle, "--rootfs-mode", "copy"]);
        scene.ok(&["umount", bundle]);
        scene.ok(&["image", "rm", "x"]);
        assert_eq!(seen(), before, "{target}");
    }
}

#[test]
fn blobs_that_lie() {
    let scene = Scene::new();
    let good = layer(&[file("a", &"data".repeat(100_000))], "gzip");
    let digest = sha256(&good.blob);
    let spoil = |name: &str, how: &dyn Fn(&mut Vec<u8>)| {
        let dir = scene.path(name);
        let layout = simple(&dir, "x", std::slice::from_ref(&good));
        let path = Layout { dir, index: vec![] }.blob_path(&digest);
        let mut blob = fs::read(&path).unwrap();
        how(&mut blob);
        fs::write(path, blob).unwrap();
        layout
    };
    let flipped = spoil("flip", &|b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    refused(&scene, &flipped, &["wrong digest", &digest]);
    refused(&scene, &spoil("short", &|b| b.truncate(100)), &["wrong size"]);
    refused(&scene, &spoil("long", &|b| b.push(0)), &["wrong size"]);

    let mut other = good.clone();
    other.diff_id = sha256(b"something else");
    refused(&scene, &simple(&scene.path("diff"), "x", &[other]), &["wrong diff id"]);
    let mut cut = good.clone();
    cut.blob.truncate(cut.blob.len() - 9);
    refused(&scene, &simple(&scene.path("cut"), "x", &[cut]), &["layer"]);
    for (name, media_type) in [
        ("as-plain", TAR.to_owned()),
        ("as-zstd", format!("{TAR}+zstd")),
        ("as-xz", format!("{TAR}+xz")),
    ] {
        let wrong = Layer { media_type, ..good.clone() };
        refused(&scene, &simple(&scene.path(name), "x", &[wrong]), &["media type"]);
    }
    let noise = Layer { media_type: TAR.into(), ..raw_layer(&[b'n'; 4096], "none") };
    refused(&scene, &simple(&scene.path("noise"), "x", &[noise]), &["not a tar header"]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn documents_that_lie() {
    let scene = Scene::new();
    let good = layer(&[file("a", "a")], "none");
    let case = |name: &str, change: &dyn Fn(&mut Layout)| {
        let mut layout = Layout::new(&scene.path(name));
        let image = layout.image(std::slice::from_ref(&good), HOST, json!({}));
        layout.tag(image, "x");
        change(&mut layout);
        layout.finish()
    };
    let digest = |text: &'static str| move |l: &mut Layout| l.index[0]["digest"] = json!(text);
    refused(&scene, &case("d1", &digest("sha256:../../../../etc/passwd")), &["digest"]);
    refused(&scene, &case("d2", &digest("md5:d41d8cd98f00b204e9800998ecf8427e")), &["digest"]);
    refused(&scene, &case("neg", &|l| l.index[0]["size"] = json!(-1)), &["index.json", "size"]);
    refused(
        &scene,
        &case("as-index", &|l| l.index[0]["mediaType"] = json!(INDEX)),
        &["not an index"],
    );
    let both = |l: &mut Layout| {
        let manifest = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}});
        let descriptor = l.manifest(manifest);
        l.index.clear();
        l.tag(descriptor, "x");
    };
    refused(&scene, &case("both", &both), &["not a manifest"]);
    let ids = |l: &mut Layout| {
        let bytes = fs::read(l.blob_path(l.index[0]["digest"].as_str().unwrap())).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["layers"] = json!([]);
        let descriptor = l.manifest(manifest);
        l.index.clear();
        l.tag(descriptor, "x");
    };
    refused(&scene, &case("count", &ids), &["diff ids"]);
    let many = |l: &mut Layout| {
        let image = l.image(&vec![good.clone(); 501], HOST, json!({}));
        l.index.clear();
        l.tag(image, "x");
    };
    refused(&scene, &case("many", &many), &["501 layers"]);
    // indexes that list each other a thousand times, four deep
    let nested = |l: &mut Layout| {
        let mut inner = l.index[0].clone();
        for _ in 0..4 {
            let index = json!({"schemaVersion": 2, "manifests": vec![inner; 1000]});
            inner = l.blob(index.to_string().as_bytes(), INDEX);
        }
        l.index.clear();
        l.tag(inner, "x");
    };
    scene.import(&case("nested", &nested));
    scene.ok(&["image", "rm", "x"]);
    let wide = |l: &mut Layout| {
        let index = json!({"schemaVersion": 2, "manifests": vec![l.index[0].clone(); 10_001]});
        let descriptor = l.blob(index.to_string().as_bytes(), INDEX);
        l.index.clear();
        l.tag(descriptor, "x");
    };
    refused(&scene, &case("wide", &wide), &["more than 10000 manifests"]);
    let empty = case("none", &|l| l.index.clear());
    refused(&scene, &empty, &["no image"]);
    fs::write(empty.join("index.json"), "{").unwrap();
    refused(&scene, &empty, &["index.json"]);
    fs::remove_file(empty.join("index.json")).unwrap();
    refused(&scene, &empty, &["no index.json"]);
    fs::remove_file(empty.join("oci-layout")).unwrap();
    refused(&scene, &empty, &["not an OCI layout"]);
    refused(&scene, &scene.path("nothing"), &["does not exist"]);
    let huge = case("huge", &|_| ());
    let index = fs::File::options().write(true).open(huge.join("index.json")).unwrap();
    index.set_len(30 << 20).unwrap();
    refused(&scene, &huge, &["index.json", "more than"]);
}

/// Directories that layers do not list are kept in memory: a path of a thousand of them is a
/// megabyte of names, and an archive of a kilobyte.
#[test]
fn directories_that_no_layer_lists_are_bounded() {
    let scene = Scene::new();
    let deep = |n: usize, count: usize| {
        let paths = (0..count).map(|at| format!("{n}/{at}/{}f", "d/".repeat(1800)));
        layer(&paths.map(|path| file(&path, "")).collect::<Vec<_>>(), "gzip")
    };
    let one = simple(&scene.path("one"), "x", &[deep(0, 6)]);
    refused(&scene, &one, &["the layer lists too few of the directories"]);
    let many: Vec<_> = (0..12).map(|n| deep(n, 1)).collect();
    refused(
        &scene,
        &simple(&scene.path("many"), "x", &many),
        &["the layers together list too few"],
    );
    scene.import(&simple(&scene.path("few"), "x", &many[..1]));
}

/// What is known of an archive's members is kept in memory.
#[test]
fn an_archive_of_too_many_members_is_refused() {
    let scene = Scene::new();
    let path = scene.path("many.tar");
    let members: Vec<_> =
        (0..9000).map(|n| file(&format!("{}{n}", "d/".repeat(1000)), "")).collect();
    let packed = gzip(&archive(&members));
    fs::write(&path, packed).unwrap();
    refused(&scene, &path, &["more members than an archive of images"]);
}

/// What an image says of itself is shown on terminals.
#[test]
fn nothing_that_a_terminal_obeys_is_printed() {
    let scene = Scene::new();
    let evil = "\u{1b}[31m2024\u{7}";
    for (name, field) in [("created", "created"), ("arch", "architecture"), ("variant", "variant")]
    {
        let mut layout = Layout::new(&scene.path(name));
        let image = layout.image(&[layer(&[file("a", "a")], "none")], HOST, json!({}));
        let bytes = fs::read(layout.blob_path(image["digest"].as_str().unwrap())).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let config = layout.blob_path(manifest["config"]["digest"].as_str().unwrap());
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
        config[field] = json!(evil);
        let media_type = manifest["config"]["mediaType"].as_str().unwrap().to_owned();
        manifest["config"] = layout.blob(config.to_string().as_bytes(), &media_type);
        let descriptor = layout.manifest(manifest);
        let path = layout.tag(descriptor, name).finish();
        let out = scene.run(&["image", "import", path.to_str().unwrap()]);
        assert!(!out.stderr.contains(&0x1b) && !out.stdout.contains(&0x1b), "{name}: {out:?}");
        for args in [&["image", "ls"][..], &["image", "inspect", name], &["image", "df"]] {
            let out = scene.run(args);
            let shown = [out.stdout, out.stderr].concat();
            assert!(!shown.contains(&0x1b), "{name}: {}", String::from_utf8_lossy(&shown));
        }
    }
    assert!(scene.ok(&["image", "ls"]).contains("created"));
}

#[test]
fn a_bomb_is_capped() {
    let scene = Scene::new();
    let layer = layer(&[file("zeros", &"\0".repeat(50 << 20))], "gzip");
    let layout = simple(&scene.path("oci"), "bomb", &[layer]);
    let path = layout.to_str().unwrap();
    let line = scene.fails(&["image", "import", path, "--max-layer-size", "10m"]);
    assert!(line.contains("--max-layer-size"), "{line}");
    scene.assert_store_is_empty();
    scene.ok(&["image", "import", path, "--max-layer-size", "1g"]);
}

fn hostile() -> impl Strategy<Value = Entry> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "l",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh..wh..opq",
        ".wh.",
        ".wh..",
        "outside",
    ]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(b"01235560".to_vec());
    let link = prop_oneof![
        path.clone(),
        Just("..".to_owned()),
        Just("/".to_owned()),
        Just("../../../../../..".to_owned()),
    ];
    (kind, path, link).prop_map(|(kind, path, link)| Entry {
        link: link.into_bytes(),
        data: if kind == b'0' { b"evil".to_vec() } else { Vec::new() },
        mode: 0o777,
        ..entry(kind, &path)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the entries are, nothing outside of the layer changes.
    #[test]
    fn nothing_is_written_outside(entries in prop::collection::vec(hostile(), 1..12)) {
        let scene = Scene::new();
        fs::write(scene.path("outside"), "untouched").unwrap();
        let layer = layer(&entries, "none");
        let layout = simple(&scene.path("oci"), "x", &[layer]);
        scene.import_quietly(&layout);
        let before = ["oci", "outside", "store"];
        for found in fs::read_dir(scene.dir.path()).unwrap() {
            let found = found.unwrap().file_name();
            prop_assert!(before.iter().any(|name| found == *name), "{found:?} appeared");
        }
        prop_assert_eq!(fs::read(scene.path("outside")).unwrap(), b"untouched");
        let mut top: Vec<_> = fs::read_dir(scene.path("store")).unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        top.sort();
        prop_assert_eq!(top, ["blobs", "empty", "images", "layers", "lock", "refs", "staging"]);
        prop_assert_eq!(fs::read_dir(scene.path("store/staging")).unwrap().count(), 0);
    }
}

impl Scene {
    /// It may be refused or not; it must not crash.
    fn import_quietly(&self, layout: &Path) {
        let out = self.run(&["image", "import", layout.to_str().unwrap()]);
        assert!(matches!(out.status.code(), Some(0 | 1)), "{out:?}");
    }
}
