//! How a container is saved.

use std::path::Path;

use serde_json::json;

use crate::Counter;
use crate::support::{Container, args};

#[test]
#[ignore = "needs CRIU: integration/test"]
fn one_that_is_left_running_has_a_twin() {
    let mut c = Counter::new(&["count"], |_| {});
    c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(c.status(), "running");
    c.counts();
    c.counts();
    // under another name, in another cgroup, with another root file system
    let twin = Container::new(|config| args(config, &["count"]));
    std::fs::rename(c.images(), twin.bundle.path().join("images")).unwrap();
    let (output, _none) = crate::support::pipe();
    let mut twin = Counter { container: twin, output, count: 2 };
    twin.restore(&[]);
    twin.counts();
    c.counts();
    let procs = std::fs::read_to_string(twin.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), twin.pid().to_string());
    let shown = twin.exec(&[], &["list", "/sys/fs/cgroup"]).run().ok().stdout;
    assert!(shown.contains("cgroup.procs"), "{shown}");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_paused_one_can_be_saved() {
    let mut c = Counter::new(&["count"], |_| {});
    c.on_id("pause", &[], &[]).run().ok();
    c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(c.status(), "paused");
    c.on_id("resume", &[], &[]).run().ok();
    c.counts();
    c.count -= 1;
    c.delete_by_force().ok();
    c.restore(&[]);
    c.counts();
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn memory_is_saved_in_two_steps() {
    let mut c = Counter::new(&["count"], |_| {});
    let before = c.bundle.path().join("before");
    let flags = ["--pre-dump", "--image-path", before.to_str().unwrap()];
    c.on_id("checkpoint", &flags, &[]).run().ok();
    c.counts();
    c.there_and_back_with(&["--parent-path", "../before"]);
    let pages = |dir: &Path| -> u64 {
        let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        let pages = files.filter(|f| f.file_name().to_str().unwrap().starts_with("pages-"));
        pages.map(|f| f.metadata().unwrap().len()).sum()
    };
    assert!(pages(&c.images()) < pages(&before));
}

impl Counter {
    /// With options for the checkpoint alone.
    #[track_caller]
    fn there_and_back_with(&mut self, flags: &[&str]) {
        self.checkpoint(flags).ok();
        self.restore(&[]);
        self.counts();
    }
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn hooks_run_at_both_ends() {
    let dir = crate::support::temp_dir();
    let log = dir.path().join("log");
    let hook = |name: &str| {
        let probe = crate::support::probe();
        json!([{"path": probe, "args": ["probe", "hook", log, name]}])
    };
    let mut c = Counter::new(&["count"], |config| {
        config["hooks"] = json!({"createRuntime": hook("create"), "poststop": hook("stop")});
    });
    let names = || {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|l| line(l)["hook"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    c.checkpoint(&[]).ok();
    assert_eq!(names(), ["create", "stop"]);
    c.restore(&[]);
    c.counts();
    assert_eq!(names(), ["create", "stop", "create"]);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_work_path_takes_the_log() {
    let c = Counter::new(&["count"], |_| {});
    let work = c.bundle.path().join("work");
    // made, as containerd expects
    c.checkpoint(&["--work-path", work.to_str().unwrap()]).ok();
    assert!(work.join("dump.log").is_file());
    assert!(!c.images().join("dump.log").exists());
}
