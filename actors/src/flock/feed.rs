//! Feed, water, losses and density of a flock.

/// Feed eaten for each kilogram of body weight: the breeders' conversion.
#[must_use]
pub fn conversion(feed_g: f64, body_weight_g: f64) -> f64 {
    feed_g / body_weight_g
}

/// Feed eaten for each kilogram gained since the chick: the cloud's conversion.
#[must_use]
pub fn conversion_of_gain(feed_g: f64, body_weight_g: f64, chick_g: f64) -> f64 {
    feed_g / (body_weight_g - chick_g)
}

/// The feed of a house, kilograms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HouseFeed {
    /// Delivered since placement.
    pub delivered_kg: f64,
    /// Still in the silo.
    pub left_kg: f64,
    /// Taken back by the mill.
    pub returned_kg: f64,
}

/// The conversion of a house: feed used for each kilogram alive in it or taken from it alive. `None` without weight.
#[must_use]
pub fn conversion_of_house(feed: HouseFeed, present_kg: f64, removed_alive_kg: f64) -> Option<f64> {
    let used_kg = feed.delivered_kg - feed.left_kg - feed.returned_kg;
    let weight_kg = present_kg + removed_alive_kg;
    (weight_kg > 0.0).then(|| used_kg / weight_kg)
}

/// The European production efficiency factor: what lives, what it weighs, how fast and from how much feed.
#[must_use]
pub fn efficiency_factor(
    liveability_percent: f64,
    body_weight_kg: f64,
    age_days: f64,
    conversion: f64,
) -> f64 {
    liveability_percent * body_weight_kg * 100.0 / (age_days * conversion)
}

/// What was lost and taken in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayOfLosses {
    /// Found dead.
    pub dead: u32,
    /// Killed because they would not have lived.
    pub culled: u32,
    /// Taken out alive; not a loss.
    pub thinned: u32,
}

/// The losses of a flock up to a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// Birds present after the last day.
    pub alive: u32,
    /// Losses of the last day of the birds present that day, percent.
    pub last_day_percent: f64,
    /// The sum of the daily percentages, which is how Directive 2007/43/EC defines the cumulative daily mortality rate.
    pub cumulative_percent: f64,
}

/// The losses of a flock of `placed` birds, day by day. Days with more losses than birds leave none.
#[must_use]
pub fn losses(placed: u32, days: &[DayOfLosses]) -> Losses {
    let start = Losses { alive: placed, last_day_percent: 0.0, cumulative_percent: 0.0 };
    days.iter().fold(start, |before, day| {
        let lost = day.dead.saturating_add(day.culled).min(before.alive);
        let present = f64::from(before.alive);
        let last_day_percent = if before.alive == 0 { 0.0 } else { 100.0 * f64::from(lost) / present };
        Losses {
            alive: (before.alive - lost).saturating_sub(day.thinned),
            last_day_percent,
            cumulative_percent: before.cumulative_percent + last_day_percent,
        }
    })
}

/// The cumulative mortality, in percent, up to which Directive 2007/43/EC (annex V) allows the highest density, by the age
/// at slaughter. A line drawn by day is a guide, not a limit.
#[must_use]
pub fn mortality_guide_percent(age_days: f64) -> f64 {
    1.0 + 0.06 * age_days
}

/// Live weight on the floor, kilograms a square meter. `None` without a floor.
#[must_use]
pub fn density_kg_per_m2(birds: u32, body_weight_kg: f64, usable_m2: f64) -> Option<f64> {
    (usable_m2 > 0.0).then(|| f64::from(birds) * body_weight_kg / usable_m2)
}

/// Liters of water that a bird drinks for each kilogram of feed, as modern breeds do at moderate temperature.
pub const WATER_TO_FEED: f64 = 1.7;

/// Water a bird drinks, milliliters. `None` without birds.
#[must_use]
pub fn water_ml_per_bird(water_l: f64, birds: u32) -> Option<f64> {
    (birds > 0).then(|| 1000.0 * water_l / f64::from(birds))
}

/// Liters of water for each kilogram of feed. `None` without feed.
#[must_use]
pub fn water_to_feed(water_l: f64, feed_kg: f64) -> Option<f64> {
    (feed_kg > 0.0).then(|| water_l / feed_kg)
}

/// The water that a flock is expected to drink, liters, by the feed a bird eats.
#[must_use]
pub fn water_expected_l(feed_g_per_bird: f64, birds: u32) -> f64 {
    feed_g_per_bird * WATER_TO_FEED * f64::from(birds) / 1000.0
}

#[cfg(test)]
mod tests;
