//! create, start, state, kill, delete, list: the words and the order.

use serde_json::json;

use crate::support::{Container, Tare, args, is_alive};

#[test]
fn create_holds_the_program_until_start() {
    let c = Container::new(|c| args(c, &["say", "hello"]));
    let mut output = c.create();
    assert_eq!(c.status(), "created");
    assert!(is_alive(c.pid()));
    assert!(output.is_silent());
    c.start().ok();
    assert_eq!(c.ended(&mut output), "hello\n");
}

#[test]
fn config_is_not_read_again_after_create() {
    let c = Container::new(|c| args(c, &["say", "first"]));
    let mut output = c.create();
    c.bundle.write_config("no longer JSON");
    c.start().ok();
    assert_eq!(c.ended(&mut output), "first\n");
    c.delete().ok();
}

#[test]
fn state_tells_all_that_the_specification_asks_for() {
    let c = Container::new(|config| {
        args(config, &["wait"]);
        config["annotations"] = json!({"org.example.a": "b", "org.example.empty": ""});
    });
    let _output = c.create();
    let state = c.state();
    assert_eq!(state["id"], *c.id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], c.bundle.path().to_str().unwrap());
    assert_eq!(state["rootfs"], c.bundle.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.a": "b", "org.example.empty": ""}));
    let version = state["ociVersion"].as_str().unwrap();
    assert!(version.starts_with("1."), "{version}");
    assert_eq!(state["owner"].as_str().unwrap_or_default(), "root");
    assert_is_now(state["created"].as_str().unwrap());
    let line = std::fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert!(line.contains(&c.id), "{line}");
}

/// RFC 3339 with nanoseconds, and today: date(1) reads it.
fn assert_is_now(time: &str) {
    let output = std::process::Command::new("date").args(["--date", time, "+%s"]).output().unwrap();
    let then: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now.abs_diff(then) < 60, "{time}");
    let fraction = time.split_once('.').expect(time).1;
    assert!(fraction.len() > 6, "nanoseconds in {time}");
}

#[test]
fn statuses_follow_the_life_of_the_program() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.create();
    assert_eq!(c.status(), "created");
    c.start().ok();
    output.expect("READY");
    assert_eq!(c.status(), "running");
    c.kill("TERM").ok();
    output.expect("GOT SIGTERM");
    c.ended(&mut output);
    let state = c.state();
    assert_eq!(state["status"], "stopped");
    assert_eq!(state["pid"], 0);
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn create_without_bundle_takes_the_current_directory() {
    let c = Container::new(|c| args(c, &["exit", "0"]));
    c.on_id("create", &[], &[]).current_dir(c.bundle.path()).run().ok();
    assert_eq!(c.state()["bundle"], c.bundle.path().to_str().unwrap());
}

#[test]
fn the_bundle_may_be_a_relative_path() {
    let c = Container::new(|c| args(c, &["exit", "0"]));
    let name = c.bundle.path().file_name().unwrap().to_str().unwrap();
    c.on_id("create", &["--bundle", name], &[])
        .current_dir(c.bundle.path().parent().unwrap())
        .run()
        .ok();
    assert_eq!(c.state()["bundle"], c.bundle.path().to_str().unwrap());
}

#[test]
fn kill_takes_names_with_and_without_sig_and_numbers() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.started();
    let signals = [
        ("SIGUSR1", "SIGUSR1"),
        ("USR2", "SIGUSR2"),
        ("1", "SIGHUP"),
        ("usr1", "SIGUSR1"),
        ("SIGRTMIN+3", "37"),
        ("SIGTERM", "SIGTERM"),
    ];
    for (word, name) in signals {
        c.kill(word).ok();
        output.expect(&format!("GOT {name}"));
    }
}

#[test]
fn kill_without_a_signal_sends_term() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.started();
    c.on_id("kill", &[], &[]).run().ok();
    output.expect("GOT SIGTERM");
}

#[test]
fn kill_refuses_words_that_are_no_signal() {
    let c = Container::new(|c| args(c, &["wait"]));
    let _output = c.started();
    c.kill("SIGNONE").fails_with(&["SIGNONE"]);
    c.kill("99").fails_with(&["99"]);
    // which is none, and asks whether there is somebody
    c.kill("0").ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_created_container_can_be_killed() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.create();
    c.kill("KILL").ok();
    assert_eq!(c.ended(&mut output), "");
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn a_created_container_ends_by_what_ends_programs() {
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let c = Container::new(|c| args(c, &["wait"]));
        let mut output = c.create();
        c.kill(signal).ok();
        assert_eq!(c.ended(&mut output), "");
        assert_eq!(c.status(), "stopped", "{signal}");
        c.start().fails_with(&["stopped"]);
        c.delete().ok();
        c.assert_gone();
    }
}

#[test]
fn what_ends_a_created_container_is_up_to_its_program_later() {
    let c = Container::new(|c| args(c, &["wait"]));
    let _output = c.started();
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    for set in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let bits = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        let bits = u64::from_str_radix(bits.trim(), 16).unwrap();
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            assert_eq!(bits >> (signal - 1) & 1, 0, "{signal} in {set} {bits:x}");
        }
    }
}

#[test]
fn kill_of_a_stopped_container_says_so() {
    let c = Container::new(|c| args(c, &["exit", "0"]));
    let mut output = c.create();
    c.start().ok();
    c.ended(&mut output);
    c.kill("TERM").fails_with(&["container not running"]);
}

#[test]
fn start_twice_is_refused() {
    let c = Container::new(|c| args(c, &["wait"]));
    let _output = c.started();
    c.start().fails_with(&["running"]);
    assert_eq!(c.status(), "running");
}

#[test]
fn start_of_a_stopped_container_is_refused() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.create();
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.start().fails_with(&["stopped"]);
}

#[test]
fn delete_of_a_container_that_is_not_stopped_is_refused() {
    let c = Container::new(|c| args(c, &["wait"]));
    let _output = c.started();
    c.delete().fails_with(&["running"]);
    assert_eq!(c.status(), "running");
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn delete_by_force_takes_a_created_container() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.create();
    c.delete_by_force().ok();
    assert_eq!(c.ended(&mut output), "");
    c.assert_gone();
}

#[test]
fn commands_on_a_container_that_is_not_there_say_so() {
    let c = Container::new(|_| {});
    for command in ["start", "state", "kill", "delete"] {
        c.on_id(command, &[], &[]).run().fails_with(&["does not exist", &c.id]);
    }
    c.delete_by_force().ok();
}

#[test]
fn delete_twice_says_that_it_does_not_exist() {
    let c = Container::new(|c| args(c, &["exit", "0"]));
    let mut output = c.create();
    c.start().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.delete().fails_with(&["does not exist"]);
}

#[test]
fn an_id_is_free_again_after_delete() {
    let c = Container::new(|c| args(c, &["say", "hello"]));
    for _ in 0..3 {
        let mut output = c.create();
        c.start().ok();
        assert_eq!(c.ended(&mut output), "hello\n");
        c.delete().ok();
    }
    c.assert_gone();
}

#[test]
fn list_prints_a_table_json_or_names() {
    let tare = Tare::new();
    let list = |words: &[&str]| tare.command(["list"].iter().chain(words)).run().ok();
    assert_eq!(list(&["--quiet"]).stdout, "");
    let empty = list(&["--format", "json"]).stdout;
    assert!(["null", "[]"].contains(&empty.trim()), "{empty:?}");

    let [a, b] = [(); 2].map(|()| Container::under(&tare, |c| args(c, &["wait"])));
    let (_out_a, _out_b) = (a.create(), b.started());

    let mut ids = [a.id.as_str(), b.id.as_str()];
    ids.sort_unstable();
    let quiet = list(&["--quiet"]).stdout;
    let mut seen: Vec<&str> = quiet.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ids);

    let table = list(&[]).stdout;
    let row = |c: &Container| {
        let row = table.lines().find(|l| l.starts_with(&c.id)).unwrap();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let head = table.lines().next().unwrap();
    for title in ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] {
        assert!(head.contains(title), "{head}");
    }
    assert_eq!(row(&a)[1..3], [a.pid().to_string(), "created".to_owned()]);
    assert_eq!(row(&b)[1..3], [b.pid().to_string(), "running".to_owned()]);

    let json = list(&["--format", "json"]).json();
    let states = json.as_array().unwrap();
    assert_eq!(states.len(), 2);
    for c in [&a, &b] {
        let state = states.iter().find(|s| s["id"] == *c.id).unwrap();
        assert_eq!(*state, c.state());
    }
}

#[test]
fn list_shows_what_is_broken_and_leaves_out_what_is_no_container() {
    let tare = Tare::new();
    let c = Container::under(&tare, |c| args(c, &["wait"]));
    let _output = c.create();
    let dir = |name: &str| {
        let dir = tare.root().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    std::fs::write(dir("damaged").join("state.json"), "{\"id\": ").unwrap();
    std::fs::write(dir("other").join("config.toml"), "of another program").unwrap();
    dir("killed");
    let json = tare.command(["list", "--format", "json"]).run().ok();
    assert!(json.stderr.contains("damaged: "), "{json:?}");
    let states = json.json();
    let status = |id: &str| states.as_array().unwrap().iter().find(|s| s["id"] == id).cloned();
    assert_eq!(status(&c.id).unwrap(), c.state());
    for (id, wanted) in [("damaged", "broken"), ("killed", "creating")] {
        let state = status(id).unwrap();
        assert_eq!(state["status"], wanted);
        assert_eq!(state["pid"], 0);
        assert!(state["created"].as_str().unwrap().ends_with('Z'), "{state}");
    }
    assert_eq!(status("other"), None);
    let table = tare.command(["list"]).run().ok().stdout;
    assert!(table.lines().any(|line| line.starts_with("damaged ") && line.contains(" broken ")));
    let mut ids = [c.id.as_str(), "damaged", "killed"];
    ids.sort_unstable();
    let quiet = tare.command(["list", "--quiet"]).run().ok().stdout;
    assert_eq!(quiet.lines().collect::<Vec<_>>(), ids);
    for id in ["damaged", "killed"] {
        tare.command(["delete", "--force", id]).run().ok();
    }
    std::fs::remove_dir_all(tare.root().join("other")).unwrap();
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn list_of_a_root_that_is_not_there_is_refused_where_it_was_named() {
    let tare = Tare::new();
    let root = tare.root().join("not/yet");
    let root = root.to_str().unwrap();
    for words in [&["list"][..], &["list", "--quiet"], &["list", "--format", "json"]] {
        let output = tare.bare([&["--root", root], words].concat()).run();
        output.fails_with(&["--root", root, "no such file or directory"]);
    }
    // nobody has named the default one
    tare.bare(["list", "--quiet"]).run().ok();
}

#[test]
fn containers_of_two_roots_do_not_see_each_other() {
    let a = Container::new(|c| args(c, &["wait"]));
    let b = Container::new(|_| {});
    let _output = a.create();
    b.tare.command(["state", &a.id]).run().fails_with(&["does not exist"]);
}

#[test]
fn an_id_in_use_is_refused_and_the_first_goes_on() {
    let tare = Tare::new();
    let a = Container::under(&tare, |c| args(c, &["wait"]));
    let _output = a.started();
    let before = a.traces();
    let other = Container::new(|_| {});
    let bundle = other.bundle.path().to_str().unwrap();
    for command in ["create", "run"] {
        tare.command([command, "--bundle", bundle, &a.id]).run().fails_with(&[&a.id, "exists"]);
    }
    assert_eq!(a.traces(), before);
    assert_eq!(a.status(), "running");
}

#[test]
fn of_many_creates_with_one_id_one_wins() {
    let tare = Tare::new();
    let a = Container::under(&tare, |c| args(c, &["wait"]));
    let creates: Vec<_> = (0..16).map(|_| a.on_bundle("create", &[]).spawn()).collect();
    let outputs: Vec<_> = creates.into_iter().map(crate::support::Running::wait).collect();
    let won = outputs.iter().filter(|o| o.code == 0).count();
    assert_eq!(won, 1, "{outputs:#?}");
    for output in outputs.into_iter().filter(|o| o.code != 0) {
        output.fails_with(&["exists"]);
    }
    assert_eq!(a.status(), "created");
    a.delete_by_force().ok();
    a.assert_gone();
}

#[test]
fn of_many_starts_one_wins() {
    let c = Container::new(|c| args(c, &["wait"]));
    let mut output = c.create();
    let starts: Vec<_> = (0..8).map(|_| c.on_id("start", &[], &[]).spawn()).collect();
    let codes: Vec<_> = starts.into_iter().map(|s| s.wait().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    output.expect("READY");
    assert_eq!(c.status(), "running");
}

#[test]
fn of_many_deletes_all_end() {
    let c = Container::new(|c| args(c, &["wait"]));
    let _output = c.started();
    let force = || c.on_id("delete", &["--force"], &[]).spawn();
    let deletes: Vec<_> = (0..6).map(|_| force()).collect();
    for delete in deletes {
        delete.wait().ok();
    }
    c.assert_gone();
}

#[test]
fn commands_side_by_side_do_not_disturb_each_other() {
    let tare = Tare::new();
    let all: Vec<_> = (0..8)
        .map(|n| Container::under(&tare, |c| args(c, &["say", &format!("number {n}")])))
        .collect();
    let runs: Vec<_> = all.iter().map(|c| c.on_bundle("run", &[]).spawn()).collect();
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(run.wait().ok().stdout, format!("number {n}\n"));
    }
    let listed = tare.command(["list", "--quiet"]).run().ok();
    assert_eq!(listed.stdout, "");
}

#[test]
fn spec_writes_a_config_that_runs() {
    let c = Container::new(|_| {});
    std::fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    let bundle = c.bundle.path().to_str().unwrap();
    c.tare.command(["spec", "--bundle", bundle]).run().ok();
    c.bundle.edit(|config| {
        assert_eq!(config["process"]["args"], json!(["sh"]));
        args(config, &["report"]);
        config["process"]["terminal"] = json!(false);
    });
    let report = c.json();
    assert_eq!(report["pid"], 1);
    assert_eq!(report["no_new_privs"], true);
    // a second one would overwrite what a person has edited
    let again = c.tare.command(["spec", "--bundle", bundle]).run();
    again.fails_with(&["config.json", "exists"]);
}

#[test]
fn version_names_the_runtime_and_the_specification() {
    let tare = Tare::new();
    // callers give their own options with every call
    for words in [&["--version"][..], &["-v"], &["--root", "/nowhere", "--version"]] {
        let output = tare.bare(words.iter().copied()).run().ok().stdout;
        assert!(output.starts_with("tare version "), "{output}");
        let spec = output.lines().find_map(|l| l.strip_prefix("spec: "));
        assert!(spec.is_some_and(|s| s.starts_with("1.")), "{output}");
        assert!(output.lines().any(|l| l.starts_with("commit: ")), "{output}");
    }
}

#[test]
fn delete_leaves_a_later_container_in_the_same_cgroup_alone() {
    let tare = Tare::new();
    let path = format!("/{}", crate::support::unique_id());
    let first = Container::under(&tare, |config| {
        config["linux"]["cgroupsPath"] = serde_json::json!(path);
        args(config, &["exit", "0"]);
    });
    first.on_bundle("run", &["--keep"]).run().ok();
    let second = Container::under(&tare, |config| {
        config["linux"]["cgroupsPath"] = serde_json::json!(path);
        args(config, &["wait"]);
    });
    let _output = second.started();
    first.delete().ok();
    assert_eq!(second.status(), "running");
    second.delete_by_force().ok();
    assert!(!crate::support::cgroup2_mount().join(&path[1..]).exists());
}

#[test]
fn start_fails_when_init_dies_before_its_program() {
    let c = Container::new(|config| {
        args(config, &["exit", "0"]);
        config["hooks"]["startContainer"] = serde_json::json!([{
            "path": "/probe",
            "args": ["probe", "sleep-forever"],
        }]);
    });
    let _output = c.create();
    let starting = c.on_id("start", &[], &[]).spawn();
    crate::support::wait_gone("the status created", || c.status() == "running");
    c.kill("KILL").ok();
    let started = starting.wait();
    assert_eq!(started.code, 1, "{started:?}");
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}

/// The kernel calls it a zombie, and it is none.
#[test]
fn a_program_whose_first_thread_has_ended_still_runs() {
    let c = Container::new(|c| args(c, &["leave-first-thread"]));
    let mut output = c.started();
    let stat = format!("/proc/{}/stat", c.pid());
    crate::support::wait_gone("the first thread", || {
        std::fs::read_to_string(&stat).unwrap().contains(") Z ")
    });
    assert_eq!(c.status(), "running");
    assert_eq!(c.state()["pid"], c.pid());
    c.start().fails_with(&["cannot start an already running container"]);
    c.delete().fails_with(&["not stopped"]);
    c.kill("USR1").ok();
    output.expect("GOT SIGUSR1");
    let pids = c.on_id("ps", &["--format", "json"], &[]).run().ok().json();
    assert_eq!(pids, serde_json::json!([c.pid()]));
    c.kill("TERM").ok();
    c.ended(&mut output);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}
