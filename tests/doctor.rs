//! `tare doctor`: what it says agrees with what a test sees for itself, and
//! nothing is left of its trials.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Container, Output, Tare, Terminal, Traces, args, cgroup2_mount, copy_program, temp_dir,
};

/// The report of `tare doctor --json` on this host.
fn report() -> Value {
    let tare = Tare::new();
    let output = tare.command(["doctor", "--json"]).run();
    let report = output.json();
    let usable = report["summary"]["usable"].as_bool().unwrap();
    output.ends_with_code(i32::from(!usable));
    report
}

/// One check of a report.
#[track_caller]
fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let groups = report["groups"].as_array().unwrap().iter();
    let mut all = groups.flat_map(|group| group["checks"].as_array().unwrap());
    all.find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

/// tare's command line behind that of another program.
fn behind(program: &str, words: &[&str], tare: &[&str]) -> Output {
    let output = Command::new(program)
        .args(words)
        .arg(env!("CARGO_BIN_EXE_tare"))
        .args(tare)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output {
        line: program.to_owned(),
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

#[test]
fn the_json_has_its_shape() {
    let report = report();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&report), ["groups", "summary"]);
    assert_eq!(keys(&report["summary"]), ["blocked_by", "missing_limits", "text", "usable"]);
    for group in report["groups"].as_array().unwrap() {
        assert_eq!(keys(group), ["checks", "id", "title"]);
        for check in group["checks"].as_array().unwrap() {
            assert_eq!(keys(check), ["detail", "hint", "id", "required", "status", "title"]);
            let status = check["status"].as_str().unwrap();
            assert!(["ok", "fallback", "missing", "info"].contains(&status), "{check}");
            assert!(check["hint"].is_null() || check["hint"].is_string(), "{check}");
            let says_why = status == "ok" || !check["detail"].as_str().unwrap().is_empty();
            assert!(says_why, "{check}");
        }
    }
}

#[test]
fn usable_means_that_a_container_runs() {
    let report = report();
    let c = Container::new(|c| args(c, &["exit", "0"]));
    assert_eq!(report["summary"]["usable"], c.run().code == 0, "{}", report["summary"]);
    c.assert_gone();
}

#[test]
fn limits_are_those_of_the_hierarchy() {
    let report = report();
    let path = cgroup2_mount().join("cgroup.controllers");
    let available = std::fs::read_to_string(&path).unwrap();
    let old = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut missing = Vec::new();
    for name in ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc"] {
        let found = check(&report, name);
        let there = available.split_whitespace().any(|controller| controller == name);
        assert_eq!(found["status"] == "ok", there, "{found}");
        let old_name = if name == "io" { "blkio" } else { name };
        let is_old = old.lines().any(|line| {
            line.split(':').nth(1).unwrap().split(',').any(|controller| controller == old_name)
        });
        if is_old {
            assert!(found["detail"].as_str().unwrap().contains("cgroup v1"), "{found}");
            assert!(found["hint"].as_str().unwrap().contains("unified_cgroup_hierarchy"));
        }
        if found["status"] == "missing" {
            missing.push(Value::from(name));
        }
    }
    assert_eq!(report["summary"]["missing_limits"].as_array().unwrap(), &missing);
}

#[test]
fn kernel_and_namespaces_are_those_of_this_host() {
    let report = report();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let found = check(&report, "release");
    assert!(found["detail"].as_str().unwrap().contains(release.trim()), "{found}");
    for (id, option) in [("mount", "-m"), ("pid", "-p"), ("network", "-n"), ("user", "-U")] {
        let made = Command::new("unshare").args([option, "-f", "true"]).status().unwrap();
        assert_eq!(
            check(&report, &format!("{id}-namespace"))["status"] == "ok",
            made.success(),
            "{id}"
        );
    }
    let found = check(&report, "apparmor")["detail"].as_str().unwrap();
    let there = Path::new("/sys/module/apparmor").exists();
    assert_eq!(!found.starts_with("not in this kernel"), there, "{found}");
}

#[test]
fn what_tare_does_not_use_is_information() {
    let report = report();
    for group in ["later", "rootless"] {
        let groups = report["groups"].as_array().unwrap();
        let group = groups.iter().find(|found| found["id"] == group).unwrap();
        for check in group["checks"].as_array().unwrap() {
            assert_eq!((&check["status"], &check["required"]), (&"info".into(), &false.into()));
        }
    }
}

#[test]
fn a_state_root_that_can_not_be_written_is_the_obstacle() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let root = file.join("state");
    let words = ["--root", root.to_str().unwrap(), "doctor", "--json"];
    let report = Tare::new().bare(words).run().ends_with_code(1).json();
    assert_eq!(report["summary"]["blocked_by"], serde_json::json!(["state-root"]));
    let found = check(&report, "state-root");
    assert!(found["detail"].as_str().unwrap().contains("not a directory"), "{found}");
    assert!(found["hint"].as_str().unwrap().contains("--root"), "{found}");
    assert_eq!(report["summary"]["usable"], false);
}

#[test]
fn a_pipe_gets_plain_text_of_80_columns() {
    let output = Tare::new().command(["doctor"]).env("TERM", "xterm").run().ok();
    assert_eq!(output.stderr, "");
    assert!(!output.stdout.contains('\x1b'));
    for line in output.stdout.lines() {
        // a path may be longer than a line
        let long_word = line.split_whitespace().any(|word| word.len() > 50);
        assert!(line.chars().count() <= 80 || long_word, "{line}");
    }
    assert!(output.stdout.lines().last().is_some_and(|line| !line.is_empty()));
    assert!(output.stdout.contains("\ncontainers run here"), "{}", output.stdout);
}

#[test]
fn a_terminal_gets_colours_if_its_user_wants_them() {
    for (term, no_color, coloured) in
        [("xterm", "", true), ("dumb", "", false), ("xterm", "1", false)]
    {
        let mut terminal = Terminal::new(24, 80);
        let tare = Tare::new();
        let command = tare.command(["doctor"]).env("TERM", term).env("NO_COLOR", no_color);
        let running = terminal.attach(command).spawn();
        let mut text = String::new();
        while let Some(line) = terminal.output.try_line() {
            text.push_str(&line);
            if line.contains("containers run here") {
                break;
            }
        }
        assert_eq!(text.contains("\x1b["), coloured, "{term} {no_color:?}: {text}");
        running.wait().ok();
    }
}

#[test]
fn nothing_stays_behind() {
    let tare = Tare::new();
    let store = temp_dir();
    let words = ["--store", store.path().to_str().unwrap(), "doctor"];
    let running = tare.command(words).spawn();
    // in the name of all that it makes
    let names = ["tare-doctor.", "tare-doctor~"].map(|name| format!("{name}{}", running.pid()));
    running.wait().ok();
    let traces = Traces::of(&tare, &[&names[0], &names[1], store.path().to_str().unwrap()]);
    assert!(traces.is_empty(), "{traces:#?}");
    assert_eq!(support::below(store.path()), Vec::<PathBuf>::new());
}

#[test]
fn without_cgroup2_it_says_how_to_get_it() {
    let script = "umount --all --lazy --types cgroup2 && exec \"$@\"";
    let words = ["-m", "--propagation", "private", "sh", "-c", script, "sh"];
    let output = behind("unshare", &words, &["doctor", "--json"]).ends_with_code(1);
    let report = output.json();
    assert_eq!(report["summary"]["blocked_by"], serde_json::json!(["cgroup2"]));
    let hint = check(&report, "cgroup2")["hint"].as_str().unwrap();
    assert!(hint.contains("mount -t cgroup2"), "{hint}");
    // what could not be tried is no second reason
    let found = check(&report, "device-rules");
    assert!(found["detail"].as_str().unwrap().starts_with("not tried: "), "{found}");
    assert!(found["hint"].is_null());
}

#[test]
fn a_kernel_without_a_call_is_recognised() {
    for (call, id) in
        [("openat2", "openat2"), ("mount_setattr", "mount-setattr"), ("bpf", "device-rules")]
    {
        let inject = format!("inject={call}:error=ENOSYS");
        let filter = format!("trace={call}");
        let words = ["-f", "-o", "/dev/null", "-e", &filter, "-e", &inject];
        let report = behind("strace", &words, &["doctor", "--json"]).ends_with_code(1).json();
        assert_eq!(report["summary"]["blocked_by"], serde_json::json!([id]));
        let hint = check(&report, id)["hint"].as_str().unwrap();
        assert!(hint.starts_with("boot "), "{hint}");
    }
    let words = ["-f", "-o", "/dev/null", "-e", "trace=keyctl", "-e", "inject=keyctl:error=ENOSYS"];
    let report = behind("strace", &words, &["doctor", "--json"]).ok().json();
    assert_eq!(check(&report, "keyring")["status"], "fallback");
}

#[test]
fn an_ordinary_user_learns_what_he_has() {
    // a path that every user can walk
    let dir = temp_dir();
    let copy = dir.path().join("tare");
    copy_program(env!("CARGO_BIN_EXE_tare").as_ref(), &copy);
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command
    };
    let namespaces = as_nobody().args(["unshare", "-U", "true"]).status().unwrap().success();
    let output = as_nobody()
        .arg(&copy)
        .args(["--root", own.join("state").to_str().unwrap()])
        .args(["--store", own.join("store").to_str().unwrap()])
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!namespaces)), "{report:#}");
    assert_eq!(report["summary"]["usable"], namespaces);
    assert_eq!(check(&report, "user")["status"] == "ok", namespaces);
    assert_eq!(check(&report, "device-rules")["status"], "info");
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0, "something was made");
}

#[test]
fn a_capability_that_is_lacking_is_named() {
    let words = ["--bounding-set=-mknod", "--inh-caps=-mknod"];
    let report = behind("setpriv", &words, &["doctor", "--json"]).ends_with_code(1).json();
    let found = check(&report, "capabilities");
    assert!(found["detail"].as_str().unwrap().contains("CAP_MKNOD"), "{found}");
    assert_eq!(check(&report, "devices")["status"], "missing");
}

#[test]
fn a_program_that_hangs_is_not_waited_for() {
    let dir = temp_dir();
    let criu = dir.path().join("criu");
    std::fs::write(&criu, "#!/bin/sh\nsleep 600 & wait\n").unwrap();
    std::fs::set_permissions(&criu, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let started = Instant::now();
    let tare = Tare::new();
    let report = tare.command(["doctor", "--json"]).env("PATH", &path).run().json();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let found = check(&report, "criu");
    assert!(found["detail"].as_str().unwrap().contains("no answer"), "{found}");
    // its children neither
    let left = Traces::named(&[criu.to_str().unwrap()]);
    assert!(left.is_empty(), "{left:#?}");
}
