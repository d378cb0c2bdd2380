//! `exec`: what its process is given, by the container, by a file and by options.

use std::os::unix::net::UnixListener;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::exec::{idle, refused};
use crate::support::{Container, Tare, USER, args, map_users};

/// A file with a process object, next to the container's bundle.
fn process_file(c: &Container, process: &Value) -> String {
    let path = c.bundle.path().join("process.json");
    std::fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The report of a process from a file.
#[track_caller]
fn by_file(c: &Container, process: &Value, flags: &[&str]) -> Value {
    let path = process_file(c, process);
    let flags: Vec<&str> = ["--process", &path].iter().chain(flags).copied().collect();
    c.on_id("exec", &flags, &[]).run().ok().json()
}

#[test]
fn without_a_word_it_is_as_the_containers_program() {
    let (c, _output) = idle(|config| {
        let process = &mut config["process"];
        process["env"] = json!(["A=1", "PATH=/bin:/"]);
        process["cwd"] = json!("/dev");
        process["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27});
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        process["oomScoreAdj"] = json!(321);
        process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    });
    let seen = c.exec_report(&[]);
    assert_eq!(seen["env"], json!(["A=1", "PATH=/bin:/", "HOME=/"]));
    assert_eq!(seen["cwd"], "/dev");
    assert_eq!(seen["uids"], json!({"real": 7, "effective": 7, "saved": 7}));
    assert_eq!(seen["gids"], json!({"real": 8, "effective": 8, "saved": 8}));
    assert_eq!(seen["groups"], json!([9, 10]));
    assert_eq!(seen["umask"], 0o27);
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!({"soft": 100, "hard": 200}));
    assert_eq!(seen["oom_score_adj"], 321);
    assert_eq!(seen["no_new_privs"], true);
    assert_eq!(c.exec_report(&["--no-new-privs=false"])["no_new_privs"], false);
    assert_eq!(seen["securebits"], 0);
    assert_eq!(seen["threads"], 1);
    assert_eq!(seen["dumpable"], 1);
    assert_eq!(seen["capabilities"]["effective"], json!(["CAP_KILL"]));
    let bounding = seen["capabilities"]["bounding"].as_array().unwrap();
    assert_eq!(bounding.len(), 3, "{bounding:?}");
}

#[test]
fn the_config_is_not_read_again() {
    let (c, _output) = idle(|config| config["process"]["env"] = json!(["FROM=create"]));
    c.bundle.write_config("no longer JSON");
    assert!(c.exec_report(&[])["env"].as_array().unwrap().contains(&json!("FROM=create")));
}

#[test]
fn options_change_what_the_container_has() {
    let (c, _output) = idle(|config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["env"] = json!(["A=1", "B=2"]);
        config["process"]["user"]["additionalGids"] = json!([5]);
    });
    let flags = ["-e", "A=3", "--env", "C=x=y", "--env", "FROM_HERE", "-e", "NOT_HERE"];
    let more = ["--cwd", "/proc", "-u", "1000:1001", "-g", "6", "--additional-gids", "7,8"];
    let flags: Vec<&str> = flags.iter().chain(&more).copied().collect();
    let command = c.exec(&flags, &["report"]).env("FROM_HERE", "1").env("SECRET", "1");
    let seen = command.run().ok().json();
    assert_eq!(seen["env"], json!(["B=2", "A=3", "C=x=y", "FROM_HERE=1", "HOME=/"]));
    assert_eq!(seen["cwd"], "/proc");
    assert_eq!([&seen["uids"]["effective"], &seen["gids"]["effective"]], [1000, 1001]);
    assert_eq!(seen["groups"], json!([5, 6, 7, 8]));
    assert_eq!(seen["no_new_privs"], false);
    assert_eq!(c.exec_report(&["--no-new-privs"])["no_new_privs"], true);
}

#[test]
fn a_user_without_a_group_keeps_the_containers() {
    let (c, _output) = idle(|config| config["process"]["user"]["gid"] = json!(44));
    std::fs::create_dir(c.bundle.rootfs().join("etc")).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
    std::fs::write(c.bundle.rootfs().join("etc/passwd"), passwd).unwrap();
    let seen = c.exec_report(&["--user", "1000"]);
    assert_eq!([&seen["uids"]["effective"], &seen["gids"]["effective"]], [1000, 44]);
    // the directory is that of the user in the container
    assert!(seen["env"].as_array().unwrap().contains(&json!("HOME=/home/ada")), "{seen}");
    let seen = c.exec_report(&["--user", "1000", "--env", "HOME=/x"]);
    assert!(seen["env"].as_array().unwrap().contains(&json!("HOME=/x")), "{seen}");
}

#[test]
fn wrong_options_are_refused_by_name() {
    let (c, _output) = idle(|_| {});
    for (flags, texts) in [
        (["--user", "ada"], ["--user", "ada"]),
        (["--user", "1:"], ["--user", "1:"]),
        (["--user", "-1"], ["--user", "-1"]),
        (["--user", "2147483648"], ["process.user.uid", "2147483648"]),
        (["--env", "=x"], ["--env", "=x"]),
        (["--cwd", "tmp"], ["--cwd", "tmp"]),
        (["--cwd", "/no/such"], ["process.cwd /no/such", "no such file"]),
        (["--cap", "CAP_FLY"], ["--cap", "CAP_FLY"]),
        (["--process", "/no/such"], ["--process", "/no/such"]),
    ] {
        let flag = format!("{}={}", flags[0], flags[1]);
        refused(c.exec(&[&flag], &["exit", "0"]).run(), &texts);
    }
    let has_apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.trim() == "Y");
    let output = c.exec(&["--apparmor", "no-such-profile"], &["exit", "0"]).run();
    let reason = if has_apparmor { "no-such-profile" } else { "not enabled" };
    refused(output, &["process.apparmorProfile", reason]);
    let has_selinux = std::fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs");
    if !has_selinux {
        let output = c.exec(&["--process-label", "a:b:c:s0"], &["exit", "0"]).run();
        refused(output, &["process.selinuxLabel", "not enabled"]);
    }
}

#[test]
fn a_capability_is_added_where_execve_looks_for_it() {
    let (c, _output) = idle(|config| {
        config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let seen = c.exec_report(&["--cap", "CAP_CHOWN", "-c", "CAP_FOWNER"])["capabilities"].clone();
    for set in ["bounding", "permitted", "effective"] {
        let set = seen[set].as_array().unwrap();
        assert!(set.contains(&json!("CAP_CHOWN")) && set.contains(&json!("CAP_FOWNER")), "{seen}");
        assert!(set.contains(&json!("CAP_KILL")), "{seen}");
    }
    assert_eq!(seen["inheritable"], json!(["CAP_KILL"]));
    // another user keeps what is ambient
    let flags = ["--user", "1000", "--cap", "CAP_KILL", "--cap", "CAP_CHOWN"];
    let seen = c.exec_report(&flags)["capabilities"].clone();
    assert_eq!(seen["ambient"], json!(["CAP_KILL"]));
    assert_eq!(seen["effective"], json!(["CAP_KILL"]));
    // without any in the config
    let (c, _output) = idle(|config| {
        config["process"].as_object_mut().unwrap().remove("capabilities");
    });
    let seen = c.exec_report(&["--cap", "CAP_CHOWN"])["capabilities"].clone();
    assert_eq!(seen["effective"], json!(["CAP_CHOWN"]));
    assert_eq!(seen["bounding"], json!(["CAP_CHOWN"]));
}

#[test]
fn a_process_from_a_file_is_as_the_file_says() {
    let (c, _output) = idle(|config| config["process"]["env"] = json!(["FROM=config"]));
    let process = json!({
        "terminal": false,
        "user": {"uid": 3, "gid": 4, "additionalGids": [5], "umask": 0o77},
        "args": ["/probe", "report"],
        "env": ["FROM=file"],
        "cwd": "/dev",
        "capabilities": {"bounding": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"],
            "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        "oomScoreAdj": 500,
        "noNewPrivileges": true,
    });
    let seen = by_file(&c, &process, &[]);
    assert_eq!(seen["uids"]["effective"], 3);
    assert_eq!(seen["gids"]["effective"], 4);
    assert_eq!(seen["groups"], json!([5]));
    assert_eq!(seen["umask"], 0o77);
    assert_eq!(seen["env"], json!(["FROM=file", "HOME=/"]));
    assert_eq!(seen["cwd"], "/dev");
    assert_eq!(seen["capabilities"]["effective"], json!(["CAP_CHOWN"]));
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!({"soft": 50, "hard": 60}));
    assert_eq!(seen["oom_score_adj"], 500);
    assert_eq!(seen["no_new_privs"], true);
    let seen = by_file(&c, &process, &["--user", "6", "--env", "FROM=option", "--cwd", "/"]);
    assert_eq!([&seen["uids"]["effective"], &seen["gids"]["effective"]], [6, 4]);
    assert_eq!(seen["env"], json!(["FROM=option", "HOME=/"]));
    assert_eq!(seen["cwd"], "/");
}

#[test]
fn what_a_file_leaves_out_is_the_containers_or_nothing() {
    let (c, _output) = idle(|config| {
        config["process"]["oomScoreAdj"] = json!(77);
        config["process"]["user"]["umask"] = json!(0o7);
    });
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["/probe", "report"], "cwd": "/"});
    let seen = by_file(&c, &process, &[]);
    let effective = seen["capabilities"]["effective"].as_array().unwrap();
    assert_eq!(effective.len(), 3, "{effective:?}");
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!({"soft": 1024, "hard": 1024}));
    assert_eq!(seen["oom_score_adj"], 77);
    assert_eq!(seen["umask"], 0o7);
    assert_eq!(seen["env"], json!(["HOME=/"]));
    // engines leave out what is false
    assert_eq!(seen["no_new_privs"], false);
}

#[test]
fn a_wrong_file_is_refused_by_its_field() {
    let (c, _output) = idle(|_| {});
    let good = json!({"user": {"uid": 0, "gid": 0}, "args": ["/probe", "say", "x"], "cwd": "/"});
    let run = |process: &Value| {
        let path = process_file(&c, process);
        c.on_id("exec", &["--process", &path], &[]).run()
    };
    assert_eq!(run(&good).ok().stdout, "x\n");
    for (path, value, text) in [
        ("/user/uid", json!("root"), "process.user.uid"),
        ("/cwd", json!("here"), "process.cwd"),
        ("/args", json!([]), "process.args: is empty"),
        ("/cwd", json!(5), "process.cwd"),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(path).unwrap() = value;
        refused(run(&wrong), &[text]);
    }
    let path = process_file(&c, &good);
    std::fs::write(&path, "{").unwrap();
    refused(c.on_id("exec", &["--process", &path], &[]).run(), &["process.json", "not valid JSON"]);
    // a pipe will do
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    nix::unistd::write(&writer, good.to_string().as_bytes()).unwrap();
    drop(writer);
    let command = c.on_id("exec", &["--process", "/dev/stdin"], &[]);
    assert_eq!(command.stdin(reader).run().ok().stdout, "x\n");
}

#[test]
fn the_callers_groups_umask_and_keyring_stay_outside() {
    let (c, _output) = idle(|_| {});
    // SAFETY: system calls only.
    let command = unsafe {
        c.exec(&[], &["report"]).before_exec(|| {
            nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)])?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
            nix::sys::signal::SigSet::all().thread_block()?;
            Ok(())
        })
    };
    let seen = command.run().ok().json();
    assert_eq!(seen["groups"], json!([]));
    assert_eq!(seen["umask"], 0o22);
    assert_eq!(seen["signals"], json!({"blocked": [], "ignored": []}));
    let ours = std::process::Command::new(crate::support::probe()).arg("report").output().unwrap();
    let ours: Value = serde_json::from_slice(&ours.stdout).unwrap();
    assert_ne!(seen["keyring"], ours["keyring"]);
}

fn mkdir_is(action: &str) -> Value {
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": action});
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

#[test]
fn the_filter_of_system_calls_holds_for_it() {
    for no_new_privileges in [true, false] {
        let (c, _output) = idle(|config| {
            config["linux"]["seccomp"] = mkdir_is("SCMP_ACT_ERRNO");
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let output = c.exec(&[], &["mkdir", "/new"]).run();
        assert_eq!(output.stdout, "EPERM\n", "{output:#?}");
        let seen = c.exec_report(&["--user", "1000"]);
        assert_eq!(seen["seccomp"], 2);
        assert_eq!(seen["no_new_privs"], no_new_privileges);
        assert_eq!(seen["capabilities"]["effective"], json!([]));
    }
    let (c, _output) = idle(|config| {
        config["linux"]["seccomp"] = crate::engine_profile::engine_profile(&[]);
    });
    assert_eq!(c.exec_report(&[])["seccomp"], 2);
}

#[test]
fn the_agent_answers_its_calls_as_well() {
    let c = Container::new(|config| args(config, &["wait"]));
    let path = c.bundle.path().join("agent");
    let socket = UnixListener::bind(&path).unwrap();
    c.bundle.edit(|config| {
        let mut profile = mkdir_is("SCMP_ACT_NOTIFY");
        profile["listenerPath"] = json!(path);
        config["linux"]["seccomp"] = profile;
    });
    let agent = crate::seccomp::agent(socket.try_clone().unwrap());
    let (mut output, writer) = crate::support::pipe();
    c.on_bundle("run", &["--detach"]).stdout(writer).run().ok();
    output.expect("READY");
    let agent_of_exec = crate::seccomp::agent(socket);
    let output = c.exec(&[], &["mkdir", "/new"]).run();
    assert_eq!(output.stdout, "EXDEV\n", "{output:#?}");
    let handed = agent_of_exec.join().unwrap();
    assert_eq!(handed.state["state"]["pid"], c.pid());
    assert_ne!(handed.state["pid"], c.pid());
    assert_eq!(handed.state["state"]["status"], "running");
    c.kill("KILL").ok();
    agent.join().unwrap();
}

#[test]
fn personality_memory_and_scheduling_are_the_containers() {
    let (c, _output) = idle(|config| {
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    });
    let seen = c.exec_report(&[]);
    assert_eq!(seen["personality"], 8);
    assert_eq!(seen["memory_policy"], json!([2, 1]));
    assert_eq!([&seen["scheduler"]["policy"], &seen["scheduler"]["nice"]], [3, 3]);
    assert_eq!(seen["io_priority"], json!([2, 6]));
}

/// The processors that the process of an `exec` has, given by a pinned caller.
fn affinity(c: &Container, flags: &[&str], pinned_to: usize) -> String {
    let mut one = CpuSet::new();
    one.set(pinned_to).unwrap();
    // SAFETY: one system call.
    let command = unsafe {
        c.exec(flags, &["affinity"]).before_exec(move || {
            sched_setaffinity(Pid::from_raw(0), &one)?;
            Ok(())
        })
    };
    command.run().ok().stdout.trim().to_owned()
}

#[test]
fn processors_are_those_for_exec() {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let all: Vec<usize> = (0..CpuSet::count()).filter(|n| all.is_set(*n).unwrap()).collect();
    let (first, last) = (all[0], all[all.len() - 1]);
    let with = |affinity: Value| idle(|c| c["process"]["execCPUAffinity"] = affinity);
    let (c, _output) = with(json!({"initial": first.to_string(), "final": last.to_string()}));
    assert_eq!(affinity(&c, &[], first), format!("[{last}]"));
    // a file has its own
    let process = json!({
        "user": {}, "cwd": "/", "args": ["/probe", "affinity"],
        "execCPUAffinity": {"initial": "", "final": first.to_string()},
    });
    assert_eq!(by_file(&c, &process, &[]), json!([first]));
    // without a word, a pinned runtime is none of the container's business
    let (c, _output) = idle(|_| {});
    assert_eq!(affinity(&c, &[], first), json!(all).to_string());
    let (c, _output) = with(json!({"initial": "8000"}));
    refused(c.exec(&[], &["exit", "0"]).run(), &["process.execCPUAffinity.initial"]);
}

#[test]
fn a_process_in_a_user_namespace_is_root_there() {
    let c = Container::new(|config| {
        map_users(config);
        args(config, &["wait"]);
        config["process"]["oomScoreAdj"] = json!(200);
        config["linux"]["seccomp"] = mkdir_is("SCMP_ACT_ERRNO");
    });
    c.bundle.give_rootfs_to(100_000);
    for started in [false, true] {
        let _output = if started { c.started() } else { c.create() };
        let seen = c.exec_report(&[]);
        assert_eq!(seen["uid_map"], json!([[0, 100_000, 65536]]));
        assert_eq!(seen["uids"]["effective"], 0);
        assert_eq!(seen["oom_score_adj"], 200);
        assert_eq!(seen["seccomp"], 2);
        let namespace = crate::support::namespace_of(c.pid(), "user");
        assert_eq!(seen["namespaces"]["user"], namespace);
        let seen = c.exec_report(&["--user", "1000:1000", "--additional-gids", "5"]);
        assert_eq!([&seen["uids"]["effective"], &seen["groups"]], [&json!(1000), &json!([5])]);
        let output = c.exec(&["--user", "70000"], &["exit", "0"]).run();
        refused(output, &["process.user.uid: 70000", "Mappings"]);
        c.delete_by_force().ok();
    }
}

#[test]
fn limits_are_raised_in_a_user_namespace_too() {
    let c = Container::new(|config| {
        map_users(config);
        args(config, &["wait"]);
    });
    c.bundle.give_rootfs_to(100_000);
    let _output = c.started();
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let process = json!({
        "user": {}, "cwd": "/", "args": ["/probe", "report"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard}],
    });
    let path = process_file(&c, &process);
    // SAFETY: one system call.
    let command = unsafe {
        c.on_id("exec", &["--process", &path], &[]).before_exec(move || {
            use nix::sys::resource::{Resource, setrlimit};
            Ok(setrlimit(Resource::RLIMIT_NOFILE, 512, hard)?)
        })
    };
    let seen = command.run().ok().json();
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!({"soft": hard, "hard": hard}));
}

/// A container of an ordinary user's in which he is root.
fn of_user() -> Container {
    let c = Container::under(&Tare::of_user(), |config| {
        args(config, &["wait"]);
        crate::rootless::for_user(config);
        config["process"]["oomScoreAdj"] = json!(600);
    });
    c.bundle.give_to(USER);
    c
}

#[test]
fn an_ordinary_user_has_processes_in_containers_too() {
    let c = of_user();
    let _output = c.started();
    let seen = c.exec_report(&[]);
    assert_eq!(seen["uid_map"], json!([[0, USER, 1]]));
    assert_eq!(seen["uids"]["effective"], 0);
    assert_eq!(seen["groups"], json!([]));
    assert_eq!(seen["oom_score_adj"], 600);
    assert_eq!(seen["processes"], json!([1, seen["pid"]]));
    let fds: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let init = crate::support::namespace_of(c.pid(), kind);
        assert_eq!(seen["namespaces"][kind], init, "{kind}");
    }
    c.exec(&[], &["exit", "12"]).run().ends_with_code(12);
    refused(c.exec(&["--user", "7"], &["exit", "0"]).run(), &["process.user.uid: 7"]);
    refused(c.exec(&["-g", "0"], &["exit", "0"]).run(), &["additionalGids", "setgroups"]);
    refused(c.exec(&["--cgroup", "x"], &["exit", "0"]).run(), &["--cgroup", "no cgroup"]);
    let pty = c.exec(&["--tty"], &["each", "open /dev/tty rw"]).run().ok();
    assert_eq!(pty.stdout.trim(), "ok");
}

#[test]
fn an_ordinary_user_has_to_wait_for_the_start() {
    let c = of_user();
    let mut output = c.create();
    let refusal = c.exec(&[], &["exit", "0"]).run();
    refused(refusal, &["permission denied", "before its start"]);
    c.start().ok();
    output.expect("READY");
    c.exec(&[], &["exit", "0"]).run().ok();
}
