//! Bundles: a directory with the probe as all there is in its rootfs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A bundle in a directory of its own, gone with this value.
pub struct Bundle {
    dir: TempDir,
}

impl Bundle {
    /// The base config after `edit`.
    pub fn new(edit: impl FnOnce(&mut Value)) -> Self {
        let bundle = Bundle { dir: super::temp_dir() };
        let mut config = base_config();
        edit(&mut config);
        std::fs::create_dir(bundle.rootfs()).unwrap();
        link_or_copy(super::probe(), &bundle.rootfs().join("probe"));
        bundle.write_config(&config.to_string());
        bundle
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// A container whose root is this user outside makes its mount points in
    /// the rootfs: as with engines, the rootfs is his.
    pub fn give_rootfs_to(&self, user: u32) {
        std::os::unix::fs::chown(self.rootfs(), Some(user), Some(user)).unwrap();
    }

    /// All of it is this user's.
    pub fn give_to(&self, user: u32) {
        self.give_rootfs_to(user);
        std::os::unix::fs::chown(self.path(), Some(user), Some(user)).unwrap();
    }

    /// Any text as config.json.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.path().join("config.json"), text).unwrap();
    }

    pub fn config(&self) -> Value {
        let text = std::fs::read_to_string(self.path().join("config.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Changes config.json once more.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        edit(&mut config);
        self.write_config(&config.to_string());
    }
}

/// A link costs nothing; the temporary directory may be another file system.
pub fn link_or_copy(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        copy_program(from, to);
    }
}

/// Not by this process: a child that another test is just making would have the file open
/// for writing, and nobody could execute it.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// The program: the probe with these words.
pub fn args(config: &mut Value, words: &[&str]) {
    let mut all = vec!["/probe"];
    all.extend(words);
    config["process"]["args"] = json!(all);
}

/// Another mount, after the ones that are there.
pub fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// The container shares this namespace with the host.
pub fn drop_namespace(config: &mut Value, kind: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != kind);
    if kind == "network" {
        // sysfs shows a network namespace, and can be mounted by its owner only
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
    }
}

/// The container joins the namespace behind this path.
pub fn namespace_path(config: &mut Value, kind: &str, path: &str) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != kind);
    namespaces.push(json!({"type": kind, "path": path}));
}

/// The container's root is an ordinary user outside: see `give_rootfs_to`.
pub fn map_users(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

/// What a user without further ids can make: the container's root is this user
/// outside, and there is nobody else.
pub fn map_self(config: &mut Value, user: u32) {
    let linux = config["linux"].as_object_mut().unwrap();
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": user, "size": 1}]);
    linux.insert("uidMappings".into(), map.clone());
    linux.insert("gidMappings".into(), map);
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

/// What callers give: the config that the `spec` command of runtimes writes.
fn base_config() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "report"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "probe",
        "mounts": base_mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "network"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    });
    if std::env::var_os("TARE_TEST_NO_DEVICES").is_some() {
        config["linux"].as_object_mut().unwrap().remove("resources");
    }
    config
}

fn base_mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
    ])
}
