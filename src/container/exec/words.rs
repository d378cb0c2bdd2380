//! From the words of an `exec` to its process: the container's own, or one from a
//! file, with what the words change.

use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};

use super::kept::Kept;
use crate::error::{Error, Result, Step};
use crate::spec;

/// What the caller says of the process; without a word, it is as the container's.
#[derive(Debug, Clone, Default)]
pub struct ExecWords {
    /// A file with a process object.
    pub process: Option<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// NAME=VALUE, or NAME for the caller's own value.
    pub env: Vec<String>,
    /// `UID[:GID]`.
    pub user: Option<String>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Further capabilities.
    pub caps: Vec<String>,
    /// A terminal.
    pub tty: Option<bool>,
    /// no_new_privs.
    pub no_new_privs: Option<bool>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
}

impl ExecWords {
    /// The process, as a configuration would have it.
    pub(super) fn process(&self, kept: &Kept) -> Result<Process> {
        let mut process = match &self.process {
            Some(path) => from_file(path, kept)?,
            None => {
                let mut own = kept.process.clone();
                // of the container's first process, and none of this one's
                own.set_args(None).set_terminal(None).set_console_size(None);
                own
            }
        };
        if !self.args.is_empty() {
            process.set_args(Some(self.args.clone()));
        } else if self.process.is_none() {
            return Err(Error::invalid("no command: give one after the id, or --process"));
        }
        self.change(&mut process)?;
        Ok(process)
    }

    fn change(&self, process: &mut Process) -> Result<()> {
        if let Some(cwd) = &self.cwd {
            if !cwd.is_absolute() {
                return Err(Error::invalid(format!("--cwd: {cwd:?} is not an absolute path")));
            }
            process.set_cwd(cwd.clone());
        }
        if let Some(tty) = self.tty {
            process.set_terminal(Some(tty));
        }
        if self.no_new_privs.is_some() {
            process.set_no_new_privileges(self.no_new_privs);
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        self.env.iter().try_for_each(|word| set_env(process, word))?;
        self.set_user(process)?;
        self.caps.iter().try_for_each(|name| add_capability(process, name))
    }

    fn set_user(&self, process: &mut Process) -> Result<()> {
        let mut user = process.user().clone();
        if let Some(text) = &self.user {
            let (uid, gid) = match text.split_once(':') {
                Some((uid, gid)) => (uid, Some(gid)),
                None => (text.as_str(), None),
            };
            user.set_uid(number(uid, text)?);
            if let Some(gid) = gid {
                user.set_gid(number(gid, text)?);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.additional_gids);
            user.set_additional_gids(Some(groups));
        }
        process.set_user(user);
        Ok(())
    }
}

/// What a file leaves out is as the container's, where leaving it out can't mean
/// "none": engines write the whole process, and leave out what is false.
fn from_file(path: &std::path::Path, kept: &Kept) -> Result<Process> {
    let mut process = spec::load_process(path).step(|| "--process")?;
    let own = &kept.process;
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    if process.user().umask().is_none() {
        let umask = own.user().umask();
        process.user_mut().set_umask(umask);
    }
    Ok(process)
}

fn number(digits: &str, text: &str) -> Result<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(id) if plain => Ok(id),
        _ => Err(Error::invalid(format!("--user: {text:?} is not UID[:GID], in numbers"))),
    }
}

/// Adds a variable, or puts it in the place of those with its name.
fn set_env(process: &mut Process, word: &str) -> Result<()> {
    let entry = match word.split_once('=') {
        Some(("", _)) => {
            return Err(Error::invalid(format!("--env: {word:?} is not NAME=VALUE")));
        }
        Some(_) => Some(word.to_owned()),
        None if word.is_empty() => return Err(Error::invalid("--env: is empty")),
        None => std::env::var(word).ok().map(|value| format!("{word}={value}")),
    };
    let Some(entry) = entry else { return Ok(()) };
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|other| name(other) != name(&entry));
    env.push(entry);
    process.set_env(Some(env));
    Ok(())
}

/// Into the sets that execve looks at. Ambient only where it is inheritable: the
/// kernel takes no other (capabilities(7)).
fn add_capability(process: &mut Process, name: &str) -> Result<()> {
    let unknown = |_| Error::invalid(format!("--cap: {name:?} is not a capability"));
    let added = serde_json::from_value(serde_json::Value::from(name)).map_err(unknown)?;
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(added);
        Some(set)
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    if sets.inheritable().as_ref().is_some_and(|set| set.contains(&added)) {
        sets.set_ambient(with(sets.ambient()));
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

/// The crate's own default has some.
fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_permitted(None)
        .set_ambient(None);
    sets
}
