//! A row of figures over their number as SVG: a point each, and the line of their
//! medians.

use std::fmt::Write;

use crate::chart::{STYLE, escape, tick};
use crate::scale::{line, medians};
use crate::stats::summary;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 44.0;

/// The chart.
pub(crate) fn render(title: &str, legend: &str, row: &[f64]) -> String {
    let mut out = String::new();
    // writing to a string can't fail
    draw(&mut out, (title, legend), row).unwrap_or_default();
    out
}

/// From figures to places on the chart.
struct Scale {
    count: f64,
    most: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        LEFT + at / self.count.max(1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// What is above the top stands at the top.
    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value / self.most).min(1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw(out: &mut String, (title, legend): (&str, &str), row: &[f64]) -> std::fmt::Result {
    // a few that took long would press all others to the ground
    let most = summary(row).map_or(1.0, |s| (s.q3 * 2.0).max(s.q3 + 1e-6));
    let step = tick(most);
    let scale = Scale { count: row.len() as f64, most: (most / step).ceil() * step };
    let title = escape(title);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}.point{{opacity:.35}}.line{{fill:none;stroke-width:2}}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"text title\" x=\"16\" y=\"28\">{title}</text>\n\
         <text class=\"faint\" x=\"16\" y=\"48\">{}</text>",
        escape(legend)
    )?;
    grid(out, &scale, step)?;
    for (at, value) in row.iter().enumerate() {
        let (x, y) = (scale.x(at as f64 + 0.5), scale.y(*value));
        writeln!(out, "<circle class=\"tare point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\"/>")?;
    }
    let points = medians(row);
    let path: Vec<String> = points
        .iter()
        .map(|(at, median)| format!("{:.1} {:.1}", scale.x(*at), scale.y(*median)))
        .collect();
    writeln!(out, "<path class=\"range line\" d=\"M{}\"/>", path.join("L"))?;
    if let Some((first, step)) = line(&points) {
        let end = first + step * scale.count;
        writeln!(
            out,
            "<path class=\"grid line\" stroke-dasharray=\"6 4\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>",
            scale.x(0.0),
            scale.y(first),
            scale.x(scale.count),
            scale.y(end)
        )?;
    }
    writeln!(out, "</svg>")
}

fn grid(out: &mut String, scale: &Scale, step: f64) -> std::fmt::Result {
    let ticks =
        |most: f64, step: f64| (0..=(most / step).round() as usize).map(move |n| n as f64 * step);
    let digits = usize::from(step < 1.0);
    for value in ticks(scale.most, step) {
        let y = scale.y(value);
        let (right, label) = (WIDTH - RIGHT, LEFT - 8.0);
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n\
             <text class=\"faint\" x=\"{label}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>",
            y + 4.5
        )?;
    }
    let step = tick(scale.count).max(1.0);
    for at in ticks((scale.count / step).floor() * step, step) {
        let (x, y) = (scale.x(at), HEIGHT - BOTTOM + 20.0);
        writeln!(
            out,
            "<text class=\"faint\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{at:.0}</text>"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_point() {
        let row: Vec<f64> = (0..200).map(|at| 5.0 + f64::from(at % 3)).collect();
        let text = render("200 <containers>", "ms & more", &row);
        assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<circle ").count(), 200);
        for part in
            ["200 &lt;containers>", "ms &amp; more", ">100<", "prefers-color", "stroke-dash"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn what_took_long_stays_on_the_chart() {
        let mut row = vec![5.0; 40];
        row[7] = 900.0;
        let text = render("t", "l", &row);
        assert!(text.contains(&format!("cy=\"{TOP:.1}\"")), "{text}");
        assert!(!render("none", "", &[]).contains("NaN"));
    }
}
