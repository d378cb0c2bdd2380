//! The words that callers of runc use, in all forms that they use: each is taken.
//! Commands are tried on a container that is not there, which is an answer of the
//! command's own; a word that is not known is an answer of the command line's.

use crate::support::{Container, Output, Tare, args, temp_dir};

/// What a flag takes.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Value(&'static str),
}
use Takes::{Nothing, Value};

/// Command, flag, its short form, and what it takes.
type Row = (&'static str, &'static str, Option<&'static str>, Takes);

const FLAGS: [Row; 109] = [
    ("create", "bundle", Some("b"), Value("/no/such/bundle")),
    ("create", "console-socket", None, Value("/no/socket")),
    ("create", "pidfd-socket", None, Value("/no/socket")),
    ("create", "pid-file", None, Value("/no/file")),
    ("create", "no-pivot", None, Nothing),
    ("create", "no-new-keyring", None, Nothing),
    ("create", "no-subreaper", None, Nothing),
    ("create", "preserve-fds", None, Value("1")),
    ("run", "bundle", Some("b"), Value("/no/such/bundle")),
    ("run", "console-socket", None, Value("/no/socket")),
    ("run", "pidfd-socket", None, Value("/no/socket")),
    ("run", "detach", Some("d"), Nothing),
    ("run", "keep", None, Nothing),
    ("run", "pid-file", None, Value("/no/file")),
    ("run", "no-subreaper", None, Nothing),
    ("run", "no-pivot", None, Nothing),
    ("run", "no-new-keyring", None, Nothing),
    ("run", "preserve-fds", None, Value("1")),
    ("exec", "console-socket", None, Value("/no/socket")),
    ("exec", "pidfd-socket", None, Value("/no/socket")),
    ("exec", "cwd", None, Value("/")),
    ("exec", "env", Some("e"), Value("A=b")),
    ("exec", "tty", Some("t"), Nothing),
    ("exec", "interactive", Some("i"), Nothing),
    ("exec", "user", Some("u"), Value("1:2")),
    ("exec", "additional-gids", Some("g"), Value("3")),
    ("exec", "process", Some("p"), Value("/no/file")),
    ("exec", "detach", Some("d"), Nothing),
    ("exec", "pid-file", None, Value("/no/file")),
    ("exec", "process-label", None, Value("label")),
    ("exec", "apparmor", None, Value("profile")),
    ("exec", "no-new-privs", None, Nothing),
    ("exec", "cap", Some("c"), Value("CAP_NET_RAW")),
    ("exec", "preserve-fds", None, Value("1")),
    ("exec", "cgroup", None, Value("/")),
    ("exec", "ignore-paused", None, Nothing),
    ("kill", "all", Some("a"), Nothing),
    ("delete", "force", Some("f"), Nothing),
    ("ps", "format", Some("f"), Value("json")),
    ("ps", "format", Some("f"), Value("table")),
    ("list", "format", Some("f"), Value("json")),
    ("list", "format", Some("f"), Value("table")),
    ("list", "quiet", Some("q"), Nothing),
    ("events", "interval", None, Value("5s")),
    ("events", "stats", None, Nothing),
    ("update", "resources", Some("r"), Value("-")),
    ("update", "blkio-weight", None, Value("10")),
    ("update", "cpu-period", None, Value("100000")),
    ("update", "cpu-quota", None, Value("-1")),
    ("update", "cpu-burst", None, Value("1000")),
    ("update", "cpu-rt-period", None, Value("1000")),
    ("update", "cpu-rt-runtime", None, Value("1000")),
    ("update", "cpu-share", None, Value("100")),
    ("update", "cpu-idle", None, Value("1")),
    ("update", "cpuset-cpus", None, Value("0")),
    ("update", "cpuset-mems", None, Value("0")),
    ("update", "memory", None, Value("64m")),
    ("update", "memory-reservation", None, Value("32m")),
    ("update", "memory-swap", None, Value("-1")),
    ("update", "pids-limit", None, Value("-1")),
    ("update", "l3-cache-schema", None, Value("L3:0=ff")),
    ("update", "mem-bw-schema", None, Value("MB:0=20")),
    ("checkpoint", "image-path", None, Value("/no/images")),
    ("checkpoint", "work-path", None, Value("/no/work")),
    ("checkpoint", "parent-path", None, Value("../before")),
    ("checkpoint", "leave-running", None, Nothing),
    ("checkpoint", "tcp-established", None, Nothing),
    ("checkpoint", "ext-unix-sk", None, Nothing),
    ("checkpoint", "shell-job", None, Nothing),
    ("checkpoint", "lazy-pages", None, Nothing),
    ("checkpoint", "status-fd", None, Value("-1")),
    ("checkpoint", "page-server", None, Value("127.0.0.1:1")),
    ("checkpoint", "file-locks", None, Nothing),
    ("checkpoint", "pre-dump", None, Nothing),
    ("checkpoint", "manage-cgroups-mode", None, Value("soft")),
    ("checkpoint", "empty-ns", None, Value("network")),
    ("checkpoint", "auto-dedup", None, Nothing),
    ("checkpoint", "link-remap", None, Nothing),
    ("checkpoint", "tcp-skip-in-flight", None, Nothing),
    ("restore", "console-socket", None, Value("/no/socket")),
    ("restore", "image-path", None, Value("/no/images")),
    ("restore", "work-path", None, Value("/no/work")),
    ("restore", "tcp-established", None, Nothing),
    ("restore", "ext-unix-sk", None, Nothing),
    ("restore", "shell-job", None, Nothing),
    ("restore", "file-locks", None, Nothing),
    ("restore", "manage-cgroups-mode", None, Value("full")),
    ("restore", "bundle", Some("b"), Value("/no/such/bundle")),
    ("restore", "detach", Some("d"), Nothing),
    ("restore", "pid-file", None, Value("/no/file")),
    ("restore", "no-subreaper", None, Nothing),
    ("restore", "no-pivot", None, Nothing),
    ("restore", "empty-ns", None, Value("network")),
    ("restore", "auto-dedup", None, Nothing),
    ("restore", "lazy-pages", None, Nothing),
    ("restore", "lsm-profile", None, Value("apparmor:profile")),
    ("restore", "lsm-mount-context", None, Value("label")),
    ("", "debug", None, Nothing),
    ("", "log", None, Value("/dev/null")),
    ("", "log-format", None, Value("json")),
    ("", "log-format", None, Value("text")),
    ("", "root", None, Value("/no/such/root")),
    ("", "systemd-cgroup", None, Nothing),
    ("", "rootless", None, Value("auto")),
    ("", "rootless", None, Value("false")),
    ("", "cgroup-manager", None, Value("cgroupfs")),
    ("", "cgroup-manager", None, Value("systemd")),
    ("", "log-level", None, Value("debug")),
    ("", "log-level", None, Value("warning")),
];

/// All the forms of a flag.
fn forms((_, long, short, takes): &Row) -> Vec<Vec<String>> {
    let names = [format!("--{long}"), format!("-{long}")];
    let names = names.into_iter().chain(short.map(|short| format!("-{short}")));
    let forms = names.flat_map(|name| match takes {
        Nothing => {
            let with = |value: &str| vec![format!("{name}={value}")];
            vec![vec![name.clone()], with("true"), with("false"), with("1")]
        }
        Value(value) => {
            vec![vec![name.clone(), (*value).to_owned()], vec![format!("{name}={value}")]]
        }
    });
    forms.collect()
}

#[track_caller]
fn assert_taken(words: &[String], output: &Output) {
    let said = &output.stderr;
    // what the command line says begins with "error:"
    let is_answer =
        output.code == 0 || !said.is_empty() && said.lines().all(|line| line.starts_with("tare: "));
    assert!(is_answer, "{words:?}: {output:#?}");
}

#[test]
fn every_flag_is_taken_in_every_form() {
    let tare = Tare::new();
    for row in &FLAGS {
        let command = if row.0.is_empty() { "state" } else { row.0 };
        for form in forms(row) {
            let mut words = vec![command.to_owned()];
            let at = if row.0.is_empty() { 0 } else { 1 };
            words.splice(at..at, form);
            if command != "list" {
                words.push("nobody".to_owned());
            }
            if command == "exec" {
                words.push("true".to_owned());
            }
            assert_taken(&words, &tare.command(&words).run());
        }
    }
}

#[test]
fn the_last_of_two_counts() {
    let c = Container::new(|config| args(config, &["wait"]));
    let _output = c.started();
    let root = c.tare.root().to_str().unwrap();
    let list = |words: &[&str]| c.tare.bare(words).run().ok().stdout;
    let ids = format!("{}\n", c.id);
    assert_eq!(list(&["--root", "/no/such", "--root", root, "list", "-q"]), ids);
    assert_eq!(list(&["-root", root, "list", "--format", "json", "-f", "table", "-q=1"]), ids);
    assert!(list(&["-root", root, "list", "-q", "-quiet=false"]).starts_with("ID "));
    c.on_id("delete", &["--force", "--force=false"], &[]).run().fails_with(&["not stopped"]);
    c.on_id("delete", &["-force"], &[]).run().ok();
    c.assert_gone();
}

#[test]
fn flags_may_come_after_the_id() {
    let c = Container::new(|config| args(config, &["wait"]));
    let bundle = c.bundle.path().to_str().unwrap();
    c.tare.command(["create", &c.id, "-bundle", bundle]).run().ok();
    c.tare.command(["start", &c.id]).run().ok();
    c.tare.command(["kill", &c.id, "KILL", "-all"]).run().ok();
    c.tare.command(["delete", &c.id, "-force"]).run().ok();
    c.assert_gone();
}

#[test]
fn the_words_of_a_program_are_its_own() {
    let c = Container::new(|config| args(config, &["wait"]));
    let _output = c.started();
    let said = |words: &[&str]| c.exec(&["-no-new-privs=false"], words).run().ok().stdout;
    assert_eq!(said(&["say", "-detach", "--tty=true", "-h"]), "-detach --tty=true -h\n");
}

#[test]
fn help_and_version_are_there_in_every_form() {
    let tare = Tare::new();
    for words in [&["-h"][..], &["-help"], &["--help"], &["help"], &["h"]] {
        let output = tare.bare(words).run().ok();
        assert!(output.stdout.contains("create") && output.stdout.contains("update"), "{words:?}");
    }
    for words in [&["-v"][..], &["-version"], &["--version"]] {
        let output = tare.bare(words).run().ok();
        assert!(output.stdout.starts_with("tare version "), "{words:?}: {output:?}");
    }
    for command in ["create", "exec", "update", "spec", "features"] {
        for words in [[command, "-h"], [command, "-help"], ["h", command], ["help", command]] {
            let output = tare.bare(words).run().ok();
            assert!(output.stdout.contains("Usage: "), "{words:?}: {output:?}");
        }
    }
}

#[test]
fn a_spec_for_an_ordinary_user_is_written_in_every_form() {
    for words in [["--rootless", "--bundle"], ["-rootless", "-bundle"], ["-rootless=true", "-b"]] {
        let dir = temp_dir();
        let path = dir.path().to_str().unwrap();
        Tare::new().bare([&["spec"], &words[..], &[path]].concat()).run().ok();
        let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(config.contains("uidMappings"), "{words:?}");
    }
}

#[test]
fn a_spec_goes_into_the_file_that_is_named() {
    let dir = temp_dir();
    let path = dir.path().to_str().unwrap();
    Tare::new().bare(["spec", "-b", path, "-f", "other.json"]).run().ok();
    let names: Vec<_> = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["other.json"]);
    Tare::new().bare(["spec", "-b", path, "--file=other.json"]).run().fails_with(&["it exists"]);
}

#[test]
fn a_container_without_a_cgroup_is_not_to_be_had() {
    let words = ["--cgroup-manager=disabled", "state", "x"];
    Tare::new().command(words).run().fails_with(&["--cgroup-manager=disabled"]);
}

#[test]
fn words_that_are_not_understood_are_in_the_log_as_well() {
    let dir = temp_dir();
    let log = dir.path().join("log");
    let log = log.to_str().unwrap();
    let words = ["--log", log, "--log-format", "json", "create", "--frobnicate", "x"];
    let output = Tare::new().command(words).run();
    assert_eq!(output.code, 1);
    let text = std::fs::read_to_string(log).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "unexpected argument '--frobnicate' found");
}
