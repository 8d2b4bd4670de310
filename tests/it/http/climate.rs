//! A day of a house with planted faults, from the readings to the figures: each is found, nothing is deleted, and the mean of the
//! house is that of its sound probes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actors::aggregate::Aggregation;
use actors::chore::Chore;
use actors::flock::house::keeper::HouseKeeper;
use axum::body::Body;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use engine::config::Role;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::clock::Clock;
use schema::clock::watch::ClockWatch;
use serde_json::{Value, json};
use tests::wait::until;

use super::{Face, code, config, key, request};

const ONE: (&str, &str) = ("x-api-key", "one");
/// Seven hours ahead of UTC, the whole year.
const ZONE: &str = "Asia/Bangkok";
const ZONE_HOURS: i64 = 7;
/// Readings of one call.
const EVENTS_MAX: usize = 1000;
/// How far the mean of the house may be from the truth, °C.
const TOLERANCE_C: f64 = 0.1;

/// A day that is over where the barn is.
fn yesterday() -> DateTime<Utc> {
    let local =
        (Clock::system().now() + chrono::Duration::hours(ZONE_HOURS)).date_naive() - chrono::Days::new(1);
    local.and_time(chrono::NaiveTime::MIN).and_utc() - chrono::Duration::hours(ZONE_HOURS)
}

/// A probe: what it adds to the air, and what it counts.
struct Probe {
    name: &'static str,
    offset_c: f64,
    weight: f64,
}

const PROBES: [Probe; 5] = [
    Probe { name: "p-1", offset_c: 0.0, weight: 2.0 },
    Probe { name: "p-2", offset_c: 0.3, weight: 1.0 },
    Probe { name: "p-3", offset_c: -0.3, weight: 1.0 },
    Probe { name: "p-4", offset_c: 0.2, weight: 1.0 },
    Probe { name: "p-5", offset_c: -0.2, weight: 1.0 },
];

/// The air at a minute of the day.
fn air_c(minute: i64) -> f64 {
    27.0 + 2.0 * (std::f64::consts::TAU * minute as f64 / 1440.0).sin()
}

/// What a probe says; `None` while it is silent. The faults are planted here.
fn says(probe: &Probe, minute: i64, noise: f64) -> Option<f64> {
    let sound = air_c(minute) + probe.offset_c + noise;
    match (probe.name, minute) {
        ("p-2", 300..420) => None,
        ("p-3", 500) => Some(sound + 12.0),
        ("p-3", 700) => Some(-127.0),
        ("p-4", 800..1000) => Some(26.0),
        ("p-5", 1000..) => Some(sound + 0.05 * (minute - 1000).min(160) as f64),
        _ => Some(sound),
    }
}

fn reading(device: &str, metric: &str, value: f64, at: DateTime<Utc>) -> Value {
    json!({"event_id": format!("{device}-{metric}-{}", at.timestamp()), "tenant_id": "t-001", "device_id": device,
        "farm_id": "f-001", "barn_id": "b-001", "event_type": "telemetry.reading", "ts": at.to_rfc3339(),
        "payload": {"metric": metric, "value": value}})
}

async fn put(face: &Face, path: &str, body: &Value) {
    let headers = [ONE, ("content-type", "application/json")];
    let (status, answer) = face.send(request("PUT", path, &headers, Body::from(body.to_string()))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

async fn furnish(face: &Face) {
    let barn = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "time_zone": ZONE});
    assert_eq!(face.post("/api/v1/barns", &[ONE], &barn).await.0, StatusCode::OK);
    let others = ["out", "line", "wet", "lux"];
    for name in PROBES.iter().map(|probe| probe.name).chain(others) {
        face.db.allow_device("t-001", name, "f-001", "b-001").await;
    }
    put(face, "/api/v1/places", &json!({"device_id": "p-1", "role": "inside", "weight": 2})).await;
    put(face, "/api/v1/places", &json!({"device_id": "p-2", "role": "inside", "zone": "north"})).await;
    put(face, "/api/v1/places", &json!({"device_id": "out", "role": "outside"})).await;
    put(face, "/api/v1/places", &json!({"device_id": "line", "role": "water"})).await;
}

/// Plays the day, and says how many readings it has.
async fn play(face: &Face, begin: DateTime<Utc>) -> i64 {
    let mut dice = StdRng::seed_from_u64(20_260_212);
    let mut noise = || dice.random_range(-0.1..0.1_f64);
    let (mut events, mut count) = (Vec::new(), 0);
    for minute in 0..1440_i64 {
        let at = begin + chrono::Duration::minutes(minute) + chrono::Duration::seconds(7);
        for probe in &PROBES {
            let value = says(probe, minute, noise());
            events.extend(value.map(|value| reading(probe.name, "temperature", value, at)));
        }
        events.push(reading("out", "temperature", 5.0 + noise(), at));
        events.push(reading("line", "temperature", 15.0 + noise(), at));
        events.push(reading("wet", "humidity", 75.0 + 10.0 * noise(), at));
        let is_night = !(240..1320).contains(&minute);
        events.push(reading("lux", "light_intensity", if is_night { 0.0 } else { 20.0 }, at));
        if events.len() > EVENTS_MAX - 16 || minute == 1439 {
            count += i64::try_from(events.len()).expect("a few");
            let (status, answer) =
                face.post("/api/v1/telemetry/readings", &[ONE], &json!({"events": events})).await;
            assert_eq!((status, &answer["rejected"]), (StatusCode::OK, &json!([])), "{answer}");
            events.clear();
        }
    }
    count
}

async fn close(face: &Face) {
    let watch = ClockWatch::new(Clock::system());
    let mut aggregation = Aggregation::new(face.db.store.clone(), watch, false);
    while aggregation.run().await.expect("the database answers").is_zero() {}
    let mut keeper = HouseKeeper::new(face.db.store.clone(), Clock::system());
    while keeper.run().await.expect("the database answers") < Duration::from_secs(1) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_faults_are_found_and_the_house_mean_is_of_sound_probes() {
    let face = Face::of(config()).await;
    furnish(&face).await;
    let begin = yesterday();
    let sent = play(&face, begin).await;
    let found = async || {
        let sql = "SELECT DISTINCT device_id, test FROM sensor_faults WHERE test NOT IN ('clock', 'rate')";
        let rows = face.db.client.query(sql, &[]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeSet<(String, String)>>()
    };
    let planted =
        [("p-2", "gap"), ("p-3", "range"), ("p-3", "spike"), ("p-4", "stuck"), ("p-5", "neighbors")];
    let planted: BTreeSet<_> = planted.map(|(device, test)| (device.to_owned(), test.to_owned())).into();
    until("what was found is written", async || found().await.is_superset(&planted)).await;
    assert_eq!(found().await, planted, "and nothing else is");
    assert_eq!(face.db.count("SELECT count(*) FROM telemetry_raw").await, sent, "nothing is deleted");

    close(&face).await;
    let local = (begin + chrono::Duration::hours(ZONE_HOURS)).date_naive();
    let (status, climate) = face.get(&format!("/api/v1/climate?barn_id=b-001&date={local}"), &[ONE]).await;
    assert_eq!((status, &climate["time_zone"]), (StatusCode::OK, &json!(ZONE)), "{climate}");
    let day = &climate["days"][0];
    let number =
        |path: &str| day.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {day}"));
    let weights: f64 = PROBES.iter().map(|probe| probe.weight).sum();
    let offset = PROBES.iter().map(|probe| probe.weight * probe.offset_c).sum::<f64>() / weights;
    let truth = (0..1440).map(air_c).sum::<f64>() / 1440.0 + offset;
    let mean = number("/temperature_c/mean");
    assert!((mean - truth).abs() < TOLERANCE_C, "{mean} is not {truth}");
    assert!(number("/temperature_c/max") < 34.0 && number("/temperature_c/min") > 24.0, "{day}");
    assert!(number("/temperature_c/coverage") > 0.99, "{day}");
    assert!((number("/outside_temperature_c/mean") - 5.0).abs() < 0.1, "{day}");
    assert!((number("/humidity_percent/mean") - 75.0).abs() < 0.5, "{day}");
    assert!((number("/light/dark_hours") - 6.0).abs() < 0.05, "{day}");
    assert!((number("/light/dark_longest_hours") - 4.0).abs() < 0.05, "{day}");
    assert!((number("/heat_index/mean") - 26.4).abs() < 0.5, "{day}");
    // Without the tests the drift alone would move it farther.
    let all = "SELECT avg(avg_value) FROM telemetry_agg WHERE \"window\" = '1m' AND metric_type = 'temperature' AND device_id LIKE 'p-%'";
    let all: f64 = face.db.client.query_one(all, &[]).await.expect("a mean").get(0);
    assert!((all - truth).abs() > 2.0 * TOLERANCE_C, "{all}");

    // The day of a flock takes its air from the same probes.
    let flock = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "batch_id": "1", "genetic_line_code": "ROSS308",
        "placed_on": local, "birds": 1000});
    let (status, flock) = face.post("/api/v1/flocks", &[ONE], &flock).await;
    assert_eq!(status, StatusCode::CREATED, "{flock}");
    let mut keeper = face.keeper.clone();
    while keeper.run().await.expect("the database answers") < Duration::from_secs(1) {}
    let days = format!("/api/v1/flocks/{}/days", flock["id"].as_str().expect("an id"));
    let (_, days) = face.get(&days, &[ONE]).await;
    let air = days["days"][0]["temperature_c"].as_f64().expect("a temperature");
    assert!((air - truth).abs() < TOLERANCE_C, "{air} is not {truth}");

    // A chart shows every value, and what was wrong.
    let uri = format!(
        "/api/v1/telemetry/aggregates?device_id=p-3&device_id=p-4&metric_type=temperature&bucket=1d&tz={ZONE}&start_time={}&end_time={}",
        begin.format("%FT%TZ"),
        (begin + chrono::Duration::days(1)).format("%FT%TZ")
    );
    let (status, chart) = face.get(&uri, &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{chart}");
    let [third, fourth] = chart["series"].as_array().expect("series").as_slice() else { panic!("{chart}") };
    assert_eq!(
        (&third["min"], &third["day"], &third["count"]),
        (&json!([-127.0]), &json!([local]), &json!([1440]))
    );
    assert!(third["max"][0].as_f64().expect("a number") > 36.0, "{third}");
    let tests = |series: &Value| {
        let faults = series["faults"].as_array().expect("faults").clone();
        faults
            .iter()
            .map(|fault| fault["test"].as_str().unwrap_or_default().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(tests(third).contains("spike") && tests(fourth).contains("stuck"), "{chart}");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_house_is_its_tenants_own() {
    let mut config = config();
    config.auth.operator_keys.push(key("two", Role::Admin, &["t-002"]));
    let face = Face::of(config).await;
    furnish(&face).await;
    let now = Clock::system().now() - chrono::Duration::minutes(90);
    let readings: Vec<_> = (0..60)
        .map(|minute| {
            let value = 25.0 + 0.1 * (minute % 3) as f64;
            reading("p-1", "temperature", value, now + chrono::Duration::minutes(minute))
        })
        .collect();
    face.post("/api/v1/telemetry/readings", &[ONE], &json!({"events": readings})).await;
    close(&face).await;
    let (_, own) = face.get("/api/v1/climate?barn_id=b-001", &[ONE]).await;
    let days = own["days"].as_array().expect("days");
    assert_eq!(days.len(), 7, "{own}");
    let measured: BTreeMap<_, _> =
        days.iter().map(|day| (day["day"].to_string(), !day["temperature_c"].is_null())).collect();
    assert!(measured.values().any(|is_measured| *is_measured), "{own}");
    let two = ("x-api-key", "two");
    let (status, answer) = face.get("/api/v1/climate?barn_id=b-001", &[two]).await;
    assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    let (status, _) = face.get("/api/v1/climate?barn_id=b-001&tenant_id=t-001", &[two]).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for query in [
        "",
        "barn_id=b-001&date=yesterday",
        "barn_id=b-001&from=2020-01-01",
        "barn_id=b-001&from=2026-02-02&to=2026-02-01",
    ] {
        let (status, answer) = face.get(&format!("/api/v1/climate?{query}"), &[ONE]).await;
        assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{query}");
    }
    face.end().await;
}
