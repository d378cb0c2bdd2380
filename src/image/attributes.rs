//! What an entry says of its file: data, owner, mode, attributes, times.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, ftruncate, getegid, geteuid};
use twox_hash::XxHash3_128;

use super::entry::{Entry, Time};
use super::extract::data_error;
use super::form;
use super::listing::{self, Data, Facts, Name};
use super::tarstream::{Source, TarStream};
use crate::error::{Result, Step};
use crate::sys::fs::set_xattr;

/// Writes the data of a file and hashes it on its way.
pub(crate) fn write_data<S: Source>(
    mut file: &File,
    entry: &Entry,
    stream: &mut TarStream<'_, S>,
) -> Result<Data> {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    let mut hasher = XxHash3_128::new();
    let Some(sparse) = &entry.sparse else {
        let write = |piece: &[u8]| {
            hasher.write(piece);
            file.write_all(piece)
        };
        stream.data(entry.size, write).map_err(data_error)?;
        return Ok(Data { size: entry.size, hash: hasher.finish_128(), runs: None });
    };
    ftruncate(file, sparse.real_size.cast_signed())?;
    for run in &sparse.runs {
        let mut at = run.offset;
        stream
            .data(run.len, |piece| {
                hasher.write(piece);
                file.write_all_at(piece, at)?;
                at += piece.len() as u64;
                io::Result::Ok(())
            })
            .map_err(data_error)?;
    }
    let runs = Some(listing::runs(&sparse.runs));
    Ok(Data { size: sparse.real_size, hash: hasher.finish_128(), runs })
}

/// Owner, special mode bits and attributes, in the order in which none takes
/// away another: chown clears setuid and capabilities.
pub(crate) fn dress<'e>(fd: BorrowedFd<'_>, entry: &'e Entry) -> Result<Facts<'e>> {
    let mut owned = true;
    if entry.uid != 0 || entry.gid != 0 {
        owned = own(fd, entry)?;
    }
    if entry.mode & 0o7000 != 0 {
        fchmod(fd, Mode::from_bits_truncate(entry.mode))?;
    }
    for (key, value) in kept_xattrs(entry) {
        set(fd, &key, value)?;
    }
    Ok(facts(entry, owned))
}

fn own(fd: BorrowedFd<'_>, entry: &Entry) -> Result<bool> {
    form::owned(fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))
}

pub(crate) fn set(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let key = CString::new(key).map_err(|_nul| Errno::EINVAL)?;
    set_xattr(fd, &key, value).step(|| format!("attribute {key:?}"))
}

/// The bit of a directory that what is made in it would inherit with its group: it comes
/// last, when nothing more is made.
const INHERITED_MODE: u32 = 0o2000;
/// The attribute of which the same is true.
pub(crate) const INHERITED_XATTR: &[u8] = b"system.posix_acl_default";

/// The same for a directory that may have been there before, but for what is inherited.
pub(crate) fn dress_dir<'e>(fd: BorrowedFd<'_>, entry: &'e Entry) -> Result<Facts<'e>> {
    let owned = own(fd, entry)?;
    fchmod(fd, Mode::from_bits_truncate(entry.mode & !INHERITED_MODE))?;
    for (key, value) in kept_xattrs(entry).filter(|(key, _)| key.as_ref() != INHERITED_XATTR) {
        set(fd, &key, value)?;
    }
    Ok(facts(entry, owned))
}

/// What an entry has become, its owner included unless the user namespace lacks that.
pub(crate) fn facts(entry: &Entry, owned: bool) -> Facts<'_> {
    let own = || (geteuid().as_raw(), getegid().as_raw());
    let (uid, gid) = if owned { (entry.uid, entry.gid) } else { own() };
    let xattrs = kept_xattrs(entry).map(|(key, value)| (Name(key), value.into())).collect();
    let mtime = (entry.mtime.secs, entry.mtime.nanos);
    Facts { mode: entry.mode, uid, gid, mtime, xattrs }
}

/// The attributes that a layer keeps, under the names that they have in it.
pub(crate) fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    let kept = |(key, value)| Some((form::kept_name(key)?, value));
    entry.xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).filter_map(kept)
}

pub(crate) fn spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.secs, time.nanos)
}
