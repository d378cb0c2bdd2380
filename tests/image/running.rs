//! `run --image`: an image as a container, and what stays of it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::layout::{HOST, Layout, Scene, dir, file, layer, listing};
use crate::support::{Invocation, Output, Tare, Traces, pipe, probe, unique_id, wait_gone};

/// An image whose program is the probe, with a user, a directory, an
/// environment; in a store of its own.
struct Image {
    scene: Scene,
    tare: Tare,
    id: String,
}

impl Image {
    fn new() -> Self {
        let scene = Scene::new();
        let mut program = file("probe", "").mode(0o755);
        program.data = std::fs::read(probe()).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n";
        let group = "root:x:0:\nann:x:1001:\nwheel:x:10:ann\n";
        let layers = [
            layer(&[dir("./"), program, dir("etc"), file("etc/passwd", passwd)], "gzip"),
            layer(&[dir("etc"), file("etc/group", group), dir("srv").owner(1000, 1001)], "none"),
            layer(&[dir("srv").owner(1000, 1001), file("srv/note", "from layer 3")], "gzip"),
        ];
        let mut layout = Layout::new(&scene.path("oci"));
        let config = json!({
            "Entrypoint": ["/probe"], "Cmd": ["report"],
            "Env": ["PATH=/bin", "COLOUR=red"], "WorkingDir": "/srv", "User": "ann",
        });
        let image = layout.image(&layers, HOST, config);
        let path = layout.tag(image, "box").finish();
        scene.import(&path);
        Image { scene, tare: Tare::new(), id: unique_id() }
    }

    fn command(&self, flags: &[&str], args: &[&str]) -> Invocation {
        let store = self.scene.path("store");
        let mut words = vec!["run", "--image", "box"];
        words.extend(flags);
        words.extend([self.id.as_str(), "--"]);
        words.extend(args);
        self.tare.with(&["--store", store.to_str().unwrap()]).command(words)
    }

    fn run(&self, flags: &[&str], args: &[&str]) -> Output {
        self.command(flags, args).run()
    }

    fn report(&self, flags: &[&str]) -> Value {
        self.run(flags, &[]).ok().json()
    }

    /// The directories of containers in the store.
    fn containers(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.scene.path("store/containers"));
        all.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    fn delete(&self) -> Output {
        let store = self.scene.path("store");
        let tare = self.tare.with(&["--store", store.to_str().unwrap()]);
        tare.command(["delete", "--force", &self.id]).run()
    }

    /// Nothing of the container on the host, nothing of it in the store.
    #[track_caller]
    fn assert_gone(&self) {
        let traces = Traces::of(&self.tare, &[&self.id, self.scene.dir.path().to_str().unwrap()]);
        assert!(traces.is_empty(), "left behind: {traces:#?}");
        assert_eq!(self.containers(), Vec::<PathBuf>::new());
        let held = std::fs::read_dir(self.scene.path("store/refs")).into_iter().flatten();
        assert_eq!(held.count(), 0, "the image counts as in use");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.delete();
    }
}

#[test]
fn the_images_config_is_the_program() {
    let image = Image::new();
    let report = image.report(&[]);
    assert_eq!(report["args"], json!(["/probe", "report"]));
    assert_eq!(report["cwd"], "/srv");
    assert_eq!(report["uids"]["effective"], 1000, "{}", report["uids"]);
    assert_eq!(report["gids"]["effective"], 1001, "{}", report["gids"]);
    assert_eq!(report["groups"], json!([10]));
    let env = report["env"].as_array().unwrap();
    for variable in ["PATH=/bin", "COLOUR=red", "HOME=/home/ann"] {
        assert!(env.contains(&json!(variable)), "no {variable}: {env:?}");
    }
    assert_eq!(report["hostname"].as_str().unwrap(), &image.id[..image.id.len().min(64)]);
    let mounts = report["mounts"].as_array().unwrap();
    let root = mounts.iter().find(|m| m["target"] == "/").unwrap();
    assert_eq!(root["fstype"], "overlay");
    image.assert_gone();
}

#[test]
fn the_command_line_wins() {
    let image = Image::new();
    let shared = image.scene.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from outside").unwrap();
    let volume = format!("{}:/mnt/shared:ro", shared.display());
    let flags = [
        "--env",
        "COLOUR=blue",
        "--env",
        "SIZE=10",
        "--workdir",
        "/etc",
        "--user",
        "0:0",
        "--hostname",
        "elsewhere",
        "--net",
        "host",
        "--volume",
        &volume,
    ];
    let report = image.report(&flags);
    assert_eq!(report["cwd"], "/etc");
    assert_eq!(report["uids"]["effective"], 0);
    assert_eq!(report["hostname"], "elsewhere");
    let env = report["env"].as_array().unwrap();
    for variable in ["COLOUR=blue", "SIZE=10"] {
        assert!(env.contains(&json!(variable)), "no {variable}: {env:?}");
    }
    assert!(!env.contains(&json!("COLOUR=red")));
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(report["namespaces"]["net"], host.to_str().unwrap());
    let words = ["each", "read /mnt/shared/file", "create /mnt/shared/new x"];
    let output = image.run(&["--volume", &volume], &words);
    assert_eq!(output.stdout, "from outside\nEROFS\n");
    image.assert_gone();
}

#[test]
fn changes_are_the_containers_and_go_with_it() {
    let image = Image::new();
    let before = listing(&image.scene.path("store/layers"));
    let words = ["each", "create /srv/new x", "write /srv/note FROM", "read /srv/note"];
    let output = image.run(&["--user", "0"], &words);
    assert_eq!(output.stdout, "ok\nok\nFROM layer 3\n");
    let again = image.run(&[], &["each", "read /srv/note", "list /srv"]);
    assert_eq!(again.stdout, "from layer 3\n[\"note\"]\n");
    assert_eq!(listing(&image.scene.path("store/layers")), before);
    image.assert_gone();
}

#[test]
fn a_read_only_root_takes_no_changes() {
    let image = Image::new();
    let words = ["each", "create /srv/new x", "create /dev/shm/new x"];
    let output = image.run(&["--read-only", "--user", "0"], &words);
    assert_eq!(output.stdout, "EROFS\nok\n");
}

#[test]
fn while_it_runs_the_host_has_no_mount_of_it_and_the_image_stays() {
    let image = Image::new();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (mut output, writer) = pipe();
    image.command(&["--detach"], &["wait"]).stdout(writer).run().ok();
    while output.line() != "READY" {}
    let now = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = image.scene.dir.path().to_str().unwrap();
    assert!(!now.contains(place), "{now}");
    assert_eq!(now.matches(" overlay ").count(), before.matches(" overlay ").count());
    assert_eq!(image.containers().len(), 1);
    let refused = image.scene.fails(&["image", "rm", "box"]);
    assert!(refused.contains("in use"), "{refused}");
    image.delete().ok();
    image.assert_gone();
    image.scene.ok(&["image", "rm", "box"]);
    image.scene.assert_store_is_empty();
}

#[test]
fn its_directory_has_the_config_and_what_it_changes() {
    let image = Image::new();
    let (mut output, writer) = pipe();
    let words = ["each", "create /srv/new x", "wait"];
    image.command(&["--detach", "--user", "0"], &words).stdout(writer).run().ok();
    while output.line() != "READY" {}
    let [at] = image.containers().try_into().unwrap();
    let state = image.tare.command(["state", &image.id]).run().ok().json();
    assert_eq!(state["bundle"], at.to_str().unwrap());
    let config = std::fs::read(at.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["process"]["args"], json!(["/probe", "each", "create /srv/new x", "wait"]));
    let root = at.join(config["root"]["path"].as_str().unwrap());
    assert_eq!(state["rootfs"], root.to_str().unwrap());
    assert_eq!(std::fs::read(root.join("srv/new")).unwrap(), b"x");
    // the kernel's mark of a volatile overlay is no part of it any more
    let work = at.join("work/work");
    assert!(work.is_dir() && !work.join("incompat").exists());
    image.delete().ok();
    image.assert_gone();
}

#[test]
fn a_checkpoint_is_refused_before_anything_is_made() {
    let image = Image::new();
    let (mut output, writer) = pipe();
    image.command(&["--detach"], &["wait"]).stdout(writer).run().ok();
    while output.line() != "READY" {}
    let images = image.scene.path("images");
    let words = ["checkpoint", "--image-path", images.to_str().unwrap(), &image.id];
    let refused = image.tare.command(words).run();
    refused.fails_with(&[&image.id, "run --image", "tare unpack makes a bundle"]);
    assert!(!images.exists());
    let state = image.tare.command(["state", &image.id]).run().ok().json();
    assert_eq!(state["status"], "running");
    image.delete().ok();
    image.assert_gone();
}

#[test]
fn what_fails_before_the_program_runs_leaves_nothing() {
    let image = Image::new();
    image.run(&["--env", "X=1", "--user", "nobody-here"], &[]).fails_with(&["nobody-here"]);
    image.assert_gone();
    image.run(&["--volume", "/no/such/place:/mnt"], &[]).fails_with(&["/no/such/place"]);
    image.assert_gone();
    image.run(&["--memory", "much"], &[]).fails_with(&["--memory", "much"]);
    image.run(&["--cpus", "0"], &[]).fails_with(&["--cpus", "0"]);
    image.assert_gone();
}

#[test]
fn an_id_that_is_taken_is_refused_and_its_owner_stays() {
    let image = Image::new();
    let (mut output, writer) = pipe();
    image.command(&["--detach"], &["wait"]).stdout(writer).run().ok();
    while output.line() != "READY" {}
    image.run(&[], &["exit", "0"]).fails_with(&[&image.id, "exists"]);
    assert_eq!(image.containers().len(), 1);
    image.delete().ok();
    image.assert_gone();
}

#[test]
fn a_run_that_was_killed_is_cleaned_up_by_delete() {
    let image = Image::new();
    let (mut output, writer) = pipe();
    let running = image.command(&[], &["wait"]).stdout(writer).spawn();
    while output.line() != "READY" {}
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait().ends_with_code(137);
    assert_eq!(image.containers().len(), 1);
    image.delete().ok();
    wait_gone("the container", || image.containers().is_empty());
    image.assert_gone();
}

#[test]
fn the_exit_code_is_the_programs() {
    let image = Image::new();
    image.run(&[], &["exit", "7"]).ends_with_code(7);
    image.assert_gone();
}

#[test]
fn a_layout_runs_without_being_imported_by_hand() {
    let image = Image::new();
    let other = Scene::new();
    let store = other.path("store");
    let tare = image.tare.with(&["--store", store.to_str().unwrap()]);
    let layout = image.scene.path("oci");
    let words = ["run", "--image", layout.to_str().unwrap(), &image.id, "--", "say", "hello"];
    let output = tare.command(words).run();
    assert_eq!(output.ok().stdout, "hello\n");
}

#[test]
fn a_volume_begins_with_what_the_image_has_there() {
    let scene = Scene::new();
    let mut program = file("probe", "").mode(0o755);
    program.data = std::fs::read(probe()).unwrap();
    let inside = file("data/note", "from the image").owner(5, 6).mode(0o640);
    let layers = [
        layer(&[dir("./"), program, dir("data").owner(7, 8).mode(0o1770), inside], "gzip"),
        layer(&[dir("data").owner(7, 8).mode(0o1770), file("data/sub", "upper")], "none"),
    ];
    let mut layout = Layout::new(&scene.path("oci"));
    let volumes = json!({"/data": {}, "/new": {}});
    let image = layout.image(&layers, HOST, json!({"Entrypoint": ["/probe"], "Volumes": volumes}));
    scene.import(&layout.tag(image, "box").finish());
    let image = Image { scene, tare: Tare::new(), id: unique_id() };
    let words = [
        "each",
        "stat /data",
        "stat /data/note",
        "read /data/note",
        "read /data/sub",
        "create /new/file x",
        "list /new",
    ];
    let output = image.run(&[], &words).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    for (line, mode, uid, gid) in [(lines[0], 0o1770, 7, 8), (lines[1], 0o640, 5, 6)] {
        let found: Value = serde_json::from_str(line).unwrap();
        let seen = (&found["mode"], &found["uid"], &found["gid"]);
        assert_eq!(seen, (&json!(mode), &json!(uid), &json!(gid)), "{line}");
    }
    assert_eq!(lines[2..], ["from the image", "upper", "ok", r#"["file"]"#]);
    let again = image.run(&[], &["each", "list /new", "append /data/note x", "list /data"]).ok();
    assert_eq!(again.stdout, "[]\nok\n[\"note\",\"sub\"]\n");
    image.assert_gone();
}
