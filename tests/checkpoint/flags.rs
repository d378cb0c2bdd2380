//! The flags that hand CRIU what it can't save or restore by itself.

use std::os::unix::net::UnixDatagram;

use serde_json::json;

use crate::Counter;
use crate::support::{
    Container, Profile, Terminal, add_mount, args, drop_namespace, temp_dir, wait_gone,
};

#[test]
#[ignore = "needs CRIU: integration/test"]
fn connections_can_come_back_closed() {
    let mut c = Counter::new(&["count", "tcp"], |_| {});
    c.checkpoint(&["--tcp-established"]).ok();
    c.restore(&["--tcp-close"]);
    // its socket is one that has never been connected
    c.kill("USR1").ok();
    c.output.expect("EPIPE");
    assert_eq!(c.status(), "running");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_caller_that_waits_is_left_out() {
    let mut c = Counter::new(&["count", "queue"], |_| {});
    c.checkpoint(&[]).fails_with(&["In-flight connection", "dump.log"]);
    c.counts();
    c.checkpoint(&["--tcp-skip-in-flight"]).ok();
    c.restore(&[]);
    c.counts();
}

/// CRIU knows the sockets of the container's network namespace alone: the one outside has
/// to be in there. Its name leads to it again.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn datagrams_go_to_a_socket_outside_again() {
    let dir = temp_dir();
    let path = dir.path().join("socket");
    let path = path.to_str().unwrap();
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(crate::support::timeout())).unwrap();
    let heard = || {
        let mut byte = [0];
        socket.recv(&mut byte).unwrap();
        byte[0]
    };
    let mut c = Counter::new(&["count", "unix", path], |config| {
        drop_namespace(config, "network");
        let dir = dir.path().to_str().unwrap();
        add_mount(
            config,
            json!({"destination": dir, "type": "bind", "source": dir, "options": ["bind"]}),
        );
    });
    assert_eq!((heard(), heard()), (1, 2));
    c.checkpoint(&[]).fails_with(&["criu: ", "--ext-unix-sk", "dump.log"]);
    c.counts();
    assert_eq!(heard(), 3);
    c.there_and_back(&["--ext-unix-sk"]);
    assert_eq!(heard(), 4);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_file_that_has_lost_its_name_is_open_again() {
    let mut c = Counter::new(&["count", "unlinked", "/gone", "/kept"], |_| {});
    c.checkpoint(&[]).fails_with(&["criu: ", "link-remap", "dump.log"]);
    c.counts();
    c.there_and_back(&["--link-remap"]);
    let kept = std::fs::read_to_string(c.bundle.rootfs().join("kept")).unwrap();
    assert_eq!(kept, "4");
    // CRIU's own name for it has gone
    let names = std::fs::read_dir(c.bundle.rootfs()).unwrap().map(|f| f.unwrap().file_name());
    let names: Vec<_> = names.filter(|n| n.to_str().unwrap().contains("link_remap")).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn the_terminal_of_a_shell_is_another_one_afterwards() {
    let c = Container::new(|config| args(config, &["count"]));
    let images = c.bundle.path().join("images");
    let images = ["--image-path", images.to_str().unwrap()];
    let mut before = Terminal::new(24, 80);
    let running = before.attach(c.on_bundle("run", &[])).spawn();
    before.output.expect("READY");
    c.kill("USR1").ok();
    before.output.expect("COUNT 1");
    let words = [&images[..], &["--shell-job"]].concat();
    let refused = c.on_id("checkpoint", &images, &[]).run();
    refused.fails_with(&["descriptor 0", "terminal of the host", "--shell-job"]);
    c.on_id("checkpoint", &words, &[]).run().ok();
    running.wait().ends_with_code(128 + 9);
    // the terminal of whoever restores it, and of nobody without the flag
    let mut nobodys = Terminal::new(24, 80);
    nobodys.attach(c.on_bundle("restore", &images)).spawn().wait().ends_with_code(1);
    assert!(nobodys.output.line().contains("--shell-job"), "the reason");
    c.assert_gone();
    // a terminal is of no more use once its session has ended
    let mut after = Terminal::new(24, 80);
    let restored = after.attach(c.on_bundle("restore", &words)).spawn();
    wait_gone("the time before the restore", || {
        let is_there = !restored.ends_within(std::time::Duration::ZERO);
        assert!(is_there, "{}", after.output.line());
        let state = c.on_id("state", &[], &[]).run();
        state.code == 0 && state.json()["status"] == "running"
    });
    c.kill("USR1").ok();
    after.output.expect("COUNT 2");
    c.kill("TERM").ok();
    restored.wait().ends_with_code(2);
    c.assert_gone();
}

/// An address in the container's network namespace, which CRIU saves with it.
fn add_address(c: &Counter) {
    let pid = c.pid().to_string();
    let words = ["-t", &pid, "-n", "ip", "address", "add", "10.77.77.77/32", "dev", "lo"];
    assert!(std::process::Command::new("nsenter").args(words).status().unwrap().success());
}

fn has_address(c: &Counter) -> bool {
    c.exec(&[], &["interfaces"]).run().ok().stdout.contains("10.77.77.77")
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_network_comes_back_with_what_was_in_it_or_empty() {
    let mut c = Counter::new(&["count"], |_| {});
    add_address(&c);
    assert!(has_address(&c));
    c.there_and_back(&[]);
    assert!(has_address(&c));
    c.there_and_back(&["--empty-ns", "network"]);
    assert!(!has_address(&c));
}

/// CRIU 3.18 and newer know settings of cgroup2, older ones its directories alone.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn cgroups_come_back_as_the_mode_says() {
    let version = std::process::Command::new("criu").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let number = version.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap());
    let knows_settings = (parts.next(), parts.next()) >= (Some(3), Some(18));
    for (mode, is_there) in [("soft", true), ("full", true), ("ignore", false)] {
        let mut c = Counter::new(&["count"], |_| {});
        let below = c.cgroup().join("below");
        std::fs::create_dir(&below).unwrap();
        let setting = "cgroup.max.descendants";
        std::fs::write(below.join(setting), "7").unwrap();
        c.there_and_back(&["--manage-cgroups-mode", mode]);
        assert_eq!(below.is_dir(), is_there, "{mode}");
        if is_there && knows_settings {
            let text = std::fs::read_to_string(below.join(setting)).unwrap();
            assert_eq!(text.trim(), "7", "{mode}");
        }
    }
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn the_strict_mode_saves_and_is_no_way_to_restore() {
    let mut c = Counter::new(&["count"], |_| {});
    let strict = ["--manage-cgroups-mode", "strict"];
    c.checkpoint(&strict).ok();
    let images = c.images();
    let words = [&["--image-path", images.to_str().unwrap()], &strict[..]].concat();
    c.on_bundle("restore", &words).run().fails_with(&["--manage-cgroups-mode strict", "soft"]);
    c.assert_gone();
    c.restore(&[]);
    c.counts();
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_profile_comes_back_or_another_takes_its_place() {
    let rules = "file, capability, network, signal, ptrace,";
    let (Some(first), Some(second)) = (Profile::load(rules), Profile::load(rules)) else { return };
    let current = |c: &Counter| {
        let label = std::fs::read_to_string(format!("/proc/{}/attr/current", c.pid())).unwrap();
        label.trim_end_matches(['\0', '\n']).to_owned()
    };
    let mut c = Counter::new(&["count"], |config| {
        config["process"]["apparmorProfile"] = json!(first.name);
    });
    assert_eq!(current(&c), format!("{} (enforce)", first.name));
    c.there_and_back(&[]);
    assert_eq!(current(&c), format!("{} (enforce)", first.name));
    c.checkpoint(&[]).ok();
    c.restore(&["--lsm-profile", &format!("apparmor:{}", second.name)]);
    c.counts();
    assert_eq!(current(&c), format!("{} (enforce)", second.name));
    c.delete_by_force().ok();
}
