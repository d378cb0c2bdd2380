//! Servers that want to do harm: each is refused with one line, and nothing of
//! what it sent is in the store.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::layout::{INDEX, Layout};
use crate::server::{MANIFEST_TYPE, Reply, Request, Shop, reply};

/// A pull from a server with these answers fails with this text.
#[track_caller]
fn refused(
    shop: &Shop,
    text: &str,
    handler: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) {
    let server = shop.serve(handler);
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains(text), "no {text:?} in {error:?}");
    shop.scene.assert_store_is_empty();
}

#[test]
fn redirects_without_end() {
    let shop = Shop::new();
    refused(&shop, "more than 10 redirects", |r| {
        Some(reply(302, "").header("Location", &format!("{}x", r.path)))
    });
    for (target, text) in [("", "nowhere"), ("file:///etc/passwd", "no"), ("http://", "no URL")] {
        refused(&shop, text, move |_| Some(reply(301, "").header("Location", target)));
    }
}

/// With authorities on this host and without.
#[test]
fn from_plain_http_to_tls() {
    let shop = Shop::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("https://{}/v2/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // what came is taken, or the answer would go with a reset
            stream.read(&mut [0; 4096]).map(drop).unwrap_or_default();
            stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").unwrap_or_default();
        }
    });
    let server = shop.serve(move |_| Some(reply(307, "").header("Location", &target)));
    let name = format!("{}/box:v1", server.address);
    for roots in ["/dev/null", "/etc/ssl/certs/ca-certificates.crt"] {
        let mut command = shop.scene.command(&["image", "pull", "--plain-http", &name]);
        command.env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", shop.scene.path("none"));
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("TLS") && !error.contains("panic"), "{error}");
    }
}

#[test]
fn layers_that_are_not_what_the_manifest_says() {
    let shop = Shop::new();
    let (big, size) = (shop.digest(1), shop.layers[1].blob.len());
    let of_big = move |answer: fn(usize) -> Reply| {
        let big = big.clone();
        move |r: &Request| r.path.ends_with(&big).then(|| answer(size))
    };
    refused(&shop, "wrong digest", of_big(|size| reply(200, vec![0; size])));
    refused(&shop, "wrong size", of_big(|size| reply(200, vec![0; size + 1])));
    refused(&shop, "wrong size", of_big(|_| reply(200, "")));
    refused(
        &shop,
        "wrong size",
        of_big(|_| Reply { endless: true, ..reply(200, vec![0; 100_000]) }),
    );
    refused(&shop, "answers 206, which is strange", of_big(|_| reply(206, "x")));
    refused(&shop, "answers 204, which is strange", of_big(|_| reply(204, "")));
}

#[test]
fn documents_that_are_not_what_they_should_be() {
    let shop = Shop::new();
    let named = |text: &str, answer: Reply| {
        let matches = |r: &Request| r.path.ends_with("/manifests/v1");
        refused(&shop, text, move |r| matches(r).then(|| answer.clone()));
    };
    let endless = Reply { endless: true, ..reply(200, vec![b'{'; 1 << 20]) };
    named("longer than the 20971520 bytes allowed", endless);
    let told = reply(200, "").header("Content-Length", "99999999999");
    named("longer than the 20971520 bytes allowed", told);
    named("not valid JSON", reply(200, "<html>log in to the wireless network</html>"));
    named("schemaVersion 1", reply(200, r#"{"schemaVersion":1,"fsLayers":[]}"#));
    named("a manifest or both", reply(200, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#));
    let lie = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    named("wrong digest", reply(200, "{}").header("Docker-Content-Digest", lie));
    named("wrong length", reply(200, "{}").header("Docker-Content-Digest", "sha256:../../x"));
}

/// A manifest made by `change`, by its tag.
fn changed(shop: &Shop, change: impl Fn(&mut Value)) -> Reply {
    let layout = Layout { dir: shop.scene.path("remote"), index: Vec::new() };
    let path = layout.blob_path(shop.manifest["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut manifest);
    reply(200, serde_json::to_vec(&manifest).unwrap()).header("Content-Type", MANIFEST_TYPE)
}

#[test]
fn sizes_and_digests_that_would_do_harm() {
    let shop = Shop::new();
    let named = |text: &str, answer: Reply| {
        let matches = |r: &Request| r.path.ends_with("/manifests/v1");
        refused(&shop, text, move |r| matches(r).then(|| answer.clone()));
    };
    named("to download", changed(&shop, |m| m["layers"][0]["size"] = json!(u64::MAX)));
    named("layers[0].digest", changed(&shop, |m| m["layers"][0]["digest"] = json!("sha256:../x")));
    named("longer than", changed(&shop, |m| m["config"]["size"] = json!(1u64 << 40)));
    named("wrong size", changed(&shop, |m| m["config"]["size"] = json!(1 << 20)));
    let many = changed(&shop, |m| {
        let one = m["layers"][0].clone();
        m["layers"] = json!(vec![one; 501]);
    });
    named("501 layers", many);
}

#[test]
fn an_index_in_itself_without_end() {
    let shop = Shop::new();
    let layout = Layout { dir: shop.scene.path("remote"), index: Vec::new() };
    let mut inner = shop.manifest.clone();
    for _ in 0..6 {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]});
        inner = layout.blob(&serde_json::to_vec(&index).unwrap(), INDEX);
    }
    let outer = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]});
    let outer = reply(200, serde_json::to_vec(&outer).unwrap());
    refused(&shop, "nested too deep", move |r| {
        r.path.ends_with("/manifests/v1").then(|| outer.clone())
    });
}

#[test]
fn what_is_unsafe_has_to_be_asked_for() {
    let shop = Shop::new();
    let error = shop.pull_name("example.invalid/box:v1", &[]).unwrap_err();
    assert!(error.contains("--insecure"), "{error}");
    for bad in ["Box", "a//b", "https://example.invalid/box", "box@sha256:12"] {
        let error = shop.pull_name(bad, &[]).unwrap_err();
        assert!(error.contains("image name"), "{error}");
    }
    let mut command = shop.scene.command(&["image", "pull", "box"]);
    let lone = shop.scene.path("tare");
    std::fs::copy(command.get_program(), &lone).unwrap();
    command = std::process::Command::new(&lone);
    let output = command.args(["image", "pull", "box"]).env("PATH", "/none").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("tare-pull is neither beside tare nor in PATH"), "{error}");
}
