//! Debian's docker-registry, as people run it: plain, with TLS, with a password.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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
    assert!(!error.contains("latest"), "{error}");
    let untagged = registry.name().replace(":v1", "");
    let error = shop.pull_name(&untagged, &[]).unwrap_err();
    assert!(error.contains("it was asked for the tag latest"), "{error}");
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

/// Certificates: of an authority, of a server on loopback, of a client.
struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    fn new(shop: &Shop) -> Self {
        let dir = shop.scene.path("certs");
        std::fs::create_dir(&dir).unwrap();
        let made = Certificates { dir };
        made.make("ca", &["-addext", "basicConstraints=critical,CA:TRUE"]);
        made.make("server", &made.signed("subjectAltName=IP:127.0.0.1"));
        made.make("client", &made.signed("extendedKeyUsage=clientAuth"));
        made
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    fn signed(&self, extension: &str) -> Vec<String> {
        let words = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", extension];
        let place = |word: &str| match word.starts_with("ca.") {
            true => self.path(word),
            false => word.to_owned(),
        };
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        words.iter().chain(&leaf).map(|word| place(word)).collect()
    }

    fn make(&self, name: &str, words: &[impl AsRef<std::ffi::OsStr>]) {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(["-keyout", &self.path(&format!("{name}.key"))])
            .args(["-out", &self.path(&format!("{name}.crt"))])
            .args(words)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    /// The registry's settings; with `clients` it wants to know who they are.
    fn http(&self, clients: bool) -> String {
        let (cert, key) = (self.path("server.crt"), self.path("server.key"));
        let wanted = match clients {
            true => format!(", clientcas: [{}]", self.path("ca.crt")),
            false => String::new(),
        };
        format!("  tls: {{certificate: {cert}, key: {key}{wanted}}}\n")
    }

    /// What is kept for a registry: the authority, and who the client is.
    fn keep(&self, dir: &Path, address: &str, client: bool) {
        let dir = dir.join(address);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(self.path("ca.crt"), dir.join("own.crt")).unwrap();
        if client {
            std::fs::copy(self.path("client.crt"), dir.join("client.cert")).unwrap();
            std::fs::copy(self.path("client.key"), dir.join("client.key")).unwrap();
        }
    }
}

/// A pull without the options that do without TLS.
fn pull_tls(shop: &Shop, command: &mut Command) -> Result<(), String> {
    let command = command.env("HOME", shop.scene.path("home")).env_remove("XDG_CONFIG_HOME");
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    output.status.success().then_some(()).ok_or(error)
}

#[test]
fn with_tls() {
    let shop = Shop::new();
    let certificates = Certificates::new(&shop);
    let http = certificates.http(false);
    let registry = Registry::start(&shop, &http, "", &["--dest-tls-verify=false"]);
    let name = registry.name();
    let pull = |options: &[&str]| {
        let mut words = vec!["image", "pull", &name];
        words.extend(options);
        pull_tls(&shop, &mut shop.scene.command(&words))
    };
    let error = pull(&[]).unwrap_err();
    assert!(error.contains("TLS") && error.contains("--ca-file"), "{error}");
    shop.scene.assert_store_is_empty();
    pull(&["--ca-file", &certificates.path("ca.crt")]).unwrap();
    shop.assert_pulled();
    pull(&["--insecure", "--name", "other"]).unwrap();
    // by the variables that other programs know as well
    let mut command = shop.scene.command(&["image", "pull", &name, "--name", "third"]);
    pull_tls(&shop, command.env("SSL_CERT_FILE", certificates.path("ca.crt"))).unwrap();
}

#[test]
fn with_an_authority_that_is_kept_for_it() {
    let shop = Shop::new();
    let certificates = Certificates::new(&shop);
    let http = certificates.http(false);
    let registry = Registry::start(&shop, &http, "", &["--dest-tls-verify=false"]);
    let name = registry.name();
    let users = shop.scene.path("home/.config/containers/certs.d");
    let command = || shop.scene.command(&["image", "pull", &name]);
    // for another port it is another registry
    certificates.keep(&users, "127.0.0.1:1", false);
    assert!(pull_tls(&shop, &mut command()).unwrap_err().contains("TLS"));
    certificates.keep(&users, &registry.address, false);
    pull_tls(&shop, &mut command()).unwrap();
    shop.assert_pulled();
    std::fs::remove_dir_all(&users).unwrap();
    // and where all users look, which only this command sees
    for place in ["containers", "docker"] {
        let etc = shop.scene.path(place);
        certificates.keep(&etc.join("certs.d"), &registry.address, false);
        let script = format!(
            "mount -t tmpfs none /etc && mkdir /etc/{place} && cp -r {}/certs.d /etc/{place}/ && \
             exec \"$@\"",
            etc.display()
        );
        let mut within = Command::new("unshare");
        within.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        let pull = shop.scene.command(&["image", "pull", &name, "--name", place]);
        within.arg(pull.get_program()).args(pull.get_args());
        pull_tls(&shop, &mut within).unwrap();
    }
    assert!(pull_tls(&shop, &mut command()).unwrap_err().contains("TLS"));
}

#[test]
fn with_a_certificate_of_ones_own() {
    let shop = Shop::new();
    let certificates = Certificates::new(&shop);
    let skopeo = shop.scene.path("skopeo");
    certificates.keep(&skopeo, "", true);
    let options = ["--dest-tls-verify=false", "--dest-cert-dir", skopeo.to_str().unwrap()];
    let registry = Registry::start(&shop, &certificates.http(true), "", &options);
    let name = registry.name();
    let users = shop.scene.path("home/.config/containers/certs.d");
    let pull = |options: &[&str]| {
        let words = [&["image", "pull", name.as_str()], options].concat();
        pull_tls(&shop, &mut shop.scene.command(&words))
    };
    certificates.keep(&users, &registry.address, false);
    let error = pull(&[]).unwrap_err();
    assert!(error.contains("TLS") && error.to_lowercase().contains("certificate"), "{error}");
    certificates.keep(&users, &registry.address, true);
    pull(&[]).unwrap();
    shop.assert_pulled();
    pull(&["--insecure", "--name", "other"]).unwrap();
    let kept = users.join(&registry.address);
    std::fs::write(kept.join("client.key"), "no key").unwrap();
    assert!(pull(&[]).unwrap_err().contains("client.key: "));
    std::fs::remove_file(kept.join("client.key")).unwrap();
    let error = pull(&[]).unwrap_err();
    assert!(error.contains("client.key: no such file"), "{error}");
}

/// The machine's own certificates are often closed to its users: a registry that asks for
/// none is theirs as well.
#[test]
fn a_certificate_that_is_not_for_this_user_is_left_out() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let shop = Shop::new();
    let certificates = Certificates::new(&shop);
    let http = certificates.http(false);
    let registry = Registry::start(&shop, &http, "", &["--dest-tls-verify=false"]);
    let users = shop.scene.path("home/.config/containers/certs.d");
    certificates.keep(&users, &registry.address, true);
    let dir = users.join(&registry.address);
    let remote = registry.name();
    let pull = |name: &str, more: &[&str]| {
        let words = [&["image", "pull", &remote, "--name", name], more].concat();
        let pull = shop.scene.command(&words);
        // root without its power over files of others
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
        command.arg(pull.get_program()).args(pull.get_args());
        command.env("HOME", shop.scene.path("home")).env_remove("XDG_CONFIG_HOME");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let close = |path: &Path, mode| {
        chown(path, Some(65534), Some(65534)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(pull("open", &[]), "");
    close(&dir.join("client.key"), 0o600);
    let said = pull("key", &[]);
    assert!(said.contains("warning: key in ") && said.contains("client.key: "), "{said}");
    // with its authority out of reach as well
    close(&dir, 0o700);
    let said = pull("directory", &["--ca-file", &certificates.path("ca.crt")]);
    assert!(said.contains(&format!("warning: certificates in {}: ", dir.display())), "{said}");
}
