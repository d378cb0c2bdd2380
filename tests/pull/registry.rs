//! Debian's docker-registry, as people run it: plain, with TLS, with a password.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::server::Shop;

/// ann with the password s3cret:x, as htpasswd -B writes it
const USERS: &str = "ann:$2y$04$NB9vsmdT3BgviTD50YyHsOiSb.PB0.SR/sKajI8LNyCjj01lLQ/16\n";

/// A registry with one image, `team/box:v1`.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(shop: &Shop, http: &str, auth: &str, skopeo: &[&str]) -> Self {
        let dir = shop.scene.path("registry");
        std::fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:0\n{http}{auth}",
            dir.display()
        );
        let file = shop.scene.path("registry.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.env("OTEL_TRACES_EXPORTER", "none").spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| {
                let line = line.unwrap();
                let rest = line.split_once("listening on ")?.1;
                Some(rest.split([',', '"', ' ']).next()?.to_owned())
            })
            .expect("the registry listens");
        // it must not block on its log
        std::thread::spawn(move || lines.for_each(drop));
        let registry = Registry { process, address };
        registry.push(&shop.scene.path("remote"), shop, skopeo);
        registry
    }

    fn push(&self, from: &Path, shop: &Shop, options: &[&str]) {
        let layout = crate::layout::Layout { dir: from.to_owned(), index: Vec::new() };
        let mut layout = layout;
        layout.tag(shop.manifest.clone(), "v1").finish();
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .args(options)
            .arg(format!("oci:{}:v1", from.display()))
            .arg(format!("docker://{}/team/box:v1", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn name(&self) -> String {
        format!("{}/team/box:v1", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn plain() {
    let shop = Shop::new();
    let registry = Registry::start(&shop, "", "", &["--dest-tls-verify=false"]);
    shop.pull_name(&registry.name(), &[]).unwrap();
    shop.assert_pulled();
    let gone = registry.name().replace(":v1", ":v2");
    let error = shop.pull_name(&gone, &[]).unwrap_err();
    assert!(error.contains("not in the registry: manifest unknown"), "{error}");
}

#[test]
fn with_a_password() {
    let shop = Shop::new();
    let users = shop.scene.path("users");
    std::fs::write(&users, USERS).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: shop, path: {}}}}}\n", users.display());
    let options = ["--dest-tls-verify=false", "--dest-creds=ann:s3cret:x"];
    let registry = Registry::start(&shop, "", &auth, &options);
    let error = shop.pull_name(&registry.name(), &[]).unwrap_err();
    assert!(error.contains("wants a name and a password"), "{error}");
    // written as people do it
    let file = shop.scene.path("auth.json");
    let file = file.to_str().unwrap();
    let login = Command::new("skopeo")
        .args(["login", "--tls-verify=false", "--authfile", file, "-u", "ann", "-p", "s3cret:x"])
        .arg(&registry.address)
        .output()
        .unwrap();
    assert!(login.status.success(), "{login:?}");
    shop.pull_name(&registry.name(), &["--auth-file", file]).unwrap();
    shop.assert_pulled();
}

#[test]
fn with_tls() {
    let shop = Shop::new();
    let (key, cert) = (shop.scene.path("certs/key.pem"), shop.scene.path("certs/ca.crt"));
    std::fs::create_dir(shop.scene.path("certs")).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=shop", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let http = format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display());
    let registry = Registry::start(&shop, &http, "", &["--dest-tls-verify=false"]);
    let name = registry.name();
    let pull = |options: &[&str]| {
        let mut words = vec!["image", "pull", &name];
        words.extend(options);
        let output = shop.scene.run(&words);
        let error = String::from_utf8(output.stderr).unwrap();
        output.status.success().then_some(()).ok_or(error)
    };
    let error = pull(&[]).unwrap_err();
    assert!(error.contains("TLS") && error.contains("--ca-file"), "{error}");
    shop.scene.assert_store_is_empty();
    pull(&["--ca-file", cert.to_str().unwrap()]).unwrap();
    shop.assert_pulled();
    pull(&["--insecure", "--name", "other"]).unwrap();
}
