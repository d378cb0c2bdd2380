//! `start`, `kill`, `state` and `delete`, call by call.

use serde_json::Value;

use crate::faulty::{Call, Extent, Faulty, Followed, Step, Verdict, interrupts_of, steps_of, walk};
use crate::judge::{assert_deletable, assert_gone, assert_told};
use crate::report::{differences, normal};
use crate::support::{Container, Pipe, Tare, args, drop_namespace, pipe};

/// A command on a container that is there already.
pub fn on(c: &Container, words: &[&str], faults: &[String], attach: Option<u32>) -> Followed {
    let (command, rest) = words.split_first().unwrap();
    let flags: Vec<&str> = rest.iter().copied().filter(|word| word.starts_with('-')).collect();
    let rest: Vec<&str> = rest.iter().copied().filter(|word| !word.starts_with('-')).collect();
    Faulty { faults, attach }.run(c.on_id(command, &flags, &rest), |command| command)
}

fn created(words: &[&str]) -> (Container, Pipe) {
    let c = Container::new(|config| args(config, words));
    let (output, writer) = pipe();
    c.on_bundle("create", &[]).stdout(writer).run().ok();
    (c, output)
}

/// Calls with the errnos of a walk, and interruptions.
pub fn all_steps(calls: &[Call]) -> Vec<Step> {
    steps_of(calls).into_iter().chain(interrupts_of(calls)).collect()
}

/// An interruption is nobody's business but the command's.
pub fn check_interrupted(step: &Step, followed: &Followed) {
    let is_meant = step.errno == "EINTR" && followed.reached(step);
    assert!(!is_meant, "an interrupted call ends the command: {:#?}", followed.output);
}

#[test]
fn a_failing_call_in_start() {
    let (c, mut output) = created(&["report"]);
    let followed = on(&c, &["start"], &[], Some(c.pid()));
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let report = normal(&output.line(), &c);
    let steps = all_steps(&followed.calls);
    assert!(steps.iter().any(|step| step.call.name == "execve"), "init was not followed");
    walk("start", &steps, Extent::Whole, |step| take_start(step, &report));
}

fn take_start(step: &Step, report: &Value) -> Verdict {
    let (c, mut output) = created(&["report"]);
    let followed = on(&c, &["start"], &[step.fault()], Some(c.pid()));
    if followed.output.code == 0 {
        let found = differences(report, &normal(&output.line(), &c));
        assert!(found.is_empty(), "a success that differs: {found:#?}");
        assert_deletable(&c);
        return match followed.failed() {
            Some(_) => Verdict::Unharmed,
            None => Verdict::NotReached,
        };
    }
    if followed.failed_where_nothing_can() {
        // the calls were counted differently this time
        assert_deletable(&c);
        return Verdict::NotReached;
    }
    assert_told(&followed, "start", &c.id);
    check_interrupted(step, &followed);
    match c.status().as_str() {
        "created" => {
            // nothing has happened: the second try is as good as the first
            c.start().ok();
            assert_eq!(differences(report, &normal(&output.line(), &c)), [] as [&str; 0]);
        }
        "stopped" => {
            // its program either has not run at all, or did and was told of
            let was_stopped = followed.output.stderr.contains("the container was stopped");
            let has_run = output.try_line().is_some();
            assert!(!has_run || was_stopped, "its program ran: {:#?}", followed.output);
        }
        other => panic!("{other} after a start that failed: {:#?}", followed.output),
    }
    assert_deletable(&c);
    Verdict::Told
}

#[test]
fn a_failing_call_in_kill() {
    let new = || {
        let (c, mut output) = created(&["wait", "7"]);
        c.start().ok();
        output.expect("READY");
        (c, output)
    };
    let (c, _output) = new();
    let steps = all_steps(&on(&c, &["kill", "USR1"], &[], None).calls);
    walk("kill", &steps, Extent::Whole, |step| {
        let (c, mut output) = new();
        let followed = on(&c, &["kill", "USR1"], &[step.fault()], None);
        let is_told = followed.output.code != 0;
        if is_told {
            assert_told(&followed, "kill", &c.id);
            check_interrupted(step, &followed);
            assert_eq!(c.status(), "running");
            c.kill("USR2").ok();
        }
        output.expect(if is_told { "GOT SIGUSR2" } else { "GOT SIGUSR1" });
        assert_deletable(&c);
        if is_told { Verdict::Told } else { Verdict::Unharmed }
    });
}

#[test]
fn a_failing_call_in_state() {
    let (c, _output) = created(&["wait"]);
    let (tare, id) = (c.tare.clone(), c.id.clone());
    let calls = on(&c, &["state"], &[], None).calls;
    let wanted = c.state();
    let steps = all_steps(&calls);
    walk("state, of a created container", &steps, Extent::Whole, |step| {
        take_state(step, &tare, &id, &wanted)
    });
    c.start().ok();
    let calls = on(&c, &["state"], &[], None).calls;
    let wanted = c.state();
    let steps = all_steps(&calls);
    walk("state, of a running container", &steps, Extent::Whole, |step| {
        take_state(step, &tare, &id, &wanted)
    });
}

fn take_state(step: &Step, tare: &Tare, id: &str, wanted: &Value) -> Verdict {
    let command = tare.command(["state", id]);
    let followed = Faulty { faults: &[step.fault()], attach: None }.run(command, |command| command);
    if followed.output.code != 0 {
        assert_told(&followed, "state", id);
        check_interrupted(step, &followed);
        return Verdict::Told;
    }
    assert_eq!(followed.output.json(), *wanted, "{:#?}", followed.output);
    match followed.failed() {
        Some(_) => Verdict::Unharmed,
        None => Verdict::NotReached,
    }
}

#[test]
fn a_failing_call_in_delete() {
    let running = || {
        let (c, mut output) = created(&["wait"]);
        c.start().ok();
        output.expect("READY");
        (c, output)
    };
    delete("delete, of a created container", &[], &|| created(&["wait"]));
    delete("delete --force, of a running container", &["--force"], &running);
    let shares_pids = || {
        let c = Container::new(|config| {
            args(config, &["children", "2"]);
            drop_namespace(config, "pid");
        });
        let mut output = c.create();
        c.start().ok();
        output.line();
        (c, output)
    };
    delete("delete --force, without a pid namespace", &["--force"], &shares_pids);
}

fn delete(what: &str, flags: &[&str], new: &(dyn Fn() -> (Container, Pipe) + Sync)) {
    let words: Vec<&str> = ["delete"].iter().chain(flags).copied().collect();
    let (c, _output) = new();
    let followed = on(&c, &words, &[], None);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    walk(what, &all_steps(&followed.calls), Extent::Whole, |step| {
        let (c, _output) = new();
        let followed = on(&c, &words, &[step.fault()], None);
        if followed.output.code == 0 {
            assert_gone(&c);
            return match followed.failed() {
                Some(_) => Verdict::Unharmed,
                None => Verdict::NotReached,
            };
        }
        assert_told(&followed, "delete", &c.id);
        check_interrupted(step, &followed);
        // the record stays, so that it can be tried again
        assert_deletable(&c);
        Verdict::Told
    });
}
