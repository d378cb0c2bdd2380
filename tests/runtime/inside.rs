//! From inside: what a program sees of the host, and the attacks on runtimes that
//! were real, carried out.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Container, Invocation, Pipe, Terminal, args, is_alive, map_users, namespace_of, namespace_path,
    pipe, temp_dir, wait_gone,
};

/// A careless caller: a secret in the environment, the host's root left open.
fn careless(command: Invocation) -> Invocation {
    let command = command.env("TARE_SECRET", "of the host").with_open_root(17);
    let ignore = || {
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGTERM, libc::SIGSYS] {
            tare::sys::signals::ignore_signal(signal)?;
        }
        Ok(())
    };
    // SAFETY: system calls, and errors that are numbers.
    unsafe { command.before_exec(ignore) }
}

/// The report of a container that was created and started.
fn created_and_started(c: &Container) -> Value {
    let (mut output, writer) = pipe();
    careless(c.on_bundle("create", &[])).stdout(writer).run().ok();
    careless(c.on_id("start", &[], &[])).run().ok();
    serde_json::from_str(&output.rest()).unwrap()
}

fn run(c: &Container) -> Value {
    careless(c.on_bundle("run", &[])).run().ok().json()
}

fn run_with_a_terminal(c: &Container) -> Value {
    c.bundle.edit(|config| config["process"]["terminal"] = json!(true));
    let mut terminal = Terminal::new(24, 80);
    let running = terminal.attach(careless(c.on_bundle("run", &[]))).spawn();
    let line = terminal.output.line();
    running.wait().ok();
    serde_json::from_str(&line).unwrap()
}

/// What every program has to find, however its container came to be.
fn check(how: &str, report: &Value) {
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{how}");
    for (field, wanted) in [
        ("exe", json!("/probe")),
        ("root_link", json!("/")),
        ("cwd", json!("/")),
        ("env", json!(["PATH=/usr/local/bin:/usr/bin:/bin:/", "HOME=/"])),
        ("maps", json!(["/probe"])),
        ("keys", json!([])),
        ("groups", json!([])),
        ("signals", json!({"blocked": [], "ignored": []})),
        ("parent_death_signal", json!(0)),
        ("no_new_privs", json!(true)),
        ("securebits", json!(0)),
        ("dumpable", json!(1)),
        ("threads", json!(1)),
        ("seccomp", json!(0)),
        ("personality", json!(0)),
        ("umask", json!(0o22)),
        ("hostname", json!("probe")),
    ] {
        assert_eq!(report[field], wanted, "{how}: {field}");
    }
    assert_eq!(report["sid"], report["pid"], "{how}");
    assert!(!report["environ_of_init"].to_string().contains("SECRET"), "{how}");
    for line in report["cgroup"].as_array().unwrap() {
        assert!(line.as_str().unwrap().ends_with(":/"), "{how}: {line}");
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let ours = namespace_of(std::process::id(), kind);
        assert_ne!(report["namespaces"][kind], *ours, "{how}: {kind}");
    }
    let ours = std::process::Command::new(crate::support::probe()).arg("report").output().unwrap();
    let ours: Value = serde_json::from_slice(&ours.stdout).unwrap();
    assert!(report["keyring"].is_i64(), "{how}: {}", report["keyring"]);
    assert_ne!(report["keyring"], ours["keyring"], "{how}");
}

/// A way in which a container's program comes to run.
type Way = (&'static str, fn(&Container) -> Value);

const WAYS: [Way; 3] = [
    ("create and start", created_and_started),
    ("run", run),
    ("run with a terminal", run_with_a_terminal),
];

#[test]
fn nothing_of_the_host_is_seen_from_inside() {
    for (how, report) in WAYS {
        let report = report(&Container::new(|_| {}));
        check(how, &report);
        assert_eq!(report["processes"], json!([1]), "{how}");
        assert_eq!(report["ppid"], 0, "{how}");
    }
}

#[test]
fn nothing_of_the_host_is_seen_from_a_user_namespace() {
    for (how, report) in WAYS {
        let c = Container::new(map_users);
        c.bundle.give_rootfs_to(100_000);
        let report = report(&c);
        check(how, &report);
        let ours = namespace_of(std::process::id(), "user");
        assert_ne!(report["namespaces"]["user"], *ours, "{how}");
        assert_eq!(report["uid_map"], json!([[0, 100_000, 65536]]), "{how}");
    }
}

#[test]
fn nothing_of_the_host_is_seen_from_the_pid_namespace_of_another() {
    let other = Container::new(|c| args(c, &["wait"]));
    let _output = other.started();
    for (how, report) in WAYS {
        let c = Container::new(|config| {
            namespace_path(config, "pid", &format!("/proc/{}/ns/pid", other.pid()));
        });
        let report = report(&c);
        check(how, &report);
        let processes = report["processes"].as_array().unwrap();
        assert!(processes.contains(&json!(1)), "{how}: {processes:?}");
        assert!(processes.contains(&report["pid"]), "{how}: {processes:?}");
    }
}

/// A container that watches what comes into its pid namespace, and its words.
fn spy(marker: &Path, edit: impl FnOnce(&mut Value)) -> (Container, Pipe) {
    let c = Container::new(|config| {
        args(config, &["spy", marker.to_str().unwrap()]);
        // as much as root of a container ever has, but for what is the machine's
        let caps = json!(["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_CHROOT", "CAP_SETUID"]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = caps.clone();
        }
        edit(config);
    });
    c.bundle.give_rootfs_to(if c.bundle.config()["linux"]["uidMappings"].is_array() {
        100_000
    } else {
        0
    });
    let output = c.started();
    (c, output)
}

/// The next process that the spy tells of, if its name is this one.
fn sighted(output: &mut Pipe, is_it: impl Fn(&str) -> bool) -> Value {
    loop {
        let line: Value = serde_json::from_str(&output.line()).unwrap();
        if is_it(line["comm"].as_str().unwrap()) {
            return line;
        }
    }
}

const DOORS: [&str; 8] =
    ["root", "cwd", "fds", "exe", "exe_for_writing", "environ", "memory", "ptrace"];

fn assert_closed(when: &str, init: &Value) {
    for door in DOORS {
        let seen = init[door].as_str().unwrap();
        assert!(["EACCES", "EPERM"].contains(&seen), "{when}: {door}: {seen}: {init}");
    }
}

/// What a spy sees of a container that joins its pid namespace: while it is
/// made (its root is the host's), while it waits for `start`, and when it runs.
fn watch(spy: &Container, output: &mut Pipe, victim: &Container) {
    let dir = temp_dir();
    let go = dir.path().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    victim.bundle.edit(|config| {
        args(config, &["wait"]);
        // the bundle's capabilities are the spy's: ptrace wants no more of one
        config["process"]["capabilities"] = spy.bundle.config()["process"]["capabilities"].clone();
        // it is held here, before pivot_root, until the spy has looked
        let script = format!("read line < {}", go.display());
        let hold = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"] = json!({"createRuntime": [hold]});
    });
    let (mut said, writer) = pipe();
    let creating = victim.on_bundle("create", &[]).stdout(writer).spawn();
    let init = sighted(output, |name| name != "probe");
    assert_closed("while it is made", &init);
    std::fs::write(&go, "go\n").unwrap();
    creating.wait().ok();
    // it has no more rights than the spy has now, and the same user
    spy.kill("USR1").ok();
    assert_closed("while it waits", &sighted(output, |name| name != "probe"));
    victim.start().ok();
    said.expect("READY");
    // the program itself is open to its like: the spy knows how to look
    let program = sighted(output, |name| name == "probe");
    assert_eq!(program["pid"], init["pid"], "{program}");
    for door in ["cwd", "fds", "exe", "environ", "memory", "ptrace"] {
        assert_eq!(program[door], "ok", "{door}: {program}");
    }
    assert_eq!(program["root"], "ok", "{program}");
}

#[test]
fn an_init_that_joins_a_pid_namespace_is_closed_to_who_is_there() {
    let dir = temp_dir();
    let marker = dir.path().join("marker");
    std::fs::write(&marker, "").unwrap();
    let (spy, mut output) = spy(&marker, |_| {});
    let victim = Container::new(|config| {
        namespace_path(config, "pid", &format!("/proc/{}/ns/pid", spy.pid()));
    });
    watch(&spy, &mut output, &victim);
}

#[test]
fn an_init_that_joins_a_user_namespace_is_closed_to_root_of_it() {
    let dir = temp_dir();
    let marker = dir.path().join("marker");
    std::fs::write(&marker, "").unwrap();
    let (spy, mut output) = spy(&marker, |config| {
        map_users(config);
        // all power over its namespaces, which are the other's as well
        let caps = json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = caps.clone();
        }
    });
    let victim = Container::new(|config| {
        for (kind, name) in [("pid", "pid"), ("user", "user"), ("network", "net"), ("ipc", "ipc")] {
            namespace_path(config, kind, &format!("/proc/{}/ns/{name}", spy.pid()));
        }
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup" && m["type"] != "mqueue");
    });
    victim.bundle.give_rootfs_to(100_000);
    watch(&spy, &mut output, &victim);
}

#[test]
fn the_runtimes_binary_can_not_be_written_to_from_inside() {
    let binary = Path::new(env!("CARGO_BIN_EXE_tare"));
    let before = std::fs::metadata(binary).unwrap().modified().unwrap();
    let thief = Container::new(|config| {
        args(config, &["grab-exe", "/pause"]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_KILL"]);
        }
    });
    let mut output = thief.started();
    // the program is what init executes from: the runtime's own file
    let bait = Container::new(|config| {
        config["process"]["args"] =
            json!(["/proc/self/exe", "--log", "/fifo", "--root", "/", "state", "nobody"]);
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
        namespace_path(config, "pid", &format!("/proc/{}/ns/pid", thief.pid()));
    });
    // it is full, and nobody reads there: the runtime's code waits, inside, with what it
    // has to say, to be robbed
    let fifo = bait.bundle.rootfs().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut options = std::fs::File::options();
    let full = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    while (&full).write(&[b'.'; 4096]).is_ok() {}
    bait.on_bundle("create", &[]).run().ok();
    bait.start().ok();
    output.expect("held");
    bait.delete_by_force().ok();
    std::fs::write(thief.bundle.rootfs().join("pause"), "").unwrap();
    output.expect("EROFS");
    assert_eq!(std::fs::metadata(binary).unwrap().modified().unwrap(), before);
}

#[test]
fn a_directory_that_is_left_open_is_no_way_out() {
    let dir = temp_dir();
    let marker = dir.path().join("marker");
    std::fs::write(&marker, "").unwrap();
    for fd in [3, 5, 7, 8, 17, 23] {
        for (cwd, link) in [
            (format!("/proc/self/fd/{fd}"), None),
            (format!("/proc/self/fd/{fd}/../../.."), None),
            (format!("/proc/thread-self/fd/{fd}/tmp"), None),
            // the image leads there
            ("/linked".to_owned(), Some(format!("/proc/self/fd/{fd}"))),
            ("/linked/tmp".to_owned(), Some(format!("/proc/self/fd/{fd}"))),
        ] {
            let c = Container::new(|config| {
                args(config, &["escape", marker.to_str().unwrap()]);
                config["process"]["cwd"] = json!(cwd);
            });
            if let Some(link) = link {
                std::os::unix::fs::symlink(link, c.bundle.rootfs().join("linked")).unwrap();
            }
            let output = c.on_bundle("run", &[]).with_open_root(fd.max(17)).run();
            let is_out = output.stdout.lines().any(|line| !line.ends_with(": contained"));
            assert!(!is_out, "{cwd}: {output:?}");
        }
    }
}

#[test]
fn a_directory_that_the_caller_passes_on_is_no_working_directory() {
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/3/tmp", "/proc/thread-self/fd/3"] {
        for command in ["create", "run"] {
            let c = Container::new(|config| config["process"]["cwd"] = json!(cwd));
            let output = c.on_bundle(command, &["--preserve-fds", "1"]).with_open_root(3).run();
            output.fails_with(&["process.cwd"]);
            c.assert_gone();
        }
    }
}

#[test]
fn a_runtime_that_dies_takes_an_init_in_the_making_along() {
    let dir = temp_dir();
    let file = dir.path().join("pid");
    let c = Container::new(|config| {
        let script = format!("echo $PPID > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
        let hold = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        config["hooks"] = json!({"createRuntime": [hold]});
    });
    let running = c.on_bundle("create", &[]).spawn();
    wait_gone("a hook that has not begun", || file.is_file());
    let runtime: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert_eq!(runtime, running.pid());
    let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    let init: u32 = procs.trim().parse().unwrap();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    wait_gone("init", || !is_alive(init));
    c.delete_by_force().ok();
    c.assert_gone();
}
