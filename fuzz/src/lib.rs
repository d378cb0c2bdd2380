//! Fuzz targets: each takes any bytes, and panics if tare does what it must not.
//!
//! They are plain functions, so that they run on a stable compiler: the test
//! `corpus` runs seeds and some changes of them, the binary does so for as long as it
//! is told, and a coverage-guided fuzzer takes them as they are.

#![allow(clippy::disallowed_methods, reason = "scratch files, which a kill may leave half")]

pub mod mutate;
pub mod seeds;

use std::fs;
use std::os::fd::AsFd;

use tare::image::fuzz;
use tare::image::limits::Limits;
use tare::image::store::{ImportOptions, Store};

/// A target: its name, itself, and what to begin with.
pub struct Target {
    /// Name, on the command line and of its directory in `corpus`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Well-formed inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes a changed input plausible again.
    pub repair: fn(&mut [u8]),
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "archive", run: archive, seeds: seeds::archives, repair: mutate::checksums },
    Target { name: "layer", run: layer, seeds: seeds::archives, repair: mutate::checksums },
    Target { name: "docker", run: docker, seeds: seeds::docker, repair: mutate::checksums },
    Target { name: "documents", run: documents, seeds: seeds::documents, repair: |_| {} },
    Target { name: "name", run: name, seeds: seeds::names, repair: |_| {} },
];

/// The headers of an archive: it has no more entries than the limit.
pub fn archive(data: &[u8]) {
    if let Ok(entries) = fuzz::archive(data) {
        assert!(entries <= 200, "{entries} entries");
    }
}

/// A layer: nothing appears or changes outside of its directory, and no more bytes
/// than the limit inside.
///
/// # Panics
/// It did; or the scratch directory can't be had.
pub fn layer(data: &[u8]) {
    let dir = scratch();
    let root = dir.path().join("root");
    let outside = dir.path().join("outside");
    fs::create_dir(&root).expect("mkdir");
    fs::write(&outside, "untouched").expect("a file outside");
    let opened = fs::File::open(&root).expect("open");
    let unpacked = fuzz::layer(data, opened.as_fd());
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["outside", "root"], "something is outside");
    assert_eq!(fs::read(&outside).expect("read"), b"untouched");
    if let Err(e) = unpacked {
        assert!(!e.to_string().is_empty());
    }
}

fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a scratch directory")
}

/// What `docker save` writes: it is imported whole, and verified, or leaves nothing.
///
/// # Panics
/// It did neither; or the scratch directory can't be had.
pub fn docker(data: &[u8]) {
    let dir = scratch();
    let archive = dir.path().join("archive.tar");
    fs::write(&archive, data).expect("write");
    let path = dir.path().join("store");
    let store = Store::open(Some(&path)).expect("a store");
    let limits = Limits { entries: 200, layer: Some(1 << 20), images: 20, ..Limits::default() };
    let options = ImportOptions { limits, ..ImportOptions::default() };
    let imported = store.import(&archive, &options);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name != "store")
        .collect();
    names.sort();
    assert_eq!(names, ["archive.tar"], "something is outside");
    let known = store.list().expect("the store's images");
    match imported {
        Ok(records) => {
            for record in &records {
                assert!(known.iter().any(|one| one.name == record.name), "{}", record.name);
            }
            let verified = store.verify(&[]).expect("verify");
            assert_eq!(verified.problems, [], "what was imported is not what was recorded");
        }
        Err(e) => {
            assert!(!tare::error::one_line(&e.to_string()).contains('\n'));
            assert!(known.is_empty(), "an image that was refused is there");
            let left = fs::read_dir(path.join("staging")).into_iter().flatten().count();
            assert_eq!(left, 0, "what was refused has left something");
        }
    }
}

/// Manifests, indexes, configs: refused in one line, or taken.
pub fn documents(data: &[u8]) {
    if let Err(e) = fuzz::documents(data) {
        assert!(!tare::error::one_line(&e.to_string()).contains('\n'));
    }
}

/// Names of images: the long form means the same.
pub fn name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(same) = fuzz::name(&text) {
        assert!(same, "{text:?} means something else when it is written out");
    } else {
        // the short form may be refused, but what was taken can be written out
        assert!(
            tare::image::reference::Reference::parse(&text).is_err(),
            "the long form of {text:?} is refused"
        );
    }
}
