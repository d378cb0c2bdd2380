//! `--trace`: what a command and the processes that it makes spend their time on.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Container, Invocation, Output, Tare, add_mount, args, drop_namespace, faults, map_users,
    namespace_path, temp_dir,
};

const DAY: i64 = 86400;

/// What rounding to floating numbers may do, in microseconds.
const ROUNDING: f64 = 0.002;

/// A runtime that writes a trace.
pub(crate) struct Traced {
    pub(crate) tare: Tare,
    pub(crate) file: PathBuf,
    _dir: TempDir,
}

impl Traced {
    pub(crate) fn new() -> Self {
        let dir = temp_dir();
        let file = dir.path().join("trace.json");
        let tare = Tare::new().with(&["--trace", file.to_str().unwrap()]);
        Traced { tare, file, _dir: dir }
    }

    /// What the last command has written.
    #[track_caller]
    pub(crate) fn read(&self) -> Trace {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let events: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let trace = Trace(events);
        trace.assert_whole();
        trace
    }
}

/// The events of a file.
pub(crate) struct Trace(Vec<Value>);

impl Trace {
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|event| event["ph"] == "X")
    }

    /// The command itself: the event around all others.
    fn whole(&self) -> &Value {
        self.steps().next().unwrap()
    }

    /// The first step of this name.
    #[track_caller]
    fn step(&self, name: &str) -> &Value {
        self.steps().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name}: {:#?}", self.0))
    }

    fn has(&self, name: &str) -> bool {
        self.steps().any(|step| step["name"] == name)
    }

    /// The process of this name: `tare …`, init, helper, process.
    fn pid_of(&self, name: &str) -> Option<u64> {
        let named = |event: &&Value| {
            event["name"] == "process_name"
                && event["args"]["name"].as_str().unwrap().split(' ').next() == Some(name)
        };
        self.0.iter().find(named)?["pid"].as_u64()
    }

    /// The steps of a process, in the order of the file.
    fn of(&self, process: &str) -> Vec<&Value> {
        let pid = self.pid_of(process);
        self.steps().filter(|step| step["pid"].as_u64() == pid).collect()
    }

    /// These steps are there in this order, whatever lies in between.
    #[track_caller]
    fn assert_order(&self, process: &str, names: &[&str]) {
        let steps = self.of(process);
        let found: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
        let mut rest = found.iter();
        for name in names {
            assert!(rest.any(|step| step == name), "{process}: no {name} in its place: {found:#?}");
        }
    }

    /// Everything lies inside the command, in order, and in each process steps are
    /// inside each other or apart.
    #[track_caller]
    fn assert_whole(&self) {
        let whole = span(self.whole());
        let mut last = f64::NEG_INFINITY;
        for step in self.steps().skip(1) {
            let (start, end) = span(step);
            assert!(start >= whole.0 - ROUNDING && end <= whole.1 + ROUNDING, "{whole:?}: {step}");
            assert!(start >= last, "not sorted: {step}");
            last = start;
        }
        for process in ["tare", "helper", "init", "process"] {
            let steps = self.of(process);
            for (at, step) in steps.iter().enumerate() {
                let (start, end) = span(step);
                for later in &steps[at + 1..] {
                    let (next, next_end) = span(later);
                    let is_apart = next >= end - ROUNDING;
                    let is_inside = next >= start && next_end <= end + ROUNDING;
                    assert!(is_apart || is_inside, "{step} cuts {later}");
                }
            }
        }
    }

    #[track_caller]
    fn assert_inside(&self, outer: &str, inner: &str) {
        self.assert_between((outer, outer), inner);
    }

    /// A step does not begin before the first of two, nor end after the second.
    #[track_caller]
    fn assert_between(&self, (first, last): (&str, &str), inner: &str) {
        let ((start, _), (_, end)) = (span(self.step(first)), span(self.step(last)));
        let (from, to) = span(self.step(inner));
        assert!(from >= start - ROUNDING && to <= end + ROUNDING, "{inner}: not {first} to {last}");
    }
}

/// Begin and end, in microseconds.
fn span(step: &Value) -> (f64, f64) {
    let start = step["ts"].as_f64().unwrap();
    let length = step["dur"].as_f64().unwrap();
    assert!(length >= 0.0, "{step}");
    (start, start + length)
}

/// What every `create` and `run` does in its own process, up to init's readiness.
const RUNTIME: [&str; 18] = [
    "before main",
    "read the command line",
    "protect the binary",
    "read the configuration",
    "parse the configuration",
    "resolve the plan",
    "check the host",
    "find a place for the cgroup",
    "reserve the id",
    "save a first record",
    "make the cgroup",
    "write the limits",
    "clone init",
    "save what exec needs",
    "write the record",
    "attach the device program",
    "serve init",
    "name the record",
];

/// The same of init.
const INIT: [&str; 19] = [
    "init",
    "leave the runtime behind",
    "isolate",
    "make a cgroup namespace",
    "make a session",
    "bring loopback up",
    "set up the root",
    "cut the mounts off",
    "attach the root",
    "mount",
    "make devices",
    "make the links of /dev",
    "enter the root",
    "make paths read-only",
    "mask paths",
    "change the root",
    "become the user",
    "drop privileges",
    "find the program",
];

#[test]
fn a_run_has_the_steps_of_both_of_its_processes() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| args(config, &["exit", "0"]));
    let running = c.on_bundle("run", &[]).spawn();
    let pid = u64::from(running.pid());
    running.wait().ok();
    let trace = traced.read();
    assert_eq!(trace.whole()["name"], format!("run {}", c.id));
    assert_eq!(trace.pid_of("tare"), Some(pid));
    assert_ne!(trace.pid_of("init"), Some(pid));
    let names = [&RUNTIME[..], &["wait for execve", "wait for the program"]].concat();
    trace.assert_order("tare", &names);
    trace.assert_order("tare", &["remove the container", "remove the cgroup", "remove the state"]);
    trace.assert_order(
        "init",
        &[&INIT[..], &["wait until the runtime is ready", "execve"]].concat(),
    );
    // seen from both sides, by one clock
    let (clone, _) = span(trace.step("clone init"));
    let (birth, end) = span(trace.step("init"));
    assert!(clone <= birth, "{birth} before {clone}");
    // where init does not have to ask, it may begin while it is served
    trace.assert_between(("serve init", "wait for execve"), "execve");
    assert!(end <= span(trace.step("wait for execve")).1);
    let mounts = trace.of("init").into_iter().filter(|step| step["name"] == "mount");
    let config: Value =
        serde_json::from_slice(&std::fs::read(c.bundle.path().join("config.json")).unwrap())
            .unwrap();
    let wanted = config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone());
    let found = mounts.map(|step| step["args"]["destination"].clone());
    assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn a_create_ends_with_inits_readiness_and_each_command_has_its_own_trace() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| args(config, &["wait"]));
    let mut output = c.create();
    let trace = traced.read();
    let init: u64 =
        std::fs::read_to_string(c.bundle.path().join("init.pid")).unwrap().parse().unwrap();
    assert_eq!(trace.pid_of("init"), Some(init));
    trace.assert_order("tare", &[&RUNTIME[..], &["write the pid file"]].concat());
    trace.assert_order("init", &INIT);
    assert!(!trace.has("execve") && !trace.has("wait until the runtime is ready"));
    assert_eq!(trace.step("init")["args"], json!({}));
    c.start().ok();
    while output.line() != "READY" {}
    traced.read().assert_order(
        "tare",
        &["before main", "lock the container", "read the record", "call init", "wait for execve"],
    );
    c.exec(&[], &["exit", "0"]).run().ok();
    let trace = traced.read();
    let runtime = ["read what create has kept", "clone the process", "wait for the program"];
    trace.assert_order("tare", &runtime);
    trace.assert_order("process", &["process", "join namespaces", "become the user", "execve"]);
    assert!(trace.pid_of("process").is_some_and(|pid| Some(pid) != trace.pid_of("tare")));
    c.kill("KILL").ok();
    assert_eq!(traced.read().step("send a signal")["args"]["signal"], "9");
    c.ended(&mut output);
    c.delete().ok();
    let trace = traced.read();
    trace.assert_order("tare", &["remove the cgroup", "remove the state"]);
    assert_eq!(trace.pid_of("init"), None);
}

#[test]
fn clocks_that_are_shifted_fit_all_the_same() {
    let traced = Traced::new();
    let first = Container::under(&traced.tare, |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": DAY, "nanosecs": 5}, "boottime": {"secs": DAY}});
        args(config, &["wait"]);
    });
    let _output = first.started();
    first.exec(&[], &["exit", "0"]).run().ok();
    // `read` holds all steps against the time of the command
    traced.read().assert_order("process", &["join namespaces", "become the user", "execve"]);
    let path = format!("/proc/{}/ns/time", first.pid());
    for by_helper in [false, true] {
        let c = Container::under(&traced.tare, |config| {
            namespace_path(config, "time", &path);
            if by_helper {
                map_users(config);
            }
            args(config, &["exit", "0"]);
        });
        c.bundle.give_rootfs_to(if by_helper { 100_000 } else { 0 });
        c.run().ok();
        let trace = traced.read();
        trace.assert_order("init", &["isolate", "set up the root", "execve"]);
        assert_eq!(trace.pid_of("helper").is_some(), by_helper);
    }
    let c = Container::under(&traced.tare, |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": DAY}});
        args(config, &["exit", "0"]);
    });
    c.run().ok();
    let trace = traced.read();
    trace.assert_order("init", &["make a time namespace", "set up the root", "execve"]);
    // where init does not have to ask, it may begin while it is served
    trace.assert_between(("serve init", "wait for execve"), "execve");
}

#[test]
fn a_second_fork_has_its_own_lane() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| {
        drop_namespace(config, "network");
        namespace_path(config, "network", &format!("/proc/{}/ns/net", std::process::id()));
        map_users(config);
        args(config, &["exit", "0"]);
    });
    c.bundle.give_rootfs_to(100_000);
    c.run().ok();
    let trace = traced.read();
    trace.assert_inside("clone init", "helper");
    trace.assert_order("init", &["get id maps", "open the sources of mounts", "execve"]);
    trace.assert_inside("serve init", "write the id maps");
}

#[test]
fn a_failed_create_names_the_step_that_failed() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| {
        add_mount(
            config,
            json!({"destination": "/data", "source": "/no/such/source", "options": ["bind"]}),
        );
    });
    for command in ["create", "run"] {
        c.on_bundle(command, &[]).run().fails_with(&["/no/such/source"]);
        let trace = traced.read();
        assert_eq!(trace.whole()["args"]["failed"], "init: mount /data");
        assert!(trace.whole()["args"]["error"].as_str().unwrap().contains("/no/such/source"));
        for name in ["serve init", "init", "set up the root"] {
            assert_eq!(trace.step(name)["args"]["failed"], "true", "{name}");
        }
        assert!(trace.step("isolate")["args"]["failed"].is_null());
        assert!(trace.has("undo") && !trace.has("execve"));
        c.assert_gone();
    }
    std::fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    c.on_bundle("create", &[]).run().fails_with(&["does not exist"]);
    let failed = traced.read().whole()["args"]["failed"].clone();
    assert!(failed.as_str().unwrap().starts_with("tare: read the configuration /"), "{failed}");
}

#[test]
fn an_execve_that_fails_is_in_the_trace_of_who_waits_for_it() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |c| c["process"]["args"] = json!(["/script"]));
    let script = c.bundle.rootfs().join("script");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    c.run().fails_with(&["no such file or directory"]);
    let trace = traced.read();
    assert_eq!(trace.step("execve")["args"]["failed"], "true");
    assert_eq!(trace.step("wait for execve")["args"]["failed"], "true");
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_anything_is_made() {
    let dir = temp_dir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, text) in [
        (dir.path().join("no/such/trace"), "no such file or directory"),
        (dir.path().to_owned(), "is a directory"),
        (fifo, "nobody reads the fifo"),
    ] {
        let path = path.to_str().unwrap();
        let c = Container::new(|_| {});
        let bundle = c.bundle.path().to_str().unwrap();
        for command in ["create", "run"] {
            let words = ["--trace", path, command, "--bundle", bundle, &c.id];
            let output = c.tare.command(words).run();
            output.fails_with(&[&format!("--trace {path}: "), text]);
            c.assert_gone();
        }
    }
}

#[test]
fn nothing_of_the_trace_gets_into_the_container() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| args(config, &["report"]));
    let report = c.json();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
    // and of a container that waits, none but its own process has the file open
    let c = Container::under(&traced.tare, |config| args(config, &["wait"]));
    let _output = c.create();
    let open = std::fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap();
    let open = open.map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap_or_default());
    assert!(!open.collect::<Vec<_>>().contains(&traced.file));
}

#[test]
fn steps_that_had_no_room_are_counted() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| {
        let options = ["remount", "nosuid", "noexec", "nodev"];
        for _ in 0..2100 {
            add_mount(config, json!({"destination": "/proc", "type": "proc", "options": options}));
        }
        args(config, &["exit", "0"]);
    });
    let output = c.run().ok();
    let (_, warning) = output.stderr.split_once("warning: --trace ").unwrap();
    assert!(warning.contains(" steps had no room and are left out"), "{warning}");
    let trace = traced.read();
    let lost: usize = trace.whole()["args"]["lost"].as_str().unwrap().parse().unwrap();
    assert!(lost > 0 && trace.steps().count() > 2000, "{lost}");
}

/// The calls of a command, and what is in the way of comparing two of them left out.
fn calls(command: Invocation) -> (Output, Vec<String>) {
    let dir = temp_dir();
    let report = dir.path().join("calls");
    let output = command.through(faults(), &["--report", report.to_str().unwrap()]).run();
    let text = std::fs::read_to_string(report).unwrap();
    let call = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        // the addresses and sizes of memory differ from run to run
        let is_memory = ["brk", "mmap", "munmap", "mremap", "madvise"].contains(&fields[2]);
        // a path is looked up once more if anybody renames or mounts meanwhile
        let is_again = fields[5] == "-11";
        // numbers in names differ as well
        let text = fields[4].replace(|c: char| c.is_ascii_digit(), "");
        // one C library's call for the same is another's other one
        let name = match fields[2] {
            "open" => "openat",
            "stat" | "lstat" | "fstat" | "newfstatat" => "statx",
            other => other,
        };
        (!is_memory && !is_again).then(|| format!("{} {name} {text}", fields[0]))
    };
    (output, text.lines().filter_map(call).collect())
}

#[test]
fn a_command_that_is_not_traced_makes_none_of_the_calls() {
    let dir = temp_dir();
    let file = dir.path().join("trace.json");
    let c = Container::new(|config| args(config, &["exit", "0"]));
    let run = |words: &[&str]| {
        let tare = c.tare.with(words);
        let bundle = c.bundle.path().to_str().unwrap().to_owned();
        let (output, calls) = calls(tare.command(["run", "--bundle", &bundle, &c.id]));
        output.ok();
        calls
    };
    // the first one makes the places for mounts in the image
    c.run().ok();
    let (plain, traced) = (run(&[]), run(&["--trace", file.to_str().unwrap()]));
    let file = file.to_str().unwrap().replace(|c: char| c.is_ascii_digit(), "");
    let opened = format!("runtime openat {file}");
    let wanted = [
        opened.as_str(),
        "runtime clock_gettime ",
        "runtime openat /proc/self/schedstat",
        "runtime statx ",
        "runtime getpid ",
        "runtime read ",
        "runtime fcntl ",
        "runtime write ",
        "runtime close ",
    ];
    // what a trace adds is the runtime's, and init makes not one call for it
    let mut more = traced;
    for call in &plain {
        let at = more.iter().position(|c| c == call);
        more.remove(at.unwrap_or_else(|| panic!("{call} only without a trace")));
    }
    assert!(more.contains(&opened), "{more:#?}");
    for call in more {
        assert!(wanted.contains(&call.as_str()), "{call} for a trace");
        assert!(!call.contains("clock_gettime") || !plain.contains(&call), "{call} without one");
    }
}
