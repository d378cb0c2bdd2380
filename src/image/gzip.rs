//! Gzip members (RFC 1952), one after the other, as one stream.
//!
//! The checksum of a member is not looked at: it says less of the inflated data than the
//! digest that this is held against, and would take a tenth of the time that inflating
//! takes. The member's length is.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::entry::bad;

/// Names and comments of a header are passed over, up to this length.
const MOST_TEXT: u64 = 64 << 10;

/// Inflates what it reads.
pub(crate) struct Gunzip<R> {
    source: R,
    inflate: Decompress,
    /// A member is open.
    inside: bool,
    /// One member at least has been read to its end.
    some: bool,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(source: R) -> Self {
        Gunzip { source, inflate: Decompress::new(false), inside: false, some: false }
    }

    pub(crate) fn source(&self) -> &R {
        &self.source
    }

    /// False at the end of the stream.
    fn open(&mut self) -> io::Result<bool> {
        // flags
        const HEADER_CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;

        if self.some && self.source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let [0x1f, 0x8b, 8, flags, ..] = self.bytes::<10>()? else {
            return Err(bad("not a gzip header"));
        };
        if flags & !(1 | HEADER_CRC | EXTRA | NAME | COMMENT) != 0 {
            return Err(bad("a gzip header with unknown flags"));
        }
        if flags & EXTRA != 0 {
            let len = u64::from(u16::from_le_bytes(self.bytes()?));
            let found = io::copy(&mut self.source.by_ref().take(len), &mut io::sink())?;
            if found < len {
                return Err(cut());
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                self.skip_text()?;
            }
        }
        if flags & HEADER_CRC != 0 {
            self.bytes::<2>()?;
        }
        self.inflate.reset(false);
        self.inside = true;
        Ok(true)
    }

    fn skip_text(&mut self) -> io::Result<()> {
        let mut left = MOST_TEXT;
        while left > 0 {
            if self.bytes()? == [0] {
                return Ok(());
            }
            left -= 1;
        }
        Err(bad("a gzip header with a name of more than 64 KiB"))
    }

    fn close(&mut self) -> io::Result<()> {
        let [_, _, _, _, length @ ..] = self.bytes::<8>()?;
        if u64::from(u32::from_le_bytes(length)) != self.inflate.total_out() & 0xffff_ffff {
            return Err(bad("a gzip member has not the length that it says"));
        }
        (self.inside, self.some) = (false, true);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => cut(),
            _ => e,
        })?;
        Ok(bytes)
    }
}

fn cut() -> io::Error {
    bad("the gzip stream is cut off")
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if into.is_empty() || (!self.inside && !self.open()?) {
                return Ok(0);
            }
            let from = self.source.fill_buf()?;
            let ended = from.is_empty();
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(from, into, FlushDecompress::None);
            let status = status.map_err(|e| bad(format!("corrupt gzip data: {e}")))?;
            let count = |n: u64| usize::try_from(n).map_err(io::Error::other);
            self.source.consume(count(self.inflate.total_in() - read)?);
            let written = count(self.inflate.total_out() - written)?;
            match status {
                Status::StreamEnd => self.close()?,
                _ if ended && written == 0 => return Err(cut()),
                _ => {}
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};

    use super::*;

    fn member(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(bytes: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let source = io::BufReader::with_capacity(buffer, bytes);
        Gunzip::new(source).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn members_are_one_stream_wherever_its_buffers_end() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let mut bytes = member(&data);
        bytes.extend(member(b""));
        let header = GzBuilder::new().filename("name").comment("comment").extra(vec![7; 300]);
        let mut encoder = header.write(Vec::new(), Compression::best());
        encoder.write_all(b"end").unwrap();
        bytes.extend(encoder.finish().unwrap());
        for buffer in [1, 2, 3, 1000, 1 << 20] {
            let found = gunzip(&bytes, buffer).unwrap();
            assert!(found == [&data[..], b"end"].concat(), "{buffer}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_gzip_is_refused() {
        let whole = [member(b"some data, some data"), member(b"more of it")].concat();
        let first = member(b"some data, some data").len();
        for cut in (0..whole.len()).filter(|cut| *cut != first) {
            gunzip(&whole[..cut], 64).unwrap_err();
        }
        gunzip(&[&whole[..], b"x"].concat(), 64).unwrap_err();
        gunzip(b"0123456789 and more", 64).unwrap_err();
        for (at, what) in [(2, 7), (3, 0x20), (whole.len() - 1, 1)] {
            let mut spoiled = whole.clone();
            spoiled[at] = what;
            gunzip(&spoiled, 64).unwrap_err();
        }
    }
}
