//! What an unpacked layer is made of, written down while it is unpacked: a line of
//! JSON for each change of its directory, in the order in which they were made.
//!
//! It costs no look at a file that was written: all that is in it is known from the
//! archive, and the data is hashed on its way from the buffer to the file. That hash
//! (XXH3, 128 bits) is no cryptographic one. It is there to find damage: who may write
//! to a store may write to its records as well, and the archive itself has been held
//! against its digest before any of this counts.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Algorithm, Digest, Hasher};
use super::entry::Run;
use crate::error::{Error, Result};

/// Bytes of a name, written with %XX for what is not printable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name<'a>(pub(crate) Cow<'a, [u8]>);

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Name(Cow::Borrowed(bytes))
    }
}

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&escaped(&self.0))
    }
}

impl<'de> Deserialize<'de> for Name<'_> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let bytes = plain(&text).ok_or_else(|| serde::de::Error::custom("a name"))?;
        Ok(Name(Cow::Owned(bytes)))
    }
}

/// Printable: what is not, and %, as %XX.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for b in bytes {
        match b {
            b'!'..=b'~' if *b != b'%' => text.push(char::from(*b)),
            // writing to a string can't fail
            _ => write!(text, "%{b:02x}").unwrap_or_default(),
        }
    }
    text
}

fn plain(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

/// What any file but a hard link has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts<'a> {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) mtime: (i64, i64),
    /// Under the names that they have in the layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) xattrs: Vec<(Name<'a>, Name<'a>)>,
}

/// The data of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) size: u64,
    /// XXH3 of what is in the archive: of a sparse file, of its runs.
    #[serde(with = "hex")]
    pub(crate) hash: u128,
    /// Offsets and lengths of a sparse file's data; the rest is zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runs: Option<Vec<(u64, u64)>>,
}

mod hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        n: &u128,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{n:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> std::result::Result<u128, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Special {
    Fifo,
    Char,
    Block,
}

/// A change of the layer's directory. Paths are relative to that, which is the empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change<'a> {
    /// A directory that the layer lists. One that is there gets these facts, and the
    /// attributes beside those it has.
    Dir {
        path: Name<'a>,
        facts: Facts<'a>,
    },
    /// A directory that entries lie in and that has not been listed before them.
    Implied {
        path: Name<'a>,
    },
    /// The same, made in place of a whiteout: nothing of lower layers is in it.
    Fresh {
        path: Name<'a>,
    },
    /// What lower layers have in this directory is hidden.
    Opaque {
        path: Name<'a>,
    },
    File {
        path: Name<'a>,
        facts: Facts<'a>,
        data: Data,
    },
    Symlink {
        path: Name<'a>,
        facts: Facts<'a>,
        target: Name<'a>,
    },
    Special {
        path: Name<'a>,
        facts: Facts<'a>,
        kind: Special,
        device: (u32, u32),
    },
    /// One more name of a file.
    Link {
        path: Name<'a>,
        target: Name<'a>,
    },
    Whiteout {
        path: Name<'a>,
    },
    /// What was there is no more, with all below it.
    Gone {
        path: Name<'a>,
    },
}

/// Writes a listing.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: BufWriter<Hashed<'a>>,
}

#[derive(Debug)]
struct Hashed<'a> {
    file: &'a File,
    hasher: Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<'a> Writer<'a> {
    /// Writes to an empty file.
    pub(crate) fn new(file: &'a File) -> Self {
        let hashed = Hashed { file, hasher: Hasher::new(Algorithm::Sha256) };
        Writer { out: BufWriter::with_capacity(64 << 10, hashed) }
    }

    /// One more change.
    pub(crate) fn add(&mut self, change: &Change<'_>) -> Result<()> {
        serde_json::to_writer(&mut self.out, change).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// The digest of the whole.
    pub(crate) fn finish(self) -> Result<Digest> {
        let hashed = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(hashed.hasher.finish())
    }
}

/// Calls `each` for every line of a listing from its beginning.
pub(crate) fn lines(mut file: &File, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        each(&line)?;
        line.clear();
    }
    Ok(())
}

/// Reads a line.
pub(crate) fn change(line: &[u8]) -> Result<Change<'_>> {
    serde_json::from_slice(line).map_err(|e| Error::invalid(format!("the layer's listing: {e}")))
}

/// Offsets and lengths of a sparse file's data.
pub(crate) fn runs(runs: &[Run]) -> Vec<(u64, u64)> {
    runs.iter().map(|run| (run.offset, run.len)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_any_byte() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(plain(&escaped(&all)).unwrap(), all);
        assert_eq!(escaped(b"a b%\xff"), "a%20b%25%ff");
        assert!(plain("%").is_none() && plain("%1").is_none() && plain("%zz").is_none());
    }
}
