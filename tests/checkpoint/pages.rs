//! Memory that goes another way than into the images at once.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Counter;
use crate::support::{Container, Invocation, args, dup_to, is_readable, pipe, timeout};

/// The descriptor that is told when something is ready.
const STATUS: i32 = 300;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The reading end of a pipe, and how to give the other one to a command.
struct Status {
    reader: std::fs::File,
    writer: OwnedFd,
}

impl Status {
    fn new() -> Self {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        Status { reader: reader.into(), writer }
    }

    /// Waits for the NUL.
    #[track_caller]
    fn expect(mut self) {
        drop(self.writer);
        assert!(is_readable(&self.reader, timeout()), "nothing is ready");
        let mut byte = [1];
        assert_eq!((self.reader.read(&mut byte).unwrap(), byte), (1, [0]));
    }
}

/// One of CRIU's own programs, told where the images are; ready when this returns.
struct Server(Child);

impl Server {
    fn new(words: &[&str], images: &Path) -> Self {
        let status = Status::new();
        let log = std::fs::File::create(images.join("server.log")).unwrap();
        let mut command = Command::new("criu");
        command.args(words).arg("--images-dir").arg(images);
        command.args(["--status-fd", &STATUS.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let writer = status.writer.as_raw_fd();
        // SAFETY: one system call.
        unsafe { command.pre_exec(move || dup_to(writer, STATUS)) };
        let server = Server(command.spawn().unwrap());
        status.expect();
        server
    }

    #[track_caller]
    fn ends_well(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn with_status(command: Invocation, status: &Status) -> Invocation {
    let writer = status.writer.as_raw_fd();
    // SAFETY: one system call.
    unsafe { command.before_exec(move || dup_to(writer, STATUS)) }
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_page_server_takes_the_memory() {
    let mut c = Counter::new(&["count"], |_| {});
    let port = free_port().to_string();
    std::fs::create_dir(c.images()).unwrap();
    let server =
        Server::new(&["page-server", "--address", "127.0.0.1", "--port", &port], &c.images());
    c.checkpoint(&["--page-server", &format!("127.0.0.1:{port}")]).ok();
    server.ends_well();
    c.restore(&[]);
    c.counts();
}

/// The container stands still, and is ended when another one has all of its memory.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn memory_comes_when_it_is_asked_for() {
    let c = Counter::new(&["count"], |_| {});
    let images = c.images();
    let images = images.to_str().unwrap();
    let port = free_port().to_string();
    let server = format!("127.0.0.1:{port}");
    let number = STATUS.to_string();
    let flags = ["--lazy-pages", "--page-server", &server, "--status-fd", &number];
    let words = [&["--image-path", images][..], &flags].concat();
    let status = Status::new();
    let saving = with_status(c.on_id("checkpoint", &words, &[]), &status).spawn();
    status.expect();
    let ask = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port];
    let words = [&ask[..], &["--work-dir", images]].concat();
    let server = Server::new(&words, Path::new(images));
    let twin = Container::new(|config| args(config, &["count"]));
    let (output, writer) = pipe();
    let words = ["--detach", "--lazy-pages", "--image-path", images];
    twin.on_bundle("restore", &words).stdout(writer).run().ok();
    let mut twin = Counter { container: twin, output, count: 2 };
    twin.counts();
    saving.wait().ok();
    server.ends_well();
    twin.counts();
    c.on_id("state", &[], &[]).run().fails_with(&["does not exist"]);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn what_is_saved_twice_is_taken_out_of_the_parent() {
    let mut c = Counter::new(&["count"], |_| {});
    let before = c.bundle.path().join("before");
    let words = ["--pre-dump", "--image-path", before.to_str().unwrap()];
    c.on_id("checkpoint", &words, &[]).run().ok();
    let blocks = || -> u64 {
        let files = std::fs::read_dir(&before).unwrap().map(Result::unwrap);
        let pages = files.filter(|f| f.file_name().to_str().unwrap().starts_with("pages-"));
        pages.map(|f| f.metadata().unwrap().blocks()).sum()
    };
    let all = blocks();
    c.counts();
    c.checkpoint(&["--parent-path", "../before", "--auto-dedup"]).ok();
    assert!(blocks() < all, "{} of {all}", blocks());
    c.restore(&[]);
    c.counts();
}
