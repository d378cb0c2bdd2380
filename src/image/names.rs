//! Names in a layer: what is a path, and what is a mark for the layers below.

use crate::error::{Error, Result};

/// What an entry's last component means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// A file.
    Plain,
    /// `.wh.NAME`: NAME in lower layers is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: all that lower layers have in this directory is gone.
    Opaque,
    /// Bookkeeping of aufs, which old images have: no part of the file system.
    Ignored,
}

/// A path in normal form: components joined by one slash, no `.`; the root is
/// empty.
///
/// # Errors
/// Invalid for an absolute path, for one with `..` or a NUL, and for one that
/// is longer than the kernel takes.
pub(crate) fn clean(path: &[u8], most: usize) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Err(Error::invalid("empty path"));
    }
    // umoci before 0.6 calls the root directory itself "/"
    if path.starts_with(b"/") && path != b"/" {
        return Err(Error::invalid("absolute path"));
    }
    if path.len() > most {
        return Err(Error::invalid(format!("path longer than {most} bytes")));
    }
    if path.contains(&0) {
        return Err(Error::invalid("path with a NUL"));
    }
    let mut all = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Error::invalid("path with ..")),
            part if part.len() > 255 => {
                return Err(Error::invalid("file name longer than 255 bytes"));
            }
            part => {
                if !all.is_empty() {
                    all.push(b'/');
                }
                all.extend_from_slice(part);
            }
        }
    }
    Ok(all)
}

/// Splits a clean path at its last slash.
pub(crate) fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// `parent/name`, or `name` where the parent is the root.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// What the entry `name` in `parent` is (both clean).
pub(crate) fn classify<'a>(parent: &[u8], name: &'a [u8]) -> Result<Name<'a>> {
    for part in parent.split(|b| *b == b'/') {
        if part.starts_with(b".wh..wh.") {
            return Ok(Name::Ignored);
        }
        if part.starts_with(b".wh.") {
            return Err(Error::invalid("a whiteout can't hold files"));
        }
    }
    let Some(hidden) = name.strip_prefix(b".wh.") else {
        return Ok(Name::Plain);
    };
    if name == b".wh..wh..opq" {
        return Ok(Name::Opaque);
    }
    if hidden.starts_with(b".wh.") {
        return Ok(Name::Ignored);
    }
    match hidden {
        b"" | b"." | b".." => Err(Error::invalid("a whiteout of nothing, . or ..")),
        hidden => Ok(Name::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normal_or_refused() {
        let ok = |p: &str| String::from_utf8(clean(p.as_bytes(), 4095).unwrap()).unwrap();
        assert_eq!(ok("./a//b/./c/"), "a/b/c");
        assert_eq!(ok("./"), "");
        assert_eq!(ok("a/...x/.b"), "a/...x/.b");
        for bad in ["", "/a", "//", "..", "a/../b", "a/..", "a\0b"] {
            assert!(clean(bad.as_bytes(), 4095).is_err(), "{bad:?}");
        }
        assert!(clean("a/".repeat(4000).as_bytes(), 4095).is_err());
        assert!(clean("a".repeat(256).as_bytes(), 4095).is_err());
    }

    #[test]
    fn whiteouts() {
        assert_eq!(classify(b"a", b".wh.b").unwrap(), Name::Whiteout(b"b"));
        assert_eq!(classify(b"a", b".wh..b").unwrap(), Name::Whiteout(b".b"));
        assert_eq!(classify(b"", b".wh..wh..opq").unwrap(), Name::Opaque);
        assert_eq!(classify(b"", b".wh..wh.plnk").unwrap(), Name::Ignored);
        assert_eq!(classify(b".wh..wh.plnk", b"1.2").unwrap(), Name::Ignored);
        assert_eq!(classify(b"a", b".whx").unwrap(), Name::Plain);
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(classify(b"", bad).is_err());
        }
        assert!(classify(b"a/.wh.b", b"c").is_err());
    }
}
