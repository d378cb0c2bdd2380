//! One entry of a layer, as the headers before it describe it.

use std::io;

use tar::EntryType;

use super::limits::Limits;

/// What kind of file an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    HardLink,
    Fifo,
    Char,
    Block,
}

/// A time as tar has it: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) secs: i64,
    pub(crate) nanos: i64,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Where the data of a sparse file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) real_size: u64,
    pub(crate) runs: Vec<Run>,
}

/// One entry. Nothing in it has been checked against the file system yet.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Bytes of data in the archive.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<Sparse>,
}

/// What PAX records and GNU long names say about the next entry.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) has_pax: bool,
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) gnu_path: Option<Vec<u8>>,
    pub(crate) gnu_link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: PaxSparse,
}

/// GNU tar's three forms of sparse files in PAX records.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// 0.0 and 0.1: offsets and lengths in turn.
    pub(crate) map: Vec<u64>,
}

pub(crate) fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Bytes of an archive's name, for a message.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = name.get(..200).unwrap_or(name).escape_ascii().to_string();
    if name.len() > 200 { format!("{text}…") } else { text }
}

impl Extras {
    /// Reads the records of a PAX header, by their lengths: a value may hold
    /// any byte, newlines too, and file capabilities do.
    pub(crate) fn pax(&mut self, mut data: &[u8], limits: &Limits) -> io::Result<()> {
        const MALFORMED: &str = "malformed PAX record";
        while !data.is_empty() {
            let space = data.iter().position(|b| *b == b' ');
            let space = space.ok_or_else(|| bad(MALFORMED))?;
            let len = number(data.get(..space).unwrap_or_default())?;
            let len = usize::try_from(len).map_err(|_big| bad(MALFORMED))?;
            let record = data.get(space + 1..len).ok_or_else(|| bad(MALFORMED))?;
            let record = record.strip_suffix(b"\n").ok_or_else(|| bad(MALFORMED))?;
            let equals = record.iter().position(|b| *b == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(|| bad(MALFORMED))?);
            self.record(key, value.get(1..).unwrap_or_default(), limits)?;
            data = data.get(len..).unwrap_or_default();
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> io::Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(number(value)?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = Some(number(value)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map =
                    value.split(|b| *b == b',').map(number).collect::<io::Result<_>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value, limits)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> io::Result<()> {
        if value.len() > limits.xattr {
            return Err(bad(format!(
                "extended attribute {} has {} bytes, more than {}",
                shown(name),
                value.len(),
                limits.xattr
            )));
        }
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(bad(format!("extended attribute name {:?}", shown(name))));
        }
        // the overlay's own names, one level down: the overlay file system hands
        // them to a nested one unescaped, and doesn't act on them itself
        let name = match name.strip_prefix(b"trusted.overlay.") {
            Some(rest) => [b"trusted.overlay.overlay.", rest].concat(),
            None => name.to_vec(),
        };
        self.xattrs.push((name, value.to_vec()));
        Ok(())
    }
}

/// The kind for a type flag; `None` for one that has no file.
pub(crate) fn kind(flag: EntryType, path: &[u8]) -> io::Result<Kind> {
    Ok(match flag {
        // version 7 archives mark a directory by the slash alone
        EntryType::Regular if path.ends_with(b"/") => Kind::Dir,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Directory => Kind::Dir,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(bad(format!(
                "{}: unknown entry type {:?}",
                shown(path),
                char::from(other.as_byte())
            )));
        }
    })
}

/// A decimal number, digits only.
pub(crate) fn number(text: &[u8]) -> io::Result<u64> {
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| bad(format!("{:?} is not a number", shown(text))))
}

/// A PAX time: `-?digits[.digits]`; what lies beyond nanoseconds is cut off.
fn time(text: &[u8]) -> io::Result<Time> {
    let (negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = rest.splitn(2, |b| *b == b'.');
    let secs = i64::try_from(number(parts.next().unwrap_or_default())?)
        .map_err(|_big| bad("time out of range"))?;
    let mut nanos = 0i64;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(bad(format!("{:?} is not a time", shown(text))));
        }
        for i in 0..9 {
            let digit = fraction.get(i).map_or(0, |b| i64::from(b - b'0'));
            nanos = nanos * 10 + digit;
        }
    }
    // the kernel wants nanoseconds from 0 up: -1.25 is -2 and 750,000,000
    Ok(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_nanoseconds() {
        let t = |text: &str| time(text.as_bytes()).map(|t| (t.secs, t.nanos));
        assert_eq!(t("12.5").unwrap(), (12, 500_000_000));
        assert_eq!(t("12.0000000019").unwrap(), (12, 1));
        assert_eq!(t("-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(t("-1").unwrap(), (-1, 0));
        assert!(t("1.x").is_err());
        assert!(t("").is_err());
    }

    #[test]
    fn a_value_may_hold_newlines() {
        let mut extras = Extras::default();
        let data = b"30 SCHILY.xattr.user.a=x\ny=z\n\n18 path=some/name\n";
        extras.pax(data, &Limits::default()).unwrap();
        assert_eq!(extras.xattrs[0].1, b"x\ny=z\n");
        assert_eq!(extras.path.unwrap(), b"some/name");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [&b"5 a=b"[..], b"99 a=b\n", b"x a=b\n", b"6 ab\n", b"0 \n", b"2 a=b\n"] {
            let done = Extras::default().pax(bad, &Limits::default());
            assert!(done.is_err(), "{}", shown(bad));
        }
    }

    #[test]
    fn overlay_attributes_are_escaped() {
        let mut extras = Extras::default();
        let limits = Limits::default();
        extras.xattr(b"trusted.overlay.opaque", b"y", &limits).unwrap();
        assert_eq!(extras.xattrs[0].0, b"trusted.overlay.overlay.opaque");
        let big = vec![0; limits.xattr + 1];
        assert!(extras.xattr(b"user.big", &big, &limits).is_err());
    }
}
