//! Cocks and hens in one house: what mixing them does to the numbers, and how many of each there are.

use super::sample::{Summary, below, count};

/// Fewest weighings from which a share of the sexes is told.
pub const FIT_WEIGHINGS_MIN: usize = 300;
/// By how much the Bayesian information criterion must prefer two sexes to one.
pub const FIT_GAIN_MIN: f64 = 10.0;

/// Rounds of the fit; it is near its end after a few dozen.
const ROUNDS_MAX: usize = 500;
/// The fit has ended when a round adds less than this to the mean logarithm of the likelihood.
const ROUND_GAIN_MIN: f64 = 1e-10;
/// Lowest coefficient of variation that the fit believes: below, it would explain single birds.
const CV_MIN: f64 = 0.01;

/// The spread of a flock that is half cocks and half hens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixed {
    /// Coefficient of variation of both together, percent.
    pub cv_percent: f64,
    /// Birds within ±10 % of the common mean, percent.
    pub uniformity_percent: f64,
    /// Distance of both means, in standard deviations of one sex.
    pub separation: f64,
}

impl Mixed {
    /// The spread, by the means of both sexes and the coefficient of variation of each, percent.
    #[must_use]
    pub fn of(male: f64, female: f64, cv_percent: f64) -> Self {
        let share = cv_percent / 100.0;
        let (male_deviation, female_deviation) = (share * male, share * female);
        let mean = f64::midpoint(male, female);
        let within = f64::midpoint(male_deviation.powi(2), female_deviation.powi(2));
        let between = ((male - female) / 2.0).powi(2);
        let inside = |center: f64, deviation: f64| {
            below((1.1 * mean - center) / deviation) - below((0.9 * mean - center) / deviation)
        };
        let uniform = f64::midpoint(inside(male, male_deviation), inside(female, female_deviation));
        Self {
            cv_percent: 100.0 * (within + between).sqrt() / mean,
            uniformity_percent: 100.0 * uniform,
            separation: (male - female).abs() / (share * mean),
        }
    }

    /// Whether a histogram shows two peaks: two equal normal distributions do so from two deviations on.
    #[must_use]
    pub fn has_two_peaks(&self) -> bool {
        self.separation > 2.0
    }
}

/// What a fit of two sexes says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Share of the weighings that are of cocks.
    pub male_share: f64,
    /// Mean of the cocks.
    pub male_mean: f64,
    /// Mean of the hens.
    pub female_mean: f64,
    /// Coefficient of variation of either, percent.
    pub cv_percent: f64,
    /// By how much the Bayesian information criterion prefers it to one normal distribution.
    pub gain: f64,
}

/// Fits two normal distributions whose means have the standard's ratio (cock to hen) and whose coefficients of variation
/// are equal, by expectation and maximization. `None` where it may not be told: too few weighings, or one distribution
/// explains them as well.
#[must_use]
pub fn split(weights: &[f64], male_to_female: f64) -> Option<Split> {
    if weights.len() < FIT_WEIGHINGS_MIN
        || male_to_female <= 1.0
        || weights.iter().any(|weight| *weight <= 0.0)
    {
        return None;
    }
    let whole = Summary::of(weights)?;
    let deviation = whole.deviation.filter(|deviation| *deviation > 0.0)?;
    let fit = Fit::start(&whole, deviation, male_to_female).run(weights);
    let n = count(weights.len());
    let alone: f64 = weights.iter().map(|weight| log_density(*weight, whole.mean, deviation)).sum();
    let criterion = |likelihood: f64, parameters: f64| parameters * n.ln() - 2.0 * likelihood;
    let gain = criterion(alone, 2.0) - criterion(fit.likelihood, 3.0);
    (gain > FIT_GAIN_MIN).then_some(Split {
        male_share: fit.male_share,
        male_mean: fit.female_mean * male_to_female,
        female_mean: fit.female_mean,
        cv_percent: 100.0 * fit.cv,
        gain,
    })
}

#[derive(Clone, Copy)]
struct Fit {
    ratio: f64,
    male_share: f64,
    female_mean: f64,
    cv: f64,
    /// Logarithm, of all weighings.
    likelihood: f64,
}

impl Fit {
    fn start(whole: &Summary, deviation: f64, ratio: f64) -> Self {
        let female_mean = whole.mean / f64::midpoint(1.0, ratio);
        let between = female_mean * (ratio - 1.0) / 2.0;
        let within = (deviation.powi(2) - between.powi(2)).max(deviation.powi(2) / 4.0);
        let cv = within.sqrt() / whole.mean;
        Self { ratio, male_share: 0.5, female_mean, cv, likelihood: f64::NEG_INFINITY }
    }

    fn run(mut self, weights: &[f64]) -> Self {
        let n = count(weights.len());
        for _ in 0..ROUNDS_MAX {
            let next = self.round(weights);
            let has_ended = (next.likelihood - self.likelihood).abs() < ROUND_GAIN_MIN * n;
            self = next;
            if has_ended {
                break;
            }
        }
        self
    }

    /// One round. A cock's weight divided by the ratio is distributed as a hen's, so that both sexes estimate one mean and
    /// one deviation. The likelihood is that of the parameters before the round.
    fn round(&self, weights: &[f64]) -> Self {
        let deviation = self.cv * self.female_mean;
        let mut likelihood = 0.0;
        let (mut males, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for weight in weights {
            let as_hen = weight / self.ratio;
            let male =
                self.male_share.ln() - self.ratio.ln() + log_density(as_hen, self.female_mean, deviation);
            let female = (1.0 - self.male_share).ln() + log_density(*weight, self.female_mean, deviation);
            let both = male.max(female) + (-(male - female).abs()).exp().ln_1p();
            let is_male = (male - both).exp();
            likelihood += both;
            males += is_male;
            sum += is_male * as_hen + (1.0 - is_male) * weight;
            squares += is_male * as_hen.powi(2) + (1.0 - is_male) * weight.powi(2);
        }
        let n = count(weights.len());
        let female_mean = sum / n;
        let variance = (squares / n - female_mean.powi(2)).max(0.0);
        Self {
            ratio: self.ratio,
            male_share: (males / n).clamp(1.0 / n, 1.0 - 1.0 / n),
            female_mean,
            cv: (variance.sqrt() / female_mean).max(CV_MIN),
            likelihood,
        }
    }
}

fn log_density(value: f64, mean: f64, deviation: f64) -> f64 {
    -0.5 * ((value - mean) / deviation).powi(2) - deviation.ln() - 0.5 * std::f64::consts::TAU.ln()
}

#[cfg(test)]
mod tests;
