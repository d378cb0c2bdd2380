//! Tables for people.

use std::fmt::Write;

use crate::bundles::Config;
use crate::figures::{Figure, Figures};
use crate::stats::{Random, Summary, ratio_interval, summary};

/// Names that are not runtimes' own.
pub(crate) const TARE: &str = "tare";
pub(crate) const FLOOR: &str = "floor";
/// tare itself, with a bundle of plain files instead of an image.
pub(crate) const BUNDLE: &str = "bundle";

/// One line of a table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) who: String,
    /// `None`: not there, or failed.
    pub(crate) summary: Option<Summary>,
    /// How many times the floor it takes.
    pub(crate) floors: Option<f64>,
    /// tare's median as a part of this one, and where that lies in 95 of 100 cases.
    pub(crate) tare: Option<(f64, Option<(f64, f64)>)>,
}

/// What there is of a figure in a config, in the order of `names`.
pub(crate) fn lines(
    figures: &Figures,
    figure: Figure,
    config: Config,
    names: &[String],
    random: &mut Random,
) -> Vec<Line> {
    let row = |who: &str| figures.row(figure, config, who);
    let median = |who: &str| row(who).and_then(summary).map(|s| s.median);
    let (floor, tare) = (median(FLOOR), median(TARE));
    let mut lines = Vec::new();
    for who in names {
        let found = row(who).and_then(summary);
        // exec is listed for those that lack it as well
        if found.is_none() && (figure != Figure::Exec || who == FLOOR) {
            continue;
        }
        let compared = found.filter(|_| who != TARE && who != FLOOR).zip(tare).map(|(s, tare)| {
            let interval = row(TARE)
                .zip(row(who))
                .and_then(|(ours, theirs)| ratio_interval(ours, theirs, random));
            (tare / s.median, interval)
        });
        lines.push(Line {
            who: who.clone(),
            summary: found,
            floors: found.zip(floor).filter(|_| who != FLOOR).map(|(s, floor)| s.median / floor),
            tare: compared,
        });
    }
    lines
}

/// A table with a heading.
pub(crate) fn render(figure: Figure, config: Config, lines: &[Line]) -> String {
    let mut out = heading(figure, config);
    let width = lines.iter().map(|line| line.who.len()).max().unwrap_or(0).max(8);
    let with_floor = lines.iter().any(|line| line.floors.is_some());
    let floors = if with_floor { " × floor" } else { "" };
    let head = ["median", "q1", "q3", "min", "n"].map(|word| format!("{word:>9}")).concat();
    put(&mut out, &format!("  {:width$}{head}{floors}  tare takes", ""));
    for line in lines {
        let Some(s) = line.summary else {
            put(&mut out, &format!("  {:width$}{:>9}", line.who, "not there"));
            continue;
        };
        let digits = figure.digits();
        let numbers = [s.median, s.q1, s.q3, s.min].map(|x| format!("{x:>9.digits$}")).concat();
        let floors = match (with_floor, line.floors) {
            (true, Some(times)) => format!("{times:>8.2}"),
            (true, None) => " ".repeat(8),
            (false, _) => String::new(),
        };
        let tare = line.tare.map_or(String::new(), |(ratio, interval)| {
            let between =
                interval.map_or(String::new(), |(low, high)| format!(" [{low:.3} – {high:.3}]"));
            format!("  {ratio:.3}{between}")
        });
        put(&mut out, &format!("  {:width$}{numbers}{:>9}{floors}{tare}", line.who, s.n));
    }
    out
}

pub(crate) fn heading(figure: Figure, config: Config) -> String {
    match config {
        Config::Any => format!("{} ({})\n", figure.title(), figure.unit()),
        config => format!("{}, config {} ({})\n", figure.title(), config.name(), figure.unit()),
    }
}

fn put(out: &mut String, line: &str) {
    // writing to a string can't fail
    writeln!(out, "{}", line.trim_end()).unwrap_or_default();
}

#[cfg(test)]
pub(crate) fn example() -> (Figures, Vec<String>) {
    let mut figures = Figures::default();
    for (who, value) in [(FLOOR, 2.0), (TARE, 4.0), ("crun", 16.0)] {
        for i in 0..5 {
            figures.add(Figure::Run, Config::Default, who, value + f64::from(i - 2) * 0.1);
        }
    }
    (figures, [TARE, "crun", "runc", FLOOR].map(str::to_owned).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_ratios() {
        let (figures, names) = example();
        let found = lines(&figures, Figure::Run, Config::Default, &names, &mut Random::new(1));
        let text = render(Figure::Run, Config::Default, &found);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 5, "{text}");
        assert_eq!(rows[0], "run of true, spaced, config default (ms)");
        assert!(
            rows[2].starts_with("  tare         4.00     3.90     4.10     3.80        5    2.00")
        );
        assert!(rows[3].contains("    8.00  0.250 [0.2"), "{text}");
        assert!(rows[4].ends_with("        5"), "{text}");
    }

    #[test]
    fn who_has_no_exec_is_listed() {
        let (mut figures, names) = example();
        figures.add(Figure::Exec, Config::Default, "crun", 4.0);
        let found = lines(&figures, Figure::Exec, Config::Default, &names, &mut Random::new(1));
        let text = render(Figure::Exec, Config::Default, &found);
        assert!(text.contains("  tare    not there\n"), "{text}");
        assert!(!text.contains(FLOOR));
    }
}
