//! The air of a stretch of time: probes as thin lines, their mean as a thick one, the range between, nights, and limits.

use super::{Drawing, Scale, area, digits, path, ticks};

/// Size of the picture.
pub(crate) const SIZE: (u32, u32) = (460, 200);
/// Where time lies.
const X: (f64, f64) = (40.0, 450.0);
/// Where values lie, upwards.
const Y: (f64, f64) = (172.0, 24.0);
/// A line is broken where nothing came for so many steps.
const GAP_STEPS: f64 = 3.0;

/// A bucket: seconds since the beginning, least, mean, most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    /// Seconds since the beginning of the picture.
    pub at_seconds: f64,
    /// Least.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Most.
    pub max: f64,
}

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course<'a> {
    /// Its name on the page.
    pub id: &'a str,
    /// Seconds from edge to edge.
    pub seconds: f64,
    /// Seconds of a bucket.
    pub step_seconds: f64,
    /// Where words stand on the axis of time: seconds, word.
    pub hours: Vec<(f64, String)>,
    /// Nights: from, to, seconds.
    pub nights: Vec<(f64, f64)>,
    /// Probes, each in its order.
    pub probes: Vec<Vec<Bucket>>,
    /// What all of them come to.
    pub mean: Vec<Bucket>,
    /// A band that is wanted.
    pub wanted: Option<(f64, f64)>,
    /// A limit.
    pub limit: Option<f64>,
}

impl Course<'_> {
    /// How time and values lie in the picture; `None` when there are no values.
    pub(crate) fn scales(&self) -> Option<(Scale, Scale)> {
        let all = self.probes.iter().flatten().chain(&self.mean);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), bucket| {
            (low.min(bucket.min), high.max(bucket.max))
        });
        if !low.is_finite() || !high.is_finite() {
            return None;
        }
        let (low, high) = self.wanted.map_or((low, high), |(from, to)| (low.min(from), high.max(to)));
        // A limit that is far away would press the line flat.
        let high = self
            .limit
            .filter(|limit| *limit < high + 2.0 * (high - low))
            .map_or(high, |limit| high.max(limit));
        let air = ((high - low) * 0.06).max(0.2);
        Some((Scale::new((0.0, self.seconds), X), Scale::new((low - air, high + air), Y)))
    }

    /// The picture; `None` when there are no values.
    pub(crate) fn draw(&self, title: &str, finding: &str, unit: &str) -> Option<String> {
        let (x, y) = self.scales()?;
        let mut drawing = Drawing::new(self.id, "chart wide", SIZE, title, finding);
        for (from, to) in &self.nights {
            let (left, right) = (x.at(from.max(0.0)), x.at(to.min(self.seconds)));
            drawing.rect("night", (left, Y.1), ((right - left).max(0.0), Y.0 - Y.1));
        }
        if let Some((from, to)) = self.wanted {
            drawing.rect("band", (X.0, y.at(to)), (X.1 - X.0, y.at(from) - y.at(to)));
        }
        let values = ticks(y.from.0, y.from.1, 4);
        let places = digits(&values);
        for value in &values {
            drawing.line("grid-line", (X.0, y.at(*value)), (X.1, y.at(*value)));
            drawing.word("", (X.0 - 5.0, y.at(*value) + 3.5), "end", &format!("{value:.places$}"));
        }
        drawing.word("", (X.0 - 5.0, Y.1 - 12.0), "end", unit);
        for (at, word) in &self.hours {
            drawing.line("axis-line", (x.at(*at), Y.0), (x.at(*at), Y.0 + 4.0));
            drawing.word("", (x.at(*at), Y.0 + 16.0), "middle", word);
        }
        drawing.line("axis-line", (X.0, Y.0), (X.1, Y.0));
        if let Some(limit) = self.limit.filter(|limit| *limit <= y.from.1 && *limit >= y.from.0) {
            drawing.line("limit", (X.0, y.at(limit)), (X.1, y.at(limit)));
        }
        for stretch in self.stretches() {
            let range: Vec<_> =
                stretch.iter().map(|at| (x.at(at.at_seconds), y.at(at.min), y.at(at.max))).collect();
            drawing.path("range", &area(&range));
        }
        if self.probes.len() > 1 {
            for probe in &self.probes {
                drawing.path("thin", &self.line(probe, (x, y)));
            }
        }
        drawing.path("line", &self.line(&self.mean, (x, y)));
        Some(drawing.done())
    }

    fn is_gap(&self, earlier: &Bucket, later: &Bucket) -> bool {
        later.at_seconds - earlier.at_seconds > GAP_STEPS * self.step_seconds
    }

    fn line(&self, buckets: &[Bucket], (x, y): (Scale, Scale)) -> String {
        let mut points = Vec::with_capacity(buckets.len());
        for (place, bucket) in buckets.iter().enumerate() {
            if place.checked_sub(1).is_some_and(|before| self.is_gap(&buckets[before], bucket)) {
                points.push(None);
            }
            points.push(Some((x.at(bucket.at_seconds), y.at(bucket.mean))));
        }
        path(points)
    }

    fn stretches(&self) -> Vec<&[Bucket]> {
        self.mean.chunk_by(|earlier, later| !self.is_gap(earlier, later)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(at_seconds: f64, mean: f64) -> Bucket {
        Bucket { at_seconds, min: mean - 0.5, mean, max: mean + 0.5 }
    }

    fn course() -> Course<'static> {
        Course {
            id: "temperature",
            seconds: 86_400.0,
            step_seconds: 900.0,
            hours: vec![(43_200.0, "12".to_owned())],
            nights: vec![(-10.0, 21_600.0)],
            probes: Vec::new(),
            mean: vec![
                bucket(0.0, 21.0),
                bucket(900.0, 22.0),
                bucket(43_200.0, 23.0),
                bucket(44_100.0, 24.0),
            ],
            wanted: Some((20.0, 25.0)),
            limit: Some(1000.0),
        }
    }

    #[test]
    fn values_lie_where_their_numbers_say() {
        let course = course();
        let (x, y) = course.scales().unwrap();
        // 20 to 25 with 6 % of air on either side, on 148 units; a limit far away does not press the line flat.
        let at = |value: f64| 172.0 - 148.0 * (value - 19.7) / 5.6;
        assert!((y.at(21.0) - at(21.0)).abs() < 1e-9, "{}", y.at(21.0));
        assert_eq!(x.at(43_200.0), 245.0);
        let text = course.draw("Temperature", "", "°C").unwrap();
        let line = format!("M40.0 {:.1}L{:.1} {:.1}M245.0 {:.1}L", at(21.0), x.at(900.0), at(22.0), at(23.0));
        assert!(text.contains(&line), "{line}: {text}");
        assert!(
            text.contains(&format!(
                "<rect class=\"night\" x=\"40.0\" y=\"24.0\" width=\"{:.1}\"",
                410.0 / 4.0
            ))
        );
        assert!(!text.contains("class=\"limit\"") && !text.contains("NaN"), "{text}");
        assert_eq!(text.matches("class=\"range\"").count(), 2, "a gap ends a range");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(Course::default().draw("", "", ""), None);
    }

    #[test]
    fn a_limit_that_is_near_is_drawn() {
        let text = Course { limit: Some(25.5), ..course() }.draw("", "", "").unwrap();
        assert!(text.contains("class=\"limit\""), "{text}");
    }
}
