//! Imports that are killed, and imports side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::layout::*;

/// Layers that take a while: many small files.
fn slow(count: usize) -> Vec<Layer> {
    let make = |n: usize| {
        let mut entries = vec![dir(&format!("l{n}"))];
        entries.extend((0..count).map(|i| file(&format!("l{n}/f{i}"), &format!("{n} {i}"))));
        layer(&entries, "gzip")
    };
    (0..3).map(make).collect()
}

fn whole(scene: &Scene, layers: &[Layer], count: usize) -> usize {
    let mut present = 0;
    for (n, layer) in layers.iter().enumerate() {
        let root = scene.layer_dir(layer);
        if root.try_exists().unwrap() {
            let files = fs::read_dir(root.join(format!("l{n}"))).unwrap().count();
            assert_eq!(files, count, "layer {n} is there in part");
            present += 1;
        }
    }
    present
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(dir).into_iter().flatten();
    read.map(|e| e.unwrap().path()).collect()
}

/// Waits until the extraction has begun, up to a bound.
fn wait_for_files(staging: &Path, files: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let begun = entries(staging)
            .iter()
            .flat_map(|s| entries(s))
            .any(|layer| entries(&layer.join("diff")).iter().any(|d| entries(d).len() >= files));
        if begun {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the import never began");
}

#[test]
fn a_kill_leaves_whole_layers_or_none() {
    const COUNT: usize = 3000;
    let scene = Scene::in_memory();
    let layers = slow(COUNT);
    let path = simple(&scene.path("oci"), "slow", &layers);
    let staging = scene.path("store/staging");
    let mut interrupted = 0;
    for files in [1, 500, 1500, 2900] {
        let mut import = scene.command(&["image", "import", path.to_str().unwrap()]);
        let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_files(&staging, files);
        import.kill().unwrap();
        interrupted += usize::from(!import.wait().unwrap().success());
        whole(&scene, &layers, COUNT);
    }
    assert!(interrupted > 0, "every import was over before its kill");
    scene.import(&path);
    assert_eq!(whole(&scene, &layers, COUNT), 3);
    assert_eq!(entries(&staging), Vec::<PathBuf>::new());
    scene.ok(&["image", "rm", "slow"]);
    scene.assert_store_is_empty();
}

#[test]
fn imports_side_by_side_make_one_result() {
    let scene = Scene::in_memory();
    let layers = slow(1500);
    let path = simple(&scene.path("oci"), "slow", &layers);
    let spawn = |name: &str| {
        let mut command =
            scene.command(&["image", "import", path.to_str().unwrap(), "--name", name]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = ["a", "b", "c"].into_iter().map(spawn).collect();
    for import in running {
        let out = import.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(whole(&scene, &layers, 1500), 3);
    assert_eq!(scene.ok(&["image", "ls", "-q"]), "a\nb\nc\n");
    assert_eq!(entries(&scene.path("store/staging")), Vec::<PathBuf>::new());
    assert_eq!(entries(&scene.path("store/layers/sha256")).len(), 3);
}
