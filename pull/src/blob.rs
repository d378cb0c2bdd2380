//! The download of one layer: verified while it comes, gone on with where it
//! broke off.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use tare::error::{Error, ErrorKind, Result, Step};
use tare::image::digest::Hasher;
use tare::image::remote::Part;

use crate::http::{Pace, Reply};
use crate::layout::Layout;
use crate::progress::Bar;
use crate::registry::Registry;
use crate::retry::{Attempt, Failure, Tries};

const BUFFER: usize = 128 << 10;
/// A try that brings as much as this does not count as one that failed.
const WORTH_IT: u64 = 1 << 20;

/// A layer on its way.
struct Download<'a> {
    part: &'a Part,
    file: File,
    hasher: Hasher,
    /// Bytes that are in the file and in the hash.
    there: u64,
    bar: &'a Bar,
}

/// Downloads a layer into the layout.
///
/// # Errors
/// Another digest or size than the manifest says; a registry that can't be had.
pub(crate) fn fetch(registry: &Registry, layout: &Layout, part: &Part, bar: &Bar) -> Result<()> {
    let target = layout.blob(&part.digest);
    if target.symlink_metadata().is_ok() {
        bar.set(part.size);
        return Ok(());
    }
    let path = layout.partial(&part.digest);
    let mut download = Download::open(&path, part, bar)?;
    let resumed = download.there > 0;
    download.run(registry)?;
    if let Err(e) = download.verify() {
        // the old part may have been at fault, but only once
        if !resumed {
            fs::remove_file(&path).step(|| "clean up")?;
            return Err(e);
        }
        download.restart()?;
        download.run(registry)?;
        if let Err(e) = download.verify() {
            fs::remove_file(&path).step(|| "clean up")?;
            return Err(e);
        }
    }
    fs::rename(&path, &target).step(|| format!("rename to {}", target.display()))
}

impl<'a> Download<'a> {
    /// Opens the file and hashes what is in it already.
    fn open(path: &Path, part: &'a Part, bar: &'a Bar) -> Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.step(|| format!("open {}", path.display()))?;
        let hasher = Hasher::new(part.digest.algorithm());
        let mut download = Download { part, file, hasher, there: 0, bar };
        if download.file.metadata()?.len() > part.size {
            download.restart()?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = download.file.read(&mut buffer)?;
            let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else { break };
            download.hasher.update(piece);
            download.there += n as u64;
        }
        bar.set(download.there);
        Ok(download)
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new(self.part.digest.algorithm());
        self.there = 0;
        Ok(())
    }

    fn verify(&self) -> Result<()> {
        let found = self.hasher.clone().finish();
        match found == self.part.digest {
            true => Ok(()),
            false => Err(Error::invalid(format!("wrong digest: what came has {found}"))),
        }
    }

    /// Requests until all is there.
    fn run(&mut self, registry: &Registry) -> Result<()> {
        let mut tries = Tries::default();
        while self.there < self.part.size {
            let before = self.there;
            let asked = registry.layer(&self.part.digest, before);
            if let Err(failure) = asked.and_then(|reply| self.take(reply)) {
                if self.there.saturating_sub(before) >= WORTH_IT {
                    tries.forget();
                }
                tries.after(failure)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, reply: Reply) -> Attempt<()> {
        match reply.status {
            206 => self.check_range(&reply)?,
            416 => {
                self.restart()?;
                let e = Error::new(ErrorKind::System, "the server has no such range");
                return Err(Failure::passing(e));
            }
            _ => self.restart()?,
        }
        let left = self.part.size - self.there;
        let told = reply.header("content-length").and_then(|n| n.parse::<u64>().ok());
        if let Some(told) = told.filter(|told| *told != left) {
            return Err(self.wrong_size(&format!("{told} bytes are to come, not {left}")).into());
        }
        self.receive(reply.body)
    }

    /// `bytes 100-199/200`
    fn check_range(&self, reply: &Reply) -> Result<()> {
        let text = reply.header("content-range").unwrap_or_default();
        let fits = text.strip_prefix("bytes ").and_then(|rest| {
            let (range, whole) = rest.split_once('/')?;
            let first: u64 = range.split_once('-')?.0.parse().ok()?;
            Some(first == self.there && (whole == "*" || whole.parse() == Ok(self.part.size)))
        });
        match fits {
            Some(true) => Ok(()),
            _ => {
                Err(Error::invalid(format!("content-range {text:.100?} is not what was asked for")))
            }
        }
    }

    fn receive(&mut self, mut body: impl Read) -> Attempt<()> {
        let mut buffer = vec![0; BUFFER];
        let mut pace = Pace::default();
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Failure::passing(Error::from(e).step("the connection broke")));
                }
            };
            let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else { break };
            if n as u64 > self.part.size - self.there {
                return Err(self.wrong_size("more is coming").into());
            }
            self.file.write_all(piece)?;
            self.hasher.update(piece);
            self.there += n as u64;
            self.bar.set(self.there);
            pace.check(n as u64)?;
        }
        if self.there < self.part.size {
            let e = Error::new(ErrorKind::System, "the connection ended too early");
            return Err(Failure::passing(e));
        }
        Ok(())
    }

    fn wrong_size(&self, why: &str) -> Error {
        Error::invalid(format!("wrong size: {} bytes by the manifest, {why}", self.part.size))
    }
}
