//! Filters of system calls, and who answers calls in a container's place.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, Shutdown, recvmsg, shutdown};
use serde_json::{Value, json};

use crate::engine_profile::engine_profile;
use crate::support::{Container, args, is_readable, timeout};

const EVERYWHERE: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];

/// mkdir(2) by both of its calls.
fn mkdir(action: &str) -> Value {
    json!({"names": ["mkdir", "mkdirat"], "action": format!("SCMP_ACT_{action}")})
}

/// All is allowed but what these rules say.
fn all_but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

fn filtered(profile: Value, words: &[&str]) -> Container {
    Container::new(|config| {
        args(config, words);
        config["linux"]["seccomp"] = profile;
    })
}

#[test]
fn a_refused_call_gives_the_errno_of_its_rule() {
    let c = filtered(all_but(json!([mkdir("ERRNO")])), &["mkdir", "/new"]);
    assert_eq!(c.lines(), ["EPERM"]);
    let mut rule = mkdir("ERRNO");
    rule["errnoRet"] = json!(libc::EXDEV);
    let c = filtered(all_but(json!([rule])), &["mkdir", "/new"]);
    assert_eq!(c.lines(), ["EXDEV"]);
    assert!(!c.bundle.rootfs().join("new").exists());
}

#[test]
fn a_deadly_call_ends_the_container_by_its_signal() {
    for action in ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"] {
        let c = filtered(all_but(json!([mkdir(action)])), &["mkdir", "/new"]);
        c.run().ends_with_code(128 + libc::SIGSYS);
        assert!(!c.bundle.rootfs().join("new").exists(), "{action}");
    }
}

#[test]
fn arguments_decide_where_a_rule_says_so() {
    let rule = json!({
        "names": ["personality"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
    });
    let c = filtered(all_but(json!([rule])), &["each", "personality 0", "personality 8"]);
    assert_eq!(c.lines(), ["ok", "EPERM"]);
}

#[test]
fn an_engines_profile_lets_programs_run() {
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            let c = Container::new(|config| {
                config["linux"]["seccomp"] = engine_profile(&EVERYWHERE);
                config["process"]["noNewPrivileges"] = json!(no_new_privileges);
                config["process"]["user"]["uid"] = json!(uid);
            });
            let with = c.json();
            assert_eq!(with["seccomp"], 2);
            assert_eq!(with["no_new_privs"], no_new_privileges);
            c.bundle.edit(|config| drop(config["linux"]["seccomp"].take()));
            let without = c.json();
            // what is kept for the filter's sake is not the program's
            assert_eq!(with["capabilities"], without["capabilities"], "{uid}");
            assert_eq!(without["seccomp"], 0);
        }
    }
}

#[test]
fn an_engines_profile_refuses_what_reaches_the_machine() {
    let words = ["each", "mount-tmpfs /tmp", "personality 8", "personality 4", "sethostname x"];
    let c = Container::new(|config| {
        args(config, &words);
        config["linux"]["seccomp"] = engine_profile(&EVERYWHERE);
        let all = json!(["CAP_SYS_ADMIN"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.clone();
        }
    });
    std::fs::create_dir(c.bundle.rootfs().join("tmp")).unwrap();
    assert_eq!(c.lines(), ["EPERM", "ok", "EPERM", "EPERM"]);
}

#[test]
fn a_filter_in_a_user_namespace() {
    for no_new_privileges in [true, false] {
        let c = Container::new(|config| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            config["linux"]["seccomp"] = all_but(json!([mkdir("ERRNO")]));
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            args(config, &["mkdir", "/tmp/new"]);
        });
        c.bundle.give_rootfs_to(100_000);
        std::fs::create_dir(c.bundle.rootfs().join("tmp")).unwrap();
        assert_eq!(c.lines(), ["EPERM"]);
    }
}

#[test]
fn create_and_start_under_a_filter() {
    for no_new_privileges in [true, false] {
        let c = Container::new(|config| {
            args(config, &["each", "mkdir /new", "say done"]);
            config["linux"]["seccomp"] = all_but(json!([mkdir("ERRNO")]));
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let mut output = c.create();
        // what waits for `start` is still the runtime, and has no filter yet
        let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
        assert!(status.contains("Seccomp:\t0"), "{status}");
        c.start().ok();
        assert_eq!(c.ended(&mut output), "EPERM\ndone\n");
        c.delete().ok();
    }
}

/// What `probe say` needs from execve on, and no call more.
fn strict() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{
            "names": [
                "execve", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq",
                "prlimit64", "readlink", "readlinkat", "getrandom", "mprotect", "mmap", "munmap",
                "fstat", "newfstatat", "write", "exit_group", "futex", "sigaltstack",
                "rt_sigaction", "rt_sigprocmask", "uname",
            ],
            "action": "SCMP_ACT_ALLOW",
        }],
    })
}

#[test]
fn a_strict_profile_need_not_allow_what_the_runtime_does() {
    let c = filtered(strict(), &["say", "hello"]);
    assert_eq!(c.lines(), ["hello"]);
    // loaded before the last capability is dropped, it has to allow that
    let c = Container::new(|config| {
        args(config, &["say", "hello"]);
        config["linux"]["seccomp"] = strict();
        config["process"]["noNewPrivileges"] = json!(false);
    });
    c.run().ends_with_code(128 + libc::SIGSYS);
    c.bundle.edit(|config| {
        let names = &mut config["linux"]["seccomp"]["syscalls"][0]["names"];
        names.as_array_mut().unwrap().push(json!("capset"));
    });
    assert_eq!(c.lines(), ["hello"]);
}

#[test]
fn a_missing_program_is_reported_under_a_strict_profile() {
    let c = Container::new(|config| {
        config["process"]["args"] = json!(["/missing"]);
        config["linux"]["seccomp"] = strict();
    });
    c.assert_refused(&["/missing", "no such file or directory"]);
}

#[test]
fn a_failed_execve_is_reported_if_the_profile_lets_it() {
    let script = |profile: Value| {
        let c = Container::new(|config| {
            config["process"]["args"] = json!(["/script"]);
            config["linux"]["seccomp"] = profile;
        });
        let path = c.bundle.rootfs().join("script");
        std::fs::write(&path, "#!/missing\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        c
    };
    script(engine_profile(&[])).run().fails_with(&["/script", "no such file or directory"]);
    let c = script(strict());
    c.run().ends_with_code(128 + libc::SIGSYS);
    c.assert_gone();
}

#[test]
fn a_profile_that_refuses_even_to_exit_ends_the_container() {
    let c = filtered(json!({"defaultAction": "SCMP_ACT_ERRNO"}), &["exit", "0"]);
    c.run().ends_with_code(128 + libc::SIGILL);
    c.assert_gone();
}

#[test]
fn a_tiny_init_runs_under_an_engines_profile() {
    let c = Container::new(|config| {
        args(config, &["report"]);
        config["linux"]["seccomp"] = engine_profile(&EVERYWHERE);
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let report = c.on_bundle("run", &["--init"]).run().ok().json();
    assert_eq!(report["seccomp"], 2);
}

#[test]
fn the_flags_are_the_kernels() {
    let mut profile = all_but(json!([mkdir("ERRNO")]));
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]);
    assert_eq!(filtered(profile, &["mkdir", "/new"]).lines(), ["EPERM"]);
}

#[test]
fn a_wrong_profile_is_refused_by_its_field() {
    let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let arg =
        |arg: Value| rule(json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [arg]}));
    let notify = |socket: Value, names: Value| {
        let mut profile = rule(json!({"names": names, "action": "SCMP_ACT_NOTIFY"}));
        profile["listenerPath"] = socket;
        profile
    };
    for (profile, texts) in [
        (json!({"defaultAction": "SCMP_ACT_FLY"}), ["linux.seccomp.defaultAction", "SCMP_ACT_FLY"]),
        (
            json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_VAX"]}),
            ["linux.seccomp.architectures[0]", "SCMP_ARCH_VAX"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_NONE"]}),
            ["linux.seccomp.flags[0]", "SECCOMP_FILTER_FLAG_NONE"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            ["linux.seccomp.defaultErrnoRet", "takes no number"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            ["linux.seccomp.defaultErrnoRet", "4096"],
        ),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), ["linux.seccomp.defaultAction", "NOTIFY"]),
        (
            rule(json!({"names": [], "action": "SCMP_ACT_LOG"})),
            ["linux.seccomp.syscalls[0].names", "empty"],
        ),
        (
            rule(json!({"names": ["read", ""], "action": "SCMP_ACT_LOG"})),
            ["linux.seccomp.syscalls[0].names[1]", "empty"],
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            ["linux.seccomp.syscalls[0].errnoRet", "takes no number"],
        ),
        (
            arg(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"})),
            ["linux.seccomp.syscalls[0].args[0].index", "6"],
        ),
        (
            arg(json!({"index": 0, "value": 0, "op": "SCMP_CMP_LIKE"})),
            ["linux.seccomp.syscalls[0].args[0].op", "SCMP_CMP_LIKE"],
        ),
        (notify(Value::Null, json!(["mkdir"])), ["linux.seccomp.listenerPath", "missing"]),
        (notify(json!("here"), json!(["mkdir"])), ["linux.seccomp.listenerPath", "absolute"]),
        (
            notify(json!("/nowhere/socket"), json!(["mkdir"])),
            ["linux.seccomp.listenerPath: /nowhere/socket", "no such file"],
        ),
        (
            notify(json!("/nowhere/socket"), json!(["mkdir", "sendmsg"])),
            ["linux.seccomp.syscalls", "sendmsg"],
        ),
    ] {
        filtered(profile, &["report"]).assert_refused(&texts);
    }
}

/// What an agent has got.
pub(crate) struct Handed {
    pub(crate) state: Value,
    pub(crate) asked: Vec<i32>,
}

/// Accepts listeners up to the first one that is handed over, and answers its
/// calls with EXDEV until nobody can ask any more.
pub(crate) fn agent(socket: UnixListener) -> JoinHandle<Handed> {
    std::thread::spawn(move || {
        assert!(is_readable(&socket, timeout()), "nobody calls");
        // the only connection that there is
        let (state, notify) = receive(&socket);
        let mut asked = Vec::new();
        while is_readable(&notify, timeout()) {
            // SAFETY: all zero is what the kernel asks for.
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the struct that this request fills in.
            let ret = unsafe {
                libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call)
            };
            if ret < 0 {
                break;
            }
            asked.push(call.data.nr);
            let mut answer =
                libc::seccomp_notif_resp { id: call.id, val: 0, error: -libc::EXDEV, flags: 0 };
            // SAFETY: the struct that this request reads.
            unsafe {
                libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
            }
        }
        Handed { state, asked }
    })
}

/// The state and the descriptor of one connection.
fn receive(socket: &UnixListener) -> (Value, OwnedFd) {
    let (stream, _) = socket.accept().unwrap();
    let (mut text, mut notify) = (Vec::new(), None);
    loop {
        let mut data = [0; 1024];
        let mut room = nix::cmsg_space!([RawFd; 4]);
        let mut parts = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), flags).unwrap();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                assert_eq!(fds.len(), 1);
                // SAFETY: the kernel has just installed it for us.
                notify = Some(unsafe { OwnedFd::from_raw_fd(fds[0]) });
            }
        }
        let length = message.bytes;
        if length == 0 {
            break;
        }
        text.extend_from_slice(&data[..length]);
    }
    (serde_json::from_slice(&text).unwrap(), notify.unwrap())
}

fn notified(no_new_privileges: bool) -> (Container, JoinHandle<Handed>) {
    let c = Container::new(|config| {
        args(config, &["each", "mkdir /new", "say done"]);
        config["annotations"] = json!({"tests.tare": "x".repeat(5000)});
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
    });
    let path = c.bundle.path().join("agent");
    let socket = UnixListener::bind(&path).unwrap();
    c.bundle.edit(|config| {
        let mut profile = all_but(json!([mkdir("NOTIFY")]));
        profile["listenerPath"] = json!(path);
        profile["listenerMetadata"] = json!("for the agent");
        profile["flags"] =
            json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
        config["linux"]["seccomp"] = profile;
    });
    (c, agent(socket))
}

fn check(c: &Container, handed: &Handed) {
    let state = &handed.state;
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["pid"], state["state"]["pid"]);
    assert!(state["pid"].as_u64().unwrap() > 1, "{state}");
    assert_eq!(state["state"]["id"], c.id);
    assert_eq!(state["state"]["status"], "created");
    assert_eq!(state["state"]["bundle"], c.bundle.path().to_str().unwrap());
    assert_eq!(state["state"]["annotations"]["tests.tare"].as_str().unwrap().len(), 5000);
    assert_eq!(handed.asked.len(), 1, "{:?}", handed.asked);
    assert!(!c.bundle.rootfs().join("new").exists());
}

#[test]
fn an_agent_answers_the_calls_of_run() {
    for no_new_privileges in [true, false] {
        let (c, agent) = notified(no_new_privileges);
        assert_eq!(c.run().stdout, "EXDEV\ndone\n");
        check(&c, &agent.join().unwrap());
    }
}

#[test]
fn an_annotation_names_the_agent_where_the_profile_does_not() {
    let (c, agent) = notified(true);
    c.bundle.edit(|config| {
        let profile = config["linux"]["seccomp"].as_object_mut().unwrap();
        let path = profile.remove("listenerPath").unwrap();
        profile.remove("listenerMetadata").unwrap();
        config["annotations"]["run.oci.seccomp.receiver"] = path;
    });
    assert_eq!(c.run().stdout, "EXDEV\ndone\n");
    let handed = agent.join().unwrap();
    assert_eq!(handed.state["state"]["id"], c.id);
    assert_eq!(handed.asked.len(), 1);
}

#[test]
fn calls_that_nobody_knows_are_left_out_unless_an_annotation_forbids_it() {
    let rule = json!({"names": ["fly", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
    let with = |annotations: Value| {
        let c = filtered(all_but(json!([rule])), &["mkdir", "/new"]);
        c.bundle.edit(|config| config["annotations"] = annotations);
        c
    };
    const KEY: &str = "run.oci.seccomp_fail_unknown_syscall";
    for annotations in [json!({}), json!({KEY: "0"})] {
        assert_eq!(with(annotations).lines(), ["EPERM"]);
    }
    with(json!({KEY: "1"})).assert_refused(&["linux.seccomp.syscalls[0].names[0]: \"fly\"", KEY]);
    // what another architecture alone has is known all the same
    let c = with(json!({KEY: "1"}));
    c.bundle.edit(|config| {
        config["linux"]["seccomp"]["syscalls"][0]["names"] =
            json!(["mkdir", "mkdirat", "socketcall", "cacheflush"]);
    });
    assert_eq!(c.lines(), ["EPERM"]);
}

#[test]
fn a_strict_profile_with_an_agent_has_to_allow_sendmsg_and_no_more() {
    let (c, agent) = notified(true);
    c.bundle.edit(|config| {
        let strict = strict();
        let mut rule = strict["syscalls"][0].clone();
        rule["names"].as_array_mut().unwrap().push(json!("sendmsg"));
        let profile = &mut config["linux"]["seccomp"];
        profile["defaultAction"] = strict["defaultAction"].clone();
        profile["syscalls"].as_array_mut().unwrap().push(rule);
    });
    assert_eq!(c.run().stdout, "EXDEV\ndone\n");
    check(&c, &agent.join().unwrap());
}

#[test]
fn an_agent_answers_the_calls_of_a_created_container() {
    let (c, agent) = notified(true);
    let mut output = c.create();
    c.start().ok();
    assert_eq!(c.ended(&mut output), "EXDEV\ndone\n");
    check(&c, &agent.join().unwrap());
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn a_start_whose_agent_has_gone_starts_nothing() {
    let c = filtered(all_but(json!([mkdir("NOTIFY")])), &["mkdir", "/new"]);
    let path = c.bundle.path().join("agent");
    let socket = UnixListener::bind(&path).unwrap();
    c.bundle.edit(|config| config["linux"]["seccomp"]["listenerPath"] = json!(path));
    let output = c.create();
    // not only closed: a child that another test is just making has a copy for a moment
    shutdown(socket.as_raw_fd(), Shutdown::Both).unwrap();
    drop(socket);
    c.start().fails_with(&["linux.seccomp.listenerPath", "nobody listens there"]);
    assert_eq!(c.status(), "created");
    c.delete().ok();
    drop(output);
}
