//! Days made by hand.

use schema::clock::Timestamp;

use super::*;

fn weighings(weights: &[f64]) -> Vec<Weighing> {
    let weighing = |weight_kg: &f64| Weighing {
        session_id: "s".to_owned(),
        weight_kg: *weight_kg,
        is_clock_ahead: false,
        is_excluded: false,
    };
    weights.iter().map(weighing).collect()
}

fn record(kind: Kind, value: f64, birds: Option<i32>) -> Record {
    let at = Timestamp::UNIX_EPOCH;
    Record {
        id: schema::id::new_id(),
        tenant_id: "t".to_owned(),
        flock_id: schema::id::new_id(),
        kind: kind.as_str().to_owned(),
        day: at.date_naive(),
        part: None,
        value: Some(value),
        birds,
        cause: None,
        note: None,
        source: "MANUAL".to_owned(),
        external_ref: None,
        corrects: None,
        is_void: false,
        author: "a".to_owned(),
        occurred_at: at,
        created_at: at,
    }
}

#[test]
fn two_birds_and_a_wing_are_counted_and_not_used() {
    let inputs = Inputs {
        weighings: weighings(&[2.21, 2.25, 2.30, 2.33, 2.36, 2.41, 4.58, 2.29, 0.31, 2.35]),
        expected_kg: Some(2.30),
        ..Inputs::default()
    };
    let day = summarize(&inputs).weighings;
    assert_eq!((day.seen, day.two_birds, day.implausible, day.outliers, day.n), (10, 1, 1, 0, 8));
    assert!((day.mean_kg.unwrap() - 2.3125).abs() < 1e-9);
    assert_eq!(day.firm_mean_kg(), None, "eight weighings bear nothing");
}

#[test]
fn without_an_expectation_only_the_robust_limits_cut() {
    let weights: Vec<f64> = [2.21, 2.25, 2.30, 2.33, 2.36, 2.41, 4.58, 2.29, 0.31, 2.35].repeat(3);
    let day = summarize(&Inputs { weighings: weighings(&weights), ..Inputs::default() }).weighings;
    assert_eq!((day.outliers, day.n, day.two_birds), (6, 24, 0));
    assert!((day.mean_kg.unwrap() - 2.3125).abs() < 1e-9);
}

#[test]
fn the_book_is_summed_or_its_last_word_counts() {
    let records = vec![
        record(Kind::Mortality, 12.0, None),
        record(Kind::Mortality, 8.0, None),
        record(Kind::Cull, 3.0, None),
        record(Kind::FeedDelivered, 4000.0, None),
        record(Kind::FeedLeft, 900.0, None),
        record(Kind::FeedLeft, 700.0, None),
        record(Kind::WaterMeter, 5000.0, None),
        record(Kind::HandWeighing, 2.0, Some(30)),
        record(Kind::HandWeighing, 2.4, Some(10)),
    ];
    let day = summarize(&Inputs { records, ..Inputs::default() });
    assert_eq!((day.dead, day.culled, day.thinned), (20, 3, 0));
    assert_eq!(
        (day.feed_delivered_kg, day.feed_left_kg, day.feed_intake_kg),
        (Some(4000.0), Some(700.0), None)
    );
    let hand = day.hand.unwrap();
    assert_eq!((hand.birds, hand.mean_kg), (40, 2.1));
}

#[test]
fn air_is_a_mean_of_the_hours_that_there_are() {
    let hour = |temperature_c, humidity_percent| AirHour {
        begins_at: Timestamp::UNIX_EPOCH,
        temperature_c,
        humidity_percent,
    };
    let air = vec![hour(Some(32.0), Some(75.0)), hour(Some(30.0), None), hour(None, Some(65.0))];
    let day = summarize(&Inputs { air, hours: 23.0, ..Inputs::default() }).air.unwrap();
    assert_eq!((day.temperature_c, day.humidity_percent), (Some(31.0), Some(70.0)));
    assert_eq!((day.temperature_hours, day.humidity_hours, day.hours), (2.0, 2.0, 23.0));
    assert!((day.heat_index.unwrap() - 31.44).abs() < 0.01);
    assert_eq!(summarize(&Inputs::default()).air, None);
}
