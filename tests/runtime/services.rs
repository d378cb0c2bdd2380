//! What service managers give and want: open sockets, and to hear when the
//! program is ready.

use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};

use crate::support::{Container, Invocation, args, is_readable, map_users, pipe, timeout};

/// The command with these files from descriptor 3 on, and LISTEN_PID its own
/// pid or another's.
fn with_sockets(command: Invocation, paths: &[&str], own_pid: bool) -> Invocation {
    let opened: String = (3..).zip(paths).map(|(fd, path)| format!(" {fd}<{path}")).collect();
    let pid = if own_pid { "$$" } else { "1" };
    command.through_shell(&format!(
        "exec{opened}; export LISTEN_PID={pid} LISTEN_FDS={} LISTEN_FDNAMES=web:log",
        paths.len()
    ))
}

fn variables(report: &Value, prefix: &str) -> Vec<String> {
    let env = report["env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned());
    let mut found: Vec<String> = env.filter(|entry| entry.starts_with(prefix)).collect();
    found.sort_unstable();
    found
}

#[test]
fn sockets_of_a_service_manager_reach_the_program() {
    let c = Container::new(|_| {});
    let command = c.on_bundle("run", &["--preserve-fds", "1"]);
    // one more is open, for --preserve-fds
    let command = command.through_shell("exec 5</etc/hostname");
    let report = with_sockets(command, &["/etc/passwd", "/etc/group"], true).run().ok().json();
    assert_eq!(
        variables(&report, "LISTEN_"),
        ["LISTEN_FDNAMES=web:log", "LISTEN_FDS=2", "LISTEN_PID=1"]
    );
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(report["fds"]["3"], "/etc/passwd");
    assert_eq!(report["fds"]["4"], "/etc/group");
    assert_eq!(report["fds"]["5"], "/etc/hostname");
}

#[test]
fn the_pid_is_that_of_the_program_behind_a_tiny_init() {
    let c = Container::new(|_| {});
    let command = with_sockets(c.on_bundle("run", &["--init"]), &["/etc/passwd"], true);
    let report = command.run().ok().json();
    assert_ne!(report["pid"], 1);
    assert_eq!(variables(&report, "LISTEN_PID"), [format!("LISTEN_PID={}", report["pid"])]);
    assert_eq!(report["fds"]["3"], "/etc/passwd");
}

#[test]
fn sockets_that_are_meant_for_another_stay_outside() {
    let c = Container::new(|_| {});
    let command = with_sockets(c.on_bundle("run", &[]), &["/etc/passwd"], false);
    let report = command.run().ok().json();
    assert_eq!(variables(&report, "LISTEN_"), [""; 0]);
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn sockets_that_are_meant_for_nobody_by_name_reach_the_program() {
    let c = Container::new(|_| {});
    let script = "exec 3</etc/passwd; unset LISTEN_PID; export LISTEN_FDS=1";
    let report = c.on_bundle("run", &[]).through_shell(script).run().ok().json();
    assert_eq!(variables(&report, "LISTEN_"), ["LISTEN_FDS=1", "LISTEN_PID=1"]);
    assert_eq!(report["fds"]["3"], "/etc/passwd");
    // a variable that was left over tells of nothing
    let c = Container::new(|_| {});
    let script = "exec 3<&-; unset LISTEN_PID; export LISTEN_FDS=1";
    let report = c.on_bundle("run", &[]).through_shell(script).run().ok().json();
    assert_eq!(variables(&report, "LISTEN_"), [""; 0]);
}

#[test]
fn sockets_that_are_not_open_are_refused() {
    let c = Container::new(|_| {});
    let script = "exec 3<&-; export LISTEN_FDS=1 LISTEN_PID=$$";
    let command = c.on_bundle("run", &[]).through_shell(script);
    command.run().fails_with(&["LISTEN_FDS=1", "descriptor 3"]);
    c.assert_gone();
}

/// A service manager's socket, next to a bundle.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(c: &Container) -> Self {
        let path = c.bundle.path().join("manager");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(timeout())).unwrap();
        Manager { socket, path: path.to_str().unwrap().to_owned() }
    }

    /// The next message. The descriptor of a barrier is dropped by not being
    /// asked for: that is the answer.
    fn heard(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn is_silent(&self) -> bool {
        !is_readable(&self.socket, std::time::Duration::ZERO)
    }
}

/// Says that it is ready, and stays.
fn ready_program(config: &mut Value) {
    args(config, &["each", "notify READY=1 STATUS=up", "wait"]);
    config["process"]["user"]["uid"] = json!(1000);
}

#[test]
fn a_foreground_run_passes_on_that_the_program_is_ready() {
    let c = Container::new(ready_program);
    let manager = Manager::new(&c);
    let (mut output, writer) = pipe();
    let command = c.on_bundle("run", &[]).env("NOTIFY_SOCKET", &manager.path).stdout(writer);
    let running = command.spawn();
    output.expect("ok");
    // the main process is the run itself
    assert_eq!(manager.heard(), "READY=1");
    assert_eq!(manager.heard(), "BARRIER=1");
    output.expect("READY");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().ok();
    c.assert_gone();
}

/// Its program says UP, and that it is ready when its stdin has ended.
fn ready_when_told() -> Container {
    Container::new(|config| {
        ready_program(config);
        args(config, &["each", "say UP", "echo-stdin", "notify READY=1", "wait"]);
    })
}

#[test]
fn a_detached_run_returns_once_the_program_is_ready() {
    let c = ready_when_told();
    let manager = Manager::new(&c);
    let (reader, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let (mut output, writer) = pipe();
    let command = c.on_bundle("run", &["--detach"]).env("NOTIFY_SOCKET", &manager.path);
    let running = command.stdin(reader).stdout(writer).spawn();
    output.expect("UP");
    // it is not ready, and that holds nobody else up
    c.kill("WINCH").ok();
    assert!(manager.is_silent());
    drop(hold);
    output.expect("ok");
    assert_eq!(manager.heard(), format!("MAINPID={}\nREADY=1", c.pid()));
    assert_eq!(manager.heard(), "BARRIER=1");
    running.wait().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_start_returns_once_the_program_is_ready() {
    let c = Container::new(|config| {
        ready_program(config);
        args(config, &["each", "echo-stdin", "notify READY=1", "wait"]);
    });
    let manager = Manager::new(&c);
    let (reader, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let (mut output, writer) = pipe();
    let command = c.on_bundle("create", &[]).env("NOTIFY_SOCKET", &manager.path);
    command.stdin(reader).stdout(writer).run().ok();
    let start = c.on_id("start", &[], &[]).env("NOTIFY_SOCKET", &manager.path).spawn();
    // it runs, and is not ready: others can look at it meanwhile
    while c.status() != "running" {}
    assert!(manager.is_silent());
    drop(hold);
    output.expect("ok");
    assert_eq!(manager.heard(), format!("MAINPID={}\nREADY=1", c.pid()));
    assert_eq!(manager.heard(), "BARRIER=1");
    start.wait().ok();
    c.delete_by_force().ok();
    c.assert_gone();
}

/// The program runs, and others know of it: who waits for its word may end.
#[test]
fn a_signal_ends_the_wait_for_a_program_that_is_not_ready() {
    for command in ["start", "run"] {
        let c = ready_when_told();
        let manager = Manager::new(&c);
        let (reader, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (mut output, writer) = pipe();
        let with = |command: Invocation| command.env("NOTIFY_SOCKET", &manager.path);
        let waiting = if command == "start" {
            let create = with(c.on_bundle("create", &[]));
            create.stdin(reader).stdout(writer).run().ok();
            with(c.on_id("start", &[], &[])).spawn()
        } else {
            with(c.on_bundle("run", &["--detach"])).stdin(reader).stdout(writer).spawn()
        };
        output.expect("UP");
        // who has the container has waited until it was let go
        c.on_id("update", &[], &[]).run().ok();
        waiting.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(waiting.wait().code, 128 + nix::libc::SIGTERM);
        assert_eq!(c.status(), "running");
        assert!(manager.is_silent());
        // nobody hears it any more, and that is no reason to end
        drop(hold);
        c.delete_by_force().ok();
        c.assert_gone();
    }
}

#[test]
fn a_program_in_a_user_namespace_can_say_that_it_is_ready() {
    let c = Container::new(|config| {
        ready_program(config);
        map_users(config);
        args(config, &["notify", "READY=1"]);
    });
    c.bundle.give_rootfs_to(100_000);
    let manager = Manager::new(&c);
    let running = c.on_bundle("run", &[]).env("NOTIFY_SOCKET", &manager.path).spawn();
    assert_eq!(manager.heard(), "READY=1");
    assert_eq!(manager.heard(), "BARRIER=1");
    assert_eq!(running.wait().ok().stdout, "ok\n");
}

#[test]
fn a_program_that_ends_before_it_is_ready_holds_nobody_up() {
    let c = Container::new(|c| args(c, &["exit", "3"]));
    let manager = Manager::new(&c);
    let command = c.on_bundle("create", &[]).env("NOTIFY_SOCKET", &manager.path);
    command.run().ok();
    c.on_id("start", &[], &[]).env("NOTIFY_SOCKET", &manager.path).run().ok();
    assert!(manager.is_silent());
    c.delete().ok();
    let command = c.on_bundle("run", &["--detach"]).env("NOTIFY_SOCKET", &manager.path);
    command.run().ok();
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn the_managers_own_socket_stays_outside() {
    let c = Container::new(|_| {});
    let manager = Manager::new(&c);
    let report = c.on_bundle("run", &[]).env("NOTIFY_SOCKET", &manager.path).run().ok().json();
    assert_eq!(variables(&report, "NOTIFY_"), ["NOTIFY_SOCKET=/run/notify/notify.sock"]);
    let mount = report["mounts"].as_array().unwrap().iter().find(|m| m["target"] == "/run/notify");
    assert!(mount.is_some(), "{}", report["mounts"]);
    assert_eq!(variables(&c.json(), "NOTIFY_"), [""; 0]);
    c.on_bundle("run", &[]).env("NOTIFY_SOCKET", "vsock:2:1").run().fails_with(&["vsock:2:1"]);
    c.assert_gone();
}
