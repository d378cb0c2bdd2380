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
    Limits,
    Stats,
    StatsJson,
    StatsMetrics,
    List,
    ListJson,
    ListQuiet,
    ScaleCreate,
    ScaleSlope,
    ScaleStart,
    ScaleMemory,
    ScaleOwn,
    ScaleState,
    ScaleList,
    ScaleStats,
    ScaleKill,
    ScaleDelete,
    AtOnce,
    Busy,
    Import,
    ImportMemory,
    Unpack,
    Warm,
}

impl Figure {
    pub(crate) const ALL: [Figure; 34] = [
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
        Figure::Limits,
        Figure::Stats,
        Figure::StatsJson,
        Figure::StatsMetrics,
        Figure::List,
        Figure::ListJson,
        Figure::ListQuiet,
        Figure::ScaleCreate,
        Figure::ScaleSlope,
        Figure::ScaleStart,
        Figure::ScaleMemory,
        Figure::ScaleOwn,
        Figure::ScaleState,
        Figure::ScaleList,
        Figure::ScaleStats,
        Figure::ScaleKill,
        Figure::ScaleDelete,
        Figure::AtOnce,
        Figure::Busy,
        Figure::Import,
        Figure::ImportMemory,
        Figure::Unpack,
        Figure::Warm,
    ];

    /// Key in the results and name of the chart, and what it is.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Figure::Run => ("run", "run of true, spaced"),
            Figure::Row => ("run-in-a-row", "run of true, back to back"),
            Figure::Lifecycle => ("lifecycle", "create, start, wait, delete"),
            Figure::State => ("state", "state of a created container"),
            Figure::Kill => ("kill", "kill of a running container"),
            Figure::KillDelete => ("kill-delete", "kill to deleted"),
            Figure::Exec => ("exec", "exec of true in a running container"),
            Figure::Version => ("version", "--version"),
            Figure::Memory => ("memory", "largest process of a run (peak resident set)"),
            Figure::Syscalls => ("syscalls", "system calls of a run, program included"),
            Figure::Size => ("size", "size of the binary"),
            Figure::Limits => ("limits", "run with limits, as a part of run without"),
            Figure::Stats => ("stats", "stats of many containers, table"),
            Figure::StatsJson => ("stats-json", "stats of many containers, json"),
            Figure::StatsMetrics => ("stats-openmetrics", "stats of many containers, openmetrics"),
            Figure::List => ("list", "list of many containers, table"),
            Figure::ListJson => ("list-json", "list of many containers, json"),
            Figure::ListQuiet => ("list-quiet", "list of many containers, ids alone"),
            Figure::ScaleCreate => ("scale-create", "create, one container after the other"),
            Figure::ScaleSlope => {
                ("scale-slope", "create of the last of them, more than of the first")
            }
            Figure::ScaleStart => ("scale-start", "start of each of them"),
            Figure::ScaleMemory => ("scale-memory", "memory that a container takes, all in all"),
            Figure::ScaleOwn => ("scale-own", "of that, its program's own"),
            Figure::ScaleState => ("scale-state", "state of one of them"),
            Figure::ScaleList => ("scale-list", "list of them"),
            Figure::ScaleStats => ("scale-stats", "stats of them"),
            Figure::ScaleKill => ("scale-kill", "kill of each of them"),
            Figure::ScaleDelete => ("scale-delete", "delete of each of them"),
            Figure::AtOnce => ("at-once", "run of true, 16 at once: time for each"),
            Figure::Busy => ("at-once-busy", "run of true, 16 at once: processors at work"),
            Figure::Import => ("image-import", "image to layers that can be mounted"),
            Figure::ImportMemory => {
                ("image-memory", "largest process that unpacks an image (peak resident set)")
            }
            Figure::Unpack => ("image-unpack", "image to a bundle that can be run"),
            Figure::Warm => ("image-run", "run of true from an image that is there, spaced"),
        }
    }

    /// Key in the results, and name of the chart.
    pub(crate) fn key(self) -> &'static str {
        self.names().0
    }

    pub(crate) fn title(self) -> &'static str {
        self.names().1
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Figure::Memory
            | Figure::ImportMemory
            | Figure::Size
            | Figure::ScaleMemory
            | Figure::ScaleOwn => "KiB",
            Figure::Syscalls => "calls",
            Figure::ScaleSlope | Figure::Busy => "%",
            Figure::Limits => "×",
            Figure::Import | Figure::Unpack => "s",
            _ => "ms",
        }
    }

    /// Digits after the point.
    pub(crate) fn digits(self) -> usize {
        match self {
            Figure::Memory
            | Figure::ImportMemory
            | Figure::Syscalls
            | Figure::Size
            | Figure::ScaleMemory
            | Figure::ScaleOwn => 0,
            Figure::ScaleSlope | Figure::Busy => 1,
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
