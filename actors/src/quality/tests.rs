//! The tests of sensors by published vectors, by planted faults, and by what must hold of any readings.

use proptest::prelude::*;
use schema::clock::Timestamp;

use super::series::{Finding, Heard, Series};
use super::stretch::{LONGEST, Stretches};
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

fn heard(seconds: i64, value: f64) -> Heard {
    Heard { value, occurred_at: at(seconds), received_at: at(seconds), at: at(seconds) }
}

/// What is found in values a minute apart, with the minute of each finding.
fn found(metric: &str, values: &[f64]) -> Vec<(Test, Level, i64, i64)> {
    let mut series = Series::new(metric);
    let mut findings = Vec::new();
    for (minute, value) in (0_i64..).zip(values) {
        findings.extend(series.hear(&heard(60 * minute, *value), false));
    }
    let minute = |time: Timestamp| time.signed_duration_since(at(0)).num_minutes();
    findings.iter().map(|f| (f.test, f.level, minute(f.from), minute(f.until))).collect()
}

#[test]
fn a_spike_is_by_the_vector_of_the_manual() {
    let values = [1.0, 1.1, 1.0, 1.2, 1.0, 1.3, 1.0, 1.4, 1.0, 1.5, 1.0];
    let judged: Vec<_> = values
        .windows(3)
        .map(|three| match spike([0.15, 0.25], three[0], three[1], three[2]) {
            None => 'p',
            Some(Level::Suspect | Level::Missing) => 's',
            Some(Level::Fail) => 'f',
        })
        .collect();
    assert_eq!(judged.iter().collect::<String>(), "ppssfffff");
}

#[test]
fn a_range_is_what_a_sensor_and_what_a_barn_can_be() {
    for (metric, value, expected) in [
        ("temperature", 27.0, None),
        ("temperature", 46.0, Some(Level::Suspect)),
        ("temperature", -10.0, Some(Level::Suspect)),
        ("temperature", -21.0, Some(Level::Fail)),
        ("temperature", 85.0, Some(Level::Fail)),
        ("humidity", 100.0, None),
        ("humidity", 100.1, Some(Level::Fail)),
        ("humidity", 10.0, Some(Level::Suspect)),
        ("ammonia", 90.0, Some(Level::Suspect)),
        ("co2", 200.0, Some(Level::Suspect)),
        ("light_intensity", 2001.0, Some(Level::Suspect)),
        ("weight", 9.0, Some(Level::Suspect)),
    ] {
        assert_eq!(limits_of(metric).unwrap().range(value, false), expected, "{metric} {value}");
    }
    let temperature = limits_of("temperature").unwrap();
    assert_eq!(temperature.range(-10.0, true), None, "winter outside");
    assert_eq!(temperature.range(-21.0, true), Some(Level::Fail));
    assert!(limits_of("silo.weight").is_none());
    assert!((in_celsius("temperature", 86.0, Some("°F")) - 30.0).abs() < 1e-9);
    assert!((in_celsius("temperature", 30.0, Some("celsius")) - 30.0).abs() < 1e-9);
}

#[test]
fn a_sensor_is_stuck_after_half_an_hour_and_fails_after_an_hour() {
    let found = found("temperature", &[25.0; 62]);
    let suspect: Vec<_> = found.iter().filter(|found| found.1 == Level::Suspect).collect();
    assert!(suspect.iter().all(|found| found.0 == Test::Stuck && found.2 == 0), "{found:?}");
    assert_eq!(suspect.first().map(|found| found.3), Some(30));
    let failed: Vec<_> = found.iter().filter(|found| found.1 == Level::Fail).collect();
    assert_eq!(failed.iter().map(|found| (found.2, found.3)).collect::<Vec<_>>(), [(60, 60), (60, 61)]);
    for (metric, value) in
        [("humidity", 100.0), ("ammonia", 0.0), ("light_intensity", 0.0), ("water_consumption", 0.0)]
    {
        assert_eq!(super::tests::found(metric, &[value; 1500]), [], "{metric} stays so by right");
    }
    assert_eq!(super::tests::found("temperature", &[25.0, 25.0, 25.02].repeat(100)), [], "it moves");
}

#[test]
fn a_value_that_moves_again_is_no_longer_stuck() {
    let mut series = Series::new("temperature");
    for minute in 0..40 {
        series.hear(&heard(60 * minute, 25.0), false);
    }
    let standing = series.standing(at(60 * 39));
    assert_eq!(
        standing.iter().map(|now| (now.test, now.level)).collect::<Vec<_>>(),
        [(Test::Stuck, Level::Suspect)]
    );
    series.hear(&heard(60 * 40, 25.1), false);
    assert_eq!(series.standing(at(60 * 40)), []);
}

#[test]
fn a_jump_is_too_fast_and_a_slow_change_is_none() {
    assert!(found("temperature", &[25.0, 25.9, 26.8, 27.7]).is_empty());
    let found = found("temperature", &[25.0, 25.1, 26.3, 26.3]);
    assert_eq!(found, [(Test::Rate, Level::Suspect, 2, 2)]);
    let temperature = limits_of("temperature").unwrap();
    assert!(!temperature.is_too_fast(0.5, Duration::seconds(5)), "a step of the sensor is no rush");
    assert!(temperature.is_too_fast(1.5, Duration::seconds(5)));
    assert!(!temperature.is_too_fast(9.0, Duration::minutes(10)));
}

#[test]
fn silence_is_a_gap_when_it_ends_and_stands_while_it_lasts() {
    let mut series = Series::new("ammonia");
    for minute in 0..10 {
        assert_eq!(series.hear(&heard(60 * minute, 5.0), false), []);
    }
    let last = 60 * 9;
    assert_eq!(series.silent_since(at(last + 179)), None);
    assert_eq!(series.silent_since(at(last + 180)), Some(at(last)));
    assert_eq!(series.standing(at(last + 180)).first().map(|now| now.test), Some(Test::Gap));
    let found = series.hear(&heard(last + 600, 5.0), false);
    assert_eq!(
        found.iter().map(|f| (f.test, f.from, f.until)).collect::<Vec<_>>(),
        [(Test::Gap, at(last), at(last + 600))]
    );
    assert_eq!(series.standing(at(last + 600)), []);
    series.was_deaf(at(last + 5000));
    assert_eq!(series.silent_since(at(last + 5000)), None, "who did not listen knows of no silence");
    assert_eq!(series.hear(&heard(last + 5000, 5.0), false), []);
}

#[test]
fn a_buffer_that_comes_late_in_order_leaves_no_gap() {
    let mut series = Series::new("temperature");
    for minute in 0..10 {
        series.hear(&heard(60 * minute, 25.0 + 0.01 * minute as f64 * 5.0), false);
    }
    let received_at = at(60 * 200);
    assert!(series.silent_since(received_at).is_some());
    for minute in 10..30 {
        let value = 25.0 + 0.05 * minute as f64;
        let reading = Heard { received_at, ..heard(60 * minute, value) };
        assert_eq!(series.hear(&reading, false), [], "minute {minute}");
    }
}

#[test]
fn a_clock_that_cannot_be_is_flagged_and_nothing_else_of_it() {
    let mut series = Series::new("temperature");
    let ahead = Heard { occurred_at: at(25_200), ..heard(0, 25.0) };
    let found: Vec<_> = series.hear(&ahead, false).iter().map(|f| (f.test, f.level)).collect();
    assert_eq!(found, [(Test::Clock, Level::Suspect)]);
    let behind = Heard { occurred_at: at(-90_000), ..heard(60, 25.1) };
    assert_eq!(series.hear(&behind, false).len(), 1);
    let fine = Heard { occurred_at: at(120 + 599), ..heard(120, 25.2) };
    assert_eq!(series.hear(&fine, false), []);
}

#[test]
fn one_of_three_that_stands_apart_for_a_quarter_of_an_hour_is_suspect() {
    assert_eq!(median_of_three_and_more(&mut [1.0, 9.0]), None);
    assert_eq!(median_of_three_and_more(&mut [9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median_of_three_and_more(&mut [9.0, 1.0, 2.0, 4.0]), Some(3.0));
    let mut series = Series::new("temperature");
    let mut first = None;
    for minute in 0..20_i64 {
        series.hear(&heard(60 * minute, 30.0 + 0.02 * minute as f64), false);
        assert!(series.wants_comparison());
        first = first.or(series.compare(Some(25.0)).map(|found| (minute, found)));
    }
    let (minute, found) = first.expect("it is found");
    assert_eq!((minute, found.from, found.level), (15, at(0), Level::Suspect));
    assert_eq!(series.compare(Some(29.0)), None);
    assert_eq!(series.standing(at(60 * 20)), []);
}

fn finding(test: Test, from: i64, until: i64) -> Finding {
    Finding { test, level: Level::Suspect, from: at(from), until: at(until), readings: 1, value: Some(1.0) }
}

#[test]
fn findings_of_one_test_are_one_stretch_and_long_ones_are_cut_by_the_day() {
    let mut stretches = Stretches::default();
    for minute in 0..10 {
        stretches.note(&finding(Test::Range, 60 * minute, 60 * minute));
    }
    stretches.note(&finding(Test::Rate, 0, 0));
    stretches.note(&finding(Test::Range, 7200, 7200));
    let changed = stretches.take_changed(at(7200));
    let told: Vec<_> = changed.iter().map(|s| (s.test, s.from, s.until, s.readings)).collect();
    assert_eq!(
        told,
        [
            (Test::Range, at(0), at(540), 10),
            (Test::Rate, at(0), at(0), 1),
            (Test::Range, at(7200), at(7200), 1)
        ]
    );
    assert_eq!((stretches.len(), stretches.take_changed(at(7200))), (1, vec![]));

    let mut stretches = Stretches::default();
    stretches.note(&finding(Test::Gap, 0, 3 * 86_400));
    let changed = stretches.take_changed(at(3 * 86_400));
    assert_eq!(changed.len(), 3);
    assert!(changed.iter().all(|stretch| stretch.until - stretch.from <= LONGEST), "{changed:?}");
    // What is stuck for days is told from its beginning each time.
    let mut stretches = Stretches::default();
    let mut rows = std::collections::BTreeMap::new();
    for hour in 0..72 {
        for minute in 0..60 {
            stretches.note(&finding(Test::Stuck, 0, 3600 * hour + 60 * minute));
        }
        rows.extend(stretches.take_changed(at(3600 * hour + 3540)).iter().map(|s| (s.from, s.until)));
    }
    let rows: Vec<_> = rows.into_iter().collect();
    assert!(rows.len() <= 5, "{}", rows.len());
    assert!(rows.iter().all(|(from, until)| *until - *from <= LONGEST), "{rows:?}");
    assert!(rows.windows(2).all(|two| two[0].1 == two[1].0), "end to end: {rows:?}");
}

proptest! {
    #[test]
    fn smooth_air_is_never_flagged(start in 18.0..30.0_f64, steps in prop::collection::vec(0.02..0.2_f64, 10..200)) {
        // Up and down by less than a sensor may move in a minute, and always by more than it may stand still.
        let mut value = start;
        let values: Vec<f64> = steps.iter().enumerate().map(|(i, step)| {
            value += if i % 2 == 0 { *step } else { -*step };
            value
        }).collect();
        prop_assert_eq!(found("temperature", &values), []);
    }

    #[test]
    fn what_is_found_does_not_depend_on_where_zero_is(values in prop::collection::vec(20.0..30.0_f64, 3..100), shift in 0.0..5.0_f64) {
        let rounded: Vec<f64> = values.iter().map(|value| (value * 8.0).round() / 8.0).collect();
        let shift = (shift * 8.0).round() / 8.0;
        let shifted: Vec<f64> = rounded.iter().map(|value| value + shift).collect();
        prop_assert_eq!(found("temperature", &rounded), found("temperature", &shifted));
    }

    #[test]
    fn a_planted_spike_is_always_found(place in 2..50_usize, height in 5.1..15.0_f64) {
        let mut values: Vec<f64> = (0..60).map(|i| 25.0 + f64::from(i % 2) * 0.1).collect();
        values[place] += height;
        let found = found("temperature", &values);
        let minute = i64::try_from(place).unwrap();
        prop_assert!(found.contains(&(Test::Spike, Level::Fail, minute, minute)), "{:?}", found);
    }

    #[test]
    fn nothing_breaks_whatever_comes_and_memory_stays_small(
        readings in prop::collection::vec((any::<i32>(), -1e300..1e300_f64, -100_000..100_000_i64), 1..300),
        metric in prop::sample::select(vec!["temperature", "humidity", "ammonia", "co2", "weight", "other"]),
    ) {
        let mut series = Series::new(metric);
        let mut stretches = Stretches::default();
        for (seconds, value, skew) in readings {
            let reading = Heard { occurred_at: at(i64::from(seconds) + skew), ..heard(i64::from(seconds), value) };
            for finding in series.hear(&reading, false) {
                prop_assert!(finding.from <= finding.until);
                stretches.note(&finding);
            }
            series.compare(Some(value / 2.0)).iter().for_each(|finding| stretches.note(finding));
            let changed = stretches.take_changed(reading.at);
            let keys: std::collections::BTreeSet<_> = changed.iter().map(|s| (s.test, s.from)).collect();
            prop_assert_eq!(keys.len(), changed.len(), "no two rows of one key");
            prop_assert!(changed.iter().all(|s| s.until - s.from <= LONGEST && s.from <= s.until));
            prop_assert!(series.standing(reading.received_at).len() <= Test::ALL.len());
        }
        prop_assert!(stretches.len() <= 64);
    }
}
