//! Worked examples, and that thinning is no loss.

use proptest::prelude::*;

use super::*;

fn is_near(value: f64, wanted: f64, tolerance: f64) {
    assert!((value - wanted).abs() <= tolerance, "{value} is not {wanted} ± {tolerance}");
}

#[test]
fn conversions_are_of_weight_of_gain_and_of_the_house() {
    is_near(conversion(3211.0, 2296.0), 1.3985, 5e-5);
    is_near(conversion(5100.0, 3278.0), 1.5558, 5e-5);
    is_near(conversion_of_gain(3211.0, 2296.0, 44.0), 1.4258, 5e-5);
    is_near(conversion_of_gain(5100.0, 3278.0, 42.0), 1.576, 5e-4);
    let feed = HouseFeed { delivered_kg: 64_000.0, left_kg: 700.0, returned_kg: 300.0 };
    is_near(conversion_of_house(feed, 19_400.0 * 2.296, 0.0).unwrap(), 1.414_383, 1e-6);
    assert_eq!(conversion_of_house(feed, 0.0, 0.0), None);
}

#[test]
fn the_efficiency_factor_is_that_of_the_trade() {
    is_near(efficiency_factor(95.0, 1.85, 44.0, 1.88), 212.46, 0.01);
    is_near(efficiency_factor(97.0, 2.296, 35.0, 1.414_383), 449.89, 0.01);
}

#[test]
fn mortality_is_the_sum_of_daily_rates() {
    let days = [40, 35, 30, 25, 20, 18, 15].map(|dead| DayOfLosses { dead, ..DayOfLosses::default() });
    let losses = losses(20_000, &days);
    is_near(losses.cumulative_percent, 0.918_545, 1e-6);
    assert_eq!(losses.alive, 19_817);
    is_near(mortality_guide_percent(42.0), 3.52, 1e-9);
    is_near(mortality_guide_percent(7.0), 1.42, 1e-9);
}

#[test]
fn density_and_water_are_by_bird() {
    is_near(density_kg_per_m2(19_400, 2.296, 1350.0).unwrap(), 32.9944, 1e-4);
    assert_eq!(density_kg_per_m2(1, 1.0, 0.0), None);
    is_near(water_expected_l(180.0, 1), 0.306, 1e-9);
    is_near(water_expected_l(180.0, 19_400), 5936.4, 1e-6);
    is_near(water_ml_per_bird(5936.4, 19_400).unwrap(), 306.0, 1e-9);
    is_near(water_to_feed(5936.4, 19_400.0 * 0.18).unwrap(), 1.7, 1e-9);
    assert_eq!((water_ml_per_bird(1.0, 0), water_to_feed(1.0, 0.0)), (None, None));
}

proptest! {
    #[test]
    fn thinning_on_the_last_day_leaves_the_mortality(
        dead in proptest::collection::vec(0u32..50, 1..50), thinned in 0u32..10_000,
    ) {
        let mut days: Vec<DayOfLosses> =
            dead.into_iter().map(|dead| DayOfLosses { dead, ..DayOfLosses::default() }).collect();
        let before = losses(20_000, &days);
        days.last_mut().unwrap().thinned = thinned;
        let after = losses(20_000, &days);
        prop_assert_eq!(before.cumulative_percent, after.cumulative_percent);
        prop_assert_eq!(before.alive - thinned, after.alive);
    }

    #[test]
    fn more_losses_than_birds_leave_none(dead in 0u32.., culled in 0u32.., thinned in 0u32..) {
        let losses = losses(100, &[DayOfLosses { dead, culled, thinned }]);
        prop_assert!(losses.alive <= 100 && losses.last_day_percent <= 100.0);
    }
}
