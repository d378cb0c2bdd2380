//! `image pull`: has `tare-pull` download an image, and imports it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::cli::ImagePullArgs;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::digest::Digest;
use crate::image::limits::Limits;
use crate::image::reference::Reference;
use crate::image::select::{Platform, Selector};
use crate::image::store::{ImportOptions, Store, check_name};
use crate::sys::lock::{FileLock, Sharing};
use crate::sys::process::end_with_parent;

const PROGRAM: &str = "tare-pull";

/// The answer is the exit code.
pub(super) fn run(store: &Store, args: &ImagePullArgs) -> Result<i32> {
    let reference = Reference::parse(&args.name)?;
    // all that can be wrong is looked at before anything is fetched
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let limits = super::image::limits(&args.bounds)?;
    let name = args.store_name.clone().unwrap_or_else(|| reference.to_string());
    check_name(&name)?;
    let program = find_program()?;
    // layers that need not be fetched must not go meanwhile
    let _lock = store.prepare()?;
    let key = format!("{reference} {}", args.platform.as_deref().unwrap_or_default());
    let download = Download::open(&store.downloads(), Digest::of(key.as_bytes()).hex())?;
    let status = download.fetch(&program, store, args, &limits)?;
    if !status.success() {
        // it has said why; what is there is kept for the next try
        warned(download.remove_if_empty());
        crate::logging::error(&format!("image: {PROGRAM} {}: {status}", args.name), None);
        return Ok(1);
    }
    super::become_root_of_files()?;
    let options = ImportOptions {
        name: Some(name),
        selector: Selector { reference: None, platform },
        limits,
        keep_blobs: args.keep_blobs,
    };
    let imported = store.import(&download.dir, &options);
    // what is broken would be found broken again
    warned(download.remove());
    warned(store.forgotten(false));
    for record in imported? {
        writeln!(io::stdout(), "{} {}", record.name, record.digest).step(|| super::PRINTING)?;
    }
    Ok(0)
}

/// What could not be cleaned up changes nothing of what came of the pull.
fn warned<T>(cleaned: Result<T>) {
    if let Err(e) = cleaned {
        crate::logging::warn(&format!("image: clean up downloads: {e}"));
    }
}

/// Beside this binary, or where the shell would find it.
fn find_program() -> Result<PathBuf> {
    let beside = fs::read_link("/proc/self/exe").ok();
    let beside = beside.and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = beside.into_iter().chain(std::env::split_paths(&path));
    let is_program = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file());
    dirs.find_map(|dir| Some(dir.join(PROGRAM)).filter(is_program)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{PROGRAM} is neither beside tare nor in PATH"))
            .hint("it comes with tare; skopeo copy docker://NAME oci-archive:FILE does it as well")
    })
}

/// A directory that an image is downloaded into: whoever pulls the same one
/// meanwhile waits, and finds it in the store.
struct Download {
    dir: PathBuf,
    _lock: FileLock,
}

impl Download {
    fn open(downloads: &Path, key: &str) -> Result<Self> {
        let dir = downloads.join(key);
        let step = || format!("download to {}", dir.display());
        loop {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&dir).step(step)?;
            let opened = File::open(&dir).step(step)?;
            let lock = FileLock::wait(opened, Sharing::Exclusive).step(step)?;
            // who had it before may have removed it, and a third one made it anew
            if lock.is_of(&dir).step(step)? {
                return Ok(Download { dir, _lock: lock });
            }
        }
    }

    fn fetch(
        &self,
        program: &Path,
        store: &Store,
        args: &ImagePullArgs,
        limits: &Limits,
    ) -> Result<ExitStatus> {
        let mut command = Command::new(program);
        command.arg(&args.name).arg(&self.dir).arg("--store").arg(store.path());
        let options = [
            ("--platform", args.platform.as_deref().map(OsStr::new)),
            ("--ca-file", args.ca_file.as_deref().map(Path::as_os_str)),
            ("--auth-file", args.auth_file.as_deref().map(Path::as_os_str)),
        ];
        for (option, value) in options {
            command.args(value.map(|value| [OsStr::new(option), value]).into_iter().flatten());
        }
        let flags = [
            ("--plain-http", args.plain_http),
            ("--insecure", args.insecure),
            ("--quiet", args.quiet),
            ("--keep-blobs", args.keep_blobs),
        ];
        command.args(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| flag));
        command.arg(format!("--max-document-size={}", limits.json));
        command.args(args.jobs.map(|jobs| format!("--jobs={jobs}")));
        // the locks go with this process: it must not go on writing without them
        end_with_parent(&mut command);
        command.status().step(|| format!("run {}", program.display()))
    }

    /// Nothing came: there is nothing to go on with.
    fn remove_if_empty(&self) -> Result<()> {
        match fs::remove_dir(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => Err(e.into()),
            _ => Ok(()),
        }
    }

    fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).step(|| format!("remove {}", self.dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of three, the second must not have the lock of a directory that is gone.
    #[test]
    fn a_directory_made_anew_is_locked_anew() {
        let downloads = tempfile::tempdir().unwrap();
        let first = Download::open(downloads.path(), "x").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Download::open(downloads.path(), "x").unwrap());
            // until it waits
            std::thread::sleep(std::time::Duration::from_millis(300));
            first.remove().unwrap();
            fs::create_dir(&first.dir).unwrap();
            let dir = first.dir.clone();
            drop(first);
            let second = second.join().unwrap();
            let third = FileLock::try_now(File::open(dir).unwrap(), Sharing::Exclusive).unwrap();
            assert!(third.is_none(), "{} is not locked", second.dir.display());
        });
    }
}
