//! An OCI layout or what `docker save` writes, as a directory or as a tar
//! archive of one.
//!
//! The archive is never unpacked: its headers are read once, and blobs are read
//! at their offsets, in whatever order they lie. For that a stream, or an archive
//! that is compressed as a whole, goes into a file without a name first.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde::Deserialize;

use super::blob::Blob;
use super::digest::Digest;
use super::entry::{Kind, bad};
use super::extract::data_error;
use super::limits::Limits;
use super::manifest::{self, Compression, Layer};
use super::names::{clean, parent_and_name};
use super::spool::spool;
use super::tarstream::{Source, TarStream};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::fs::open_beneath;

/// An open layout.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    form: Form,
    /// Whether it is `docker save`'s, with a manifest.json and no index.
    is_docker: bool,
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
    /// Opens the layout at `path`, or at `-` what comes by standard input, and
    /// checks its marker file. `temporary` makes a file for what has to be
    /// inflated or put aside first.
    pub(crate) fn open(
        path: &Path,
        limits: &Limits,
        temporary: &dyn Fn() -> Result<File>,
    ) -> Result<Self> {
        let file = open_source(path)?;
        let meta = file.metadata()?;
        let form = if meta.is_dir() {
            Form::Dir(file.into())
        } else {
            let file = seekable(file, &meta, limits, temporary)?;
            let len = file.metadata()?.len();
            let members = members(&file, len, limits).step(|| "read the archive")?;
            Form::Archive { file, members }
        };
        let mut layout = Layout { path: path.to_owned(), form, is_docker: false };
        layout.is_docker = layout.check_marker(limits)?;
        Ok(layout)
    }

    /// Whether its images are in a manifest.json of `docker save`.
    pub(crate) fn is_docker(&self) -> bool {
        self.is_docker
    }

    /// The file name, for an image without a tag: `box` of `box.tar`.
    pub(crate) fn stem(&self) -> Option<&str> {
        let stem = self.path.file_stem()?.to_str().filter(|stem| *stem != "-")?;
        // box of box.tar.gz
        Some(stem.strip_suffix(".tar").unwrap_or(stem))
    }

    /// The answer is whether it is one of `docker save`.
    fn check_marker(&self, limits: &Limits) -> Result<bool> {
        let bytes = match self.document("oci-layout", limits) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if self.has("manifest.json")? {
                    return Ok(true);
                }
                if self.has("repositories")? {
                    return Err(Error::unsupported("saved by a Docker before 1.10")
                        .hint("docker load and docker save of a newer one convert it"));
                }
                if matches!(&self.form, Form::Archive { members, .. } if members.is_empty()) {
                    return Err(Error::invalid("not an OCI layout: there is nothing in it"));
                }
                return Err(Error::invalid("not an OCI layout: it has no oci-layout file")
                    .hint("skopeo copy SOURCE oci-archive:FILE makes one of other formats"));
            }
            other => other?,
        };
        let marker: Marker = manifest::json(&bytes, "oci-layout")?;
        if marker.image_layout_version.starts_with("1.") {
            Ok(false)
        } else {
            let version = marker.image_layout_version;
            Err(Error::unsupported(format!("oci-layout: version {version:?}, not 1.x")))
        }
    }

    fn has(&self, name: &str) -> Result<bool> {
        match self.member(name) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
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

    /// A layer's blob.
    pub(crate) fn layer(&self, layer: &Layer) -> Result<Blob> {
        match &layer.member {
            None => self.blob(&layer.digest, layer.size),
            Some(name) => {
                let (file, offset, size) = self.member(name)?;
                Ok(Blob { file, offset, size, digest: layer.digest.clone() })
            }
        }
    }

    /// A file that is not named by its digest, and how it is compressed. Its
    /// digest is `plain`, or found by reading it if it is compressed.
    pub(crate) fn described(&self, name: &str, plain: &Digest) -> Result<(Blob, Compression)> {
        let (file, offset, size) = self.member(name)?;
        let mut start = [0; 4];
        let want = usize::try_from(size.min(4)).unwrap_or(0);
        file.read_exact_at(start.get_mut(..want).unwrap_or_default(), offset)?;
        let compression = Compression::by_magic(&start);
        let mut blob = Blob { file, offset, size, digest: plain.clone() };
        if compression != Compression::None {
            blob.digest = blob.hash()?;
        }
        Ok((blob, compression))
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

fn open_source(path: &Path) -> Result<File> {
    if path == Path::new("-") {
        let stdin = io::stdin().as_fd().try_clone_to_owned().step(|| "standard input")?;
        if nix::unistd::isatty(&stdin).unwrap_or(false) {
            return Err(Error::invalid("standard input is a terminal"));
        }
        return Ok(stdin.into());
    }
    // a fifo must not block us
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| {
        match e.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, crate::error::phrase::DOES_NOT_EXIST)
            }
            _ => e.into(),
        }
    })
}

/// The archive in a file that can be read at any place.
fn seekable(
    file: File,
    meta: &Metadata,
    limits: &Limits,
    temporary: &dyn Fn() -> Result<File>,
) -> Result<File> {
    let kind = meta.file_type();
    if kind.is_file() {
        let mut start = [0; 6];
        let n = file.read_at(&mut start, 0)?;
        if start.get(..n).is_some_and(|start| Compression::by_magic(start) == Compression::None) {
            return Ok(file);
        }
        // standard input may have been read in part
        io::Seek::rewind(&mut &file)?;
    } else if kind.is_fifo() || kind.is_socket() {
        // whoever writes is waited for from here on
        let flags = fcntl(&file, FcntlArg::F_GETFL)?;
        let flags = OFlag::from_bits_retain(flags).difference(OFlag::O_NONBLOCK);
        fcntl(&file, FcntlArg::F_SETFL(flags))?;
    } else {
        return Err(Error::invalid("neither a directory nor a file nor a pipe"));
    }
    let to = temporary()?;
    spool(file, &to, limits).step(|| "read the archive")?;
    Ok(to)
}

type Members = HashMap<Vec<u8>, (u64, u64)>;

/// Bytes that the names of an archive's members may take: they are kept in memory.
const NAMES: usize = 16 << 20;

/// Where each regular file of an archive lies.
fn members(file: &File, len: u64, limits: &Limits) -> Result<Members> {
    let mut reader = HeaderReader::new(file, len);
    check_magic(&mut reader)?;
    let mut stream = TarStream::new(&mut reader, limits);
    let (mut members, mut links) = (Members::new(), Vec::new());
    let (mut begun, mut names) = (false, 0);
    while let Some(entry) = stream.next().map_err(|e| unlike_archive(e, begun))? {
        begun = true;
        let path = clean(&entry.path, limits.path)?;
        names += path.len() + entry.link.len() + size_of::<(Vec<u8>, (u64, u64))>();
        if names > NAMES {
            return Err(Error::invalid("it has more members than an archive of images"));
        }
        match entry.kind {
            // a later member of a name wins, as it does when tar unpacks
            Kind::File if entry.sparse.is_none() => {
                members.insert(path, (stream.position(), entry.size));
            }
            Kind::Symlink => {
                let (parent, _) = parent_and_name(&path);
                links.push((inside(parent, &entry.link), path));
            }
            Kind::HardLink => links.push((inside(b"", &entry.link), path)),
            _ => {}
        }
    }
    // old docker save writes a layer that two images have as a link
    for (target, path) in links {
        if let Some(at) = target.and_then(|target| members.get(&target).copied()) {
            members.entry(path).or_insert(at);
        }
    }
    Ok(members)
}

/// An error of the archive's reader, which before the first entry is that of any file.
fn unlike_archive(e: io::Error, begun: bool) -> Error {
    let e = data_error(e);
    match e.kind() == ErrorKind::Invalid && !begun {
        true => e.hint("images come as OCI archives and as those of docker save"),
        false => e,
    }
}

/// Where a link in `parent` leads, if that is inside of the archive.
fn inside(parent: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in [parent, target].iter().flat_map(|path| path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn check_magic(reader: &mut HeaderReader<'_>) -> Result<()> {
    let packed: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
    let start = reader.fill_buf()?;
    match packed.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, how)) => Err(Error::unsupported(format!(
            "it is compressed by {how} (unpack it first: {how} -dc FILE | tare image import -)"
        ))),
        None => Ok(()),
    }
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
