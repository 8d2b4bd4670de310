//! How far a camera agrees with the scale: bias and limits of agreement.
//!
//! Bland and Altman, *Statistical methods for assessing agreement between two methods of clinical measurement*, Lancet
//! 1986, 327: 307–310. The differences, camera − scale, have a mean (the bias) and a standard deviation s (n − 1); 95 % of
//! them lie within bias ± 1.96 s, the limits of agreement, if they are normal. The bias is known to ± t·s/√n, each limit to
//! about ± t·s·√(3/n). A difference grows with the weight of the bird, so that it is told in percent of the mean of both,
//! too (Bland and Altman, *Measuring agreement in method comparison studies*, Statistical Methods in Medical Research
//! 1999, 8: 135–160).

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schema::store::flock::pair::Pair;
use serde::{Deserialize, Serialize};

use super::sample::{VERDICT_WEIGHINGS_MIN, half_width, student_t_95};

/// Cameras and versions of models of which a day tells; those behind, by their names, are left out.
pub const CAMERAS_MAX: usize = 64;
/// So many standard deviations to each side hold 95 % of a normal distribution.
const LIMIT: f64 = 1.96;

/// Mean and spread of numbers, such that those of several days make those of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// How many.
    pub n: u32,
    /// Their mean.
    pub mean: f64,
    /// Sum of the squared distances from it.
    pub squares: f64,
}

impl Moments {
    /// With one more number (Welford 1962).
    #[must_use]
    pub fn with(self, number: f64) -> Self {
        self.and(Self { n: 1, mean: number, squares: 0.0 })
    }

    /// Of these and others (Chan, Golub and LeVeque 1979).
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.n == 0 {
            return self;
        }
        let (own, others) = (f64::from(self.n), f64::from(other.n));
        let (n, apart) = (own + others, other.mean - self.mean);
        Self {
            n: self.n.saturating_add(other.n),
            mean: self.mean + apart * others / n,
            squares: self.squares + other.squares + apart * apart * own * others / n,
        }
    }

    /// Standard deviation (n − 1).
    #[must_use]
    pub fn deviation(self) -> Option<f64> {
        (self.n > 1).then(|| (self.squares / f64::from(self.n - 1)).sqrt())
    }
}

/// How one model's readings of one camera's pictures differ from the scales on one day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CameraDay {
    /// The camera.
    pub device_id: String,
    /// The model.
    pub model_version: String,
    /// Camera − scale, kg.
    pub difference_kg: Moments,
    /// The same in percent of the mean of both.
    pub difference_percent: Moments,
}

/// The differences of a day, by camera and model.
#[must_use]
pub fn compare<'a>(pairs: impl Iterator<Item = &'a Pair>) -> Vec<CameraDay> {
    let mut days: BTreeMap<(&str, &str), CameraDay> = BTreeMap::new();
    for pair in pairs {
        let day = days.entry((&pair.device_id, &pair.model_version)).or_insert_with(|| CameraDay {
            device_id: pair.device_id.clone(),
            model_version: pair.model_version.clone(),
            difference_kg: Moments::default(),
            difference_percent: Moments::default(),
        });
        let difference = pair.camera_kg - pair.scale_kg;
        day.difference_kg = day.difference_kg.with(difference);
        let mean = f64::midpoint(pair.camera_kg, pair.scale_kg);
        day.difference_percent = day.difference_percent.with(100.0 * difference / mean);
    }
    days.into_values().take(CAMERAS_MAX).collect()
}

/// Bias and limits of agreement of some differences. What cannot be said is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean of the differences, camera − scale.
    pub bias: f64,
    /// Half of the width of its 95 % interval.
    pub bias_half_width: Option<f64>,
    /// Standard deviation of the differences (n − 1).
    pub deviation: Option<f64>,
    /// Lower limit of agreement.
    pub lower: Option<f64>,
    /// Upper limit of agreement.
    pub upper: Option<f64>,
    /// Half of the width of the 95 % interval of either limit.
    pub limit_half_width: Option<f64>,
}

impl Agreement {
    /// Of differences; `None` of none.
    #[must_use]
    pub fn of(differences: Moments) -> Option<Self> {
        let n = usize::try_from(differences.n).ok().filter(|n| *n > 0)?;
        let deviation = differences.deviation();
        let limit = |sign: f64| deviation.map(|deviation| differences.mean + sign * LIMIT * deviation);
        let t = student_t_95(n - 1);
        Some(Self {
            bias: differences.mean,
            bias_half_width: deviation.and_then(|deviation| half_width(deviation, n)),
            deviation,
            lower: limit(-1.0),
            upper: limit(1.0),
            limit_half_width: deviation
                .zip(t)
                .map(|(deviation, t)| t * deviation * (3.0 / f64::from(differences.n)).sqrt()),
        })
    }
}

/// How cameras agree with the scales: of some days, some cameras, and one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The day; `None` over all days of the flock.
    pub day: Option<NaiveDate>,
    /// The camera; `None` over all of them.
    pub device_id: Option<String>,
    /// The model.
    pub model_version: String,
    /// Pairs of a scale's weight and a camera's.
    pub n: u32,
    /// Whether there are too few for a verdict.
    pub is_n_too_small: bool,
    /// In kilograms.
    pub kilograms: Agreement,
    /// In percent of the mean of both.
    pub percent: Agreement,
}

/// The comparisons of a flock: by model over everything, then by model and camera, then day by day. What two models say is
/// never put together.
#[must_use]
pub fn comparisons(days: &[(NaiveDate, Vec<CameraDay>)]) -> Vec<Comparison> {
    type Key<'a> = (Option<NaiveDate>, Option<&'a str>, &'a str);
    let mut sums: BTreeMap<(u8, Key<'_>), (Moments, Moments)> = BTreeMap::new();
    for (day, cameras) in days {
        for camera in cameras {
            let (device, model) = (Some(&*camera.device_id), &*camera.model_version);
            for key in
                [(0, (None, None, model)), (1, (None, device, model)), (2, (Some(*day), device, model))]
            {
                let (kilograms, percent) = sums.entry(key).or_default();
                *kilograms = kilograms.and(camera.difference_kg);
                *percent = percent.and(camera.difference_percent);
            }
        }
    }
    let line = |((_, (day, device_id, model_version)), (kilograms, percent)): (_, (Moments, Moments))| {
        let (day, device_id, model_version): Key<'_> = (day, device_id, model_version);
        Some(Comparison {
            day,
            device_id: device_id.map(str::to_owned),
            model_version: model_version.to_owned(),
            n: kilograms.n,
            is_n_too_small: usize::try_from(kilograms.n).is_ok_and(|n| n < VERDICT_WEIGHINGS_MIN),
            kilograms: Agreement::of(kilograms)?,
            percent: Agreement::of(percent)?,
        })
    };
    sums.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(device_id: &str, model_version: &str, scale_kg: f64, camera_kg: f64) -> Pair {
        Pair { device_id: device_id.to_owned(), model_version: model_version.to_owned(), scale_kg, camera_kg }
    }

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 0.05
    }

    // Peak expiratory flow by two meters, from the paper of 1986: mean difference −2.1 l/min, s 38.8, limits −79.7 and 75.5
    // there with two standard deviations, here with 1.96.
    #[test]
    fn the_peak_flow_meters_of_the_paper_agree_as_they_do_there() {
        let wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427];
        let mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451];
        let pairs: Vec<Pair> = wright
            .iter()
            .zip(mini)
            .map(|(wright, mini)| pair("mini", "v", f64::from(mini), f64::from(*wright)))
            .collect();
        let day = NaiveDate::from_ymd_opt(1986, 2, 8).unwrap();
        let all = comparisons(&[(day, compare(pairs.iter()))]);
        let agreement = all[0].kilograms;
        assert_eq!((all.len(), all[0].n, all[0].is_n_too_small), (3, 17, true));
        assert!(near(agreement.bias, -2.12), "{agreement:?}");
        assert!(near(agreement.deviation.unwrap(), 38.77), "{agreement:?}");
        assert!(near(agreement.lower.unwrap(), -2.118 - 1.96 * 38.765), "{agreement:?}");
        // t of 16 degrees is 2.12: the bias is known to ± 19.9, a limit to ± 34.5.
        assert!(near(agreement.bias_half_width.unwrap(), 19.93), "{agreement:?}");
        assert!(near(agreement.limit_half_width.unwrap(), 34.52), "{agreement:?}");
    }

    #[test]
    fn days_and_cameras_add_up_and_models_never_do() {
        let day = |n: u32| NaiveDate::from_ymd_opt(2026, 2, n).unwrap();
        let first = compare([pair("a", "v1", 2.0, 2.1), pair("b", "v1", 2.0, 1.9)].iter());
        let second = compare([pair("a", "v1", 2.0, 2.3), pair("a", "v2", 2.0, 4.0)].iter());
        let all = comparisons(&[(day(1), first), (day(2), second)]);
        let found: Vec<_> = all
            .iter()
            .map(|it| (it.day, it.device_id.as_deref(), &*it.model_version, it.n, it.kilograms.bias))
            .map(|(day, device, model, n, bias)| (day, device, model, n, (bias * 1e6).round() / 1e6))
            .collect();
        assert_eq!(
            found,
            [
                (None, None, "v1", 3, 0.1),
                (None, None, "v2", 1, 2.0),
                (None, Some("a"), "v1", 2, 0.2),
                (None, Some("a"), "v2", 1, 2.0),
                (None, Some("b"), "v1", 1, -0.1),
                (Some(day(1)), Some("a"), "v1", 1, 0.1),
                (Some(day(1)), Some("b"), "v1", 1, -0.1),
                (Some(day(2)), Some("a"), "v1", 1, 0.3),
                (Some(day(2)), Some("a"), "v2", 1, 2.0),
            ]
        );
        assert_eq!(all[1].kilograms.deviation, None, "one pair has no limits");
        assert!(comparisons(&[]).is_empty());
    }

    proptest! {
        /// However pairs are spread over days, all of them together say the same.
        #[test]
        fn days_that_are_put_together_are_one(pairs in proptest::collection::vec((0.1..5.0_f64, 0.1..5.0_f64), 2..80), at in 1..79_usize) {
            let pairs: Vec<_> = pairs.iter().map(|(scale, camera)| pair("a", "v", *scale, *camera)).collect();
            let (one, two) = pairs.split_at(at.min(pairs.len() - 1));
            let whole = compare(pairs.iter())[0].difference_kg;
            let parts = compare(one.iter())[0].difference_kg.and(compare(two.iter())[0].difference_kg);
            prop_assert_eq!(whole.n, parts.n);
            prop_assert!((whole.mean - parts.mean).abs() < 1e-9 && (whole.squares - parts.squares).abs() < 1e-6);
        }
    }
}
