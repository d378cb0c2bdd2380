//! The structure that ARCHITECTURE.md describes, held against the sources.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which parts of the library a part may use. `error`, `json`, `logging` and `trace`
/// are for all, and a part may use itself.
const USES: [(&str, &[&str]); 15] = [
    ("main", &["cli", "commands", "sys"]),
    ("commands", &["cli", "container", "doctor", "image", "sandbox", "spec", "sys", "volume"]),
    ("cli", &[]),
    ("container", &["sandbox", "cgroup", "spec", "sys"]),
    // the plan of a container has the cgroup's part in it, already compiled
    ("spec", &["cgroup", "sys"]),
    ("sandbox", &["spec", "sys"]),
    ("cgroup", &["sys"]),
    // an image's configuration becomes a config.json
    ("image", &["spec", "sys"]),
    // it tries what the others use, and nobody waits for it
    ("doctor", &["cgroup", "image", "sys"]),
    ("volume", &["sys"]),
    ("sys", &[]),
    ("logging", &[]),
    ("error", &[]),
    ("json", &[]),
    ("trace", &["sys"]),
];

/// Longest source file, in lines, tests included.
const LONGEST: usize = 520;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, all: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push((path, text));
            }
        }
    }
    let mut all = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    walk(&root, &mut all);
    assert!(all.len() > 40, "found {} sources only", all.len());
    all.into_iter().map(|(p, t)| (p.strip_prefix(&root).unwrap().to_owned(), t)).collect()
}

/// First component of a source's path: the part of the library that it is in.
fn part_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Parts named after `crate::` (or `tare::` in the binary) in a source.
fn used_by(text: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for prefix in ["crate::", "tare::"] {
            for (at, _) in line.match_indices(prefix) {
                let rest = &line[at + prefix.len()..];
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                // a type of the crate's root is in `error`
                if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                    parts.insert(name);
                }
            }
        }
    }
    parts
}

#[test]
fn parts_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let part = part_of(&path);
        if part == "lib" {
            continue;
        }
        let (_, allowed) =
            USES.iter().find(|(name, _)| *name == part).unwrap_or_else(|| panic!("{part}?"));
        for used in used_by(&text) {
            let fine =
                used == part || ["error", "json", "logging", "trace"].contains(&used.as_str());
            if !fine && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_stays_in_sys() {
    for (path, text) in sources() {
        if part_of(&path) == "sys" {
            continue;
        }
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            assert!(!words.any(|word| word == "unsafe"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_unsafe_has_its_reason() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("//") || !line.contains("unsafe {") {
                continue;
            }
            let above = &lines[at.saturating_sub(6)..=at];
            assert!(
                above.iter().any(|l| l.contains("SAFETY:")),
                "{}:{}: no SAFETY reason",
                path.display(),
                at + 1
            );
        }
    }
}

#[test]
fn no_source_is_too_long_to_read() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", path.display());
    }
}
