//! Hooks: which run, when, where, and with what.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Container, add_mount, args, namespace_of, probe, temp_dir};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A directory that is there under the same path outside and inside, since
/// some hooks run here and some there.
struct Log {
    dir: TempDir,
}

impl Log {
    fn new() -> Self {
        Log { dir: temp_dir() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The probe as a hook that writes a line with this name.
    fn hook(&self, kind: &str, name: &str) -> Value {
        let path = match kind {
            "startContainer" => "/probe",
            _ => probe().to_str().unwrap(),
        };
        json!({"path": path, "args": ["probe", "hook", self.file(), name]})
    }

    fn mount(&self, config: &mut Value) {
        let dir = self.dir.path();
        add_mount(
            config,
            json!({"destination": dir, "source": dir, "type": "bind", "options": ["bind"]}),
        );
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn names(&self) -> Vec<String> {
        let lines = self.lines();
        lines.iter().map(|l| l["hook"].as_str().unwrap().to_owned()).collect()
    }
}

/// A container with one hook of each kind.
fn with_all(log: &Log, words: &[&str]) -> Container {
    Container::new(|config| {
        log.mount(config);
        args(config, words);
        config["annotations"] = json!({"org.example.key": "value"});
        for kind in KINDS {
            config["hooks"][kind] = json!([log.hook(kind, kind)]);
        }
    })
}

#[test]
fn each_kind_runs_at_its_time() {
    let log = Log::new();
    let c = with_all(&log, &["wait"]);
    let mut output = c.create();
    assert_eq!(log.names(), KINDS[..3]);
    c.start().ok();
    output.expect("READY");
    assert_eq!(log.names(), KINDS[..5]);
    c.kill("KILL").ok();
    c.ended(&mut output);
    assert_eq!(log.names(), KINDS[..5]);
    c.delete().ok();
    assert_eq!(log.names(), KINDS);
}

#[test]
fn a_foreground_run_runs_them_all() {
    let log = Log::new();
    with_all(&log, &["exit", "0"]).run().ok();
    assert_eq!(log.names(), KINDS);
}

#[test]
fn a_delete_by_force_runs_poststop() {
    let log = Log::new();
    let c = with_all(&log, &["wait"]);
    let _output = c.started();
    c.delete_by_force().ok();
    assert_eq!(log.names(), KINDS);
}

#[test]
fn hooks_get_the_state() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    let mut output = c.create();
    let pid = c.pid();
    c.start().ok();
    c.ended(&mut output);
    c.delete().ok();
    let lines = log.lines();
    assert_eq!(lines.len(), KINDS.len());
    for line in &lines {
        let (hook, state) = (line["hook"].as_str().unwrap(), &line["state"]);
        assert_eq!(state["id"], *c.id, "{hook}");
        assert_eq!(state["bundle"], c.bundle.path().to_str().unwrap(), "{hook}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{hook}");
        assert!(state["ociVersion"].is_string(), "{hook}: {state}");
        let status = match hook {
            "prestart" | "createRuntime" | "createContainer" => "creating",
            "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        assert_eq!(state["status"], status, "{hook}");
        match hook {
            // inside, the same process has another number; later it may be gone
            "createContainer" | "startContainer" | "poststop" | "poststart" => {}
            _ => assert_eq!(state["pid"], pid, "{hook}"),
        }
    }
}

#[test]
fn hooks_run_in_their_namespaces() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    let mut output = c.create();
    let inside = namespace_of(c.pid(), "mnt");
    let outside = namespace_of(std::process::id(), "mnt");
    c.start().ok();
    c.ended(&mut output);
    c.delete().ok();
    for line in log.lines() {
        let hook = line["hook"].as_str().unwrap();
        let wanted = match hook {
            "createContainer" | "startContainer" => &inside,
            _ => &outside,
        };
        assert_eq!(line["seen"]["namespaces"]["mnt"], **wanted, "{hook}");
    }
}

#[test]
fn hooks_have_their_own_arguments_and_environment() {
    let log = Log::new();
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        let mut hook = log.hook("createRuntime", "named");
        hook["env"] = json!(["ONLY=this"]);
        config["hooks"]["createRuntime"] = json!([hook, log.hook("createRuntime", "bare")]);
    });
    c.on_bundle("run", &[]).env("TARE_SECRET", "x").run().ok();
    let lines = log.lines();
    assert_eq!(lines[0]["seen"]["args"][0], "probe");
    assert_eq!(lines[0]["seen"]["args"][3], "named");
    assert_eq!(lines[0]["seen"]["env"], json!(["ONLY=this"]));
    for line in &lines {
        let env = line["seen"]["env"].to_string();
        assert!(!env.contains("TARE_SECRET"), "{env}");
    }
}

#[test]
fn hooks_of_a_kind_run_in_the_configs_order() {
    let log = Log::new();
    Container::new(|config| {
        args(config, &["exit", "0"]);
        let hooks: Vec<Value> = ["1", "2", "3"].map(|n| log.hook("poststop", n)).into();
        config["hooks"]["poststop"] = json!(hooks);
    })
    .run()
    .ok();
    assert_eq!(log.names(), ["1", "2", "3"]);
}

#[test]
fn hooks_inherit_no_descriptor() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    c.on_bundle("run", &[]).with_open_root(17).run().ok();
    for line in log.lines() {
        let fds = line["seen"]["fds"].as_object().unwrap();
        let numbers: Vec<&String> = fds.keys().collect();
        assert_eq!(numbers, ["0", "1", "2"], "{}: {fds:?}", line["hook"]);
    }
}

#[test]
fn a_hook_of_create_that_fails_undoes_the_container() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let log = Log::new();
        let c = Container::new(|config| {
            log.mount(config);
            let fail = json!({"path": probe(), "args": ["probe", "fail", "broken on purpose"]});
            config["hooks"][kind] =
                json!([log.hook(kind, "before"), fail, log.hook(kind, "after")]);
            config["hooks"]["poststop"] = json!([log.hook("poststop", "poststop")]);
        });
        c.on_bundle("create", &[]).run().fails_with(&[kind, "broken on purpose"]);
        assert_eq!(log.names()[0], "before", "{kind}");
        assert!(!log.names().contains(&"after".to_owned()), "{kind}");
        c.assert_gone();
    }
}

#[test]
fn a_start_hook_that_fails_keeps_the_program_from_running() {
    let log = Log::new();
    let c = Container::new(|config| {
        args(config, &["say", "I run"]);
        config["hooks"]["startContainer"] =
            json!([{"path": "/probe", "args": ["probe", "fail", "not today"]}]);
        config["hooks"]["poststop"] = json!([log.hook("poststop", "poststop")]);
    });
    let mut output = c.create();
    c.start().fails_with(&["startContainer"]);
    assert_eq!(c.ended(&mut output), "");
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn a_hook_that_is_not_there_is_named() {
    Container::new(|c| c["hooks"]["createRuntime"] = json!([{"path": "/no/such/hook"}]))
        .assert_refused(&["createRuntime", "/no/such/hook"]);
}

#[test]
fn a_hook_with_a_relative_path_is_refused() {
    Container::new(|c| c["hooks"]["poststop"] = json!([{"path": "hook"}]))
        .assert_refused(&["hooks.poststop"]);
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    let c = Container::new(|config| {
        let args = json!(["probe", "sleep-forever"]);
        config["hooks"]["createRuntime"] = json!([{"path": probe(), "args": args, "timeout": 1}]);
    });
    let start = std::time::Instant::now();
    c.on_bundle("create", &[]).run().fails_with(&["createRuntime"]);
    assert!(start.elapsed().as_secs() < 5);
    c.assert_gone();
}

#[test]
fn a_poststop_hook_that_fails_does_not_keep_the_container() {
    let log = Log::new();
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        let fail = json!({"path": probe(), "args": ["probe", "fail", "too late"]});
        config["hooks"]["poststop"] = json!([fail, log.hook("poststop", "second")]);
    });
    let mut output = c.create();
    c.start().ok();
    c.ended(&mut output);
    c.delete().ok();
    assert_eq!(log.names(), ["second"]);
    c.assert_gone();
}
