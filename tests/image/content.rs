//! What an import keeps.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::layout::*;

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let dir = tare::sys::fs::open_dir(Path::new("/")).unwrap();
    let relative = path.to_str().unwrap().trim_start_matches('/').to_owned();
    let all = tare::sys::fs::xattrs_at(std::os::fd::AsFd::as_fd(&dir), Path::new(&relative));
    let found = all.unwrap().into_iter().find(|(n, _)| *n == name);
    found.map(|(_, value)| value)
}

/// cap_net_raw=ep, with a byte in it that is a newline.
const CAPABILITY: &[u8] =
    b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00";

fn rich() -> Vec<Entry> {
    let device = Entry { dev: (1, 3), ..entry(b'3', "dev/null") };
    let disk = Entry { dev: (7, 0), ..entry(b'4', "dev/loop0") };
    vec![
        dir("./").mode(0o755),
        dir("dev/"),
        device.mode(0o666),
        disk.owner(0, 6),
        entry(b'6', "dev/pipe").mode(0o620),
        dir("etc").mode(0o1777).owner(5, 6).pax("mtime", b"1234567890.987654321"),
        file("etc/hello", "hello").pax("mtime", b"1111111111.123456789"),
        file("etc/setuid", "s").mode(0o4755).owner(1000, 1001),
        file("etc/setgid", "s").mode(0o2755),
        file("etc/capable", "c").owner(7, 7).pax("SCHILY.xattr.security.capability", CAPABILITY),
        file("etc/attr", "a")
            .pax("SCHILY.xattr.user.key", b"value\nwith newline")
            .pax("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        symlink("etc/link", "/nowhere/at/all").pax("mtime", b"22.000000033"),
        hardlink("etc/twin", "etc/hello"),
        file("unlisted/parent/file", "x"),
        file(&format!("long/{}/{}", "d".repeat(150), "n".repeat(200)), "long"),
        file("empty", ""),
        file("big", &"0123456789abcdef".repeat(100_000)),
    ]
}

#[test]
fn everything_is_kept_in_every_compression() {
    for how in ["none", "gzip", "zstd"] {
        let scene = Scene::new();
        let layer = layer(&rich(), how);
        scene.import(&simple(&scene.path("oci"), "rich", std::slice::from_ref(&layer)));
        let root = scene.layer_dir(&layer);
        check_rich(&root);
        let inspect: serde_json::Value =
            serde_json::from_str(&scene.ok(&["image", "inspect", "rich"])).unwrap();
        assert_eq!(inspect["layers"][0]["diffId"], layer.diff_id);
        assert_eq!(inspect["layers"][0]["dir"], root.to_str().unwrap());
        scene.ok(&["image", "verify"]);
        scene.ok(&["image", "rm", "rich"]);
        scene.assert_store_is_empty();
    }
}

fn check_rich(root: &Path) {
    let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o755);
    assert_eq!(meta("dev/null").rdev(), nix::sys::stat::makedev(1, 3));
    assert!(meta("dev/null").file_type().is_char_device());
    assert_eq!(meta("dev/null").mode() & 0o7777, 0o666);
    assert!(meta("dev/loop0").file_type().is_block_device());
    assert_eq!(meta("dev/loop0").gid(), 6);
    assert!(meta("dev/pipe").file_type().is_fifo());
    let etc = meta("etc");
    assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid()), (0o1777, 5, 6));
    assert_eq!((etc.mtime(), etc.mtime_nsec()), (1_234_567_890, 987_654_321));
    let hello = meta("etc/hello");
    assert_eq!((hello.mtime(), hello.mtime_nsec()), (1_111_111_111, 123_456_789));
    assert_eq!((hello.nlink(), hello.ino()), (2, meta("etc/twin").ino()));
    let setuid = meta("etc/setuid");
    assert_eq!((setuid.mode() & 0o7777, setuid.uid(), setuid.gid()), (0o4755, 1000, 1001));
    assert_eq!(meta("etc/setgid").mode() & 0o7777, 0o2755);
    assert_eq!(xattr(&root.join("etc/capable"), "security.capability").unwrap(), CAPABILITY);
    let attr = root.join("etc/attr");
    assert_eq!(xattr(&attr, "user.key").unwrap(), b"value\nwith newline");
    assert_eq!(xattr(&attr, "trusted.overlay.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&attr, "trusted.overlay.opaque"), None);
    assert_eq!(fs::read_link(root.join("etc/link")).unwrap(), Path::new("/nowhere/at/all"));
    assert_eq!((meta("etc/link").mtime(), meta("etc/link").mtime_nsec()), (22, 33));
    assert_eq!(fs::read(root.join("unlisted/parent/file")).unwrap(), b"x");
    let long = format!("long/{}/{}", "d".repeat(150), "n".repeat(200));
    assert_eq!(fs::read(root.join(long)).unwrap(), b"long");
    assert_eq!(meta("big").len(), 1_600_000);
}

#[test]
fn the_store_is_closed_to_others() {
    let scene = Scene::new();
    scene.import(&simple(&scene.path("oci"), "x", &[layer(&rich(), "none")]));
    for dir in ["", "layers", "layers/sha256", "staging", "images", "blobs"] {
        let mode = fs::metadata(scene.path("store").join(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
}

#[test]
fn sparse_files_in_all_forms() {
    let scene = Scene::new();
    let base = scene.path("tree");
    fs::create_dir(&base).unwrap();
    let make = format!(
        "cd {0} && truncate -s 3M sparse && printf middle | dd of=sparse bs=1 seek=1500000 \
         conv=notrunc status=none && printf end | dd of=sparse bs=1 seek=3145725 conv=notrunc \
         status=none && truncate -s 1M hole",
        base.display()
    );
    assert!(Command::new("sh").args(["-c", &make]).status().unwrap().success());
    for form in ["gnu", "posix:0.0", "posix:0.1", "posix:1.0"] {
        let (format, version) = form.split_once(':').unwrap_or((form, ""));
        let mut tar = Command::new("tar");
        tar.args(["-C", base.to_str().unwrap(), "-S", "-c", "sparse", "hole"]);
        tar.arg(format!("--format={format}"));
        if !version.is_empty() {
            tar.arg(format!("--sparse-version={version}"));
        }
        let data = tar.output().unwrap().stdout;
        assert!(data.len() < 1 << 20, "{form}: tar made no sparse entry");
        let layer = raw_layer(&data, "gzip");
        scene.import(&simple(
            &scene.path(&format!("oci-{form}")),
            "s",
            std::slice::from_ref(&layer),
        ));
        let root = scene.layer_dir(&layer);
        scene.ok(&["image", "verify"]);
        for name in ["sparse", "hole"] {
            let (want, have) = (base.join(name), root.join(name));
            assert_eq!(fs::read(want).unwrap(), fs::read(&have).unwrap(), "{form} {name}");
            assert!(fs::metadata(have).unwrap().blocks() < 512, "{form} {name}: no holes");
        }
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let scene = Scene::new();
    let layer = layer(
        &[
            file("a", "1"),
            file("a", "2"),
            dir("b"),
            file("b/x", "x"),
            file("b", "file now"),
            file("c", "c"),
            dir("c"),
            file("c/in", "in"),
            symlink("d", "/etc"),
            dir("d"),
            file("d/passwd", "mine"),
        ],
        "none",
    );
    scene.import(&simple(&scene.path("oci"), "r", std::slice::from_ref(&layer)));
    scene.ok(&["image", "verify"]);
    let root = scene.layer_dir(&layer);
    assert_eq!(fs::read(root.join("a")).unwrap(), b"2");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"file now");
    assert_eq!(fs::read(root.join("c/in")).unwrap(), b"in");
    assert_eq!(fs::read(root.join("d/passwd")).unwrap(), b"mine");
}

/// What is made in a directory with the setgid bit or a default access list inherits
/// from it: not so what the archive has in it.
/// user::rwx, group::rwx, mask::rwx, other::---, for user 7 rwx
pub const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x04\0\x07\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
#[test]
fn files_have_nothing_of_their_directories() {
    let scene = Scene::new();
    let entries = [
        dir("mail").mode(0o2775).owner(0, 8),
        file("mail/root", "x"),
        file("mail/ann", "x").owner(1000, 0),
        dir("mail/sub"),
        file("mail/sub/file", ""),
        symlink("mail/link", "x"),
        entry(b'6', "mail/fifo"),
        file("mail/unlisted/file", ""),
        dir("list").mode(0o770).pax("SCHILY.xattr.system.posix_acl_default", ACL),
        file("list/file", "x"),
        dir("list/sub"),
        // it was a directory of the first kind before
        dir("then").mode(0o2777).owner(0, 9),
        Entry { dev: (0, 0), ..entry(b'3', "white").mode(0) },
        hardlink("then", "white"),
        file("then/file", ""),
    ];
    let layer = layer(&entries, "none");
    scene.import(&simple(&scene.path("oci"), "s", std::slice::from_ref(&layer)));
    let root = scene.layer_dir(&layer);
    let found = |name: &str| {
        let meta = root.join(name).symlink_metadata().unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!(found("mail"), (0o2775, 0, 8));
    assert_eq!(found("mail/root"), (0o644, 0, 0));
    assert_eq!(found("mail/ann"), (0o644, 1000, 0));
    assert_eq!(found("mail/sub"), (0o755, 0, 0));
    assert_eq!(found("mail/sub/file"), (0o644, 0, 0));
    assert_eq!(found("mail/link"), (0o777, 0, 0));
    assert_eq!(found("mail/fifo"), (0o644, 0, 0));
    assert_eq!(found("mail/unlisted"), (0o755, 0, 0));
    assert_eq!(found("then"), (0o755, 0, 0));
    assert_eq!(fs::metadata(root.join("mail")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(xattr(&root.join("list"), "system.posix_acl_default").unwrap(), ACL);
    assert_eq!(found("list/file"), (0o644, 0, 0));
    for name in ["list/file", "list/sub"] {
        assert_eq!(xattr(&root.join(name), "system.posix_acl_access"), None);
        assert_eq!(xattr(&root.join(name), "system.posix_acl_default"), None);
    }
    scene.ok(&["image", "verify"]);
}

/// Whether a file has an access list of its own, and one for what is made in it.
pub fn access_lists(path: &Path) -> (bool, bool) {
    let has = |name: &str| xattr(path, &format!("system.posix_acl_{name}")).is_some();
    (has("access"), has("default"))
}

#[test]
fn copies_have_nothing_of_their_directories_either() {
    let scene = Scene::new();
    let list = || dir("list").mode(0o2770).pax("SCHILY.xattr.system.posix_acl_default", ACL);
    let worn = |key: &str| dir("worn").pax(&format!("SCHILY.xattr.user.{key}"), b"v");
    let lower = [dir("./"), list(), file("list/file", "x"), dir("list/sub"), worn("old")];
    let upper = [file("list/second", "x"), dir("list/sub/deep"), worn("new")];
    let layers = [layer(&lower, "none"), layer(&upper, "none")];
    scene.import(&simple(&scene.path("oci"), "s", &layers));
    for mode in ["copy", "overlay"] {
        let bundle = scene.path("bundle");
        let to = bundle.to_str().unwrap();
        scene.ok(&["unpack", "s", to, "--rootfs-mode", mode]);
        let root = bundle.join("rootfs");
        let lists = |name: &str| access_lists(&root.join(name));
        assert_eq!(lists("list"), (false, true), "{mode}");
        for name in ["list/file", "list/second", "list/sub", "list/sub/deep"] {
            assert_eq!(lists(name), (false, false), "{mode}: {name}");
        }
        let mode_of = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode_of("list"), mode_of("list/file")), (0o2770, 0o644), "{mode}");
        // an overlay shows the attributes of the uppermost directory
        let worn = root.join("worn");
        assert_eq!((xattr(&worn, "user.old"), xattr(&worn, "user.new").is_some()), (None, true));
        drop(worn);
        scene.ok(&["umount", to]);
    }
}

#[test]
fn what_the_stores_directory_gives_its_files_is_not_the_images() {
    let scene = Scene::new();
    give_default_acl(scene.dir.path());
    let entries = [file("unlisted/file", "x"), dir("dir"), file("dir/file", "x")];
    let layer = layer(&entries, "none");
    scene.import(&simple(&scene.path("oci"), "s", std::slice::from_ref(&layer)));
    let bundle = scene.path("bundle");
    let to = bundle.to_str().unwrap();
    scene.ok(&["unpack", "s", to, "--rootfs-mode", "copy"]);
    for root in [scene.layer_dir(&layer), bundle.join("rootfs")] {
        for name in [".", "unlisted", "unlisted/file", "dir", "dir/file"] {
            assert_eq!(access_lists(&root.join(name)), (false, false), "{name}");
        }
    }
    scene.ok(&["umount", to]);
    scene.ok(&["image", "verify"]);
}

/// All that is made in the directory is open to user 7.
fn give_default_acl(dir: &Path) {
    let dir = tare::sys::fs::open_dir(dir).unwrap();
    let dir = std::os::fd::AsFd::as_fd(&dir);
    tare::sys::fs::set_xattr(dir, c"system.posix_acl_default", ACL).unwrap();
}

#[test]
fn whiteouts_of_an_image_that_holds_overlays_may_have_several_names() {
    let scene = Scene::new();
    let device = Entry { dev: (0, 0), ..entry(b'3', "diff/gone").mode(0) };
    let layer = layer(&[dir("diff"), device, hardlink("diff/too", "diff/gone")], "none");
    scene.import(&simple(&scene.path("oci"), "s", std::slice::from_ref(&layer)));
    let stat = |name: &str| scene.layer_dir(&layer).join(name).symlink_metadata().unwrap();
    assert_eq!(stat("diff/gone").ino(), stat("diff/too").ino());
    scene.ok(&["image", "verify"]);
}

#[test]
fn bytes_after_the_end_mark_count_for_the_digest() {
    let scene = Scene::new();
    let mut data = archive(&[file("a", "a")]);
    data.extend_from_slice(&vec![7; 3 << 20]);
    for how in ["none", "gzip"] {
        let layer = raw_layer(&data, how);
        scene.import(&simple(&scene.path(how), how, &[layer]));
    }
}

#[test]
fn a_copy_keeps_attributes_and_links() {
    let scene = Scene::new();
    let layer = layer(&rich(), "gzip");
    let path = simple(&scene.path("oci"), "x", std::slice::from_ref(&layer));
    let bundle = scene.path("bundle");
    let (path, to) = (path.to_str().unwrap(), bundle.to_str().unwrap());
    // a mask that would take everything away
    let mut unpack = scene.command(&["unpack", path, to, "--rootfs-mode", "copy"]);
    let script = "umask 0777; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(unpack.get_program()).args(unpack.get_args());
    assert!(shell.status().unwrap().success());
    let rootfs = bundle.join("rootfs");
    assert_eq!(listing(&rootfs), listing(&scene.layer_dir(&layer)));
    assert_eq!(xattr(&rootfs.join("etc/capable"), "security.capability").unwrap(), CAPABILITY);
    let attr = rootfs.join("etc/attr");
    assert_eq!(xattr(&attr, "user.key").unwrap(), b"value\nwith newline");
    assert_eq!(xattr(&attr, "trusted.overlay.opaque").unwrap(), b"y");
    unpack = scene.command(&["umount", to]);
    assert!(unpack.status().unwrap().success());
}
