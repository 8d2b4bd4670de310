//! One bird, two birds, none.

use super::*;

#[test]
fn a_step_is_a_bird_two_birds_or_neither() {
    for (weight, is_mixed, step) in [
        (2.30, false, Step::Bird),
        (4.58, false, Step::TwoBirds),
        (0.31, false, Step::Implausible),
        (1.62, false, Step::Bird),
        (2.70, false, Step::Implausible),
        (2.70, true, Step::Bird),
        (6.9, true, Step::Implausible),
        (f64::NAN, true, Step::Implausible),
    ] {
        assert_eq!(judge(weight, 2.30, is_mixed), step, "{weight}");
    }
}

#[test]
fn a_bias_needs_two_weighings_by_hand_after_day_21() {
    let weighing = |age_days, hand_mean, scale_mean| HandWeighing { age_days, hand_mean, scale_mean };
    let late = [weighing(28.0, 1.545, 1.5), weighing(35.0, 2.3175, 2.25)];
    assert!((bias(&late).unwrap() - 1.03).abs() < 1e-12);
    assert!((2.250 * bias(&late).unwrap() - 2.3175).abs() < 1e-12);
    assert_eq!(bias(&late[..1]), None);
    assert_eq!(bias(&[weighing(14.0, 0.5, 0.4), weighing(28.0, 1.5, 1.4)]), None);
}
