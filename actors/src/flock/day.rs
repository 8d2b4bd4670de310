//! A day of a flock from its own inputs: the weighings of that day, what was written down, the air of the barn, and the
//! weight that was expected by the day before.

use schema::store::flock::pair::Pair;
use schema::store::flock::record::{Kind, Record};
use schema::store::flock::{AirHour, Weighing};
use serde::{Deserialize, Serialize};

use super::agreement::{CameraDay, compare};
use super::climate::heat_index;
use super::sample::{Summary, VERDICT_WEIGHINGS_MIN, count, robust_limits, without_outliers};
use super::sexes;
use super::step::{self, Step};

/// What a day comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaySummary {
    /// What the scales say.
    pub weighings: Weighings,
    /// Cocks and hens, where they may be told apart.
    pub split: Option<SplitSummary>,
    /// What hands say.
    pub hand: Option<HandSummary>,
    /// Birds found dead.
    pub dead: u32,
    /// Birds killed because they would not have lived.
    pub culled: u32,
    /// Birds taken out alive.
    pub thinned: u32,
    /// Feed that came, kg.
    pub feed_delivered_kg: Option<f64>,
    /// Feed that was left at the end of the day, kg.
    pub feed_left_kg: Option<f64>,
    /// Feed that was taken back, kg.
    pub feed_returned_kg: Option<f64>,
    /// Feed that was eaten, kg.
    pub feed_intake_kg: Option<f64>,
    /// The last that the water meter showed, liters.
    pub water_meter_l: Option<f64>,
    /// The air, where it was measured.
    pub air: Option<Air>,
    /// How each camera differs from the scales.
    pub cameras: Vec<CameraDay>,
}

/// The weighings of a day: of sessions that ended, the last weight of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Weighings {
    /// All of them.
    pub seen: u32,
    /// Two birds at once.
    pub two_birds: u32,
    /// Neither one bird nor two.
    pub implausible: u32,
    /// Outside of the robust limits.
    pub outliers: u32,
    /// Of devices whose clocks were ahead: they count for the time at which they came in.
    pub clock_ahead: u32,
    /// Kept out of the statistics by a person.
    pub excluded: u32,
    /// What a bird was expected to weigh, kg; without it no weighing is implausible.
    pub expected_kg: Option<f64>,
    /// The rest: those that are believed. Numbers of weighings, since a bird may be among them more than once.
    pub n: u32,
    /// Their mean, kg.
    pub mean_kg: Option<f64>,
    /// Standard deviation, kg (n − 1).
    pub deviation_kg: Option<f64>,
    /// Coefficient of variation.
    pub cv_percent: Option<f64>,
    /// Half of the width of the mean's 95 % interval, kg.
    pub half_width_kg: Option<f64>,
    /// Median, kg.
    pub median_kg: Option<f64>,
    /// Within ±10 % of the mean.
    pub uniformity_percent: Option<f64>,
    /// Whether the mean is too uncertain to be shown without a warning.
    pub is_too_small: bool,
}

impl Weighings {
    /// The mean, if there are enough weighings to build on it.
    #[must_use]
    pub fn firm_mean_kg(&self) -> Option<f64> {
        let is_firm = usize::try_from(self.n).is_ok_and(|n| n >= VERDICT_WEIGHINGS_MIN);
        self.mean_kg.filter(|_| is_firm)
    }
}

/// Cocks and hens of a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Share of the weighings that are of cocks.
    pub male_share: f64,
    /// Their mean, kg.
    pub male_mean_kg: f64,
    /// Mean of the hens, kg.
    pub female_mean_kg: f64,
    /// Coefficient of variation of either.
    pub cv_percent: f64,
}

/// Birds weighed by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandSummary {
    /// How many.
    pub birds: u32,
    /// Their mean, kg.
    pub mean_kg: f64,
}

/// The air of a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Air {
    /// Hours of the day: 23 or 25 when the clocks change.
    pub hours: f64,
    /// Hours with a temperature.
    pub temperature_hours: f64,
    /// Mean of these, °C.
    pub temperature_c: Option<f64>,
    /// Hours with a humidity.
    pub humidity_hours: f64,
    /// Mean of these, percent.
    pub humidity_percent: Option<f64>,
    /// Mean of the temperature-humidity index over hours that have both.
    pub heat_index: Option<f64>,
    /// The highest of these hours.
    pub heat_index_max: Option<f64>,
}

/// What a day is made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Weighings of the day.
    pub weighings: Vec<Weighing>,
    /// Those that a camera has seen as well.
    pub pairs: Vec<Pair>,
    /// What holds of the book.
    pub records: Vec<Record>,
    /// The air, hour by hour.
    pub air: Vec<AirHour>,
    /// Hours of the day.
    pub hours: f64,
    /// What a bird is expected to weigh, kg.
    pub expected_kg: Option<f64>,
    /// Whether cocks stand beside hens.
    pub is_mixed: bool,
    /// By how much a cock is heavier than a hen, where that is known.
    pub male_to_female: Option<f64>,
}

impl Inputs {
    /// What stood on the scale.
    fn step(&self, weight_kg: f64) -> Step {
        match self.expected_kg {
            Some(expected_kg) => step::judge(weight_kg, expected_kg, self.is_mixed),
            None if weight_kg > 0.0 => Step::Bird,
            None => Step::Implausible,
        }
    }
}

/// Sums a day up.
#[must_use]
pub fn summarize(inputs: &Inputs) -> DaySummary {
    let (weighings, believed) = weigh(inputs);
    let split = inputs.male_to_female.filter(|_| inputs.is_mixed);
    let split = split.and_then(|ratio| sexes::split(&believed, ratio)).map(|split| SplitSummary {
        male_share: split.male_share,
        male_mean_kg: split.male_mean,
        female_mean_kg: split.female_mean,
        cv_percent: split.cv_percent,
    });
    let book = Book(&inputs.records);
    DaySummary {
        weighings,
        split,
        hand: book.hand(),
        dead: book.birds(Kind::Mortality),
        culled: book.birds(Kind::Cull),
        thinned: book.birds(Kind::Thinning),
        feed_delivered_kg: book.sum(Kind::FeedDelivered),
        feed_left_kg: book.last(Kind::FeedLeft),
        feed_returned_kg: book.sum(Kind::FeedReturned),
        feed_intake_kg: book.sum(Kind::FeedIntake),
        water_meter_l: book.last(Kind::WaterMeter),
        air: breathe(&inputs.air, inputs.hours),
        cameras: compare(inputs.pairs.iter().filter(|pair| inputs.step(pair.scale_kg) == Step::Bird)),
    }
}

/// The weights of a day that are believed, kg.
#[must_use]
pub fn believed(inputs: &Inputs) -> Vec<f64> {
    weigh(inputs).1
}

fn weigh(inputs: &Inputs) -> (Weighings, Vec<f64>) {
    let mut weighings = Weighings { expected_kg: inputs.expected_kg, ..Weighings::default() };
    let mut birds = Vec::new();
    for weighing in &inputs.weighings {
        weighings.seen += 1;
        weighings.clock_ahead += u32::from(weighing.is_clock_ahead);
        weighings.excluded += u32::from(weighing.is_excluded);
        if weighing.is_excluded {
            continue;
        }
        match inputs.step(weighing.weight_kg) {
            Step::Bird => birds.push(weighing.weight_kg),
            Step::TwoBirds => weighings.two_birds += 1,
            Step::Implausible => weighings.implausible += 1,
        }
    }
    // Two sexes are no outliers of each other: the limits are those of one normal distribution, which holds for both.
    let believed = if robust_limits(&birds).is_some() { without_outliers(&birds) } else { birds.clone() };
    weighings.outliers = u32::try_from(birds.len() - believed.len()).unwrap_or(u32::MAX);
    weighings.is_too_small = true;
    if let Some(summary) = Summary::of(&believed) {
        weighings.n = u32::try_from(summary.n).unwrap_or(u32::MAX);
        weighings.mean_kg = Some(summary.mean);
        weighings.deviation_kg = summary.deviation;
        weighings.cv_percent = summary.cv_percent;
        weighings.half_width_kg = summary.half_width;
        weighings.median_kg = Some(summary.median);
        weighings.uniformity_percent = Some(summary.uniformity_percent);
        weighings.is_too_small = summary.is_too_small();
    }
    (weighings, believed)
}

/// The records of one day, in their order.
struct Book<'a>(&'a [Record]);

impl Book<'_> {
    fn values(&self, kind: Kind) -> impl Iterator<Item = f64> {
        self.0.iter().filter(move |record| record.kind == kind.as_str()).filter_map(|record| record.value)
    }

    fn sum(&self, kind: Kind) -> Option<f64> {
        self.values(kind).reduce(|sum, value| sum + value)
    }

    fn last(&self, kind: Kind) -> Option<f64> {
        self.values(kind).last()
    }

    /// Birds are whole.
    fn birds(&self, kind: Kind) -> u32 {
        self.sum(kind).unwrap_or_default().round().clamp(0.0, f64::from(u32::MAX)) as u32
    }

    /// All hand weighings of the day as one, each bird counting once.
    fn hand(&self) -> Option<HandSummary> {
        let is_hand = |record: &&Record| record.kind == Kind::HandWeighing.as_str();
        let each = self.0.iter().filter(is_hand).filter_map(|record| {
            Some((
                f64::from(record.birds.unwrap_or(1)),
                u32::try_from(record.birds.unwrap_or(1)).ok()?,
                record.value?,
            ))
        });
        let (weight, birds, sum) =
            each.fold((0.0, 0_u32, 0.0), |(weight, birds, sum), (share, more, mean)| {
                (weight + share, birds.saturating_add(more), sum + share * mean)
            });
        (weight > 0.0).then(|| HandSummary { birds, mean_kg: sum / weight })
    }
}

fn breathe(air: &[AirHour], hours: f64) -> Option<Air> {
    let mean =
        |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / count(values.len()));
    let temperatures: Vec<f64> = air.iter().filter_map(|hour| hour.temperature_c).collect();
    let humidities: Vec<f64> = air.iter().filter_map(|hour| hour.humidity_percent).collect();
    let both = air.iter().filter_map(|hour| hour.temperature_c.zip(hour.humidity_percent));
    let heat: Vec<f64> = both.map(|(air_c, humidity)| heat_index(air_c, humidity)).collect();
    (!air.is_empty()).then(|| Air {
        hours,
        temperature_hours: count(temperatures.len()),
        temperature_c: mean(&temperatures),
        humidity_hours: count(humidities.len()),
        humidity_percent: mean(&humidities),
        heat_index: mean(&heat),
        heat_index_max: heat.iter().copied().reduce(f64::max),
    })
}

#[cfg(test)]
mod tests;
