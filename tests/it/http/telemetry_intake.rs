//! Readings that come by HTTP.

use actors::telemetry::Unit;
use actors::telemetry::tap::Heard;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Face, code, compat};

const URI: &str = "/api/v1/telemetry/readings";

fn event(event_id: &str, device_id: &str, value: f64) -> Value {
    json!({"event_id": event_id, "tenant_id": "t-001", "device_id": device_id, "event_type": "telemetry.reading",
        "ts": "2026-02-12T09:32:15.052Z", "payload": {"metric": "temperature", "value": value, "unit": "celsius"}})
}

async fn face() -> Face {
    let face = Face::of(compat()).await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    face
}

async fn count(face: &Face, table: &str) -> i64 {
    face.db.count(&format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_events_are_stored_once_and_queued_once() {
    let face = face().await;
    let body = json!({"events": [event("e-1", "d-001", 25.5), event("e-2", "d-001", 26.0), event("e-1", "d-001", 27.0)]});
    let (status, answer) = face.post(URI, &[("x-trace-id", "trace-1")], &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer, json!({"ingested_count": 3, "duplicate_count": 1, "rejected": []}));
    let (_, again) = face.post(URI, &[], &body).await;
    assert_eq!(again, json!({"ingested_count": 3, "duplicate_count": 3, "rejected": []}));
    assert_eq!(count(&face, "telemetry_raw").await, 2);
    assert_eq!(count(&face, "ONLY sync_outbox").await, 2);
    assert_eq!(
        count(&face, "ONLY sync_outbox WHERE trace_id = 'trace-1'").await,
        2,
        "the trace goes on to the cloud"
    );
    assert_eq!(
        count(&face, "telemetry_raw WHERE trace_id = 'trace-1' AND farm_id = 'f-001' AND barn_id = 'b-001'")
            .await,
        2
    );
    assert_eq!(count(&face, "telemetry_raw WHERE event_id = 'e-1' AND metric_value = 25.5").await, 1);
    assert_eq!(count(&face, &format!("ingress_dedupe WHERE topic = 'http:{URI}'")).await, 2);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_told_once_and_after_its_commit() {
    let face = face().await;
    let mut listener = face.tap.listen();
    let body = json!({"events": [event("e-1", "d-001", 25.5), event("e-1", "d-001", 27.0), {"event_id": 7}]});
    for _ in 0..2 {
        face.post(URI, &[], &body).await;
    }
    face.post(URI, &[], &json!({"events": [event("e-1", "d-001", 25.5), event("e-2", "d-001", 26.0)]})).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let Some(Heard::Fresh(fresh)) = listener.next().await else { panic!("nothing is missed") };
        let condition = format!("telemetry_raw WHERE ingested_at = '{}'", fresh.stored_at);
        assert_eq!(count(&face, &condition).await, 1, "{condition}");
        for unit in &fresh.units {
            let Unit::Reading(reading) = unit else { panic!("{unit:?}") };
            told.push((reading.event_id.clone(), reading.value));
        }
    }
    assert_eq!(told, [("e-1".to_owned(), 25.5), ("e-2".to_owned(), 26.0)]);
    assert!(listener.try_next().is_none());
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_listed_and_do_not_hold_the_others_back() {
    let face = face().await;
    let mut late = event("e-9", "d-001", 1.0);
    late["ts"] = json!("soon");
    let body = json!({"events": [event("e-1", "d-001", 1.0), late, event("e-2", "d-unknown", 1.0), {"event_id": 7}]});
    let (status, answer) = face.post(URI, &[("x-tenant-id", "t-001")], &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let rejected = json!([
        {"event_id": "e-9", "code": "TS_INVALID", "message": "ts is not a time"},
        {"event_id": "e-2", "code": "DEVICE_NOT_ALLOWED", "message": "device is not enabled"},
        {"event_id": null, "code": "FIELD_TYPE", "message": "event_id: field has the wrong type"},
    ]);
    assert_eq!(answer, json!({"ingested_count": 1, "duplicate_count": 0, "rejected": rejected}));
    assert_eq!(count(&face, "telemetry_raw").await, 1);
    let (_, other) = face.post(URI, &[("x-tenant-id", "t-002")], &body).await;
    assert_eq!(other["rejected"][0]["code"], "TENANT_MISMATCH");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_are_one_call_and_one_more_is_refused() {
    let face = face().await;
    let mut events: Vec<Value> = (0..1000).map(|i| event(&format!("e-{i}"), "d-001", f64::from(i))).collect();
    let (status, answer) = face.post(URI, &[], &json!({"events": events})).await;
    assert_eq!((status, &answer["ingested_count"]), (StatusCode::OK, &json!(1000)), "{answer}");
    assert_eq!(count(&face, "telemetry_raw").await, 1000);
    let half: Vec<Value> =
        (500..1000).chain(2000..2500).map(|i| event(&format!("e-{i}"), "d-001", f64::from(i))).collect();
    let (status, answer) = face.post(URI, &[], &json!({"events": half})).await;
    assert_eq!((status, &answer["duplicate_count"]), (StatusCode::OK, &json!(500)), "{answer}");
    assert_eq!(count(&face, "telemetry_raw").await, 1500);
    assert_eq!(count(&face, "ONLY sync_outbox").await, 1500);
    let difference = "SELECT sum(received - stored - duplicate - refused - removed)::bigint FROM ledger";
    assert_eq!(face.db.count(difference).await, 0);
    assert_eq!(face.db.count("SELECT sum(stored * 10 + duplicate)::bigint FROM ledger").await, 15_500);
    events.push(event("e-1000", "d-001", 0.0));
    let (status, answer) = face.post(URI, &[], &json!({"events": events})).await;
    assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_of_strangers_wait_for_the_allowlist_once() {
    let face = face().await;
    let events: Vec<Value> =
        (0..1000).map(|i| event(&format!("e-{i}"), &format!("d-unknown-{i}"), 1.0)).collect();
    let (status, answer) = face.post(URI, &[], &json!({"events": events})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(1000));
    face.end().await;
}
