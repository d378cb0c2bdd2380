//! The table of docs/kernel-features.md: a kernel without one of the features,
//! row by row.

use serde_json::json;

use crate::faulty::{Call, Faulty, Followed};
use crate::judge::{assert_deletable, assert_gone, assert_line};
use crate::report::{differences, normal};
use crate::support::{Container, args, namespace_path, pipe};

/// A feature that tare can't do without.
struct Needed {
    /// As `--fail`; several for a kernel that lacks several calls
    faults: &'static [&'static str],
    /// What the error has to name: the step, and which kernel there has to be
    says: &'static [&'static str],
}

const NEEDED: [Needed; 11] = [
    Needed { faults: &["fsopen=ENOSYS"], says: &["mount /proc", "fsopen", "Linux 5.14"] },
    Needed { faults: &["fsconfig=ENOSYS"], says: &["mount /proc", "Linux 5.14"] },
    Needed { faults: &["fsmount=ENOSYS"], says: &["fsmount", "Linux 5.14"] },
    Needed { faults: &["open_tree=ENOSYS"], says: &["open_tree", "Linux 5.14"] },
    Needed { faults: &["move_mount=ENOSYS"], says: &["move_mount", "Linux 5.14"] },
    Needed { faults: &["openat2=ENOSYS"], says: &["mount /sys/fs/cgroup", "Linux 5.14"] },
    // a kernel before 5.3 has no clone3, one before 5.7 refuses its cgroup
    Needed { faults: &["clone3=ENOSYS"], says: &["clone3", "5.14"] },
    Needed { faults: &["runtime:clone3=E2BIG"], says: &["clone3", "5.14"] },
    Needed { faults: &["close_range=ENOSYS"], says: &["close_range", "5.14"] },
    Needed { faults: &["close_range[2&4]=EINVAL"], says: &["close_range", "5.14"] },
    Needed {
        faults: &["mount_setattr=ENOSYS"],
        says: &["protect the runtime's binary: mount_setattr", "Linux 5.14"],
    },
];

fn owned(faults: &[&str]) -> Vec<String> {
    faults.iter().map(|fault| (*fault).to_owned()).collect()
}

fn create(c: &Container, faults: &[&str]) -> (Followed, crate::support::Pipe) {
    let (output, writer) = pipe();
    let faulty = Faulty { faults: &owned(faults), attach: None };
    (faulty.run(c.on_bundle("create", &[]), |command| command.stdout(writer)), output)
}

fn says(followed: &Followed, texts: &[&str]) {
    for text in texts {
        assert!(followed.output.stderr.contains(text), "no {text:?}: {:#?}", followed.output);
    }
}

#[test]
fn create_names_the_feature_that_it_needs() {
    for needed in NEEDED {
        let c = Container::new(|_| {});
        let (followed, _) = create(&c, needed.faults);
        assert!(followed.failed().is_some(), "{:?} is not used", needed.faults);
        assert_line(&followed.output, "create", &c.id);
        says(&followed, needed.says);
        assert_gone(&c);
    }
}

#[test]
fn device_rules_need_bpf() {
    let c = Container::new(|_| {});
    let (followed, _) = create(&c, &["bpf=ENOSYS"]);
    assert_line(&followed.output, "create", &c.id);
    says(&followed, &["device", "CONFIG_CGROUP_BPF"]);
    assert_gone(&c);
    // where everything is allowed nobody asks for it
    c.bundle.edit(|config| {
        config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    });
    let (followed, _) = create(&c, &["bpf=ENOSYS"]);
    assert_eq!((followed.output.code, followed.failed()), (0, None), "{:#?}", followed.output);
    assert_deletable(&c);
}

#[test]
fn a_signal_does_not_keep_device_rules_away() {
    // the verifier's word for one: command 5 loads a program
    assert_same(
        |_| {},
        &["bpf[0=5]=EAGAIN@1"],
        |calls| calls.iter().any(|call| call.name == "bpf" && call.is_faulted),
    );
}

#[test]
fn pidfds_are_needed_from_kill_to_delete() {
    let c = Container::new(|config| args(config, &["wait"]));
    let _output = c.started();
    for fault in ["pidfd_open=ENOSYS", "pidfd_send_signal=ENOSYS"] {
        let faulty = Faulty { faults: &owned(&[fault]), attach: None };
        let followed = faulty.run(c.on_id("kill", &[], &["TERM"]), |command| command);
        assert_line(&followed.output, "kill", &c.id);
        says(&followed, &["Linux 5.14"]);
        assert_eq!(c.status(), "running");
    }
    let faulty = Faulty { faults: &owned(&["pidfd_open=ENOSYS"]), attach: None };
    let followed = faulty.run(c.on_id("delete", &["--force"], &[]), |command| command);
    assert_line(&followed.output, "delete", &c.id);
    says(&followed, &["pidfd_open", "Linux 5.14"]);
    assert_deletable(&c);
}

#[test]
fn without_cgroup_kill_all_are_killed_one_after_the_other() {
    let c = Container::new(|config| {
        args(config, &["children", "2"]);
        crate::support::drop_namespace(config, "pid");
    });
    let mut output = c.started();
    // a kernel without the file; the write is to it alone
    let faulty = Faulty { faults: &owned(&["openat[1~cgroup.kill]=ENOENT"]), attach: None };
    let followed = faulty.run(c.on_id("kill", &["--all"], &["KILL"]), |command| command);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(followed.failed().is_some(), "not asked for");
    // the pipe ends when the last of them has ended
    output.rest();
    assert_deletable(&c);
}

/// A container whose create meets this fault is as one without it.
#[track_caller]
fn assert_same(edit: fn(&mut serde_json::Value), faults: &[&str], taken: impl Fn(&[Call]) -> bool) {
    let plain = Container::new(edit);
    let mut output = plain.create();
    plain.start().ok();
    let wanted = normal(&output.line(), &plain);
    let c = Container::new(edit);
    let (followed, mut output) = create(&c, faults);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(followed.failed().is_some(), "{faults:?}: not asked for");
    assert!(taken(&followed.calls), "{faults:?}: another way was not taken");
    c.start().ok();
    assert_eq!(differences(&wanted, &normal(&output.line(), &c)), [] as [&str; 0]);
    assert_deletable(&c);
}

#[test]
fn a_kernel_without_keyrings_has_none_to_leak() {
    let c = Container::new(|_| {});
    let (followed, mut output) = create(&c, &["keyctl=ENOSYS"]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(followed.failed().is_some());
    c.start().ok();
    assert!(output.line().contains("\"keyring\""));
    assert_deletable(&c);
    // anything else is no sign of a kernel without: the caller's would leak
    for errno in ["EPERM", "EACCES", "EDQUOT", "EINVAL", "ENOMEM"] {
        let c = Container::new(|_| {});
        let (followed, _) = create(&c, &[&format!("keyctl={errno}")]);
        assert_line(&followed.output, "create", &c.id);
        says(&followed, &["make a session keyring"]);
        assert_gone(&c);
    }
}

#[test]
fn an_unknown_capability_is_not_dropped() {
    // CAP_CHECKPOINT_RESTORE is of Linux 5.9: prctl(PR_CAPBSET_DROP, 40)
    let unknown = ["prctl[0=24][1=40]=EINVAL"];
    let c = Container::new(|_| {});
    let (followed, mut output) = create(&c, &unknown);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(followed.failed().is_some());
    c.start().ok();
    assert!(output.line().contains("bounding"));
    assert_deletable(&c);
    let c = Container::new(|_| {});
    let (followed, _) = create(&c, &["prctl[0=24][1=40]=EPERM"]);
    assert_line(&followed.output, "create", &c.id);
    says(&followed, &["bounding set"]);
    assert_gone(&c);
}

#[test]
fn the_runtime_raises_a_limit_that_init_may_not() {
    assert_same(
        |_| {},
        &["child:prlimit64[0=0]=EPERM"],
        |calls| {
            let by_runtime = |c: &&Call| c.process == "runtime" && c.name == "prlimit64";
            // with init's pid as its first argument
            calls.iter().filter(by_runtime).any(|c| c.args[0] != 0)
        },
    );
    let c = Container::new(|_| {});
    let (followed, _) = create(&c, &["child:prlimit64[0=0]=EINVAL"]);
    assert_line(&followed.output, "create", &c.id);
    says(&followed, &["process.rlimits"]);
    assert_gone(&c);
}

#[test]
fn without_faccessat2_the_c_library_looks_at_the_mode() {
    assert_same(
        |_| {},
        &["faccessat2=ENOSYS"],
        |calls| {
            let at = calls.iter().position(|c| c.is_faulted).unwrap();
            // it looks at the same file in another way, perhaps when it has asked who it is
            let is_look = |c: &Call| ["faccessat", "newfstatat"].contains(&c.name.as_str());
            calls.iter().skip(at + 1).take(5).any(|c| is_look(c) && c.text == "/probe")
        },
    );
    let c = Container::new(|_| {});
    let (followed, _) = create(&c, &["faccessat2=EPERM"]);
    assert_line(&followed.output, "create", &c.id);
    says(&followed, &["/probe"]);
    assert_gone(&c);
}

#[test]
fn a_joined_namespace_of_the_user_namespace_is_joined_later() {
    // the holder's user namespace owns its uts namespace
    let holder = Container::new(|config| {
        args(config, &["sleep-forever"]);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    holder.bundle.give_rootfs_to(100_000);
    holder.create();
    let pid = holder.pid();
    let c = Container::new(|config| {
        for (word, kind) in [("user", "user"), ("uts", "uts")] {
            namespace_path(config, word, &format!("/proc/{pid}/ns/{kind}"));
        }
        config.as_object_mut().unwrap().remove("hostname");
    });
    c.bundle.give_rootfs_to(100_000);
    // as a runtime without power over the namespace would be told
    let (followed, mut output) = create(&c, &["child:setns[1=0x4000000]=EPERM@1"]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let joins = followed.calls.iter().filter(|c| c.name == "setns" && c.args[1] == 0x400_0000);
    assert!(followed.failed().is_some() && joins.count() >= 1, "{:#?}", followed.calls);
    c.start().ok();
    assert!(output.line().contains(&crate::support::namespace_of(pid, "uts")));
    assert_deletable(&c);
}
