//! The flock's book over HTTP, with the chore that keeps it: who may read and write, what a day comes to, and which days
//! are made anew.

use std::collections::BTreeMap;
use std::time::Duration;

use actors::chore::Chore;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use engine::config::Role;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Face, code, config, key, request};

pub(super) const ONE: (&str, &str) = ("x-api-key", "one");
pub(super) const PLACED_ON: &str = "2026-01-05";

/// Has everything done that is due.
pub(super) async fn keep(face: &Face) {
    let mut keeper = face.keeper.clone();
    while keeper.run().await.expect("the database answers") < Duration::from_secs(1) {}
}

pub(super) async fn flock(face: &Face, header: (&str, &str), tenant_id: &str) -> String {
    let barn =
        json!({"tenant_id": tenant_id, "farm_id": "f-001", "barn_id": "b-001", "time_zone": "Asia/Bangkok"});
    let (status, body) = face.post("/api/v1/barns", &[header], &barn).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let flock = json!({"tenant_id": tenant_id, "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-01",
        "genetic_line_code": "ROSS308", "placed_on": PLACED_ON, "birds": 20000, "area_m2": 1350, "target_weight_g": 2800});
    let (status, body) = face.post("/api/v1/flocks", &[header], &flock).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["id"].as_str().expect("an id").to_owned()
}

/// Forty weighings around a mean at noon in the barn, through the table that sessions are kept in.
pub(super) async fn weigh(face: &Face, name: &str, day: &str, mean_kg: f64) {
    face.db
        .execute(&format!(
            "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, status, start_at,
                 end_at, final_weight_kg, created_event_id, finalized_event_id, created_at, updated_at)
             SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', '{name}-' || i, 'st-01', 'finalized',
                 '{day}T05:00:00Z', '{day}T05:00:01Z', {mean_kg} * (0.9 + 0.005 * i), 'e-' || i, 'f-' || i, now(), now()
             FROM generate_series(0, 40) AS i"
        ))
        .await;
}

async fn days(face: &Face, id: &str) -> Vec<Value> {
    let (status, body) = face.get(&format!("/api/v1/flocks/{id}/days"), &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["days"].as_array().expect("days").clone()
}

async fn revisions(face: &Face) -> BTreeMap<String, i32> {
    let rows = face.db.client.query("SELECT day::text, revision FROM flock_days", &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Which days were made anew since.
async fn changed(face: &Face, before: &BTreeMap<String, i32>) -> Vec<String> {
    let after = revisions(face).await;
    after
        .into_iter()
        .filter(|(day, revision)| before.get(day) != Some(revision))
        .map(|(day, _)| day)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flock_is_placed_weighed_and_read() {
    let face = Face::of(config()).await;
    let id = flock(&face, ONE, "t-001").await;
    let (_, ended) =
        face.post(&format!("/api/v1/flocks/{id}/end"), &[ONE], &json!({"ended_on": "2026-02-16"})).await;
    assert_eq!(ended["ended_on"], "2026-02-16", "{ended}");
    weigh(&face, "a", "2026-02-01", 1.568).await;
    weigh(&face, "b", "2026-02-02", 1.560).await;
    // Two birds at once, a demonstration's picture and a session that never ended enter no mean.
    face.db
        .execute(
            "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, status, start_at,
                 end_at, final_weight_kg, created_event_id, finalized_event_id, created_at, updated_at)
             VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 'two', 'st-01', 'finalized',
                 '2026-02-02T05:00:00Z', '2026-02-02T05:00:01Z', 3.2, 'e', 'f', now(), now()),
                 (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 'open', 'st-01', 'created',
                 '2026-02-02T05:00:00Z', NULL, NULL, 'e', NULL, now(), now());
             INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, predicted_weight_kg, confidence,
                 model_version, occurred_at, created_at, metadata, event_id)
             VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 9, 1, 'demo', '2026-02-02T05:00:00Z', now(),
                 '{\"demo\": true}', gen_random_uuid())",
        )
        .await;
    keep(&face).await;
    let all = days(&face, &id).await;
    let day = all.iter().find(|day| day["day"] == "2026-02-02").expect("a day");
    assert_eq!(
        (&day["age_days"], &day["n"], &day["n_two_birds"]),
        (&json!(28), &json!(41), &json!(1)),
        "{day}"
    );
    assert!((day["mean_kg"].as_f64().expect("a mean") - 1.560).abs() < 1e-9, "{day}");
    assert_eq!((&day["standard_g"], &day["verdict"]), (&json!(1616.0), &json!("BELOW")), "{day}");
    assert!((day["daily_gain_g"].as_f64().expect("a gain") + 8.0).abs() < 1e-6, "{day}");
    let (status, forecast) = face.get(&format!("/api/v1/flocks/{id}/forecast"), &[ONE]).await;
    assert_eq!((status, &forecast["told_on_age_days"]), (StatusCode::OK, &json!(28)), "{forecast}");
    let age = |name: &str| forecast[name].as_f64().expect("an age");
    assert!(
        age("earliest_age_days") < age("by_lag_age_days")
            && age("latest_age_days") > age("by_ratio_age_days")
    );
    let (_, histogram) = face.get(&format!("/api/v1/flocks/{id}/histogram?day=2026-02-02"), &[ONE]).await;
    let counted: u64 = histogram["bins"]
        .as_array()
        .expect("bins")
        .iter()
        .map(|bin| bin["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!((&histogram["n"], counted), (&json!(41), 41), "{histogram}");
    let csv = request("GET", &format!("/api/v1/flocks/{id}/days.csv"), &[ONE], Body::empty());
    let csv = face.router.clone().oneshot(csv).await.expect("a router never fails");
    let csv = to_bytes(csv.into_body(), usize::MAX).await.expect("a body in memory");
    let csv = String::from_utf8_lossy(&csv).into_owned();
    assert!(csv.starts_with("day,age_days,n,") && csv.contains("\n2026-02-02,28,41,42,1,"), "{csv}");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_makes_the_right_days_anew_and_no_others() {
    let face = Face::of(config()).await;
    let id = flock(&face, ONE, "t-001").await;
    face.post(&format!("/api/v1/flocks/{id}/end"), &[ONE], &json!({"ended_on": "2026-02-16"})).await;
    for (day, mean_kg) in [(28, 1.17), (29, 1.26), (30, 1.35), (31, 1.44)] {
        weigh(&face, &day.to_string(), &format!("2026-01-{day}"), mean_kg).await;
    }
    keep(&face).await;
    let before = revisions(&face).await;
    // The weighing of a day changes what is expected of the next; the mean of that stays, and it ends there.
    weigh(&face, "late", "2026-01-29", 1.28).await;
    keep(&face).await;
    assert_eq!(changed(&face, &before).await, ["2026-01-29", "2026-01-30"]);

    let before = revisions(&face).await;
    let record =
        json!({"kind": "MORTALITY", "day": "2026-01-12", "part": "MORNING", "value": 12, "cause": "heat"});
    let (status, first) = face.post(&format!("/api/v1/flocks/{id}/records"), &[ONE], &record).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    keep(&face).await;
    assert_eq!(changed(&face, &before).await, ["2026-01-12"]);

    let before = revisions(&face).await;
    let record_id = first["id"].as_str().expect("an id");
    let correct = format!("/api/v1/flocks/{id}/records/{record_id}/correct");
    let body = json!({"kind": "MORTALITY", "day": "2026-01-13", "value": 10});
    let (status, second) = face.post(&correct, &[ONE], &body).await;
    assert_eq!((status, &second["corrects"]), (StatusCode::CREATED, &first["id"]), "{second}");
    keep(&face).await;
    assert_eq!(changed(&face, &before).await, ["2026-01-12", "2026-01-13"]);
    let all = days(&face, &id).await;
    let dead = |day: &str| all.iter().find(|facts| facts["day"] == day).expect("a day")["dead"].clone();
    assert_eq!((dead("2026-01-12"), dead("2026-01-13")), (json!(0), json!(10)));

    let (status, again) = face.post(&correct, &[ONE], &body).await;
    assert_eq!((status, code(&again)), (StatusCode::CONFLICT, "BOOK_CONFLICT"), "{again}");
    let second_id = second["id"].as_str().expect("an id");
    let correct = format!("/api/v1/flocks/{id}/records/{second_id}/correct");
    let (status, _) = face.post(&correct, &[ONE], &json!({"void": true})).await;
    assert_eq!(status, StatusCode::CREATED);
    keep(&face).await;
    let all = days(&face, &id).await;
    assert!(all.iter().all(|day| day["dead"] == 0), "{all:?}");
    assert_eq!(
        face.db.count("SELECT count(*) FROM flock_records").await,
        3,
        "nothing was changed or deleted"
    );
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weighing_is_of_the_day_its_barn_has_and_a_clock_ahead_is_put_right() {
    let face = Face::of(config()).await;
    let id = flock(&face, ONE, "t-001").await;
    // 18:30 in UTC is the next day in Bangkok. The second device is seven hours ahead and says so on the next day.
    face.db
        .execute(
            "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, status, start_at,
                 end_at, final_weight_kg, created_event_id, finalized_event_id, created_at, updated_at)
             VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 'night', 'st-01', 'finalized',
                 '2026-01-06T18:30:00Z', '2026-01-06T18:30:01Z', 0.081, 'e', 'f', '2026-01-06T18:30:02Z', now()),
                 (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-002', 'ahead', 'st-01', 'finalized',
                 '2026-01-07T22:00:00Z', '2026-01-07T22:00:01Z', 0.082, 'e', 'f', '2026-01-07T15:00:02Z', now())",
        )
        .await;
    keep(&face).await;
    let all = days(&face, &id).await;
    let day = all.iter().find(|day| day["day"] == "2026-01-07").expect("a day");
    assert_eq!(
        (&day["n_seen"], &day["n_clock_ahead"], &day["verdict"]),
        (&json!(2), &json!(1), &json!(null)),
        "{day}"
    );
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_writes_itself_down_once_and_tells_the_cloud() {
    let face = Face::of(config()).await;
    let id = flock(&face, ONE, "t-001").await;
    face.db.allow_device("t-001", "silo-1", "f-001", "b-001").await;
    let reading = |event_id: &str, ts: &str, kilograms: f64| {
        json!({"event_id": event_id, "tenant_id": "t-001", "device_id": "silo-1", "farm_id": "f-001", "barn_id": "b-001",
            "event_type": "telemetry.reading", "ts": ts,
            "payload": {"metric": "silo.weight", "value": kilograms, "unit": "kg"}})
    };
    let events = json!({"events": [
        reading("w-1", "2026-01-20T01:00:00Z", 5000.0),
        reading("w-2", "2026-01-20T02:00:00Z", 4700.0),
        reading("w-3", "2026-01-20T03:00:00Z", 4705.0),
        reading("w-4", "2026-01-20T04:00:00Z", 9000.0),
        reading("w-5", "2026-01-20T05:00:00Z", 8900.0),
    ]});
    let (status, body) = face.post("/api/v1/telemetry/readings", &[ONE], &events).await;
    assert_eq!((status, body["rejected"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)), "{body}");
    keep(&face).await;
    // What is older than the last weight says nothing, and what came before comes once.
    let late = json!({"events": [reading("w-0", "2026-01-20T00:00:00Z", 9999.0), reading("w-5", "2026-01-20T05:00:00Z", 8900.0)]});
    face.post("/api/v1/telemetry/readings", &[ONE], &late).await;
    keep(&face).await;
    let all = days(&face, &id).await;
    let day = all.iter().find(|day| day["day"] == "2026-01-20").expect("a day");
    assert_eq!(day["feed_intake_kg"], 400.0, "{day}");
    let told = "SELECT count(*) FROM sync_outbox WHERE event_type = 'feed.intake.recorded'
        AND payload_json->>'source' = 'SILO_AUTO' AND payload_json->>'batch_id' = '2026-01'";
    assert_eq!(face.db.count(told).await, 2);
    assert_eq!(face.db.count("SELECT count(*) FROM flock_signals").await, 0);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_is_its_tenants_own_and_readers_do_not_write() {
    let mut config = config();
    config.auth.operator_keys.extend([
        key("two", Role::Write, &["t-002"]),
        key("reader", Role::Read, &["t-001"]),
        key("writer", Role::Write, &["t-001"]),
    ]);
    let face = Face::of(config).await;
    let id = flock(&face, ("x-api-key", "writer"), "t-001").await;
    let others = flock(&face, ("x-api-key", "two"), "t-002").await;
    let record = json!({"kind": "CULL", "day": "2026-01-06", "value": 3});
    let check = async |key: &str, path: &str, expected: StatusCode| {
        let (status, body) = face.post(path, &[("x-api-key", key)], &record).await;
        assert_eq!(status, expected, "{key} {path} {body}");
    };
    let path = format!("/api/v1/flocks/{id}/records");
    check("writer", &path, StatusCode::CREATED).await;
    check("reader", &path, StatusCode::FORBIDDEN).await;
    check("two", &path, StatusCode::NOT_FOUND).await;
    check("two", &format!("/api/v1/flocks/{others}/records"), StatusCode::CREATED).await;
    for (key, path, expected) in [
        ("reader", format!("/api/v1/flocks/{id}/days"), StatusCode::OK),
        ("two", format!("/api/v1/flocks/{id}/days"), StatusCode::NOT_FOUND),
        ("two", format!("/api/v1/flocks/{id}?tenant_id=t-001"), StatusCode::FORBIDDEN),
    ] {
        let (status, body) = face.get(&path, &[("x-api-key", key)]).await;
        assert_eq!(status, expected, "{key} {path} {body}");
    }
    let (_, flocks) = face.get("/api/v1/flocks", &[("x-api-key", "two")]).await;
    assert_eq!(flocks["flocks"].as_array().map(Vec::len), Some(1), "{flocks}");
    let written =
        "SELECT count(*) FROM audit_log WHERE action IN ('barn.put', 'flock.create', 'flock.record')";
    assert_eq!(face.db.count(written).await, 6);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_is_tried_brought_and_used() {
    let face = Face::of(config()).await;
    let mut own = json!({"name": "own", "genetic_line_code": "ROSS308", "source": "us", "year": 2026, "dry_run": true,
        "csv": "age_day,body_weight_g,cum_feed_intake_g\n0,40,0\n1,60,10\n"});
    let (status, body) = face.post("/api/v1/standards/import", &[ONE], &own).await;
    assert_eq!((status, &body["is_dry_run"]), (StatusCode::OK, &json!(true)), "{body}");
    let (_, sets) = face.get("/api/v1/standards", &[ONE]).await;
    assert_eq!(sets["standards"].as_array().map(Vec::len), Some(4), "{sets}");
    own["dry_run"] = json!(false);
    let (status, body) = face.post("/api/v1/standards/import", &[ONE], &own).await;
    assert_eq!((status, body["days"].as_array().map(Vec::len)), (StatusCode::CREATED, Some(2)), "{body}");
    let (status, taken) = face.post("/api/v1/standards/import", &[ONE], &own).await;
    assert_eq!((status, code(&taken)), (StatusCode::CONFLICT, "BOOK_CONFLICT"), "{taken}");
    own["csv"] = json!("age_day,body_weight_g,cum_feed_intake_g\n0,40,0\n1,30,10\n");
    let (status, wrong) = face.post("/api/v1/standards/import", &[ONE], &own).await;
    assert_eq!((status, code(&wrong)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{wrong}");
    let set = body["id"].as_str().expect("an id");
    let (status, shown) = face.get(&format!("/api/v1/standards/{set}"), &[ONE]).await;
    assert_eq!((status, &shown["kind"]), (StatusCode::OK, &json!("TARGET")), "{shown}");
    face.end().await;
}
