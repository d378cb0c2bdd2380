//! An OCI layout, as a directory or as a tar archive of one.
//!
//! The archive is never unpacked: its headers are read once, and blobs are read
//! at their offsets, in whatever order they lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::Deserialize;

use super::blob::Blob;
use super::digest::Digest;
use super::entry::{Kind, bad};
use super::extract::data_error;
use super::limits::Limits;
use super::manifest;
use super::names::clean;
use super::tarstream::{Source, TarStream};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::open_beneath;

/// An open layout.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Dir(OwnedFd),
    Archive {
        file: File,
        /// Name to offset and size.
        members: HashMap<Vec<u8>, (u64, u64)>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// Opens the layout at `path` and checks its marker file.
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Self> {
        // a fifo must not block us
        let file =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| {
                match e.kind() {
                    io::ErrorKind::NotFound => {
                        Error::new(ErrorKind::NotFound, crate::error::phrase::DOES_NOT_EXIST)
                    }
                    _ => e.into(),
                }
            })?;
        let meta = file.metadata()?;
        let form = if meta.is_dir() {
            Form::Dir(file.into())
        } else if meta.is_file() {
            let members = members(&file, meta.len(), limits).step(|| "read the archive")?;
            Form::Archive { file, members }
        } else {
            return Err(Error::invalid("neither a directory nor a regular file"));
        };
        let path = path.to_owned();
        let layout = Layout { path, form };
        layout.check_marker(limits)?;
        Ok(layout)
    }

    /// The file name, for an image without a tag: `box` of `box.tar`.
    pub(crate) fn stem(&self) -> Option<&str> {
        self.path.file_stem()?.to_str()
    }

    fn check_marker(&self, limits: &Limits) -> Result<()> {
        let bytes = match self.document("oci-layout", limits) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::invalid("not an OCI layout: it has no oci-layout file")
                    .hint("skopeo copy SOURCE oci-archive:FILE makes one of other formats"));
            }
            other => other?,
        };
        let marker: Marker = manifest::json(&bytes, "oci-layout")?;
        if marker.image_layout_version.starts_with("1.") {
            Ok(())
        } else {
            let version = marker.image_layout_version;
            Err(Error::unsupported(format!("oci-layout: version {version:?}, not 1.x")))
        }
    }

    /// A small file at the top of the layout.
    pub(crate) fn document(&self, name: &str, limits: &Limits) -> Result<Vec<u8>> {
        let (file, offset, size) = self.member(name)?;
        if size > limits.json {
            let most = limits.json;
            return Err(Error::invalid(format!("{name}: {size} bytes, more than {most}")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset).step(|| name.to_owned())?;
        Ok(bytes)
    }

    /// A blob, whose size on disk fits its descriptor.
    pub(crate) fn blob(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let (file, offset, found) = self.member(&name).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::invalid("the blob is not in the layout"),
            _ => e,
        })?;
        if found != size {
            return Err(Error::invalid(format!(
                "wrong size: the blob has {found} bytes, its descriptor says {size}"
            )));
        }
        Ok(Blob { file, offset, size, digest: digest.clone() })
    }

    fn member(&self, name: &str) -> Result<(File, u64, u64)> {
        let missing = || Error::new(ErrorKind::NotFound, format!("no {name}"));
        match &self.form {
            Form::Dir(dir) => {
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let fd = open_beneath(dir.as_fd(), Path::new(name), flags, Mode::empty());
                let file = File::from(fd.map_err(|e| match e {
                    Errno::ENOENT => missing(),
                    other => Error::from(other).step(format!("open {name}")),
                })?);
                let meta = file.metadata()?;
                if !meta.is_file() {
                    return Err(Error::invalid(format!("{name} is not a regular file")));
                }
                Ok((file, 0, meta.len()))
            }
            Form::Archive { file, members } => {
                let (offset, size) = members.get(name.as_bytes()).ok_or_else(missing)?;
                Ok((file.try_clone()?, *offset, *size))
            }
        }
    }
}

/// Where each regular file of an archive lies.
fn members(file: &File, len: u64, limits: &Limits) -> Result<HashMap<Vec<u8>, (u64, u64)>> {
    let mut reader = HeaderReader::new(file, len);
    check_magic(&mut reader)?;
    let mut stream = TarStream::new(&mut reader, limits);
    let mut members = HashMap::new();
    while let Some(entry) = stream.next().map_err(data_error)? {
        // other kinds are of no use here; a later member of a name wins, as it
        // does when tar unpacks
        if entry.kind == Kind::File && entry.sparse.is_none() {
            let at = (stream.position(), entry.size);
            members.insert(clean(&entry.path, limits.path)?, at);
        }
    }
    Ok(members)
}

fn check_magic(reader: &mut HeaderReader<'_>) -> Result<()> {
    let start = reader.fill_buf()?;
    let packed = start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    if packed {
        return Err(Error::unsupported(
            "it is compressed as a whole (unpack it first: gunzip, unzstd)",
        ));
    }
    Ok(())
}

/// Reads headers here and there without reading what lies between.
struct HeaderReader<'a> {
    file: &'a File,
    len: u64,
    position: u64,
    buffer: [u8; 1024],
    start: usize,
    end: usize,
}

impl<'a> HeaderReader<'a> {
    fn new(file: &'a File, len: u64) -> Self {
        HeaderReader { file, len, position: 0, buffer: [0; 1024], start: 0, end: 0 }
    }
}

impl BufRead for HeaderReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let n = self.file.read_at(&mut self.buffer, self.position)?;
            self.position += n as u64;
            (self.start, self.end) = (0, n);
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start + n);
    }
}

impl Read for HeaderReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl Source for &mut HeaderReader<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let buffered = (self.end - self.start) as u64;
        let there = self.position - buffered;
        let target = there.checked_add(bytes).filter(|t| *t <= self.len);
        self.position = target.ok_or_else(|| bad("the archive is cut off"))?;
        (self.start, self.end) = (0, 0);
        Ok(())
    }
}

use std::os::unix::fs::OpenOptionsExt;
