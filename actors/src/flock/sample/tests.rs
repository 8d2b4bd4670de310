//! Worked examples, and what must hold for every sample.

use proptest::prelude::*;

use super::*;

const WEIGHTS: [f64; 10] = [2.05, 2.18, 2.21, 2.25, 2.30, 2.33, 2.36, 2.41, 2.48, 2.63];

fn is_near(value: f64, wanted: f64, tolerance: f64) {
    assert!((value - wanted).abs() <= tolerance, "{value} is not {wanted} ± {tolerance}");
}

#[test]
fn ten_weighings_are_summarized() {
    let summary = Summary::of(&WEIGHTS).unwrap();
    is_near(summary.mean, 2.320, 1e-9);
    is_near(summary.deviation.unwrap(), 0.163_775, 1e-6);
    is_near(summary.cv_percent.unwrap(), 7.0593, 1e-4);
    is_near(summary.median, 2.315, 1e-9);
    is_near(summary.mad, 0.10, 1e-9);
    is_near(summary.half_width.unwrap(), 0.117_158, 1e-6);
    is_near(summary.uniformity_percent, 80.0, 1e-9);
    assert!(summary.is_too_small());
}

#[test]
fn one_weighing_has_no_spread_and_none_no_summary() {
    let one = Summary::of(&[2.0]).unwrap();
    assert_eq!((one.deviation, one.cv_percent, one.half_width), (None, None, None));
    assert!(one.is_too_small());
    assert_eq!(Summary::of(&[]), None);
    assert_eq!(Summary::of(&[2.0, f64::NAN]), None);
}

#[test]
fn the_weighings_needed_follow_from_the_spread() {
    for (cv, error, needed) in [
        (10.0, 5.0, 16.0),
        (10.0, 2.0, 97.0),
        (10.0, 1.0, 385.0),
        (8.0, 2.0, 62.0),
        (8.0, 1.0, 246.0),
        (12.0, 2.0, 139.0),
        (12.0, 1.0, 554.0),
        (15.0, 2.0, 217.0),
    ] {
        is_near(size_needed(cv, error, None), needed, 0.0);
    }
    is_near(size_needed(10.0, 1.0, Some(20_000)), 377.0, 0.0);
    is_near(effective_size(1500, 5.0, 0.9), 326.0, 0.5);
}

#[test]
fn a_normal_flock_is_as_uniform_as_its_spread_says() {
    for (cv, uniformity) in [
        (5.0, 95.4),
        (6.0, 90.4),
        (7.0, 84.7),
        (8.0, 78.9),
        (9.0, 73.3),
        (10.0, 68.3),
        (11.0, 63.7),
        (12.0, 59.5),
        (14.0, 52.5),
        (15.0, 49.5),
    ] {
        is_near(uniformity_expected_percent(cv), uniformity, 0.06);
    }
}

#[test]
fn two_birds_and_a_wing_are_outside_of_the_robust_limits() {
    let weights = [2.21, 2.25, 2.30, 2.33, 2.36, 2.41, 4.58, 2.29, 0.31, 2.35];
    let (low, high) = robust_limits(&weights).unwrap();
    is_near(low, 2.070_371, 1e-6);
    is_near(high, 2.559_629, 1e-6);
    let kept: Vec<f64> = weights.into_iter().filter(|weight| (low..=high).contains(weight)).collect();
    assert_eq!(kept.len(), 8);
    is_near(Summary::of(&kept).unwrap().mean, 2.3125, 1e-9);
    assert_eq!(without_outliers(&weights).len(), 10, "so small a sample is not cut");
    assert_eq!(without_outliers(&weights.repeat(2)).len(), 16);
}

#[test]
fn four_bins_of_a_histogram_are_the_uniform_birds() {
    let bins: Vec<usize> = histogram(&WEIGHTS).into_iter().map(|bin| bin.count).collect();
    assert_eq!(bins, [1, 1, 3, 3, 1, 1]);
    assert!(histogram(&[]).is_empty());
    assert!(
        histogram(&[vec![1.0; 99], vec![1.0e4]].concat()).is_empty(),
        "a histogram of a thousand bins says nothing"
    );
}

#[test]
fn the_points_of_student_are_those_of_the_tables() {
    for (degrees, table) in [(1, 12.706), (8, 2.306), (10, 2.228), (20, 2.086), (60, 2.000), (1000, 1.962)] {
        let found = student_t_95(degrees).unwrap();
        assert!((found - table).abs() < 0.001, "{degrees}: {found}");
    }
    assert_eq!(student_t_95(0), None);
}

#[test]
fn a_quantile_is_one_of_the_values() {
    assert_eq!(
        [0.0, 0.5, 0.95, 1.0].map(|share| quantile(&[1, 2, 3, 4, 5], share)),
        [Some(1), Some(3), Some(5), Some(5)]
    );
    assert_eq!(quantile::<f64>(&[], 0.5), None);
}

fn samples() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0.5..5.0_f64, 2..200)
}

proptest! {
    #[test]
    fn another_unit_changes_no_share(weights in samples(), factor in 0.001..1000.0_f64) {
        let scaled: Vec<f64> = weights.iter().map(|weight| weight * factor).collect();
        let (before, after) = (Summary::of(&weights).unwrap(), Summary::of(&scaled).unwrap());
        prop_assert!((before.mean * factor - after.mean).abs() <= 1e-9 * after.mean);
        prop_assert!((before.cv_percent.unwrap() - after.cv_percent.unwrap()).abs() < 1e-6);
    }

    #[test]
    fn the_order_of_the_birds_does_not_matter(weights in samples()) {
        let mut turned = weights.clone();
        turned.reverse();
        let (before, after) = (Summary::of(&weights).unwrap(), Summary::of(&turned).unwrap());
        prop_assert!((before.mean - after.mean).abs() < 1e-12);
        prop_assert_eq!(before.median, after.median);
        prop_assert_eq!(before.mad, after.mad);
    }

    #[test]
    fn a_bird_of_mean_weight_leaves_the_mean(weights in samples()) {
        let before = Summary::of(&weights).unwrap();
        let mut more = weights;
        more.push(before.mean);
        prop_assert!((Summary::of(&more).unwrap().mean - before.mean).abs() < 1e-9);
    }

    #[test]
    fn less_spread_is_more_uniform(cv in 1.0..40.0_f64, more in 0.01..10.0_f64) {
        prop_assert!(uniformity_expected_percent(cv) > uniformity_expected_percent(cv + more));
    }

    #[test]
    fn every_bird_is_in_one_bin(weights in samples()) {
        let bins = histogram(&weights);
        prop_assert_eq!(bins.iter().map(|bin| bin.count).sum::<usize>(), weights.len());
    }
}
