//! Directories that a layer doesn't list, in images that share it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::content::xattr;
use crate::layout::*;

/// Mode, owner, group and time.
type Facts = (u32, u32, u32, i64);

fn facts(path: &Path) -> Facts {
    let meta = path.symlink_metadata().unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime())
}

/// Calls `look` with the root of an image as an overlay shows it, and as a copy.
fn views(scene: &Scene, image: &str, look: impl Fn(&Path)) {
    for mode in ["overlay", "copy"] {
        let bundle = scene.path("bundle");
        let to = bundle.to_str().unwrap();
        scene.ok(&["unpack", image, to, "--rootfs-mode", mode]);
        look(&bundle.join("rootfs"));
        scene.ok(&["umount", to]);
    }
}

fn at(entry: Entry, mtime: u64) -> Entry {
    Entry { mtime, ..entry }
}

/// A base with directories of its own, and one of another.
fn bases() -> [Layer; 2] {
    let first = [
        at(dir("./").mode(0o750).owner(1, 1), 11),
        at(dir("d").mode(0o2750).owner(3, 4).pax("SCHILY.xattr.user.k", b"v"), 12),
        at(dir("d/deep").mode(0o1777), 13),
        file("d/first", ""),
    ];
    let second = [
        at(dir("./").mode(0o711), 21),
        at(dir("d").mode(0o700).owner(5, 6), 22),
        file("d/second", ""),
    ];
    [layer(&first, "gzip"), layer(&second, "gzip")]
}

#[test]
fn each_image_sees_what_its_own_layers_say() {
    let above = layer(&[file("d/deep/file", "x"), file("new/file", "y")], "gzip");
    let [first, second] = bases();
    for order in [["first", "second"], ["second", "first"]] {
        let scene = Scene::new();
        for name in order {
            let base = if name == "first" { &first } else { &second };
            scene.import(&simple(&scene.path(name), name, &[base.clone(), above.clone()]));
        }
        views(&scene, "first", |root| {
            assert_eq!(facts(root), (0o750, 1, 1, 11));
            assert_eq!(facts(&root.join("d")), (0o2750, 3, 4, 12));
            assert_eq!(xattr(&root.join("d"), "user.k").unwrap(), b"v");
            assert_eq!(facts(&root.join("d/deep")), (0o1777, 0, 0, 13));
            assert_eq!(fs::read(root.join("d/deep/file")).unwrap(), b"x");
            assert!(root.join("d/first").exists() && !root.join("d/second").exists());
        });
        views(&scene, "second", |root| {
            assert_eq!(facts(root), (0o711, 0, 0, 21));
            assert_eq!(facts(&root.join("d")), (0o700, 5, 6, 22));
            assert_eq!(xattr(&root.join("d"), "user.k"), None);
            // nobody says anything of these
            for name in ["d/deep", "new"] {
                let (mode, uid, gid, _) = facts(&root.join(name));
                assert_eq!((mode, uid, gid), (0o755, 0, 0), "{name}");
            }
            assert!(root.join("d/second").exists() && !root.join("d/first").exists());
        });
        scene.ok(&["image", "verify"]);
        // the layer that both have is there once
        let usage: Value = serde_json::from_str(&scene.ok(&["image", "df", "--json"])).unwrap();
        assert_eq!(usage["layers"]["count"], 5, "two bases, one above, two of directories");
        assert_eq!(scene.ok(&["image", "gc"]), "freed: 0 B\n");
        scene.ok(&["image", "rm", order[0]]);
        scene.ok(&["image", "verify"]);
        views(&scene, order[1], |root| assert!(root.join("d/deep/file").exists()));
        scene.ok(&["image", "rm", order[1]]);
        scene.assert_store_is_empty();
    }
}

#[test]
fn importing_again_makes_nothing_new() {
    let scene = Scene::new();
    let [first, second] = bases();
    let above = layer(&[file("d/x", "")], "none");
    let image =
        |name: &str, base: &Layer| simple(&scene.path(name), name, &[base.clone(), above.clone()]);
    let paths = [image("a", &first), image("b", &second)];
    paths.iter().for_each(|path| scene.import(path));
    let layers = || fs::read_dir(scene.path("store/layers/sha256")).unwrap().count();
    let before = (layers(), scene.ok(&["image", "ls", "--json"]));
    paths.iter().for_each(|path| scene.import(path));
    assert_eq!((layers(), scene.ok(&["image", "ls", "--json"])), before);
    // the same layers under another name: the same directories on top
    scene.ok(&["image", "import", paths[0].to_str().unwrap(), "--name", "c"]);
    assert_eq!(layers(), before.0);
    let parents = |name: &str| -> PathBuf {
        let found: Value = serde_json::from_str(&scene.ok(&["image", "inspect", name])).unwrap();
        found["parents"].as_str().unwrap().into()
    };
    assert_eq!(parents("a"), parents("c"));
    assert_ne!(parents("a"), parents("b"));
    scene.ok(&["image", "rm", "a"]);
    assert!(parents("c").join("d").exists());
}

#[test]
fn what_hides_a_directory_ends_what_it_says() {
    let scene = Scene::new();
    let base = layer(
        &[
            dir("opaque").mode(0o711).owner(1, 1),
            dir("opaque/in").mode(0o700).owner(2, 2),
            dir("white").mode(0o700).owner(3, 3),
            dir("file").mode(0o700).owner(4, 4),
            dir("same").mode(0o700).owner(5, 5),
            dir("same/in").mode(0o700).owner(6, 6),
            dir("late").mode(0o700).owner(7, 7),
        ],
        "none",
    );
    let hiding = layer(
        &[file("opaque/.wh..wh..opq", ""), file(".wh.white", ""), file("file", "a file")],
        "none",
    );
    let above = layer(
        &[
            file("opaque/in/x", ""),
            file("white/x", ""),
            file(".wh.file", ""),
            file("file/x", ""),
            file("same/.wh..wh..opq", ""),
            file("same/in/x", ""),
            file("late/x", ""),
        ],
        "none",
    );
    let last = layer(&[dir("late").mode(0o555).owner(8, 8)], "none");
    scene.import(&simple(&scene.path("oci"), "h", &[base, hiding, above, last]));
    let fresh = (0o755, 0, 0);
    views(&scene, "h", |root| {
        for (name, wanted) in [
            ("opaque", (0o711, 1, 1)),
            ("opaque/in", fresh),
            ("white", fresh),
            ("file", fresh),
            ("same", (0o700, 5, 5)),
            ("same/in", fresh),
            ("late", (0o555, 8, 8)),
        ] {
            let (mode, uid, gid, _) = facts(&root.join(name));
            assert_eq!((mode, uid, gid), wanted, "{name}");
        }
    });
    scene.ok(&["image", "verify"]);
}

#[test]
fn several_layers_may_leave_out_the_same() {
    let scene = Scene::new();
    let [base, _] = bases();
    let layers: Vec<_> = (0..3).map(|n| layer(&[file(&format!("d/{n}"), "")], "none")).collect();
    let all = [&[base][..], &layers].concat();
    scene.import(&simple(&scene.path("oci"), "s", &all));
    views(&scene, "s", |root| {
        assert_eq!(facts(&root.join("d")), (0o2750, 3, 4, 12));
        assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 5);
    });
    // a container's root, and one that is read
    let found: Value = serde_json::from_str(&scene.ok(&["image", "inspect", "s"])).unwrap();
    assert_eq!(found["layers"].as_array().unwrap().len(), 4);
    let parents = Path::new(found["parents"].as_str().unwrap());
    let inside: Vec<_> = fs::read_dir(parents).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(inside, ["d"]);
}

const CONTENT: &str = "some content";

/// Two bases, a layer with links to what is in them, and one that takes some of it away.
fn linking() -> ([Layer; 2], Layer, Layer) {
    let base = |mode| {
        layer(
            &[
                at(dir("d").mode(0o711).owner(3, 3), 7),
                at(file("d/file", CONTENT).mode(mode).owner(5, 6), 9)
                    .pax("SCHILY.xattr.user.k", b"v"),
                file("d/taken", "taken"),
                file("d/hidden", "hidden"),
                symlink("d/soft", "file"),
                file("d/old", "old"),
            ],
            "none",
        )
    };
    let bases = [base(0o4755), base(0o640)];
    let above = layer(
        &[
            hardlink("e/link", "d/file"),
            hardlink("again", "e/link"),
            hardlink("soft", "d/soft"),
            hardlink("from-taken", "d/taken"),
            hardlink("d/replaced", "d/old"),
            file("d/replaced", "by a later entry"),
            hardlink("goes", "d/old"),
        ],
        "gzip",
    );
    let last = layer(&[file("d/taken", "new"), file(".wh.goes", "")], "none");
    (bases, above, last)
}

/// A layer may link to what a layer below has: umoci and containerd have such images.
#[test]
fn hard_links_lead_to_files_of_lower_layers() {
    let (bases, above, last) = linking();
    for order in [[0, 1], [1, 0]] {
        let scene = Scene::new();
        for n in order {
            let layers = [bases[n].clone(), above.clone(), last.clone()];
            scene.import(&simple(&scene.path(&format!("oci{n}")), &format!("box{n}"), &layers));
        }
        for (n, mode) in [(0, 0o4755), (1, 0o640)] {
            views(&scene, &format!("box{n}"), |root| {
                let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
                let one = meta("d/file");
                assert_eq!((one.nlink(), one.ino()), (3, meta("e/link").ino()));
                assert_eq!(one.ino(), meta("again").ino());
                assert_eq!(facts(&root.join("again")), (mode, 5, 6, 9));
                assert_eq!(xattr(&root.join("e/link"), "user.k").unwrap(), b"v");
                assert_eq!(fs::read_to_string(root.join("again")).unwrap(), CONTENT);
                assert_eq!(facts(&root.join("d")), (0o711, 3, 3, 7));
                assert_eq!(fs::read_link(root.join("soft")).unwrap(), Path::new("file"));
                assert_eq!(meta("soft").ino(), meta("d/soft").ino());
                // what a later layer puts in the target's place is another file
                assert_eq!(fs::read(root.join("from-taken")).unwrap(), b"taken");
                assert_eq!(fs::read(root.join("d/taken")).unwrap(), b"new");
                assert_eq!(fs::read(root.join("d/replaced")).unwrap(), b"by a later entry");
                assert!(!root.join("goes").exists());
                assert_eq!(meta("d/old").nlink(), 1);
            });
        }
        scene.ok(&["image", "verify"]);
        for n in order {
            scene.ok(&["image", "rm", &format!("box{n}")]);
        }
        scene.assert_store_is_empty();
    }
}

#[test]
fn hard_links_to_what_no_layer_shows_are_refused() {
    let (bases, ..) = linking();
    let scene = Scene::new();
    let hiding = layer(&[file("d/.wh.hidden", "")], "none");
    for target in ["d/none", "d/hidden", "d", "none/at/all", "d/soft/file"] {
        let wrong = layer(&[hardlink("x", target)], "none");
        let layers = [bases[0].clone(), hiding.clone(), wrong];
        let path = simple(&scene.path(&target.replace('/', "-")), "x", &layers);
        let line = scene.fails(&["image", "import", path.to_str().unwrap()]);
        assert!(line.contains(&format!("hard link to {target}")), "{line}");
        scene.assert_store_is_empty();
    }
}

/// A name that was a link once leads to what has come in its place.
#[test]
fn hard_links_to_links_lead_to_what_is_there_by_then() {
    let below = layer(&[file("x", "below"), file("y", "other")], "none");
    let linking = layer(&[hardlink("a", "x"), hardlink("c", "x"), file("c", "own")], "none");
    let between = layer(&[file("a", "new")], "none");
    let last = layer(&[hardlink("b", "a"), hardlink("d", "c")], "none");
    let scene = Scene::new();
    let layers = [below.clone(), linking.clone(), between, last.clone()];
    scene.import(&simple(&scene.path("oci"), "box", &layers));
    views(&scene, "box", |root| {
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!([read("x"), read("a"), read("b")], ["below", "new", "new"]);
        assert_eq!([read("c"), read("d")], ["own", "own"]);
        let ino = |name: &str| root.join(name).metadata().unwrap().ino();
        assert!(ino("a") == ino("b") && ino("c") == ino("d") && ino("x") != ino("b"));
    });
    // as long as the link is what is seen, its file is meant
    let layers = [below.clone(), linking.clone(), last.clone()];
    scene.import(&simple(&scene.path("still"), "still", &layers));
    views(&scene, "still", |root| {
        let ino = |name: &str| root.join(name).metadata().unwrap().ino();
        assert!(ino("x") == ino("a") && ino("x") == ino("b"));
        assert_eq!(root.join("b").metadata().unwrap().nlink(), 3);
    });
    // and one back to the name that the file had is that file
    let back = layer(&[hardlink("x", "a"), file(".wh.a", ""), file(".wh.c", "")], "none");
    scene.import(&simple(&scene.path("back"), "back", &[below.clone(), linking.clone(), back]));
    views(&scene, "back", |root| {
        assert_eq!(fs::read(root.join("x")).unwrap(), b"below");
        assert!(!root.join("a").exists() && !root.join("c").exists());
    });
    scene.ok(&["image", "verify"]);
    // taken away, it is no target
    for hiding in [file(".wh.a", ""), file(".wh..wh..opq", "")] {
        let layers = [below.clone(), linking.clone(), layer(&[hiding], "none"), last.clone()];
        let path = simple(&scene.path("gone"), "gone", &layers);
        let line = scene.fails(&["image", "import", path.to_str().unwrap()]);
        assert!(line.contains("hard link to a"), "{line}");
        fs::remove_dir_all(path).unwrap();
    }
}

/// More files of lower layers may have links than may be open at a time.
#[test]
fn many_files_of_lower_layers_may_have_links() {
    let scene = Scene::in_memory();
    let names: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| file(&format!("d/{name}"), name)).collect();
    let links: Vec<_> =
        names.iter().map(|name| hardlink(&format!("e/{name}"), &format!("d/{name}"))).collect();
    let path = simple(&scene.path("oci"), "box", &[layer(&files, "none"), layer(&links, "none")]);
    let import = scene.command(&["image", "import", path.to_str().unwrap()]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"]);
    let out = command.arg(import.get_program()).args(import.get_args()).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    views(&scene, "box", |root| {
        for name in &names {
            let meta = |dir: &str| root.join(dir).join(name).metadata().unwrap();
            assert_eq!((meta("d").ino(), meta("d").nlink()), (meta("e").ino(), 2), "{name}");
        }
    });
    scene.ok(&["image", "verify"]);
}

#[test]
fn too_many_links_to_files_of_lower_layers_are_refused() {
    let scene = Scene::in_memory();
    let links: Vec<_> = (0..=16384).map(|n| hardlink(&format!("{n}"), "x")).collect();
    let layers = [layer(&[file("x", "")], "none"), layer(&links, "gzip")];
    let path = simple(&scene.path("oci"), "box", &layers);
    let line = scene.fails(&["image", "import", path.to_str().unwrap()]);
    assert!(line.contains("16385 hard links") && line.ends_with("more than 16384"), "{line}");
    scene.assert_store_is_empty();
}

/// What later entries of the same layer make of such a link, and what it hides.
#[test]
fn hard_links_to_lower_files_are_files_of_their_layer() {
    let names = ["x", "y", "moved", "over/deep", "shown", "taken/l", "again/l"];
    let below: Vec<_> = names.iter().map(|name| file(name, name)).collect();
    let above = [
        // in the place of a directory of lower layers, and of a file
        hardlink("over", "x"),
        hardlink("shown", "x"),
        // what it lies in becomes a file, or another directory
        hardlink("taken/l", "x"),
        file("taken", "a file"),
        hardlink("again/l", "x"),
        file("again", "a file first"),
        dir("again"),
        file("again/new", ""),
        // a whiteout is for lower layers, before it or after
        hardlink("kept", "x"),
        file(".wh.kept", ""),
        file(".wh.fresh", ""),
        hardlink("fresh", "x"),
        // the last one counts, and what led to the first one still does
        hardlink("twice", "x"),
        hardlink("first", "twice"),
        hardlink("twice", "y"),
        // what was linked to stays, whatever comes in its place
        hardlink("z", "moved"),
        hardlink("moved", "y"),
    ];
    let last = layer(&[file("over/z", "")], "none");
    let layers = [layer(&below, "none"), layer(&above, "gzip")];
    let scene = Scene::new();
    scene.import(&simple(&scene.path("oci"), "box", &layers));
    views(&scene, "box", |root| {
        let ino = |name: &str| root.join(name).symlink_metadata().unwrap().ino();
        for name in ["over", "shown", "kept", "fresh", "first"] {
            assert_eq!(ino(name), ino("x"), "{name}");
            assert_eq!(fs::read(root.join(name)).unwrap(), b"x", "{name}");
        }
        assert_eq!((ino("twice"), root.join("x").metadata().unwrap().nlink()), (ino("y"), 6));
        assert_eq!((ino("moved"), fs::read(root.join("z")).unwrap()), (ino("y"), b"moved".into()));
        assert_eq!(fs::read(root.join("taken")).unwrap(), b"a file");
        let again: Vec<_> = fs::read_dir(root.join("again")).unwrap().collect();
        assert_eq!(again.len(), 1);
    });
    // a directory in its place shows nothing of what it has hidden
    let layers = [&layers[..], &[last]].concat();
    scene.import(&simple(&scene.path("last"), "last", &layers));
    views(&scene, "last", |root| {
        let over: Vec<_> = fs::read_dir(root.join("over")).unwrap().collect();
        assert_eq!(over.len(), 1);
        assert_eq!(fs::read(root.join("shown")).unwrap(), b"x");
    });
    scene.ok(&["image", "verify"]);
    // it is no directory
    let wrong = layer(&[hardlink("l", "x"), file("l/below", "")], "none");
    let path = simple(&scene.path("wrong"), "wrong", &[layers[0].clone(), wrong]);
    let line = scene.fails(&["image", "import", path.to_str().unwrap()]);
    assert!(line.contains("its parent l is not a directory"), "{line}");
}

/// A label is what the machine's policy gave a file: it is of no image.
#[test]
fn labels_of_the_machine_are_no_part_of_an_image() {
    let scene = Scene::new();
    let [base, other] = bases();
    scene.import(&simple(&scene.path("base"), "base", std::slice::from_ref(&base)));
    scene.import(&simple(&scene.path("other"), "other", std::slice::from_ref(&other)));
    for path in ["", "d", "d/first"] {
        let path = scene.layer_dir(&base).join(path);
        let set = Command::new("setfattr")
            .args(["-h", "-n", "security.selinux", "-v", "system_u:object_r:t:s0"])
            .arg(&path)
            .status();
        assert!(set.unwrap().success());
    }
    let above = layer(&[file("d/file", "x"), hardlink("d/link", "d/first")], "gzip");
    scene.import(&simple(&scene.path("oci"), "box", &[base, above]));
    scene.ok(&["image", "verify"]);
}

#[test]
fn layers_of_an_earlier_version_get_their_record_by_an_import() {
    let scene = Scene::new();
    let [base, _] = bases();
    let path = simple(&scene.path("oci"), "box", std::slice::from_ref(&base));
    scene.import(&path);
    let facts = scene.layer_dir(&base).parent().unwrap().join("layer.json");
    let whole = fs::read(&facts).unwrap();
    let listing = fs::read(facts.with_file_name("listing")).unwrap();
    let mut old: Value = serde_json::from_slice(&whole).unwrap();
    old.as_object_mut().unwrap().remove("listing").unwrap();
    fs::write(&facts, old.to_string()).unwrap();
    fs::remove_file(facts.with_file_name("listing")).unwrap();
    let told = scene.run(&["image", "verify"]);
    assert!(String::from_utf8(told.stdout).unwrap().contains("another image import records it"));
    // a container may be using its files
    let file = scene.layer_dir(&base).join("d/first");
    let inode = fs::metadata(&file).unwrap().ino();
    let told = scene.run(&["image", "import", path.to_str().unwrap()]);
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("an earlier version has made it"), "{told}");
    scene.ok(&["image", "verify"]);
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    assert_eq!(
        (fs::read(&facts).unwrap(), fs::read(facts.with_file_name("listing")).unwrap()),
        (whole, listing)
    );
    assert_eq!(fs::read_dir(scene.path("store/staging")).unwrap().count(), 0);
    // and what has changed since is found by it
    fs::write(&file, "other").unwrap();
    assert!(!scene.run(&["image", "verify"]).status.success());
}

#[test]
fn directories_as_deep_as_a_path_takes_are_what_a_lower_layer_says() {
    const DEPTH: usize = 1800;
    let path = |depth: usize, name: &str| format!("{}{name}", "d/".repeat(depth));
    let mode = |depth: usize| if depth.is_multiple_of(2) { 0o750 } else { 0o705 };
    let listed: Vec<_> =
        (1..=DEPTH).map(|n| at(dir(&path(n, "")).mode(mode(n)), n as u64)).collect();
    let base = layer(&listed, "gzip");
    let deep = |name: &str| {
        // its path sorts between a directory's and those of what is in that
        let aside = format!("{}d!/{name}", path(DEPTH / 2, ""));
        layer(&[file(&path(DEPTH, name), name), file(&aside, name)], "gzip")
    };
    let scene = Scene::new();
    let layers = [base, deep("one"), deep("two"), deep("three")];
    scene.import(&simple(&scene.path("image"), "image", &layers));
    views(&scene, "image", |root| {
        for depth in 1..=DEPTH {
            let expected = (mode(depth), 0, 0, depth as i64);
            assert_eq!(facts(&root.join(path(depth, ""))), expected, "{depth}");
        }
        for name in ["one", "two", "three"] {
            assert_eq!(fs::read_to_string(root.join(path(DEPTH, name))).unwrap(), name);
            let aside = path(DEPTH / 2, "d!/") + name;
            assert_eq!(fs::read_to_string(root.join(aside)).unwrap(), name);
        }
    });
    scene.ok(&["image", "verify"]);
}
