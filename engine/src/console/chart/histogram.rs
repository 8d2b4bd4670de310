//! How the weights of a day are spread, with the normal distribution of the same mean and deviation before it.

use super::{Drawing, Scale, path, ticks};

/// Size of the picture.
pub(crate) const SIZE: (u32, u32) = (460, 200);
/// Where weights lie.
const X: (f64, f64) = (28.0, 450.0);
/// Where counts lie, upwards.
const Y: (f64, f64) = (172.0, 10.0);
/// Within this of the mean a bird is like the others.
const UNIFORM: f64 = 0.10;
/// Points of the line of the normal distribution.
const LINE_POINTS: u32 = 60;

/// A bar: from, to, kilograms, and how many.
pub(crate) type Bar = (f64, f64, usize);

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    /// Bars of one width, in their order.
    pub bars: Vec<Bar>,
    /// Mean, kilograms.
    pub mean_kg: f64,
    /// Standard deviation, kilograms.
    pub deviation_kg: Option<f64>,
}

impl Spread {
    fn scales(&self) -> Option<(Scale, Scale)> {
        let (first, last) = (self.bars.first()?, self.bars.last()?);
        let most = self.bars.iter().map(|(_, _, count)| *count).max()?.max(1);
        Some((Scale::new((first.0, last.1), X), Scale::new((0.0, most as f64 * 1.05), Y)))
    }

    /// The picture; `None` when there is nothing to spread.
    pub(crate) fn draw(&self, title: &str, finding: &str, kg_word: &str) -> Option<String> {
        let (x, y) = self.scales()?;
        let mut drawing = Drawing::new("spread", "chart wide", SIZE, title, finding);
        for count in ticks(y.from.0, y.from.1, 4).into_iter().filter(|count| count.fract() == 0.0) {
            drawing.line("grid-line", (X.0, y.at(count)), (X.1, y.at(count)));
            drawing.word("", (X.0 - 4.0, y.at(count) + 3.5), "end", &format!("{count:.0}"));
        }
        for (from, to, count) in &self.bars {
            let middle = f64::midpoint(*from, *to);
            let is_core = (middle - self.mean_kg).abs() <= UNIFORM * self.mean_kg;
            let top = y.at(*count as f64);
            let class = if is_core { "bin core" } else { "bin" };
            drawing.rect(class, (x.at(*from) + 0.5, top), (x.at(*to) - x.at(*from) - 1.0, Y.0 - top));
        }
        drawing.path("normal", &self.normal(x, y));
        for (place, weight) in ticks(x.from.0, x.from.1, 6).into_iter().enumerate() {
            let word = if place == 0 { format!("{weight:.1} {kg_word}") } else { format!("{weight:.1}") };
            drawing.word("", (x.at(weight), Y.0 + 16.0), "middle", &word);
        }
        drawing.line("axis-line", (X.0, Y.0), (X.1, Y.0));
        Some(drawing.done())
    }

    fn normal(&self, x: Scale, y: Scale) -> String {
        let Some(deviation) = self.deviation_kg.filter(|deviation| *deviation > 0.0) else {
            return String::new();
        };
        let n: usize = self.bars.iter().map(|(_, _, count)| count).sum();
        let width = self.bars.first().map_or(0.0, |(from, to, _)| to - from);
        let (low, high) = x.from;
        let point = |i: u32| {
            let weight = low + (high - low) * f64::from(i) / f64::from(LINE_POINTS);
            let z = (weight - self.mean_kg) / deviation;
            let density = (-0.5 * z * z).exp() / (deviation * (2.0 * std::f64::consts::PI).sqrt());
            Some((x.at(weight), y.at(density * n as f64 * width).max(Y.1)))
        };
        path((0..=LINE_POINTS).map(point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_the_axis_and_the_core_is_marked() {
        let bars =
            vec![(1.7, 1.8, 4), (1.8, 1.9, 10), (1.9, 2.0, 20), (2.0, 2.1, 18), (2.1, 2.2, 9), (2.2, 2.3, 3)];
        let spread = Spread { bars, mean_kg: 2.0, deviation_kg: Some(0.12) };
        let (x, y) = spread.scales().unwrap();
        let text = spread.draw("Spread", "", "kg").unwrap();
        let bar = format!(
            "<rect class=\"bin core\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x.at(1.9) + 0.5,
            y.at(20.0),
            x.at(2.0) - x.at(1.9) - 1.0,
            Y.0 - y.at(20.0)
        );
        assert!(text.contains(&bar), "{text}");
        assert_eq!(text.matches("bin core").count(), 4, "±10 % are four bins of 5 %");
        assert_eq!(text.matches("class=\"bin\"").count(), 2);
        assert!(text.contains("class=\"normal\"") && !text.contains("NaN"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(Spread::default().draw("", "", ""), None);
        let one = Spread { bars: vec![(1.0, 1.1, 1)], mean_kg: 1.05, deviation_kg: None };
        assert!(!one.draw("", "", "").unwrap().contains("normal"));
    }
}
