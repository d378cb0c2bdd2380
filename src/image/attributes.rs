//! What an entry says of its file: data, owner, mode, attributes, times.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, ftruncate};

use super::entry::{Entry, Time};
use super::extract::data_error;
use super::form;
use super::tarstream::{Source, TarStream};
use crate::error::{Result, Step};
use crate::sys::fs::set_xattr;

pub(crate) fn write_data<S: Source>(
    mut file: &File,
    entry: &Entry,
    stream: &mut TarStream<'_, S>,
) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    let Some(sparse) = &entry.sparse else {
        return stream.data(entry.size, |piece| file.write_all(piece)).map_err(data_error);
    };
    ftruncate(file, sparse.real_size.cast_signed())?;
    for run in &sparse.runs {
        let mut at = run.offset;
        stream
            .data(run.len, |piece| {
                file.write_all_at(piece, at)?;
                at += piece.len() as u64;
                io::Result::Ok(())
            })
            .map_err(data_error)?;
    }
    Ok(())
}

/// Owner, special mode bits and attributes, in the order in which none takes
/// away another: chown clears setuid and capabilities.
pub(crate) fn dress(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    if entry.uid != 0 || entry.gid != 0 {
        own(fd, entry)?;
    }
    if entry.mode & 0o7000 != 0 {
        fchmod(fd, Mode::from_bits_truncate(entry.mode))?;
    }
    for (key, value) in kept_xattrs(entry) {
        let key = CString::new(key.as_ref()).map_err(|_nul| Errno::EINVAL)?;
        set_xattr(fd, &key, value).step(|| format!("attribute {key:?}"))?;
    }
    Ok(())
}

fn own(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    form::owned(fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))
}

/// The same for a directory that may have been there before.
pub(crate) fn dress_dir(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    own(fd, entry)?;
    fchmod(fd, Mode::from_bits_truncate(entry.mode))?;
    dress(fd, entry)
}

/// The attributes that a layer keeps, under the names that they have in it.
pub(crate) fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    let kept = |(key, value)| Some((form::kept_name(key)?, value));
    entry.xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).filter_map(kept)
}

pub(crate) fn spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.secs, time.nanos)
}
