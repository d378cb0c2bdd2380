//! The log: lines that engines read, and what they say of a failure.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Container, Tare, args, temp_dir};

/// A log file, and a runtime that writes it.
struct Logged {
    tare: Tare,
    file: PathBuf,
    _dir: TempDir,
}

impl Logged {
    fn new(options: &[&str]) -> Self {
        let dir = temp_dir();
        let file = dir.path().join("log");
        let tare = Tare::new().with(&["--log", file.to_str().unwrap()]).with(options);
        Logged { tare, file, _dir: dir }
    }

    fn json() -> Self {
        Logged::new(&["--log-format", "json"])
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn entries(&self) -> Vec<Value> {
        let lines = self.lines();
        lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn of_level(&self, level: &str) -> Vec<Value> {
        self.entries().into_iter().filter(|entry| entry["level"] == level).collect()
    }
}

#[test]
fn errors_go_into_the_log_as_json() {
    let log = Logged::json();
    for n in 1..=2 {
        let output = log.tare.command(["state", "nobody"]).run();
        let output = output.fails_with(&["does not exist"]);
        let entries = log.of_level("error");
        // appended: the callers read the last one
        assert_eq!(entries.len(), n, "{entries:?}");
        let entry = entries.last().unwrap();
        assert_eq!(entry["level"], "error");
        let message = entry["msg"].as_str().unwrap();
        assert!(output.stderr.contains(message), "{message} / {}", output.stderr);
        let time = entry["time"].as_str().unwrap();
        let date = std::process::Command::new("date").args(["--date", time]).output();
        assert!(date.unwrap().status.success() && time.contains('T'), "{entry}");
    }
}

#[test]
fn errors_with_quotes_stay_json() {
    let log = Logged::json();
    let c = Container::under(&log.tare, |config| {
        config["process"]["args"] = json!(["no\"such\\thing\n"]);
    });
    c.on_bundle("create", &[]).run().ends_with_code(1);
    assert_eq!(log.of_level("error").len(), 1);
}

#[test]
fn errors_go_into_the_log_as_text() {
    let log = Logged::new(&[]);
    let output = log.tare.command(["state", "nobody"]).run();
    output.fails_with(&["does not exist"]);
    let lines = log.lines();
    let line = lines.last().unwrap();
    let end = "level=error msg=\"state nobody: container does not exist\" \
               step=\"state nobody\"";
    assert!(line.starts_with("time=\"") && line.ends_with(end), "{line}");
}

#[test]
fn a_success_logs_no_error() {
    let log = Logged::new(&["--log-format", "json", "--debug"]);
    let c = Container::under(&log.tare, |c| args(c, &["exit", "0"]));
    c.run();
    for entry in log.entries() {
        assert_ne!(entry["level"], "error", "{entry}");
    }
}

#[test]
fn a_start_that_fails_is_in_the_log_too() {
    let log = Logged::json();
    let c = Container::under(&log.tare, |c| c["process"]["args"] = json!(["/script"]));
    let script = c.bundle.rootfs().join("script");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    c.on_bundle("create", &[]).run().ok();
    c.start().fails_with(&["no such file or directory"]);
    let entry = log.entries().pop().unwrap();
    assert!(entry["msg"].as_str().unwrap().contains("no such file or directory"));
}

#[test]
fn an_error_has_its_parts_beside_its_line() {
    let log = Logged::json();
    let c = Container::under(&log.tare, |config| {
        crate::support::add_mount(
            config,
            json!({"destination": "/data", "source": "/no/such/source", "options": ["bind"]}),
        );
    });
    c.on_bundle("create", &[]).run().ends_with_code(1);
    let error = log.of_level("error").pop().unwrap();
    let message = error["msg"].as_str().unwrap();
    let step = error["step"].as_str().unwrap();
    assert!(step.starts_with(&format!("create {}: ", c.id)), "{error}");
    assert!(message.starts_with(&format!("{step}: ")), "{error}");
    assert_eq!(error["path"], "/data", "{error}");
    log.tare.command(["update", "--resources", "/no/such file", "x"]).run().ends_with_code(1);
    let error = log.of_level("error").pop().unwrap();
    assert_eq!(error["errno"], "ENOENT", "{error}");
    assert_eq!(error["path"], "/no/such file", "{error}");
}

#[test]
fn what_was_done_is_told_only_of_a_failure() {
    let log = Logged::json();
    let c = Container::under(&log.tare, |config| args(config, &["exit", "0"]));
    c.run().ok();
    assert_eq!(log.lines(), Vec::<String>::new());
    log.tare.command(["state", "nobody"]).run().ends_with_code(1);
    let entries = log.entries();
    let (error, before) = entries.split_last().unwrap();
    assert_eq!(error["level"], "error");
    assert!(!before.is_empty() && before.iter().all(|entry| entry["level"] == "debug"));
    // with --debug each step is told in any case
    log.tare.command(["--debug", "list"]).run().ok();
    assert!(log.of_level("debug").len() > before.len());
}

#[test]
fn a_log_of_failures_without_end_stays_readable() {
    const MOST: u64 = 1 << 20;
    let log = Logged::json();
    // what others have failed with before
    let line = json!({"level": "error", "msg": "x".repeat(1000), "time": "2030-01-01T00:00:00Z"});
    std::fs::write(&log.file, format!("{line}\n").repeat(1020)).unwrap();
    let before = std::fs::metadata(&log.file).unwrap().len();
    assert!(before > MOST);
    let many: Vec<_> =
        (0..8).map(|n| log.tare.command(["state", &format!("nobody-{n}")]).spawn()).collect();
    many.into_iter().for_each(|state| drop(state.wait()));
    assert!(std::fs::metadata(&log.file).unwrap().len() < MOST / 2);
    // every line is whole, and those of this run are all there
    let errors = log.of_level("error");
    for n in 0..8 {
        let ours = |entry: &&Value| entry["step"] == format!("state nobody-{n}");
        assert_eq!(errors.iter().filter(ours).count(), 1, "{n}");
    }
    let names = std::fs::read_dir(log.file.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_says_so() {
    let dir = temp_dir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, text) in [
        (dir.path().join("no/such/log"), "no such file or directory"),
        (dir.path().to_owned(), "is a directory"),
        // its opening would wait for a reader
        (fifo, "nobody reads the fifo"),
    ] {
        let path = path.to_str().unwrap();
        let output = Tare::new().with(&["--log", path]).command(["list"]).run();
        output.fails_with(&[&format!("--log {path}: "), text]);
    }
}

#[test]
fn a_log_may_be_a_fifo() {
    let dir = temp_dir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK;
    let reader = nix::fcntl::open(&fifo, flags, nix::sys::stat::Mode::empty()).unwrap();
    let tare = Tare::new().with(&["--log", fifo.to_str().unwrap()]);
    tare.command(["state", "nobody"]).run().ends_with_code(1);
    let text = crate::support::Pipe::new(reader).rest();
    assert!(text.contains("level=error msg=\"state nobody: "), "{text}");
}

#[test]
fn a_log_may_be_stderr_even_if_that_is_a_socket() {
    use std::io::Read;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let tare = Tare::new().with(&["--log", "/dev/stderr", "--log-format", "json"]);
    tare.command(["state", "nobody"]).stderr(theirs).run();
    let mut text = String::new();
    ours.set_read_timeout(Some(crate::support::timeout())).unwrap();
    ours.read_to_string(&mut text).unwrap();
    assert!(text.contains(r#""level":"error""#), "{text}");
}

#[test]
fn a_log_that_is_a_link_stays_one() {
    let log = Logged::json();
    let link = log.file.with_file_name("link");
    std::os::unix::fs::symlink("log", &link).unwrap();
    let line = json!({"level": "info", "msg": "x".repeat(1000), "time": "2030-01-01T00:00:00Z"});
    std::fs::write(&log.file, format!("{line}\n").repeat(1100)).unwrap();
    let tare = Tare::new().with(&["--log", link.to_str().unwrap(), "--log-format", "json"]);
    tare.command(["state", "nobody"]).run().ends_with_code(1);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(log.of_level("error").len(), 1);
    assert!(log.of_level("info").len() < 300);
}
