//! How a flock grows beside its standard, and when it will have its target weight.

use super::standard::Standard;

/// How far a mean is from the standard of its age, percent; negative is lighter.
#[must_use]
pub fn deviation_percent(mean_g: f64, standard_g: f64) -> f64 {
    100.0 * (mean_g - standard_g) / standard_g
}

/// What may be said of a mean beside a standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval of the mean is lighter.
    Below,
    /// The interval includes the standard: nothing may be said.
    Within,
    /// The whole interval is heavier.
    Above,
}

/// The verdict on a mean ± `half_width`.
#[must_use]
pub fn verdict(mean_g: f64, half_width_g: f64, standard_g: f64) -> Verdict {
    if mean_g + half_width_g < standard_g {
        Verdict::Below
    } else if mean_g - half_width_g > standard_g {
        Verdict::Above
    } else {
        Verdict::Within
    }
}

/// By how many days a flock is behind its standard; negative is ahead.
#[must_use]
pub fn lag_days(age_days: f64, mean_g: f64, standard: &Standard) -> Option<f64> {
    Some(age_days - standard.age_days(mean_g)?)
}

/// The mean gain a day between two means, grams: the daily, the weekly and the average gain, by the days between them.
/// `None` if they are of one moment.
#[must_use]
pub fn gain_g_per_day(earlier_g: f64, later_g: f64, days: f64) -> Option<f64> {
    (days > 0.0).then(|| (later_g - earlier_g) / days)
}

/// When a flock will have its target weight, as a range of ages in days.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// If it keeps its ratio to the standard.
    pub by_ratio: f64,
    /// If it keeps its lag behind the standard.
    pub by_lag: f64,
    /// The earliest of both, widened by what is uncertain about the ratio.
    pub earliest: f64,
    /// The latest of both, widened likewise.
    pub latest: f64,
}

/// The forecast for `target_g` of a flock whose mean at `age_days` is `mean_g`, whose share of the standard is uncertain
/// by ± `ratio_half_width`. `None` where the standard's table does not reach.
#[must_use]
pub fn forecast(
    age_days: f64,
    mean_g: f64,
    ratio_half_width: f64,
    target_g: f64,
    standard: &Standard,
) -> Option<Forecast> {
    let ratio = mean_g / standard.body_weight_g(age_days)?;
    let by_ratio = |ratio: f64| standard.age_days(target_g / ratio);
    let by_lag = standard.age_days(target_g)? + lag_days(age_days, mean_g, standard)?;
    let ends = [by_ratio(ratio + ratio_half_width)?, by_ratio(ratio - ratio_half_width)?, by_lag];
    Some(Forecast {
        by_ratio: by_ratio(ratio)?,
        by_lag,
        earliest: ends.into_iter().fold(f64::INFINITY, f64::min),
        latest: ends.into_iter().fold(f64::NEG_INFINITY, f64::max),
    })
}

#[cfg(test)]
mod tests;
