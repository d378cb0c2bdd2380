//! A look at the host: mounts, cgroups, processes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::Tare;

/// Where cgroup2 is mounted here; on a hybrid machine that is not
/// /sys/fs/cgroup, and a mount may be hidden by a later one.
pub fn cgroup2_mount() -> &'static Path {
    static MOUNT: OnceLock<PathBuf> = OnceLock::new();
    MOUNT.get_or_init(|| {
        mountinfo()
            .iter()
            .filter(|line| line.contains(" - cgroup2 "))
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from)
            .find(|path| path.join("cgroup.controllers").is_file())
            .expect("a cgroup2 mount")
    })
}

fn mountinfo() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The namespace of a process, as `kind:[number]`.
pub fn namespace_of(pid: u32, kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

/// True for a process that has not ended: a zombie has.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(") ").next().map(|rest| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

/// Waits for a condition on the host that no event tells of. The one loop that
/// sleeps: use it for the end of processes that are not ours only.
#[track_caller]
pub fn wait_gone(what: &str, mut is_gone: impl FnMut() -> bool) {
    let deadline = Instant::now() + super::timeout();
    while !is_gone() {
        assert!(Instant::now() < deadline, "still there: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What containers have left, or hold now, on the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// In the state directory
    pub state: Vec<PathBuf>,
    pub cgroups: Vec<PathBuf>,
    pub mounts: Vec<String>,
    pub processes: Vec<String>,
}

impl Traces {
    /// Those that bear one of these names, and all in tare's state directory.
    pub fn of(tare: &Tare, names: &[&str]) -> Self {
        let root = tare.root().to_str().unwrap();
        let all: Vec<&str> = names.iter().copied().chain([root]).collect();
        Traces { state: below(tare.root()), ..Traces::named(&all) }
    }

    /// Those that bear one of these names.
    pub fn named(names: &[&str]) -> Self {
        let bears = |text: &str| names.iter().any(|name| text.contains(name));
        let cgroups = below(cgroup2_mount());
        Traces {
            state: Vec::new(),
            cgroups: cgroups
                .into_iter()
                .filter(|path| path.is_dir() && bears(&path.to_string_lossy()))
                .collect(),
            mounts: mountinfo().into_iter().filter(|line| bears(line)).collect(),
            processes: processes(bears),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Traces::default()
    }
}

/// Processes whose command line, environment or cgroup bears a name. Commands
/// of other tests that are on their way to exec carry none of ours.
fn processes(bears: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() || !is_alive(pid) {
            continue;
        }
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (line, cgroup) = (read("cmdline"), read("cgroup"));
        if bears(&line) || bears(&cgroup) {
            found.push(format!("{pid}: {line} [{}]", cgroup.trim()));
        }
    }
    found
}

/// Everything below a directory, without following links.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        // another test's directory may go while we walk
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
