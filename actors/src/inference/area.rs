//! What a bird weighs by the area that it covers in a picture, and how that law is found from weighings.
//!
//! Seen from above, the area of a body grows slower than its weight: weight = a · area^b with b near 1.5 for bodies of one
//! shape (area goes with the square of a length, weight with its cube). Weights scatter around it by a share, not by grams:
//! the law is fitted as a straight line between the logarithms.

use serde::{Deserialize, Serialize};

use crate::flock::sample::{quantile, student_t_95};

/// Fewest weighings that a law is fitted to.
pub const WEIGHINGS_MIN: usize = 10;
/// A weighing that lies further than this many robust standard deviations from the law is left out.
const OUTLIER_DEVIATIONS: f64 = 4.0;
/// What the median absolute deviation of a normal distribution is multiplied by to be its standard deviation.
const DEVIATION_OF_MEDIAN: f64 = 1.4826;

/// The weight of a bird by its area: `weight_kg = a * area_cm2^b`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AreaLaw {
    /// The weight of a bird of one square centimeter, kg.
    pub a: f64,
    /// How the weight grows with the area.
    pub b: f64,
    /// What a whole picture shows from left to right, at the height of the birds' backs, cm.
    pub picture_width_cm: f64,
}

impl AreaLaw {
    /// The weight of a bird, kg.
    #[must_use]
    pub fn weight_kg(&self, area_cm2: f64) -> f64 {
        self.a * area_cm2.powf(self.b)
    }
}

/// The square centimeters of a share of a picture of so many pixels, whose width shows so many centimeters.
#[must_use]
pub fn area_cm2(share: f64, picture_width_cm: f64, width: u32, height: u32) -> f64 {
    share * picture_width_cm * picture_width_cm * f64::from(height) / f64::from(width.max(1))
}

/// A bird whose weight a scale knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighing {
    /// The area that a picture shows of it, cm².
    pub area_cm2: f64,
    /// What the scale says, kg.
    pub weight_kg: f64,
}

/// Why no law can be fitted.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// There is too little to go by.
    #[error("{0} weighings are too few: {WEIGHINGS_MIN} at least are needed")]
    TooFew(usize),
    /// One of them cannot be.
    #[error("weighing {0} has no area and weight greater than 0")]
    NoNumbers(usize),
    /// They say nothing of how weight grows with area.
    #[error(
        "the areas are all the same, so that they do not say how the weight grows with them: weigh smaller and larger birds"
    )]
    NoSpread,
    /// Birds that show more weigh less.
    #[error(
        "birds that cover more area weigh less (b = {0:.2}): are pictures and weights of the same birds?"
    )]
    Falling(f64),
}

/// A law with what is to be thought of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The weight of a bird of one square centimeter, kg, such that the mean of many birds is right.
    pub a: f64,
    /// How the weight grows with the area.
    pub b: f64,
    /// Between these is `b`, in 95 of 100 cases.
    pub b_interval: [f64; 2],
    /// Standard deviation of one bird from the law, percent of its weight.
    pub scatter_percent: f64,
    /// What one bird is wrong by when the law is fitted to all the others: the median, percent of its weight.
    pub error_percent_median: f64,
    /// The same, what 95 of 100 stay below.
    pub error_percent_p95: f64,
    /// Of the mean of all of them, percent.
    pub bias_percent: f64,
    /// Weighings that it is fitted to.
    pub n: usize,
    /// Places of those that were left out, since they lie far from the others.
    pub outliers: Vec<usize>,
    /// Least and greatest area, cm²; the law is good between them.
    pub area_cm2: [f64; 2],
    /// Least and greatest weight, kg.
    pub weight_kg: [f64; 2],
}

impl Fit {
    /// Fits a law to weighings: least squares between the logarithms, once more without those that lie far away.
    ///
    /// # Errors
    /// [`FitError`].
    pub fn of(weighings: &[Weighing]) -> Result<Self, FitError> {
        let is_number = |number: f64| number.is_finite() && number > 0.0;
        let is_good = |it: &Weighing| is_number(it.area_cm2) && is_number(it.weight_kg);
        if let Some(bad) = weighings.iter().position(|it| !is_good(it)) {
            return Err(FitError::NoNumbers(bad));
        }
        let points: Vec<Point> =
            weighings.iter().map(|it| Point { x: it.area_cm2.ln(), y: it.weight_kg.ln() }).collect();
        let first = Line::through(&points)?;
        let mut sizes: Vec<f64> = points.iter().map(|point| first.residual(*point).abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let limit = OUTLIER_DEVIATIONS * DEVIATION_OF_MEDIAN * quantile(&sizes, 0.5).unwrap_or_default();
        // Points on one line have no scatter, and none of them is far from it.
        let is_far = |point: &Point| limit > 1e-9 && first.residual(*point).abs() > limit;
        let outliers: Vec<usize> =
            points.iter().enumerate().filter(|(_, point)| is_far(point)).map(|(at, _)| at).collect();
        let kept: Vec<Point> = points.iter().copied().filter(|point| !is_far(point)).collect();
        let line = Line::through(&kept)?;
        if line.slope <= 0.0 {
            return Err(FitError::Falling(line.slope));
        }
        Ok(Self::from_line(&line, &kept, outliers))
    }

    fn from_line(line: &Line, kept: &[Point], outliers: Vec<usize>) -> Self {
        let degrees = kept.len() - 2;
        let squares: f64 = kept.iter().map(|point| line.residual(*point).powi(2)).sum();
        let variance = squares / degrees as f64;
        // There are eight degrees of freedom at least.
        let t = student_t_95(degrees).unwrap_or(f64::INFINITY);
        let half = t * (variance / line.spread).sqrt();
        // The mean of a log-normal distribution lies above its median (Baskerville 1972).
        let a = (line.at_zero + variance / 2.0).exp();
        let mut errors: Vec<f64> = kept
            .iter()
            .map(|point| {
                let leverage = 1.0 / kept.len() as f64 + (point.x - line.mean_x).powi(2) / line.spread;
                let left_out = line.residual(*point) / (1.0 - leverage).max(1e-9);
                (left_out.exp() - 1.0).abs() * 100.0
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        let sum = |value: &dyn Fn(&Point) -> f64| kept.iter().map(value).sum::<f64>();
        let (said, weighed) = (sum(&|point| a * (line.slope * point.x).exp()), sum(&|point| point.y.exp()));
        let range = |value: &dyn Fn(&Point) -> f64| {
            let ends = kept
                .iter()
                .map(value)
                .fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], it| [least.min(it), most.max(it)]);
            ends.map(f64::exp)
        };
        Self {
            a,
            b: line.slope,
            b_interval: [line.slope - half, line.slope + half],
            scatter_percent: (variance.exp() - 1.0).sqrt() * 100.0,
            error_percent_median: quantile(&errors, 0.5).unwrap_or_default(),
            error_percent_p95: quantile(&errors, 0.95).unwrap_or_default(),
            bias_percent: (said / weighed - 1.0) * 100.0,
            n: kept.len(),
            outliers,
            area_cm2: range(&|point| point.x),
            weight_kg: range(&|point| point.y),
        }
    }
}

/// A weighing by its logarithms.
#[derive(Clone, Copy, Debug)]
struct Point {
    x: f64,
    y: f64,
}

/// A straight line by least squares.
#[derive(Debug)]
struct Line {
    slope: f64,
    at_zero: f64,
    mean_x: f64,
    /// Sum of the squared distances of x from its mean.
    spread: f64,
}

impl Line {
    fn through(points: &[Point]) -> Result<Self, FitError> {
        if points.len() < WEIGHINGS_MIN {
            return Err(FitError::TooFew(points.len()));
        }
        let n = points.len() as f64;
        let mean = |value: fn(&Point) -> f64| points.iter().map(value).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.x), mean(|point| point.y));
        let spread: f64 = points.iter().map(|point| (point.x - mean_x).powi(2)).sum();
        if spread < 1e-9 {
            return Err(FitError::NoSpread);
        }
        let together: f64 = points.iter().map(|point| (point.x - mean_x) * (point.y - mean_y)).sum();
        let slope = together / spread;
        Ok(Self { slope, at_zero: mean_y - slope * mean_x, mean_x, spread })
    }

    fn residual(&self, point: Point) -> f64 {
        point.y - self.at_zero - self.slope * point.x
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Weighings by a law, with a scatter that goes up and down in turn.
    fn weighings(a: f64, b: f64, scatter: f64, n: usize) -> Vec<Weighing> {
        (0..n)
            .map(|at| {
                let area_cm2 = 100.0 + 30.0 * at as f64;
                let off = scatter * [1.0, -0.4, 0.3, -1.0, 0.1][at % 5];
                Weighing { area_cm2, weight_kg: a * area_cm2.powf(b) * off.exp() }
            })
            .collect()
    }

    #[test]
    fn a_law_without_scatter_is_found_as_it_is() {
        let fit = Fit::of(&weighings(0.0008, 1.4, 0.0, 12)).unwrap();
        assert!((fit.a - 0.0008).abs() < 1e-9 && (fit.b - 1.4).abs() < 1e-9, "{fit:?}");
        assert!(fit.error_percent_p95 < 1e-6 && fit.outliers.is_empty(), "{fit:?}");
    }

    #[test]
    fn one_that_lies_far_away_is_left_out_and_named() {
        let mut weighings = weighings(0.0008, 1.4, 0.03, 30);
        weighings[7].weight_kg *= 2.0;
        let fit = Fit::of(&weighings).unwrap();
        assert_eq!((fit.n, fit.outliers.as_slice()), (29, &[7][..]));
        assert!((fit.b - 1.4).abs() < 0.03 && fit.bias_percent.abs() < 0.5, "{fit:?}");
    }

    #[test]
    fn what_no_law_can_be_found_in_is_refused() {
        assert_eq!(Fit::of(&weighings(0.001, 1.4, 0.0, 9)), Err(FitError::TooFew(9)));
        let same = vec![Weighing { area_cm2: 300.0, weight_kg: 2.0 }; 20];
        assert_eq!(Fit::of(&same), Err(FitError::NoSpread));
        assert!(matches!(Fit::of(&weighings(5.0, -0.5, 0.0, 20)), Err(FitError::Falling(_))));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut weighings = weighings(0.001, 1.4, 0.0, 20);
            weighings[3].weight_kg = bad;
            assert_eq!(Fit::of(&weighings), Err(FitError::NoNumbers(3)));
        }
    }

    #[test]
    fn an_area_goes_with_the_square_of_the_width_that_a_picture_shows() {
        assert!((area_cm2(0.25, 200.0, 640, 480) - 0.25 * 200.0 * 150.0).abs() < 1e-9);
    }

    proptest! {
        /// Whatever units areas are measured in, the same birds weigh the same.
        #[test]
        fn units_of_area_change_nothing(times in 0.01_f64..100.0, b in 0.8_f64..2.0) {
            let own = weighings(0.001, b, 0.05, 25);
            let other: Vec<_> = own.iter().map(|it| Weighing { area_cm2: it.area_cm2 * times, ..*it }).collect();
            let (fit, scaled) = (Fit::of(&own).unwrap(), Fit::of(&other).unwrap());
            let law = |fit: &Fit| AreaLaw { a: fit.a, b: fit.b, picture_width_cm: 1.0 };
            let (one, two) = (law(&fit).weight_kg(500.0), law(&scaled).weight_kg(500.0 * times));
            prop_assert!((one / two - 1.0).abs() < 1e-6, "{one} {two}");
        }

        #[test]
        fn the_interval_holds_the_law(a in 0.0002_f64..0.01, b in 0.9_f64..1.8, scatter in 0.001_f64..0.1) {
            let fit = Fit::of(&weighings(a, b, scatter, 40)).unwrap();
            prop_assert!(fit.b_interval[0] <= b && b <= fit.b_interval[1], "{b} {fit:?}");
        }
    }
}
