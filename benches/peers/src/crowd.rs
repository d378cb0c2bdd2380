//! What tare does with many containers at once: `list` and `stats` of them, and what
//! each of them costs ([`crate::scale`], [`crate::at_once`]).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

use crate::bundles::Config;
use crate::figures::Figure;
use crate::measure::Bench;
use crate::runtime::Runtime;
use crate::settings::Settings;
use crate::table::TARE;

/// How often a command on all of them is measured, at most.
const ROUNDS: usize = 20;

/// A command on all containers: its case, its words and its figure.
type OnAll = (&'static str, &'static [&'static str], Figure);

const ON_ALL: [OnAll; 6] = [
    ("stats", &["stats", "--no-stream"], Figure::Stats),
    ("stats", &["stats", "--format", "json"], Figure::StatsJson),
    ("stats", &["stats", "--format", "openmetrics"], Figure::StatsMetrics),
    ("list", &["list"], Figure::List),
    ("list", &["list", "--format", "json"], Figure::ListJson),
    ("list", &["list", "--quiet"], Figure::ListQuiet),
];

/// A container that waits for a signal, and its init.
pub(crate) type Member = (String, Pid);

impl Bench<'_> {
    /// The cases with many containers. An error is an interruption; what fails is in
    /// the figures.
    pub(crate) fn crowds(&mut self, settings: &Settings) -> Result<()> {
        let runtimes = self.runtimes;
        let Some(tare) = runtimes.iter().find(|one| one.name == TARE) else { return Ok(()) };
        let rounds = settings.runs.min(ROUNDS);
        let on_all: Vec<OnAll> =
            ON_ALL.into_iter().filter(|(case, ..)| settings.wants(case)).collect();
        let mut attempt = |case: &str, work: &mut dyn FnMut(&mut Self) -> Result<()>| {
            let result = work(self);
            self.runner.watch.check()?;
            if let Err(error) = result {
                self.figures.fail(case, Config::Any, TARE, &format!("{error:#}"));
                tare.clean(self.runner);
            }
            self.runner.reap_strays();
            Ok::<_, anyhow::Error>(())
        };
        if !on_all.is_empty() {
            attempt("many", &mut |bench| bench.many(tare, settings.many, rounds, &on_all))?;
        }
        if settings.wants("scale") {
            attempt("scale", &mut |bench| bench.scale(tare, settings.scale))?;
            attempt("at once", &mut |bench| bench.at_once(tare, settings.scale))?;
        }
        Ok(())
    }

    fn many(
        &mut self,
        tare: &Runtime,
        count: usize,
        rounds: usize,
        on_all: &[OnAll],
    ) -> Result<()> {
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(self.member(tare, &mut |_| {})?);
        }
        eprintln!("bench: {count} containers are there");
        for (id, _) in &members {
            self.runner.at_once(&mut tare.on("start", id))?;
        }
        for round in 0..=rounds {
            for (_, words, figure) in on_all {
                let took = self.on_all(tare, words, count)?;
                // the first one meets caches that are cold
                if round > 0 {
                    self.figures.add(*figure, Config::Any, TARE, took);
                }
            }
        }
        self.disperse(tare, &members, &mut |_, _| {})
    }

    /// Creates a container, and tells how long that took.
    pub(crate) fn member(&self, tare: &Runtime, took: &mut dyn FnMut(f64)) -> Result<Member> {
        let id = self.id();
        let (pid, time) = self.create_at_once(Config::Default, tare, "wait", &id)?;
        took(time);
        Ok((id, pid))
    }

    /// A command on all containers, which has to print each of them.
    pub(crate) fn on_all(&self, tare: &Runtime, words: &[&str], count: usize) -> Result<f64> {
        let took = self.runner.spaced(tare.command().args(words))?;
        let printed = self.runner.printed();
        let there = distinct(&printed, &format!("{}-", self.tag));
        ensure!(there >= count, "{}: {there} of {count} containers are there", words.join(" "));
        Ok(took)
    }

    /// Kills and deletes them all, and tells what each of the two took.
    pub(crate) fn disperse(
        &self,
        tare: &Runtime,
        members: &[Member],
        took: &mut dyn FnMut(Figure, f64),
    ) -> Result<()> {
        for (id, pid) in members {
            took(Figure::ScaleKill, self.runner.at_once(tare.on("kill", id).arg("KILL"))?);
            self.runner.watch.reap(*pid)?;
        }
        for (id, _) in members {
            took(Figure::ScaleDelete, self.runner.at_once(&mut tare.on("delete", id))?);
        }
        let left = tare.left();
        ensure!(left.is_empty(), "left in the state directory: {}", left.join(" "));
        Ok(())
    }
}

/// How many numbers follow `name` in a text, each counted once.
fn distinct(text: &str, name: &str) -> usize {
    let ends = text.match_indices(name).filter_map(|(at, _)| text.get(at + name.len()..));
    let numbers = ends.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    numbers.collect::<BTreeSet<_>>().len()
}

/// A figure of a file with lines like `MemAvailable:  1024 kB`.
pub(crate) fn kib(file: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{file} has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_counts_once() {
        let text = "{\"id\":\"b-1\",\"cgroup\":\"/b-1\"} b-12\nb-2 stopped /x/b-2\n";
        assert_eq!(distinct(text, "b-"), 3);
        assert_eq!(distinct("", "b-"), 0);
    }
}
