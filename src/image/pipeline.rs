//! One layer through a pipeline of threads: read, hash and inflate; hash the
//! inflated stream; extract. Buffers are few and go round.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use super::blob::{Blob, BlobReader};
use super::digest::{Digest, Hasher};
use super::entry::bad;
use super::extract::{Extracted, data_error, extract};
use super::gzip::Gunzip;
use super::limits::Limits;
use super::manifest::Compression;
use super::tarstream::{Source, TarStream, skip_by_reading};
use super::unzstd::Unzstd;
use crate::error::{Error, Result, Step};

/// Inflated bytes travel in buffers of this size: small enough to stay in the
/// processor's cache from inflating to the last reader.
const CHUNK: usize = 256 << 10;
/// Buffers of one layer.
const CHUNKS: usize = 8;

/// A layer to unpack.
pub(crate) struct Job<'a> {
    pub(crate) blob: Blob,
    /// Gets a copy of the blob.
    pub(crate) keep: Option<&'a File>,
    /// Gets the layer's listing; empty.
    pub(crate) listing: &'a File,
    pub(crate) compression: Compression,
    pub(crate) diff_id: &'a Digest,
    pub(crate) limits: &'a Limits,
    /// Is told how many compressed bytes have been read.
    pub(crate) progress: &'a (dyn Fn(u64) + Sync),
}

/// A filled buffer; the last reader's drop sends it back.
struct Chunk {
    bytes: Vec<u8>,
    home: SyncSender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // nobody waits for it once the producer is done
        self.home.send(std::mem::take(&mut self.bytes)).unwrap_or_default();
    }
}

/// What the consumers get: a buffer, or the news that the producer failed.
type Message = Option<Arc<Chunk>>;

/// Unpacks a layer into `root`, an empty directory, and verifies everything.
///
/// # Errors
/// The first of: the blob's size and digest, its compression, its entries, its
/// diff ID. What was written by then is the caller's to remove.
pub(crate) fn unpack(job: &Job<'_>, root: BorrowedFd<'_>) -> Result<Extracted> {
    let (to_extract, for_extract) = sync_channel::<Message>(CHUNKS);
    let (to_hash, for_hash) = sync_channel::<Message>(CHUNKS);
    thread::scope(|scope| {
        let hash = thread::Builder::new()
            .name("hash".into())
            .spawn_scoped(scope, move || hash(job.diff_id, &for_hash))
            .step(|| "start a thread")?;
        let write = thread::Builder::new()
            .name("extract".into())
            .spawn_scoped(scope, move || write(job, root, for_extract))
            .step(|| "start a thread")?;
        let produced = produce(job, &to_extract, &to_hash);
        let sent = if produced.is_ok() {
            // dropping the senders ends the streams
            Ok(())
        } else {
            to_extract.send(None).and(to_hash.send(None))
        };
        drop((to_extract, to_hash, sent));
        let written = write.join().map_err(|_panic| panicked())?;
        let hashed = hash.join().map_err(|_panic| panicked())?;
        produced?;
        let facts = written?;
        match hashed {
            Some(found) if found != *job.diff_id => Err(Error::invalid(format!(
                "wrong diff id: the unpacked data has {found}, the image's config says {}",
                job.diff_id
            ))),
            _ => Ok(facts),
        }
    })
}

fn panicked() -> Error {
    Error::new(crate::ErrorKind::System, "a thread of the import panicked")
}

/// Reads and inflates; a corrupt blob is told by its digest, whatever inflating
/// made of it.
fn produce(
    job: &Job<'_>,
    to_extract: &SyncSender<Message>,
    to_hash: &SyncSender<Message>,
) -> Result<()> {
    let mut reader = BlobReader::new(&job.blob);
    reader.copy_to(job.keep);
    let inflated = check_magic(&mut reader, job.compression).and_then(|()| match job.compression {
        Compression::None => pump(&mut reader, job, to_extract, to_hash, |r, b| {
            let n = r.read(b)?;
            (job.progress)(r.position());
            Ok(n)
        }),
        Compression::Gzip => pump(Gunzip::new(&mut reader), job, to_extract, to_hash, |d, b| {
            let n = d.read(b)?;
            (job.progress)(d.source().position());
            Ok(n)
        }),
        Compression::Zstd => pump(Unzstd::new(&mut reader), job, to_extract, to_hash, |d, b| {
            let n = d.read(b)?;
            (job.progress)(d.source().position());
            Ok(n)
        }),
    });
    reader.verify(job.progress)?;
    inflated.map_err(|e| match e.raw_os_error() {
        None => data_error(e),
        Some(_) => e.into(),
    })
}

fn pump<D>(
    mut decoder: D,
    job: &Job<'_>,
    to_extract: &SyncSender<Message>,
    to_hash: &SyncSender<Message>,
    mut read: impl FnMut(&mut D, &mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let most = job.limits.layer_bytes(job.blob.size);
    let (home, pool) = sync_channel::<Vec<u8>>(CHUNKS);
    for _ in 0..CHUNKS {
        home.send(Vec::new()).unwrap_or_default();
    }
    let mut total = 0u64;
    loop {
        let mut bytes = pool.recv().map_err(io::Error::other)?;
        bytes.resize(CHUNK, 0);
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match read(&mut decoder, rest)? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        bytes.truncate(filled);
        total += filled as u64;
        if total > most {
            return Err(bad(format!(
                "it unpacks to more than {most} bytes from {} compressed ones \
                 (if that is meant: tare image import --max-layer-size SIZE)",
                job.blob.size
            )));
        }
        let home = home.clone();
        let chunk = Arc::new(Chunk { bytes, home });
        // the extractor stops listening at the end mark or when it failed, and
        // only in the latter case is there nothing left to do
        if to_extract.send(Some(Arc::clone(&chunk))).is_err() {
            return Ok(());
        }
        to_hash.send(Some(chunk)).map_err(io::Error::other)?;
    }
}

/// A media type that does not fit the data is named as such.
fn check_magic(reader: &mut BlobReader<'_>, compression: Compression) -> io::Result<()> {
    let found = Compression::by_magic(reader.fill_buf()?);
    if found == compression {
        Ok(())
    } else {
        Err(bad(format!("wrong media type: it promises {compression}, the data is {found}")))
    }
}

fn hash(diff_id: &Digest, chunks: &Receiver<Message>) -> Option<Digest> {
    let mut hasher = Hasher::new(diff_id.algorithm());
    for chunk in chunks {
        hasher.update(&chunk?.bytes);
    }
    Some(hasher.finish())
}

fn write(job: &Job<'_>, root: BorrowedFd<'_>, chunks: Receiver<Message>) -> Result<Extracted> {
    // modes come from the archive as they are; the mask is this thread's alone
    // once it has its own file system attributes
    unshare(CloneFlags::CLONE_FS).step(|| "unshare the file mode mask")?;
    umask(Mode::empty());
    let mut source = ChunkReader { chunks, now: None, at: 0 };
    let facts =
        extract(&mut TarStream::new(&mut source, job.limits), root, job.listing, job.limits)?;
    // what follows the end mark counts for the hash: take it, so that the
    // producer goes on to its end
    while !source.fill_buf()?.is_empty() {
        source.at = usize::MAX;
    }
    Ok(facts)
}

/// The inflated stream, on the extractor's side.
struct ChunkReader {
    chunks: Receiver<Message>,
    now: Option<Arc<Chunk>>,
    at: usize,
}

impl ChunkReader {
    fn rest(&self) -> &[u8] {
        let now = self.now.as_ref();
        now.and_then(|c| c.bytes.get(self.at..)).unwrap_or_default()
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            // returned before waiting, or the pool could run dry
            self.now = None;
            self.at = 0;
            match self.chunks.recv() {
                Ok(Some(chunk)) => self.now = Some(chunk),
                Ok(None) => return Err(bad("the stream broke off")),
                Err(_end) => {}
            }
        }
        Ok(self.rest())
    }

    fn consume(&mut self, n: usize) {
        self.at = self.at.saturating_add(n);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl Source for &mut ChunkReader {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}
