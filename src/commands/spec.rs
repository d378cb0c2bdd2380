//! `tare spec`.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::cli::SpecArgs;
use crate::error::{Error, ErrorKind, Step};
use crate::spec::defaults::{default_document, rootless_document};
use crate::sys::caller::caller;
use crate::sys::fs::open_dir;

pub(super) fn run(args: &SpecArgs) -> anyhow::Result<()> {
    let text = match args.rootless {
        true => rootless_document(caller().uid, caller().gid),
        false => default_document().to_owned(),
    };
    let bundle = args.bundle.as_deref().unwrap_or(Path::new("."));
    let name = args.file.as_deref().unwrap_or(Path::new("config.json"));
    let step = || bundle.join(name).display().to_string();
    let dir = open_dir(bundle).step(step)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let fd = match openat(&dir, name, flags, Mode::from_bits_truncate(0o666)) {
        Err(Errno::EEXIST) => {
            return Err(Error::new(ErrorKind::Exists, "it exists: remove it first")
                .step(step())
                .into());
        }
        other => other.step(step)?,
    };
    std::io::Write::write_all(&mut std::fs::File::from(fd), text.as_bytes()).step(step)?;
    Ok(())
}
