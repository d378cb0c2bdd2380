//! Downloads that go well, if not at once.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::layout::{INDEX, Layout};
use crate::server::{Count, Shop, reply, stored};

#[test]
fn an_image_comes_by_its_short_name_and_its_layers_only_once() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let line = shop.pull(&server, &[]).unwrap();
    let name = format!("{}/box:v1", server.address);
    let digest = shop.manifest["digest"].as_str().unwrap();
    assert_eq!(line, format!("{name} {digest}\n"));
    shop.assert_pulled();
    let before = server.requests("/blobs/").len();
    assert_eq!(before, 3, "a config and two layers");
    shop.pull(&server, &["--name", "other"]).unwrap();
    assert_eq!(server.requests("/blobs/").len(), before + 1, "the config only");
    let listed = shop.scene.ok(&["image", "ls", "--quiet"]);
    assert_eq!(listed, format!("{name}\nother\n"));
}

#[test]
fn a_digest_is_a_name() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let digest = shop.manifest["digest"].as_str().unwrap();
    let name = format!("{}/box@{digest}", server.address);
    let line = shop.pull_name(&name, &[]).unwrap();
    assert_eq!(line, format!("{name} {digest}\n"));
    shop.assert_pulled();
    shop.scene.ok(&["image", "rm", &name]);
}

#[test]
fn a_connection_that_breaks_is_gone_on_with() {
    let shop = Shop::new();
    let (count, big) = (Count::default(), shop.digest(1));
    let remote = shop.scene.path("remote");
    let wanted = big.clone();
    let server = shop.serve(move |request| {
        let first = request.path.ends_with(&wanted) && count.next() == 0;
        first.then(|| {
            let mut whole = stored(request, &remote);
            whole.cut = Some(2_000_000);
            whole
        })
    });
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
    let asked = server.requests(&big);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("range"), "bytes=2000000-");
}

#[test]
fn a_pull_that_failed_is_gone_on_with_by_the_next() {
    let shop = Shop::new();
    let (count, big) = (Count::default(), shop.digest(1));
    let remote = shop.scene.path("remote");
    let wanted = big.clone();
    let server = shop.serve(move |request| match request.path.ends_with(&wanted) {
        true => match count.next() {
            0 => {
                let mut whole = stored(request, &remote);
                whole.cut = Some(1_500_000);
                Some(whole)
            }
            1 => Some(reply(404, "")),
            _ => None,
        },
        false => None,
    });
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains("not in the registry") && error.contains(&big), "{error}");
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
    assert_eq!(server.requests(&big)[2].header("range"), "bytes=1500000-");
}

#[test]
fn a_server_without_ranges_begins_again() {
    let shop = Shop::new();
    let (count, big) = (Count::default(), shop.digest(1));
    let data = shop.layers[1].blob.clone();
    let server = shop.serve(move |request| {
        request.path.ends_with(&big).then(|| {
            let mut whole = reply(200, data.clone());
            whole.cut = (count.next() == 0).then_some(2_000_000);
            whole
        })
    });
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
}

#[test]
fn a_busy_server_is_asked_again() {
    let shop = Shop::new();
    let count = Count::default();
    let server = shop.serve(move |_| {
        let status = [429, 503, 200].get(count.next()).filter(|status| **status != 200);
        status.map(|status| reply(*status, "").header("Retry-After", "0"))
    });
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
    let server = shop.serve(|_| Some(reply(502, "").header("Retry-After", "0")));
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains("answers 502 (tried 5 times)"), "{error}");
    assert_eq!(server.requests("").len(), 5);
    let server = shop.serve(|_| Some(reply(429, "").header("Retry-After", "86400")));
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains("wait 86400 seconds"), "{error}");
}

#[test]
fn layers_may_lie_elsewhere() {
    let shop = Shop::new();
    let elsewhere = shop.serve(|_| None);
    let address = elsewhere.address;
    let server = shop.serve(move |request| {
        let blob = request.path.contains("/blobs/");
        blob.then(|| {
            reply(307, "").header("Location", &format!("http://{address}{}", request.path))
        })
    });
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
    assert_eq!(elsewhere.requests("/blobs/").len(), 3);
}

#[test]
fn the_platform_is_chosen() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let error = shop.pull(&server, &["--platform", "linux/s390x"]).unwrap_err();
    assert!(error.contains("no image for linux/s390x, only for"), "{error}");
    assert!(error.contains("plan9"), "{error}");
    assert_eq!(server.requests("/blobs/").len(), 0);
}

#[test]
fn blobs_come_where_they_are_to_be_kept() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    shop.pull(&server, &["--name", "box"]).unwrap();
    let archive = shop.scene.path("box.tar");
    let export = ["image", "export", "-o", archive.to_str().unwrap(), "box"];
    assert!(shop.scene.fails(&export).contains("--keep-blobs"));
    let before = server.requests("/blobs/").len();
    shop.pull(&server, &["--name", "box", "--keep-blobs"]).unwrap();
    assert_eq!(server.requests("/blobs/").len(), before + 3, "all of it once more");
    shop.scene.ok(&export);
    shop.pull(&server, &["--name", "box", "--keep-blobs"]).unwrap();
    assert_eq!(server.requests("/blobs/").len(), before + 4, "the config only");
}

#[test]
fn bounds_are_those_of_an_import() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    let error = shop.pull(&server, &["--max-document-size", "100"]).unwrap_err();
    assert!(error.contains("100"), "{error}");
    assert_eq!(server.requests("/blobs/").len(), 0);
    let error = shop.pull(&server, &["--max-layer-size", "1m"]).unwrap_err();
    assert!(error.contains("layer"), "{error}");
    let before = server.requests("").len();
    let error = shop.pull(&server, &["--max-entry-meta", "many"]).unwrap_err();
    assert!(error.contains("--max-entry-meta"), "{error}");
    let long = format!("{}/{}:v1", server.address, "a".repeat(220));
    assert!(shop.pull_name(&long, &[]).unwrap_err().contains("--name"));
    assert_eq!(server.requests("").len(), before, "nothing is asked for");
}

#[test]
fn artifacts_beside_an_image_are_passed_over() {
    let shop = Shop::new();
    let layout = Layout { dir: shop.scene.path("remote"), index: Vec::new() };
    let config = layout.blob(b"{}", "application/vnd.oci.empty.v1+json");
    let artifact = layout.manifest(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": config,
        "layers": [config],
    }));
    let mut named = artifact.clone();
    named["artifactType"] = json!("application/vnd.example.signature");
    let manifests = json!([named, artifact, shop.manifest]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    let server = shop.serve(move |request| {
        request.path.ends_with("/manifests/v1").then(|| reply(200, index.clone()))
    });
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
}

/// While an image comes, what it may need stays.
#[test]
fn a_download_under_way_is_waited_for_by_gc_and_seen_by_df() {
    let shop = Shop::new();
    let ((begun, begins), (go, goes)) = (channel(), channel());
    let (begun, goes) = (Mutex::new(begun), Arc::new(Mutex::new(goes)));
    let big = shop.digest(1);
    let server = shop.serve(move |request| {
        if request.path.ends_with(&big) {
            begun.lock().unwrap().send(()).unwrap();
            goes.lock().unwrap().recv().unwrap();
        }
        None
    });
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| shop.pull(&server, &[]));
        begins.recv_timeout(Duration::from_secs(30)).unwrap();
        let usage: Value =
            serde_json::from_str(&shop.scene.ok(&["image", "df", "--json"])).unwrap();
        assert_eq!(usage["downloads"]["count"], 1, "{usage}");
        assert_eq!(usage["downloads"]["reclaimable"], 0, "{usage}");
        let mut collect = shop.scene.command(&["image", "gc"]);
        let mut collect = collect.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(collect.try_wait().unwrap().is_none(), "gc waits");
        go.send(()).unwrap();
        pull.join().unwrap().unwrap();
        assert!(collect.wait().unwrap().success());
    });
    shop.assert_pulled();
}

/// It would write to a directory that the next pull has as well.
#[test]
fn a_download_ends_with_the_pull() {
    let shop = Shop::new();
    let ((begun, begins), (go, goes)) = (channel(), channel::<()>());
    let (begun, goes) = (Mutex::new(begun), Mutex::new(goes));
    let big = shop.digest(1);
    let server = shop.serve(move |request| {
        if request.path.ends_with(&big) {
            begun.lock().unwrap().send(()).unwrap();
            goes.lock().unwrap().recv().unwrap_or_default();
        }
        None
    });
    let name = format!("{}/box:v1", server.address);
    let mut pull = shop.scene.command(&["image", "pull", "--plain-http", &name]).spawn().unwrap();
    begins.recv_timeout(Duration::from_secs(30)).unwrap();
    let id = pull.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let child = children.trim().parse::<u32>().unwrap();
    pull.kill().unwrap();
    pull.wait().unwrap();
    let ended = || {
        let status = std::fs::read_to_string(format!("/proc/{child}/status"));
        // whoever inherits it may take its time
        status.map_or(true, |status| status.contains("State:\tZ"))
    };
    let ends = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        ended()
    });
    assert!(ends, "tare-pull goes on");
    drop(go);
}

#[test]
fn what_lies_among_downloads_keeps_no_image_back() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    std::fs::create_dir_all(shop.scene.path("store/downloads")).unwrap();
    let stray = shop.scene.path("store/downloads/stray");
    let then = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    // no directory, and so nobody's download
    std::fs::File::create(&stray).unwrap().set_modified(then).unwrap();
    let name = format!("{}/box:v1", server.address);
    let output = shop.scene.run(&["image", "pull", "--plain-http", &name]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    assert!(!output.stdout.is_empty());
    assert!(!stray.exists(), "{error}");
    shop.assert_pulled();
}

#[test]
fn what_nobody_came_back_for_is_collected() {
    let shop = Shop::new();
    let server = shop.serve(|_| None);
    shop.pull(&server, &[]).unwrap();
    let day = Duration::from_secs(24 * 3600);
    for (name, days) in [("young", 6), ("old", 8)] {
        let dir = shop.scene.path(&format!("store/downloads/{name}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("part"), vec![1; 100_000]).unwrap();
        let then = SystemTime::now() - day * days;
        std::fs::File::open(&dir).unwrap().set_modified(then).unwrap();
    }
    let usage: Value = serde_json::from_str(&shop.scene.ok(&["image", "df", "--json"])).unwrap();
    let [all, old] = ["bytes", "reclaimable"].map(|key| usage["downloads"][key].as_u64().unwrap());
    assert!(old >= 100_000 && all >= old + 100_000, "{usage}");
    let told = shop.scene.ok(&["image", "gc", "--dry-run"]);
    assert!(told.contains("download old") && !told.contains("young"), "{told}");
    shop.scene.ok(&["image", "gc"]);
    let left: Vec<_> = std::fs::read_dir(shop.scene.path("store/downloads")).unwrap().collect();
    assert_eq!(left.len(), 1);
}
