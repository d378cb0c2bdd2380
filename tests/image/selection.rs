//! Tags, platforms, names, removal.

use std::fs;

use serde_json::json;

use crate::layout::*;

const FOREIGN: &str = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };

fn marked(text: &str) -> Layer {
    layer(&[file("mark", text)], "gzip")
}

#[test]
fn several_tags_share_layers() {
    let scene = Scene::new();
    let (shared, one, two) = (marked("shared"), marked("one"), marked("two"));
    let mut layout = Layout::new(&scene.path("oci"));
    let first = layout.image(&[shared.clone(), one.clone()], HOST, json!({}));
    let second = layout.image(&[shared.clone(), two.clone()], HOST, json!({}));
    let path = layout.tag(first, "one").tag(second, "two").finish();
    let path = path.to_str().unwrap();

    scene.ok(&["image", "import", path, "--ref", "two"]);
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "two\n");
    assert!(!scene.layer_dir(&one).try_exists().unwrap());
    assert!(scene.fails(&["image", "import", path, "--ref", "three"]).contains("three"));
    assert!(scene.fails(&["image", "import", path, "--name", "n"]).contains("--ref"));
    scene.ok(&["image", "import", path]);
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "one\ntwo\n");
    assert!(scene.ok(&["image", "ls"]).starts_with("NAME"));
    let list: serde_json::Value =
        serde_json::from_str(&scene.ok(&["image", "ls", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);

    assert!(scene.fails(&["image", "rm", "one", "nope"]).contains("nope"));
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "one\ntwo\n");
    scene.ok(&["image", "rm", "one"]);
    assert!(!scene.layer_dir(&one).try_exists().unwrap());
    assert!(scene.layer_dir(&shared).try_exists().unwrap());
    scene.ok(&["image", "rm", "two"]);
    scene.assert_store_is_empty();
    assert!(scene.fails(&["image", "inspect", "two"]).contains("does not exist"));
}

#[test]
fn the_host_platform_is_chosen_in_nested_indexes() {
    let scene = Scene::new();
    let (native, foreign) = (marked("native"), marked("foreign"));
    let mut layout = Layout::new(&scene.path("oci"));
    let mut manifests = Vec::new();
    for (layer, platform) in [(&foreign, FOREIGN), (&native, HOST)] {
        let mut image = layout.image(std::slice::from_ref(layer), platform, json!({}));
        let (os, arch) = platform.split_once('/').unwrap();
        image["platform"] = json!({"os": os, "architecture": arch});
        manifests.push(image);
    }
    // what builders put beside images
    let mut note = manifests[0].clone();
    note["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    manifests.insert(0, note);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let inner = layout.blob(&serde_json::to_vec(&index).unwrap(), INDEX);
    let path = layout.tag(inner, "multi").finish();
    let path = path.to_str().unwrap();

    scene.ok(&["image", "import", path]);
    assert!(scene.layer_dir(&native).try_exists().unwrap());
    assert!(!scene.layer_dir(&foreign).try_exists().unwrap());
    scene.ok(&["image", "import", path, "--platform", FOREIGN, "--name", "other"]);
    assert!(scene.layer_dir(&foreign).try_exists().unwrap());
    let line = scene.fails(&["image", "import", path, "--platform", "linux/s390x"]);
    assert!(line.contains("no image for linux/s390x") && line.contains(FOREIGN), "{line}");
    assert!(scene.fails(&["image", "import", path, "--platform", "x"]).contains("platform"));
}

#[test]
fn an_image_for_another_processor_is_refused_by_its_config() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene.path("oci"));
    let image = layout.image(&[marked("x")], FOREIGN, json!({}));
    let path = layout.tag(image, "x").finish();
    let line = scene.fails(&["image", "import", path.to_str().unwrap()]);
    assert!(line.contains("--platform"), "{line}");
    scene.assert_store_is_empty();
}

#[test]
fn names() {
    let scene = Scene::new();
    let path = simple(&scene.path("oci"), "reg.example/a/b:1.0", &[marked("x")]);
    let path = path.to_str().unwrap();
    scene.ok(&["image", "import", path]);
    scene.ok(&["image", "inspect", "reg.example/a/b:1.0"]);
    for bad in ["../x", "/x", "a b", "", "a\nb"] {
        let line = scene.fails(&["image", "import", path, "--name", bad]);
        assert!(line.contains("name"), "{line}");
    }
    let mut layout = Layout::new(&scene.path("untagged.d"));
    let image = layout.image(&[marked("x")], HOST, json!({}));
    layout.index.push(image);
    scene.import(&layout.finish());
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "reg.example/a/b:1.0\nuntagged\n");
}

#[test]
fn an_archive_with_blobs_in_any_order() {
    let scene = Scene::new();
    let layer = layer(&[file("a", &"a".repeat(700_000))], "zstd");
    let dir = simple(&scene.path("oci"), "x", std::slice::from_ref(&layer));
    let mut members: Vec<(String, Vec<u8>)> = vec![];
    for name in ["index.json", "oci-layout"] {
        members.push((name.into(), fs::read(dir.join(name)).unwrap()));
    }
    for blob in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let name = format!("./blobs/sha256/{}", blob.file_name().to_str().unwrap());
        members.insert(0, (name, fs::read(blob.path()).unwrap()));
    }
    let entries: Vec<_> =
        members.into_iter().map(|(name, data)| Entry { data, ..file(&name, "") }).collect();
    let archive = archive(&entries);
    let path = scene.path("box.tar");
    fs::write(&path, &archive).unwrap();
    scene.import(&path);
    assert_eq!(fs::read(scene.layer_dir(&layer).join("a")).unwrap().len(), 700_000);
    scene.ok(&["image", "rm", "x"]);

    fs::write(&path, &archive[..archive.len() / 2]).unwrap();
    scene.fails(&["image", "import", path.to_str().unwrap()]);
    scene.assert_store_is_empty();
}

#[test]
fn what_is_not_in_a_source_is_told_with_what_is() {
    let scene = Scene::new();
    let one = layer(&[file("a", "")], "none");
    let mut layout = Layout::new(&scene.path("oci"));
    for tag in ["v1", "v2"] {
        let image = layout.image(std::slice::from_ref(&one), HOST, json!({}));
        layout.tag(image, tag);
    }
    let path = layout.finish();
    let path = path.to_str().unwrap();
    let line = scene.fails(&["image", "import", path, "--ref", "v3"]);
    assert!(
        line.contains(r#"no image with the tag "v3" in the layout (it has "v1", "v2")"#),
        "{line}"
    );
    let empty = scene.path("empty.tar");
    std::fs::write(&empty, "").unwrap();
    let line = scene.fails(&["image", "import", empty.to_str().unwrap()]);
    assert!(line.ends_with("there is nothing in it"), "{line}");
    scene.assert_store_is_empty();
}
