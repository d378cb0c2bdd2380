//! What was measured: one row of numbers for each figure, config and runtime.

use std::collections::BTreeMap;

use crate::bundles::Config;

/// A figure: what a table, a chart and an entry of the results are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Run,
    Row,
    Lifecycle,
    State,
    Kill,
    KillDelete,
    Exec,
    Version,
    Memory,
    Syscalls,
    Size,
    Import,
    Unpack,
}

impl Figure {
    pub(crate) const ALL: [Figure; 13] = [
        Figure::Run,
        Figure::Row,
        Figure::Lifecycle,
        Figure::State,
        Figure::Kill,
        Figure::KillDelete,
        Figure::Exec,
        Figure::Version,
        Figure::Memory,
        Figure::Syscalls,
        Figure::Size,
        Figure::Import,
        Figure::Unpack,
    ];

    /// Key in the results, and name of the chart.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Figure::Run => "run",
            Figure::Row => "run-in-a-row",
            Figure::Lifecycle => "lifecycle",
            Figure::State => "state",
            Figure::Kill => "kill",
            Figure::KillDelete => "kill-delete",
            Figure::Exec => "exec",
            Figure::Version => "version",
            Figure::Memory => "memory",
            Figure::Syscalls => "syscalls",
            Figure::Size => "size",
            Figure::Import => "image-import",
            Figure::Unpack => "image-unpack",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Figure::Run => "run of true, spaced",
            Figure::Row => "run of true, back to back",
            Figure::Lifecycle => "create, start, wait, delete",
            Figure::State => "state of a created container",
            Figure::Kill => "kill of a running container",
            Figure::KillDelete => "kill to deleted",
            Figure::Exec => "exec of true in a running container",
            Figure::Version => "--version",
            Figure::Memory => "largest process of a run (peak resident set)",
            Figure::Syscalls => "system calls of a run, program included",
            Figure::Size => "size of the binary",
            Figure::Import => "image to layers that can be mounted",
            Figure::Unpack => "image to a bundle that can be run",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Figure::Memory => "KiB",
            Figure::Syscalls => "calls",
            Figure::Size => "KiB",
            Figure::Import | Figure::Unpack => "s",
            _ => "ms",
        }
    }

    /// Digits after the point.
    pub(crate) fn digits(self) -> usize {
        match self {
            Figure::Memory | Figure::Syscalls | Figure::Size => 0,
            _ => 2,
        }
    }
}

/// Figure, config, and who: a runtime, or a tool for images.
pub(crate) type Key = (Figure, Config, String);

#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: BTreeMap<Key, Vec<f64>>,
    failures: BTreeMap<(String, Config, String), String>,
}

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure, config: Config, who: &str, value: f64) {
        self.rows.entry((figure, config, who.to_owned())).or_default().push(value);
    }

    /// A failed case has no figures: what it gave before is not to be trusted.
    pub(crate) fn fail(&mut self, case: &str, config: Config, who: &str, error: &str) {
        let key = (case.to_owned(), config, who.to_owned());
        self.failures.entry(key).or_insert_with(|| error.to_owned());
    }

    pub(crate) fn has_failed(&self, case: &str, config: Config, who: &str) -> bool {
        self.failures.contains_key(&(case.to_owned(), config, who.to_owned()))
    }

    /// Takes back the figures of a case that has failed.
    pub(crate) fn discard(&mut self, figures: &[Figure], config: Config, who: &str) {
        for figure in figures {
            self.rows.remove(&(*figure, config, who.to_owned()));
        }
    }

    pub(crate) fn row(&self, figure: Figure, config: Config, who: &str) -> Option<&[f64]> {
        self.rows.get(&(figure, config, who.to_owned())).map(Vec::as_slice)
    }

    /// Configs of which there is something.
    pub(crate) fn configs(&self, figure: Figure) -> Vec<Config> {
        let mut all: Vec<Config> =
            self.rows.keys().filter(|key| key.0 == figure).map(|key| key.1).collect();
        all.dedup();
        all
    }

    /// What failed, a line each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let line = |((case, config, who), error): (&(String, Config, String), &String)| {
            format!("{who}: {case} {}: {error}", config.name())
        };
        self.failures.iter().map(line).collect()
    }
}
