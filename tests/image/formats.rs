//! What an image may come as, and what it goes out as.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::layout::*;

/// Runs a program of another maker that must succeed.
fn peer(program: &str, args: &[&str]) -> Vec<u8> {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e} (integration/install-deps test)"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn layers() -> [Layer; 2] {
    let entries = [dir("etc"), file("etc/a", "one"), file("etc/b", &"two".repeat(9000))];
    [layer(&entries, "gzip"), layer(&[file("etc/.wh.a", ""), file("c", "three")], "zstd")]
}

/// The archive of an OCI layout.
fn oci_archive(scene: &Scene) -> Vec<u8> {
    let layout = simple(&scene.path("oci"), "reg.example/box:1", &layers());
    peer("tar", &["-C", text(&layout), "-cf", "-", "."])
}

/// `tare image import -`.
fn by_stdin(scene: &Scene, data: &[u8], more: &[&str]) -> Output {
    let mut command = scene.command(&["image", "import", "-"]);
    command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // it may be refused before all of it is read
    stdin.write_all(data).unwrap_or_default();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn assert_there(scene: &Scene) {
    let [below, above] = layers();
    assert_eq!(fs::read(scene.layer_dir(&below).join("etc/b")).unwrap().len(), 27000);
    assert_eq!(fs::read(scene.layer_dir(&above).join("c")).unwrap(), b"three");
    assert_eq!(fs::read_dir(scene.path("store/staging")).unwrap().count(), 0);
}

#[test]
fn archives_plain_and_compressed_from_files_and_pipes() {
    let plain = oci_archive(&Scene::new());
    let forms = [
        ("tar", plain.clone()),
        ("tar.gz", gzip(&plain)),
        ("tar.zst", zstd::encode_all(&plain[..], 1).unwrap()),
    ];
    for (suffix, data) in &forms {
        let scene = Scene::new();
        let path = scene.path(&format!("box.{suffix}"));
        fs::write(&path, data).unwrap();
        scene.import(&path);
        assert_there(&scene);
        scene.ok(&["image", "rm", "reg.example/box:1"]);
        scene.assert_store_is_empty();
        let out = by_stdin(&scene, data, &[]);
        assert!(out.status.success(), "{suffix}: {}", String::from_utf8_lossy(&out.stderr));
        assert_there(&scene);
        // and a file as standard input
        let mut again = scene.command(&["image", "import", "-", "--name", "again"]);
        assert!(again.stdin(fs::File::open(&path).unwrap()).status().unwrap().success());
        assert_eq!(scene.ok(&["image", "ls", "-q"]), "again\nreg.example/box:1\n");
    }
}

#[test]
fn streams_that_break_off_leave_nothing() {
    let scene = Scene::new();
    let plain = oci_archive(&scene);
    let packed = gzip(&plain);
    let text = "no archive at all\n".repeat(100);
    let cases: [(&[u8], &str); 7] = [
        (b"", "not an OCI layout"),
        (b"hello\n", "images come as OCI archives"),
        (text.as_bytes(), "images come as OCI archives"),
        (&plain[..plain.len() / 2], ""),
        (&packed[..packed.len() / 2], ""),
        (b"\xfd7zXZ\0\0\0", "xz"),
        (b"BZh91AY&SY", "bzip2"),
    ];
    for (data, word) in cases {
        let out = by_stdin(&scene, data, &[]);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{err}");
        assert!(err.contains(word) && err.trim_end().lines().count() == 1, "{err}");
        scene.assert_store_is_empty();
    }
    let bomb = gzip(&vec![0; 64 << 20]);
    let out = by_stdin(&scene, &bomb, &["--max-layer-size", "32m"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("--max-layer-size"));
    scene.assert_store_is_empty();
}

/// What `docker save` writes: layers as tar, named as each version does it.
fn docker_archive(dir: &Path, layers: &[Vec<u8>], tags: &[&str], old: bool) -> PathBuf {
    fs::create_dir(dir).unwrap();
    let ids: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
    let (os, arch) = HOST.split_once('/').unwrap();
    let config = json!({
        "os": os, "architecture": arch, "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": ids}, "docker_version": "20.10",
    })
    .to_string();
    let config_name = format!("{}.json", &sha256(config.as_bytes())[7..]);
    fs::write(dir.join(&config_name), config).unwrap();
    let mut names = Vec::new();
    for (n, (layer, id)) in layers.iter().zip(&ids).enumerate() {
        let name = if old { format!("layer{n}/layer.tar") } else { format!("{}.tar", &id[7..]) };
        if old {
            fs::create_dir(dir.join(format!("layer{n}"))).unwrap();
        }
        match layers[..n].iter().position(|other| other == layer) {
            Some(twin) if old => {
                let target = format!("../layer{twin}/layer.tar");
                std::os::unix::fs::symlink(target, dir.join(&name)).unwrap();
            }
            _ => fs::write(dir.join(&name), layer).unwrap(),
        }
        names.push(name);
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let path = dir.with_extension("tar");
    peer("tar", &["-C", text(dir), "-cf", text(&path), "."]);
    path
}

#[test]
fn docker_archives_of_both_versions() {
    let twin = archive(&[file("a", "one")]);
    let data = [twin.clone(), archive(&[file("b", "two")]), twin];
    for old in [true, false] {
        let scene = Scene::new();
        let path = docker_archive(&scene.path("saved"), &data, &["box:1", "other/box:2"], old);
        scene.import(&path);
        assert_eq!(scene.ok(&["image", "ls", "-q"]), "box:1\nother/box:2\n");
        let root = scene.layer_dir(&raw_layer(&data[1], "none"));
        assert_eq!(fs::read(root.join("b")).unwrap(), b"two");
        scene.ok(&["image", "rm", "box:1", "other/box:2"]);
        scene.assert_store_is_empty();
        // unpacked, one tag, with layers that somebody has compressed
        let line = scene.fails(&["image", "import", text(&path), "--ref", "box:3"]);
        assert!(line.contains("box:3"), "{line}");
        for tag in ["2", "other/box:2", "docker.io/other/box:2"] {
            scene.ok(&["image", "import", text(&scene.path("saved")), "--ref", tag]);
            assert_eq!(scene.ok(&["image", "ls", "-q"]), "other/box:2\n");
        }
    }
}

#[test]
fn docker_archives_that_lie() {
    let scene = Scene::new();
    let data = [archive(&[file("a", "one")])];
    let spoiled = |name: &str, change: &dyn Fn(&Path, String)| {
        let dir = scene.path(name);
        docker_archive(&dir, &data, &["box:1"], false);
        change(&dir, fs::read_to_string(dir.join("manifest.json")).unwrap());
        let line = scene.fails(&["image", "import", text(&dir)]);
        scene.assert_store_is_empty();
        line
    };
    let put = |dir: &Path, name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let id = sha256(&data[0])[7..].to_owned();
    let climbing =
        spoiled("climb", &|d, m| put(d, "manifest.json", &m.replace(&id, "../../../etc/passwd")));
    assert!(climbing.contains("etc/passwd"), "{climbing}");
    let changed = spoiled("layer", &|d, _| put(d, &format!("{id}.tar"), "something else"));
    assert!(changed.contains("wrong digest"), "{changed}");
    let config = spoiled("config", &|d, m| {
        let name = m.split("\"Config\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let old = fs::read_to_string(d.join(&name)).unwrap();
        put(d, &name, &old.replace("/bin/true", "/bin/evil"));
    });
    assert!(config.contains("wrong digest"), "{config}");
    let fewer =
        spoiled("fewer", &|d, m| put(d, "manifest.json", &m.replace(&format!("\"{id}.tar\""), "")));
    assert!(fewer.contains("diff ids"), "{fewer}");
    let alone = spoiled("alone", &|d, _| put(d, "manifest.json", "{\"schemaVersion\": 2}"));
    assert!(alone.contains("dir:"), "{alone}");
    let ancient = spoiled("ancient", &|d, _| {
        fs::rename(d.join("manifest.json"), d.join("repositories")).unwrap();
    });
    assert!(ancient.contains("1.10"), "{ancient}");
}

#[test]
fn layers_of_several_members_and_frames() {
    let data = archive(&[file("a", &"a".repeat(300_000)), file("b", "b")]);
    let (first, second) = data.split_at(100_000);
    let mut members = gzip(first);
    members.extend(gzip(second));
    let mut frames = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    frames.extend(zstd::encode_all(first, 1).unwrap());
    frames.extend([0x5e, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    frames.extend(zstd::encode_all(second, 3).unwrap());
    frames.extend([0x51, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
    for (how, blob) in [("+gzip", members), ("+zstd", frames)] {
        let scene = Scene::new();
        let layer = Layer { blob, media_type: format!("{TAR}{how}"), diff_id: sha256(&data) };
        scene.import(&simple(&scene.path("oci"), "x", std::slice::from_ref(&layer)));
        assert_eq!(fs::read(scene.layer_dir(&layer).join("a")).unwrap().len(), 300_000);
        assert_eq!(fs::read(scene.layer_dir(&layer).join("b")).unwrap(), b"b");
    }
}

#[test]
fn artifacts_are_refused_and_passed_over() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene.path("oci"));
    let config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json");
    let artifact = layout.manifest(json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [],
        "artifactType": "application/vnd.example.signature",
    }));
    layout.tag(artifact.clone(), "sig");
    let path = layout.finish();
    let line = scene.fails(&["image", "import", text(&path)]);
    assert!(line.contains("no container image"), "{line}");
    layout.index[0]["artifactType"] = json!("application/vnd.example.signature");
    layout.finish();
    let line = scene.fails(&["image", "import", text(&path)]);
    assert!(line.contains("artifact (application/vnd.example.signature)"), "{line}");
    scene.assert_store_is_empty();
    // beside an image
    let image = layout.image(&layers(), HOST, json!({}));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [artifact, image]});
    let inner = layout.blob(index.to_string().as_bytes(), INDEX);
    layout.index.clear();
    layout.tag(inner, "both").finish();
    scene.import(&path);
    assert_there(&scene);
}

#[test]
fn other_makers_archives() {
    let scene = Scene::new();
    // what Docker knows has no zstd
    let [below, _] = layers();
    let layout = simple(&scene.path("oci"), "box", std::slice::from_ref(&below));
    let saved = scene.path("saved.tar");
    let from = format!("oci:{}:box", text(&layout));
    let to = format!("docker-archive:{}:box:1", text(&saved));
    peer("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    scene.import(&saved);
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "docker.io/library/box:1\n");
    assert_eq!(fs::read(scene.layer_dir(&below).join("etc/a")).unwrap(), b"one");
}

#[test]
fn an_export_has_the_blobs_that_came_in() {
    let scene = Scene::new();
    let layout = simple(&scene.path("oci"), "reg.example/box:1", &layers());
    let out = scene.path("out.tar");
    let export = ["image", "export", "-o", text(&out), "reg.example/box:1"];
    scene.import(&layout);
    let line = scene.fails(&export);
    assert!(line.contains("--keep-blobs") && !out.exists(), "{line}");
    // the layers are there: only blobs are added
    scene.ok(&["image", "import", text(&layout), "--keep-blobs"]);
    scene.ok(&export);
    assert!(scene.fails(&export).contains("there already"));
    let copy = scene.path("copy");
    fs::create_dir(&copy).unwrap();
    peer("tar", &["-C", text(&copy), "-xf", text(&out)]);
    let blobs = |dir: &Path| {
        let mut all: Vec<_> = fs::read_dir(dir.join("blobs/sha256"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .map(|p| (p.file_name().unwrap().to_owned(), fs::read(p).unwrap()))
            .collect();
        all.sort();
        all
    };
    assert!(blobs(&layout) == blobs(&copy), "the blobs differ");
    let twice = scene.run(&["image", "export", "-o", "-", "reg.example/box:1"]).stdout;
    assert!(twice == fs::read(&out).unwrap(), "two exports differ");

    let archive = format!("oci-archive:{}", text(&out));
    let seen = peer("skopeo", &["--insecure-policy", "inspect", &archive]);
    let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
    let ours: serde_json::Value =
        serde_json::from_str(&scene.ok(&["image", "inspect", "reg.example/box:1"])).unwrap();
    assert_eq!(seen["Digest"], ours["digest"]);
    let tags = peer("umoci", &["ls", "--layout", text(&copy)]);
    assert_eq!(String::from_utf8(tags).unwrap(), "reg.example/box:1\n");
    let again = Scene::new();
    again.import(&out);
    assert_there(&again);

    // a blob that rots is noticed, and nothing appears under the name
    let blob =
        Layout { dir: scene.path("store"), index: vec![] }.blob_path(&sha256(&layers()[0].blob));
    let mut data = fs::read(&blob).unwrap();
    data[20] ^= 1;
    fs::write(&blob, data).unwrap();
    fs::remove_file(&out).unwrap();
    assert!(scene.fails(&export).contains("wrong digest"));
    assert!(!out.exists());
    scene.ok(&["image", "rm", "reg.example/box:1"]);
    scene.assert_store_is_empty();
}

#[test]
fn a_blob_may_have_a_name_that_is_too_long_for_a_tar_header() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene.path("oci"));
    let image = layout.image(&layers(), HOST, json!({}));
    let manifest = fs::read(layout.blob_path(image["digest"].as_str().unwrap())).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let blob = layout.blob_path(manifest["layers"][0]["digest"].as_str().unwrap());
    let hash = <sha2::Sha512 as sha2::Digest>::digest(fs::read(&blob).unwrap());
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    fs::create_dir(layout.dir.join("blobs/sha512")).unwrap();
    fs::rename(&blob, layout.dir.join("blobs/sha512").join(&hex)).unwrap();
    manifest["layers"][0]["digest"] = json!(format!("sha512:{hex}"));
    let image = layout.manifest(manifest);
    let path = layout.tag(image, "reg.example/box:1").finish();
    scene.ok(&["image", "import", text(&path), "--keep-blobs"]);
    let out = scene.path("out.tar");
    scene.ok(&["image", "export", "-o", text(&out), "reg.example/box:1"]);
    let list = String::from_utf8(peer("tar", &["-tf", text(&out)])).unwrap();
    assert!(list.contains(&format!("blobs/sha512/{hex}\n")), "{list}");
    let again = Scene::new();
    again.import(&out);
    assert_there(&again);
}
