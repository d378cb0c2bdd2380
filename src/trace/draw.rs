//! A trace as a picture: a lane for each process, a row for each step.

use std::fmt::Write;

use super::read::{Bar, Lane, Recording, duration};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 16.0;
const TOP: f64 = 76.0;
const ROW: f64 = 18.0;
const BAR: f64 = 12.0;
/// From a lane to the next one, for its heading.
const HEADING: f64 = 30.0;
/// Width of a character, about: labels are put where they have room.
const CHARACTER: f64 = 6.2;
/// Most characters of a label.
const MOST: usize = 90;

/// Colours by class: viewers without media queries see the light ones.
const STYLE: &str = "\
.ground{fill:#ffffff}.band{fill:#f6f8fa}.text{fill:#1f2328}.faint{fill:#59636e}\
.grid{stroke:#d1d9e0}.step{fill:#0969da}.around{fill:#b6d4f5}.failed{fill:#cf222e}\
text{font-family:system-ui,sans-serif;font-size:11px}.title{font-size:16px;font-weight:600}\
.lane{font-size:13px;font-weight:600}\
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}.band{fill:#151b23}.text{fill:#f0f6fc}\
.faint{fill:#9198a1}.grid{stroke:#3d444d}.step{fill:#4493f8}.around{fill:#1f3f66}\
.failed{fill:#f85149}}";

/// Draws it as SVG: no script, readable on light and on dark; what a step was done
/// to is in its tooltip.
pub fn svg(trace: &Recording) -> String {
    let rows: usize = trace.lanes.iter().map(|lane| lane.bars.len()).sum();
    let height = TOP + rows as f64 * ROW + trace.lanes.len() as f64 * HEADING + MARGIN;
    // of moments alone it has no length
    let scale = (WIDTH - 2.0 * MARGIN) / trace.length.max(1e-3);
    let mut page = Page { out: String::new(), y: TOP, scale };
    let name = trace.lanes.first().map(|lane| lane.name.as_str()).unwrap_or_default();
    let title = format!("{name}: {}", duration(trace.length));
    page.put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{0}\">\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>",
        escape(&title)
    ));
    page.text("text title", MARGIN, 28.0, "start", &title);
    let mut about = format!("{} in {}", count(rows, "step"), count(trace.lanes.len(), "process"));
    if trace.others > 0 {
        about.push_str(&format!("; {} of other kinds not drawn", count(trace.others, "event")));
    }
    page.text("faint", MARGIN, 46.0, "start", &about);
    page.grid(trace.length, height - MARGIN);
    trace.lanes.iter().for_each(|lane| page.lane(lane));
    page.put("</svg>");
    page.out
}

struct Page {
    out: String,
    y: f64,
    /// Pixels a microsecond.
    scale: f64,
}

impl Page {
    fn put(&mut self, line: &str) {
        // a String takes whatever is written
        writeln!(self.out, "{line}").unwrap_or_default();
    }

    fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.put(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// Lines at round times.
    fn grid(&mut self, length: f64, bottom: f64) {
        let step = round_step(length);
        let ticks = (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= length);
        for at in ticks.collect::<Vec<_>>() {
            let x = MARGIN + at * self.scale;
            self.put(&format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>",
                TOP - 8.0
            ));
            let anchor = if at == 0.0 { "start" } else { "middle" };
            self.text("faint", x, TOP - 12.0, anchor, &plain(at, step));
        }
    }

    fn lane(&mut self, lane: &Lane) {
        let width = WIDTH - 2.0 * MARGIN;
        let y = self.y + 4.0;
        self.put(&format!(
            "<rect class=\"band\" x=\"{MARGIN}\" y=\"{y:.1}\" width=\"{width}\" height=\"22\"/>"
        ));
        self.text("text lane", MARGIN + 6.0, self.y + 19.5, "start", &lane.name);
        self.y += HEADING;
        for bar in &lane.bars {
            self.bar(bar);
            self.y += ROW;
        }
    }

    fn bar(&mut self, bar: &Bar) {
        let class = match (bar.has_failed, bar.has_parts) {
            (true, _) => "failed",
            (false, true) => "around",
            (false, false) => "step",
        };
        let x = MARGIN + bar.start * self.scale;
        let (width, y) = ((bar.length.unwrap_or(0.0) * self.scale).max(1.0), self.y);
        let took = bar.took();
        let mut about = format!("{} {took}\nfrom {}", bar.name, duration(bar.start));
        for (key, value) in &bar.args {
            about.push_str(&format!("\n{key}: {value}"));
        }
        self.put(&format!(
            "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" \
             height=\"{BAR}\" rx=\"1\"><title>{}</title></rect>",
            escape(&about)
        ));
        let label = format!("{} {took}", bar.title(MOST));
        let needs = label.trim_end().chars().count() as f64 * CHARACTER + 6.0;
        let (at, anchor) = match () {
            () if x + width + needs <= WIDTH - MARGIN => (x + width + 5.0, "start"),
            () if x - needs >= MARGIN => (x - 5.0, "end"),
            () => (x.max(MARGIN) + 4.0, "start"),
        };
        self.text("text", at, self.y + BAR - 2.0, anchor, label.trim_end());
    }
}

fn count(n: usize, what: &str) -> String {
    let ending = match (n, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{n} {what}{ending}")
}

/// A time on the axis.
fn plain(microseconds: f64, step: f64) -> String {
    let (value, unit, step) = match step {
        step if step < 500.0 => (microseconds, "µs", step),
        step if step < 500_000.0 => (microseconds / 1e3, "ms", step / 1e3),
        step => (microseconds / 1e6, "s", step / 1e6),
    };
    let digits = if step < 0.01 {
        3
    } else if step < 0.1 {
        2
    } else {
        usize::from(step < 1.0)
    };
    format!("{value:.digits$} {unit}")
}

/// A round step that gives at most twelve ticks.
fn round_step(length: f64) -> f64 {
    let mut step = 0.001;
    for factor in [2.0, 2.5, 2.0].iter().cycle() {
        if length / step <= 12.0 {
            break;
        }
        step *= factor;
    }
    step
}

/// Text of an XML document. Control characters are not among it any more; what no
/// document may have besides them is replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::parse;

    #[test]
    fn a_bar_for_each_step() {
        let trace = parse(
            br#"[{"name": "<&\"]]>\u0000\uffff'", "ph": "X", "ts": 1, "dur": 900, "pid": "</svg>",
                  "args": {"<a>": "\"&"}},
                {"name": "in", "ph": "X", "ts": 2, "dur": 0, "pid": "</svg>"},
                {"name": "no", "ph": "i", "ts": 900, "pid": "</svg>", "args": {"error": "x"}}]"#,
        );
        let text = svg(&trace.unwrap());
        assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<title>").count(), 3);
        assert_eq!(text.matches("</svg>").count(), 1);
        for part in ["&lt;&amp;&quot;]]&gt;\\u{0}\u{fffd}'", "&lt;a&gt;: &quot;&amp;", "900 µs"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        for class in ["around", "step", "failed"] {
            assert_eq!(text.matches(&format!("<rect class=\"{class}\"")).count(), 1, "{class}");
        }
    }

    #[test]
    fn times_of_any_size_have_an_axis() {
        for (length, step, last) in [
            (0.0, 0.001, "0.000 µs"),
            (11.0, 1.0, "11 µs"),
            (5300.0, 500.0, "5.0 ms"),
            (1e15, 1e14, "1000000000 s"),
        ] {
            let found = round_step(length);
            assert!((found / step - 1.0).abs() < 1e-6, "{length}: {found}");
            assert_eq!(plain((length / found).floor() * found, found), last);
        }
    }
}
