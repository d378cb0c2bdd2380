//! `pause`, `resume`, `update`, `ps` and `kill --all`, call by call.

use serde_json::{Value, json};

use crate::faulty::{Extent, Step, Verdict, walk};
use crate::judge::{assert_deletable, assert_told};
use crate::lifecycle::{all_steps, check_interrupted, on};
use crate::support::{Container, Pipe, args};

fn running() -> (Container, Pipe) {
    let c = Container::new(|config| args(config, &["wait"]));
    let output = c.started();
    (c, output)
}

fn run(c: &Container, command: &str) {
    c.on_id(command, &[], &[]).run().ok();
}

/// One command with one fault on a container that `new` makes; `check` looks at
/// the container, and gets to know whether the command was told to have failed.
fn take(step: &Step, words: &[&str], c: &Container, check: &dyn Fn(bool)) -> Verdict {
    let followed = on(c, words, &[step.fault()], None);
    let is_told = followed.output.code != 0;
    if is_told {
        assert_told(&followed, words[0], &c.id);
        check_interrupted(step, &followed);
    }
    check(is_told);
    assert_deletable(c);
    match (is_told, followed.failed()) {
        (true, _) => Verdict::Told,
        (false, Some(_)) => Verdict::Unharmed,
        (false, None) => Verdict::NotReached,
    }
}

#[test]
fn a_failing_call_in_pause() {
    let (c, _output) = running();
    let steps = all_steps(&on(&c, &["pause"], &[], None).calls);
    assert_eq!(c.status(), "paused");
    walk("pause", &steps, Extent::Whole, |step| {
        let (c, _output) = running();
        take(step, &["pause"], &c, &|is_told| {
            if is_told {
                assert_eq!(c.status(), "running");
                run(&c, "pause");
            }
            assert_eq!(c.status(), "paused");
        })
    });
}

#[test]
fn a_failing_call_in_resume() {
    let paused = || {
        let (c, output) = running();
        run(&c, "pause");
        (c, output)
    };
    let (c, _output) = paused();
    let steps = all_steps(&on(&c, &["resume"], &[], None).calls);
    assert_eq!(c.status(), "running");
    walk("resume", &steps, Extent::Whole, |step| {
        let (c, _output) = paused();
        take(step, &["resume"], &c, &|_is_told| {
            // what goes on again is not stopped for want of a word about it
            if c.status() == "paused" {
                run(&c, "resume");
            }
            assert_eq!(c.status(), "running");
        })
    });
}

#[test]
fn a_failing_call_in_a_signal_for_all() {
    let words = ["kill", "--all", "USR1"];
    let (c, _output) = running();
    let steps = all_steps(&on(&c, &words, &[], None).calls);
    walk("kill --all", &steps, Extent::Whole, |step| {
        let (c, output) = running();
        let output = std::cell::RefCell::new(output);
        take(step, &words, &c, &|is_told| {
            if c.status() == "paused" {
                // the call that failed was the one that lets it go on
                assert!(is_told);
                run(&c, "resume");
            }
            assert_eq!(c.status(), "running");
            c.kill("USR2").ok();
            let line = output.borrow_mut().line();
            assert!(is_told || line == "GOT SIGUSR1", "{line}");
        })
    });
}

/// What an update changes: a file, the rules for devices, the record.
fn seen(c: &Container) -> (String, Value) {
    let depth = std::fs::read_to_string(c.cgroup().join("cgroup.max.depth")).unwrap();
    let record = c.tare.root().join(&c.id).join("state.json");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
    (depth, record["resources"].clone())
}

#[test]
fn a_failing_call_in_update() {
    let new = || {
        let (c, output) = running();
        let asked = json!({
            "unified": {"cgroup.max.depth": "3"},
            "devices": [{"allow": true, "access": "rwm"}],
        });
        std::fs::write(c.bundle.path().join("resources.json"), asked.to_string()).unwrap();
        (c, output)
    };
    let words = |c: &Container| {
        let path = c.bundle.path().join("resources.json");
        format!("--resources={}", path.display())
    };
    let (c, _output) = new();
    let before = seen(&c);
    let steps = all_steps(&on(&c, &["update", &words(&c)], &[], None).calls);
    let after = seen(&c);
    assert_eq!(after.0, "3\n");
    walk("update", &steps, Extent::Whole, |step| {
        let (c, _output) = new();
        take(step, &["update", &words(&c)], &c, &|is_told| {
            assert_eq!(seen(&c), if is_told { before.clone() } else { after.clone() });
            if is_told {
                c.on_id("update", &[&words(&c)], &[]).run().ok();
                assert_eq!(seen(&c), after);
            }
        })
    });
}

#[test]
fn a_failing_call_in_ps() {
    let (c, _output) = running();
    let steps = all_steps(&on(&c, &["ps", "--format=json"], &[], None).calls);
    walk("ps", &steps, Extent::Whole, |step| {
        let (c, _output) = running();
        let followed = on(&c, &["ps", "--format=json"], &[step.fault()], None);
        if followed.output.code != 0 {
            assert_told(&followed, "ps", &c.id);
            check_interrupted(step, &followed);
            return Verdict::Told;
        }
        assert_eq!(followed.output.json(), json!([c.pid()]));
        Verdict::Unharmed
    });
}
