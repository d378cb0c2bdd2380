//! linux.resources as writes to the files of cgroup2: a pure function.
//!
//! Nothing is read from the host here, so that a wrong number costs nothing
//! and names its field. Where the spec speaks the language of cgroup v1, the
//! conversions are those that callers know from other runtimes.

mod change;
mod cpu;
mod io;
mod memory;

use std::borrow::Cow;

use oci_spec::runtime::{LinuxNetwork, LinuxPids, LinuxResources};

use crate::error::{Error, Result};
pub use change::{Change, change};

/// One write to one file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The file: `memory.max`.
    pub file: Cow<'static, str>,
    /// What is written, in one write.
    pub value: String,
    /// The field of the config that asks for it: `linux.resources.memory.limit`.
    pub field: Cow<'static, str>,
    /// What to do when the kernel does not have the file.
    pub absent: Absent,
    /// What has to be more than is in use.
    pub above_use: Option<AboveUse>,
}

/// A limit that is refused if as much is in use already
/// (linux.resources.memory.checkBeforeUpdate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AboveUse {
    /// What the limit is of.
    pub what: &'static str,
    /// The limit.
    pub bytes: u64,
    /// The file that has the use, in bytes.
    pub file: &'static str,
}

/// What to do when a file is not there although its controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// It is an error.
    Fail,
    /// The value is what holds without the file, too.
    Ignore,
    /// This other file takes this value instead.
    Instead(&'static str, String),
}

/// What the resources come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsPlan {
    /// The writes, in their order.
    pub settings: Vec<Setting>,
    /// Fields that mean nothing to cgroup2 and that callers send all the same.
    pub warnings: Vec<String>,
}

impl Setting {
    pub(super) fn new(
        file: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        field: impl Into<Cow<'static, str>>,
    ) -> Self {
        Setting {
            file: file.into(),
            value: value.into(),
            field: field.into(),
            absent: Absent::Fail,
            above_use: None,
        }
    }

    fn when_absent(mut self, absent: Absent) -> Self {
        self.absent = absent;
        self
    }

    /// The controller whose file it is; none for the files of every cgroup.
    pub fn controller(&self) -> Option<&str> {
        let (controller, file) = self.file.split_once('.')?;
        // pressure figures are there with or without the controller
        (controller != "cgroup" && file != "pressure").then_some(controller)
    }

    /// True if it is asked for by the file's own name.
    pub(super) fn is_unified(&self) -> bool {
        self.field.starts_with(UNIFIED)
    }

    /// True for a file in which each write changes one line: that of a device or
    /// of a resource, which the line begins with.
    pub(super) fn is_keyed(&self) -> bool {
        is_keyed(&self.file)
    }
}

const UNIFIED: &str = "linux.resources.unified";

/// Turns the resources, but for the devices, into writes.
///
/// # Errors
/// A number out of range, or a field that cgroup2 has no means for.
pub fn plan(resources: &LinuxResources) -> Result<LimitsPlan> {
    let mut plan = LimitsPlan::default();
    if let Some(memory) = resources.memory() {
        memory::plan(memory, &mut plan)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::plan(cpu, &mut plan)?;
    }
    if let Some(pids) = resources.pids() {
        if pids.limit() == 0 {
            // before podman 5.5 and CRI-O 1.29, callers meant no limit
            let text = "linux.resources.pids.limit: 0 lets nothing run beside the container's init: \
                        -1 is no limit";
            plan.warnings.push(text.to_owned());
        }
        plan.settings.push(pids_max(pids)?);
    }
    if let Some(block_io) = resources.block_io() {
        io::block_io(block_io, &mut plan)?;
    }
    for (at, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        io::hugepages(at, limit, &mut plan)?;
    }
    if let Some(rdma) = resources.rdma() {
        io::rdma(rdma, &mut plan)?;
    }
    if let Some(network) = resources.network() {
        no_network(network)?;
    }
    for setting in &mut plan.settings {
        // "no limit" holds without the controller as well
        if setting.value == "max" || setting.value.starts_with("max ") {
            setting.absent = Absent::Ignore;
        }
    }
    if let Some(unified) = resources.unified() {
        let mut entries: Vec<_> = unified.iter().collect();
        // a map has no order, and the same config should do the same twice
        entries.sort_unstable();
        for (file, value) in entries {
            unified_file(file, value, &mut plan)?;
        }
    }
    Ok(plan)
}

fn pids_max(pids: &LinuxPids) -> Result<Setting> {
    let field = "linux.resources.pids.limit";
    let value = match pids.limit() {
        -1 => "max".to_owned(),
        // Zero is a limit since the spec's version 1.3: nothing beside the
        // init. As a figure it would keep the init itself from being cloned
        // into the cgroup; one, which the spec names for systemd, is the same
        // to everything that runs inside. A `pids` without a limit is parsed
        // as zero, too.
        0 => "1".to_owned(),
        limit if limit > 0 => limit.to_string(),
        limit => {
            return Err(Error::invalid(format!(
                "{field}: {limit} is not a number of tasks, nor -1 for no limit"
            )));
        }
    };
    Ok(Setting::new("pids.max", value, field))
}

fn no_network(network: &LinuxNetwork) -> Result<()> {
    let field = "linux.resources.network";
    if network.class_id().is_some_and(|id| id != 0) {
        return Err(Error::unsupported(format!("{field}.classID: cgroup2 has no network classes")));
    }
    if network.priorities().iter().flatten().next().is_some() {
        return Err(Error::unsupported(format!(
            "{field}.priorities: cgroup2 has no network priorities"
        )));
    }
    Ok(())
}

/// A file by its own name: it wins over what other fields wrote there.
fn unified_file(file: &str, value: &str, plan: &mut LimitsPlan) -> Result<()> {
    let field = format!("{UNIFIED}[\"{file}\"]");
    let is_name = file.split_once('.').is_some_and(|(controller, rest)| {
        !controller.is_empty() && !rest.is_empty() && !file.contains(['/', '\0'])
    });
    if !is_name || file.contains("..") {
        return Err(Error::invalid(format!("{field}: not the name of a cgroup file")));
    }
    if !is_keyed(file) {
        plan.settings.retain(|setting| setting.file != file);
    }
    let mut lines = value.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    // the kernel reads one line a write
    for line in std::iter::once(first).chain(lines) {
        plan.settings.push(Setting::new(file.to_owned(), line, field.clone()));
    }
    Ok(())
}

fn is_keyed(file: &str) -> bool {
    ["io.", "rdma.", "misc.", "dmem."].iter().any(|controller| file.starts_with(controller))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Resources from the text of their JSON.
    pub(in crate::cgroup) fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    /// `file=value` of each write, or the error.
    pub(in crate::cgroup) fn writes(json: &str) -> String {
        match plan(&resources(json)) {
            Ok(plan) => shown(&plan),
            Err(e) => e.to_string(),
        }
    }

    pub(in crate::cgroup) fn shown(plan: &LimitsPlan) -> String {
        let writes = plan.settings.iter().map(|s| format!("{}={}", s.file, s.value));
        writes.collect::<Vec<_>>().join("; ")
    }

    /// Holds a table of JSON and the writes that it comes to.
    pub(in crate::cgroup) fn check(table: &[(&str, &str)]) {
        for (json, expected) in table {
            assert_eq!(writes(json), *expected, "{json}");
        }
    }

    #[test]
    fn no_task_at_all_is_a_warning() {
        let warnings = |json| plan(&resources(json)).unwrap().warnings.len();
        assert_eq!(warnings(r#"{"pids": {"limit": 0}}"#), 1);
        assert_eq!(warnings(r#"{"pids": {"limit": -1}}"#), 0);
        assert_eq!(warnings(r#"{"pids": {"limit": 1}}"#), 0);
    }

    #[test]
    fn pids() {
        check(&[
            (r#"{"pids": {"limit": 64}}"#, "pids.max=64"),
            (r#"{"pids": {"limit": -1}}"#, "pids.max=max"),
            (r#"{"pids": {"limit": 0}}"#, "pids.max=1"),
            (
                r#"{"pids": {"limit": -2}}"#,
                "linux.resources.pids.limit: -2 is not a number of tasks, nor -1 for no limit",
            ),
            ("{}", ""),
        ]);
    }

    #[test]
    fn unified_wins() {
        check(&[
            (
                r#"{"unified": {"memory.high": "1000", "cgroup.max.depth": "3"}}"#,
                "cgroup.max.depth=3; memory.high=1000",
            ),
            (
                r#"{"memory": {"limit": 4096, "reservation": 10}, "unified": {"memory.max": "8192"}}"#,
                "memory.low=10; memory.max=8192",
            ),
            (
                r#"{"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n"}}"#,
                "io.max=8:0 rbps=1; io.max=8:16 rbps=2",
            ),
            (r#"{"unified": {"misc.max": "a 1\nb 2"}}"#, "misc.max=a 1; misc.max=b 2"),
            (r#"{"unified": {"cpuset.cpus": ""}}"#, "cpuset.cpus="),
            (
                r#"{"unified": {"../memory.max": "1"}}"#,
                r#"linux.resources.unified["../memory.max"]: not the name of a cgroup file"#,
            ),
            (
                r#"{"unified": {"a/memory.max": "1"}}"#,
                r#"linux.resources.unified["a/memory.max"]: not the name of a cgroup file"#,
            ),
            (
                r#"{"unified": {"..": "1"}}"#,
                r#"linux.resources.unified[".."]: not the name of a cgroup file"#,
            ),
            (
                r#"{"unified": {"memory": "1"}}"#,
                r#"linux.resources.unified["memory"]: not the name of a cgroup file"#,
            ),
        ]);
    }

    #[test]
    fn network_has_no_means() {
        check(&[
            (r#"{"network": {}}"#, ""),
            (r#"{"network": {"classID": 0, "priorities": []}}"#, ""),
            (
                r#"{"network": {"classID": 1048577}}"#,
                "linux.resources.network.classID: cgroup2 has no network classes",
            ),
            (
                r#"{"network": {"priorities": [{"name": "eth0", "priority": 5}]}}"#,
                "linux.resources.network.priorities: cgroup2 has no network priorities",
            ),
        ]);
    }

    #[test]
    fn files_know_their_controller() {
        for (file, controller) in [
            ("memory.max", Some("memory")),
            ("hugetlb.2MB.rsvd.max", Some("hugetlb")),
            ("cgroup.max.depth", None),
            ("cpu.pressure", None),
        ] {
            assert_eq!(Setting::new(file, "", "").controller(), controller);
        }
    }
}
