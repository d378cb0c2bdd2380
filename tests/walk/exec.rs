//! `exec`, call by call.

use serde_json::Value;

use crate::faulty::{Extent, Faulty, Followed, Step, Verdict, interrupts_of, steps_of, walk};
use crate::judge::{assert_deletable, assert_told};
use crate::report::{differences, normal};
use crate::support::{Container, Pipe, args, map_users, wait_gone};

fn running(edit: impl FnOnce(&mut Value)) -> (Container, Pipe) {
    let c = Container::new(|config| {
        args(config, &["wait"]);
        edit(config);
    });
    c.bundle.give_rootfs_to(100_000);
    let output = c.started();
    (c, output)
}

fn exec(c: &Container, flags: &[&str], faults: &[String]) -> Followed {
    let pid_file = c.bundle.path().join("pid");
    let flags: Vec<&str> =
        flags.iter().copied().chain(["--pid-file", pid_file.to_str().unwrap()]).collect();
    Faulty { faults, attach: None }.run(c.exec(&flags, &["report"]), |command| command)
}

/// What the process of an `exec` that succeeds has printed.
fn report_of(followed: &Followed, c: &Container) -> Value {
    normal(followed.output.stdout.trim(), c)
}

fn walk_exec(
    what: &str,
    flags: &[&str],
    extent: Extent,
    new: &(dyn Fn() -> (Container, Pipe) + Sync),
) {
    let (c, _output) = new();
    let followed = exec(&c, flags, &[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let report = report_of(&followed, &c);
    let steps: Vec<Step> =
        steps_of(&followed.calls).into_iter().chain(interrupts_of(&followed.calls)).collect();
    walk(what, &steps, extent, |step| take(step, flags, &report, &new().0));
}

fn take(step: &Step, flags: &[&str], report: &Value, c: &Container) -> Verdict {
    let followed = exec(c, flags, &[step.fault()]);
    // whatever has become of the command, its process has ended
    wait_gone("the process of an exec", || {
        let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
        procs.trim() == c.pid().to_string()
    });
    assert_eq!(c.status(), "running");
    let verdict = if followed.output.code == 0 {
        let found = differences(report, &report_of(&followed, c));
        assert!(found.is_empty(), "a success that differs: {found:#?}");
        if followed.failed().is_some() { Verdict::Unharmed } else { Verdict::NotReached }
    } else if followed.failed_where_nothing_can() {
        Verdict::NotReached
    } else {
        assert_told(&followed, "exec", &c.id);
        let is_meant = step.errno == "EINTR" && followed.reached(step);
        assert!(!is_meant, "an interrupted call ends the command: {:#?}", followed.output);
        Verdict::Told
    };
    assert_deletable(c);
    verdict
}

#[test]
fn a_failing_call_in_exec() {
    walk_exec("exec", &[], Extent::Whole, &|| running(|_| {}));
}

#[test]
fn a_failing_call_in_an_exec_with_a_terminal_and_a_user_namespace() {
    let what = "exec with a terminal and a user namespace";
    let flags = ["--tty", "--user", "5:6", "--env", "A=1"];
    walk_exec(what, &flags, Extent::Sample(110), &|| {
        running(|config| {
            map_users(config);
            config["process"]["noNewPrivileges"] = serde_json::json!(false);
            config["process"]["oomScoreAdj"] = serde_json::json!(100);
        })
    });
}
