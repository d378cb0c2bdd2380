//! `exec`: where its process is, how it ends, and what becomes of it when the
//! container or the command ends first.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, listen, shutdown, socket,
};
use serde_json::{Value, json};

use crate::support::{
    Container, Output, Pipe, args, drop_namespace, dup_to, is_alive, is_readable, namespace_of,
    namespace_path, pidfd_open, pipe, receive_fd, timeout, wait_gone,
};

/// A container that runs and has nothing to do.
pub(crate) fn idle(edit: impl FnOnce(&mut Value)) -> (Container, Pipe) {
    let c = Container::new(|config| {
        args(config, &["wait"]);
        edit(config);
    });
    let output = c.started();
    (c, output)
}

#[track_caller]
pub(crate) fn refused(output: Output, texts: &[&str]) {
    let output = output.fails_with_code(255, texts);
    assert!(output.stderr.starts_with("tare: exec "), "{output:#?}");
}

/// The container has ended before the program ran, or is about to.
#[track_caller]
fn refused_by_its_end(output: Output) {
    let killed = output.stderr.contains("the process was killed before its program ran");
    refused(output, if killed { &[] } else { &["container not running"] });
}

#[test]
fn the_process_is_in_every_namespace_of_the_container() {
    let (c, _output) = idle(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 86400}});
    });
    let seen = c.exec_report(&[]);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let init = namespace_of(c.pid(), kind);
        assert_eq!(seen["namespaces"][kind], init, "{kind}");
        let own = namespace_of(std::process::id(), kind);
        assert_eq!(init == own, kind == "user", "{kind}");
    }
    assert_eq!(seen["hostname"], "probe");
    assert_eq!(seen["processes"], json!([1, seen["pid"]]));
    assert_eq!(seen["ppid"], 0);
    let clock = seen["clocks"]["monotonic"].as_i64().unwrap();
    assert!(clock > 86400, "{clock}");
}

#[test]
fn a_namespace_that_the_container_shares_is_the_callers() {
    let (c, _output) = idle(|config| {
        drop_namespace(config, "network");
        drop_namespace(config, "uts");
        config.as_object_mut().unwrap().remove("hostname");
    });
    let seen = c.exec_report(&[]);
    for kind in ["net", "uts"] {
        assert_eq!(seen["namespaces"][kind], namespace_of(std::process::id(), kind));
    }
}

#[test]
fn in_a_joined_mount_namespace_the_root_is_the_containers() {
    let holder = std::process::Command::new("unshare").args(["-m", "sleep", "1000"]).spawn();
    let mut holder = holder.unwrap();
    let own = namespace_of(std::process::id(), "mnt");
    wait_gone("the holder's old namespace", || namespace_of(holder.id(), "mnt") != own);
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let (c, _output) = idle(|config| namespace_path(config, "mount", &path));
    let listed = c.exec(&[], &["list", "/"]).run().ok();
    assert!(
        listed.stdout.contains("\"probe\"") && !listed.stdout.contains("\"etc\""),
        "{listed:?}"
    );
    assert_eq!(c.exec_report(&[])["namespaces"]["mnt"], namespace_of(holder.id(), "mnt"));
    drop(c);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn the_process_is_in_the_containers_cgroup() {
    let (c, _output) = idle(|_| {});
    let seen = c.exec_report(&[]);
    let cgroup = seen["cgroup"].as_array().unwrap();
    assert!(cgroup.contains(&json!("0::/")), "{cgroup:?}");
    let (mut output, writer) = pipe();
    let running = c.exec(&[], &["wait"]).stdout(writer).spawn();
    output.expect("READY");
    let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 2, "{procs:?}");
    running.signal(Signal::SIGTERM);
    running.wait().ok();
}

#[test]
fn a_sub_cgroup_is_below_the_containers() {
    let (c, _output) = idle(|_| {});
    std::fs::create_dir(c.cgroup().join("sub")).unwrap();
    for path in ["sub", "/sub", "./sub/"] {
        let seen = c.exec_report(&["--cgroup", path]);
        assert!(seen["cgroup"].as_array().unwrap().contains(&json!("0::/sub")), "{path}");
    }
    let seen = c.exec_report(&["--cgroup", "/"]);
    assert!(seen["cgroup"].as_array().unwrap().contains(&json!("0::/")), "{seen}");
    for (path, text) in [
        ("nowhere", "does not exist"),
        ("../", "leads out"),
        ("sub/../../..", "leads out"),
        ("cpu:sub", "cgroup v2"),
        ("cgroup.procs", "not a directory"),
    ] {
        let output = c.exec(&["--cgroup", path], &["exit", "0"]).run();
        refused(output, &["--cgroup", path, text]);
    }
}

#[test]
fn the_exit_code_is_that_of_the_process() {
    let (c, _output) = idle(|_| {});
    for code in [0, 1, 7, 127, 255] {
        let output = c.exec(&[], &["exit", &code.to_string()]).run().ends_with_code(code);
        assert_eq!(output.stderr, "");
    }
    c.exec(&[], &["kill-self", "SIGKILL"]).run().ends_with_code(137);
    c.exec(&[], &["kill-self", "SIGTERM"]).run().ends_with_code(143);
    assert_eq!(c.status(), "running");
}

#[test]
fn a_program_that_can_not_be_run_is_told_in_the_words_that_callers_know() {
    let (c, _output) = idle(|_| {});
    let file = c.bundle.rootfs().join("file");
    File::create(&file).unwrap().write_all(b"text\n").unwrap();
    let run = |word: &str| c.on_id("exec", &[], &[word]).run();
    refused(run("nonesuch"), &["nonesuch", "executable file not found in $PATH"]);
    refused(run("/no/such"), &["/no/such", "no such file or directory"]);
    refused(run("/file"), &["/file", "permission denied"]);
    refused(run("/dev"), &["/dev", "is a directory"]);
    refused(run("/file/x"), &["/file/x", "not a directory"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    refused(run("/file"), &["/file", "exec format error"]);
    refused(c.on_id("exec", &[], &[]).run(), &["no command"]);
}

#[test]
fn words_after_the_id_are_the_programs() {
    let (c, _output) = idle(|_| {});
    let words = ["say", "--root", "x", "-e", "-t", "--", "--help"];
    assert_eq!(c.exec(&[], &words).run().ok().stdout, "--root x -e -t -- --help\n");
    let output = c.on_id("exec", &[], &["--", "/probe", "say", "--detach"]).run().ok();
    assert_eq!(output.stdout, "--detach\n");
}

#[test]
fn a_created_container_takes_processes_before_its_program_runs() {
    let c = Container::new(|config| args(config, &["wait"]));
    let mut output = c.create();
    let seen = c.exec_report(&[]);
    assert_eq!(seen["hostname"], "probe");
    assert_eq!(seen["root"]["type"], "directory");
    assert_eq!(c.exec(&[], &["create", "/by-exec", "x"]).run().ok().stdout, "ok\n");
    assert!(c.bundle.rootfs().join("by-exec").is_file());
    assert_eq!(c.status(), "created");
    c.start().ok();
    output.expect("READY");
}

#[test]
fn a_container_that_has_ended_or_is_not_there_is_refused() {
    let (c, mut output) = idle(|_| {});
    c.kill("KILL").ok();
    c.ended(&mut output);
    let texts = ["cannot exec in a stopped container", "container not running"];
    refused(c.exec(&[], &["exit", "0"]).run(), &texts);
    c.delete().ok();
    refused(c.exec(&[], &["exit", "0"]).run(), &[c.id.as_str(), "does not exist"]);
    c.assert_gone();
}

#[test]
fn the_reason_is_in_the_log_as_well() {
    let (c, _output) = idle(|_| {});
    let log = c.bundle.path().join("log");
    let options = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let words = ["exec", &c.id, "/no/such"];
    refused(c.tare.with(&options).command(words).run(), &["no such file"]);
    let text = std::fs::read_to_string(&log).unwrap();
    // the last: before it is what led there
    let line: Value = serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("/no/such"), "{line}");
}

/// Freezes or thaws a container from outside.
fn freeze(c: &Container, yes: bool) {
    std::fs::write(c.cgroup().join("cgroup.freeze"), if yes { "1" } else { "0" }).unwrap();
    let wanted = if yes { "frozen 1" } else { "frozen 0" };
    wait_gone("the old state of the freezer", || {
        std::fs::read_to_string(c.cgroup().join("cgroup.events")).unwrap().contains(wanted)
    });
}

#[test]
fn a_paused_container_is_refused_unless_told_otherwise() {
    let (c, _output) = idle(|_| {});
    freeze(&c, true);
    refused(c.exec(&[], &["exit", "0"]).run(), &["paused container", "--ignore-paused"]);
    let running = c.exec(&["--ignore-paused"], &["exit", "5"]).spawn();
    let procs = c.cgroup().join("cgroup.procs");
    wait_gone("the lack of a second process", || {
        std::fs::read_to_string(&procs).unwrap().lines().count() == 2
    });
    freeze(&c, false);
    running.wait().ends_with_code(5);
}

#[test]
fn a_paused_process_goes_with_the_container() {
    let (c, _output) = idle(|_| {});
    freeze(&c, true);
    let running = c.exec(&["--ignore-paused"], &["exit", "5"]).spawn();
    let procs = c.cgroup().join("cgroup.procs");
    wait_gone("the lack of a second process", || {
        std::fs::read_to_string(&procs).unwrap().lines().count() == 2
    });
    c.delete_by_force().ok();
    refused_by_its_end(running.wait());
    c.assert_gone();
}

#[test]
fn a_detached_process_is_left_to_itself() {
    let (c, _output) = idle(|_| {});
    let (mut output, writer) = pipe();
    let pid_file = c.bundle.path().join("exec.pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    c.exec(&flags, &["wait", "3"]).stdout(writer).run().ok();
    output.expect("READY");
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(namespace_of(pid, "pid"), namespace_of(c.pid(), "pid"));
    assert_ne!(pid, c.pid());
    let process = pidfd_open(pid);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    output.expect("GOT SIGTERM");
    assert!(is_readable(&process, timeout()));
    assert_eq!(output.rest(), "");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_detached_process_belongs_to_the_next_subreaper() {
    let (c, _output) = idle(|_| {});
    let pid_file = c.bundle.path().join("exec.pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    let command = c.exec(&flags, &["exit", "9"]);
    // SAFETY: one system call. It holds for the shell that is executed.
    let command = unsafe {
        command.before_exec(|| {
            let parent = libc::fork();
            if parent != 0 {
                // the subreaper: its first child is the command, its second the orphan
                libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
                let (mut first, mut second) = (0, 0);
                libc::waitpid(parent, &raw mut first, 0);
                libc::wait(&raw mut second);
                let both = libc::WEXITSTATUS(first) == 0 && libc::WEXITSTATUS(second) == 9;
                libc::_exit(if both { 77 } else { 78 });
            }
            Ok(())
        })
    };
    command.run().ends_with_code(77);
    assert_eq!(c.status(), "running");
}

#[test]
fn nothing_runs_if_its_pid_file_can_not_be_written() {
    let (c, _output) = idle(|_| {});
    let output = c.exec(&["--pid-file", "/no/such/pid"], &["create", "/ran", "x"]).run();
    refused(output, &["--pid-file /no/such/pid", "no such file"]);
    assert!(!c.bundle.rootfs().join("ran").exists());
    let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 1, "{procs:?}");
}

#[test]
fn a_pidfd_goes_to_who_asks_for_it() {
    let c = Container::new(|config| args(config, &["wait"]));
    let path = c.bundle.path().join("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let flags = ["--pidfd-socket", path.to_str().unwrap()];
    let pid_of = |pidfd: &std::os::fd::OwnedFd| {
        let file = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Pid:\t")).unwrap().parse::<u32>().unwrap()
    };
    let (mut output, writer) = pipe();
    c.on_bundle("create", &flags).stdout(writer).run().ok();
    assert_eq!(pid_of(&receive_fd(&listener)), c.pid());
    c.start().ok();
    output.expect("READY");
    let (mut output, writer) = pipe();
    let running = c.exec(&flags, &["wait"]).stdout(writer).spawn();
    let process = receive_fd(&listener);
    output.expect("READY");
    let pid = pid_of(&process);
    assert_eq!(namespace_of(pid, "pid"), namespace_of(c.pid(), "pid"));
    running.signal(Signal::SIGTERM);
    running.wait().ok();
    assert!(is_readable(&process, timeout()));
    // not only closed: a child that another test is just making has a copy for a moment
    shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
    drop(listener);
    refused(c.exec(&flags, &["exit", "0"]).run(), &["--pidfd-socket", "connection refused"]);
}

#[test]
fn stdio_is_the_callers() {
    let (c, _output) = idle(|_| {});
    let output = c.exec(&[], &["each", "say to stdout", "complain to stderr"]).run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("to stdout\n", "to stderr\n"));
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = c.exec(&[], &["echo-stdin"]).stdin(reader).spawn();
    nix::unistd::write(&writer, b"through the wall\n").unwrap();
    drop(writer);
    assert_eq!(running.wait().ok().stdout, "through the wall\n");
}

#[test]
fn signals_to_a_foreground_exec_reach_its_process() {
    let (c, mut init) = idle(|_| {});
    let (mut output, writer) = pipe();
    let running = c.exec(&[], &["wait", "9"]).stdout(writer).spawn();
    output.expect("READY");
    for signal in [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        running.signal(signal);
        output.expect(&format!("GOT {signal}"));
    }
    running.signal(Signal::SIGTERM);
    running.wait().ends_with_code(9);
    assert!(init.is_silent(), "a signal has reached init");
}

#[test]
fn the_end_of_the_container_is_the_end_of_its_processes() {
    let (c, _output) = idle(|_| {});
    let (mut output, writer) = pipe();
    let running = c.exec(&[], &["wait"]).stdout(writer).spawn();
    output.expect("READY");
    c.kill("KILL").ok();
    running.wait().ends_with_code(137);
    let (c, _output) = idle(|config| drop_namespace(config, "pid"));
    let (mut output, writer) = pipe();
    let running = c.exec(&[], &["wait"]).stdout(writer).spawn();
    output.expect("READY");
    c.delete_by_force().ok();
    running.wait().ends_with_code(137);
    c.assert_gone();
}

#[test]
fn an_exec_beside_a_delete_has_run_or_says_why_not() {
    for shares_pids in [false, true] {
        for _ in 0..8 {
            let (c, _output) = idle(|config| {
                if shares_pids {
                    drop_namespace(config, "pid");
                }
            });
            let running: Vec<_> = (0..3).map(|_| c.exec(&[], &["sleep-forever"]).spawn()).collect();
            c.delete_by_force().ok();
            for one in running {
                let output = one.wait();
                match output.code {
                    137 => assert_eq!(output.stderr, ""),
                    _ if output.stderr.contains("does not exist") => refused(output, &[]),
                    _ => refused_by_its_end(output),
                }
            }
            c.assert_gone();
        }
    }
}

#[test]
fn many_at_once_do_not_wait_for_each_other() {
    let (c, _output) = idle(|_| {});
    let mut all = Vec::new();
    for _ in 0..8 {
        let (output, writer) = pipe();
        all.push((c.exec(&[], &["wait", "4"]).stdout(writer).spawn(), output));
    }
    // all are there before the first one ends
    for (_, output) in &mut all {
        output.expect("READY");
    }
    for (running, _) in all {
        running.signal(Signal::SIGTERM);
        running.wait().ends_with_code(4);
    }
}

#[test]
fn the_process_has_stdio_and_no_other_descriptor() {
    let (c, _output) = idle(|_| {});
    let log = c.bundle.path().join("log");
    let options = ["--log", log.to_str().unwrap()];
    let command = c.tare.with(&options).command(["exec", &c.id, "/probe", "report"]);
    let report = command.with_open_root(17).run().ok().json();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
    assert_eq!(report["parent_death_signal"], 0);
    assert_eq!(report["signals"], json!({"blocked": [], "ignored": []}));
    assert_eq!(report["sid"], report["pid"]);
}

#[test]
fn preserved_descriptors_and_sockets_of_a_manager_reach_the_process() {
    let (c, _output) = idle(|_| {});
    let open = |path: &str| File::open(path).unwrap();
    let files = [open("/etc/passwd"), open("/etc/group"), open("/etc/hostname")];
    // SAFETY: system calls only.
    let command = unsafe {
        c.exec(&["--preserve-fds", "2"], &["report"]).before_exec(move || {
            for (n, file) in files.iter().enumerate() {
                dup_to(file.as_raw_fd(), 60 + n as i32)?;
            }
            (0..3).try_for_each(|n| dup_to(60 + n, 3 + n))
        })
    };
    let report = command.run().ok().json();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2", "3", "4"], "{report}");
    assert_eq!(report["fds"]["4"], "/etc/group");
    let command = c.exec(&[], &["report"]);
    let script = "exec 3</etc/group; export LISTEN_FDS=1 LISTEN_PID=$$";
    let report = command.through_shell(script).run().ok().json();
    assert_eq!(report["fds"]["3"], "/etc/group");
    let env = report["env"].as_array().unwrap();
    for entry in ["LISTEN_FDS=1".to_owned(), format!("LISTEN_PID={}", report["pid"])] {
        assert!(env.contains(&json!(entry)), "{env:?}");
    }
    let command = c.exec(&["--preserve-fds", "9"], &["exit", "0"]);
    refused(command.run(), &["--preserve-fds 9", "is not open"]);
}

#[test]
fn a_directory_of_the_host_is_no_working_directory() {
    let (c, _output) = idle(|_| {});
    for fd in 0..24 {
        let path = format!("/proc/self/fd/{fd}");
        let output = c.exec(&["--cwd", &path], &["exit", "0"]).with_open_root(17).run();
        refused(output, &["process.cwd"]);
    }
    // one that was passed on by name
    let command = c.exec(&["--preserve-fds", "1", "--cwd", "/proc/self/fd/3"], &["exit", "0"]);
    refused(command.with_open_root(3).run(), &["process.cwd", "outside the container's root"]);
}

#[test]
fn the_runtimes_binary_can_not_be_reached_by_its_own_name() {
    let (c, _output) = idle(|config| {
        let all = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_FOWNER"]);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = all.clone();
        }
    });
    // a program whose interpreter is the runtime's own binary (CVE-2019-5736)
    let script = c.bundle.rootfs().join("script");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = std::fs::metadata(env!("CARGO_BIN_EXE_tare")).unwrap();
    for program in ["/script", "/proc/self/exe"] {
        // it shows its help or an error, from a file that nobody can write to
        let output = c.on_id("exec", &[], &[program]).run();
        assert_ne!(output.code, 137, "{output:#?}");
    }
    let after = std::fs::metadata(env!("CARGO_BIN_EXE_tare")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
}

#[test]
fn nobody_inside_looks_into_the_runtimes_copy() {
    let (c, _output) = idle(|_| {});
    // a socket on which a second caller has to wait: the process is all set up
    // then, with the user and the capabilities of the others in there
    let path = c.bundle.path().join("pidfd");
    let new =
        || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let (server, first) = (new(), new());
    let address = UnixAddr::new(&path).unwrap();
    bind(server.as_raw_fd(), &address).unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    nix::sys::socket::connect(first.as_raw_fd(), &address).unwrap();
    let flags = ["--pidfd-socket", path.to_str().unwrap()];
    let running = c.exec(&flags, &["exit", "6"]).spawn();
    let procs = c.cgroup().join("cgroup.procs");
    let mut found = None;
    wait_gone("the lack of a process that waits", || {
        let procs = std::fs::read_to_string(&procs).unwrap();
        let pid = procs.lines().map(|line| line.parse::<u32>().unwrap()).find(|p| *p != c.pid());
        let status = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/status"));
        let ready = |text: String| text.contains("NoNewPrivs:\t1");
        found = pid;
        pid.and_then(|pid| status(pid).ok()).is_some_and(ready)
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", found.unwrap())).unwrap();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:\t")).unwrap();
    let inside = inside.split_whitespace().last().unwrap();
    let words = [
        format!("open /proc/{inside}/fd/0 r"),
        format!("read /proc/{inside}/environ"),
        format!("list /proc/{inside}/root"),
        format!("open /proc/{inside}/exe r"),
        format!("open /proc/{inside}/mem rw"),
    ];
    let words: Vec<&str> = ["each"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let output = c.exec(&[], &words).run();
    assert_eq!(output.stdout, "EACCES\n".repeat(5), "{output:#?}");
    // now it is its turn
    let mut accepted = Vec::new();
    for _ in 0..2 {
        assert!(is_readable(&server, timeout()));
        let fd = nix::sys::socket::accept(server.as_raw_fd()).unwrap();
        // SAFETY: the kernel has just given it to us.
        accepted.push(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
    }
    running.wait().ends_with_code(6);
    assert!(is_alive(c.pid()));
}

#[test]
fn a_killed_exec_leaves_its_process_and_nothing_else() {
    let (c, _output) = idle(|_| {});
    let (mut output, writer) = pipe();
    let running = c.exec(&[], &["wait"]).stdout(writer).spawn();
    output.expect("READY");
    running.signal(Signal::SIGKILL);
    running.wait().ends_with_code(137);
    let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 2, "{procs:?}");
    c.delete_by_force().ok();
    assert_eq!(output.rest(), "");
    c.assert_gone();
}
