//! The board: what is newest, who sees what, and how much it remembers.

use schema::id;
use schema::store::{Store, StoreSettings};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

fn places() -> Places {
    Places::new(
        Store::new(&StoreSettings::new("host=nowhere", "test")).expect("a store that is not connected"),
    )
}

fn reading(tenant: &str, device: &str, value: f64, seconds: i64) -> Reading {
    Reading {
        id: id::new_id(),
        outbox_id: id::new_id(),
        tenant_id: tenant.to_owned(),
        farm_id: "f".to_owned(),
        barn_id: "b".to_owned(),
        device_id: device.to_owned(),
        event_id: String::new(),
        metric: "temperature".to_owned(),
        value,
        unit: Some("celsius".to_owned()),
        occurred_at: at(seconds),
        trace_id: String::new(),
        topic: String::new(),
        hash: String::new(),
    }
}

fn values(board: &Board, tenant: &str, since: u64) -> Vec<(String, f64)> {
    let (latest, _) = board.since(tenant, View::default(), since, at(0));
    let mut values: Vec<_> = latest.into_iter().map(|latest| (latest.device_id, latest.value)).collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

#[test]
fn the_newest_by_its_own_time_is_shown_and_only_what_changed_is_told() {
    let (board, places) = (Board::default(), places());
    board.hear(&[reading("t", "d-1", 25.0, 10), reading("t", "d-2", 20.0, 10)], at(10), &places);
    let seen = board.version();
    assert_eq!(values(&board, "t", 0), [("d-1".to_owned(), 25.0), ("d-2".to_owned(), 20.0)]);
    assert_eq!(values(&board, "t", seen), []);
    board.hear(&[reading("t", "d-1", 24.0, 5)], at(11), &places);
    assert_eq!(values(&board, "t", seen), [], "an older one changes nothing");
    board.hear(&[reading("t", "d-1", 26.0, 20)], at(20), &places);
    assert_eq!(values(&board, "t", seen), [("d-1".to_owned(), 26.0)]);
    // A clock seven hours ahead counts for when it came in, so that it does not freeze its value for seven hours.
    board.hear(&[reading("t", "d-1", 27.0, 25_220)], at(21), &places);
    board.hear(&[reading("t", "d-1", 28.0, 30)], at(30), &places);
    assert_eq!(values(&board, "t", seen), [("d-1".to_owned(), 28.0)]);
}

#[test]
fn a_tenant_sees_its_own_alone_and_a_barn_its_own() {
    let (board, places) = (Board::default(), places());
    let elsewhere = Reading { barn_id: "b-2".to_owned(), ..reading("t", "d-3", 1.0, 0) };
    board.hear(&[reading("t", "d-1", 25.0, 0), reading("u", "d-1", 99.0, 0), elsewhere], at(0), &places);
    assert_eq!(values(&board, "u", 0), [("d-1".to_owned(), 99.0)]);
    assert_eq!(values(&board, "v", 0), []);
    let view = View { farm_id: Some("f"), barn_id: Some("b-2") };
    let (latest, _) = board.since("t", view, 0, at(0));
    assert_eq!(latest.iter().map(|latest| &*latest.device_id).collect::<Vec<_>>(), ["d-3"]);
    let view = View { farm_id: Some("g"), barn_id: None };
    assert_eq!(board.since("t", view, 0, at(0)).0, []);
}

#[test]
fn a_tenant_has_no_more_series_than_it_may_and_leaves_room_for_others() {
    let (board, places) = (Board::default(), places());
    for number in 0..SERIES_PER_TENANT_MAX + 100 {
        board.hear(&[reading("t", &format!("d-{number}"), 25.0, 0)], at(0), &places);
    }
    assert_eq!(board.series(), SERIES_PER_TENANT_MAX);
    board.hear(&[reading("u", "d-1", 25.0, 0)], at(0), &places);
    assert_eq!(board.series(), SERIES_PER_TENANT_MAX + 1);
    // After a day nobody knows them any more, and a new one has room.
    let day = 86_401;
    board.hear(&[reading("t", "new", 25.0, day)], at(day), &places);
    assert_eq!(values(&board, "t", 0), [("new".to_owned(), 25.0)]);
    assert_eq!(board.series(), 2);
}

#[test]
fn a_million_readings_of_a_barn_leave_what_a_hundred_left() {
    let (board, places) = (Board::default(), places());
    let ammonia = |number: i32| Reading {
        metric: "ammonia".to_owned(),
        ..reading("t", &format!("d-{number}"), 5.0, 0)
    };
    let mut batch: Vec<Reading> = (0..100).map(ammonia).collect();
    let mut rows = 0;
    for round in 0..10_000_i64 {
        for (number, reading) in (0_i64..).zip(&mut batch) {
            let wave = ((round + number) % 7) as f64 * 0.1;
            (reading.occurred_at, reading.value) = (at(round * 10), 5.0 + wave);
        }
        board.hear(&batch, at(round * 10), &places);
        if round % 100 == 0 {
            rows += board.sweep(at(round * 10)).len();
        }
    }
    assert_eq!(board.series(), 100);
    let inner = board.lock();
    let tenant = inner.tenants.get("t").expect("it is there");
    assert!(tenant.entries.values().all(|entry| entry.stretches.len() < 64));
    assert_eq!(rows, 0, "nothing was wrong with them");
}

#[test]
fn rows_are_shown_until_something_is_heard() {
    let (board, places) = (Board::default(), places());
    let minute = |value: f64, end: i64| LastMinute {
        tenant_id: "t".to_owned(),
        device_id: "d-1".to_owned(),
        metric_type: "temperature".to_owned(),
        avg_value: value,
        bucket_end_at: at(end),
    };
    let device = Device {
        tenant_id: "t".to_owned(),
        device_id: "d-1".to_owned(),
        farm_id: Some("f".to_owned()),
        barn_id: None,
    };
    board.read(&[minute(20.0, 60)], std::slice::from_ref(&device), at(100));
    let (latest, _) = board.since("t", View::default(), 0, at(100));
    assert!(latest[0].is_from_rows && latest[0].barn_id.is_none(), "{latest:?}");
    assert_eq!(latest[0].received_at, at(60));
    board.hear(&[reading("t", "d-1", 25.0, 101)], at(101), &places);
    board.read(&[minute(21.0, 120)], &[device], at(130));
    let (latest, _) = board.since("t", View::default(), 0, at(130));
    assert_eq!((latest[0].value, latest[0].is_from_rows), (25.0, false), "what was heard stays");
    assert_eq!(latest[0].barn_id.as_deref(), Some("b"));
}

#[test]
fn what_falls_silent_is_told_like_a_change() {
    let (board, places) = (Board::default(), places());
    for minute in 0..5 {
        board.hear(&[reading("t", "d-1", 25.0 + minute as f64 * 0.1, 60 * minute)], at(60 * minute), &places);
    }
    let seen = board.version();
    assert!(board.sweep(at(60 * 4 + 179)).is_empty());
    assert_eq!(board.version(), seen);
    assert!(board.sweep(at(60 * 4 + 180)).is_empty());
    let (latest, _) = board.since("t", View::default(), seen, at(60 * 4 + 180));
    assert_eq!(latest[0].standing[0].test, Test::Gap);
}

#[test]
fn a_probe_that_drifts_from_its_neighbors_is_found_and_one_outside_is_not() {
    let (board, places) = (Board::default(), places());
    let mut faults = Vec::new();
    for minute in 0..120_i64 {
        let wave = (minute % 5) as f64 * 0.05;
        let drift = minute as f64 * 0.1;
        let batch = [
            reading("t", "d-1", 25.0 + wave, 60 * minute),
            reading("t", "d-2", 25.3 + wave, 60 * minute),
            reading("t", "d-3", 24.8 + wave, 60 * minute),
            reading("t", "d-4", 25.0 + wave + drift, 60 * minute),
        ];
        board.hear(&batch, at(60 * minute), &places);
        faults.extend(board.sweep(at(60 * minute)));
    }
    let tests: BTreeSet<_> = faults.iter().map(|fault| (&*fault.device_id, &*fault.test)).collect();
    assert_eq!(tests.into_iter().collect::<Vec<_>>(), [("d-4", "neighbors")]);
    let from = faults.iter().map(|fault| fault.from_at).min().expect("some");
    let minute = from.signed_duration_since(at(0)).num_minutes();
    assert!((40..=44).contains(&minute), "4 °C apart after 40 minutes: {minute}");
}

#[test]
fn a_stuck_probe_is_known_again_after_a_restart() {
    let (board, places) = (Board::default(), places());
    let mut rows = std::collections::BTreeMap::new();
    for minute in 0..45 {
        board.hear(&[reading("t", "d-1", 25.0, 60 * minute)], at(60 * minute), &places);
        rows.extend(board.sweep(at(60 * minute)).into_iter().map(|fault| (fault.from_at, fault)));
    }
    let faults: Vec<Fault> = rows.into_values().collect();
    assert_eq!(
        faults.iter().map(|fault| (&*fault.test, fault.from_at)).collect::<Vec<_>>(),
        [("stuck", at(0))]
    );
    let reborn = Board::default();
    let minute = LastMinute {
        tenant_id: "t".to_owned(),
        device_id: "d-1".to_owned(),
        metric_type: "temperature".to_owned(),
        avg_value: 25.0,
        bucket_end_at: at(60 * 45),
    };
    let device = Device {
        tenant_id: "t".to_owned(),
        device_id: "d-1".to_owned(),
        farm_id: Some("f".to_owned()),
        barn_id: Some("b".to_owned()),
    };
    reborn.read(&[minute], &[device], at(60 * 46));
    reborn.resume(&faults);
    reborn.hear(&[reading("t", "d-1", 25.0, 60 * 47)], at(60 * 47), &places);
    let (latest, _) = reborn.since("t", View::default(), 0, at(60 * 47));
    assert_eq!(latest[0].standing.iter().map(|now| now.test).collect::<Vec<_>>(), [Test::Stuck]);
    let faults = reborn.sweep(at(60 * 47));
    assert_eq!(faults[0].from_at, at(0), "the same stretch goes on: {faults:?}");
}
