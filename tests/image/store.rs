//! The store: names, what is shared, what is removed when.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::layout::*;

fn marked(text: &str) -> Layer {
    layer(&[file("mark", text)], "gzip")
}

#[test]
fn images_have_short_names_and_digests() {
    let scene = Scene::new();
    for (n, name) in
        ["docker.io/library/alpine:latest", "localhost/mine:1", "plain"].iter().enumerate()
    {
        let path = simple(&scene.path(&format!("oci{n}")), name, &[marked(name)]);
        scene.import(&path);
    }
    let inspect = |name: &str| -> Value {
        serde_json::from_str(&scene.ok(&["image", "inspect", name])).unwrap()
    };
    for (short, whole) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:latest", "docker.io/library/alpine:latest"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("mine:1", "localhost/mine:1"),
        ("plain:latest", "plain"),
    ] {
        assert_eq!(inspect(short)["name"], whole);
    }
    let plain = inspect("plain");
    let digest = plain["digest"].as_str().unwrap();
    let config = plain["configDigest"].as_str().unwrap();
    for by in [digest, config, &digest[..20], &digest[7..19], &config[7..13]] {
        assert_eq!(inspect(by)["name"], "plain", "{by}");
    }
    assert_eq!(inspect(&format!("plain@{digest}"))["name"], "plain");
    for wrong in
        [format!("alpine@{digest}"), "mine".into(), "alpine:3".into(), digest[7..12].into()]
    {
        assert!(scene.fails(&["image", "inspect", &wrong]).contains("does not exist"), "{wrong}");
    }
    // a second name: any of the two will do, but which of them is to go?
    scene.ok(&["image", "import", scene.path("oci2").to_str().unwrap(), "--name", "second"]);
    inspect(digest);
    assert!(scene.fails(&["image", "rm", digest]).contains("plain, second"));
    scene.ok(&["image", "rm", "second"]);
    scene.ok(&["image", "rm", "alpine", "mine:1", digest]);
    scene.assert_store_is_empty();
}

#[test]
fn what_a_new_version_replaces_is_collected() {
    let scene = Scene::new();
    let (shared, old, new) = (marked("shared"), marked("old"), marked("new"));
    let first = simple(&scene.path("one"), "box", &[shared.clone(), old.clone()]);
    scene.ok(&["image", "import", first.to_str().unwrap(), "--keep-blobs"]);
    assert_eq!(scene.ok(&["image", "gc"]), "freed: 0 B\n");
    let second = simple(&scene.path("two"), "box", &[shared.clone(), new.clone()]);
    scene.import(&second);
    // what an import that was killed has left
    let dead = scene.path("store/staging/1-0-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("file"), vec![1; 100_000]).unwrap();

    let usage: Value = serde_json::from_str(&scene.ok(&["image", "df", "--json"])).unwrap();
    assert_eq!(usage["layers"]["count"], 3);
    assert!(usage["layers"]["reclaimable"].as_u64().unwrap() > 0, "{usage}");
    assert_eq!(usage["unfinished"]["count"], 1);
    assert!(usage["unfinished"]["reclaimable"].as_u64().unwrap() >= 100_000, "{usage}");
    assert!(scene.ok(&["image", "df"]).contains("layers"));

    let told = scene.ok(&["image", "gc", "--dry-run"]);
    assert!(told.contains(&old.diff_id[7..]) && told.contains("to be freed"), "{told}");
    assert!(scene.layer_dir(&old).exists() && dead.exists());
    let done = scene.ok(&["image", "gc"]);
    assert_eq!(told.lines().count(), done.lines().count(), "{told}{done}");
    assert!(!scene.layer_dir(&old).exists() && !dead.exists());
    assert!(scene.layer_dir(&shared).exists() && scene.layer_dir(&new).exists());
    let kept: Vec<_> = fs::read_dir(scene.path("store/blobs/sha256")).unwrap().collect();
    assert_eq!(kept.len(), 3, "manifest, config, the shared layer's blob");
    scene.ok(&["image", "rm", "box"]);
    scene.assert_store_is_empty();
}

#[test]
fn shared_layers_are_on_disk_once() {
    let scene = Scene::new();
    let shared = layer(&[file("big", &"x".repeat(1 << 20))], "gzip");
    for name in ["a", "b"] {
        scene.import(&simple(&scene.path(name), name, &[shared.clone(), marked(name)]));
    }
    let usage: Value = serde_json::from_str(&scene.ok(&["image", "df", "--json"])).unwrap();
    assert_eq!(usage["layers"]["count"], 3);
    assert!(usage["layers"]["bytes"].as_u64().unwrap() < 2 << 20, "{usage}");
    for image in usage["images"].as_array().unwrap() {
        assert!(image["shared"].as_u64().unwrap() >= 1 << 20, "{usage}");
    }
}

/// Whether the import was killed, by strace, before its end.
fn kill_import(scene: &Scene, path: &Path, call: &str, n: usize) -> bool {
    let import = scene.command(&["image", "import", path.to_str().unwrap(), "--keep-blobs"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]);
    strace.arg(import.get_program()).args(import.get_args());
    let status = strace.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.expect("strace (integration/install-deps test)");
    let killed = status.signal() == Some(9) || status.code() == Some(137);
    assert!(killed || status.success(), "{call} {n}: {status}");
    killed
}

/// Calls that an import makes, kind by kind.
const CALLS: [&str; 9] = [
    "openat,openat2",
    "mkdir,mkdirat",
    "write",
    "renameat,renameat2",
    "unlinkat",
    "flock",
    "fsync,syncfs",
    "utimensat",
    "pread64",
];

/// An import is killed when it enters its n-th call of a kind, for kinds and n
/// that go through all of it; what was there before is there afterwards, byte
/// for byte, and the next import makes the store whole.
#[test]
fn a_kill_at_any_call_loses_nothing() {
    let scene = Scene::in_memory();
    let keep = layer(&[dir("./"), dir("d"), file("d/a", "a"), file("d/b", "b")], "gzip");
    scene.import(&simple(&scene.path("before"), "before", std::slice::from_ref(&keep)));
    let before = listing(&scene.layer_dir(&keep));
    let make = |n: usize| {
        let mut entries = vec![dir("./")];
        entries.extend((0..8).map(|i| file(&format!("f{n}{i}"), &"z".repeat(i * 9000))));
        layer(&entries, "gzip")
    };
    let new = [keep.clone(), make(1), make(2)];
    let path = simple(&scene.path("new"), "new", &new);
    let whole: Vec<_> = {
        let other = Scene::in_memory();
        other.import(&path);
        new.iter().map(|layer| listing(&other.layer_dir(layer))).collect()
    };
    let mut kills = 0;
    for call in CALLS {
        for n in [1, 2, 3, 5, 8, 13, 21, 34] {
            let killed = kill_import(&scene, &path, call, n);
            if !killed {
                scene.ok(&["image", "rm", "new"]);
                break;
            }
            kills += 1;
            let at = format!("killed at {call} number {n}");
            assert_eq!(listing(&scene.layer_dir(&keep)), before, "{at}");
            scene.ok(&["image", "inspect", "before"]);
            for (layer, whole) in new.iter().zip(&whole) {
                let there = scene.layer_dir(layer);
                assert!(!there.exists() || listing(&there) == *whole, "{at}: half a layer");
            }
            let known = scene.ok(&["image", "ls", "-q"]);
            if known.lines().any(|name| name == "new") {
                assert!(new.iter().all(|layer| scene.layer_dir(layer).exists()), "{at}");
                scene.ok(&["image", "rm", "new"]);
            }
            // odd ones begin on what is left, even ones on a store that is tidy
            if n % 2 == 0 {
                scene.ok(&["image", "gc"]);
                assert_eq!(fs::read_dir(scene.path("store/staging")).unwrap().count(), 0, "{at}");
            }
        }
    }
    assert!(kills > 30, "{kills} kills only");
    scene.import(&path);
    scene.ok(&["image", "rm", "new", "before"]);
    scene.ok(&["image", "gc"]);
    scene.assert_store_is_empty();
}

#[test]
fn removals_and_imports_side_by_side() {
    let scene = Scene::in_memory();
    let names = ["a", "b", "c", "d"];
    let shared = marked("shared");
    let paths = names.map(|name| {
        simple(&scene.path(name), name, &[shared.clone(), marked(name)])
            .to_str()
            .unwrap()
            .to_owned()
    });
    for _ in 0..5 {
        let mut running = Vec::new();
        for (name, path) in names.iter().zip(&paths) {
            for args in
                [vec!["image", "import", path], vec!["image", "rm", name], vec!["image", "gc"]]
            {
                let mut command = scene.command(&args);
                running.push(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
            }
        }
        for one in running {
            let out = one.wait_with_output().unwrap();
            let err = String::from_utf8_lossy(&out.stderr).into_owned();
            // it was not there yet, or not any more
            assert!(out.status.success() || err.contains("does not exist"), "{err}");
        }
        for name in scene.ok(&["image", "ls", "-q"]).lines() {
            let image: Value =
                serde_json::from_str(&scene.ok(&["image", "inspect", name])).unwrap();
            for layer in image["layers"].as_array().unwrap() {
                let dir = Path::new(layer["dir"].as_str().unwrap());
                assert!(dir.join("mark").exists(), "{name} lacks {}", dir.display());
            }
        }
    }
}

#[test]
fn bounds_can_be_set() {
    let scene = Scene::new();
    let entries: Vec<_> = (0..50).map(|n| file(&format!("f{n}"), "")).collect();
    let attribute = file("a", "").pax("SCHILY.xattr.user.k", &[b'x'; 2000]);
    let cases = [
        ("entries", layer(&entries, "none"), "--max-entries", "49", "50"),
        ("meta", layer(&[attribute], "none"), "--max-entry-meta", "1k", "1m"),
        ("document", marked("x"), "--max-document-size", "100", "1k"),
    ];
    for (name, layer, option, low, enough) in cases {
        let path = simple(&scene.path(name), name, &[layer]);
        let path = path.to_str().unwrap();
        let line = scene.fails(&["image", "import", path, option, low]);
        assert!(line.contains("more than") || line.contains("exceed"), "{line}");
        scene.assert_store_is_empty();
        scene.ok(&["image", "import", path, option, enough]);
        scene.ok(&["image", "rm", name]);
    }
    let zeros = layer(&[file("z", &"\0".repeat(64 << 20))], "gzip");
    let mut layout = Layout::new(&scene.path("ratio"));
    let image = layout.image(&[zeros], HOST, json!({}));
    let path = layout.tag(image, "r").finish();
    // a gigabyte is always allowed, whatever the ratio
    scene.ok(&["image", "import", path.to_str().unwrap(), "--max-ratio", "2"]);
}

/// However big an image is, little of it is in memory at a time.
#[test]
fn memory_is_bounded() {
    let scene = Scene::new();
    let many: Vec<_> = (0..20_000)
        .map(|n| file(&format!("d{}/some-longer-file-name-{n}", n % 1000), "x"))
        .collect();
    let big = layer(&[file("big", &"0123456789abcdef".repeat(8 << 20))], "gzip");
    let path = simple(
        &scene.path("oci"),
        "m",
        &[layer(&many, "zstd"), big.clone(), layer(&many[..9000], "gzip")],
    );
    let import = scene.command(&["image", "import", path.to_str().unwrap(), "--keep-blobs"]);
    // heap, stacks and all else that can be written to; pages of files are not ours
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--data={}", 64 << 20)).arg(import.get_program()).args(import.get_args());
    let out = limited.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Windows of zstd have to be kept in memory: those that are too large to be so side by
/// side are one after the other.
#[test]
fn memory_is_bounded_with_wide_windows() {
    let scene = Scene::new();
    let mut layers = Vec::new();
    for n in 0..4u8 {
        // longer than the window, or no more than its length would be taken
        let data: String = (0..3_000_000u32).map(|at| format!("{at:<10}{n}\n")).collect();
        layers.push(layer(&[file(&format!("big{n}"), &data)], "zstd-wide"));
    }
    let path = simple(&scene.path("oci"), "m", &layers);
    let import = scene.command(&["image", "import", path.to_str().unwrap()]);
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--data={}", 64 << 20)).arg(import.get_program()).args(import.get_args());
    let out = limited.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A container's note is written before the directory that it names: only what has the
/// store to itself may take it for left over.
#[test]
fn the_note_of_a_container_that_is_being_made_outlives_df() {
    let scene = Scene::new();
    let one = layer(&[file("x", "")], "none");
    scene.import(&simple(&scene.path("oci"), "box", std::slice::from_ref(&one)));
    let owner = scene.path("store/containers/box.1");
    let note = json!({"owner": &owner, "image": "box", "layers": [&one.diff_id]});
    let hex = sha256(owner.to_str().unwrap().as_bytes()).replace("sha256:", "");
    let path = scene.path("store/refs").join(format!("{hex}.json"));
    fs::write(&path, note.to_string()).unwrap();
    for read in [&["image", "df"][..], &["image", "gc", "--dry-run"]] {
        scene.ok(read);
        assert!(path.exists(), "{read:?}");
    }
    // it counts once its directory is there
    fs::create_dir_all(&owner).unwrap();
    assert!(scene.fails(&["image", "rm", "box"]).contains("in use"));
    fs::remove_dir(&owner).unwrap();
    scene.ok(&["image", "gc"]);
    assert!(!path.exists() && scene.layer_dir(&one).exists());
    fs::write(&path, note.to_string()).unwrap();
    scene.ok(&["image", "rm", "box"]);
    scene.assert_store_is_empty();
}

/// The note of a container is not written to the disk: it ends with the machine. After a
/// power cut it may have no content, or be gone while the directory is there.
#[test]
fn notes_that_a_power_cut_has_taken_are_in_nobodys_way() {
    let scene = Scene::new();
    let one = layer(&[file("x", "")], "none");
    scene.import(&simple(&scene.path("oci"), "box", std::slice::from_ref(&one)));
    let refs = scene.path("store/refs");
    for (name, bytes) in [("00", &b""[..]), ("01", &[0; 300])] {
        fs::write(refs.join(format!("{name}.json")), bytes).unwrap();
        fs::create_dir_all(scene.path("store/containers/box.1/upper/files")).unwrap();
        scene.ok(&["image", "df"]);
        let told = scene.ok(&["image", "gc", "--dry-run"]);
        assert!(told.contains("container box.1"), "{told}");
        assert!(scene.path("store/containers/box.1").exists());
        scene.ok(&["image", "gc"]);
        assert_eq!(fs::read_dir(&refs).unwrap().count(), 0);
        assert_eq!(fs::read_dir(scene.path("store/containers")).unwrap().count(), 0);
        assert!(scene.layer_dir(&one).exists());
    }
    scene.ok(&["image", "rm", "box"]);
    scene.assert_store_is_empty();
}

/// A disk takes milliseconds to sync: a run of an image that is there waits for none.
#[test]
fn a_run_waits_for_no_disk() {
    let scene = Scene::new();
    let mut program = file("probe", "").mode(0o755);
    program.data = fs::read(crate::support::probe()).unwrap();
    let mut layout = Layout::new(&scene.path("oci"));
    let image =
        layout.image(&[layer(&[program], "none")], HOST, json!({"Cmd": ["/probe", "exit", "0"]}));
    scene.import(&layout.tag(image, "box").finish());
    let root = scene.path("state");
    let (root, id) = (root.to_str().unwrap(), crate::support::unique_id());
    let run = scene.command(&["--root", root, "run", "--image", "box", "-v", "/data", &id]);
    let mut strace = Command::new("strace");
    let calls = scene.path("calls");
    strace.args(["-f", "-qq", "-o", calls.to_str().unwrap()]);
    strace.args(["-e", "trace=fsync,fdatasync,syncfs,sync,msync,sync_file_range,mkdirat"]);
    let status = strace.arg(run.get_program()).args(run.get_args()).status();
    assert!(status.expect("strace (integration/install-deps test)").success());
    let calls = fs::read_to_string(calls).unwrap();
    assert!(calls.contains("mkdirat") && !calls.contains("sync"), "{calls}");
    // nor does the kernel when the overlay ends, or a program in it asks for it
    let read = ["run", "--image", "box", &id, "--", "/probe", "read", "/proc/self/mountinfo"];
    let mounts = scene.ok(&[&["--root", root], &read[..]].concat());
    let overlay = mounts.lines().find(|line| line.contains(" - overlay ")).unwrap();
    assert!(overlay.split(',').any(|option| option.ends_with("volatile")), "{overlay}");
}
