//! Changing the limits of a cgroup that is in use: the whole change or none of
//! it, as far as the kernel lets that be done.

use nix::errno::Errno;

use super::limits::{Absent, Setting};
use super::{Cgroup, Hierarchy, tree};
use crate::error::Result;

/// A change that is in effect, and can be taken back.
#[derive(Debug)]
pub struct Updated<'a> {
    cgroup: &'a Cgroup,
    /// What was there before each write, in their order.
    before: Vec<Setting>,
    /// systemd knows of the change, and that is all of `before`.
    is_told: bool,
}

impl Cgroup {
    /// Writes settings to a cgroup in use. Controllers that they need and the
    /// cgroup does not have yet are enabled on the way down to it.
    ///
    /// # Errors
    /// A controller that is not to be had; a value that the kernel, or systemd
    /// for a unit of its own, refuses. What was written before is put back; where
    /// that fails, the error says so.
    pub fn update(&self, settings: &[Setting]) -> Result<Updated<'_>> {
        let mut updated = Updated { cgroup: self, before: Vec::new(), is_told: false };
        if settings.is_empty() {
            return Ok(updated);
        }
        self.check_use(settings)?;
        if let Some(scope) = &self.record().scope {
            // systemd writes to the files itself: what was there is known before
            updated.before = settings.iter().filter_map(|s| self.before(s)).collect();
            updated.is_told = true;
            if let Err(e) = scope.set_properties(settings) {
                // its answer may only have been late
                return Err(e.undone(updated.put_back()));
            }
        }
        let mut order: Vec<&Setting> = settings.iter().collect();
        // it may cost a process its life, which can't be put back: after all
        // that can fail
        order.sort_by_key(|setting| setting.file == "memory.max");
        let done = self
            .enable_for(settings)
            .and_then(|()| write_all(order.into_iter(), |setting| updated.write(setting)));
        match done {
            Ok(()) => Ok(updated),
            Err(e) => Err(e.undone(updated.put_back())),
        }
    }

    /// Enables the controllers that these settings need. A cgroup that was made
    /// by another view of the hierarchy has what it has.
    fn enable_for(&self, settings: &[Setting]) -> Result<()> {
        let hierarchy = Hierarchy::discover()?;
        match self.path().strip_prefix(hierarchy.mount_point()) {
            Ok(path) => tree::enable_controllers(&hierarchy, path, self, settings),
            Err(_other_view) => Ok(()),
        }
    }

    /// What is in a file now, as the setting that puts it there again; `None`
    /// where that is not known.
    fn before(&self, setting: &Setting) -> Option<Setting> {
        let read = |file: &str| tree::read(self.dir(), file);
        let (file, value, text) = match (read(&setting.file), &setting.absent) {
            (Err(Errno::ENOENT), Absent::Instead(file, value)) => {
                ((*file).into(), value, read(file).ok()?)
            }
            (text, _) => (setting.file.clone(), &setting.value, text.ok()?),
        };
        let mut before = Setting::new(file, value.as_str(), setting.field.clone());
        before.value = value_before(&before, &text)?;
        Some(before)
    }
}

impl Updated<'_> {
    /// Puts back what was there before, the last write first.
    ///
    /// # Errors
    /// The kernel refuses it; the rest is put back all the same.
    pub fn put_back(mut self) -> Result<()> {
        let before: Vec<Setting> = std::mem::take(&mut self.before).into_iter().rev().collect();
        let told = match (self.is_told, &self.cgroup.record().scope) {
            (true, Some(scope)) => scope.set_properties(&before),
            _ => Ok(()),
        };
        let (mut refused, mut written) = (Vec::new(), Ok(()));
        for setting in &before {
            match self.write(setting) {
                Err(e) if e.is_errno(Errno::EINVAL) => refused.push(setting),
                other => written = written.and(other),
            }
        }
        let again = refused.into_iter().map(|setting| self.write(setting));
        again.fold(told.and(written), Result::and)
    }

    fn write(&mut self, setting: &Setting) -> Result<()> {
        let before = self.cgroup.before(setting).filter(|_| !self.is_told);
        self.cgroup.write(setting)?;
        self.before.extend(before);
        Ok(())
    }
}

/// Writes settings in their order. The kernel holds some files against each other (a
/// burst is no more than its quota), and whether one is to grow or to shrink first
/// depends on what is there: what it refuses gets a second try after the others.
pub(super) fn write_all<'a>(
    settings: impl Iterator<Item = &'a Setting>,
    mut write: impl FnMut(&Setting) -> Result<()>,
) -> Result<()> {
    let mut refused = Vec::new();
    for setting in settings {
        match write(setting) {
            Err(e) if e.is_errno(Errno::EINVAL) => refused.push(setting),
            other => other?,
        }
    }
    refused.into_iter().try_for_each(write)
}

/// The value that puts back what a file shows, where `written` is about to be
/// written; `None` for files that show something else than they take.
fn value_before(written: &Setting, text: &str) -> Option<String> {
    if !written.is_keyed() {
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default();
        let is_value = lines.next().is_none() && written.file != "cgroup.subtree_control";
        return is_value.then(|| line.to_owned());
    }
    let first = written.value.split_ascii_whitespace().next().unwrap_or_default();
    // `300` and `default 300` are the same to files of weights
    let is_key = first.contains(':') || !written.file.starts_with("io.");
    let key = if is_key { first } else { "default" };
    let has_key = |line: &&str| line.split_ascii_whitespace().next() == Some(key);
    if let Some(line) = text.lines().find(has_key) {
        return Some(line.trim_end().to_owned());
    }
    match written.file.as_ref() {
        "io.max" => Some(format!("{key} rbps=max wbps=max riops=max wiops=max")),
        "io.weight" | "io.bfq.weight" => Some(format!("{key} default")),
        "io.latency" => Some(format!("{key} target=0")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_shows_is_what_puts_it_back() {
        for (file, value, text, before) in [
            ("memory.max", "4096", "max\n", Some("max")),
            ("cpu.max", "5000 100000", "max 100000\n", Some("max 100000")),
            ("cpuset.cpus", "0", "\n", Some("")),
            ("memory.reclaim", "4096", "", Some("")),
            ("cgroup.subtree_control", "+pids", "memory\n", None),
            ("memory.stat", "1", "anon 0\nfile 0\n", None),
            (
                "io.max",
                "8:0 rbps=9",
                "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=2 wbps=3 riops=max wiops=max\n",
                Some("8:0 rbps=2 wbps=3 riops=max wiops=max"),
            ),
            ("io.max", "8:0 rbps=9", "", Some("8:0 rbps=max wbps=max riops=max wiops=max")),
            ("io.weight", "300", "default 100\n8:0 200\n", Some("default 100")),
            ("io.weight", "default 300", "default 100\n", Some("default 100")),
            ("io.bfq.weight", "8:16 300", "default 100\n8:0 200\n", Some("8:16 default")),
            ("io.latency", "8:0 target=5", "", Some("8:0 target=0")),
            (
                "rdma.max",
                "mlx hca_handle=3",
                "mlx hca_handle=max hca_object=7\n",
                Some("mlx hca_handle=max hca_object=7"),
            ),
            ("misc.max", "sev 3", "sev max\nsev_es 4\n", Some("sev max")),
            ("misc.max", "tdx 3", "sev max\n", None),
        ] {
            let setting = Setting::new(file, value, "");
            assert_eq!(value_before(&setting, text).as_deref(), before, "{file} {value}");
        }
    }
}
