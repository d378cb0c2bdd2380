//! Images, call by call: `image import`, `unpack`, `run --image`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::faulty::{Call, Extent, Faulty, Followed, Step, Verdict, interrupts_of, steps_of, walk};
use crate::judge::assert_told;
use crate::layout::{Scene, dir, file, layer, simple};
use crate::report::differences;
use crate::support::{Tare, Traces, probe, unique_id, wait_gone};

/// A layout with one image of two layers whose program is the probe.
fn layout(scene: &Scene) -> PathBuf {
    let program = std::fs::read(probe()).unwrap();
    let mut program_file = file("probe", "").mode(0o755);
    program_file.data = program;
    let layers = [
        layer(&[dir("./"), program_file], "none"),
        layer(&[dir("etc"), file("etc/hello", "hello")], "gzip"),
    ];
    simple(&scene.path("oci"), "small", &layers)
}

fn faulty(scene: &Scene, tare: &Tare, words: &[&str], faults: &[String]) -> Followed {
    let store = scene.path("store");
    let command = tare.with(&["--store", store.to_str().unwrap()]).command(words);
    Faulty { faults, attach: None }.run(command, |command| command)
}

/// All but threads: how their calls are numbered is a matter of chance.
fn steps(calls: &[Call]) -> Vec<Step> {
    let calls: Vec<Call> =
        calls.iter().filter(|call| !call.process.starts_with("thread")).cloned().collect();
    steps_of(&calls).into_iter().chain(interrupts_of(&calls)).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn verdict(followed: &Followed, step: &Step) -> Verdict {
    match (followed.reached(step), followed.output.code) {
        (false, _) => Verdict::NotReached,
        (true, 0) => Verdict::Unharmed,
        (true, _) => Verdict::Told,
    }
}

fn check_told(followed: &Followed, step: &Step, command: &str, subject: &str) {
    if followed.output.code != 0 {
        assert_told(followed, command, subject);
        assert!(
            step.errno != "EINTR" || !followed.reached(step),
            "an interrupted call ends the command: {:#?}",
            followed.output
        );
    }
}

#[test]
fn a_failing_call_in_an_import_leaves_the_store_unharmed() {
    let source = Scene::new();
    let path = layout(&source);
    let words = ["image", "import", path.to_str().unwrap()];
    let scene = Scene::new();
    let tare = Tare::new();
    let followed = faulty(&scene, &tare, &words, &[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let wanted = scene.ok(&["image", "ls"]);
    walk("image import", &steps(&followed.calls), Extent::Sample(75), |step| {
        let scene = Scene::in_memory();
        let followed = faulty(&scene, &tare, &words, &[step.fault()]);
        check_told(&followed, step, "image", path.to_str().unwrap());
        // what is there is whole, and the second try makes it complete
        scene.ok(&["image", "ls"]);
        scene.import(&path);
        // an import's own date is in the list
        let names_of =
            |list: &str| list.split_whitespace().take(8).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names_of(&scene.ok(&["image", "ls"])), names_of(&wanted));
        assert_eq!(names(&scene.path("store/staging")), [] as [&str; 0]);
        scene.ok(&["image", "rm", "small"]);
        scene.assert_store_is_empty();
        verdict(&followed, step)
    });
}

#[test]
fn a_failing_call_in_unpack_leaves_no_bundle() {
    let scene = Scene::new();
    let path = layout(&scene);
    scene.import(&path);
    let tare = Tare::new();
    let unpack = |name: &str, faults: &[String]| {
        let bundle = scene.path(name);
        faulty(&scene, &tare, &["unpack", "small", bundle.to_str().unwrap()], faults)
    };
    let followed = unpack("first", &[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    scene.ok(&["umount", scene.path("first").to_str().unwrap()]);
    walk("unpack", &steps(&followed.calls), Extent::Sample(75), |step| {
        let name = unique_id();
        let bundle = scene.path(&name);
        let followed = unpack(&name, &[step.fault()]);
        check_told(&followed, step, "unpack", "small");
        if followed.output.code == 0 {
            let hello = std::fs::read_to_string(bundle.join("rootfs/etc/hello")).unwrap();
            assert_eq!(hello, "hello");
            scene.ok(&["umount", bundle.to_str().unwrap()]);
        }
        assert!(bundle.symlink_metadata().is_err(), "left: {:?}", names(&bundle));
        let traces = Traces::named(&[&name]);
        assert!(traces.is_empty(), "{traces:#?}");
        verdict(&followed, step)
    });
    assert_eq!(names(&scene.path("store/refs")), [] as [&str; 0]);
}

#[test]
fn a_failing_call_in_run_with_an_image() {
    let scene = Scene::new();
    scene.import(&layout(&scene));
    let run = |c: &Bare, faults: &[String]| {
        let words = ["run", "--image", "small", &c.id, "--", "/probe", "report"];
        faulty(&scene, &c.tare, &words, faults)
    };
    let c = Bare::new();
    let followed = run(&c, &[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    let wanted = c.normal(&followed);
    walk("run --image", &steps(&followed.calls), Extent::Sample(110), |step| {
        let c = Bare::new();
        let followed = run(&c, &[step.fault()]);
        if followed.output.code == 0 {
            let found = differences(&wanted, &c.normal(&followed));
            assert!(found.is_empty(), "a success that differs: {found:#?}");
        }
        check_told(&followed, step, "run", &c.id);
        let mine = |name: &String| name.starts_with(&c.id);
        let left =
            || names(&scene.path("store/containers")).into_iter().filter(mine).collect::<Vec<_>>();
        let traces = || Traces::of(&c.tare, &[&c.id]);
        let is_known = followed.output.stderr.contains("tare delete --force");
        if is_known || followed.failed_where_nothing_can() {
            // its program has run, and what came after it failed: the record
            // knows what is left
            c.tare.command(["delete", "--force", &c.id]).run().ok();
        }
        wait_gone(&format!("{:#?}", traces()), || traces().is_empty());
        assert_eq!(left(), [] as [&str; 0]);
        verdict(&followed, step)
    });
    assert_eq!(names(&scene.path("store/refs")), [] as [&str; 0]);
}

/// A call that fails while it is verified is told, as what it kept from being read, and
/// nothing of the store is taken for damaged in another way.
#[test]
fn a_failing_call_in_verify_is_told_of_what_it_hits() {
    let scene = Scene::new();
    scene.import(&layout(&scene));
    let before = scene.ok(&["image", "ls"]);
    let tare = Tare::new();
    // with one processor there is one thread
    let mut one = nix::sched::CpuSet::new();
    let all = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let first = (0..nix::sched::CpuSet::count()).find(|n| all.is_set(*n).unwrap()).unwrap();
    one.set(first).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).unwrap();
    let verify = |faults: &[String]| faulty(&scene, &tare, &["image", "verify"], faults);
    let followed = verify(&[]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(!followed.calls.iter().any(|call| call.process.starts_with("thread")));
    let whole = followed.output.stdout;
    walk("image verify", &steps(&followed.calls), Extent::Sample(150), |step| {
        let followed = verify(&[step.fault()]);
        let output = &followed.output;
        match output.code {
            _ if followed.failed_where_nothing_can() => {}
            // a success is one of the whole
            0 => assert_eq!(output.stdout, whole, "{output:#?}"),
            1 if output.stderr.is_empty() && !followed.failed_before_main() => {
                assert_found(&output.stdout);
            }
            _ => assert_told(&followed, "image", "verify"),
        }
        assert_eq!(scene.ok(&["image", "ls"]), before);
        verdict(&followed, step)
    });
    assert_eq!(verify(&[]).output.stdout, whole);
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &all).unwrap();
}

/// Lines of what can't be read, and the summary.
fn assert_found(printed: &str) {
    let mut lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines.pop().is_some_and(|last| last.ends_with("problem") || last.ends_with("problems")),
        "{printed}"
    );
    assert!(!lines.is_empty(), "{printed}");
    for line in lines {
        assert!(
            line.contains("can't be read: ") || line.contains("its record is damaged: "),
            "{line}"
        );
    }
}

/// A container without a bundle of the caller's.
struct Bare {
    tare: Tare,
    id: String,
}

impl Bare {
    fn new() -> Self {
        Bare { tare: Tare::new(), id: unique_id() }
    }

    fn normal(&self, followed: &Followed) -> Value {
        crate::report::normal_of(&followed.output.stdout, &self.id, None)
    }
}

/// The options of the root's overlay name its directories in the one way or the
/// other.
fn without_layers(mut report: Value) -> Value {
    for mount in report["mounts"].as_array_mut().unwrap() {
        if mount["fstype"] == "overlay" {
            let options = mount["super_options"].as_array_mut().unwrap();
            let names = ["lowerdir", "upperdir", "workdir"];
            options.retain(|o| !names.iter().any(|name| o.as_str().unwrap().starts_with(name)));
        }
    }
    report
}

#[test]
fn layers_are_given_in_one_string_where_the_kernel_takes_no_single_ones() {
    let scene = Scene::new();
    scene.import(&layout(&scene));
    let run = |faults: &[&str]| {
        let faults: Vec<String> = faults.iter().map(|fault| (*fault).to_owned()).collect();
        let c = Bare::new();
        let words = ["run", "--image", "small", &c.id, "--", "/probe", "report"];
        let followed = faulty(&scene, &c.tare, &words, &faults);
        (c, followed)
    };
    let (c, followed) = run(&[]);
    let wanted = without_layers(c.normal(&followed));
    // Linux before 6.5
    let (c, followed) = run(&["fsconfig[2~lowerdir+]=EINVAL"]);
    assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
    assert!(followed.failed().is_some(), "single layers were not tried");
    let joined = |call: &Call| call.name == "fsconfig" && call.text == "lowerdir";
    assert!(followed.calls.iter().any(joined), "{:#?}", followed.calls);
    assert_eq!(differences(&wanted, &without_layers(c.normal(&followed))), [] as [&str; 0]);
    // nothing else says that the kernel is an old one
    for errno in ["EPERM", "ENOMEM", "ENOENT"] {
        let (c, followed) = run(&[&format!("fsconfig[2~lowerdir+]={errno}")]);
        assert_told(&followed, "run", &c.id);
        assert!(!followed.calls.iter().any(joined), "{:#?}", followed.calls);
        assert!(Traces::of(&c.tare, &[&c.id]).is_empty());
    }
    // a kernel without overlays at all
    let (c, followed) = run(&["fsopen[0~overlay]=ENODEV"]);
    assert_eq!(followed.failed().map(|call| call.text.as_str()), Some("overlay"));
    assert_told(&followed, "run", &c.id);
}

/// More than one string of fsconfig(2) has room for: by mount(2), in a child.
#[test]
fn many_layers_are_given_to_mount_where_the_kernel_takes_no_single_ones() {
    let scene = Scene::new();
    let mut program = file("probe", "").mode(0o755);
    program.data = std::fs::read(probe()).unwrap();
    let mut layers = vec![layer(&[dir("./"), program], "none")];
    layers.extend((0..130).map(|n| layer(&[file(&format!("layer{n:03}"), "x")], "none")));
    scene.import(&simple(&scene.path("oci"), "many", &layers));
    let mut mounts = Vec::new();
    for faults in [vec![], vec!["fsconfig[2~lowerdir+]=EINVAL".to_owned()]] {
        let c = Bare::new();
        let words = ["run", "--image", "many", &c.id, "--", "/probe", "list", "/"];
        let followed = faulty(&scene, &c.tare, &words, &faults);
        assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
        let names: Vec<String> = serde_json::from_str(&followed.output.stdout).unwrap();
        assert_eq!(names.iter().filter(|name| name.starts_with("layer")).count(), 130);
        mounts.push(followed.calls.iter().filter(|call| call.name == "mount").count());
        assert!(Traces::of(&c.tare, &[&c.id]).is_empty());
    }
    // private, and the overlay
    assert_eq!(mounts[1], mounts[0] + 2);
    let place = scene.dir.path().to_str().unwrap();
    let now = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!now.contains(place), "{now}");
}

#[test]
fn files_are_copied_by_hand_where_the_file_system_does_not_help() {
    let scene = Scene::new();
    scene.import(&layout(&scene));
    let tare = Tare::new();
    let unpack = |name: &str, faults: &[&str]| {
        let faults: Vec<String> = faults.iter().map(|fault| (*fault).to_owned()).collect();
        let bundle = scene.path(name);
        let words = ["unpack", "--rootfs-mode", "copy", "small", bundle.to_str().unwrap()];
        (bundle.clone(), faulty(&scene, &tare, &words, &faults))
    };
    let program = std::fs::read(probe()).unwrap();
    let old = ["ioctl=EOPNOTSUPP", "copy_file_range=EOPNOTSUPP"];
    for (name, faults) in [
        ("reflinks", &[][..]),
        ("old", &old[..]),
        ("interrupted", &["copy_file_range=EINTR@1"][..]),
    ] {
        let first: Vec<&str> = ["ioctl=ENOTTY"].iter().chain(faults).copied().collect();
        let (bundle, followed) = unpack(name, &first);
        assert_eq!(followed.output.code, 0, "{:#?}", followed.output);
        assert!(followed.failed().is_some(), "{name}: not tried");
        assert!(std::fs::read(bundle.join("rootfs/probe")).unwrap() == program, "{name}");
        scene.ok(&["umount", bundle.to_str().unwrap()]);
    }
    for fault in ["ioctl=EPERM", "copy_file_range=EPERM"] {
        // the first fault that fits is the one: both calls are refused in turn
        let (bundle, followed) = unpack("refused", &[fault, "ioctl=EOPNOTSUPP"]);
        assert!(followed.failed().is_some(), "{fault}: not tried");
        assert_told(&followed, "unpack", "small");
        assert!(bundle.symlink_metadata().is_err(), "{fault}: left");
    }
}
