//! One container: a bundle, a name, and the commands on it.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde_json::Value;

use super::{Bundle, Invocation, Output, Pipe, Tare, Traces, pipe};

/// Deleted by force with this value, so that a test that fails leaves nothing.
pub struct Container {
    pub tare: Tare,
    pub bundle: Bundle,
    pub id: String,
    /// The init of the last `create`.
    init: RefCell<Option<OwnedFd>>,
}

impl Container {
    /// Not created yet: a bundle with the base config after `edit`.
    pub fn new(edit: impl FnOnce(&mut Value)) -> Self {
        Container::under(&Tare::new(), edit)
    }

    /// The same in a state directory that others share.
    pub fn under(tare: &Tare, edit: impl FnOnce(&mut Value)) -> Self {
        let id = super::unique_id();
        let bundle = Bundle::new(|config| {
            config["linux"]["cgroupsPath"] = Value::from(format!("/{id}"));
            edit(config);
        });
        Container { tare: tare.clone(), bundle, id, init: RefCell::new(None) }
    }

    /// `COMMAND [FLAGS] --bundle B ID`.
    pub fn on_bundle(&self, command: &str, flags: &[&str]) -> Invocation {
        let mut words = vec![command];
        words.extend(flags);
        words.extend(["--bundle", self.bundle.path().to_str().unwrap(), &self.id]);
        self.tare.command(words)
    }

    /// `COMMAND [FLAGS] ID [REST]`.
    pub fn on_id(&self, command: &str, flags: &[&str], rest: &[&str]) -> Invocation {
        let mut words = vec![command];
        words.extend(flags);
        words.push(&self.id);
        words.extend(rest);
        self.tare.command(words)
    }

    /// `exec [FLAGS] ID /probe WORDS`.
    pub fn exec(&self, flags: &[&str], words: &[&str]) -> Invocation {
        self.on_id("exec", flags, &[&["/probe"], words].concat())
    }

    /// The report of a process of `exec`.
    #[track_caller]
    pub fn exec_report(&self, flags: &[&str]) -> Value {
        self.exec(flags, &["report"]).run().ok().json()
    }

    /// `run` in the foreground to its end.
    pub fn run(&self) -> Output {
        self.on_bundle("run", &[]).run()
    }

    /// `run`, and what the program has printed as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.run().ok().json()
    }

    /// `run`, and the lines that the program has printed.
    #[track_caller]
    pub fn lines(&self) -> Vec<String> {
        let output = self.run();
        // a word of the probe that is refused ends with 1: that is an answer
        assert!(output.stderr.is_empty(), "{output:#?}");
        output.stdout.lines().map(str::to_owned).collect()
    }

    /// `create`; the program's output comes by the pipe.
    #[track_caller]
    pub fn create(&self) -> Pipe {
        let (reader, writer) = pipe();
        let pid_file = self.bundle.path().join("init.pid");
        let flags = ["--pid-file", pid_file.to_str().unwrap()];
        self.on_bundle("create", &flags).stdout(writer).run().ok();
        let pid = std::fs::read_to_string(pid_file).unwrap();
        *self.init.borrow_mut() = Some(super::pidfd_open(pid.parse().unwrap()));
        reader
    }

    /// The rest of the output of a container that ends, once its init has
    /// ended: a process closes its files a moment before it is a zombie.
    #[track_caller]
    pub fn ended(&self, output: &mut Pipe) -> String {
        let text = output.rest();
        if let Some(init) = self.init.borrow_mut().take() {
            assert!(super::is_readable(&init, super::timeout()), "init stays");
        }
        text
    }

    /// `create` and `start`; returns once the program has said READY.
    #[track_caller]
    pub fn started(&self) -> Pipe {
        let mut output = self.create();
        self.start().ok();
        while output.line() != "READY" {}
        output
    }

    pub fn start(&self) -> Output {
        self.on_id("start", &[], &[]).run()
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.on_id("kill", &[], &[signal]).run()
    }

    pub fn delete(&self) -> Output {
        self.on_id("delete", &[], &[]).run()
    }

    pub fn delete_by_force(&self) -> Output {
        self.on_id("delete", &["--force"], &[]).run()
    }

    /// The state object.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.on_id("state", &[], &[]).run().ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The init's process id on the host.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.state()["pid"].as_u64().unwrap()).unwrap()
    }

    /// Where the base config's cgroupsPath is on the host.
    pub fn cgroup(&self) -> PathBuf {
        super::cgroup2_mount().join(&self.id)
    }

    /// What there is on the host of this container now.
    pub fn traces(&self) -> Traces {
        Traces::of(&self.tare, &[&self.id, self.bundle.path().to_str().unwrap()])
    }

    /// Nothing may be left on the host.
    #[track_caller]
    pub fn assert_gone(&self) {
        let traces = self.traces();
        assert!(traces.is_empty(), "left behind: {traces:#?}");
    }

    /// `create` and `run` both have to refuse this bundle with one line, and to
    /// leave the host as it was.
    #[track_caller]
    pub fn assert_refused(&self, texts: &[&str]) {
        for command in ["create", "run"] {
            self.on_bundle(command, &[]).run().fails_with(texts);
            self.assert_gone();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let running = self.on_id("delete", &["--force"], &[]).spawn();
        if std::thread::panicking() {
            // a second panic would end all tests; a hang here ends with a kill
            running.ends_within(super::timeout());
            return;
        }
        let output = running.wait();
        // some runtimes call it an error that there is nothing to delete
        let is_absent = output.stderr.contains("does not exist");
        assert!(output.code == 0 || is_absent || !self.tare.is_tare(), "{output:#?}");
    }
}
