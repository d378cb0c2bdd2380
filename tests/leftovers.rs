//! The last test of a run: nothing is left on the machine.
//!
//! Both tests are ignored by a plain `cargo test`: `integration/test` runs the
//! first before all others and the second after them.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use support::{Traces, cgroup2_mount, is_alive, run_tag, wait_gone};

fn snapshot_file() -> PathBuf {
    PathBuf::from(std::env::var_os("TARE_TEST_SNAPSHOT").expect("run by integration/test"))
}

/// What could be left, one line each.
fn snapshot() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.extend(mounts.lines().map(|l| format!("mount {l}")));
    for cgroup in support::below(cgroup2_mount()) {
        if cgroup.is_dir() {
            all.insert(format!("cgroup {}", cgroup.display()));
        }
    }
    for dir in ["/run/netns", "/run/tare", "/var/lib/tare"] {
        for path in support::below(Path::new(dir)) {
            all.insert(format!("file {}", path.display()));
        }
    }
    for entry in std::fs::read_dir("/tmp").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(support::PREFIX) || name.contains("tare") {
            all.insert(format!("file /tmp/{name}"));
        }
    }
    all.extend(processes());
    all
}

fn processes() -> Vec<String> {
    let name_of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid| is_alive(*pid))
        .filter_map(|pid| Some((pid, name_of(pid).ok()?)))
        .filter(|(_, name)| ["tare", "probe", "tare-probe", "tare-faults"].contains(&name.trim()))
        .map(|(pid, name)| format!("process {pid} {}", name.trim()))
        .collect()
}

#[test]
#[ignore = "the first step of integration/test"]
fn a_snapshot_is_taken() {
    let lines: Vec<String> = snapshot().into_iter().collect();
    std::fs::write(snapshot_file(), lines.join("\n")).unwrap();
}

#[test]
#[ignore = "the last step of integration/test"]
fn nothing_is_left() {
    // what bears the run's tag is ours, whatever it is
    let tag = run_tag();
    let ours = || Traces::named(&[&tag]);
    // the last processes of a container that was killed may still be leaving
    wait_gone(&format!("{:#?}", ours()), || ours().is_empty());

    let tmp = PathBuf::from(std::env::var_os("TARE_TEST_TMP").expect("run by integration/test"));
    let files = support::below(&tmp);
    assert!(files.is_empty(), "temporary files: {files:#?}");

    // the rest may be somebody else's, unless we are alone
    if std::env::var_os("TARE_TEST_ALONE").is_none() {
        return;
    }
    let before = std::fs::read_to_string(snapshot_file()).unwrap();
    let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
    let new: Vec<String> = snapshot().difference(&before).cloned().collect();
    assert!(new.is_empty(), "new on this machine: {new:#?}");
}
