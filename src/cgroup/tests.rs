//! On the real kernel, in a cgroup of each test's own; as root.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::limits::tests::resources;
use super::*;

/// A path in the hierarchy that nobody else has.
fn unique(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("tare-test-{}-{count}-{name}", std::process::id()))
}

/// `None` where the tests may not make cgroups.
fn hierarchy() -> Option<Hierarchy> {
    let hierarchy = Hierarchy::discover().ok()?;
    let probe = hierarchy.mount_point().join(unique("probe"));
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
    let top = unique("parents");
    let cgroup = Cgroup::create(&hierarchy, &top.join("a/b"), &[]).unwrap();
    assert_eq!(cgroup.record().made_parents, 2);
    let sibling = Cgroup::create(&hierarchy, &top.join("c"), &[]).unwrap();
    assert_eq!(sibling.record().made_parents, 0);

    let json = serde_json::to_string(cgroup.record()).unwrap();
    let record: CgroupRecord = serde_json::from_str(&json).unwrap();
    cgroup.remove(soon()).unwrap();
    let top = hierarchy.mount_point().join(top);
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
    let path = unique("used");
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
fn a_failed_create_leaves_nothing() {
    let Some(hierarchy) = hierarchy() else { return };
    let top = unique("failed");
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
        let error = Cgroup::create(&hierarchy, &top.join("a"), &settings).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!is_there(&hierarchy.mount_point().join(&top)));
    }
    // the kernel takes no name of two lines; its parent has been made by then
    let error = Cgroup::create(&hierarchy, &top.join("a\nb"), &[]).unwrap_err();
    assert!(error.is_errno(Errno::EINVAL), "{error}");
    assert!(!is_there(&hierarchy.mount_point().join(&top)));
}

#[test]
fn settings_are_written_and_controllers_enabled_on_the_way() {
    let Some(hierarchy) = hierarchy() else { return };
    let mut json = r#"{"unified": {"cgroup.max.depth": "3"}}"#;
    // the one controller that a hybrid host may have left for cgroup2
    let huge = std::fs::metadata("/sys/kernel/mm/hugepages/hugepages-2048kB").is_ok();
    let has_hugetlb = huge && hierarchy.controllers().unwrap().contains("hugetlb");
    if has_hugetlb {
        json = r#"{"unified": {"cgroup.max.depth": "3"},
                   "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    }
    let top_file = hierarchy.mount_point().join("cgroup.subtree_control");
    let before = std::fs::read_to_string(&top_file).unwrap();
    let settings = limits::plan(&resources(json)).unwrap().settings;
    let path = unique("settings").join("a");
    let cgroup = Cgroup::create(&hierarchy, &path, &settings).unwrap();
    assert_eq!(text(&cgroup, "cgroup.max.depth"), "3\n");
    if has_hugetlb {
        assert_eq!(text(&cgroup, "hugetlb.2MB.max"), "4194304\n");
        assert_eq!(text(&cgroup, "hugetlb.2MB.rsvd.max"), "4194304\n");
    }
    cgroup.remove(soon()).unwrap();
    if !before.contains("hugetlb") && has_hugetlb {
        // as it was before the test
        std::fs::OpenOptions::new()
            .write(true)
            .open(&top_file)
            .unwrap()
            .write_all(b"-hugetlb")
            .unwrap();
    }
}

#[test]
fn devices_are_refused_and_allowed_by_the_kernel() {
    let Some(hierarchy) = hierarchy() else { return };
    let cgroup = Cgroup::create(&hierarchy, &unique("devices"), &[]).unwrap();
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
    cgroup.replace_devices(rules(also).as_ref()).unwrap();
    assert_eq!(bpf::device_programs(cgroup.dir()).unwrap().len(), 1);
    for (script, code) in [(": < /dev/kmsg", 0), (": > /dev/kmsg", 2)] {
        assert_eq!(Inmate::enter(&cgroup, script).code(), Some(code), "{script}");
    }
    cgroup.replace_devices(None).unwrap();
    assert_eq!(Inmate::enter(&cgroup, ": > /dev/kmsg").code(), Some(0));
    cgroup.remove(soon()).unwrap();
}

#[test]
fn a_frozen_subtree_is_killed_and_removed() {
    let Some(hierarchy) = hierarchy() else { return };
    let cgroup = Cgroup::create(&hierarchy, &unique("kill"), &[]).unwrap();
    assert!(!cgroup.is_populated().unwrap());
    let nested = Cgroup {
        record: CgroupRecord { path: cgroup.path().join("x/y"), made_parents: 0 },
        dir: {
            std::fs::create_dir_all(cgroup.path().join("x/y")).unwrap();
            std::fs::create_dir_all(cgroup.path().join("z")).unwrap();
            std::fs::File::open(cgroup.path().join("x/y")).unwrap().into()
        },
    };
    let mut inmates = [Inmate::enter(&cgroup, "true"), Inmate::enter(&nested, "true")];
    assert!(cgroup.is_populated().unwrap());
    assert_eq!(cgroup.procs(false).unwrap(), [pid(&inmates[0].child)]);
    assert_eq!(cgroup.procs(true).unwrap().len(), 2);
    cgroup.freeze(true, soon()).unwrap();
    assert!(nested.frozen().unwrap());
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
