//! Bar charts as SVG, readable on light and on dark.

use std::fmt::Write;

use crate::bundles::Config;
use crate::figures::Figure;
use crate::table::{FLOOR, Line, TARE};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 22.0;
const GAP: f64 = 8.0;
const TOP: f64 = 62.0;
const HEADING: f64 = 28.0;

/// Colours by class: viewers without media queries see the light ones.
pub(crate) const STYLE: &str = "\
.ground{fill:#ffffff}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d1d9e0}\
.tare{fill:#0969da}.peer{fill:#9198a1}.floor{fill:#1a7f37}.range{stroke:#1f2328}\
text{font-family:system-ui,sans-serif;font-size:13px}.title{font-size:16px;font-weight:600}\
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}.text{fill:#f0f6fc}.faint{fill:#9198a1}\
.grid{stroke:#3d444d}.tare{fill:#4493f8}.peer{fill:#656c76}.floor{fill:#3fb950}\
.range{stroke:#f0f6fc}}";

/// One chart of a figure: a group of bars for each config.
pub(crate) fn render(figure: Figure, groups: &[(Config, Vec<Line>)]) -> String {
    let drawn = |lines: &[Line]| lines.iter().filter(|line| line.summary.is_some()).count();
    let bars: usize = groups.iter().map(|(_, lines)| drawn(lines)).sum();
    let headings = groups.iter().filter(|(config, _)| *config != Config::Any).count();
    let height = TOP + bars as f64 * (BAR + GAP) + headings as f64 * HEADING + 34.0;
    let all = groups.iter().flat_map(|(_, lines)| lines).filter_map(|line| line.summary);
    let step = tick(all.map(|s| s.q3.max(s.median)).fold(0.0, f64::max));
    let ticks = groups
        .iter()
        .flat_map(|(_, lines)| lines)
        .filter_map(|line| line.summary)
        .map(|s| (s.q3.max(s.median) / step).ceil())
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / (ticks * step);

    let mut chart = Chart { out: String::new(), y: TOP, scale, digits: figure.digits() };
    let title = escape(figure.title());
    chart.put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>"
    ));
    chart.text("text title", 16.0, 28.0, "start", figure.title());
    let legend = format!("{}: median, with quartiles; less is better", figure.unit());
    chart.text("faint", 16.0, 48.0, "start", &legend);
    chart.grid(ticks as usize, step, height - 30.0);
    for (config, lines) in groups {
        chart.group(*config, lines);
    }
    chart.put("</svg>");
    chart.out
}

struct Chart {
    out: String,
    y: f64,
    /// Pixels a unit.
    scale: f64,
    digits: usize,
}

impl Chart {
    fn put(&mut self, line: &str) {
        // writing to a string can't fail
        writeln!(self.out, "{line}").unwrap_or_default();
    }

    fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.put(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn grid(&mut self, ticks: usize, step: f64, bottom: f64) {
        for at in 0..=ticks {
            let value = at as f64 * step;
            let x = LEFT + value * self.scale;
            self.put(&format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>"
            ));
            let digits = if step < 1.0 { 1 } else { 0 };
            self.text("faint", x, bottom + 16.0, "middle", &format!("{value:.digits$}"));
        }
    }

    fn group(&mut self, config: Config, lines: &[Line]) {
        if config != Config::Any {
            let name = format!("config {}", config.name());
            self.text("faint", 16.0, self.y + 18.0, "start", &name);
            self.y += HEADING;
        }
        for line in lines {
            self.bar(line);
        }
    }

    fn bar(&mut self, line: &Line) {
        let Some(s) = line.summary else { return };
        let class = match line.who.as_str() {
            TARE => "tare",
            FLOOR => "floor",
            _ => "peer",
        };
        let (y, middle) = (self.y, self.y + BAR / 2.0);
        let x = |value: f64| LEFT + value * self.scale;
        let (end, low, high) = (x(s.median), x(s.q1), x(s.q3));
        let width = (end - LEFT).max(1.0);
        self.text("text", LEFT - 8.0, middle + 4.5, "end", &line.who);
        self.put(&format!(
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        ));
        if high - low > 2.0 {
            self.put(&format!(
                "<path class=\"range\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v8M{high:.1} {0:.1}v8\"/>",
                middle - 4.0
            ));
        }
        let value = format!("{:.*}", self.digits, s.median);
        self.text("text", end.max(high) + 6.0, middle + 4.5, "start", &value);
        self.y += BAR + GAP;
    }
}

/// A round step that gives at most six ticks.
pub(crate) fn tick(most: f64) -> f64 {
    let mut step = 0.1;
    for factor in [2.0, 2.5, 2.0].iter().cycle().take(60) {
        if most / step <= 6.0 {
            break;
        }
        step *= factor;
    }
    step
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Random;
    use crate::table::{example, lines};

    #[test]
    fn a_chart_has_a_bar_for_each() {
        let (figures, names) = example();
        let found = lines(&figures, Figure::Run, Config::Default, &names, &mut Random::new(1));
        let text = render(Figure::Run, &[(Config::Default, found)]);
        assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("height=\"22\"").count(), 3);
        for part in ["class=\"tare\"", "class=\"floor\"", ">16.00<", ">crun<", "prefers-color"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn ticks_are_round() {
        for (most, step) in [(0.5, 0.1), (2.0, 0.5), (16.0, 5.0), (60.0, 10.0), (4000.0, 1000.0)] {
            assert!((tick(most) - step).abs() < 1e-9, "{most}: {}", tick(most));
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("a<b>&\"c\""), "a&lt;b>&amp;&quot;c&quot;");
    }
}
