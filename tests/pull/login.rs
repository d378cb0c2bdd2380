//! Tokens, passwords, helpers: what is sent, and to whom.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::server::{Reply, Request, Server, Shop, reply};

/// A registry that wants `Bearer TOKEN`, with a token server that gives it to
/// whom `opens` lets in.
fn guarded(shop: &Shop, opens: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Server {
    let realm = Arc::new(Mutex::new(String::new()));
    let known = realm.clone();
    let server = shop.serve(move |request| {
        if request.path.starts_with("/token") {
            let body = r#"{"token":"TOKEN"}"#;
            return Some(if opens(request) { reply(200, body) } else { reply(401, "") });
        }
        if request.header("authorization") == "Bearer TOKEN" {
            return None;
        }
        let realm = known.lock().unwrap();
        let challenge = format!(
            "Bearer realm=\"http://{realm}/token\",service=\"shop\",scope=\"repository:box:pull\""
        );
        Some(reply(401, "").header("WWW-Authenticate", &challenge))
    });
    *realm.lock().unwrap() = server.address.to_string();
    server
}

fn auth_file(shop: &Shop, value: &serde_json::Value) -> String {
    let path = shop.scene.path("auth.json");
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

const QUERY: &str = "service=shop&scope=repository%3Abox%3Apull";

#[test]
fn a_token_for_everybody() {
    let shop = Shop::new();
    let server = guarded(&shop, |r| r.header("authorization").is_empty());
    shop.pull(&server, &[]).unwrap();
    shop.assert_pulled();
    let asked = server.requests("/token");
    assert_eq!(asked[0].path, format!("/token?{QUERY}"));
    assert_eq!(asked.len(), 1, "it opens all that follows");
}

#[test]
fn a_token_for_a_password() {
    let shop = Shop::new();
    // ann:s3cret:x
    let server = guarded(&shop, |r| r.header("authorization") == "Basic YW5uOnMzY3JldDp4");
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains("answers 401"), "{error}");
    let host = server.address.to_string();
    let file = auth_file(&shop, &json!({"auths": {host: {"auth": "YW5uOnMzY3JldDp4"}}}));
    shop.pull(&server, &["--auth-file", &file]).unwrap();
    shop.assert_pulled();
}

#[test]
fn a_token_for_an_identity_token() {
    let shop = Shop::new();
    let server = guarded(&shop, |r| {
        r.method == "POST" && r.body.contains("refresh_token=I%2FD") && r.body.contains(QUERY)
    });
    let host = server.address.to_string();
    let file = auth_file(&shop, &json!({"auths": {host: {"identitytoken": "I/D"}}}));
    shop.pull(&server, &["--auth-file", &file]).unwrap();
    shop.assert_pulled();
}

#[test]
fn what_opens_the_registry_is_for_nobody_else() {
    let shop = Shop::new();
    let elsewhere = shop.serve(|_| None);
    let address = elsewhere.address;
    let server = shop.serve(move |request| match request.header("authorization") {
        "Basic YTpi" if request.path.contains("/blobs/") => {
            Some(reply(307, "").header("Location", &format!("http://{address}{}", request.path)))
        }
        "Basic YTpi" => None,
        _ => Some(reply(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
    });
    let error = shop.pull(&server, &[]).unwrap_err();
    assert!(error.contains("wants a name and a password"), "{error}");
    // in one of the usual places
    let docker = shop.scene.path("home/.docker");
    std::fs::create_dir_all(&docker).unwrap();
    let auths = json!({"auths": {format!("http://{}/v2/", server.address): {"auth": "YTpi"}}});
    std::fs::write(docker.join("config.json"), auths.to_string()).unwrap();
    shop.pull(&server, &[]).unwrap();
    let asked = elsewhere.requests("/blobs/");
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|r| r.header("authorization").is_empty()), "{asked:?}");
}

/// It would be asked for the password, or for a token by its own token server.
#[test]
fn where_a_redirect_leads_no_password_is_told() {
    let shop = Shop::new();
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"http://HOST/token\""] {
        let elsewhere = shop.serve(move |request| {
            let challenge = challenge.replace("HOST", request.header("host"));
            let token = request.path.starts_with("/token");
            Some(match token {
                true => reply(200, r#"{"token":"TOKEN"}"#),
                false => reply(401, "").header("WWW-Authenticate", &challenge),
            })
        });
        let address = elsewhere.address;
        for part in ["/manifests/", "/blobs/"] {
            let server = shop.serve(move |request| {
                request.path.contains(part).then(|| {
                    let target = format!("http://{address}{}", request.path);
                    reply(307, "").header("Location", &target)
                })
            });
            let auth = json!({"auth": "YTpi", "identitytoken": "I"});
            let host = server.address.to_string();
            let file = auth_file(&shop, &json!({"auths": {host: auth}}));
            let error = shop.pull(&server, &["--auth-file", &file]).unwrap_err();
            let text = format!("{address}, where the registry redirects to, denies access");
            assert!(error.contains(&text), "{error}");
        }
        let asked = elsewhere.requests("");
        assert!(!asked.is_empty());
        let told = |r: &Request| !r.header("authorization").is_empty() || !r.body.is_empty();
        assert!(!asked.iter().any(told), "{asked:?}");
        assert!(elsewhere.requests("/token").is_empty());
    }
}

#[test]
fn a_helper_is_asked() {
    let shop = Shop::new();
    let server = shop.serve(|request| match request.header("authorization") {
        "Basic YW5uOnMzY3JldDp4" => None,
        _ => Some(Reply::header(reply(401, ""), "WWW-Authenticate", "Basic realm=\"x\"")),
    });
    let host = server.address.to_string();
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$server\" = {host} ] && [ \"$1\" = get ] || exit 1\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"ann\",\"Secret\":\"s3cret:x\"}}'\n"
    );
    let helper = shop.scene.path("docker-credential-taretest");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = auth_file(&shop, &json!({"credHelpers": {host.clone(): "taretest"}}));
    let name = format!("{host}/box:v1");
    let mut command = shop.scene.command(&["image", "pull", "--plain-http", &name]);
    let path = format!("{}:{}", shop.scene.dir.path().display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).env("REGISTRY_AUTH_FILE", file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    shop.assert_pulled();
}

#[test]
fn a_secret_is_in_no_error() {
    let shop = Shop::new();
    let server = guarded(&shop, |_| false);
    let host = server.address.to_string();
    let file = auth_file(&shop, &json!({"auths": {host: {"auth": "YW5uOnMzY3JldDp4"}}}));
    let error = shop.pull(&server, &["--auth-file", &file]).unwrap_err();
    assert!(error.contains("are the credentials still good?"), "{error}");
    assert!(!error.contains("s3cret") && !error.contains("YW5u"), "{error}");
}
