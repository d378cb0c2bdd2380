//! What the environment asks for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Kinds of runtimes: how they are called, and what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Tare,
    Crun,
    Runc,
    Youki,
    /// Not a runtime: the C program that does the kernel's part alone.
    Floor,
}

/// A runtime to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) flavour: Flavour,
    pub(crate) path: PathBuf,
}

/// A program that unpacks images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacker {
    pub(crate) name: String,
    pub(crate) kind: UnpackerKind,
    pub(crate) path: PathBuf,
}

/// How it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnpackerKind {
    Umoci,
    Containerd,
    Podman,
    /// No program for images: igzip and tar on each layer.
    Tar,
}

/// What igzip and tar are called together.
pub(crate) const TAR: &str = "igzip | tar";
/// The same with the time until it is on the disk.
pub(crate) const TAR_SYNCED: &str = "igzip | tar, sync";

/// What there is to measure; the words of BENCH_ONLY.
pub(crate) const CASES: [&str; 13] = [
    "run",
    "row",
    "lifecycle",
    "control",
    "version",
    "memory",
    "syscalls",
    "size",
    "limits",
    "stats",
    "list",
    "scale",
    "image",
];

#[derive(Debug)]
pub(crate) struct Settings {
    /// Rounds: figures of each kind.
    pub(crate) runs: usize,
    only: Vec<String>,
    pub(crate) tare: PathBuf,
    pub(crate) peers: Vec<Named>,
    pub(crate) unpackers: Vec<Unpacker>,
    pub(crate) seed: u64,
    pub(crate) image: Option<PathBuf>,
    /// Containers that are there while `stats` and `list` are measured.
    pub(crate) many: usize,
    /// Containers of the case `scale`.
    pub(crate) scale: usize,
    /// Where the chart of that goes as well.
    pub(crate) chart: Option<PathBuf>,
    /// Where results and the image go.
    pub(crate) out: PathBuf,
}

impl Settings {
    /// `get` is the environment, `default_tare` the binary of this build.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>, default_tare: &Path) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(text) = get(name) else { return Ok(None) };
            Ok(Some(text.parse().with_context(|| format!("{name}={text}: give a number"))?))
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let peers = match get("BENCH_PEERS") {
            Some(text) => parse_peers(&text)?,
            None => peers_in(&get("PATH").unwrap_or_default()),
        };
        let unpackers = unpackers(
            &get("BENCH_UNPACKERS").unwrap_or_default(),
            &get("PATH").unwrap_or_default(),
        )?;
        let within = |name: &str, least: u64, default: u64| -> Result<usize> {
            let found = number(name)?.unwrap_or(default);
            ensure!(
                (least..=10_000).contains(&found),
                "{name}={found}: give a number from {least} to 10000"
            );
            Ok(found as usize)
        };
        Ok(Settings {
            runs: within("BENCH_RUNS", 1, 40)?,
            many: within("BENCH_MANY", 1, 500)?,
            // a slope takes some
            scale: within("BENCH_SCALE", 20, 1000)?,
            chart: get("BENCH_CHART").map(PathBuf::from),
            only: parse_only(&get("BENCH_ONLY").unwrap_or_default())?,
            tare: get("BENCH_TARE").map_or_else(|| default_tare.to_owned(), PathBuf::from),
            peers,
            unpackers,
            seed: number("BENCH_SEED")?.unwrap_or(now.map_or(1, |now| now.as_secs())),
            image: get("BENCH_IMAGE").map(PathBuf::from),
            out: PathBuf::from("target/bench"),
        })
    }

    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == case)
    }
}

fn parse_only(text: &str) -> Result<Vec<String>> {
    let words: Vec<String> =
        text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect();
    for word in &words {
        ensure!(
            CASES.contains(&word.as_str()),
            "BENCH_ONLY: what is {word}? There are {}",
            CASES.join(", ")
        );
    }
    Ok(words)
}

/// `name=path,name=path`; the name begins with that of the runtime.
fn parse_peers(text: &str) -> Result<Vec<Named>> {
    let mut peers: Vec<Named> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, path)) = part.split_once('=') else {
            bail!("BENCH_PEERS: {part}: give name=path");
        };
        let Some(flavour) = flavour_of(name) else {
            bail!("BENCH_PEERS: {name}: a name begins with crun, runc or youki");
        };
        ensure!(path.starts_with('/'), "BENCH_PEERS: {path}: give an absolute path");
        ensure!(
            peers.iter().all(|other| other.name != name),
            "BENCH_PEERS: {name} is there twice: give each its own name"
        );
        peers.push(Named { name: name.to_owned(), flavour, path: PathBuf::from(path) });
    }
    Ok(peers)
}

/// Those of PATH, igzip with tar, and `name=path,name=path`; the name begins with that of
/// the program.
fn unpackers(text: &str, path: &str) -> Result<Vec<Unpacker>> {
    use UnpackerKind::{Containerd, Podman, Tar, Umoci};
    let known = [("umoci", Umoci), ("containerd", Containerd), ("podman", Podman)];
    let one = |name: &str, kind, path| Unpacker { name: name.to_owned(), kind, path };
    let there = |(name, kind)| Some(one(name, kind, find_program(name, path)?));
    let mut all: Vec<Unpacker> = known.into_iter().filter_map(there).collect();
    if let Some(igzip) = find_program("igzip", path) {
        all.push(one(TAR, Tar, igzip));
    }
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let found = part.split_once('=').and_then(|(name, path)| {
            let (_, kind) = known.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
            path.starts_with('/').then(|| one(name, kind, PathBuf::from(path)))
        });
        let Some(found) = found else {
            bail!(
                "BENCH_UNPACKERS: {part}: give name=path: a name that begins with umoci, \
                 containerd or podman, and an absolute path"
            );
        };
        ensure!(
            all.iter().all(|other| other.name != found.name),
            "BENCH_UNPACKERS: {} is there already: give each its own name",
            found.name
        );
        all.push(found);
    }
    Ok(all)
}

fn flavour_of(name: &str) -> Option<Flavour> {
    let known = [("crun", Flavour::Crun), ("runc", Flavour::Runc), ("youki", Flavour::Youki)];
    known.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, flavour)| flavour)
}

fn peers_in(path: &str) -> Vec<Named> {
    ["crun", "runc", "youki"]
        .into_iter()
        .filter_map(|name| {
            let file = find_program(name, path)?;
            Some(Named { name: name.to_owned(), flavour: flavour_of(name)?, path: file })
        })
        .collect()
}

/// A program of PATH, or where Debian keeps those for root.
pub(crate) fn find_program(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings> {
        let get = |name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::read(get, Path::new("/built/tare"))
    }

    #[test]
    fn peers_are_named() {
        let found =
            read(&[("BENCH_PEERS", "crun-new=/a/crun, runc=/b/runc,youki0.7=/c=d/youki")]).unwrap();
        let names: Vec<_> =
            found.peers.iter().map(|p| (p.name.as_str(), p.flavour, p.path.to_str())).collect();
        assert_eq!(
            names,
            [
                ("crun-new", Flavour::Crun, Some("/a/crun")),
                ("runc", Flavour::Runc, Some("/b/runc")),
                ("youki0.7", Flavour::Youki, Some("/c=d/youki")),
            ]
        );
        assert_eq!(read(&[("BENCH_PEERS", "")]).unwrap().peers, []);
    }

    #[test]
    fn what_unpacks_images_is_named() {
        let given = "umoci-new=/a/umoci,containerd2=/b/containerd";
        let found = read(&[("BENCH_UNPACKERS", given), ("PATH", "")]).unwrap().unpackers;
        let new: Vec<_> = found.iter().filter(|one| one.name.contains(['-', '2'])).collect();
        let paths = new.iter().map(|one| (one.kind, one.path.to_str().unwrap()));
        let (umoci, containerd) = (UnpackerKind::Umoci, UnpackerKind::Containerd);
        assert!(paths.eq([(umoci, "/a/umoci"), (containerd, "/b/containerd")]), "{new:?}");
    }

    #[test]
    fn wrong_words_are_named() {
        for (name, value, expected) in [
            ("BENCH_PEERS", "/a/crun", "BENCH_PEERS: /a/crun: give name=path"),
            ("BENCH_PEERS", "kata=/k", "BENCH_PEERS: kata: a name begins with crun, runc or youki"),
            ("BENCH_PEERS", "crun=./crun", "BENCH_PEERS: ./crun: give an absolute path"),
            ("BENCH_PEERS", "crun=/a,crun=/b", "BENCH_PEERS: crun is there twice"),
            ("BENCH_UNPACKERS", "skopeo=/s", "BENCH_UNPACKERS: skopeo=/s: give name=path"),
            ("BENCH_UNPACKERS", "umoci", "BENCH_UNPACKERS: umoci: give name=path"),
            (
                "BENCH_UNPACKERS",
                "podman-5=/p,podman-5=/q",
                "BENCH_UNPACKERS: podman-5 is there already",
            ),
            ("BENCH_ONLY", "run,exec", "BENCH_ONLY: what is exec?"),
            ("BENCH_RUNS", "many", "BENCH_RUNS=many: give a number"),
            ("BENCH_RUNS", "0", "BENCH_RUNS=0: give a number from 1"),
            ("BENCH_SCALE", "19", "BENCH_SCALE=19: give a number from 20 to 10000"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn nothing_named_means_all() {
        let all = read(&[]).unwrap();
        assert!(CASES.iter().all(|case| all.wants(case)));
        assert_eq!(all.tare, Path::new("/built/tare"));
        let some = read(&[("BENCH_ONLY", "run,size"), ("BENCH_TARE", "/t")]).unwrap();
        assert!(some.wants("run") && some.wants("size") && !some.wants("image"));
        assert_eq!(some.tare, Path::new("/t"));
    }
}
