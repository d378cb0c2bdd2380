//! Id maps of new user namespaces: written by us where the kernel lets us, else
//! by newuidmap and newgidmap, which know what /etc/subuid gives a user.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{IdMapping, MountKind, MountPlan, Plan};
use crate::sys::caller::caller;
use crate::sys::process::close_range_on_exec;
use crate::sys::signals::unblock_signals_of;

/// Where the two programs may be. PATH has no say: the last ones are where NixOS
/// and local builds have them.
const DIRECTORIES: [&str; 6] =
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin", "/usr/local/bin"];

/// One of the two kinds of ids, with what belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The field of the configuration.
    field: &'static str,
    /// The file of a process that takes the map.
    file: &'static str,
    /// The program that writes it with more powers than ours.
    program: &'static str,
    /// Who has which ids.
    ranges: &'static str,
    power: Capability,
}

/// User ids.
pub const USERS: Kind = Kind {
    field: "linux.uidMappings",
    file: "uid_map",
    program: "newuidmap",
    ranges: "/etc/subuid",
    power: Capability::CAP_SETUID,
};

/// Group ids.
pub const GROUPS: Kind = Kind {
    field: "linux.gidMappings",
    file: "gid_map",
    program: "newgidmap",
    ranges: "/etc/subgid",
    power: Capability::CAP_SETGID,
};

/// Who writes a map.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writer {
    Us,
    Program(PathBuf),
}

/// How the maps of a new user namespace get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    uid: (Writer, Vec<IdMapping>),
    gid: (Writer, Vec<IdMapping>),
    /// The kernel's price for a group map without CAP_SETGID: a process that
    /// could drop a group could read what is closed to that group alone.
    denies_groups: bool,
}

impl IdMaps {
    /// Decides for the user namespace that this plan makes; `None` if it makes
    /// none. Nothing is touched.
    ///
    /// # Errors
    /// Maps that need a program which is not there; groups for a process that
    /// may not have any; idmapped mounts of a caller who may make none.
    pub fn of(plan: &Plan) -> Result<Option<Self>> {
        check_mounts(plan)?;
        let namespaces = &plan.namespaces;
        if !namespaces.makes(CloneFlags::CLONE_NEWUSER) {
            return Ok(None);
        }
        let maps = Self::new(namespaces.uid_map.clone(), namespaces.gid_map.clone())?;
        if maps.denies_groups && !plan.process.groups.is_empty() {
            return Err(Error::unsupported(
                "process.user.additionalGids: with a map of the own group alone, the kernel lets \
                 an ordinary user change no groups (setgroups is denied)",
            )
            .hint("linux.gidMappings with a range of /etc/subgid do"));
        }
        Ok(Some(maps))
    }

    /// Decides for these maps.
    ///
    /// # Errors
    /// As for [`IdMaps::of`].
    pub fn new(uid_map: Vec<IdMapping>, gid_map: Vec<IdMapping>) -> Result<Self> {
        let uid = (USERS.writer(&uid_map, caller().uid)?, uid_map);
        let gid = (GROUPS.writer(&gid_map, caller().gid)?, gid_map);
        let denies_groups = gid.0 == Writer::Us && !GROUPS.has_power();
        Ok(IdMaps { uid, gid, denies_groups })
    }

    /// Writes the maps of a process that is in its new user namespace.
    ///
    /// # Errors
    /// The field, and what the kernel or the program says, with what the user
    /// has in /etc/subuid.
    pub fn write(&self, pid: Pid) -> Result<()> {
        USERS.write(pid, &self.uid)?;
        if self.denies_groups {
            write_proc(pid, "setgroups", "deny").step(|| GROUPS.field)?;
        }
        GROUPS.write(pid, &self.gid)
    }
}

/// To show files under other owners takes root where their file system was
/// mounted.
fn check_mounts(plan: &Plan) -> Result<()> {
    let is_idmapped = |m: &&MountPlan| matches!(&m.kind, MountKind::Bind(b) if b.idmap.is_some());
    match plan.mounts.iter().find(is_idmapped) {
        Some(mount) if !caller().capable => {
            Err(Error::unsupported("idmap: an ordinary user can make no idmapped mount")
                .step(mount.label()))
        }
        _ => Ok(()),
    }
}

impl Kind {
    fn has_power(self) -> bool {
        caps::has_cap(None, CapSet::Effective, self.power).unwrap_or(false)
    }

    fn writer(self, map: &[IdMapping], own: u32) -> Result<Writer> {
        // user_namespaces(7): one's own id alone, or with power over all
        let is_own = matches!(map, [only] if only.size == 1 && only.host == own);
        if is_own || self.has_power() {
            return Ok(Writer::Us);
        }
        self.find_program().map(Writer::Program).ok_or_else(|| {
            Error::unsupported(format!(
                "{}: an ordinary user maps own id {own} alone, or needs {} and there is none",
                self.field, self.program
            ))
            .hint("Debian has it in the package uidmap, others in shadow-utils")
        })
    }

    /// The program that maps more than one's own id.
    pub fn find_program(self) -> Option<PathBuf> {
        let runs = |path: &Path| {
            let found = std::fs::metadata(path);
            found.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        DIRECTORIES.iter().map(|dir| Path::new(dir).join(self.program)).find(|path| runs(path))
    }

    fn write(self, pid: Pid, (writer, map): &(Writer, Vec<IdMapping>)) -> Result<()> {
        match writer {
            Writer::Us => write_proc(pid, self.file, &map_text(map)).step(|| self.field),
            Writer::Program(program) => self.run(program, pid, map).map_err(|e| {
                let ranges = own_ranges(self);
                let given = ranges.iter().map(|(first, size)| format!("{first}:{size}"));
                let given = given.collect::<Vec<_>>().join(", ");
                let given = if given.is_empty() { "nothing".to_owned() } else { given };
                e.step(self.field).hint(format!(
                    "{} gives uid {} {given}",
                    self.ranges,
                    caller().uid
                ))
            }),
        }
    }

    fn run(self, program: &Path, pid: Pid, map: &[IdMapping]) -> Result<()> {
        // what the caller left open is for the container at most
        close_range_on_exec(3).step(|| "keep descriptors from a program")?;
        let ids = map.iter().flat_map(|m| [m.container, m.host, m.size]);
        let mut command = Command::new(program);
        command.arg(pid.to_string()).args(ids.map(|id| id.to_string()));
        command.env_clear().stdin(Stdio::null());
        unblock_signals_of(&mut command);
        let output = command.output().step(|| program.display().to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let said = said.collect::<Vec<_>>().join("; ");
        let how = match output.status.code() {
            Some(code) => format!("{} ended with code {code}", program.display()),
            None => format!("{} was killed", program.display()),
        };
        Err(Error::new(
            ErrorKind::System,
            if said.is_empty() { how } else { format!("{how}: {said}") },
        ))
    }
}

/// The ranges that /etc/subuid or /etc/subgid gives to the caller, as first id
/// and how many; by name and by number (subuid(5)). A directory service may
/// give others, which only the programs know.
pub fn own_ranges(kind: Kind) -> Vec<(u32, u32)> {
    let uid = caller().uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let text = std::fs::read_to_string(kind.ranges).unwrap_or_default();
    ranges(&text, &uid, name)
}

fn ranges(text: &str, uid: &str, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let size: u32 = fields.next()?.parse().ok()?;
        let is_ours = who == uid || Some(who) == name;
        (is_ours && size > 0 && first.checked_add(size).is_some()).then_some((first, size))
    };
    text.lines().filter_map(range).collect()
}

/// A map as the kernel takes it.
pub(super) fn map_text(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

fn write_proc(pid: Pid, name: &str, text: &str) -> Result<()> {
    let mut file =
        File::options().write(true).open(format!("/proc/{pid}/{name}")).step(|| name.to_owned())?;
    // one write: the kernel takes a map whole or not at all
    file.write_all(text.as_bytes()).step(|| format!("write {name}"))
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# who\nann:100000:65536\n1000:200000:10\nbob:1:1\nann:x:1\nann:4294967295:2\n";
        assert_eq!(ranges(text, "1000", Some("ann")), [(100_000, 65536), (200_000, 10)]);
        assert_eq!(ranges(text, "1000", None), [(200_000, 10)]);
        assert_eq!(ranges(text, "7", None), []);
    }
}
