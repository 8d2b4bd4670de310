//! Worked examples of published formulas.

use super::*;

fn is_near(value: f64, wanted: f64, tolerance: f64) {
    assert!((value - wanted).abs() <= tolerance, "{value} is not {wanted} ± {tolerance}");
}

#[test]
fn a_wet_bulb_is_that_of_stull() {
    for (air, humidity, wet) in
        [(20.0, 50.0, 13.70), (32.0, 75.0, 28.26), (30.0, 60.0, 24.0), (35.0, 60.0, 28.49)]
    {
        is_near(wet_bulb_c(air, humidity), wet, 0.01);
    }
}

#[test]
fn heat_is_felt_less_in_wind_of_a_known_speed() {
    is_near(heat_index(32.0, 75.0), 31.44, 0.01);
    is_near(heat_index_in_wind(32.0, 75.0, 0.2).unwrap(), 34.52, 0.01);
    is_near(heat_index_in_wind(32.0, 75.0, 1.0).unwrap(), 31.44, 0.01);
    assert_eq!(heat_index_in_wind(32.0, 75.0, 2.0), None);
    is_near(heat_index_simple(32.0, 75.0), 30.636, 0.001);
}

#[test]
fn a_set_point_is_by_weight_and_humidity() {
    for (grams, humidity, air, is_clamped) in [
        (44.0, 60.0, 30.8, false),
        (10.0, 60.0, 30.8, false),
        (213.0, 60.0, 27.40, false),
        (533.0, 55.0, 26.13, false),
        (1012.0, 60.0, 22.71, false),
        (2296.0, 60.0, 20.7, false),
        (2296.0, 80.0, 19.3, true),
        (44.0, 10.0, 36.0, true),
    ] {
        let point = set_point(grams, humidity);
        is_near(point.air_c, air, 0.005);
        assert_eq!(point.is_clamped, is_clamped);
    }
}

fn held(value: f64, hours: f64) -> Held {
    Held { value, seconds: hours * 3600.0 }
}

#[test]
fn a_mean_says_what_it_covers() {
    let two_days = 48.0 * 3600.0;
    let mean = CoveredMean::of(&[held(72.0, 30.0), held(64.0, 12.0)], two_days).unwrap();
    is_near(mean.mean, 69.7143, 1e-4);
    is_near(mean.coverage, 0.875, 1e-9);
    assert!(mean.is_enough());
    assert!(!CoveredMean::of(&[held(72.0, 30.0)], two_days).unwrap().is_enough());
    assert_eq!(CoveredMean::of(&[], two_days), None);
}

#[test]
fn a_night_is_long_enough_if_one_part_of_it_is() {
    let night = [held(20.0, 21.5), held(0.0, 5.0), held(10.0, 0.5), held(0.2, 1.0)];
    let darkness = Darkness::of(&night);
    assert_eq!((darkness.hours, darkness.longest_hours), (6.0, 5.0));
    assert!(darkness.is_enough());
    let torn = [held(0.0, 3.0), held(20.0, 0.1), held(0.0, 3.0)];
    assert!(!Darkness::of(&torn).is_enough());
}

#[test]
fn a_house_without_a_healthy_probe_has_no_mean() {
    assert_eq!(house_mean(&[]), None);
    is_near(house_mean(&[30.0, 31.0]).unwrap(), 30.5, 1e-12);
}
