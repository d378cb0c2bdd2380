//! The runtimes: how each is called, and whether it works here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::bundles::{Bundles, Config};
use crate::config;
use crate::process::Runner;
use crate::settings::{Flavour, Named};

/// A runtime, as it is called on this machine.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) flavour: Flavour,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// Options before the command, the state directory's aside.
    pub(crate) global: Vec<String>,
    /// What a reader of its figures has to know.
    pub(crate) notes: Vec<String>,
    /// It leaves the container behind after `run`.
    pub(crate) leaves_state: bool,
    pub(crate) has_exec: bool,
    state: PathBuf,
}

impl Runtime {
    pub(crate) fn new(named: &Named, work: &Path) -> Self {
        Runtime {
            name: named.name.clone(),
            flavour: named.flavour,
            path: named.path.clone(),
            version: String::new(),
            global: Vec::new(),
            notes: Vec::new(),
            leaves_state: false,
            has_exec: false,
            state: work.join("state").join(&named.name),
        }
    }

    pub(crate) fn is_floor(&self) -> bool {
        self.flavour == Flavour::Floor
    }

    /// Ours: a failure of these is a failure of the bench.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.flavour, Flavour::Floor | Flavour::Tare)
    }

    /// The program with its state directory and options.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.state).args(&self.global);
        command
    }

    /// A command on a container: `state box`.
    pub(crate) fn on(&self, word: &str, id: &str) -> Command {
        let mut command = self.command();
        command.arg(word).arg(id);
        command
    }

    /// `run` of one of the programs in one of the configs.
    pub(crate) fn run(&self, bundles: &Bundles, config: Config, word: &str, id: &str) -> Command {
        if self.is_floor() {
            return bundles.floor_command(&self.path, config, word, id);
        }
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundles.path(config, word)).arg(id);
        command
    }

    pub(crate) fn delete_by_force(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["delete", "--force", id]);
        command
    }

    /// Containers in its state directory.
    pub(crate) fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.state).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Finds out how it can be called here: runs a container that says what it
    /// sees, and holds that against the config.
    pub(crate) fn probe(
        &mut self,
        runner: &Runner,
        bundles: &Bundles,
        id: &dyn Fn() -> String,
    ) -> Result<()> {
        if !self.is_floor() {
            runner.at_once(Command::new(&self.path).arg("--version"))?;
            self.version = runner.printed().trim().replace('\n', ", ");
            let mut help = self.command();
            self.has_exec = runner.at_once(help.args(["exec", "--help"])).is_ok();
        }
        let first = bundles.configs().first().copied().unwrap_or(Config::Default);
        if let Err(plain) = self.check(runner, bundles, first, id) {
            let Some(fallback) = self.fallback() else { bail!(plain) };
            runner.watch.check()?;
            self.clean(runner);
            self.global.push(fallback.to_owned());
            self.check(runner, bundles, first, id)?;
            self.notes.push(format!(
                "runs here with {fallback} only, and makes no cgroup and no device program then: \
                 its figures are for less work (without it: {plain})"
            ));
        }
        for config in bundles.configs().iter().skip(1) {
            self.check(runner, bundles, *config, id)?;
        }
        Ok(())
    }

    /// One of the peers raises its limit for locked memory before it loads a
    /// device program, which not every root may do.
    fn fallback(&self) -> Option<&'static str> {
        (self.flavour == Flavour::Crun).then_some("--cgroup-manager=disabled")
    }

    fn check(
        &mut self,
        runner: &Runner,
        bundles: &Bundles,
        config: Config,
        id: &dyn Fn() -> String,
    ) -> Result<()> {
        let id = id();
        runner.at_once(&mut self.run(bundles, config, "check", &id))?;
        let printed = runner.printed();
        if self.left().contains(&id) {
            if !self.leaves_state {
                self.notes
                    .push("leaves the container after run: its delete is not in the figure".into());
            }
            self.leaves_state = true;
            runner.at_once(&mut self.delete_by_force(&id))?;
        }
        let differences = differences(&config::expected(bundles.document(config)), &printed);
        if differences.is_empty() {
            return Ok(());
        }
        ensure!(printed.contains("pid: 1"), "the container's program printed {printed:?}");
        let text = format!("{}: a container sees {}", config.name(), differences.join(", "));
        if self.is_ours() {
            bail!(text);
        }
        self.notes.push(text);
        Ok(())
    }

    /// Takes away whatever is left of its containers.
    pub(crate) fn clean(&self, runner: &Runner) {
        for id in self.left() {
            if runner.clean(&mut self.delete_by_force(&id)).is_err() {
                std::fs::remove_dir_all(self.state.join(&id)).unwrap_or_default();
            }
        }
    }

    pub(crate) fn describe(&self) -> Value {
        serde_json::json!({
            "name": self.name,
            "version": self.version,
            "options": self.global,
            "notes": self.notes,
        })
    }
}

/// Lines that are not as expected.
fn differences(expected: &str, printed: &str) -> Vec<String> {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    expected
        .lines()
        .filter(|line| !printed.lines().any(|other| other == *line))
        .map(|line| {
            let instead = printed.lines().find(|other| key(other) == key(line));
            format!(
                "{} instead of {}",
                instead.map_or("nothing".into(), |l| l.replace('\t', " ")),
                line.replace('\t', " ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        assert!(differences("pid: 1\nroot: x\n", "root: x\nmore: 2\npid: 1\n").is_empty());
        assert_eq!(
            differences("pid: 1\nroot: a\n", "pid: 7\n"),
            ["pid: 7 instead of pid: 1", "nothing instead of root: a"]
        );
    }
}
