//! The statistics of one day's weighings.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Fewest weighings for a verdict about a day.
pub const VERDICT_WEIGHINGS_MIN: usize = 30;
/// Fewest weighings for [`robust_limits`] to cut: with fewer it would cut real birds.
pub const ROBUST_WEIGHINGS_MIN: usize = 20;
/// A mean is precise enough while its 95 % interval is no wider than this share of it, to each side.
pub const PRECISION_MAX: f64 = 0.02;

/// The share of the mean within which a bird counts as uniform.
const UNIFORM_WITHIN: f64 = 0.10;
/// Makes the median of absolute deviations an estimate of a normal distribution's standard deviation.
const MAD_TO_DEVIATION: f64 = 1.4826;
/// The width of a histogram's bin, as a share of the mean: ±10 % are four bins.
const BIN_WIDTH: f64 = 0.05;
/// A bird that weighs exactly the limit is inside, whatever the last bit of a product says.
const ROUNDING: f64 = 1e-9;

/// What a sample of weights says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Weighings. A bird may be among them more than once; see [`effective_size`].
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population, estimated from the sample (divided by n − 1).
    pub deviation: Option<f64>,
    /// Coefficient of variation, percent.
    pub cv_percent: Option<f64>,
    /// Median.
    pub median: f64,
    /// Median of the absolute deviations from the median.
    pub mad: f64,
    /// Half of the width of the mean's 95 % interval (Student's t).
    pub half_width: Option<f64>,
    /// Share of the weighings within ±10 % of the mean, percent, limits included.
    pub uniformity_percent: f64,
}

impl Summary {
    /// The summary; `None` of an empty sample or of one that has a number which is not finite.
    #[must_use]
    pub fn of(weights: &[f64]) -> Option<Self> {
        if weights.is_empty() || !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        let mean = mean(weights);
        let median = median(weights);
        let deviations: Vec<f64> = weights.iter().map(|weight| (weight - median).abs()).collect();
        let deviation = deviation(weights, mean);
        Some(Self {
            n: weights.len(),
            mean,
            deviation,
            cv_percent: deviation.filter(|_| mean > 0.0).map(|deviation| 100.0 * deviation / mean),
            median,
            mad: self::median(&deviations),
            half_width: deviation.and_then(|deviation| half_width(deviation, weights.len())),
            uniformity_percent: uniformity_percent(weights, mean),
        })
    }

    /// Whether the mean is too uncertain to be shown without a warning.
    #[must_use]
    pub fn is_too_small(&self) -> bool {
        self.half_width.is_none_or(|half_width| half_width > PRECISION_MAX * self.mean)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / count(values.len())
}

fn deviation(values: &[f64], mean: f64) -> Option<f64> {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / count(values.len() - 1)).sqrt())
}

/// The middle value, or the mean of the two middle ones. Not a number for an empty slice.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(middle), _) => *middle,
        (None, _) => f64::NAN,
    }
}

/// Half of the width of a mean's 95 % interval; `None` of fewer than two.
pub(super) fn half_width(deviation: f64, n: usize) -> Option<f64> {
    Some(student_t_95(n.checked_sub(1)?)? * deviation / count(n).sqrt())
}

/// The two-sided 95 % point of Student's t; `None` without a degree of freedom.
pub(crate) fn student_t_95(degrees: usize) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, count(degrees)).ok()?.inverse_cdf(0.975))
}

fn uniformity_percent(weights: &[f64], mean: f64) -> f64 {
    let limit = (UNIFORM_WITHIN + ROUNDING) * mean;
    let uniform = weights.iter().filter(|weight| (**weight - mean).abs() <= limit).count();
    100.0 * count(uniform) / count(weights.len())
}

/// The uniformity, in percent, that a normal distribution of this coefficient of variation has.
#[must_use]
pub fn uniformity_expected_percent(cv_percent: f64) -> f64 {
    100.0 * (2.0 * below(100.0 * UNIFORM_WITHIN / cv_percent) - 1.0)
}

/// The share of a standard normal distribution below `z`.
pub(super) fn below(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// The value below which this share of sorted values lies: one of them, the nearest. `None` of none.
#[must_use]
#[expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a share of a length is an index"
)]
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let index = (count(sorted.len().saturating_sub(1)) * share).round() as usize;
    sorted.get(index).copied()
}

/// How many weighings give a mean within ±`error_percent` at 95 %, from a flock of `birds` (all of them, if there are
/// no more).
#[must_use]
pub fn size_needed(cv_percent: f64, error_percent: f64, birds: Option<u32>) -> f64 {
    let of_many = (1.96 * cv_percent / error_percent).powi(2);
    let needed = match birds {
        Some(birds) if birds > 0 => of_many / (1.0 + (of_many - 1.0) / f64::from(birds)),
        Some(_) | None => of_many,
    };
    needed.ceil()
}

/// The independent weighings that `n` are worth when each bird was weighed `times` times and `correlation` is that of one
/// bird's weighings (the design effect of clustered samples).
#[must_use]
pub fn effective_size(n: usize, times: f64, correlation: f64) -> f64 {
    count(n) / (1.0 + (times - 1.0) * correlation)
}

/// The lowest and the highest weight that are believed: three robust deviations around the median (Hampel). `None` of an
/// empty sample. It cuts real birds from small samples: [`ROBUST_WEIGHINGS_MIN`].
#[must_use]
pub fn robust_limits(weights: &[f64]) -> Option<(f64, f64)> {
    let summary = Summary::of(weights)?;
    let width = 3.0 * MAD_TO_DEVIATION * summary.mad;
    Some((summary.median - width, summary.median + width))
}

/// The weights within the robust limits, or all of a sample that is too small for them.
#[must_use]
pub fn without_outliers(weights: &[f64]) -> Vec<f64> {
    match robust_limits(weights) {
        Some((low, high)) if weights.len() >= ROBUST_WEIGHINGS_MIN => {
            weights.iter().copied().filter(|weight| (low..=high).contains(weight)).collect()
        }
        Some(_) | None => weights.to_vec(),
    }
}

/// One bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// The lowest weight in it.
    pub from: f64,
    /// The lowest weight above it.
    pub to: f64,
    /// Weighings in it.
    pub count: usize,
}

/// A histogram in bins of 5 % of the mean, from the lightest bird's bin to the heaviest's. Empty of an empty sample, of
/// one whose mean is not positive, and of one that is spread over more than a thousand bins.
#[must_use]
pub fn histogram(weights: &[f64]) -> Vec<Bin> {
    const BINS_MAX: usize = 1000;
    let Some(summary) = Summary::of(weights).filter(|summary| summary.mean > 0.0) else { return Vec::new() };
    let width = BIN_WIDTH * summary.mean;
    let index = |weight: f64| ((weight - summary.mean) / width + ROUNDING).floor();
    let lowest = weights.iter().copied().map(index).fold(f64::INFINITY, f64::min);
    let highest = weights.iter().copied().map(index).fold(f64::NEG_INFINITY, f64::max);
    let mut bins = Vec::new();
    let mut at = lowest;
    while at <= highest && bins.len() < BINS_MAX {
        let count = weights.iter().filter(|weight| (index(**weight) - at).abs() < 0.5).count();
        let from = summary.mean + at * width;
        bins.push(Bin { from, to: from + width, count });
        at += 1.0;
    }
    if at <= highest { Vec::new() } else { bins }
}

/// A number of things as a number to reckon with; exact up to 2⁵³.
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
