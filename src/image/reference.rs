//! Names of images as people write them: short, in full, by digest.

use super::digest::Digest;

/// The registry that a name without one means, as with Docker and podman.
const REGISTRY: &str = "docker.io";

/// The whole name behind a short one: `alpine` is
/// `docker.io/library/alpine:latest`. What is whole stays as it is.
pub(crate) fn full(name: &str) -> String {
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { REGISTRY } else { registry };
    let library = if registry == REGISTRY && !path.contains('/') { "library/" } else { "" };
    let last = path.rsplit('/').next().unwrap_or(path);
    match digest {
        Some(digest) => format!("{registry}/{library}{path}@{digest}"),
        None if last.contains(':') => format!("{registry}/{library}{path}"),
        None => format!("{registry}/{library}{path}:latest"),
    }
}

/// Whether two names mean the same image. A name without a registry also means
/// what was built here, which podman and buildah call `localhost/NAME`.
pub(crate) fn same(wanted: &str, name: &str) -> bool {
    let local = |name: &str| name.strip_prefix("localhost/").map(full);
    wanted == name
        || full(wanted) == full(name)
        || local(name).is_some_and(|local| local == full(wanted))
}

/// A name with the digest that it should have.
pub(crate) fn pinned(text: &str) -> Option<(&str, Digest)> {
    let (name, digest) = text.split_once('@')?;
    Some((name, Digest::parse(digest).ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (short, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("reg.example:5000/b", "reg.example:5000/b:latest"),
            ("localhost/b", "localhost/b:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
        ] {
            assert_eq!(full(short), whole);
        }
        assert!(same("box", "localhost/box:latest"));
        assert!(!same("box:1", "localhost/box:2"));
        assert!(!same("box", "other.example/box:latest"));
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
}
