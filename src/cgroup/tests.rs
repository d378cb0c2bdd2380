//! On the real kernel, in a cgroup of each test's own; as root.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::limits::tests::resources;
use super::*;
use crate::sys::bpf;

/// A cgroup that nobody else has, at a path in the hierarchy. What a failed test
/// leaves of it goes at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        Scratch(PathBuf::from(format!("tare-test-{id}-{count}-{name}")))
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(hierarchy) = Hierarchy::discover() else {
            return;
        };
        let left = Cgroup::open(CgroupRecord {
            path: hierarchy.mount_point().join(&self.0),
            ..CgroupRecord::default()
        });
        if let Ok(left) = left {
            left.kill().unwrap();
            left.remove(soon()).unwrap();
        }
    }
}

/// `None` where the tests may not make cgroups.
fn hierarchy() -> Option<Hierarchy> {
    let hierarchy = Hierarchy::discover().ok()?;
    let probe = hierarchy.mount_point().join(&*Scratch::new("probe"));
    std::fs::create_dir(&probe).ok()?;
    std::fs::remove_dir(&probe).unwrap();
    Some(hierarchy)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A shell that is moved into the cgroup before it runs its script.
struct Inmate {
    child: Child,
    gate: Option<ChildStdin>,
}

impl Inmate {
    fn enter(cgroup: &Cgroup, script: &str) -> Self {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("read gate; {script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gate = child.stdin.take();
        cgroup.add(pid(&child)).unwrap();
        Inmate { child, gate }
    }

    /// Lets the script run to its end.
    fn code(mut self) -> Option<i32> {
        writeln!(self.gate.take().unwrap()).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn text(cgroup: &Cgroup, file: &str) -> String {
    std::fs::read_to_string(cgroup.path().join(file)).unwrap()
}

fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[test]
fn parents_that_were_made_go_with_the_cgroup() {
    let Some(hierarchy) = hierarchy() else { return };
    let top = Scratch::new("parents");
    let cgroup = Cgroup::create(&hierarchy, &top.join("a/b"), &[]).unwrap();
    assert_eq!(cgroup.record().made_parents, 2);
    let sibling = Cgroup::create(&hierarchy, &top.join("c"), &[]).unwrap();
    assert_eq!(sibling.record().made_parents, 0);

    let json = serde_json::to_string(cgroup.record()).unwrap();
    let record: CgroupRecord = serde_json::from_str(&json).unwrap();
    cgroup.remove(soon()).unwrap();
    let top = hierarchy.mount_point().join(&*top);
    assert!(!is_there(&top.join("a")));
    assert!(is_there(&top.join("c")), "another container's cgroup stays");
    record.remove(soon()).unwrap();
    sibling.remove(soon()).unwrap();
    assert!(is_there(&top), "a parent that was there is left alone");
    std::fs::remove_dir(top).unwrap();
}

#[test]
fn an_empty_cgroup_is_taken_over_and_a_used_one_is_not() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("used");
    let first = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    first.freeze(true, soon()).unwrap();
    first.attach_devices(&devices::compile(&[]).unwrap().unwrap()).unwrap();
    let second = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    assert!(!second.frozen().unwrap());
    assert!(bpf::device_programs(second.dir()).unwrap().is_empty());

    let inmate = Inmate::enter(&second, "true");
    let error = Cgroup::create(&hierarchy, &path, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let words = "the container's cgroup is not empty";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(second.procs(false).unwrap(), [pid(&inmate.child)]);
    inmate.code();
    second.remove(soon()).unwrap();
    assert_eq!(Cgroup::open(first.record().clone()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_cgroup_is_held_by_one() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("held");
    let create = |found| Cgroup::create_held(&hierarchy, &path, &[], found);
    let refused = |found, why: &str| {
        let error = create(found).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert!(error.to_string().contains(why), "{error}");
    };
    let first = create(Found::Nothing).unwrap();
    assert!(!first.was_there());
    refused(Found::Nothing, "another container is being created in it");
    refused(Found::Any, "another container is being created in it");
    let inmate = Inmate::enter(&first, "true");
    drop(first);
    refused(Found::Any, "with processes in it");
    inmate.code();
    // made by somebody else in the time since it was looked for
    refused(Found::Nothing, "another container is being created in it");
    let second = create(Found::Any).unwrap();
    assert!(second.was_there());
    second.remove(soon()).unwrap();
}

#[test]
fn a_failed_create_leaves_nothing() {
    let Some(hierarchy) = hierarchy() else { return };
    let top = Scratch::new("failed");
    for (json, words) in [
        (
            r#"{"unified": {"nonesuch.max": "1"}}"#,
            "linux.resources.unified[\"nonesuch.max\"]: the nonesuch controller is not in",
        ),
        (
            r#"{"unified": {"cgroup.nonesuch": "1"}}"#,
            "linux.resources.unified[\"cgroup.nonesuch\"]: this kernel's cgroups have no cgroup.nonesuch",
        ),
        (
            r#"{"unified": {"cgroup.max.depth": "many"}}"#,
            "linux.resources.unified[\"cgroup.max.depth\"]: write \"many\" to cgroup.max.depth: invalid argument",
        ),
    ] {
        let settings = limits::plan(&resources(json)).unwrap().settings;
        let error = match Cgroup::create(&hierarchy, &top.join("a"), &settings) {
            Err(e) => e,
            Ok(cgroup) => {
                let error = cgroup.apply(&settings).unwrap_err();
                cgroup.remove(soon()).unwrap();
                error
            }
        };
        assert!(error.to_string().contains(words), "{error}");
        assert!(!is_there(&hierarchy.mount_point().join(&*top)));
    }
    if !hierarchy.has_controller("memory").unwrap() {
        let json = r#"{"memory": {"limit": 4194304}}"#;
        let settings = limits::plan(&resources(json)).unwrap().settings;
        let error = Cgroup::create(&hierarchy, &top.join("a"), &settings).unwrap_err();
        let words = format!(
            "linux.resources.memory.limit: the memory controller is not in the cgroup2 hierarchy \
             at {} (it is ",
            hierarchy.mount_point().display()
        );
        assert!(error.to_string().starts_with(&words), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!is_there(&hierarchy.mount_point().join(&*top)));
    }
    // the kernel takes no name of two lines; its parent has been made by then
    for path in ["a\nb", "x/a\nb", "x/a\nb/c/d"] {
        let error = Cgroup::create(&hierarchy, &top.join(path), &[]).unwrap_err();
        assert!(error.is_errno(Errno::EINVAL), "{error}");
        assert!(!is_there(&hierarchy.mount_point().join(&*top)), "{path}");
    }
}

#[test]
fn settings_are_written_and_controllers_enabled_on_the_way() {
    let Some(hierarchy) = hierarchy() else { return };
    // dropped after the cgroups: while one hands hugetlb down, the root must
    let _restore = SubtreeControl::of(&hierarchy);
    let top = Scratch::new("settings");
    let plan = |json: &str| limits::plan(&resources(json)).unwrap().settings;
    let settings = plan(r#"{"unified": {"cgroup.max.depth": "3"}}"#);
    let cgroup = Cgroup::create(&hierarchy, &top.join("a"), &settings).unwrap();
    cgroup.apply(&settings).unwrap();
    assert_eq!(text(&cgroup, "cgroup.max.depth"), "3\n");

    // the one controller that a hybrid host may have left for cgroup2
    let huge = std::fs::metadata("/sys/kernel/mm/hugepages/hugepages-2048kB").is_ok();
    if !huge || !hierarchy.has_controller("hugetlb").unwrap() {
        return;
    }
    let settings = plan(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#);
    let limited = Cgroup::create(&hierarchy, &top.join("b/c"), &settings).unwrap();
    limited.apply(&settings).unwrap();
    assert_eq!(text(&limited, "hugetlb.2MB.max"), "4194304\n");
    assert_eq!(text(&limited, "hugetlb.2MB.rsvd.max"), "4194304\n");
    let odd = plan(r#"{"hugepageLimits": [{"pageSize": "4MB", "limit": 4194304}]}"#);
    assert_eq!(
        limited.apply(&odd).unwrap_err().to_string(),
        "linux.resources.hugepageLimits[0]: the hugetlb controller of this kernel has no \
         hugetlb.4MB.max"
    );

    let inmate = Inmate::enter(&cgroup, "true");
    let inner = top.join("a/inner");
    let error = Cgroup::create(&hierarchy, &inner, &settings).unwrap_err();
    let words = format!("{} has processes of its own", cgroup.path().display());
    assert!(error.to_string().contains(&words), "{error}");
    assert!(error.to_string().contains("linux.resources.hugepageLimits[0]: "), "{error}");
    assert!(!is_there(&hierarchy.mount_point().join(inner)));
    inmate.code();
}

/// Puts the root's cgroup.subtree_control back as it was.
struct SubtreeControl {
    file: PathBuf,
    before: String,
}

impl SubtreeControl {
    fn of(hierarchy: &Hierarchy) -> Self {
        let file = hierarchy.mount_point().join("cgroup.subtree_control");
        let before = std::fs::read_to_string(&file).unwrap();
        SubtreeControl { file, before }
    }
}

impl Drop for SubtreeControl {
    fn drop(&mut self) {
        if !self.before.contains("hugetlb") {
            let mut file = std::fs::File::create(&self.file).unwrap();
            // a child of somebody else may need it by now
            if let Err(e) = file.write_all(b"-hugetlb") {
                assert_eq!(e.raw_os_error(), Some(Errno::EBUSY as i32));
            }
        }
    }
}

#[test]
fn devices_are_refused_and_allowed_by_the_kernel() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("devices");
    let cgroup = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    let rules = |json: &str| {
        let rules: Vec<oci_spec::runtime::LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        devices::plan(&rules).unwrap()
    };
    let refuses = r#"[{"allow": false, "access": "rwm"}]"#;
    let program = rules(refuses).unwrap();
    match cgroup.attach_devices(&program) {
        Err(e) if e.is_errno(Errno::EPERM) => return cgroup.remove(soon()).unwrap(),
        other => other.unwrap(),
    }
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let mem = format!("mknod {0} c 1 1 && : < {0}", node.display());
    for (script, code) in [
        (": < /dev/null", 0),
        (": > /dev/zero", 0),
        ("head -c 8 /dev/urandom", 0),
        (": < /dev/kmsg", 2),
        (": < /dev/fuse", 2),
        (mem.as_str(), 2),
    ] {
        let inmate = Inmate::enter(&cgroup, script);
        assert_eq!(inmate.code(), Some(code), "{script}");
    }
    assert!(is_there(&node), "nodes may be made that may not be opened");

    let also = r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]"#;
    let loaded = rules(also).unwrap().load().unwrap();
    cgroup.replace_devices(Some(&loaded)).unwrap();
    assert_eq!(bpf::device_programs(cgroup.dir()).unwrap().len(), 1);
    for (script, code) in [(": < /dev/kmsg", 0), (": > /dev/kmsg", 2)] {
        assert_eq!(Inmate::enter(&cgroup, script).code(), Some(code), "{script}");
    }
    // another's program is not ours to replace
    let other = bpf::load_program_of_others(program.insns()).unwrap();
    bpf::attach_device_program(cgroup.dir(), other.as_fd(), None).unwrap();
    cgroup.replace_devices(Some(&loaded)).unwrap();
    assert_eq!(bpf::device_programs(cgroup.dir()).unwrap().len(), 2);
    assert_eq!(Inmate::enter(&cgroup, ": < /dev/kmsg").code(), Some(2));
    cgroup.replace_devices(None).unwrap();
    assert_eq!(bpf::device_programs(cgroup.dir()).unwrap().len(), 1);
    cgroup.forget_devices().unwrap();
    assert_eq!(Inmate::enter(&cgroup, ": > /dev/kmsg").code(), Some(0));
    cgroup.remove(soon()).unwrap();
}

#[test]
fn a_frozen_subtree_is_killed_and_removed() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("kill");
    let cgroup = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    assert!(!cgroup.is_populated().unwrap());
    let nested = Cgroup {
        record: CgroupRecord { path: cgroup.path().join("x/y"), ..CgroupRecord::default() },
        dir: {
            std::fs::create_dir_all(cgroup.path().join("x/y")).unwrap();
            std::fs::create_dir_all(cgroup.path().join("z")).unwrap();
            std::fs::File::open(cgroup.path().join("x/y")).unwrap().into()
        },
        was_there: true,
    };
    let mut inmates = [Inmate::enter(&cgroup, "true"), Inmate::enter(&nested, "true")];
    assert!(cgroup.is_populated().unwrap());
    assert_eq!(cgroup.procs(false).unwrap(), [pid(&inmates[0].child)]);
    assert_eq!(cgroup.procs(true).unwrap().len(), 2);
    cgroup.freeze(true, soon()).unwrap();
    // a task that is woken leaves the state for a moment: wait, don't look once
    assert!(events::wait(nested.dir(), soon(), |events| events.frozen).unwrap());
    cgroup.freeze(false, soon()).unwrap();
    cgroup.freeze(true, soon()).unwrap();

    let started = Instant::now();
    let short = started + Duration::from_millis(20);
    assert!(!cgroup.wait_unpopulated(short).unwrap());
    assert!(started.elapsed() >= Duration::from_millis(20));
    let error = cgroup.record().remove(Instant::now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("there are 2 processes left in it"), "{error}");

    cgroup.kill().unwrap();
    assert!(cgroup.wait_unpopulated(soon()).unwrap());
    for inmate in &mut inmates {
        inmate.child.wait().unwrap();
    }
    let record = cgroup.record().clone();
    cgroup.remove(soon()).unwrap();
    assert!(!is_there(&record.path));
    assert!(!nested.is_populated().unwrap(), "gone is empty");
    nested.kill().unwrap();
    record.remove(soon()).unwrap();
}

#[test]
fn a_thaw_below_a_frozen_cgroup_says_which() {
    let Some(hierarchy) = hierarchy() else { return };
    let top = Scratch::new("above");
    let below = Cgroup::create(&hierarchy, &top.join("a/b"), &[]).unwrap();
    let above = Cgroup::open(CgroupRecord {
        path: hierarchy.mount_point().join(&*top),
        ..CgroupRecord::default()
    });
    let above = above.unwrap();
    assert!(!below.record().is_frozen().unwrap());
    below.freeze(true, soon()).unwrap();
    assert!(below.record().is_frozen().unwrap());
    above.freeze(true, soon()).unwrap();
    let error = below.freeze(false, soon()).unwrap_err();
    let words = format!("{} above it is frozen", above.path().display());
    assert!(error.to_string().contains(&words), "{error}");
    above.freeze(false, soon()).unwrap();
    below.freeze(false, soon()).unwrap();
    below.remove(soon()).unwrap();
    let gone =
        CgroupRecord { path: hierarchy.mount_point().join("nowhere"), ..CgroupRecord::default() };
    assert!(!gone.is_frozen().unwrap());
}

#[test]
fn everyone_in_a_subtree_gets_a_signal_once() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("signal");
    let cgroup = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    let nested = Cgroup::create(&hierarchy, &path.join("x"), &[]).unwrap();
    let both = || [Inmate::enter(&cgroup, "true"), Inmate::enter(&nested, "true")];
    let ended_by = |inmates: [Inmate; 2], signal: i32| {
        for mut inmate in inmates {
            assert_eq!(inmate.child.wait().unwrap().signal(), Some(signal));
        }
        assert!(cgroup.wait_unpopulated(soon()).unwrap());
    };
    let inmates = both();
    cgroup.signal(libc::SIGUSR1).unwrap();
    ended_by(inmates, libc::SIGUSR1);
    assert!(!cgroup.record().is_frozen().unwrap(), "it goes on");

    let mut inmates = both();
    cgroup.freeze(true, soon()).unwrap();
    // one that ends a process would do so now, frozen or not
    cgroup.signal(libc::SIGWINCH).unwrap();
    assert!(cgroup.record().is_frozen().unwrap(), "what was paused stays so");
    assert!(inmates.iter_mut().all(|inmate| inmate.child.try_wait().unwrap().is_none()));
    cgroup.kill_each(soon()).unwrap();
    ended_by(inmates, libc::SIGKILL);
    nested.remove(soon()).unwrap();
    cgroup.remove(soon()).unwrap();
}

#[test]
fn who_takes_long_to_die_is_waited_for() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("slow");
    let cgroup = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    // the kernel has to take back what he has of memory, page by page
    let words = ["if=/dev/zero", "bs=150000000", "count=1", "status=none"];
    let mut slow = Command::new("dd").args(words).stdout(Stdio::piped()).spawn().unwrap();
    cgroup.add(pid(&slow)).unwrap();
    // the first byte comes when all of it is filled; then the pipe is
    let mut filled = slow.stdout.take().unwrap();
    std::io::Read::read_exact(&mut filled, &mut [0]).unwrap();
    // frozen already: nobody waits for a standstill
    cgroup.freeze(true, soon()).unwrap();
    cgroup.record().empty(soon()).unwrap();
    assert!(!cgroup.is_populated().unwrap());
    assert_eq!(slow.wait().unwrap().signal(), Some(libc::SIGKILL));
    cgroup.remove(soon()).unwrap();
}

#[test]
fn a_cgroup_that_its_last_user_has_split_takes_processes_again() {
    let Some(hierarchy) = hierarchy() else { return };
    let _restore = SubtreeControl::of(&hierarchy);
    let path = Scratch::new("split");
    let huge = std::fs::metadata("/sys/kernel/mm/hugepages/hugepages-2048kB").is_ok();
    if !huge || !hierarchy.has_controller("hugetlb").unwrap() {
        return;
    }
    let limits = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    let settings = limits::plan(&resources(limits)).unwrap().settings;
    let first = Cgroup::create(&hierarchy, &path, &settings).unwrap();
    std::fs::create_dir(first.path().join("inner")).unwrap();
    tree::write(first.dir(), "cgroup.subtree_control", "+hugetlb").unwrap();
    let second = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    assert_eq!(text(&second, "cgroup.subtree_control"), "");
    assert!(!is_there(&second.path().join("inner")));
    Inmate::enter(&second, "true").code();
    second.remove(soon()).unwrap();
}

#[test]
fn a_change_is_whole_or_none() {
    let Some(hierarchy) = hierarchy() else { return };
    let path = Scratch::new("change");
    let cgroup = Cgroup::create(&hierarchy, &path, &[]).unwrap();
    let plan = |json: &str| limits::plan(&resources(json)).unwrap().settings;
    let both = r#"{"unified": {"cgroup.max.depth": "3", "cgroup.max.descendants": "4"}}"#;
    let updated = cgroup.update(&plan(both)).unwrap();
    assert_eq!(text(&cgroup, "cgroup.max.depth"), "3\n");
    assert_eq!(text(&cgroup, "cgroup.max.descendants"), "4\n");
    updated.put_back().unwrap();
    assert_eq!(text(&cgroup, "cgroup.max.depth"), "max\n");
    assert_eq!(text(&cgroup, "cgroup.max.descendants"), "max\n");

    let half = r#"{"unified": {"cgroup.max.depth": "3", "cgroup.max.descendants": "many"}}"#;
    let error = cgroup.update(&plan(half)).unwrap_err();
    let field = "linux.resources.unified[\"cgroup.max.descendants\"]: ";
    assert!(error.to_string().starts_with(field), "{error}");
    assert!(!error.to_string().contains("undoing"), "{error}");
    assert_eq!(text(&cgroup, "cgroup.max.depth"), "max\n");
    cgroup.remove(soon()).unwrap();
}

#[test]
fn the_top_is_the_mount_and_nothing_above_it() {
    let Some(hierarchy) = hierarchy() else { return };
    let top = hierarchy.mount_point();
    for below in ["", "nowhere", "nowhere/at/all"] {
        let cgroup = if below.is_empty() { top.to_owned() } else { top.join(below) };
        assert_eq!(crate::sys::fs::top_of_cgroup2(&cgroup), top, "{}", cgroup.display());
    }
}
