//! Bad input: code 1, one line that names the thing, and a host as before.

use serde_json::{Value, json};

use crate::support::{Container, args};

#[test]
fn a_config_that_is_missing_is_named() {
    let c = Container::new(|_| {});
    std::fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    c.assert_refused(&["config.json", "does not exist"]);
}

#[test]
fn a_config_that_is_no_json_is_named() {
    for text in ["", "not JSON at all", "{\"ociVersion\": ", "[]", "{} trailing", "\u{0}"] {
        let c = Container::new(|_| {});
        c.bundle.write_config(text);
        c.assert_refused(&["config.json"]);
    }
}

#[test]
fn a_config_that_is_a_directory_or_a_fifo_is_refused() {
    let c = Container::new(|_| {});
    let config = c.bundle.path().join("config.json");
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    c.assert_refused(&["config.json"]);
    // whose opening would wait for a writer
    std::fs::remove_dir(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    c.assert_refused(&["config.json"]);
}

#[test]
fn other_versions_of_the_specification_are_refused() {
    for version in ["2.0.0", "0.9.0", "banana", ""] {
        Container::new(|c| c["ociVersion"] = json!(version)).assert_refused(&["ociVersion"]);
    }
    Container::new(|c| drop(c.as_object_mut().unwrap().remove("ociVersion")))
        .assert_refused(&["ociVersion"]);
}

#[test]
fn versions_of_the_same_major_number_are_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0"] {
        let c = Container::new(|config| {
            config["ociVersion"] = json!(version);
            args(config, &["exit", "0"]);
        });
        c.run().ok();
    }
}

#[test]
fn a_field_of_the_wrong_type_is_named_by_its_path() {
    let table = [
        ("/process/user/uid", json!("root"), "process.user.uid"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args", json!(["a", 3]), "process.args[1]"),
        ("/process/cwd", json!(5), "process.cwd"),
        ("/process/terminal", json!("yes"), "process.terminal"),
        ("/process/env", json!({"A": "b"}), "process.env"),
        ("/mounts", json!({}), "mounts"),
        ("/mounts/1/options", json!("ro"), "mounts[1].options"),
        ("/root/readonly", json!("ro"), "root.readonly"),
        ("/hostname", json!(["x"]), "hostname"),
        ("/annotations", json!({"a": 1}), "annotations.a"),
        ("/linux/namespaces/0/type", json!("nope"), "linux.namespaces[0].type"),
        ("/linux/resources/memory", json!({"limit": "64m"}), "linux.resources.memory.limit"),
        ("/linux/resources/pids", json!({"limit": "x"}), "linux.resources.pids.limit"),
        ("/linux/maskedPaths", json!("/proc"), "linux.maskedPaths"),
        ("/hooks", json!({"poststop": [{"path": 1}]}), "hooks.poststop[0].path"),
    ];
    for (pointer, value, name) in table {
        let c = Container::new(|config| set(config, pointer, value.clone()));
        c.assert_refused(&[name]);
    }
}

/// Sets a field by its JSON pointer, made if it is not there.
fn set(config: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
        return;
    }
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    if config.pointer(parent).is_none() {
        set(config, parent, json!({}));
    }
    config.pointer_mut(parent).unwrap()[name] = value;
}

#[test]
fn fields_that_have_to_be_there_are_named() {
    for (pointer, name) in [
        ("/root", "root"),
        ("/process", "process"),
        ("/process/args", "process.args"),
        ("/process/cwd", "process.cwd"),
        ("/root/path", "root.path"),
    ] {
        let c = Container::new(|config| {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let parent = config.pointer_mut(parent).unwrap();
            parent.as_object_mut().unwrap().remove(field);
        });
        c.assert_refused(&[name]);
    }
    Container::new(|c| c["process"]["args"] = json!([])).assert_refused(&["process.args"]);
    Container::new(|c| c["process"]["args"] = json!([""])).assert_refused(&["process.args"]);
}

#[test]
fn shares_of_caches_are_refused_where_there_are_none() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        println!("skipped: this machine has resctrl");
        return;
    }
    Container::new(|c| c["linux"]["intelRdt"] = json!({"closID": "x"}))
        .assert_refused(&["linux.intelRdt", "no resctrl"]);
    Container::new(|c| c["linux"]["intelRdt"] = json!({"memBwSchema": "L3:0=f"}))
        .assert_refused(&["linux.intelRdt.memBwSchema"]);
}

#[test]
fn ids_that_are_no_names_are_refused() {
    let long = "x".repeat(1025);
    let ids = ["a/b", "../up", "/abs", ".", "..", "", "a b", "a\nb", "ä", &long];
    let c = Container::new(|_| {});
    let bundle = c.bundle.path().to_str().unwrap();
    for id in ids {
        for command in ["create", "run"] {
            let output = c.tare.command([command, "--bundle", bundle, id]).run();
            assert_eq!(output.code, 1, "{id:?}: {output:?}");
            assert_eq!(output.stderr.lines().count(), 1, "{id:?}: {output:?}");
            assert!(output.stderr.contains("id"), "{id:?}: {output:?}");
            c.assert_gone();
        }
        for command in ["start", "state", "kill", "delete"] {
            let output = c.tare.command([command, id]).run();
            assert_eq!(output.code, 1, "{command} {id:?}: {output:?}");
        }
    }
}

#[test]
fn a_bundle_that_is_not_there_is_named() {
    let c = Container::new(|_| {});
    for command in ["create", "run"] {
        c.tare
            .command([command, "--bundle", "/no/such/bundle", &c.id])
            .run()
            .fails_with(&["/no/such/bundle", "does not exist"]);
        c.assert_gone();
    }
}

#[test]
fn a_rootfs_that_is_not_there_or_no_directory_is_named() {
    let c = Container::new(|_| {});
    std::fs::remove_dir_all(c.bundle.rootfs()).unwrap();
    c.assert_refused(&["rootfs", "does not exist"]);
    std::fs::write(c.bundle.rootfs(), "a file").unwrap();
    c.assert_refused(&["rootfs", "not a directory"]);
}

#[test]
fn a_program_that_is_in_no_directory_of_path_fails_create() {
    let c = Container::new(|c| c["process"]["args"] = json!(["no-such-program"]));
    c.assert_refused(&["no-such-program", "executable file not found in $PATH"]);
}

/// `create` may see it; if not, `start` has to say so, and what is left then
/// is a stopped container.
fn fails_to_start(c: &Container, texts: &[&str]) {
    let created = c.on_bundle("create", &[]).run();
    if created.code == 0 {
        c.start().fails_with(texts);
        assert_eq!(c.status(), "stopped");
        c.delete().ok();
    } else {
        created.fails_with(texts);
    }
    c.assert_gone();
    c.run().fails_with(texts);
    c.assert_gone();
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let c = Container::new(|c| c["process"]["args"] = json!(["/no/such/program"]));
    fails_to_start(&c, &["/no/such/program", "no such file or directory"]);
}

fn with_file(name: &str, text: &str, mode: u32) -> Container {
    let c = Container::new(|c| c["process"]["args"] = json!([format!("/{name}")]));
    write_program(&c, name, text, mode);
    c
}

fn write_program(c: &Container, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = c.bundle.rootfs().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_script_without_its_interpreter_is_an_error() {
    let c = with_file("script", "#!/no/such/shell\n", 0o755);
    c.on_bundle("create", &[]).run().ok();
    c.start().fails_with(&["/script", "no such file or directory"]);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
    c.run().fails_with(&["/script", "no such file or directory"]);
}

#[test]
fn a_program_that_may_not_be_run_is_an_error() {
    let c = with_file("data", "no program", 0o644);
    fails_to_start(&c, &["/data", "permission denied"]);
    let c = Container::new(|c| c["process"]["args"] = json!(["/proc"]));
    fails_to_start(&c, &["/proc", "is a directory"]);
}

#[test]
fn a_file_that_is_no_program_is_an_error() {
    let c = with_file("data", "\u{1}\u{2}\u{3}", 0o755);
    fails_to_start(&c, &["/data", "exec format error"]);
}

#[test]
fn a_program_below_a_file_is_an_error() {
    let c = Container::new(|c| c["process"]["args"] = json!(["/probe/sub"]));
    fails_to_start(&c, &["/probe/sub", "not a directory"]);
}

#[test]
fn an_ordinary_user_without_rights_is_told_so() {
    let c = Container::new(|_| {});
    for command in ["create", "run"] {
        // SAFETY: system calls only.
        let command = unsafe {
            c.on_bundle(command, &[]).before_exec(|| {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setgid(nix::unistd::Gid::from_raw(65534))?;
                nix::unistd::setuid(nix::unistd::Uid::from_raw(65534))?;
                Ok(())
            })
        };
        let output = command.run();
        assert_eq!(output.code, 1, "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(output.stderr.contains("needs a user namespace"), "{output:?}");
        c.assert_gone();
    }
}

#[test]
fn words_that_are_no_command_are_refused() {
    let c = Container::new(|_| {});
    for words in [&["frobnicate"][..], &["create"], &["create", "--frobnicate", "x"], &["kill"]] {
        let output = c.tare.command(words).run();
        assert_ne!(output.code, 0, "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
}
