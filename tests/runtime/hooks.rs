//! Hooks: which run, when, where, and with what.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Container, add_mount, args, namespace_of, probe, temp_dir};

pub(crate) const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A directory that is there under the same path outside and inside, since
/// some hooks run here and some there.
pub(crate) struct Log {
    dir: TempDir,
}

impl Log {
    pub(crate) fn new() -> Self {
        Log { dir: temp_dir() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The probe as a hook that writes a line with this name.
    pub(crate) fn hook(&self, kind: &str, name: &str) -> Value {
        let path = match kind {
            "startContainer" => "/probe",
            _ => probe().to_str().unwrap(),
        };
        json!({"path": path, "args": ["probe", "hook", self.file(), name]})
    }

    pub(crate) fn mount(&self, config: &mut Value) {
        let dir = self.dir.path();
        add_mount(
            config,
            json!({"destination": dir, "source": dir, "type": "bind", "options": ["bind"]}),
        );
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let lines = self.lines();
        lines.iter().map(|l| l["hook"].as_str().unwrap().to_owned()).collect()
    }
}

/// A container with one hook of each kind.
pub(crate) fn with_all(log: &Log, words: &[&str]) -> Container {
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
    const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    let mut output = c.create();
    let of = |pid| NAMESPACES.map(|kind| namespace_of(pid, kind));
    let (inside, outside) = (of(c.pid()), of(std::process::id()));
    c.start().ok();
    c.ended(&mut output);
    c.delete().ok();
    for line in log.lines() {
        let hook = line["hook"].as_str().unwrap();
        let wanted = match hook {
            "createContainer" | "startContainer" => &inside,
            _ => &outside,
        };
        let seen = NAMESPACES.map(|kind| line["seen"]["namespaces"][kind].clone());
        // a /proc of another pid namespace tells nothing of who looks
        for (at, seen) in seen.iter().enumerate().filter(|(_, seen)| !seen.is_null()) {
            assert_eq!(*seen, wanted[at], "{hook}: {}", NAMESPACES[at]);
        }
        assert!(!seen[2].is_null() || hook == "createContainer", "{hook}");
        // createContainer: its program is the host's, and pivot_root comes later
        let program = std::path::Path::new(line["seen"]["args"][2].as_str().unwrap());
        assert_eq!(program, log.file(), "{hook}");
    }
}

#[test]
fn hooks_have_their_own_arguments_and_environment() {
    let log = Log::new();
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        let mut hook = log.hook("createRuntime", "named");
        hook["env"] = json!(["ONLY=this"]);
        let mut bare = log.hook("createRuntime", "bare");
        bare["env"] = json!([]);
        config["hooks"]["createRuntime"] = json!([hook, bare]);
    });
    c.on_bundle("run", &[]).env("TARE_SECRET", "x").run().ok();
    let lines = log.lines();
    assert_eq!(lines[0]["seen"]["args"][0], "probe");
    assert_eq!(lines[0]["seen"]["args"][3], "named");
    assert_eq!(lines[0]["seen"]["env"], json!(["ONLY=this"]));
    assert_eq!(lines[1]["seen"]["env"], json!([]));
}

#[test]
fn the_environment_of_hooks_without_one_is_that_of_who_runs_them() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    c.bundle.edit(|config| config["process"]["env"] = json!(["PATH=/", "OF=the program"]));
    c.on_bundle("run", &[]).env("TARE_SECRET", "x").run().ok();
    for line in log.lines() {
        let hook = line["hook"].as_str().unwrap();
        let env: Vec<&str> =
            line["seen"]["env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        match hook {
            "createContainer" => assert!(env.is_empty(), "{env:?}"),
            "startContainer" => assert_eq!(env, ["PATH=/", "OF=the program", "HOME=/"]),
            _ => assert!(env.contains(&"TARE_SECRET=x"), "{hook}: {env:?}"),
        }
    }
}

#[test]
fn what_a_service_manager_says_is_not_for_hooks() {
    let log = Log::new();
    let dir = temp_dir();
    let path = dir.path().join("manager");
    let _manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let c = with_all(&log, &["exit", "0"]);
    c.on_bundle("create", &[]).env("NOTIFY_SOCKET", path.to_str().unwrap()).run().ok();
    let lines = log.lines();
    assert_eq!(lines.len(), 3);
    for line in lines {
        let env = line["seen"]["env"].to_string();
        assert!(!env.contains("NOTIFY_SOCKET"), "{}: {env}", line["hook"]);
    }
}

#[test]
fn hooks_run_in_the_bundle_and_in_the_programs_directory() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    c.bundle.edit(|config| config["process"]["cwd"] = json!("/made"));
    c.on_bundle("run", &[]).current_dir(std::path::Path::new("/")).run().ok();
    for line in log.lines() {
        let wanted = match line["hook"].as_str().unwrap() {
            "startContainer" => "/made",
            _ => c.bundle.path().to_str().unwrap(),
        };
        assert_eq!(line["seen"]["cwd"], wanted, "{}", line["hook"]);
    }
}

#[test]
fn hooks_begin_with_default_signals_in_a_group_of_their_own() {
    let log = Log::new();
    // in the foreground the runtime itself keeps all signals for the program
    with_all(&log, &["exit", "0"]).run().ok();
    for line in log.lines() {
        let (hook, seen) = (&line["hook"], &line["seen"]);
        assert_eq!(seen["signals"], json!({"blocked": [], "ignored": []}), "{hook}");
        assert_eq!(seen["pgid"], seen["pid"], "{hook}");
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
