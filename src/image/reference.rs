//! Names of images as people write them: short, in full, by digest.

use std::fmt;

use super::digest::Digest;
use crate::error::{Error, Result};

/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest name of a repository (distribution-spec, "Pulling manifests").
const LONGEST: usize = 255;

/// A registry, a repository in it, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host, with a port if there is one.
    pub registry: String,
    /// Path of the repository, with `library/` where the name leaves it out.
    pub repository: String,
    /// Which of its images.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// The one that has this tag at the time.
    Tag(String),
    /// The one with this digest, whatever tags say.
    Digest(Digest),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => f.write_str(tag),
            Version::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// The whole name: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if matches!(self.version, Version::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{mark}{}", self.registry, self.repository, self.version)
    }
}

impl Reference {
    /// Parses `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`. Without a registry it is
    /// docker.io, there without a slash it is `library/…`, and without a tag it
    /// is `latest`. A digest wins over a tag.
    ///
    /// # Errors
    /// Invalid for another form.
    pub fn parse(text: &str) -> Result<Self> {
        Reference::parts(text).map_err(|e| e.step(format!("image name {:.300?}", text)))
    }

    fn parts(text: &str) -> Result<Self> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        if text.contains("://") {
            return Err(Error::invalid("a name has no scheme (leave out what is before ://)"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (registry, path) = registry_and_path(rest)?;
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        tag.map_or(Ok(()), check_tag)?;
        let repository = match registry.as_str() {
            DEFAULT_REGISTRY if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        check_repository(&repository)?;
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Reference { registry, repository, version })
    }

    /// Whether both name images of one repository.
    pub(crate) fn is_beside(&self, other: &Reference) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// The host part of the registry, without brackets and port.
    pub fn host(&self) -> &str {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// The whole name behind a short one: `alpine` is
/// `docker.io/library/alpine:latest`. What a registry could not have stays as it is.
fn full(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |whole| whole.to_string())
}

/// Whether two names mean the same image. A name without a registry also means
/// what was built here, which podman and buildah call `localhost/NAME`.
pub(crate) fn same(wanted: &str, name: &str) -> bool {
    let local = |name: &str| name.strip_prefix("localhost/").map(full);
    let wanted = full(wanted);
    wanted == full(name) || local(name).is_some_and(|local| local == wanted)
}

/// Whether `text` is a digest, or the beginning of one: six digits at least.
pub(crate) fn is_of_digest(text: &str, digest: &Digest) -> bool {
    let hex = match text.split_once(':') {
        Some((algorithm, hex)) if algorithm == digest.algorithm().name() => hex,
        Some(_) => return false,
        None => text,
    };
    hex.len() >= 6 && digest.hex().starts_with(hex)
}

/// What is before the first slash is a registry if it can't be part of a path.
fn registry_and_path(text: &str) -> Result<(String, &str)> {
    let Some((first, path)) = text.split_once('/') else {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    };
    if first != "localhost" && !first.contains(['.', ':']) {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    }
    if !is_host(first) {
        return Err(Error::invalid(format!("{first:?} is no host name")));
    }
    let registry = first.to_ascii_lowercase();
    match registry.as_str() {
        "index.docker.io" | "registry-1.docker.io" => Ok((DEFAULT_REGISTRY.to_owned(), path)),
        _ => Ok((registry, path)),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets; and a port.
fn is_host(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
    let (is_known, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            (starts && name.bytes().all(known), port)
        }
    };
    let digits =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_known && (port.is_empty() || port.strip_prefix(':').is_some_and(digits))
}

fn check_tag(tag: &str) -> Result<()> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let starts = !tag.starts_with(['.', '-']);
    if tag.is_empty() || tag.len() > 128 || !starts || !tag.bytes().all(known) {
        return Err(Error::invalid(format!("{tag:.150?} is no tag")));
    }
    Ok(())
}

fn check_repository(path: &str) -> Result<()> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Error::invalid("a repository is written in lower case"));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let well_formed = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().last()];
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        });
        ends.into_iter().all(|end| end.is_some_and(inner)) && separators
    };
    if path.len() > LONGEST {
        return Err(Error::invalid(format!("longer than {LONGEST} bytes")));
    }
    if !path.split('/').all(well_formed) {
        return Err(Error::invalid("not of the form [REGISTRY/]REPOSITORY[:TAG][@DIGEST]"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_what_people_expect() {
        let whole = |text: &str| Reference::parse(text).unwrap().to_string();
        assert_eq!(whole("debian"), "docker.io/library/debian:latest");
        assert_eq!(whole("debian:12"), "docker.io/library/debian:12");
        assert_eq!(whole("ann/tool"), "docker.io/ann/tool:latest");
        assert_eq!(whole("docker.io/debian"), "docker.io/library/debian:latest");
        assert_eq!(whole("index.docker.io/debian"), "docker.io/library/debian:latest");
        assert_eq!(whole("docker://quay.io/a/b_c.d:x"), "quay.io/a/b_c.d:x");
        assert_eq!(whole("localhost/x"), "localhost/x:latest");
        assert_eq!(whole("localhost:5000/x:y"), "localhost:5000/x:y");
        assert_eq!(whole("[::1]:5000/x"), "[::1]:5000/x:latest");
        assert_eq!(whole("Example.ORG/x"), "example.org/x:latest");
        let digest = format!("q.io/a@sha256:{HEX}");
        assert_eq!(whole(&digest), digest);
        assert_eq!(whole(&format!("q.io/a:tag@sha256:{HEX}")), digest);
        assert_eq!(Reference::parse("[::1]:5000/x").unwrap().host(), "::1");
        assert_eq!(Reference::parse("a.b/x").unwrap().host(), "a.b");
    }

    #[test]
    fn what_means_the_same() {
        assert!(same("box", "localhost/box:latest"));
        assert!(same("index.docker.io/library/box", "box:latest"));
        assert!(same("Box+1", "Box+1"), "a name that no registry has");
        assert!(!same("box:1", "localhost/box:2"));
        assert!(!same("box", "other.example/box:latest"));
        assert!(!same("localhost/box", "box"));
        let name = |text: &str| Reference::parse(text).unwrap();
        assert!(name("box:1").is_beside(&name(&format!("docker.io/library/box@sha256:{HEX}"))));
        assert!(!name("box:1").is_beside(&name("q.io/library/box:1")));
    }

    #[test]
    fn digests_may_be_cut() {
        let digest = Digest::of(b"");
        assert!(is_of_digest("e3b0c4", &digest));
        assert!(is_of_digest("sha256:e3b0c44298", &digest));
        for not in ["e3b0c", "sha512:e3b0c4", "e3b0c5", "box", ""] {
            assert!(!is_of_digest(not, &digest), "{not}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(256);
        let climbing = ["../x", "a/../b", "a//b", "/a", "a/", "./a"];
        let signs =
            ["", "A", "a b", "a:", "a:-x", "a@sha256:00", "a..b", "-a", "a___b", "http://a/b"];
        let hosts = ["a?.b/c", "a.b#/c", ":80/c", "ex@mple.org/a", "[x:1/a", "a:x/b", &long];
        for bad in climbing.iter().chain(&signs).chain(&hosts) {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Reference::parse("Debian").unwrap_err().to_string().contains("lower case"));
    }
}
