//! One blob as a verified stream: its size and digest are checked at its end.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;

use super::digest::{Digest, Hasher};
use super::entry::bad;
use crate::error::{Error, Result};

const BUFFER: usize = 256 << 10;

/// Where a blob lies: a part of a file that is open.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl Blob {
    /// The digest that the data has, by reading it.
    pub(crate) fn hash(&self) -> Result<Digest> {
        let mut reader = BlobReader::new(self);
        while !reader.fill_buf()?.is_empty() {
            reader.start = reader.end;
        }
        Ok(reader.hasher.finish())
    }

    /// The whole blob in memory, verified.
    pub(crate) fn read(&self, most: u64) -> Result<Vec<u8>> {
        if self.size > most {
            return Err(Error::invalid(format!(
                "{} bytes, more than the {most} allowed for a document",
                self.size
            )));
        }
        let mut all = Vec::new();
        let mut reader = BlobReader::new(self);
        reader.read_to_end(&mut all)?;
        reader.verify(&|_| ())?;
        Ok(all)
    }
}

/// Reads a blob and hashes what it reads.
pub(crate) struct BlobReader<'a> {
    blob: &'a Blob,
    hasher: Hasher,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read: u64,
    copy: Option<&'a File>,
}

impl<'a> BlobReader<'a> {
    pub(crate) fn new(blob: &'a Blob) -> Self {
        BlobReader {
            blob,
            hasher: Hasher::new(blob.digest.algorithm()),
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            read: 0,
            copy: None,
        }
    }

    /// Writes what is read to a file as well.
    pub(crate) fn copy_to(&mut self, file: Option<&'a File>) {
        self.copy = file;
    }

    /// How far the stream is.
    pub(crate) fn position(&self) -> u64 {
        self.read
    }

    /// Reads to the end, and holds size and digest against the descriptor.
    pub(crate) fn verify(mut self, progress: &dyn Fn(u64)) -> Result<()> {
        while !self.fill_buf()?.is_empty() {
            self.start = self.end;
            progress(self.read);
        }
        let found = self.hasher.finish();
        if found == self.blob.digest {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "wrong digest: the data has {found} (the image is corrupt)"
            )))
        }
    }
}

impl BufRead for BlobReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let left = self.blob.size - self.read;
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let into = self.buffer.get_mut(..want).unwrap_or_default();
            self.blob.file.read_exact_at(into, self.blob.offset + self.read).map_err(
                |e| match e.kind() {
                    io::ErrorKind::UnexpectedEof => bad("the blob is cut off"),
                    _ => e,
                },
            )?;
            let n = want;
            self.read += n as u64;
            (self.start, self.end) = (0, n);
            let read = self.buffer.get(..n).unwrap_or_default();
            self.hasher.update(read);
            if let Some(mut copy) = self.copy {
                copy.write_all(read)?;
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start + n);
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}
