//! Symbolic links as sources and destinations of bind mounts.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::mounts::bind;
use crate::support::{Container, add_mount, args, temp_dir};

#[test]
fn a_link_of_the_host_is_made_again() {
    let outside = temp_dir();
    symlink("/to/somewhere", outside.path().join("link")).unwrap();
    std::fs::write(outside.path().join("file"), "no link").unwrap();
    let options = ["bind", "copy-symlink"];
    let c = Container::new(|config| {
        add_mount(config, bind(&outside.path().join("link"), "/new/dir/link", &options));
        add_mount(config, bind(&outside.path().join("link"), "/there", &options));
        // what is no link is mounted
        add_mount(config, bind(&outside.path().join("file"), "/file", &options));
        args(config, &["each", "stat /new/dir/link", "stat /there", "read /file"]);
    });
    symlink("/to/somewhere", c.bundle.rootfs().join("there")).unwrap();
    let lines = c.lines();
    for line in &lines[..2] {
        assert!(line.contains(r#""target":"/to/somewhere""#), "{line}");
    }
    assert_eq!(lines[2], "no link");
}

#[test]
fn something_else_in_the_place_of_the_link_is_refused() {
    let outside = temp_dir();
    symlink("/to/somewhere", outside.path().join("link")).unwrap();
    let c = Container::new(|config| {
        let options = ["bind", "copy-symlink"];
        add_mount(config, bind(&outside.path().join("link"), "/there", &options));
    });
    let there = c.bundle.rootfs().join("there");
    std::fs::write(&there, "a file").unwrap();
    c.assert_refused(&["mount /there", "copy-symlink", "/to/somewhere"]);
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "a file");
    std::fs::remove_file(&there).unwrap();
    symlink("/to/elsewhere", &there).unwrap();
    c.assert_refused(&["mount /there", "copy-symlink", "/to/somewhere"]);
}

#[test]
fn a_link_of_the_host_can_be_mounted_itself() {
    let outside = temp_dir();
    symlink("/seen", outside.path().join("link")).unwrap();
    let c = Container::new(|config| {
        let source = outside.path().join("link");
        add_mount(config, bind(&source, "/place", &["bind", "src-nofollow"]));
        args(config, &["each", "stat /place", "read /place"]);
    });
    std::fs::write(c.bundle.rootfs().join("seen"), "by the link").unwrap();
    let lines = c.lines();
    assert!(lines[0].contains(r#""target":"/seen""#), "{}", lines[0]);
    assert_eq!(lines[1], "by the link");
    // without the word it is followed on the host, and leads nowhere there
    c.bundle.edit(|config| {
        config["mounts"][7]["options"] = serde_json::json!(["bind"]);
    });
    c.assert_refused(&["mount /place", "source does not exist"]);
}

#[test]
fn a_link_of_the_image_can_be_mounted_over() {
    let outside = temp_dir();
    std::fs::write(outside.path().join("file"), "bound").unwrap();
    let words = ["each", "stat /link", "read /link", "read /target"];
    for (option, kind, target) in
        [("dest-nofollow", r#""type":"file""#, "image"), ("rw", r#""type":"link""#, "bound")]
    {
        let c = Container::new(|config| {
            let source = outside.path().join("file");
            add_mount(config, bind(&source, "/link", &["bind", option]));
            args(config, &words);
        });
        std::fs::write(c.bundle.rootfs().join("target"), "image").unwrap();
        symlink("target", c.bundle.rootfs().join("link")).unwrap();
        let lines = c.lines();
        assert!(lines[0].contains(kind), "{option}: {}", lines[0]);
        assert_eq!(lines[1..], ["bound", target], "{option}");
    }
}

#[test]
fn a_missing_destination_is_made_for_either_word() {
    let outside = temp_dir();
    symlink("/probe", outside.path().join("link")).unwrap();
    let lines = Container::new(|config| {
        let source = outside.path().join("link");
        let options = ["bind", "src-nofollow", "dest-nofollow"];
        add_mount(config, bind(&source, "/a/b", &options));
        add_mount(config, bind(outside.path(), "/c/d", &["bind", "dest-nofollow"]));
        args(config, &["each", "stat /a/b", "list /c/d"]);
    })
    .lines();
    assert!(lines[0].contains(r#""target":"/probe""#), "{}", lines[0]);
    assert_eq!(lines[1], r#"["link"]"#);
}

#[test]
fn words_that_exclude_each_other_are_refused() {
    for other in ["src-nofollow", "dest-nofollow"] {
        let mount = bind(Path::new("/etc"), "/m", &["bind", "copy-symlink", other]);
        Container::new(|c| add_mount(c, mount)).assert_refused(&[
            "mounts[7].options",
            "copy-symlink",
            other,
        ]);
    }
}
