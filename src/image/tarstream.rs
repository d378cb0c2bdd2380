//! A tar archive as a stream of entries, whose data is handed out in place.
//!
//! The `tar` crate reads the header blocks. The loop around them is here since
//! it has to bound what one entry may say about itself, since PAX values may
//! hold newlines, and since data should go from the inflated buffer to the file
//! without a copy between.

use std::io::{self, BufRead, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::entry::{Entry, Extras, Kind, Run, Sparse, Time, bad, kind, number, shown};
use super::limits::Limits;

const BLOCK: u64 = 512;

/// Where an archive comes from. `skip` may seek.
pub(crate) trait Source: BufRead {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// Reads entries one after the other.
pub(crate) struct TarStream<'a, S> {
    source: S,
    limits: &'a Limits,
    /// What is left of the current entry's data.
    data: u64,
    /// The padding after it.
    padding: u64,
    position: u64,
    entries: u64,
}

impl<'a, S: Source> TarStream<'a, S> {
    pub(crate) fn new(source: S, limits: &'a Limits) -> Self {
        TarStream { source, limits, data: 0, padding: 0, position: 0, entries: 0 }
    }

    /// Where the stream is: after `next`, at the entry's data.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extras = Extras::default();
        let mut meta = self.limits.entry_meta;
        loop {
            self.skip_rest()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let header = Header::from_byte_slice(&block);
            check_sum(header)?;
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XGlobalHeader => self.set_size(size),
                EntryType::XHeader => {
                    if std::mem::replace(&mut extras.has_pax, true) {
                        return Err(bad("two PAX headers for one entry"));
                    }
                    let records = self.meta(size, &mut meta)?;
                    extras.pax(&records, self.limits)?;
                }
                EntryType::GNULongName => {
                    let name = self.long_name(size, &mut meta)?;
                    if extras.gnu_path.replace(name).is_some() {
                        return Err(bad("two long names for one entry"));
                    }
                }
                EntryType::GNULongLink => {
                    let name = self.long_name(size, &mut meta)?;
                    if extras.gnu_link.replace(name).is_some() {
                        return Err(bad("two long link names for one entry"));
                    }
                }
                _ => return self.entry(header, extras, meta).map(Some),
            }
        }
    }

    /// Hands out the next `len` bytes of the entry's data, piece by piece.
    pub(crate) fn data<E: From<io::Error>>(
        &mut self,
        len: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if len > self.data {
            return Err(bad("data beyond the entry's size").into());
        }
        let mut left = len;
        while left > 0 {
            let piece = self.source.fill_buf()?;
            if piece.is_empty() {
                return Err(truncated().into());
            }
            let take = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(piece.get(..take).unwrap_or_default())?;
            self.source.consume(take);
            left -= take as u64;
            self.data -= take as u64;
            self.position += take as u64;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, mut extras: Extras, meta: u64) -> io::Result<Entry> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(bad(format!("more than {} entries", self.limits.entries)));
        }
        let path = extras
            .sparse
            .name
            .take()
            .or(extras.path.take())
            .or(extras.gnu_path.take())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let named = |e: io::Error| bad(format!("{}: {e}", shown(&path)));
        let link = extras
            .link
            .take()
            .or(extras.gnu_link.take())
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let kind = kind(header.entry_type(), &path)?;
        let size = extras.size.map_or_else(|| header.entry_size(), Ok)?;
        if kind != Kind::File && size != 0 {
            // readers disagree on whether such data is there: an archive could
            // show one tree to a scanner and another to us
            return Err(named(bad("only a file may have data")));
        }
        self.set_size(size);
        let sparse = self.sparse(header, &extras, meta).map_err(named)?;
        Ok(Entry {
            kind,
            mode: header.mode().map_err(named)? & 0o7777,
            uid: id(extras.uid.map_or_else(|| header.uid(), Ok).map_err(named)?).map_err(named)?,
            gid: id(extras.gid.map_or_else(|| header.gid(), Ok).map_err(named)?).map_err(named)?,
            mtime: extras.mtime.map_or_else(|| mtime(header), Ok).map_err(named)?,
            size: self.data,
            device: device(header, kind).map_err(named)?,
            xattrs: extras.xattrs,
            sparse,
            path,
            link,
        })
    }

    /// The map of a sparse file, in GNU tar's old form or one of the three in
    /// PAX records.
    fn sparse(&mut self, header: &Header, pax: &Extras, meta: u64) -> io::Result<Option<Sparse>> {
        let pax = &pax.sparse;
        let sparse = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_sparse(header, meta)?
        } else if pax.major == Some(1) {
            let real_size = pax.real_size.ok_or_else(|| bad("sparse without a size"))?;
            let mut left = meta;
            let count = self.map_number(&mut left)?;
            let mut runs = Vec::new();
            for _ in 0..count {
                let offset = self.map_number(&mut left)?;
                let len = self.map_number(&mut left)?;
                runs.push(Run { offset, len });
            }
            // the map is padded to a block, as if it were a file of its own
            let used = (meta - left) % BLOCK;
            if used != 0 {
                self.data(BLOCK - used, |_| io::Result::Ok(()))?;
            }
            Sparse { real_size, runs }
        } else if !pax.map.is_empty() || pax.major == Some(0) {
            let real_size = pax.real_size.ok_or_else(|| bad("sparse without a size"))?;
            let (pairs, rest) = pax.map.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(bad("an odd sparse map"));
            }
            let runs = pairs.iter().map(|[offset, len]| Run { offset: *offset, len: *len });
            Sparse { real_size, runs: runs.collect() }
        } else {
            return Ok(None);
        };
        sparse.check(self.data)?;
        Ok(Some(sparse))
    }

    fn gnu_sparse(&mut self, header: &Header, mut meta: u64) -> io::Result<Sparse> {
        let gnu = header.as_gnu().ok_or_else(|| bad("sparse, but not GNU's"))?;
        let mut runs = Vec::new();
        let mut add = |block: &tar::GnuSparseHeader| -> io::Result<()> {
            if !block.is_empty() {
                runs.push(Run { offset: block.offset()?, len: block.length()? });
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            meta = meta.checked_sub(BLOCK).ok_or_else(|| bad("the sparse map is too long"))?;
            let mut ext = GnuExtSparseHeader::new();
            self.read_exact(ext.as_mut_bytes())?;
            ext.sparse().iter().try_for_each(&mut add)?;
            more = ext.is_extended();
        }
        Ok(Sparse { real_size: gnu.real_size()?, runs })
    }

    /// A decimal line of a 1.0 sparse map, out of the entry's data.
    fn map_number(&mut self, left: &mut u64) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            *left = left
                .checked_sub(1)
                .filter(|_| digits.len() < 20)
                .ok_or_else(|| bad("the sparse map is too long"))?;
            let mut byte = 0;
            self.data(1, |piece| {
                byte = piece.first().copied().unwrap_or_default();
                io::Result::Ok(())
            })?;
            if byte == b'\n' {
                return number(&digits);
            }
            digits.push(byte);
        }
    }

    fn set_size(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        if self.data > 0 {
            self.source.skip(self.data)?;
            self.position += self.data;
            self.data = 0;
        }
        // umoci before 0.6 ends a layer right after the last byte of the last
        // file: such images are everywhere, and nothing of theirs is missing
        while self.padding > 0 {
            let piece = self.source.fill_buf()?.len();
            if piece == 0 {
                self.padding = 0;
            }
            let take = piece.min(usize::try_from(self.padding).unwrap_or(usize::MAX));
            self.source.consume(take);
            self.position += take as u64;
            self.padding -= take as u64;
        }
        Ok(())
    }

    /// The next header block; `None` at the end mark or the end of the data.
    fn block(&mut self) -> io::Result<Option<[u8; 512]>> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut block = [0u8; 512];
        self.read_exact(&mut block)?;
        Ok(block.iter().any(|b| *b != 0).then_some(block))
    }

    fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        Read::read_exact(&mut self.source, into).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            _ => e,
        })?;
        self.position += into.len() as u64;
        Ok(())
    }

    /// The whole data of a header-like entry, within what is left of `allowed`.
    fn meta(&mut self, size: u64, allowed: &mut u64) -> io::Result<Vec<u8>> {
        *allowed = allowed.checked_sub(size).ok_or_else(|| {
            let most = self.limits.entry_meta;
            bad(format!("names and attributes of an entry exceed {most} bytes"))
        })?;
        self.set_size(size);
        let mut all = Vec::new();
        self.data(size, |piece| {
            all.extend_from_slice(piece);
            io::Result::Ok(())
        })?;
        Ok(all)
    }

    fn long_name(&mut self, size: u64, allowed: &mut u64) -> io::Result<Vec<u8>> {
        let mut name = self.meta(size, allowed)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl Sparse {
    /// Runs go forward, stay inside, and add up to the data that there is.
    fn check(&self, data: u64) -> io::Result<()> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for run in &self.runs {
            let last = run.offset.checked_add(run.len);
            match last {
                Some(last) if run.offset >= end && last <= self.real_size => end = last,
                _ => return Err(bad("the sparse map overlaps or leaves the file")),
            }
            sum += run.len;
        }
        if sum != data || i64::try_from(self.real_size).is_err() {
            return Err(bad("the sparse map does not fit the data"));
        }
        Ok(())
    }
}

fn truncated() -> io::Error {
    bad("the archive ends in the middle of an entry")
}

fn check_sum(header: &Header) -> io::Result<()> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes.iter().map(|b| u32::from(*b)).sum();
    let field: u32 = bytes.iter().skip(148).take(8).map(|b| u32::from(*b)).sum();
    match header.cksum() {
        Ok(sum_there) if sum_there == sum - field + 8 * u32::from(b' ') => Ok(()),
        _ => Err(bad("not a tar header (wrong checksum)")),
    }
}

/// An owner. -1 would mean "leave it" to chown.
fn id(id: u64) -> io::Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(format!("owner {id} is out of range")))
}

fn mtime(header: &Header) -> io::Result<Time> {
    // base-256 numbers may be negative: two's complement in 64 bits
    Ok(Time { secs: header.mtime()?.cast_signed(), nanos: 0 })
}

fn device(header: &Header, kind: Kind) -> io::Result<(u32, u32)> {
    if !matches!(kind, Kind::Char | Kind::Block) {
        return Ok((0, 0));
    }
    match (header.device_major()?, header.device_minor()?) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(bad("a device without numbers")),
    }
}

/// In-memory and buffered sources skip by reading on.
pub(crate) fn skip_by_reading(source: &mut impl BufRead, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let piece = source.fill_buf()?.len();
        if piece == 0 {
            return Err(truncated());
        }
        let take = piece.min(usize::try_from(bytes).unwrap_or(usize::MAX));
        source.consume(take);
        bytes -= take as u64;
    }
    Ok(())
}

impl Source for &[u8] {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}
