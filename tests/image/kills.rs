//! Commands on one store that are killed while others are at work on it.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::layout::*;
use crate::support::{Traces, probe, unique_id, wait_gone};

/// Calls that change a store, and a lock.
const CALLS: &str = "openat,openat2,mkdir,mkdirat,renameat,renameat2,unlink,unlinkat,flock,write,\
                     fsync,syncfs,linkat,fremovexattr";

struct Arena {
    scene: Scene,
    layouts: Vec<(String, PathBuf)>,
    kept: Layer,
    containers: Vec<String>,
}

impl Arena {
    /// Images that share a layer with each other and one with an image that stays.
    fn new() -> Self {
        let scene = Scene::in_memory();
        let mut program = file("probe", "").mode(0o755);
        program.data = std::fs::read(probe()).unwrap();
        let kept = layer(&[dir("./"), program], "gzip");
        let shared = layer(&[dir("d"), file("d/shared", &"s".repeat(5000))], "gzip");
        let make = |name: &str, layers: &[Layer]| {
            let mut layout = Layout::new(&scene.path(name));
            let image = layout.image(layers, HOST, json!({"Entrypoint": ["/probe"]}));
            layout.tag(image, name).finish()
        };
        scene.import(&make("kept", std::slice::from_ref(&kept)));
        let layouts = ["a", "b", "c"].map(|name| {
            let own = layer(&[file(&format!("d/{name}"), &name.repeat(9000))], "gzip");
            (name.to_owned(), make(name, &[kept.clone(), shared.clone(), own]))
        });
        Arena { scene, layouts: layouts.into(), kept, containers: Vec::new() }
    }

    /// Starts a command that is killed when one of its threads enters its n-th call.
    fn start(&self, words: &[&str], n: usize) -> Child {
        let command = self.command(words);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}")]);
        strace.args(["-e", &format!("inject={CALLS}:signal=KILL:when={n}")]);
        strace.arg(command.get_program()).args(command.get_args());
        strace.stdout(Stdio::null()).stderr(Stdio::piped());
        strace.spawn().expect("strace (integration/install-deps test)")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.scene.command(&[]);
        command.arg("--root").arg(self.scene.path("state")).args(words);
        command
    }

    fn path(&self, at: usize) -> &str {
        let (_, path) = &self.layouts[at % self.layouts.len()];
        path.to_str().unwrap()
    }

    /// All at once, each killed somewhere if it gets there; the answer is how many were.
    fn round(&mut self, round: usize) -> usize {
        let ids = [unique_id(), unique_id()];
        let name = |at: usize| self.layouts[at % self.layouts.len()].0.as_str();
        let commands: [&[&str]; 8] = [
            &["image", "import", self.path(round)],
            &["image", "import", self.path(round + 1), "--keep-blobs"],
            &["image", "rm", name(round)],
            &["image", "rm", name(round + 2)],
            &["image", "gc"],
            &["run", "--image", self.path(round), &ids[0], "--", "exit", "0"],
            &["run", "--image", "kept", "-v", "vol:/data", &ids[1], "--", "exit", "0"],
            &["image", "gc"],
        ];
        let start =
            |(at, words): (usize, &&[&str])| self.start(words, 1 + (round * 7 + at * 11) % 30);
        let running: Vec<Child> = commands.iter().enumerate().map(start).collect();
        let mut kills = 0;
        for (child, words) in running.into_iter().zip(commands) {
            let end = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&end.stderr);
            if end.status.signal() == Some(9) || end.status.code() == Some(137) {
                kills += 1;
            } else if !end.status.success() {
                // another one was first
                let reasons = ["does not exist", "in use by", "is mounted"];
                assert!(reasons.iter().any(|why| text.contains(why)), "{words:?}: {text}");
            }
        }
        self.containers.extend(ids);
        kills
    }

    /// What is known is whole, and what was there before is there.
    fn check(&self, at: &str) {
        let verified = self.scene.run(&["image", "verify"]);
        assert!(verified.status.success(), "{at}: {verified:?}");
        self.scene.ok(&["image", "inspect", "kept"]);
        assert!(self.scene.layer_dir(&self.kept).join("probe").exists(), "{at}");
    }

    /// The containers of all rounds are deleted, as their callers would.
    fn delete(&mut self) {
        for id in std::mem::take(&mut self.containers) {
            let deleted = self.command(&["delete", "--force", &id]).output().unwrap();
            assert!(deleted.status.success(), "{deleted:?}");
            let traces = || Traces::named(&[&id]);
            wait_gone(&format!("{:#?}", traces()), || traces().is_empty());
        }
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn whoever_is_killed_the_store_is_whole() {
    let mut arena = Arena::new();
    let mut kills = 0;
    for round in 0..20 {
        kills += arena.round(round);
        arena.check(&format!("round {round}"));
    }
    arena.delete();
    assert!(kills > 50, "{kills} kills only");
    let scene = &arena.scene;
    scene.ok(&["image", "gc"]);
    assert_eq!(names(&scene.path("store/staging")), BTreeSet::new());
    assert_eq!(names(&scene.path("store/containers")), BTreeSet::new());
    // each works as before
    for (name, path) in &arena.layouts {
        scene.import(path);
        let id = unique_id();
        let run =
            arena.command(&["run", "--image", name, &id, "--", "exit", "0"]).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        scene.ok(&["image", "rm", name]);
    }
    scene.ok(&["image", "rm", "kept"]);
    scene.ok(&["image", "gc"]);
    scene.assert_store_is_empty();
}
