//! What was given up: listed page by page, and taken up again by a filter, which may be tried first.

use axum::http::StatusCode;
use engine::config::Role;
use serde_json::{Value, json};

use super::ONE;
use crate::http::{Face, code, config, key};

const ALL: (&str, &str) = ("x-api-key", "all");
const REDRIVE: &str = "/api/v1/sync/redrive";
const DLQ: &str = "/api/v1/sync/dlq";

/// Thirty failed rows, of which three share each time, of two devices and types; some of another tenant, and a dead letter.
const ROWS: &str = "
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, payload_json, status, reject_count,
        failed_at, dlq_reason, last_error_code)
    SELECT gen_random_uuid(), CASE WHEN i < 24 THEN 't-001' ELSE 't-002' END, 'f', 'b', 'd-' || i % 2,
        CASE WHEN i % 3 = 0 THEN 'media.stored' ELSE 'telemetry.ingested' END, '{}', 'failed', 1,
        timestamptz '2026-02-12T09:00Z' + (i / 3) * interval '1 minute', 'max_rejections', 'CLOUD_EVENT_REJECTED'
    FROM generate_series(0, 29) AS i;
    INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at)
    VALUES (gen_random_uuid(), 't-001', 'session', 'SESSION_CONFLICT', 'weighvision.weight.recorded', '{}', now(),
        '2026-02-12T09:03:00Z')";

async fn face() -> Face {
    let mut config = config();
    config.auth.operator_keys.push(key("reader", Role::Read, &["t-001"]));
    let face = Face::of(config).await;
    face.db.execute(ROWS).await;
    face
}

async fn failed(face: &Face) -> i64 {
    face.db.count("SELECT count(*) FROM sync_outbox WHERE status = 'failed'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_paged_and_narrowed() {
    let face = face().await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (status, body) = face.get(&format!("{DLQ}?limit=4{after}"), &[ONE]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let ids = body["entries"].as_array().expect("a list").iter();
        seen.extend(ids.map(|row| row["id"].as_str().expect("an id").to_owned()));
        let Some(next) = body["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (25, 25));
    for (query, expected) in [
        ("?source=session", 1),
        ("?source=outbox", 24),
        ("?device_id=d-1", 12),
        ("?event_type=media.stored", 8),
        ("?reason=CLOUD_EVENT_REJECTED", 24),
        ("?reason=SESSION_CONFLICT", 1),
        ("?from=2026-02-12T09:02:00Z&to=2026-02-12T09:04:00Z", 7),
        ("?device_id=d-1&event_type=media.stored", 4),
    ] {
        let (_, body) = face.get(&format!("{DLQ}{query}"), &[ONE]).await;
        assert_eq!(body["count"], expected, "{query}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_tried_and_then_takes_up_what_it_names() {
    let face = face().await;
    let wish = |is_dry_run: bool| json!({"filter": {"device_id": "d-1", "event_type": "media.stored"}, "dry_run": is_dry_run});
    let (status, body) = face.post(REDRIVE, &[ONE], &wish(true)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!((&body["redriven_count"], &body["matching"]), (&json!(0), &json!({"outbox": 4})), "{body}");
    assert_eq!(failed(&face).await, 30, "a dry run changes nothing");
    let (_, everything) = face.post(REDRIVE, &[ALL], &json!({"allDlq": true, "dry_run": true})).await;
    assert_eq!(everything["matching"], json!({"outbox": 30, "session": 1}), "{everything}");
    let (_, body) = face.post(REDRIVE, &[ONE], &wish(false)).await;
    assert_eq!(body, json!({"redriven_count": 4, "message": "Redriven 4 entries back to pending"}));
    assert_eq!(failed(&face).await, 26);
    let by_time = json!({"filter": {"from": "2026-02-12T09:06:00Z", "source": "outbox"}});
    let (_, body) = face.post(REDRIVE, &[ONE], &by_time).await;
    assert_eq!(body["redriven_count"], 5, "those of another tenant stay: {body}");
    // One whose order cannot be read stays, and is tried once.
    let (_, body) = face.post(REDRIVE, &[ONE], &json!({"filter": {"reason": "SESSION_CONFLICT"}})).await;
    assert_eq!(body["redriven_count"], 0, "{body}");
    let (_, audit) = face.get("/api/v1/audit?limit=1", &[ONE]).await;
    assert_eq!(
        (&audit["entries"][0]["action"], &audit["entries"][0]["detail"]["filter"]["reason"]),
        (&json!("redrive"), &json!("SESSION_CONFLICT"))
    );
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_could_take_up_more_than_was_meant_is_refused() {
    let face = face().await;
    for body in [
        json!({}),
        json!({"filter": {}}),
        json!({"filter": "all"}),
        json!({"filter": {"device": "d-1"}}),
        json!({"filter": {"device_id": "d-1", "typo": 1}}),
        json!({"filter": {"device_id": ""}}),
        json!({"filter": {"source": "cloud"}}),
        json!({"filter": {"from": "yesterday"}}),
        json!({"filter": {"device_id": "d-1"}, "allDlq": true}),
        json!({"filter": {"device_id": "d-1"}, "ids": []}),
        json!({"ids": [], "dry_run": true}),
        json!({"filter": {"device_id": "d-1"}, "dry_run": "yes"}),
    ] {
        let (status, answer) = face.post(REDRIVE, &[ONE], &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{body}");
    }
    let reader = [("x-api-key", "reader")];
    let (status, _) = face.post(REDRIVE, &reader, &json!({"filter": {"device_id": "d-1"}})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(failed(&face).await, 30);
    let (_, audit) = face.get("/api/v1/audit", &[ONE]).await;
    assert_eq!(audit["entries"].as_array().map(Vec::len), Some(0), "{audit}");
    assert_eq!(audit["next"], Value::Null);
    face.end().await;
}
