//! Commands at the same time: each ends in a result that is one of a few, and
//! nothing is left.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use crate::support::{Container, Output, Running, Tare, args, faults};

fn sleeping(tare: &Tare) -> Container {
    Container::under(tare, |c| args(c, &["sleep-forever"]))
}

/// Started, without anyone who listens to it.
fn started(tare: &Tare) -> Container {
    let c = sleeping(tare);
    c.on_bundle("create", &[]).run().ok();
    c.start().ok();
    c
}

/// It has worked, or said one of these in one line.
#[track_caller]
fn assert_one_of(output: &Output, texts: &[&str]) {
    if output.code != 0 {
        assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
        assert!(texts.iter().any(|text| output.stderr.contains(text)), "{output:#?}");
    }
}

#[test]
fn sixty_four_creates_side_by_side() {
    let tare = Tare::new();
    let all: Vec<Container> = (0..64).map(|_| sleeping(&tare)).collect();
    let creates: Vec<Running> = all.iter().map(|c| c.on_bundle("create", &[]).spawn()).collect();
    creates.into_iter().for_each(|create| drop(create.wait().ok()));
    let listed = tare.command(["list", "--format", "json"]).run().ok().json();
    let states = listed.as_array().unwrap();
    assert_eq!(states.len(), 64);
    assert!(states.iter().all(|state| state["status"] == "created"), "{listed:#}");
    let deletes: Vec<Running> = all.iter().map(|c| c.on_id("delete", &[], &[]).spawn()).collect();
    deletes.into_iter().for_each(|delete| drop(delete.wait().ok()));
    all.iter().for_each(Container::assert_gone);
}

#[test]
fn a_state_during_a_create_is_one_of_its_life() {
    let tare = Tare::new();
    for _ in 0..8 {
        let c = sleeping(&tare);
        let create = c.on_bundle("create", &[]).spawn();
        loop {
            let output = c.on_id("state", &[], &[]).run();
            if output.code != 0 {
                // between the two the id is taken, and nothing known of it yet
                assert_one_of(&output, &["does not exist", "it is being created"]);
                continue;
            }
            match output.json()["status"].as_str().unwrap() {
                "creating" => {}
                "created" => break,
                other => panic!("{other}"),
            }
        }
        create.wait().ok();
        c.delete().ok();
        c.assert_gone();
    }
}

#[test]
fn commands_on_a_container_that_is_being_created() {
    let c = Container::new(|config| {
        args(config, &["sleep-forever"]);
        // holds the create
        config["hooks"]["createRuntime"] = json!([{
            "path": crate::support::probe(),
            "args": ["probe", "sleep-forever"],
        }]);
    });
    let create = c.on_bundle("create", &[]).spawn();
    crate::support::wait_gone("the time before the record", || {
        let state = c.on_id("state", &[], &[]).run();
        state.code == 0 && state.json()["pid"] == 0 && state.json()["status"] == "creating"
    });
    c.kill("KILL").fails_with(&["container not running"]);
    // at once: the create could be waiting for just this
    c.start().fails_with(&["cannot start a container in the creating state"]);
    c.delete().fails_with(&["that is not stopped: creating"]);
    c.exec(&[], &["exit", "0"]).run().ends_with_code(255);
    c.on_id("ps", &["--format", "json"], &[]).run();
    let listed = c.tare.command(["list", "--format", "json"]).run().ok().json();
    assert_eq!(listed[0]["status"], "creating", "{listed}");
    c.on_bundle("create", &[]).run().fails_with(&["container with given ID already exists"]);
    c.delete_by_force().ok();
    create.wait().ends_with_code(1);
    c.assert_gone();
}

#[test]
fn commands_on_a_container_whose_start_waits_for_a_hook() {
    let c = Container::new(|config| {
        args(config, &["sleep-forever"]);
        config["hooks"]["poststart"] = json!([{
            "path": crate::support::probe(),
            "args": ["probe", "sleep-forever"],
        }]);
    });
    let output = c.create();
    let start = c.on_id("start", &[], &[]).spawn();
    crate::support::wait_gone("the time before the program", || c.status() == "running");
    c.start().fails_with(&["cannot start an already running container"]);
    c.delete().fails_with(&["that is not stopped: running"]);
    start.signal(nix::sys::signal::Signal::SIGTERM);
    start.wait().fails_with(&["interrupted by SIGTERM"]);
    drop(output);
    c.delete_by_force().ok();
    c.assert_gone();
}

#[test]
fn of_two_deletes_one_removes_it() {
    let tare = Tare::new();
    for _ in 0..8 {
        let c = sleeping(&tare);
        c.on_bundle("create", &[]).run().ok();
        let deletes = [(); 2].map(|()| c.on_id("delete", &[], &[]).spawn());
        let outputs = deletes.map(Running::wait);
        assert_eq!(outputs.iter().filter(|o| o.code == 0).count(), 1, "{outputs:#?}");
        outputs.iter().for_each(|output| assert_one_of(output, &["does not exist"]));
        c.assert_gone();
    }
}

#[test]
fn commands_beside_a_delete() {
    const GONE: [&str; 3] =
        ["does not exist", "container not running", "was killed before its program ran"];
    let tare = Tare::new();
    for words in [&["exec", "--detach"][..], &["pause"], &["update", "--pids-limit=-1"], &["ps"]] {
        for _ in 0..4 {
            let c = started(&tare);
            let rest: &[&str] = match words[0] {
                "exec" => &["/probe", "exit", "0"],
                _ => &[],
            };
            let other = c.on_id(words[0], &words[1..], rest).spawn();
            let delete = c.on_id("delete", &["--force"], &[]).spawn();
            delete.wait().ok();
            let output = other.wait();
            // what the host can't limit is not the container's affair
            assert_one_of(&output, &[&GONE[..], &["pids"]].concat());
            c.assert_gone();
        }
    }
}

#[test]
fn a_kill_during_a_start() {
    let tare = Tare::new();
    for _ in 0..8 {
        let c = sleeping(&tare);
        c.on_bundle("create", &[]).run().ok();
        let start = c.on_id("start", &[], &[]).spawn();
        let kill = c.on_id("kill", &[], &["KILL"]).spawn();
        assert_one_of(&kill.wait(), &["container not running"]);
        let stopped = "cannot start a container that has stopped";
        assert_one_of(&start.wait(), &["init has died", stopped, "init has ended", "died"]);
        crate::support::wait_gone("the init", || c.status() == "stopped");
        c.delete().ok();
        c.assert_gone();
    }
}

#[test]
fn a_list_while_containers_come_and_go() {
    let tare = Tare::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..6 {
                        let c = sleeping(&tare);
                        c.on_bundle("create", &[]).run().ok();
                        c.delete().ok();
                    }
                })
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            let output = tare.command(["list", "--format", "json"]).run().ok();
            assert_eq!(output.stderr, "");
            for state in output.json().as_array().unwrap() {
                let status = state["status"].as_str().unwrap();
                assert!(["creating", "created", "stopped"].contains(&status), "{state}");
            }
        }
    });
    assert_eq!(tare.command(["list", "--quiet"]).run().ok().stdout, "");
}

/// A lock of the test's own, as another command has it.
fn locked(path: &std::path::Path) -> Flock<File> {
    Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusive).unwrap()
}

#[test]
fn of_two_creates_with_one_cgroup_one_has_it() {
    let tare = Tare::new();
    for there in [false, true].repeat(6) {
        let pair = [sleeping(&tare), sleeping(&tare)];
        let [first, second] = &pair;
        second
            .bundle
            .edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/{}", first.id)));
        if there {
            std::fs::create_dir(first.cgroup()).unwrap();
        }
        let creates = pair.each_ref().map(|c| c.on_bundle("create", &[]).spawn());
        let outputs = creates.map(Running::wait);
        let refused: Vec<&Output> = outputs.iter().filter(|output| output.code != 0).collect();
        assert_eq!(refused.len(), 1, "{outputs:#?}");
        assert_one_of(refused[0], &["the container's cgroup is not empty"]);
        let procs = std::fs::read_to_string(first.cgroup().join("cgroup.procs")).unwrap();
        assert_eq!(procs.lines().count(), 1, "{procs}");
        // who was refused has no say in it
        let winner = pair.iter().zip(&outputs).find(|(_, output)| output.code == 0).unwrap().0;
        let loser = pair.iter().zip(&outputs).find(|(_, output)| output.code != 0).unwrap().0;
        loser.delete_by_force();
        assert_eq!(winner.status(), "created");
        winner.delete_by_force().ok();
        pair.iter().for_each(Container::assert_gone);
    }
}

#[test]
fn a_cgroup_in_which_another_create_is_at_work_is_refused() {
    let c = Container::new(|config| args(config, &["exit", "0"]));
    std::fs::create_dir(c.cgroup()).unwrap();
    let lock = locked(&c.cgroup());
    for command in ["create", "run"] {
        let refused = c.on_bundle(command, &[]).run();
        refused.fails_with(&["not empty: another container is being created in it", &c.id]);
        assert_eq!(c.traces().cgroups, [c.cgroup()]);
        assert!(c.traces().state.is_empty());
    }
    drop(lock);
    c.run().ok();
    c.assert_gone();
}

/// It was there for a moment, and what has its name now may be another command's.
#[test]
fn a_state_directory_that_was_deleted_under_a_create_is_not_removed_again() {
    let c = Container::new(|config| args(config, &["exit", "0"]));
    let fault = format!("runtime:openat[1~{}]=ENOENT@1", c.id);
    let create = c.on_bundle("create", &[]).through(faults(), &["--fail", &fault]).run();
    create.fails_with(&["no such file or directory"]);
    assert_eq!(c.traces().state, [c.tare.root().join(&c.id)]);
    c.delete_by_force().ok();
    c.assert_gone();
}

/// Whether a command for this container sleeps before it looks again.
fn sleeps(command: &str, id: &str) -> bool {
    let calls = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(|call| format!("{call} "));
    let sleeps = |process: std::path::PathBuf| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let call = std::fs::read_to_string(process.join("syscall")).unwrap_or_default();
        words.first().is_some_and(|name| name.ends_with(b"tare"))
            && [command, id].iter().all(|word| words.contains(&word.as_bytes()))
            && calls.iter().any(|sleep| call.starts_with(sleep))
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| sleeps(entry.path()))
}

/// A start that fails gives the socket its name back, between two looks of another one.
#[test]
fn a_start_beside_one_that_fails_waits_for_it() {
    let c = Container::new(|config| args(config, &["exit", "0"]));
    let mut output = c.create();
    let dir = c.tare.root().join(&c.id);
    let lock = locked(&dir);
    let words = ["newfstatat", "statx"]
        .map(|call| ["--fail".to_owned(), format!("runtime:{call}[1~start]=ENOENT@1")]);
    let words: Vec<&str> = words.as_flattened().iter().map(String::as_str).collect();
    let start = c.on_id("start", &[], &[]).through(faults(), &words).spawn();
    crate::support::wait_gone("the time before it waits", || sleeps("start", &c.id));
    drop(lock);
    start.wait().ok();
    c.ended(&mut output);
    c.delete().ok();
    c.assert_gone();
}
