//! Hooks that fail, hang, talk too much or are not there: what becomes of the
//! command and of the container.

use nix::libc;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::hooks::{Log, with_all};
use crate::support::{
    Container, Running, args, is_alive, map_users, pipe, probe, temp_dir, wait_gone,
};

/// A hook of the host's shell.
fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

/// A container with this one hook, and one for after its end.
fn with_hook(log: &Log, kind: &str, hook: Value) -> Container {
    Container::new(|config| {
        log.mount(config);
        args(config, &["wait"]);
        config["hooks"][kind] = json!([hook]);
        if kind == "poststop" {
            config["hooks"][kind] = json!([hook, log.hook("poststop", "poststop")]);
        } else {
            config["hooks"]["poststop"] = json!([log.hook("poststop", "poststop")]);
        }
    })
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
        let field = format!("hooks.{kind}[1] (");
        c.on_bundle("create", &[]).run().fails_with(&[&field, "with code 1", "broken on purpose"]);
        assert_eq!(log.names(), ["before", "poststop"], "{kind}");
        assert_eq!(log.lines()[1]["state"]["status"], "stopped");
        c.assert_gone();
    }
}

#[test]
fn a_hook_of_start_that_fails_deletes_the_container() {
    let fail = |path: &str| json!({"path": path, "args": ["probe", "fail", "not today"]});
    let outside = probe().to_str().unwrap();
    for (kind, path) in [("startContainer", "/probe"), ("poststart", outside)] {
        let log = Log::new();
        let c = with_hook(&log, kind, fail(path));
        let mut output = c.create();
        let field = format!("hooks.{kind}[0] (");
        c.start().fails_with(&[&field, "not today", "the container was deleted"]);
        c.ended(&mut output);
        assert_eq!(log.names(), ["poststop"], "{kind}");
        c.on_id("state", &[], &[]).run().fails_with(&["does not exist"]);
        // what engines do next
        c.delete().fails_with(&["does not exist"]);
        c.delete_by_force().ok();
        c.assert_gone();
        let run = c.run().fails_with(&[&field, "not today"]);
        assert!(!run.stdout.contains("READY") || kind == "poststart", "{run:?}");
        assert_eq!(log.names(), ["poststop", "poststop"], "{kind}");
        c.assert_gone();
    }
}

#[test]
fn a_poststop_hook_that_fails_is_worth_a_warning() {
    let log = Log::new();
    let c = with_hook(&log, "poststop", shell("echo too late >&2; exit 3"));
    let mut output = c.started();
    c.kill("KILL").ok();
    c.ended(&mut output);
    let deleted = c.delete().ok();
    let warning = "warning: hooks.poststop[0] (/bin/sh): ended with code 3 (it said: too late)";
    assert!(deleted.stderr.contains(warning), "{deleted:?}");
    assert_eq!(log.names(), ["poststop"]);
    c.assert_gone();
}

#[test]
fn a_hook_that_a_signal_ends_is_told_so() {
    Container::new(|c| c["hooks"]["createRuntime"] = json!([shell("kill -USR1 $$")]))
        .assert_refused(&["hooks.createRuntime[0] (/bin/sh): was killed by SIGUSR1"]);
}

#[test]
fn a_hook_that_can_not_be_executed_is_named() {
    let dir = temp_dir();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let table = [
        ("/no/such/hook".into(), "execute: no such file or directory"),
        (write("plain", "#!/bin/sh\n", 0o644), "execute: permission denied"),
        (write("lost", "#!/no/such/shell\n", 0o755), "the interpreter that it names is not there"),
        (write("text", "exit 0\n", 0o755), "exec format error (built for another machine"),
        (dir.path().to_owned(), "execute: permission denied"),
    ];
    for kind in ["prestart", "createRuntime", "createContainer"] {
        for (path, text) in &table {
            let c = Container::new(|c| c["hooks"][kind] = json!([{"path": path}]));
            let field = format!("hooks.{kind}[0] ({}): ", path.display());
            c.on_bundle("create", &[]).run().fails_with(&[&field, text]);
            c.assert_gone();
        }
    }
}

/// A script that leaves a child behind, tells its number, and hangs.
fn hang(log: &Log) -> String {
    let file = log.file();
    format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}.child; wait", file.display())
}

/// The child that such a hook has told of, once it has.
fn child_of(log: &Log) -> u32 {
    let file = log.file().with_extension("child");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_gone("a hook that has not begun", || text().ends_with('\n'));
    text().trim().parse().unwrap()
}

/// The last process in the host's list whose command line has this word.
fn no_process_with(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().all(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        !String::from_utf8_lossy(&line).contains(word)
    })
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_its_children() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let log = Log::new();
        let mut hook = shell(&hang(&log));
        hook["timeout"] = json!(1);
        let c = with_hook(&log, kind, hook);
        let field = format!("hooks.{kind}[0] (/bin/sh): did not end within its timeout of 1 s");
        c.on_bundle("create", &[]).run().fails_with(&[&field]);
        let word = log.file().to_str().unwrap().to_owned();
        wait_gone("the hook", || no_process_with(&word));
        // of createContainer it is a number of the container's pid namespace
        if kind != "createContainer" {
            let child = child_of(&log);
            wait_gone("the hook's child", || !is_alive(child));
        }
        c.assert_gone();
    }
}

#[test]
fn a_timeout_beyond_all_clocks_is_none() {
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        let mut hook = shell("exit 0");
        hook["timeout"] = json!(i64::MAX);
        config["hooks"]["createRuntime"] = json!([hook]);
    });
    c.run().ok();
}

#[test]
fn what_hooks_do_with_their_descriptors_blocks_nobody() {
    let long = "x".repeat(100_000);
    let table = [
        // the state is not read
        "exec 0<&-; exit 0",
        "exit 0",
        // or read late, or in part
        "head -c 1 > /dev/null",
        "test $(wc -c) -gt 100000",
        // more output than any pipe holds, with and without an end of line
        "head -c 1000000 /dev/zero",
        "yes | head -c 1000000 >&2",
        "exec 1>&- 2>&-; exit 0",
    ];
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        config["annotations"] = json!({"org.example.long": long});
        config["hooks"]["createRuntime"] = table.iter().map(|script| shell(script)).collect();
        config["hooks"]["createContainer"] = table.iter().map(|script| shell(script)).collect();
        config["hooks"]["poststop"] = table.iter().map(|script| shell(script)).collect();
    });
    let output = c.run().ok();
    assert_eq!(output.stderr, "", "{output:?}");
}

#[test]
fn the_last_words_of_a_hook_are_kept_and_no_more() {
    let script = "echo first; yes abcdefg | head -c 1000000; echo; echo; echo the reason; exit 9";
    let c = Container::new(|c| c["hooks"]["prestart"] = json!([shell(script)]));
    c.on_bundle("create", &[]).run().fails_with(&["with code 9 (it said: the reason)"]);
    let c = Container::new(|c| {
        c["hooks"]["createContainer"] =
            json!([shell("head -c 99999 /dev/zero | tr '\\0' x; exit 9")]);
    });
    let output = c.on_bundle("create", &[]).run().fails_with(&["with code 9", "xxxx"]);
    assert!(output.stderr.len() < 5000, "{} bytes", output.stderr.len());
}

#[test]
fn what_a_hook_leaves_running_is_not_waited_for() {
    let log = Log::new();
    let script = format!("sleep 1000 & echo $! > {}.child", log.file().display());
    let c = with_hook(&log, "createRuntime", shell(&script));
    let _output = c.create();
    let child = child_of(&log);
    assert!(is_alive(child));
    let child = i32::try_from(child).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
}

/// Ends a command that waits for a hook of the runtime's, and the hook with it.
fn interrupt(running: &Running, log: &Log, signal: Signal) {
    let _begun = child_of(log);
    running.signal(signal);
}

/// What a hook that hangs has left: nothing.
fn assert_ended(log: &Log) {
    let word = log.file().to_str().unwrap().to_owned();
    wait_gone("the hook", || no_process_with(&word));
}

#[test]
fn a_signal_ends_a_create_whose_hook_hangs() {
    for (kind, signal) in [
        ("prestart", Signal::SIGTERM),
        ("createRuntime", Signal::SIGINT),
        ("createContainer", Signal::SIGTERM),
        ("createRuntime", Signal::SIGHUP),
    ] {
        for command in ["create", "run"] {
            let log = Log::new();
            let c = with_hook(&log, kind, shell(&hang(&log)));
            let running = c.on_bundle(command, &[]).spawn();
            interrupt(&running, &log, signal);
            let text = format!("interrupted by {}", signal.as_str());
            running.wait().fails_with(&[&text]);
            assert_ended(&log);
            assert_eq!(log.names(), ["poststop"], "{kind}");
            c.assert_gone();
        }
    }
}

#[test]
fn a_signal_ends_a_start_whose_hook_hangs() {
    // inside, the probe itself has to hang: there is no shell
    let inside = |log: &Log| {
        let file = log.file().with_extension("child");
        json!({"path": "/probe", "args": ["probe", "each", format!("append {} 1", file.display()),
            "sleep-forever"]})
    };
    for kind in ["startContainer", "poststart"] {
        let log = Log::new();
        let hook = if kind == "poststart" { shell(&hang(&log)) } else { inside(&log) };
        let c = with_hook(&log, kind, hook);
        let mut output = c.create();
        let running = c.on_id("start", &[], &[]).spawn();
        interrupt(&running, &log, Signal::SIGTERM);
        running.wait().fails_with(&["interrupted by SIGTERM"]);
        c.ended(&mut output);
        assert_ended(&log);
        c.delete_by_force().ok();
        assert_eq!(log.names(), ["poststop"], "{kind}");
        c.assert_gone();
        // the other way to start
        let log = Log::new();
        let hook = if kind == "poststart" { shell(&hang(&log)) } else { inside(&log) };
        let c = with_hook(&log, kind, hook);
        let running = c.on_bundle("run", &[]).spawn();
        interrupt(&running, &log, Signal::SIGTERM);
        running.wait().fails_with(&["interrupted by SIGTERM"]);
        assert_ended(&log);
        assert_eq!(log.names(), ["poststop"], "{kind}");
        c.assert_gone();
    }
}

#[test]
fn a_signal_ends_a_hook_of_delete_and_not_those_after_it() {
    let log = Log::new();
    let c = with_hook(&log, "poststop", shell(&hang(&log)));
    let mut output = c.started();
    c.kill("KILL").ok();
    c.ended(&mut output);
    let running = c.on_id("delete", &[], &[]).spawn();
    interrupt(&running, &log, Signal::SIGTERM);
    let output = running.wait().ok();
    assert!(output.stderr.contains("interrupted by SIGTERM"), "{output:?}");
    assert_ended(&log);
    assert_eq!(log.names(), ["poststop"]);
    c.assert_gone();
}

#[test]
fn a_signal_that_the_caller_ignores_ends_no_hook() {
    let log = Log::new();
    let (mut reader, writer) = pipe();
    let file = log.file();
    // it goes on when it is told to
    let script = format!("echo > {0}.child; read line < {0}.go; exit 0", file.display());
    let go = file.with_extension("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let c = with_hook(&log, "createRuntime", shell(&script));
    let command = c.on_bundle("run", &[]).through_shell("trap '' HUP").stdout(writer);
    let running = command.spawn();
    wait_gone("a hook that has not begun", || file.with_extension("child").is_file());
    running.signal(Signal::SIGHUP);
    std::fs::write(&go, "go\n").unwrap();
    reader.expect("READY");
    running.signal(Signal::SIGTERM);
    running.wait();
}

#[test]
fn a_runtime_that_is_killed_leaves_no_hook_behind() {
    for kind in ["createRuntime", "createContainer"] {
        let log = Log::new();
        let c = with_hook(&log, kind, shell(&format!("exec {}", hook_that_waits(&log))));
        let running = c.on_bundle("create", &[]).spawn();
        interrupt(&running, &log, Signal::SIGKILL);
        assert_eq!(running.wait().code, 128 + 9);
        if kind == "createRuntime" {
            assert_ended(&log);
        }
        c.delete_by_force().ok();
        assert_ended(&log);
        c.assert_gone();
    }
}

/// One process, and not a shell that waits for another.
fn hook_that_waits(log: &Log) -> String {
    let file = log.file();
    let probe = probe().display().to_string();
    format!("{probe} each 'append {}.child 1' sleep-forever", file.display())
}

#[test]
fn a_delete_by_force_ends_a_create_whose_hook_hangs() {
    for kind in ["createRuntime", "createContainer"] {
        let log = Log::new();
        let c = with_hook(&log, kind, shell(&hang(&log)));
        let running = c.on_bundle("create", &[]).spawn();
        let _begun = child_of(&log);
        c.delete_by_force().ok();
        running.wait().ends_with_code(1);
        assert_ended(&log);
        c.assert_gone();
    }
}

#[test]
fn hooks_run_beside_a_user_namespace_too() {
    let log = Log::new();
    let c = with_all(&log, &["exit", "0"]);
    c.bundle.edit(map_users);
    c.bundle.give_rootfs_to(100_000);
    // the container's root writes its lines as well
    std::fs::write(log.file(), "").unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(log.file(), everybody).unwrap();
    c.run().ok();
    assert_eq!(log.names(), crate::hooks::KINDS);
    for line in log.lines() {
        let is_inside =
            ["createContainer", "startContainer"].contains(&line["hook"].as_str().unwrap());
        let maps = line["seen"]["uid_map"].to_string();
        if maps != "null" {
            assert_eq!(maps.contains("100000"), is_inside, "{}: {maps}", line["hook"]);
        }
    }
}

#[test]
fn hooks_write_where_annotations_say() {
    let log = Log::new();
    let dir = temp_dir();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let say = |kind: &str| shell(&format!("echo {kind} says; echo {kind} complains >&2"));
    let c = Container::new(|config| {
        log.mount(config);
        args(config, &["exit", "0"]);
        config["annotations"] = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err});
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            config["hooks"][kind] = json!([say(kind)]);
        }
        config["hooks"]["startContainer"] =
            json!([{"path": "/probe", "args": ["probe", "say", "startContainer says"]}]);
    });
    std::fs::write(&out, "before\n").unwrap();
    c.run().ok();
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let wanted = [
        "before",
        "prestart says",
        "createRuntime says",
        "createContainer says",
        "startContainer says",
        "poststart says",
        "poststop says",
    ];
    assert_eq!(lines, wanted);
    let text = std::fs::read_to_string(&err).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    // the program has neither
    c.bundle.edit(|config| args(config, &["report"]));
    let report = c.json();
    assert_eq!(report["fds"].as_object().unwrap().len(), 3, "{report}");
}

#[test]
fn files_for_hooks_that_can_not_be_opened_are_named() {
    let dir = temp_dir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [dir.path(), &dir.path().join("no/such"), &fifo] {
        for kind in ["createRuntime", "createContainer"] {
            Container::new(|c| {
                c["annotations"] = json!({"run.oci.hooks.stdout": path});
                c["hooks"][kind] = json!([shell("exit 0")]);
            })
            .assert_refused(&["annotations.run.oci.hooks.stdout", path.to_str().unwrap()]);
        }
    }
}

/// Holds every execve of a file, and gives no answer (fanotify(7)).
fn hold_execve(path: &std::path::Path) -> std::os::fd::OwnedFd {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
    // SAFETY: numbers only; the answer is a descriptor of our own.
    let group = unsafe {
        let fd = libc::fanotify_init(flags, libc::O_RDONLY as u32);
        assert!(fd >= 0, "fanotify_init: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: an open descriptor, and a string that lives.
    let marked = unsafe {
        let (add, events) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
        libc::fanotify_mark(group.as_raw_fd(), add, events, libc::AT_FDCWD, path.as_ptr())
    };
    assert_eq!(marked, 0, "fanotify_mark: {}", std::io::Error::last_os_error());
    group
}

/// A program on a file system that hangs: the hook has not even begun.
#[test]
fn a_hook_whose_execve_hangs_ends_by_its_timeout_or_a_signal() {
    let dir = temp_dir();
    let program = dir.path().join("hook");
    // by another process: what is open for writing here can't be executed
    let copied = std::process::Command::new("cp").arg(probe()).arg(&program).status();
    assert!(copied.unwrap().success());
    let group = hold_execve(&program);
    let with = |timeout: Option<u64>| {
        Container::new(|config| {
            args(config, &["wait"]);
            config["hooks"]["createRuntime"] = json!([{"path": program, "timeout": timeout}]);
            if timeout.is_none() {
                config["hooks"]["createRuntime"] = json!([{"path": program}]);
            }
        })
    };
    let c = with(Some(1));
    let text = "hooks.createRuntime[0]";
    let output = c.on_bundle("create", &[]).run();
    output.fails_with(&[text, "did not end within its timeout of 1 s"]);
    c.assert_gone();
    let c = with(None);
    let running = c.on_bundle("create", &[]).spawn();
    // the event of a process that was killed is taken back: this one is of the second
    assert!(crate::support::is_readable(&group, crate::support::timeout()));
    running.signal(Signal::SIGTERM);
    running.wait().fails_with(&[text, "interrupted by SIGTERM"]);
    c.assert_gone();
}
