//! Published weights of both sexes, and flocks whose truth is known.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Ross 308 objectives of 2022: day, cocks, hens, grams; and what 8 % within each sex makes of them.
const DAYS: [(u16, f64, f64, f64, f64); 4] = [
    (28, 1697.0, 1536.0, 9.43, 70.4),
    (35, 2441.0, 2150.0, 10.22, 65.6),
    (42, 3222.0, 2774.0, 10.96, 61.0),
    (49, 3991.0, 3372.0, 11.62, 56.8),
];

#[test]
fn mixing_the_sexes_widens_the_flock() {
    for (day, male, female, cv_percent, uniformity_percent) in DAYS {
        let mixed = Mixed::of(male, female, 8.0);
        assert!((mixed.cv_percent - cv_percent).abs() < 0.01, "day {day}: {mixed:?}");
        assert!((mixed.uniformity_percent - uniformity_percent).abs() < 0.06, "day {day}: {mixed:?}");
    }
}

#[test]
fn two_peaks_are_seen_from_two_deviations_on() {
    let day = |wanted: u16| DAYS.into_iter().find(|(day, ..)| *day == wanted).unwrap();
    for (age, cv_percent, separation, has_two_peaks) in
        [(35, 5.0, 2.54, true), (35, 8.0, 1.58, false), (42, 8.0, 1.87, false), (49, 8.0, 2.10, true)]
    {
        let (_, male, female, ..) = day(age);
        let mixed = Mixed::of(male, female, cv_percent);
        assert!((mixed.separation - separation).abs() < 0.01, "day {age}: {mixed:?}");
        assert_eq!(mixed.has_two_peaks(), has_two_peaks);
    }
}

/// A flock of `n` weighings; its cocks are `share` of it.
fn flock(seed: u64, n: usize, share: f64, ratio: f64, cv: f64) -> Vec<f64> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..n)
        .map(|_| {
            let mean = if random.random_bool(share) { 2.15 * ratio } else { 2.15 };
            let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            mean * (1.0 + cv * normal)
        })
        .collect()
}

#[test]
fn the_share_of_a_made_flock_is_recovered() {
    for (seed, share) in [(1, 0.5), (2, 0.3), (3, 0.7), (4, 0.5)] {
        let split = split(&flock(seed, 3000, share, 1.161, 0.045), 1.161).unwrap();
        assert!((split.male_share - share).abs() < 0.05, "{share}: {split:?}");
        assert!((split.cv_percent - 4.5).abs() < 0.5, "{split:?}");
        assert!((split.female_mean - 2.15).abs() < 0.03, "{split:?}");
    }
}

#[test]
fn one_sex_or_too_few_birds_are_not_split() {
    for seed in 0..5 {
        assert_eq!(split(&flock(seed, 2000, 1.0, 1.135, 0.08), 1.135), None);
    }
    assert_eq!(split(&flock(1, FIT_WEIGHINGS_MIN - 1, 0.5, 1.161, 0.03), 1.161), None);
    assert_eq!(split(&[1.0; 400], 1.161), None);
    assert_eq!(split(&flock(1, 400, 0.5, 1.161, 0.03), 1.0), None);
}
