//! Days between days, and what is no standard.

use super::*;

fn day(age_day: u16, body_weight_g: f64, cum_feed_intake_g: f64) -> Day {
    Day { age_day, body_weight_g, cum_feed_intake_g: Some(cum_feed_intake_g), flocks: None }
}

#[test]
fn a_weight_lies_between_its_days_and_nowhere_else() {
    let standard = Standard::new(vec![day(35, 2296.0, 3211.0), day(36, 2396.0, 3394.0)]).unwrap();
    assert_eq!(standard.body_weight_g(35.5), Some(2346.0));
    assert_eq!(standard.cum_feed_intake_g(35.0), Some(3211.0));
    assert_eq!(standard.age_days(2346.0), Some(35.5));
    assert_eq!(standard.body_weight_g(36.0), Some(2396.0));
    assert_eq!(standard.body_weight_g(36.01), None);
    assert_eq!(standard.body_weight_g(f64::NAN), None);
    assert_eq!(standard.age_days(2295.0), None);
}

#[test]
fn a_table_with_a_gap_or_a_shrinking_bird_is_refused() {
    let of = |days: Vec<Day>| Standard::new(days).unwrap_err();
    assert_eq!(of(vec![day(0, 44.0, 0.0)]), NotAStandard::TooShort);
    assert_eq!(of(vec![day(0, 44.0, 0.0), day(2, 80.0, 9.0)]), NotAStandard::Gap { after: 0 });
    assert_eq!(of(vec![day(0, 44.0, 0.0), day(0, 80.0, 9.0)]), NotAStandard::Gap { after: 0 });
    for after in [day(1, 44.0, 9.0), day(1, f64::NAN, 9.0), day(1, 60.0, -1.0), day(1, 60.0, f64::INFINITY)] {
        assert_eq!(of(vec![day(0, 44.0, 0.0), after]), NotAStandard::Shrinks { day: 1 });
    }
}
