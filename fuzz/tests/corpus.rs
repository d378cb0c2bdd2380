//! Seeds, inputs that once did harm, and a fixed number of changes of them.

#![allow(clippy::disallowed_methods, reason = "tests")]

use std::path::Path;

use tare_fuzz::mutate::{Random, mutate};
use tare_fuzz::{TARGETS, Target};

/// Changed inputs of one target: seconds, not minutes.
const ROUNDS: u64 = 3000;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

fn run(name: &str, rounds: u64) {
    let target = target(name);
    let mut inputs = (target.seeds)();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(corpus).into_iter().flatten().map(|f| f.unwrap().path()).collect();
    files.sort();
    inputs.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
    for input in &inputs {
        (target.run)(input);
    }
    for seed in 0..rounds {
        let mut random = Random::new(seed);
        let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
        let mut input = mutate(&inputs[one], &inputs[other], &mut random);
        if seed % 8 > 0 {
            (target.repair)(&mut input);
        }
        (target.run)(&input);
    }
}

#[test]
fn archives() {
    run("archive", ROUNDS);
}

#[test]
fn layers() {
    run("layer", ROUNDS / 3);
}

#[test]
fn docker_archives() {
    run("docker", ROUNDS);
}

#[test]
fn documents() {
    run("documents", ROUNDS);
}

#[test]
fn names() {
    run("name", ROUNDS);
}

/// Seeds that are refused would lead to nothing.
#[test]
fn seeds_are_well_formed() {
    for archive in tare_fuzz::seeds::archives() {
        assert!(tare::image::fuzz::archive(&archive).unwrap() > 0);
    }
    for archive in tare_fuzz::seeds::docker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, &archive).unwrap();
        let store = tare::image::store::Store::open(Some(&dir.path().join("store"))).unwrap();
        assert!(store.import(&path, &Default::default()).unwrap().len() > 1);
    }
    for name in tare_fuzz::seeds::names() {
        assert!(tare::image::fuzz::name(std::str::from_utf8(&name).unwrap()).unwrap());
    }
}
