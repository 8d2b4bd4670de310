//! The birds of a made flock, and what is true of them on each day.

use std::path::Path;

use anyhow::{Context, Result};
use chrono::{Days, NaiveDate};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::id::Uuid;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::air::TrueAir;
use crate::render;

/// Growth of a Ross 308 as hatched by Gompertz' curve, `weight = A · exp(−b · exp(−k · age))`: within 2 % of the breeder's
/// objectives of 2022 from day 7 to day 49. A is grams, k is per day.
const GROWTH: (f64, f64, f64) = (6_100.0, 4.568_3, 0.044_4);
/// The weights of the first week by the same objectives, grams, which the curve does not know.
const FIRST_WEEK: [f64; 8] = [44.0, 62.0, 81.0, 102.0, 125.0, 151.0, 181.0, 213.0];
/// How much heavier than the mean cocks become, and hens lighter, as a share for each day after the first week: 7.5 % at
/// day 42, as in the same objectives.
const SEXES_APART_DAILY: f64 = 0.002_13;
/// The day from which on sexes differ.
const SEXES_APART_FROM: f64 = 7.0;
/// Coefficient of variation of birds of one sex.
const CV_OF_A_SEX: std::ops::Range<f64> = 0.065..0.085;
/// Share of cocks.
const MALE_SHARE: std::ops::Range<f64> = 0.46..0.54;
/// The flock's weight as a share of the breed's.
const PERFORMANCE: std::ops::Range<f64> = 0.93..1.03;
/// Birds that die on a usual day, as a share.
const DAILY_DEATHS: std::ops::Range<f64> = 0.0005..0.0012;
/// Times as many die in a heat wave, which takes two days.
const HEAT_WAVE_DEATHS: f64 = 5.0;
/// The first week costs more birds.
const FIRST_WEEK_DEATHS: f64 = 2.5;
/// Weighings with two birds on the scale, and with less than one.
const TWO_BIRDS_SHARE: f64 = 0.03;
const HALF_BIRD_SHARE: f64 = 0.01;
/// Feed for each gram gained, growing with age.
const CONVERSION: (f64, f64) = (1.05, 0.0145);
/// Water for each kilogram of feed, liters.
const WATER_TO_FEED: f64 = 1.8;
/// The hours of local time in which birds step on a scale.
const HOURS: std::ops::Range<u32> = 5 * 3600..21 * 3600;

/// What flock to make.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What everything is drawn from.
    pub seed: u64,
    /// Day 0.
    pub placed_on: NaiveDate,
    /// Days of its past, day 0 counted.
    pub days: u16,
    /// Birds placed.
    pub birds: u32,
    /// Weighings of a day, of all scales together.
    pub weighings_per_day: u32,
}

/// A flock.
#[derive(Clone, Debug)]
pub struct Flock {
    wish: Wish,
    male_share: f64,
    cv: f64,
    performance: f64,
    heat_wave_age: u16,
}

impl Flock {
    /// Draws a flock.
    #[must_use]
    pub fn draw(wish: Wish) -> Self {
        let mut random = StdRng::seed_from_u64(wish.seed);
        let heat_wave_age = random.random_range(wish.days / 2..wish.days.max(2));
        Self {
            male_share: random.random_range(MALE_SHARE),
            cv: random.random_range(CV_OF_A_SEX),
            performance: random.random_range(PERFORMANCE),
            heat_wave_age,
            wish,
        }
    }

    /// Mean weight of all birds, kg.
    #[must_use]
    pub fn mean_kg(&self, age_days: f64) -> f64 {
        let (most, b, k) = GROWTH;
        let curve = |age_days: f64| most * (-b * (-k * age_days).exp()).exp();
        let last = FIRST_WEEK.len() - 1;
        let grams = match FIRST_WEEK.windows(2).zip(0_u8..).find(|(_, day)| age_days < f64::from(*day) + 1.0)
        {
            Some((pair, day)) => {
                let along = (age_days - f64::from(day)).max(0.0);
                (pair[0] + (pair[1] - pair[0]) * along) * curve(last as f64) / FIRST_WEEK[last]
            }
            None => curve(age_days),
        };
        self.performance * grams / 1000.0
    }

    /// Mean weights of cocks and hens, kg, whose mean is the flock's.
    fn means_kg(&self, age_days: f64) -> [f64; 2] {
        let apart = (age_days - SEXES_APART_FROM).max(0.0) * SEXES_APART_DAILY;
        let hen = self.mean_kg(age_days)
            / (self.male_share * (1.0 + apart) + (1.0 - self.male_share) * (1.0 - apart));
        [hen * (1.0 + apart), hen * (1.0 - apart)]
    }

    /// Share of birds of at most this weight.
    fn share_below(&self, age_days: f64, weight_kg: f64) -> f64 {
        let [male, female] =
            self.means_kg(age_days).map(|mean| Normal::standard().cdf((weight_kg - mean) / (self.cv * mean)));
        self.male_share * male + (1.0 - self.male_share) * female
    }

    /// Share of birds within a tenth of the mean, percent.
    #[must_use]
    pub fn uniformity_percent(&self, age_days: f64) -> f64 {
        let mean = self.mean_kg(age_days);
        100.0 * (self.share_below(age_days, 1.1 * mean) - self.share_below(age_days, 0.9 * mean))
    }

    /// The age at which the mean is so much, days.
    #[must_use]
    pub fn age_of(&self, weight_kg: f64) -> f64 {
        let (mut young, mut old) = (0.0, 200.0);
        for _ in 0..60 {
            let middle = f64::midpoint(young, old);
            if self.mean_kg(middle) < weight_kg { young = middle } else { old = middle }
        }
        old
    }

    /// What happened on each day.
    #[must_use]
    pub fn days(&self) -> Vec<TrueDay> {
        let mut random = StdRng::seed_from_u64(self.wish.seed.wrapping_mul(0x9e37_79b9));
        let mut alive = self.wish.birds;
        let mut water_l = 0.0;
        (0..self.wish.days)
            .map(|age_days| {
                let age = f64::from(age_days);
                let is_hot = (self.heat_wave_age..self.heat_wave_age + 2).contains(&age_days);
                let times = if is_hot { HEAT_WAVE_DEATHS } else { 1.0 }
                    * if age_days < 7 { FIRST_WEEK_DEATHS } else { 1.0 };
                let dead = whole(f64::from(alive) * random.random_range(DAILY_DEATHS) * times);
                alive -= dead.min(alive);
                let gain_kg = self.mean_kg(age + 0.5) - self.mean_kg((age - 0.5).max(0.0));
                let feed_kg = f64::from(alive) * gain_kg * (CONVERSION.0 + CONVERSION.1 * age);
                water_l += feed_kg * WATER_TO_FEED * random.random_range(0.97..1.03);
                TrueDay {
                    day: self.wish.placed_on + Days::new(u64::from(age_days)),
                    age_days,
                    mean_kg: self.mean_kg(age),
                    uniformity_percent: self.uniformity_percent(age),
                    male_share: self.male_share,
                    dead,
                    birds: alive,
                    feed_kg: (feed_kg * 10.0).round() / 10.0,
                    water_meter_l: water_l.round(),
                }
            })
            .collect()
    }

    /// The weighings of a day on one of several scales: second of the local day, and what the scale says, kg. In the order
    /// of time.
    #[must_use]
    pub fn weighings(&self, age_days: u16, scale: usize, scales: usize) -> Vec<(u32, f64)> {
        let seed = self.wish.seed ^ u64::from(age_days) << 32 ^ (scale as u64) << 48;
        let mut random = StdRng::seed_from_u64(seed);
        let each = self.wish.weighings_per_day as usize / scales.max(1);
        let rest = usize::from(scale < self.wish.weighings_per_day as usize % scales.max(1));
        let mut weighings: Vec<(u32, f64)> = (0..each + rest)
            .map(|_| {
                let second = random.random_range(HOURS);
                let kind: f64 = random.random();
                let weight = if kind < TWO_BIRDS_SHARE {
                    self.bird_kg(age_days, &mut random) + self.bird_kg(age_days, &mut random)
                } else if kind < TWO_BIRDS_SHARE + HALF_BIRD_SHARE {
                    self.bird_kg(age_days, &mut random) * random.random_range(0.1..0.5)
                } else {
                    self.bird_kg(age_days, &mut random)
                };
                (second, scale_kg(weight))
            })
            .collect();
        weighings.sort_by_key(|(second, _)| *second);
        weighings
    }

    /// The weight of one bird on a day, kg.
    pub fn bird_kg(&self, age_days: u16, random: &mut StdRng) -> f64 {
        let [male, female] = self.means_kg(f64::from(age_days));
        let mean = if random.random_bool(self.male_share) { male } else { female };
        mean * (1.0 + self.cv * f64::from(render::normal(random)))
    }
}

/// What a scale says of a weight: whole grams, and always some.
#[must_use]
pub fn scale_kg(weight_kg: f64) -> f64 {
    (weight_kg.max(0.001) * 1000.0).round() / 1000.0
}

/// What is true of a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueDay {
    /// The local day.
    pub day: NaiveDate,
    /// Days since the placement.
    pub age_days: u16,
    /// Mean weight of all birds, kg.
    pub mean_kg: f64,
    /// Birds within a tenth of the mean, percent.
    pub uniformity_percent: f64,
    /// Share of cocks.
    pub male_share: f64,
    /// Birds that died.
    pub dead: u32,
    /// Birds that were left in the evening.
    pub birds: u32,
    /// What they ate, kg.
    pub feed_kg: f64,
    /// What the water meter showed in the evening, liters.
    pub water_meter_l: f64,
}

/// The truth of a flock that was played into an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Its id there.
    pub flock_id: Uuid,
    /// Its tenant.
    pub tenant_id: String,
    /// What it was drawn from.
    pub seed: u64,
    /// A weight to come, grams.
    pub target_weight_g: f64,
    /// The age at which the mean is so much.
    pub target_age_days: f64,
    /// Its days.
    pub days: Vec<TrueDay>,
    /// The air of its barn, where that was played, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub air: Option<TrueAir>,
}

impl Truth {
    /// Reads the truth of a file.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read the truth in {}", file.display()))
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the truth")?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number that is not negative"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flock(seed: u64) -> Flock {
        let placed_on = NaiveDate::from_ymd_opt(2026, 1, 5).unwrap();
        Flock::draw(Wish { seed, placed_on, days: 42, birds: 20_000, weighings_per_day: 2_000 })
    }

    #[test]
    fn it_grows_as_its_breed_does() {
        // Aviagen, Ross 308/308 FF Broiler Performance Objectives 2022, as hatched.
        for (age, breed_kg) in [
            (0.0, 0.044),
            (3.0, 0.102),
            (7.0, 0.213),
            (14.0, 0.533),
            (21.0, 1.012),
            (28.0, 1.616),
            (35.0, 2.296),
            (42.0, 2.998),
        ] {
            let flock = Flock { performance: 1.0, ..flock(1) };
            let off = flock.mean_kg(age) / breed_kg - 1.0;
            assert!(off.abs() < 0.02, "day {age}: {:.3} kg, {:.1} % off", flock.mean_kg(age), off * 100.0);
        }
    }

    #[test]
    fn its_weighings_are_of_its_birds() {
        let flock = flock(2);
        let all: Vec<f64> =
            (0..3).flat_map(|scale| flock.weighings(35, scale, 3)).map(|(_, weight_kg)| weight_kg).collect();
        assert_eq!(all.len(), 2_000);
        let mean_kg = flock.mean_kg(35.0);
        let one: Vec<f64> = all.into_iter().filter(|kg| (0.6..1.5).contains(&(kg / mean_kg))).collect();
        let mean = one.iter().sum::<f64>() / one.len() as f64;
        assert!((mean / mean_kg - 1.0).abs() < 0.01, "{mean} {mean_kg}");
        let near =
            one.iter().filter(|kg| (*kg / mean_kg - 1.0).abs() <= 0.1).count() as f64 / one.len() as f64;
        assert!((near * 100.0 - flock.uniformity_percent(35.0)).abs() < 3.0, "{near}");
        assert_eq!(flock.weighings(35, 1, 3), self::flock(2).weighings(35, 1, 3), "a seed is a flock");
        assert_ne!(flock.weighings(35, 1, 3), flock.weighings(35, 2, 3));
    }

    #[test]
    fn its_days_add_up() {
        let days = flock(3).days();
        assert_eq!((days.len(), days[0].age_days, days[41].age_days), (42, 0, 41));
        let dead: u32 = days.iter().map(|day| day.dead).sum();
        assert_eq!(20_000 - dead, days[41].birds);
        assert!((200..2_000).contains(&dead), "{dead}");
        assert!(days.windows(2).all(|pair| pair[0].water_meter_l < pair[1].water_meter_l));
        let age = flock(3).age_of(2.5);
        assert!((flock(3).mean_kg(age) - 2.5).abs() < 1e-6);
    }
}
