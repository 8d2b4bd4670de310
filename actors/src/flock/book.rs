//! The days of a flock in their order: what several of them say together.

use chrono::NaiveDate;
use serde::Serialize;

use super::climate::{CoveredMean, Held};
use super::day::DaySummary;
use super::feed::{
    DayOfLosses, HouseFeed, conversion, conversion_of_gain, conversion_of_house, density_kg_per_m2,
    efficiency_factor, losses, mortality_guide_percent, water_ml_per_bird, water_to_feed,
};
use super::growth::{Forecast, Verdict, deviation_percent, forecast, gain_g_per_day, lag_days, verdict};
use super::sample::count;
use super::standard::Standard;
use super::step::{HandWeighing, bias};

/// Seconds of an hour.
const HOUR_SECONDS: f64 = 3600.0;
/// Days over which a weekly gain goes.
const WEEK_DAYS: i64 = 7;
/// Last days whose ratio to the standard a forecast rests on.
const FORECAST_DAYS: usize = 3;

/// What is known of a flock beside its days.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Day 0.
    pub placed_on: NaiveDate,
    /// Birds placed.
    pub birds: u32,
    /// Usable floor, m².
    pub area_m2: Option<f64>,
    /// What a bird is to weigh in the end, grams.
    pub target_weight_g: Option<f64>,
    /// What it is compared with.
    pub standard: Option<Standard>,
}

/// A day, with what the days before it and the standard make of it. What cannot be said is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DayFacts {
    /// The day in the barn's time zone.
    pub day: NaiveDate,
    /// Age; 0 on the day of placement.
    pub age_days: i64,
    /// Weighings that are believed, and could be of one bird several times.
    pub n: u32,
    /// All weighings.
    pub n_seen: u32,
    /// Two birds at once.
    pub n_two_birds: u32,
    /// Neither one bird nor two.
    pub n_implausible: u32,
    /// Outside of the robust limits.
    pub n_outliers: u32,
    /// Of devices whose clocks were ahead.
    pub n_clock_ahead: u32,
    /// Kept out of the statistics by a person.
    pub n_excluded: u32,
    /// Whether the mean is too uncertain to be shown without a warning.
    pub is_n_too_small: bool,
    /// Mean of the scales, as it is.
    pub mean_kg: Option<f64>,
    /// The same, corrected by hand weighings of before and of this day.
    pub mean_corrected_kg: Option<f64>,
    /// The factor between them.
    pub bias: Option<f64>,
    /// Half of the width of the 95 % interval of the mean.
    pub half_width_kg: Option<f64>,
    /// Standard deviation (n − 1).
    pub deviation_kg: Option<f64>,
    /// Coefficient of variation.
    pub cv_percent: Option<f64>,
    /// Median.
    pub median_kg: Option<f64>,
    /// Within ±10 % of the mean.
    pub uniformity_percent: Option<f64>,
    /// Share of the weighings that are of cocks.
    pub male_share: Option<f64>,
    /// Mean of the cocks.
    pub male_mean_kg: Option<f64>,
    /// Mean of the hens.
    pub female_mean_kg: Option<f64>,
    /// Mean of birds weighed by hand.
    pub hand_mean_kg: Option<f64>,
    /// How many of these.
    pub hand_birds: Option<u32>,
    /// What the standard says of this age.
    pub standard_g: Option<f64>,
    /// How far the mean is from it.
    pub deviation_percent: Option<f64>,
    /// `BELOW`, `WITHIN` or `ABOVE`: only of 30 weighings and more.
    pub verdict: Option<&'static str>,
    /// By how many days the flock is behind its standard.
    pub lag_days: Option<f64>,
    /// Gain since the day before.
    pub daily_gain_g: Option<f64>,
    /// Mean gain of seven days.
    pub weekly_gain_g: Option<f64>,
    /// Mean gain since day 0, whose weight is the standard's.
    pub avg_daily_gain_g: Option<f64>,
    /// Birds found dead.
    pub dead: u32,
    /// Birds killed because they would not have lived.
    pub culled: u32,
    /// Birds taken out alive.
    pub thinned: u32,
    /// Birds at the end of the day.
    pub birds: u32,
    /// Lost of those present that day.
    pub mortality_percent: f64,
    /// Sum of the daily rates.
    pub cum_mortality_percent: f64,
    /// A guide: 1 % and 0.06 % for each day.
    pub mortality_guide_percent: f64,
    /// Eaten that day.
    pub feed_intake_kg: Option<f64>,
    /// Eaten a bird since the first day of which it is known.
    pub cum_feed_intake_g: Option<f64>,
    /// Delivered since day 0.
    pub cum_feed_delivered_kg: Option<f64>,
    /// Feed eaten for each kilogram of body weight: the breeders' conversion.
    pub fcr: Option<f64>,
    /// Feed eaten for each kilogram gained since day 0: the cloud's.
    pub fcr_gain: Option<f64>,
    /// Feed of the house for each kilogram alive.
    pub fcr_house: Option<f64>,
    /// European production efficiency factor, by the breeders' conversion or else that of the house.
    pub epef: Option<f64>,
    /// Live weight on the floor.
    pub density_kg_per_m2: Option<f64>,
    /// Water of the day.
    pub water_l: Option<f64>,
    /// Water a bird.
    pub water_ml_per_bird: Option<f64>,
    /// Liters for each kilogram of feed.
    pub water_to_feed: Option<f64>,
    /// Mean of the air.
    pub temperature_c: Option<f64>,
    /// Mean of the air.
    pub humidity_percent: Option<f64>,
    /// Mean of two days.
    pub humidity_48h_percent: Option<f64>,
    /// The share of these that was measured: below 0.75 no verdict.
    pub humidity_48h_coverage: Option<f64>,
    /// Temperature-humidity index.
    pub heat_index: Option<f64>,
    /// Its worst hour.
    pub heat_index_max: Option<f64>,
}

/// Reckons the days of a flock, which are in their order; a day that is missing has no inputs.
#[must_use]
pub fn reckon(frame: &Frame, days: &[(NaiveDate, DaySummary)]) -> Vec<DayFacts> {
    let mut ledger = Ledger::new(frame);
    days.iter().map(|(day, summary)| ledger.next(*day, summary)).collect()
}

/// What was found before the day at hand.
struct Ledger<'a> {
    frame: &'a Frame,
    losses: Vec<DayOfLosses>,
    hands: Vec<HandWeighing>,
    /// Age and mean of each day with one, grams.
    means: Vec<(i64, f64)>,
    feed: HouseFeed,
    has_delivery: bool,
    /// Grams a bird.
    eaten_g: Option<f64>,
    meter: Option<(i64, f64)>,
    humidity: Option<(i64, Held, f64)>,
}

impl<'a> Ledger<'a> {
    fn new(frame: &'a Frame) -> Self {
        Self {
            frame,
            losses: Vec::new(),
            hands: Vec::new(),
            means: Vec::new(),
            feed: HouseFeed { delivered_kg: 0.0, left_kg: 0.0, returned_kg: 0.0 },
            has_delivery: false,
            eaten_g: None,
            meter: None,
            humidity: None,
        }
    }

    fn next(&mut self, day: NaiveDate, summary: &DaySummary) -> DayFacts {
        let age_days = super::calendar::age_days(self.frame.placed_on, day);
        let mut facts = DayFacts { day, age_days, ..DayFacts::default() };
        self.weigh(&mut facts, summary);
        self.lose(&mut facts, summary);
        self.eat(&mut facts, summary);
        self.drink(&mut facts, summary);
        self.breathe(&mut facts, summary);
        facts
    }

    fn weigh(&mut self, facts: &mut DayFacts, summary: &DaySummary) {
        let w = &summary.weighings;
        facts.n = w.n;
        facts.n_seen = w.seen;
        facts.n_two_birds = w.two_birds;
        facts.n_implausible = w.implausible;
        facts.n_outliers = w.outliers;
        facts.n_clock_ahead = w.clock_ahead;
        facts.n_excluded = w.excluded;
        facts.is_n_too_small = w.is_too_small;
        facts.mean_kg = w.mean_kg;
        facts.half_width_kg = w.half_width_kg;
        facts.deviation_kg = w.deviation_kg;
        facts.cv_percent = w.cv_percent;
        facts.median_kg = w.median_kg;
        facts.uniformity_percent = w.uniformity_percent;
        if let Some(split) = &summary.split {
            facts.male_share = Some(split.male_share);
            facts.male_mean_kg = Some(split.male_mean_kg);
            facts.female_mean_kg = Some(split.female_mean_kg);
        }
        let age = age(facts.age_days);
        if let Some(hand) = &summary.hand {
            facts.hand_mean_kg = Some(hand.mean_kg);
            facts.hand_birds = Some(hand.birds);
            if let Some(scale_mean) = w.firm_mean_kg() {
                self.hands.push(HandWeighing { age_days: age, hand_mean: hand.mean_kg, scale_mean });
            }
        }
        facts.bias = bias(&self.hands);
        facts.mean_corrected_kg = facts.mean_kg.zip(facts.bias).map(|(mean, bias)| mean * bias);
        let standard = self.frame.standard.as_ref();
        facts.standard_g = standard.and_then(|standard| standard.body_weight_g(age));
        if let Some(mean_g) = best_mean_g(facts) {
            self.grow(facts, mean_g, w.firm_mean_kg().is_some());
            self.means.push((facts.age_days, mean_g));
        }
    }

    fn grow(&self, facts: &mut DayFacts, mean_g: f64, is_firm: bool) {
        let standard = self.frame.standard.as_ref();
        let before = |days: i64| {
            let (age, earlier_g) = self.means.iter().rev().find(|(age, _)| *age == facts.age_days - days)?;
            gain_g_per_day(*earlier_g, mean_g, self::age(facts.age_days - age))
        };
        facts.daily_gain_g = before(1);
        facts.weekly_gain_g = before(WEEK_DAYS);
        let chick_g = standard.and_then(|standard| standard.body_weight_g(0.0));
        facts.avg_daily_gain_g = chick_g.and_then(|chick| gain_g_per_day(chick, mean_g, age(facts.age_days)));
        if !is_firm {
            return;
        }
        facts.lag_days = standard.and_then(|standard| lag_days(age(facts.age_days), mean_g, standard));
        if let Some((standard_g, half_width_g)) = facts.standard_g.zip(half_width_g(facts)) {
            facts.deviation_percent = Some(deviation_percent(mean_g, standard_g));
            facts.verdict = Some(match verdict(mean_g, half_width_g, standard_g) {
                Verdict::Below => "BELOW",
                Verdict::Within => "WITHIN",
                Verdict::Above => "ABOVE",
            });
        }
    }

    fn lose(&mut self, facts: &mut DayFacts, summary: &DaySummary) {
        let DaySummary { dead, culled, thinned, .. } = *summary;
        self.losses.push(DayOfLosses { dead, culled, thinned });
        let losses = losses(self.frame.birds, &self.losses);
        (facts.dead, facts.culled, facts.thinned) = (dead, culled, thinned);
        facts.birds = losses.alive;
        facts.mortality_percent = losses.last_day_percent;
        facts.cum_mortality_percent = losses.cumulative_percent;
        facts.mortality_guide_percent = mortality_guide_percent(age(facts.age_days));
        let mean_kg = best_mean_g(facts).map(|grams| grams / 1000.0);
        facts.density_kg_per_m2 = mean_kg
            .zip(self.frame.area_m2)
            .and_then(|(mean_kg, area_m2)| density_kg_per_m2(facts.birds, mean_kg, area_m2));
    }

    fn eat(&mut self, facts: &mut DayFacts, summary: &DaySummary) {
        facts.feed_intake_kg = summary.feed_intake_kg;
        if let Some(eaten_kg) = summary.feed_intake_kg.filter(|_| facts.birds > 0) {
            let grams = 1000.0 * eaten_kg / f64::from(facts.birds);
            self.eaten_g = Some(self.eaten_g.unwrap_or_default() + grams);
        }
        self.has_delivery |= summary.feed_delivered_kg.is_some();
        self.feed.delivered_kg += summary.feed_delivered_kg.unwrap_or_default();
        self.feed.returned_kg += summary.feed_returned_kg.unwrap_or_default();
        self.feed.left_kg = summary.feed_left_kg.unwrap_or_default();
        facts.cum_feed_intake_g = self.eaten_g;
        facts.cum_feed_delivered_kg = self.has_delivery.then_some(self.feed.delivered_kg);
        let Some(mean_g) = best_mean_g(facts) else { return };
        let chick_g = self.frame.standard.as_ref().and_then(|standard| standard.body_weight_g(0.0));
        facts.fcr = self.eaten_g.map(|eaten_g| conversion(eaten_g, mean_g));
        facts.fcr_gain = self
            .eaten_g
            .zip(chick_g.filter(|chick_g| *chick_g < mean_g))
            .map(|(eaten_g, chick_g)| conversion_of_gain(eaten_g, mean_g, chick_g));
        // Without a look into the silo nobody knows what of the delivery was eaten.
        if self.has_delivery && summary.feed_left_kg.is_some() {
            facts.fcr_house = conversion_of_house(self.feed, f64::from(facts.birds) * mean_g / 1000.0, 0.0);
        }
        let alive_percent = 100.0 * f64::from(facts.birds) / f64::from(self.frame.birds.max(1));
        facts.epef = facts
            .fcr
            .or(facts.fcr_house)
            .filter(|fcr| *fcr > 0.0 && facts.age_days > 0)
            .map(|fcr| efficiency_factor(alive_percent, mean_g / 1000.0, age(facts.age_days), fcr));
    }

    /// Water is known of a day after another one with a reading of the same meter.
    fn drink(&mut self, facts: &mut DayFacts, summary: &DaySummary) {
        let Some(meter_l) = summary.water_meter_l else { return };
        let before = self.meter.replace((facts.age_days, meter_l));
        let before = before.filter(|(age, before_l)| *age == facts.age_days - 1 && *before_l <= meter_l);
        facts.water_l = before.map(|(_, before_l)| meter_l - before_l);
        facts.water_ml_per_bird = facts.water_l.and_then(|water_l| water_ml_per_bird(water_l, facts.birds));
        facts.water_to_feed = facts
            .water_l
            .zip(facts.feed_intake_kg)
            .and_then(|(water_l, feed_kg)| water_to_feed(water_l, feed_kg));
    }

    fn breathe(&mut self, facts: &mut DayFacts, summary: &DaySummary) {
        let Some(air) = &summary.air else { return };
        facts.temperature_c = air.temperature_c;
        facts.humidity_percent = air.humidity_percent;
        facts.heat_index = air.heat_index;
        facts.heat_index_max = air.heat_index_max;
        let today =
            air.humidity_percent.map(|value| Held { value, seconds: air.humidity_hours * HOUR_SECONDS });
        let before = self.humidity.filter(|(age, _, _)| *age == facts.age_days - 1);
        let held: Vec<Held> = before.map(|(_, held, _)| held).into_iter().chain(today).collect();
        let hours = air.hours + before.map_or(air.hours, |(_, _, hours)| hours);
        if let Some(mean) = CoveredMean::of(&held, hours * HOUR_SECONDS) {
            facts.humidity_48h_percent = Some(mean.mean);
            facts.humidity_48h_coverage = Some(mean.coverage);
        }
        self.humidity = today.map(|today| (facts.age_days, today, air.hours));
    }
}

/// The mean that the rest is reckoned with, grams.
fn best_mean_g(facts: &DayFacts) -> Option<f64> {
    facts.mean_corrected_kg.or(facts.mean_kg).map(|kilograms| 1000.0 * kilograms)
}

fn half_width_g(facts: &DayFacts) -> Option<f64> {
    facts.half_width_kg.map(|kilograms| 1000.0 * kilograms * facts.bias.unwrap_or(1.0))
}
fn age(days: i64) -> f64 {
    days as f64
}

/// When the flock will have its target weight, by the last days of 30 weighings and more, and the age of the last of them.
#[must_use]
pub fn outlook(frame: &Frame, facts: &[DayFacts], target_weight_g: f64) -> Option<(i64, Forecast)> {
    let standard = frame.standard.as_ref()?;
    let firm = facts.iter().rev().filter(|facts| facts.verdict.is_some()).take(FORECAST_DAYS);
    let ratios: Vec<(i64, f64, f64, f64)> = firm
        .filter_map(|facts| {
            let (mean_g, standard_g) = (best_mean_g(facts)?, facts.standard_g?);
            Some((facts.age_days, mean_g / standard_g, half_width_g(facts)? / standard_g, standard_g))
        })
        .collect();
    let (last_age, _, _, standard_g) = *ratios.first()?;
    let n = count(ratios.len());
    let ratio = ratios.iter().map(|(_, ratio, _, _)| ratio).sum::<f64>() / n;
    let half_width = ratios.iter().map(|(_, _, half_width, _)| half_width).sum::<f64>() / n;
    let forecast = forecast(age(last_age), ratio * standard_g, half_width, target_weight_g, standard)?;
    Some((last_age, forecast))
}

/// What a bird is expected to weigh, kg: yesterday's mean and the standard's gain; where yesterday had too few weighings,
/// the standard itself.
#[must_use]
pub fn expected_kg(
    standard: Option<&Standard>,
    age_days: i64,
    yesterday: Option<&DaySummary>,
) -> Option<f64> {
    let today_g = standard.and_then(|standard| standard.body_weight_g(age(age_days)));
    let before_g = standard.and_then(|standard| standard.body_weight_g(age(age_days - 1)));
    match yesterday.and_then(|yesterday| yesterday.weighings.firm_mean_kg()) {
        Some(mean_kg) => {
            let gain_g = today_g.zip(before_g).map_or(0.0, |(today, before)| today - before);
            Some(mean_kg + gain_g / 1000.0)
        }
        None => today_g.map(|grams| grams / 1000.0),
    }
}

#[cfg(test)]
mod tests;
