//! `exec`, call by call.

use serde_json::Value;

use crate::faulty::{Call, Extent, Faulty, Followed, Step, Verdict, interrupts_of, steps_of, walk};
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

/// An `exec`, and how its output is compared.
struct Case {
    flags: &'static [&'static str],
    words: &'static [&'static str],
    normal: fn(&str, &Container) -> Value,
}

/// The whole report.
const PLAIN: Case = Case { flags: &[], words: &["report"], normal };

/// The most important of it: when a program with a terminal ends, the kernel takes
/// back what is beyond a page and was not read yet, and here everything is slow.
const IN_TERMINAL: Case = Case {
    flags: &["--tty", "--user", "5:6", "--env", "A=1"],
    words: &["each", "open /dev/tty rw", "read /proc/self/status", "read /proc/self/cgroup"],
    normal: |text, _| {
        const SEEN: [&str; 8] =
            ["ok", "Umask:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "0::"];
        let lines = text.lines().map(str::trim_end);
        lines.filter(|line| SEEN.iter().any(|start| line.starts_with(start))).collect()
    },
};

fn exec(c: &Container, case: &Case, faults: &[String]) -> Followed {
    let pid_file = c.bundle.path().join("pid");
    let more = ["--pid-file", pid_file.to_str().unwrap()];
    let flags: Vec<&str> = case.flags.iter().copied().chain(more).collect();
    Faulty { faults, attach: None }.run(c.exec(&flags, case.words), |command| command)
}

fn walk_exec(
    what: &str,
    case: &Case,
    extent: Extent,
    new: &(dyn Fn() -> (Container, Pipe) + Sync),
) {
    let (c, _output) = new();
    let followed = exec(&c, case, &[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let wanted = (case.normal)(&followed.output.stdout, &c);
    let steps: Vec<Step> =
        steps_of(&followed.calls).into_iter().chain(interrupts_of(&followed.calls)).collect();
    walk(what, &steps, extent, |step| take(step, case, &wanted, &new().0));
}

/// Whether what failed was a read of the pty, in the way in which the kernel tells
/// its end. Who relays one does not make the same calls each time.
fn tells_end(step: &Step, followed: &Followed) -> bool {
    let is_relayed = |call: &Call| call.name == "read" && call.args[2] == 16 << 10;
    step.errno == "EIO" && followed.failed().is_some_and(is_relayed)
}

fn take(step: &Step, case: &Case, wanted: &Value, c: &Container) -> Verdict {
    let followed = exec(c, case, &[step.fault()]);
    // whatever has become of the command, its process has ended
    wait_gone("the process of an exec", || {
        let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
        procs.trim() == c.pid().to_string()
    });
    assert_eq!(c.status(), "running");
    let verdict = if tells_end(step, &followed) {
        Verdict::Unharmed
    } else if followed.output.code == 0 {
        let found = differences(wanted, &(case.normal)(&followed.output.stdout, c));
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
    walk_exec("exec", &PLAIN, Extent::Whole, &|| running(|_| {}));
}

#[test]
fn a_failing_call_in_an_exec_with_a_terminal_and_a_user_namespace() {
    let what = "exec with a terminal and a user namespace";
    walk_exec(what, &IN_TERMINAL, Extent::Sample(110), &|| {
        running(|config| {
            map_users(config);
            config["process"]["noNewPrivileges"] = serde_json::json!(false);
            config["process"]["oomScoreAdj"] = serde_json::json!(100);
        })
    });
}
