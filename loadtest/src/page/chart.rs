//! Curves over time as SVG, with a line for everything that happened.

use std::fmt::Write;

use super::escape;
use crate::threshold::short;
use crate::timeline::Mark;

/// The size of a drawing in its own units; the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 230.0;
/// Room for the axes.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Marks that are drawn; a fence of them would hide the curves.
const MARKS_MAX: usize = 40;
/// Colors that the style has.
const COLORS: usize = 4;

/// Values over time; `None` leaves a hole.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Curve {
    fn max(&self) -> f64 {
        self.points.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max)
    }
}

/// Curves with one axis.
pub(super) struct Chart<'a> {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) curves: Vec<Curve>,
    pub(super) marks: &'a [Mark],
}

impl Chart<'_> {
    /// Whether any curve leaves the ground.
    pub(super) fn has_something(&self) -> bool {
        self.curves.iter().any(|curve| curve.max() > 0.0)
    }

    /// The figure, with its legend.
    pub(super) fn draw(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing into a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let curves: Vec<_> = self.curves.iter().filter(|curve| curve.max() > 0.0).collect();
        let top = nice_top(curves.iter().map(|curve| curve.max()).fold(0.0, f64::max));
        let end = curves.iter().flat_map(|curve| curve.points.last()).map(|(at, _)| *at).fold(1e-3, f64::max);
        let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / end).clamp(0.0, 1.0);
        let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / top).clamp(0.0, 1.0));
        writeln!(out, "<figure>\n<figcaption><b>{}</b> <small>{}</small>", self.title, self.unit)?;
        for (at, curve) in curves.iter().enumerate() {
            write!(out, " <span class=\"key c{}\">{}</span>", at % COLORS, escape(&curve.name))?;
        }
        writeln!(
            out,
            "</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}, {}\">",
            self.title, self.unit
        )?;
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            let at = y(value);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(value)
            )?;
        }
        for step in 0..=5 {
            let at = end * f64::from(step) / 5.0;
            let anchor = match step {
                0 => "start",
                5 => "end",
                _ => "middle",
            };
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                x(at),
                HEIGHT - 8.0,
                time(at, end)
            )?;
        }
        for mark in self.marks.iter().take(MARKS_MAX) {
            let at = x(mark.at_s);
            writeln!(
                out,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.0}\">\
                 <title>{} s: {}</title></line>",
                HEIGHT - BOTTOM,
                short(mark.at_s),
                escape(&mark.what)
            )?;
        }
        for (at, curve) in curves.iter().enumerate() {
            let path = path(curve, x, y);
            writeln!(
                out,
                "<path class=\"curve c{}\" d=\"{path}\"><title>{}</title></path>",
                at % COLORS,
                escape(&curve.name)
            )?;
        }
        out.push_str("</svg>\n</figure>\n");
        Ok(())
    }
}

fn path(curve: &Curve, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for (at, value) in &curve.points {
        match value {
            Some(value) => {
                let letter = if is_down { 'L' } else { 'M' };
                write!(path, "{letter}{:.1} {:.1}", x(*at), y(*value))
                    .expect("writing into a string cannot fail");
                is_down = true;
            }
            None => is_down = false,
        }
    }
    // One point has no length; a round line cap shows it as a dot.
    if !path.contains('L') {
        path.push_str("h0");
    }
    path
}

/// The end of an axis: the next of 1, 2, 4, 8 times a power of ten, so that its quarters are round.
fn nice_top(max: f64) -> f64 {
    if max <= 0.0 || !max.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(max.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= max).unwrap_or(max)
}

/// A time on the axis, in the unit that suits the whole of it.
fn time(seconds: f64, end: f64) -> String {
    if end < 300.0 {
        format!("{} s", short((seconds * 10.0).round() / 10.0))
    } else if end < 3.0 * 3600.0 {
        format!("{} min", short((seconds / 6.0).round() / 10.0))
    } else {
        format!("{} h", short((seconds / 360.0).round() / 10.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_above_its_curves() {
        for (max, top) in [(0.0, 1.0), (0.7, 0.8), (1.0, 1.0), (33.0, 40.0), (4001.0, 8000.0), (81.0, 100.0)]
        {
            assert!((nice_top(max) - top).abs() < 1e-9, "{max}");
        }
    }

    #[test]
    fn a_hole_in_the_values_is_a_hole_in_the_curve() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(4.0))];
        let chart =
            Chart { title: "t", unit: "u", curves: vec![Curve { name: "a<b".into(), points }], marks: &[] };
        let svg = chart.draw();
        let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(svg.contains("a&lt;b"));
    }
}
