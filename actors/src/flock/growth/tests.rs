//! Examples worked by hand along the Ross 308 as-hatched objectives of 2022.

use super::super::standard::Day;
use super::*;

fn is_near(value: f64, wanted: f64, tolerance: f64) {
    assert!((value - wanted).abs() <= tolerance, "{value} is not {wanted} ± {tolerance}");
}

/// Days 26 to 45 of the published table.
fn standard() -> Standard {
    const WEIGHTS: [f64; 20] = [
        1434.0, 1524.0, 1616.0, 1710.0, 1805.0, 1901.0, 1999.0, 2097.0, 2196.0, 2296.0, 2396.0, 2496.0,
        2597.0, 2697.0, 2798.0, 2898.0, 2998.0, 3097.0, 3197.0, 3295.0,
    ];
    let days = WEIGHTS.into_iter().zip(26..).map(|(body_weight_g, age_day)| Day {
        age_day,
        body_weight_g,
        cum_feed_intake_g: Some(body_weight_g),
        flocks: None,
    });
    Standard::new(days.collect()).unwrap()
}

#[test]
fn a_light_flock_is_behind_its_standard() {
    is_near(deviation_percent(2230.0, 2296.0), -2.8746, 1e-4);
    is_near(lag_days(28.0, 1560.0, &standard()).unwrap(), 0.608_696, 1e-6);
    assert_eq!(lag_days(28.0, 10.0, &standard()), None);
}

#[test]
fn a_gain_is_by_the_days_between() {
    is_near(gain_g_per_day(44.0, 2296.0, 35.0).unwrap(), 64.34, 0.005);
    is_near(gain_g_per_day(1616.0, 2296.0, 7.0).unwrap(), 97.14, 0.005);
    assert_eq!(gain_g_per_day(1.0, 2.0, 0.0), None);
}

#[test]
fn a_verdict_needs_an_interval_that_excludes_the_standard() {
    assert_eq!(verdict(2230.0, 60.0, 2296.0), Verdict::Below);
    assert_eq!(verdict(2230.0, 66.0, 2296.0), Verdict::Within);
    assert_eq!(verdict(2360.0, 60.0, 2296.0), Verdict::Above);
}

#[test]
fn a_forecast_is_a_range_between_ratio_and_lag() {
    let forecast = forecast(28.0, 1560.0, 0.0, 2800.0, &standard()).unwrap();
    is_near(forecast.by_ratio, 41.025_128, 1e-6);
    is_near(forecast.by_lag, 40.628_696, 1e-6);
    assert_eq!((forecast.earliest, forecast.latest), (forecast.by_lag, forecast.by_ratio));
    let ratio = 1560.0 / 1616.0;
    let uncertain = super::forecast(28.0, 1560.0, 0.012 * ratio, 2800.0, &standard()).unwrap();
    is_near(uncertain.latest, 41.51, 0.15);
    assert!(uncertain.earliest <= forecast.by_lag && uncertain.latest > forecast.by_ratio);
}

#[test]
fn the_standard_itself_arrives_on_its_own_day() {
    let forecast = forecast(30.0, standard().body_weight_g(30.0).unwrap(), 0.0, 2800.0, &standard()).unwrap();
    is_near(forecast.by_ratio, 40.02, 0.005);
    is_near(forecast.by_lag, forecast.by_ratio, 1e-9);
    assert_eq!(
        super::forecast(28.0, 1560.0, 0.0, 9000.0, &standard()),
        None,
        "beyond the table nothing is said"
    );
}
