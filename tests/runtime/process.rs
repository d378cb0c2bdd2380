//! The program: its user, its environment, its rights and limits.

use serde_json::{Value, json};

use crate::support::{Container, args, drop_namespace};

#[test]
fn arguments_environment_and_directory_are_the_configs() {
    let c = Container::new(|config| {
        args(config, &["report"]);
        config["process"]["env"] = json!(["A=1", "EMPTY=", "WITH=a=b c", "PATH=/"]);
        config["process"]["cwd"] = json!("/made/on the way");
    });
    let report = c.json();
    assert_eq!(report["args"], json!(["/probe", "report"]));
    let mut env = report["env"].as_array().unwrap().clone();
    // engines give HOME; some runtimes add one when they don't
    env.retain(|v| !v.as_str().unwrap().starts_with("HOME="));
    assert_eq!(env, [json!("A=1"), json!("EMPTY="), json!("WITH=a=b c"), json!("PATH=/")]);
    assert_eq!(report["cwd"], "/made/on the way");
}

#[test]
fn the_callers_environment_stays_outside() {
    let c = Container::new(|_| {});
    let report = c.on_bundle("run", &[]).env("TARE_SECRET", "x").run().ok().json();
    let env = report["env"].as_array().unwrap();
    assert!(!env.iter().any(|v| v.as_str().unwrap().contains("SECRET")), "{env:?}");
}

#[test]
fn home_comes_from_the_containers_passwd_unless_it_is_set() {
    let run = |env: Value| {
        let c = Container::new(|config| {
            config["process"]["user"]["uid"] = json!(1234);
            config["process"]["env"] = env;
        });
        std::fs::create_dir(c.bundle.rootfs().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1234:1234::/home/ada:/bin/sh\n";
        std::fs::write(c.bundle.rootfs().join("etc/passwd"), passwd).unwrap();
        c.json()["env"].clone()
    };
    let has = |env: &Value, entry: &str| env.as_array().unwrap().contains(&json!(entry));
    assert!(has(&run(json!(["A=1"])), "HOME=/home/ada"));
    assert!(has(&run(json!(["HOME=/elsewhere"])), "HOME=/elsewhere"));
    // empty is none
    assert_eq!(run(json!(["HOME=", "A=1"])), json!(["A=1", "HOME=/home/ada"]));
    assert_eq!(run(json!(["HOME=/x", "HOME="])), json!(["HOME=/home/ada"]));
}

#[test]
fn the_last_of_several_values_of_a_variable_counts() {
    let c = Container::new(|config| {
        args(config, &["report"]);
        config["process"]["env"] = json!(["A=1", "HOME=/h", "PATH=/none", "A=2", "PATH=/", "A="]);
    });
    assert_eq!(c.json()["env"], json!(["HOME=/h", "PATH=/", "A="]));
}

#[test]
fn a_relative_working_directory_is_refused() {
    Container::new(|c| c["process"]["cwd"] = json!("tmp")).assert_refused(&["process.cwd", "tmp"]);
}

#[test]
fn a_program_without_a_slash_is_looked_up_in_the_containers_path() {
    let c = Container::new(|config| {
        config["process"]["args"] = json!(["tool", "say", "found"]);
        config["process"]["env"] = json!(["PATH=/nowhere:/opt/bin"]);
    });
    let bin = c.bundle.rootfs().join("opt/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink("/probe", bin.join("tool")).unwrap();
    assert_eq!(c.lines(), ["found"]);
}

#[test]
fn user_and_groups_are_the_configs() {
    let report = Container::new(|config| {
        config["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 70_000], "umask": 0o27});
    })
    .json();
    let ids = |id: u32| json!({"real": id, "effective": id, "saved": id});
    assert_eq!(report["uids"], ids(1000));
    assert_eq!(report["gids"], ids(1001));
    assert_eq!(report["groups"], json!([5, 70_000]));
    assert_eq!(report["umask"], 0o27);
}

#[test]
fn the_callers_groups_and_umask_stay_outside() {
    let c = Container::new(|_| {});
    // SAFETY: system calls only.
    let command = unsafe {
        c.on_bundle("run", &[]).before_exec(|| {
            nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)])?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
            Ok(())
        })
    };
    let report = command.run().ok().json();
    assert_eq!(report["groups"], json!([]));
    assert_eq!(report["umask"], 0o22);
    // what the runtime makes for the program is not narrowed either
    assert_eq!(report["dev"]["null"]["mode"], 0o666);
    assert_eq!(report["root"]["mode"], 0o755);
}

#[test]
fn ids_beyond_31_bits_are_refused() {
    Container::new(|c| c["process"]["user"]["uid"] = json!(2_147_483_648_u32))
        .assert_refused(&["process.user.uid"]);
}

/// A container whose five sets are these.
fn capabilities(user: u32, sets: Value) -> Value {
    Container::new(|config| {
        config["process"]["capabilities"] = sets;
        config["process"]["user"]["uid"] = json!(user);
        // which would keep an exec by root from adding anything
        config["process"]["noNewPrivileges"] = json!(false);
    })
    .json()["capabilities"]
        .clone()
}

#[test]
fn the_five_sets_of_capabilities_are_the_configs() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_MKNOD"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"],
    });
    // an exec by another user than root keeps the ambient ones alone
    let seen = capabilities(1000, sets.clone());
    assert_eq!(seen["bounding"], sets["bounding"]);
    assert_eq!(seen["inheritable"], sets["inheritable"]);
    assert_eq!(seen["ambient"], json!(["CAP_KILL"]));
    assert_eq!(seen["permitted"], json!(["CAP_KILL"]));
    assert_eq!(seen["effective"], json!(["CAP_KILL"]));
    // one by root gets inheritable and bounding ones
    let seen = capabilities(0, sets.clone());
    assert_eq!(seen["bounding"], sets["bounding"]);
    assert_eq!(seen["permitted"], sets["bounding"]);
    assert_eq!(seen["effective"], sets["bounding"]);
}

#[test]
fn no_capabilities_are_none() {
    for user in [0, 1000] {
        let seen = capabilities(user, json!({}));
        for set in ["bounding", "permitted", "inheritable", "effective", "ambient"] {
            assert_eq!(seen[set], json!([]), "{set} of {user}");
        }
    }
}

#[test]
fn an_unknown_capability_is_warned_about_and_left_out() {
    let c = Container::new(|c| {
        c["process"]["capabilities"]["bounding"] = json!(["CAP_FLY", "CAP_KILL"]);
        c["process"]["capabilities"]["effective"] = json!(["CAP_KILL"]);
        c["process"]["capabilities"]["permitted"] = json!(["CAP_KILL"]);
    });
    let output = c.run().ok();
    assert!(output.stderr.contains("CAP_FLY"), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["capabilities"]["bounding"], json!(["CAP_KILL"]));
}

#[test]
fn no_new_privileges_is_the_configs() {
    for wanted in [true, false] {
        let report = Container::new(|c| c["process"]["noNewPrivileges"] = json!(wanted)).json();
        assert_eq!(report["no_new_privs"], wanted);
    }
}

#[test]
fn the_program_starts_without_securebits_filters_and_threads() {
    let report = Container::new(|_| {}).json();
    assert_eq!(report["securebits"], 0);
    assert_eq!(report["seccomp"], 0);
    assert_eq!(report["threads"], 1);
    assert_eq!(report["dumpable"], 1);
    assert_eq!(report["personality"], 0);
}

#[test]
fn rlimits_are_the_configs_and_the_rest_the_callers() {
    let report = Container::new(|config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_FSIZE", "soft": 1 << 30, "hard": u64::MAX},
        ]);
    })
    .json();
    let limits = &report["rlimits"];
    assert_eq!(limits["RLIMIT_NOFILE"], json!({"soft": 100, "hard": 200}));
    assert_eq!(limits["RLIMIT_CORE"], json!({"soft": 0, "hard": 0}));
    assert_eq!(limits["RLIMIT_FSIZE"], json!({"soft": 1 << 30, "hard": null}));
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NPROC).unwrap();
    assert_eq!(limits["RLIMIT_NPROC"], json!({"soft": own.0, "hard": own.1}));
}

#[test]
fn rlimits_that_make_no_sense_are_refused() {
    for (limit, text) in [
        (json!({"type": "RLIMIT_NONE", "soft": 1, "hard": 1}), "RLIMIT_NONE"),
        (json!({"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}), "RLIMIT_NOFILE"),
    ] {
        Container::new(|c| c["process"]["rlimits"] = json!([limit]))
            .assert_refused(&["process.rlimits", text]);
    }
    Container::new(|config| {
        let limit = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
        config["process"]["rlimits"] = json!([limit, limit]);
    })
    .assert_refused(&["process.rlimits", "RLIMIT_CORE"]);
}

#[test]
fn oom_score_adj_is_the_configs_or_the_callers() {
    let report = Container::new(|c| c["process"]["oomScoreAdj"] = json!(321)).json();
    assert_eq!(report["oom_score_adj"], 321);
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let report = Container::new(|_| {}).json();
    assert_eq!(report["oom_score_adj"].to_string(), own.trim());
}

#[test]
fn oom_score_adj_out_of_range_is_refused() {
    Container::new(|c| c["process"]["oomScoreAdj"] = json!(1001))
        .assert_refused(&["process.oomScoreAdj", "1001"]);
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set() {
    let host = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let report = Container::new(|config| {
        config["linux"]["sysctl"] = json!({
            "net.ipv4.ip_forward": "1",
            "net.core.somaxconn": "321",
            "kernel.msgmax": "4321",
            "kernel.shm_rmid_forced": "1",
            "fs.mqueue.msg_max": "12",
            "net.ipv4.ping_group_range": "5 6",
        });
    })
    .json();
    let seen = &report["sysctls"];
    assert_eq!(seen["net.ipv4.ip_forward"], "1");
    assert_eq!(seen["net.core.somaxconn"], "321");
    assert_eq!(seen["kernel.msgmax"], "4321");
    assert_eq!(seen["kernel.shm_rmid_forced"], "1");
    assert_eq!(seen["fs.mqueue.msg_max"], "12");
    assert_eq!(seen["net.ipv4.ping_group_range"], "5\t6");
    let after = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    assert_eq!(host, after);
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let before = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    Container::new(|c| c["linux"]["sysctl"] = json!({"kernel.panic": "7"}))
        .assert_refused(&["kernel.panic"]);
    for (namespace, key) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.msgmax")] {
        Container::new(|config| {
            drop_namespace(config, namespace);
            config["linux"]["sysctl"] = json!({key: "1"});
        })
        .assert_refused(&[key, namespace]);
    }
    Container::new(|c| c["linux"]["sysctl"] = json!({"net.../../kernel.panic": "7"}))
        .assert_refused(&["net.../../kernel.panic"]);
    let after = std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    assert_eq!(before, after);
}

#[test]
fn the_program_has_a_session_keyring_of_its_own() {
    let ours = std::process::Command::new(crate::support::probe()).arg("report").output().unwrap();
    let ours: Value = serde_json::from_slice(&ours.stdout).unwrap();
    let c = Container::new(|_| {});
    let own = c.json()["keyring"].clone();
    assert!(own.is_i64(), "{own}");
    assert_ne!(own, ours["keyring"]);
    let kept = c.on_bundle("run", &["--no-new-keyring"]).run().ok().json();
    assert_eq!(kept["keyring"], ours["keyring"]);
}
