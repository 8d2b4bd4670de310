//! The growth of a flock: the standard with its band, daily means with their intervals, weighings by hand, and the forecast.

use super::{Drawing, Scale, area, digits, path, ticks};

/// Size of the picture.
pub(crate) const SIZE: (u32, u32) = (460, 300);
/// Where days lie.
const X: (f64, f64) = (40.0, 450.0);
/// Where weights lie, upwards.
const Y: (f64, f64) = (272.0, 24.0);
/// The band around the standard.
const BAND: f64 = 0.05;
/// Half the side of the square of a weighing by hand.
const HAND_HALF: f64 = 3.5;

/// A day with a mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    /// Age, days.
    pub age_days: i64,
    /// Kilograms.
    pub mean_kg: f64,
    /// Half of the 95 % interval, kilograms.
    pub half_width_kg: Option<f64>,
    /// Whether there are too few weighings to rely on it.
    pub is_uncertain: bool,
}

/// When a weight will be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outlook {
    /// Age and kilograms of the last day that is known.
    pub from: (i64, f64),
    /// The weight, kilograms.
    pub target_kg: f64,
    /// Ages between which it will be reached.
    pub ages: (f64, f64),
}

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth {
    /// The standard: age, kilograms.
    pub standard: Vec<(f64, f64)>,
    /// Days with a mean.
    pub means: Vec<Mean>,
    /// Weighings by hand: age, kilograms.
    pub hands: Vec<(i64, f64)>,
    /// What is expected.
    pub outlook: Option<Outlook>,
    /// The last age on the axis, at least.
    pub age_days_max: i64,
}

impl Growth {
    /// How days and weights lie in the picture.
    pub(crate) fn scales(&self) -> (Scale, Scale) {
        let ages = self.means.iter().map(|mean| mean.age_days as f64);
        let ages =
            ages.chain(self.outlook.map(|outlook| outlook.ages.1)).chain([self.age_days_max as f64, 7.0]);
        let last = ages.fold(0.0, f64::max).ceil();
        let in_sight = self.standard.iter().filter(|(age, _)| *age <= last).map(|(_, kg)| kg * (1.0 + BAND));
        let means = self.means.iter().map(|mean| mean.mean_kg + mean.half_width_kg.unwrap_or_default());
        let others =
            self.hands.iter().map(|(_, kg)| *kg).chain(self.outlook.map(|outlook| outlook.target_kg));
        let top = in_sight.chain(means).chain(others).fold(0.1, f64::max);
        (Scale::new((0.0, last), X), Scale::new((0.0, top * 1.04), Y))
    }

    /// The picture.
    pub(crate) fn draw(&self, title: &str, finding: &str, day_word: &str, kg_word: &str) -> String {
        let (x, y) = self.scales();
        let mut drawing = Drawing::new("growth", "chart wide", SIZE, title, finding);
        self.axes(&mut drawing, (x, y), day_word, kg_word);
        let in_sight: Vec<(f64, f64)> =
            self.standard.iter().copied().filter(|(age, _)| x.at(*age) <= X.1 + 0.01).collect();
        let band: Vec<(f64, f64, f64)> = in_sight
            .iter()
            .map(|(age, kg)| (x.at(*age), y.at(kg * (1.0 - BAND)), y.at(kg * (1.0 + BAND))))
            .collect();
        drawing.path("band", &area(&band));
        drawing.path("curve", &path(in_sight.iter().map(|(age, kg)| Some((x.at(*age), y.at(*kg))))));
        self.expect(&mut drawing, (x, y));
        let line = self.means.iter().filter(|mean| !mean.is_uncertain);
        drawing.path("line", &path(line.map(|mean| Some((x.at(mean.age_days as f64), y.at(mean.mean_kg))))));
        for mean in &self.means {
            let (cx, cy) = (x.at(mean.age_days as f64), y.at(mean.mean_kg));
            if let Some(half) = mean.half_width_kg {
                drawing.line("whisker", (cx, y.at(mean.mean_kg - half)), (cx, y.at(mean.mean_kg + half)));
            }
            drawing.dot(if mean.is_uncertain { "dot open" } else { "dot" }, (cx, cy), mean.age_days);
        }
        for (age, kg) in &self.hands {
            let corner = (x.at(*age as f64) - HAND_HALF, y.at(*kg) - HAND_HALF);
            drawing.rect("hand", corner, (2.0 * HAND_HALF, 2.0 * HAND_HALF));
        }
        drawing.done()
    }

    fn axes(&self, drawing: &mut Drawing, (x, y): (Scale, Scale), day_word: &str, kg_word: &str) {
        let weights = ticks(y.from.0, y.from.1, 5);
        let places = digits(&weights);
        for weight in &weights {
            let at = y.at(*weight);
            drawing.line("grid-line", (X.0, at), (X.1, at));
            drawing.word("", (X.0 - 5.0, at + 3.5), "end", &format!("{weight:.places$}"));
        }
        drawing.word("", (X.0 - 5.0, Y.1 - 12.0), "end", kg_word);
        let weeks = (0..).map(|week| f64::from(week) * 7.0).take_while(|age| *age <= x.from.1);
        for age in weeks {
            drawing.line("axis-line", (x.at(age), Y.0), (x.at(age), Y.0 + 4.0));
            drawing.word("", (x.at(age), Y.0 + 16.0), "middle", &format!("{age:.0}"));
        }
        drawing.line("axis-line", (X.0, Y.0), (X.1, Y.0));
        drawing.word("", (X.1, Y.0 + 27.0), "end", day_word);
    }

    fn expect(&self, drawing: &mut Drawing, (x, y): (Scale, Scale)) {
        let Some(Outlook { from: (age, kg), target_kg, ages: (earliest, latest) }) = self.outlook else {
            return;
        };
        let target = y.at(target_kg);
        drawing.line("target", (X.0, target), (X.1, target));
        let corners = [(age as f64, kg), (earliest, target_kg), (latest, target_kg)];
        let fan = path(corners.map(|(age, kg)| Some((x.at(age), y.at(kg)))));
        drawing.path("fan", &format!("{fan}Z"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth() -> Growth {
        Growth {
            standard: (0..=56).map(|age| (f64::from(age), 0.042 + 0.064 * f64::from(age))).collect(),
            means: vec![
                Mean { age_days: 34, mean_kg: 2.1, half_width_kg: Some(0.02), is_uncertain: false },
                Mean { age_days: 35, mean_kg: 2.2, half_width_kg: None, is_uncertain: true },
            ],
            hands: vec![(28, 1.6)],
            outlook: Some(Outlook { from: (34, 2.1), target_kg: 2.8, ages: (41.0, 42.0) }),
            age_days_max: 42,
        }
    }

    #[test]
    fn a_dot_lies_where_its_numbers_say() {
        let growth = growth();
        let (x, y) = growth.scales();
        // 42 days on 410 units; the heaviest in sight is the band's upper edge on day 42, with 4 % of air above it.
        let top = 1.04 * 1.05 * (0.042 + 0.064 * 42.0);
        assert!((x.at(35.0) - (40.0 + 410.0 * 35.0 / 42.0)).abs() < 1e-9);
        assert!((y.at(2.2) - (272.0 - 248.0 * 2.2 / top)).abs() < 1e-9);
        let text = growth.draw("Growth", "Below", "days", "kg");
        let dot = format!(
            "<circle class=\"dot open\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" data-day=\"35\"/>",
            x.at(35.0),
            y.at(2.2)
        );
        assert!(text.contains(&dot), "{text}");
        let whisker = format!("y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", y.at(2.08), x.at(34.0), y.at(2.12));
        assert!(text.contains(&whisker), "{text}");
        assert!(!text.contains("NaN") && !text.contains("style="), "{text}");
    }

    #[test]
    fn a_flock_of_which_nothing_is_known_has_axes() {
        let text = Growth::default().draw("Growth", "Nothing yet", "days", "kg");
        assert!(text.contains("axis-line") && !text.contains("NaN") && !text.contains("circle"), "{text}");
    }

    #[test]
    fn what_lies_beyond_the_axis_is_not_drawn() {
        let growth = Growth { means: Vec::new(), outlook: None, age_days_max: 10, ..growth() };
        let (x, _) = growth.scales();
        assert_eq!(x.at(10.0), X.1);
        let text = growth.draw("", "", "", "");
        assert!(!text.contains(&format!("L{:.1} ", x.at(11.0))), "{text}");
    }
}
