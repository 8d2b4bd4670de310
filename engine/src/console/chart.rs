//! Charts as SVG: pure functions from numbers to text. Looks come from classes, so that a page's style has the last word and a
//! strict policy of contents holds; each chart says its finding in words, and pages put its numbers in a table beside it.

use std::fmt::Write;

pub(crate) mod climate;
pub(crate) mod growth;
pub(crate) mod histogram;
pub(crate) mod spark;

/// A stretch of numbers laid on a stretch of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Numbers.
    from: (f64, f64),
    /// Units of the picture.
    to: (f64, f64),
}

impl Scale {
    /// Lays numbers on units of the picture. A stretch of no length lies in the middle.
    pub(crate) fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        Self { from, to }
    }

    /// Where a number lies.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (low, high) = self.from;
        let length = high - low;
        let share = if length.abs() < f64::EPSILON { 0.5 } else { (value - low) / length };
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

/// Round numbers between two, about `count` of them, for an axis. At most 20.
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    const TICKS_MAX: usize = 20;
    let length = high - low;
    if length <= 0.0 || !length.is_finite() || count == 0 {
        return Vec::new();
    }
    let rough = length / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step - 1e-9).ceil();
    (0..TICKS_MAX)
        .map(|i| (first + i as f64) * step)
        .take_while(|tick| *tick <= high + step * 1e-9)
        .map(|tick| if tick.abs() < step * 1e-9 { 0.0 } else { tick })
        .collect()
}

/// The digits that the ticks of an axis need behind the point.
pub(crate) fn digits(ticks: &[f64]) -> usize {
    const DIGITS_MAX: usize = 3;
    let is_exact = |places: usize| {
        let power = [1.0, 10.0, 100.0, 1000.0][places];
        ticks.iter().all(|tick| (tick * power - (tick * power).round()).abs() < 1e-6)
    };
    (0..DIGITS_MAX).find(|places| is_exact(*places)).unwrap_or(DIGITS_MAX)
}

/// A polygonal line; where a point is missing, it begins anew.
pub(crate) fn path(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let (mut text, mut is_down) = (String::new(), false);
    for point in points {
        match point {
            Some((x, y)) => {
                let _ = write!(text, "{}{x:.1} {y:.1}", if is_down { "L" } else { "M" });
                is_down = true;
            }
            None => is_down = false,
        }
    }
    text
}

/// An area between two lines over the same places, each (x, low, high).
pub(crate) fn area(points: &[(f64, f64, f64)]) -> String {
    if points.is_empty() {
        return String::new();
    }
    let there = points.iter().map(|(x, low, _)| Some((*x, *low)));
    let back = points.iter().rev().map(|(x, _, high)| Some((*x, *high)));
    format!("{}Z", path(there.chain(back)))
}

/// A picture under construction.
pub(crate) struct Drawing {
    text: String,
}

impl Drawing {
    /// A picture of this size that is called `title` and says `finding`; `id` is its own on its page.
    pub(crate) fn new(
        id: &str,
        class: &str,
        (width, height): (u32, u32),
        title: &str,
        finding: &str,
    ) -> Self {
        let (title, finding) = (escaped(title), escaped(finding));
        let text = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{finding}</desc>"
        );
        Self { text }
    }

    /// A picture that stands beside its own numbers and tells nobody anything new.
    pub(crate) fn silent(class: &str, (width, height): (u32, u32)) -> Self {
        let text = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">"
        );
        Self { text }
    }

    /// A line or an area.
    pub(crate) fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            let _ = write!(self.text, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }

    /// A straight line.
    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(
            self.text,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A rectangle.
    pub(crate) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let _ = write!(
            self.text,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }

    /// A dot that knows which day it is of.
    pub(crate) fn dot(&mut self, class: &str, (x, y): (f64, f64), day: i64) {
        let _ = write!(
            self.text,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" data-day=\"{day}\"/>"
        );
    }

    /// A word. `anchor` is `start`, `middle` or `end`.
    pub(crate) fn word(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, word: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let word = escaped(word);
        let _ = write!(
            self.text,
            "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{word}</text>"
        );
    }

    /// The whole picture.
    pub(crate) fn done(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A text as it may stand between tags.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_lays_ends_on_ends() {
        let scale = Scale::new((0.0, 42.0), (40.0, 460.0));
        assert_eq!((scale.at(0.0), scale.at(42.0), scale.at(21.0)), (40.0, 460.0, 250.0));
        let down = Scale::new((0.0, 3.0), (300.0, 0.0));
        assert_eq!((down.at(0.0), down.at(3.0)), (300.0, 0.0));
        assert_eq!(Scale::new((5.0, 5.0), (0.0, 10.0)).at(5.0), 5.0, "a stretch of no length");
    }

    #[test]
    fn ticks_are_round_and_few() {
        let check = |low, high, count, expected: &[f64], places| {
            let found = ticks(low, high, count);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
            assert_eq!(digits(&found), places);
        };
        check(0.0, 3.2, 4, &[0.0, 1.0, 2.0, 3.0], 0);
        check(0.0, 42.0, 6, &[0.0, 10.0, 20.0, 30.0, 40.0], 0);
        check(21.3, 24.9, 5, &[22.0, 23.0, 24.0], 0);
        check(21.3, 22.3, 4, &[21.5, 21.75, 22.0, 22.25], 2);
        check(-1.0, 1.0, 4, &[-1.0, -0.5, 0.0, 0.5, 1.0], 1);
        check(1.0, 1.0, 4, &[], 0);
        assert_eq!(ticks(0.0, f64::INFINITY, 3), Vec::<f64>::new());
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let points = [Some((0.0, 1.0)), Some((1.0, 2.04)), None, Some((3.0, 1.0))];
        assert_eq!(path(points), "M0.0 1.0L1.0 2.0M3.0 1.0");
        assert_eq!(area(&[(0.0, 1.0, 5.0), (1.0, 2.0, 6.0)]), "M0.0 1.0L1.0 2.0L1.0 6.0L0.0 5.0Z");
        assert_eq!(area(&[]), "");
    }

    #[test]
    fn words_cannot_leave_their_tags() {
        let mut drawing = Drawing::new("c", "chart", (10, 10), "<b>", "\"&\"");
        drawing.word("", (1.0, 2.0), "end", "</text><script>");
        let text = drawing.done();
        assert!(!text.contains("<b>") && !text.contains("<script>"), "{text}");
        assert!(text.contains("&lt;/text&gt;&lt;script&gt;") && text.ends_with("</svg>"), "{text}");
    }
}
