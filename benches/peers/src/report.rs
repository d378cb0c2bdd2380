//! Results: tables on stdout, JSON and charts in files.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bundles::Config;
use crate::chart;
use crate::figures::{Figure, Figures};
use crate::runtime::Runtime;
use crate::settings::{TAR_SYNCED, Unpacker};
use crate::stats::Random;
use crate::table::{self, BUNDLE, Line, TARE};
use crate::view::View;
use crate::{scale, scatter};

/// What is said around the figures.
pub(crate) struct Report<'a> {
    pub(crate) figures: &'a Figures,
    pub(crate) runtimes: &'a [Runtime],
    pub(crate) unpackers: &'a [Unpacker],
    pub(crate) view: &'a View,
    pub(crate) seed: u64,
    pub(crate) runs: usize,
    /// Lines below the tables.
    pub(crate) notes: Vec<String>,
}

impl Report<'_> {
    pub(crate) fn write(&self, out: &Path, chart: Option<&Path>) -> Result<()> {
        let mut names: Vec<String> = self.runtimes.iter().map(|one| one.name.clone()).collect();
        names.extend(self.unpackers.iter().map(|one| one.name.clone()));
        names.extend([TAR_SYNCED, BUNDLE].map(str::to_owned));
        let runtimes = names.get(..self.runtimes.len()).unwrap_or_default();
        let mut random = Random::new(self.seed);
        let (mut entries, mut text) = (Vec::new(), String::new());
        for figure in Figure::ALL {
            let mut groups = Vec::new();
            for config in self.figures.configs(figure) {
                // an image's tools have no exec to lack
                let names = if figure == Figure::Exec { runtimes } else { &names[..] };
                let lines = table::lines(self.figures, figure, config, names, &mut random);
                text.push('\n');
                text.push_str(&table::render(figure, config, &lines));
                entries.extend(lines.iter().filter_map(|line| entry(figure, config.name(), line)));
                groups.push((config, lines));
            }
            if !groups.is_empty() {
                let file = out.join(format!("{}.svg", figure.key()));
                write(&file, &chart::render(figure, &groups))?;
            }
        }
        if let Some(drawn) = self.scale() {
            for file in [Some(out.join("scale.svg")), chart.map(Path::to_owned)].iter().flatten() {
                write(file, &drawn)?;
            }
        }
        text.push_str(&self.what_to_know());
        let results = json!({
            "machine": machine(self.view),
            "seed": self.seed,
            "runs": self.runs,
            "runtimes": self.runtimes.iter().map(Runtime::describe).collect::<Vec<_>>(),
            "figures": entries,
            "scale": self.row(Figure::ScaleCreate),
            "notes": self.notes,
            "failures": self.figures.failures(),
        });
        write(&out.join("results.json"), &format!("{results:#}\n"))?;
        std::io::stdout().write_all(text.as_bytes()).context("print the tables")
    }

    fn row(&self, figure: Figure) -> Option<&[f64]> {
        self.figures.row(figure, Config::Any, TARE)
    }

    /// The chart of how long each of many containers took.
    fn scale(&self) -> Option<String> {
        let one = |figure| self.row(figure)?.first().copied();
        let creates = self.row(Figure::ScaleCreate)?;
        let mut legend = format!("ms for each create, with the medians of {} parts", scale::BINS);
        if let Some(slope) = one(Figure::ScaleSlope) {
            legend.push_str(&format!("; from the first to the last {slope:+.1} %"));
        }
        if let Some(memory) = one(Figure::ScaleMemory) {
            legend.push_str(&format!("; {memory:.0} KiB a container"));
        }
        Some(scatter::render(&format!("{} containers", creates.len()), &legend, creates))
    }

    fn what_to_know(&self) -> String {
        let mut lines = vec!["\nWhat to know:".to_owned()];
        for runtime in self.runtimes.iter().filter(|one| !one.is_floor()) {
            lines.push(format!("  {}: {}", runtime.name, runtime.version));
            lines.extend(runtime.notes.iter().map(|note| format!("  {}: {note}", runtime.name)));
        }
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines.extend(self.figures.failures().iter().map(|one| format!("  FAILED: {one}")));
        lines.join("\n") + "\n"
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

fn entry(figure: Figure, config: &str, line: &Line) -> Option<Value> {
    let s = line.summary?;
    let mut entry = json!({
        "figure": figure.key(),
        "unit": figure.unit(),
        "config": config,
        "who": line.who,
        "n": s.n,
        "min": s.min,
        "q1": s.q1,
        "median": s.median,
        "q3": s.q3,
    });
    if let Some(floors) = line.floors {
        entry["floors"] = json!(floors);
    }
    if let Some((ratio, interval)) = line.tare {
        entry["tare_takes"] = json!(ratio);
        if let Some((low, high)) = interval {
            entry["tare_takes_95"] = json!([low, high]);
        }
    }
    Some(entry)
}

/// What the figures depend on, without the machine's name.
fn machine(view: &View) -> Value {
    let uname = nix::sys::utsname::uname().ok();
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let field = |file: &str, name: &str| {
        let content = std::fs::read_to_string(file).ok()?;
        let line = content.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "kernel": text(uname.as_ref().map(|u| u.release())),
        "architecture": text(uname.as_ref().map(|u| u.machine())),
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal"),
        "cgroup2_beside_version_1": view.hybrid,
        "cgroup2_controllers": view.controllers,
    })
}
