//! Which weighings of a scale that birds step on are of one bird, and how far such a scale is off.
//!
//! Heavy birds step on less often, so that the mean of the scale falls below that of the house in the last weeks
//! (Chedad et al., Computers and Electronics in Agriculture 2003); hand weighings say by how much.

/// What a weighing is, by what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One bird.
    Bird,
    /// Two birds at once: counted, not used.
    TwoBirds,
    /// Neither: a wing on the plate, a tool, three birds.
    Implausible,
}

/// The share of the expected weight from which a weighing is a bird.
const BIRD_FROM: f64 = 0.70;
/// Up to which share, where the birds are of one sex.
const BIRD_TO: f64 = 1.15;
/// Up to which share, where cocks stand beside hens.
const BIRD_TO_MIXED: f64 = 1.40;
/// The shares of two birds.
const TWO_BIRDS: std::ops::RangeInclusive<f64> = 1.7..=2.3;

/// Judges a weighing by the weight expected of today: the corrected mean of yesterday and the standard's gain.
#[must_use]
pub fn judge(weight: f64, expected: f64, is_mixed: bool) -> Step {
    let share = weight / expected;
    let to = if is_mixed { BIRD_TO_MIXED } else { BIRD_TO };
    if (BIRD_FROM..=to).contains(&share) {
        Step::Bird
    } else if TWO_BIRDS.contains(&share) {
        Step::TwoBirds
    } else {
        Step::Implausible
    }
}

/// A weighing of many birds by hand, beside the mean of the scale on that day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HandWeighing {
    /// Age of the flock, days.
    pub age_days: f64,
    /// Mean by hand.
    pub hand_mean: f64,
    /// Mean of the scale.
    pub scale_mean: f64,
}

/// Hand weighings from this age on count; before, heavy birds do not avoid the scale.
const BIAS_FROM_DAYS: f64 = 21.0;
/// Fewest hand weighings for a correction.
const BIAS_WEIGHINGS_MIN: usize = 2;

/// The factor by which the scale's means are to be multiplied; `None` without two hand weighings after day 21.
#[must_use]
pub fn bias(weighings: &[HandWeighing]) -> Option<f64> {
    let late = weighings.iter().filter(|weighing| weighing.age_days > BIAS_FROM_DAYS);
    let (count, hand, scale) = late.fold((0, 0.0, 0.0), |(count, hand, scale), weighing| {
        (count + 1, hand + weighing.hand_mean, scale + weighing.scale_mean)
    });
    (count >= BIAS_WEIGHINGS_MIN && scale > 0.0).then(|| hand / scale)
}

#[cfg(test)]
mod tests;
