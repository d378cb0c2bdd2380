//! Where bytes from elsewhere come in, one function a place, for the fuzz targets
//! in `fuzz/`: nothing else calls them.

use std::fs::File;
use std::os::fd::BorrowedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::extract::extract;
use super::limits::Limits;
use super::names::clean;
use super::remote;
use super::select::Platform;
use super::tarstream::TarStream;
use super::{manifest, reference};
use crate::error::Result;

/// Small bounds, so that reaching one takes no time.
fn limits() -> Limits {
    Limits { entries: 200, layer: Some(1 << 20), ..Limits::default() }
}

/// Reads an archive's headers; the answer is how many entries it has.
///
/// # Errors
/// What is wrong with it.
pub fn archive(data: &[u8]) -> Result<u64> {
    let limits = limits();
    let mut stream = TarStream::new(data, &limits);
    let mut entries = 0;
    while let Some(entry) = stream.next()? {
        clean(&entry.path, limits.path)?;
        entries += 1;
    }
    Ok(entries)
}

/// Unpacks an archive into `root`, an empty directory.
///
/// # Errors
/// What is wrong with it.
pub fn layer(data: &[u8], root: BorrowedFd<'_>) -> Result<()> {
    let limits = limits();
    let listing = File::from(memfd_create(c"listing", MFdFlags::MFD_CLOEXEC)?);
    extract(&mut TarStream::new(data, &limits), root, &listing, &limits).map(drop)
}

/// Parses a manifest, an index and a config, whichever it is.
///
/// # Errors
/// The last of what is wrong with it.
pub fn documents(data: &[u8]) -> Result<()> {
    let limits = limits();
    let parsed = [
        remote::document(data, "document", &Platform::host(), &limits).map(drop),
        manifest::index(data, "index").map(drop),
        manifest::manifest(data, "manifest", &limits).map(drop),
        manifest::config(data, 1).map(drop),
    ];
    parsed.into_iter().rfind(|one| one.is_err()).unwrap_or(Ok(()))
}

/// Parses an image's name; what it means has to mean itself.
///
/// # Errors
/// It is none, or its long form is not.
pub fn name(text: &str) -> Result<bool> {
    let parsed = reference::Reference::parse(text)?;
    Ok(reference::Reference::parse(&parsed.to_string())? == parsed)
}
