//! Readings, aggregates and events as they are shown.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Face, code, compat, config};

const READINGS: &str = "
    INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit, occurred_at, ingested_at)
    SELECT gen_random_uuid(), tenant, 'f', 'b', device, 'e-' || n, 'temperature', n, 'celsius',
        timestamptz '2026-02-12T09:00:00Z' + n * interval '1 minute', now() - n * interval '1 minute'
    FROM (VALUES (0, 't-001', 'd-1'), (1, 't-001', 'd-2'), (2, 't-001', 'd-1'), (3, 't-002', 'd-1')) AS v (n, tenant, device);
    INSERT INTO telemetry_totals VALUES ('t-001', 0, 3, '2026-02-12T09:02:00Z'), ('t-002', 0, 1, '2026-02-12T09:03:00Z');";

/// The values of one key of a list of rows.
fn column<'a>(body: &'a Value, list: &str, key: &str) -> Vec<&'a Value> {
    body[list].as_array().expect("a list").iter().map(|row| &row[key]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_come_newest_first_within_both_ends() {
    let face = Face::of(compat()).await;
    face.db.execute(READINGS).await;
    let check = async |query: &str, expected: &[f64]| {
        let (status, body) = face.get(&format!("/api/v1/telemetry/readings?{query}"), &[]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(column(&body, "readings", "metric_value"), expected, "{query}");
        assert_eq!(body["count"], expected.len(), "{query}");
    };
    check("tenant_id=t-001", &[2.0, 1.0, 0.0]).await;
    check("tenant_id=t-001&device_id=d-1", &[2.0, 0.0]).await;
    check("tenant_id=t-001&limit=1", &[2.0]).await;
    check("tenant_id=t-001&start_time=2026-02-12T09:01:00Z&end_time=2026-02-12T09:02:00Z", &[2.0, 1.0]).await;
    check("tenant_id=t-001&end_time=2026-02-12T16:00:00%2B07:00", &[0.0]).await;
    check("tenant_id=t-003", &[]).await;
    let (_, body) = face.get("/api/v1/telemetry/readings?tenant_id=t-002", &[]).await;
    let keys: Vec<_> = body["readings"][0].as_object().expect("a row").keys().cloned().collect();
    let expected = [
        "barn_id",
        "device_id",
        "farm_id",
        "id",
        "ingested_at",
        "metric_type",
        "metric_value",
        "occurred_at",
        "tenant_id",
        "unit",
    ];
    assert_eq!(keys, expected);
    assert_eq!(body["readings"][0]["occurred_at"], "2026-02-12T09:03:00.000Z");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_lie_wholly_within_the_range() {
    let face = Face::of(compat()).await;
    face.db
        .execute(
            "INSERT INTO telemetry_agg
             SELECT gen_random_uuid(), 't-001', 'd-1', w, s::timestamptz, s::timestamptz + ('1 ' || u)::interval, 'temperature',
                 2, 1, 3, 5, now()
             FROM (VALUES ('1m', 'minute', '2026-02-12T09:00Z'), ('1h', 'hour', '2026-02-12T08:00Z'),
                 ('1h', 'hour', '2026-02-12T09:00Z'), ('1d', 'day', '2026-02-12T00:00Z')) AS v (w, u, s)",
        )
        .await;
    let check = async |query: &str, expected: &[&str]| {
        let uri = format!("/api/v1/telemetry/aggregates?tenant_id=t-001{query}");
        let (status, body) = face.get(&uri, &[]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(column(&body, "aggregates", "bucket_start_at"), expected, "{query}");
    };
    check("", &["2026-02-12T09:00:00.000Z", "2026-02-12T08:00:00.000Z"]).await;
    check("&window=1m", &["2026-02-12T09:00:00.000Z"]).await;
    check("&window=1d", &["2026-02-12T00:00:00.000Z"]).await;
    check("&end_time=2026-02-12T09:59:00Z", &["2026-02-12T08:00:00.000Z"]).await;
    check("&start_time=2026-02-12T08:00:01Z", &["2026-02-12T09:00:00.000Z"]).await;
    let (status, body) = face.get("/api/v1/telemetry/aggregates?tenant_id=t-001&window=1w", &[]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_the_tenant() {
    let face = Face::of(config()).await;
    face.db.execute(READINGS).await;
    let (_, stats) = face.get("/api/v1/telemetry/stats?tenant_id=t-001", &[("x-api-key", "one")]).await;
    let expected = json!({"total_readings": 3, "total_aggregates": 0,
        "last_reading_at": "2026-02-12T09:02:00.000Z", "tenant_id": "t-001"});
    assert_eq!(stats, expected);
    let (_, stats) =
        face.get("/api/v1/telemetry/stats", &[("x-api-key", "all"), ("x-tenant-id", "t-003")]).await;
    assert_eq!(stats, json!({"total_readings": 0, "total_aggregates": 0, "tenant_id": "t-003"}));
    let (_, all) = face.get("/api/v1/telemetry/metrics", &[("x-api-key", "all")]).await;
    assert_eq!(all, json!({"ingestionRatePerMinute": 1, "totalReadings": 4, "totalAggregates": 0}));
    let (_, one) = face.get("/api/v1/telemetry/metrics", &[("x-api-key", "one")]).await;
    assert_eq!(one["totalReadings"], 3);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_never_sees_the_rows_of_another() {
    let face = Face::of(config()).await;
    face.db.execute(READINGS).await;
    let key = [("x-api-key", "one")];
    for path in
        ["telemetry/readings", "telemetry/aggregates", "telemetry/stats", "telemetry/metrics", "events"]
    {
        let (status, body) = face.get(&format!("/api/v1/{path}?tenant_id=t-002"), &key).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"), "{path}");
        let (status, _) = face.get(&format!("/api/v1/{path}?tenant_id=t-001"), &key).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_by_type() {
    let face = Face::of(compat()).await;
    face.db
        .execute(
            "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at, payload_json)
             SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-1', 'e-' || n, kind, timestamptz '2026-02-12T09:00Z' + n * interval '1 s',
                 now(), CASE WHEN n = 1 THEN '{\"open\": true}'::jsonb END
             FROM (VALUES (1, 'door_opened'), (2, 'sensor.heartbeat')) AS v (n, kind)",
        )
        .await;
    let (_, all) = face.get("/api/v1/events?tenant_id=t-001", &[]).await;
    assert_eq!(column(&all, "events", "event_type"), ["sensor.heartbeat", "door_opened"]);
    let (_, one) = face.get("/api/v1/events?tenant_id=t-001&event_type=door_opened", &[]).await;
    assert_eq!((&one["count"], &one["events"][0]["payload"]), (&json!(1), &json!({"open": true})));
    let (status, _) = face.get("/api/v1/events?tenant_id=t-001&event_type=a%00b", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    face.end().await;
}
