//! Downloads that go well, if not at once.

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
