//! Credentials for a registry, from where `podman login`, `docker login` and
//! `skopeo login` put them.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::{Uid, getuid};
use serde::Deserialize;
use tare::error::{Error, ErrorKind, Result, Step};

/// What opens a registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    /// Name and password.
    pub(crate) basic: Option<(String, String)>,
    /// An OAuth2 refresh token, for the token server.
    pub(crate) identity: Option<String>,
    /// A bearer token, for the registry itself.
    pub(crate) bearer: Option<String>,
}

/// containers-auth.json(5), and Docker's config.json, which it comes from.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The most that a file or a helper may say.
const MOST: usize = 4 << 20;

/// Finds the credentials for a repository: in the given file, or in the first of
/// the usual ones that has some.
///
/// # Errors
/// A file that can't be read or is no JSON; a helper that fails.
pub(crate) fn find(
    given: Option<&Path>,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>> {
    if let Some(path) = given {
        return in_file(path, registry, repository);
    }
    for path in usual_places(getuid(), |name| env::var_os(name)) {
        if path.starts_with("/run") && path.symlink_metadata().is_err() {
            // directories there may be closed to who has nothing in them
            continue;
        }
        match in_file(&path, registry, repository) {
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Ok(None)
}

fn usual_places(user: Uid, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let dir = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = dir("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    // podman's place for who has no session: root, for one
    let runtime = dir("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/containers/{user}/auth.json")),
        |dir| dir.join("containers/auth.json"),
    );
    let config = dir("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = dir("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let config = config.map(|d| d.join("containers/auth.json"));
    let docker = docker.map(|d| d.join("config.json"));
    [Some(runtime), config, docker].into_iter().flatten().collect()
}

fn in_file(path: &Path, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let step = || format!("credentials in {}", path.display());
    let bytes = std::fs::read(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::System
        };
        Error::from(e).of_kind(kind).step(step())
    })?;
    let file: File = tare::json::parse(&bytes).step(step)?;
    file.find(registry, repository).step(step)
}

impl File {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.cred_helpers.get(registry) {
            return ask(helper, registry);
        }
        // the longest name that fits: a namespace may have credentials of its own
        let mut name = format!("{registry}/{repository}");
        loop {
            let fits = |key: &str| key_name(key) == name;
            if let Some((_, entry)) = self.auths.iter().find(|(key, _)| fits(key))
                && let Some(found) = entry.credentials()?
            {
                return Ok(Some(found));
            }
            match name.rsplit_once('/') {
                Some((shorter, _)) => name = shorter.to_owned(),
                None => break,
            }
        }
        let store = self.creds_store.as_ref().filter(|name| !name.is_empty());
        store.map_or(Ok(None), |helper| ask(helper, registry))
    }
}

/// The name that a key means: `https://index.docker.io/v1/` is docker.io.
fn key_name(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>> {
        let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        let basic = match (self.auth.as_str(), self.username.as_str()) {
            ("", "") => None,
            ("", user) => Some((user.to_owned(), self.password.clone())),
            (auth, _) => Some(decode(auth)?),
        };
        let found = Credentials {
            basic: basic.filter(|(user, _)| !user.is_empty()),
            identity: some(&self.identitytoken),
            bearer: some(&self.registrytoken),
        };
        Ok(Some(found).filter(|found| *found != Credentials::default()))
    }
}

fn decode(auth: &str) -> Result<(String, String)> {
    // the text itself is a secret: it stays out of the message
    let wrong = || Error::invalid("auth: not the base64 form of NAME:PASSWORD");
    let bytes = STANDARD.decode(auth.trim()).map_err(|_hidden| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_hidden| wrong())?;
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Asks `docker-credential-NAME get`.
fn ask(name: &str, registry: &str) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{name}");
    let step = || program.clone();
    if name.is_empty() || name.contains('/') {
        return Err(Error::invalid(format!("{name:?} is no credential helper's name")));
    }
    let server = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().step(step)?;
    if let Some(mut stdin) = child.stdin.take() {
        // a helper may not care; what it answers tells
        stdin.write_all(server.as_bytes()).unwrap_or_default();
    }
    let output = child.wait_with_output().step(step)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let said: String = text.trim().chars().take(200).collect();
        return Err(
            Error::new(ErrorKind::System, format!("{}: {said}", output.status)).step(program)
        );
    }
    if output.stdout.len() > MOST {
        return Err(Error::invalid("it prints too much").step(program));
    }
    let answer: Answer = tare::json::parse(&output.stdout).step(step)?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials { identity: Some(answer.secret), ..Credentials::default() },
        _ => {
            Credentials { basic: Some((answer.username, answer.secret)), ..Credentials::default() }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, registry: &str, repository: &str) -> Option<Credentials> {
        serde_json::from_str::<File>(json).unwrap().find(registry, repository).unwrap()
    }

    #[test]
    fn the_name_that_fits_best_counts() {
        let json = r#"{"auths":{
            "q.io":{"auth":"YTpi"}, "q.io/team":{"auth":"Yzpk"},
            "https://index.docker.io/v1/":{"username":"u","password":"p"},
            "empty.io":{}, "t.io":{"identitytoken":"I"}}}"#;
        let user = |r, p| found(json, r, p).and_then(|c| c.basic).map(|(user, _)| user);
        assert_eq!(user("q.io", "other/x").as_deref(), Some("a"));
        assert_eq!(user("q.io", "team/x").as_deref(), Some("c"));
        assert_eq!(user("docker.io", "library/x").as_deref(), Some("u"));
        assert_eq!(user("q.io.evil", "team/x"), None);
        assert!(found(json, "empty.io", "x").is_none());
        assert_eq!(found(json, "t.io", "x").unwrap().identity.as_deref(), Some("I"));
    }

    #[test]
    fn where_logins_are_written_down() {
        let places = |set: &[(&str, &str)]| {
            let value = |name: &str| Some(set.iter().find(|(n, _)| *n == name)?.1.into());
            usual_places(Uid::from_raw(7), value)
        };
        let home = ("HOME", "/h");
        let [config, docker] =
            ["/h/.config/containers/auth.json", "/h/.docker/config.json"].map(PathBuf::from);
        let own = PathBuf::from("/run/containers/7/auth.json");
        assert_eq!(places(&[home]), [own.clone(), config.clone(), docker.clone()]);
        assert_eq!(places(&[("XDG_RUNTIME_DIR", "")]), [own]);
        let runtime = PathBuf::from("/r/containers/auth.json");
        assert_eq!(places(&[home, ("XDG_RUNTIME_DIR", "/r")]), [runtime, config, docker]);
    }

    #[test]
    fn an_empty_name_is_no_helper() {
        assert!(found(r#"{"credsStore":""}"#, "q.io", "x").is_none());
    }

    #[test]
    fn a_secret_is_in_no_message() {
        let file: File = serde_json::from_str(r#"{"auths":{"q.io":{"auth":"c2VjcmV0"}}}"#).unwrap();
        let e = file.find("q.io", "x").err().unwrap().to_string();
        assert!(!e.contains("c2VjcmV0") && !e.contains("secret"), "{e}");
        let file: File = serde_json::from_str(r#"{"credHelpers":{"q.io":"../x"}}"#).unwrap();
        assert!(file.find("q.io", "x").is_err());
    }
}
