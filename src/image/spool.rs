//! A stream into a file, inflated on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::entry::bad;
use super::extract::data_error;
use super::limits::Limits;
use super::manifest::Compression;
use super::unzstd::Unzstd;
use crate::error::Result;

const BUFFER: usize = 256 << 10;

/// Copies `from` to `to`. What is compressed is inflated, and refused if it grows
/// beyond what a layer of its size might.
///
/// # Errors
/// Invalid for data that is broken; System for what can't be read or written.
pub(crate) fn spool(from: File, to: &File, limits: &Limits) -> Result<()> {
    let mut counted = BufReader::with_capacity(BUFFER, Counted { from, bytes: 0 });
    let copied = match Compression::by_magic(counted.fill_buf()?) {
        Compression::None => {
            // as it is: who sends it has it at that size
            return Ok(io::copy(&mut counted, &mut &*to).map(drop)?);
        }
        Compression::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(counted);
            inflate(decoder, to, limits, |d| d.get_ref().get_ref().bytes)
        }
        Compression::Zstd => {
            inflate(Unzstd::new(counted), to, limits, |d| d.source().get_ref().bytes)
        }
    };
    copied.map_err(data_error)
}

struct Counted {
    from: File,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

fn inflate<D: Read>(
    mut decoder: D,
    mut to: &File,
    limits: &Limits,
    compressed: impl Fn(&D) -> u64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0u64;
    loop {
        let n = match decoder.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if n == 0 {
            return Ok(());
        }
        total += n as u64;
        if total > limits.layer_bytes(compressed(&decoder)) {
            return Err(bad(format!(
                "the archive unpacks to more than {total} bytes from {} compressed ones \
                 (if that is meant: --max-ratio or --max-layer-size)",
                compressed(&decoder)
            )));
        }
        to.write_all(buffer.get(..n).unwrap_or_default())?;
    }
}
