//! Weighings and results of inference as they are listed.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::ONE;
use crate::http::{Face, code, config};

const SESSIONS: &str = "/api/v1/weighvision/sessions?tenant_id=t-001";

/// Weighings of two barns and of another tenant, of which one has an image that disagrees.
const WEIGHINGS: &str = "
    INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, batch_id, status, start_at,
        end_at, final_weight_kg, image_count, created_event_id, finalized_event_id, created_at, updated_at)
    SELECT gen_random_uuid(), tenant, 'f-001', barn, 'wv-001', name, 'st-01', batch, status, begun::timestamptz,
        CASE WHEN status = 'finalized' THEN begun::timestamptz END, kg, images, 'e', CASE WHEN status = 'finalized' THEN 'f' END,
        '2026-02-12T10:00:00Z', now()
    FROM (VALUES
        ('t-001', 'b-001', 'plain', NULL, 'finalized', '2026-02-12T09:00:00Z', 2.0, 1),
        ('t-001', 'b-001', 'named', '2026-01', 'finalized', '2026-02-12T09:01:00Z', 2.0, 1),
        ('t-001', 'b-002', 'other-barn', NULL, 'finalized', '2026-02-12T09:02:00Z', 2.0, 0),
        ('t-001', 'b-001', 'open', NULL, 'created', '2026-02-12T09:03:00Z', NULL, 0),
        ('t-001', 'b-001', 'ahead', NULL, 'finalized', '2026-02-12T16:04:00Z', NULL, 1),
        ('t-001', 'b-001', 'early', NULL, 'finalized', '2026-01-01T09:00:00Z', 0.04, 1),
        ('t-001', 'b-001', 'other-batch', '2025-09', 'finalized', '2026-02-12T09:04:00Z', 2.0, 1),
        ('t-002', 'b-001', 'foreign', NULL, 'finalized', '2026-02-12T09:05:00Z', 2.0, 1)
    ) AS v (tenant, barn, name, batch, status, begun, kg, images);
    INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, is_bound, created_at)
    VALUES (gen_random_uuid(), 't-001', 'plain', 'm-2', '2026-02-12T09:00:01Z', 'm-2', true, now()),
        (gen_random_uuid(), 't-001', 'plain', 'm-1', '2026-02-12T09:00:00Z', 'm-1', true, now());
    INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, predicted_weight_kg, confidence,
        model_version, occurred_at, created_at, metadata, event_id)
    VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 'plain', 2.1, 0.9, 'v1', '2026-02-12T09:00:02Z', now(), NULL, gen_random_uuid()),
        (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 'plain', 2.5, 0.4, 'v1', '2026-02-12T09:00:03Z', now(), NULL, gen_random_uuid()),
        (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-002', 'named', 9.0, 0.8, 'demo', '2026-02-12T09:01:03Z', now(), '{\"demo\": true}', gen_random_uuid()),
        (gen_random_uuid(), 't-002', 'f-001', 'b-001', 'wv-001', 'foreign', 9.0, 0.1, 'v1', '2026-02-12T09:01:03Z', now(), NULL, gen_random_uuid());";

async fn names(face: &Face, query: &str) -> Vec<String> {
    let (status, body) = face.get(&format!("{SESSIONS}{query}"), &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let rows = body["sessions"].as_array().expect("a list").iter();
    rows.map(|row| row["sessionId"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn weighings_are_listed_by_time_barn_batch_status_and_flag() {
    let face = Face::of(config()).await;
    face.db.execute(WEIGHINGS).await;
    let check = async |query: &str, expected: &[&str]| {
        assert_eq!(names(&face, query).await, expected, "{query}");
    };
    check("", &["ahead", "other-batch", "open", "other-barn", "named", "plain", "early"]).await;
    check("&barn_id=b-002", &["other-barn"]).await;
    check("&barn_id=b-001&limit=2", &["ahead", "other-batch"]).await;
    check("&from=2026-02-12T09:01:00Z&to=2026-02-12T09:03:00Z", &["other-barn", "named"]).await;
    check("&status=created", &["open"]).await;
    check("&status=finalized&barn_id=b-001", &["ahead", "other-batch", "named", "plain", "early"]).await;
    check("&status=cancelled", &[]).await;
    check("&flag=disagree", &["plain"]).await;
    check("&flag=low_confidence", &["plain"]).await;
    check("&flag=no_weight", &["ahead"]).await;
    check("&flag=no_picture", &["other-barn"]).await;
    check("&flag=open_long", &["open"]).await;
    check("&flag=clock_ahead", &["ahead"]).await;
    check("&flag=demo", &["named"]).await;
    // A batch that the book does not know is a name, and one that it knows is a barn and its days.
    check("&batch_id=2026-01", &["named"]).await;
    let flock = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-01",
        "genetic_line_code": "ROSS308", "placed_on": "2026-01-05", "birds": 20000});
    let (status, body) = face.post("/api/v1/flocks", &[ONE], &flock).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    check("&batch_id=2026-01", &["ahead", "open", "named", "plain"]).await;
    check("&batch_id=2026-01&to=2026-02-12T09:01:00Z", &["plain"]).await;
    check("&batch_id=2026-01&barn_id=b-002", &[]).await;

    let (_, body) = face.get(&format!("{SESSIONS}&limit=1"), &[ONE]).await;
    let ahead = &body["sessions"][0];
    assert_eq!(
        (&ahead["weighedAt"], &ahead["startAt"], &ahead["flags"]),
        (
            &json!("2026-02-12T10:00:00.000Z"),
            &json!("2026-02-12T16:04:00.000Z"),
            &json!(["no_weight", "clock_ahead"])
        ),
        "{ahead}"
    );
    let (_, body) = face.get(&format!("{SESSIONS}&flag=disagree"), &[ONE]).await;
    let plain = &body["sessions"][0];
    assert_eq!(
        (&plain["mediaId"], &plain["predictedWeightKg"], &plain["confidence"], &body["next"]),
        (&json!("m-1"), &json!(2.5), &json!(0.4), &Value::Null),
        "{plain}"
    );
    for bad in ["&status=x", "&flag=x", "&from=x", "&limit=0", "&barn_id=a%2Fb"] {
        let (status, body) = face.get(&format!("{SESSIONS}{bad}"), &[ONE]).await;
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{bad}");
    }
    // Of which tenant, a key for all has to say.
    let path = "/api/v1/weighvision/sessions";
    let (status, body) = face.get(path, &[("x-api-key", "all")]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MISSING_TENANT"));
    let (_, body) = face.get(path, &[("x-api-key", "all"), ("x-tenant-id", "t-002")]).await;
    assert_eq!((&body["count"], &body["sessions"][0]["sessionId"]), (&json!(1), &json!("foreign")), "{body}");
    let (status, body) = face.get(&format!("{path}?tenant_id=t-002"), &[ONE]).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_listed_by_session_device_time_and_confidence() {
    let face = Face::of(config()).await;
    face.db.execute(WEIGHINGS).await;
    let check = async |query: &str, expected: &[f64]| {
        let uri = format!("/api/v1/inference/results?tenant_id=t-001{query}");
        let (status, body) = face.get(&uri, &[ONE]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let rows = body["results"].as_array().expect("a list").iter();
        let found: Vec<_> = rows.map(|row| row["confidence"].as_f64().expect("a number")).collect();
        assert_eq!(found, expected, "{query}");
    };
    check("", &[0.8, 0.4, 0.9]).await;
    check("&sessionId=plain", &[0.4, 0.9]).await;
    check("&sessionId=plain&max_confidence=0.5", &[0.4]).await;
    check("&device_id=wv-002", &[0.8]).await;
    check("&from=2026-02-12T09:00:03Z&to=2026-02-12T09:01:03Z", &[0.4]).await;
    check("&max_confidence=0.8", &[0.8, 0.4]).await;
    let path = "/api/v1/inference/results";
    let (status, body) = face.get(path, &[("x-api-key", "all")]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MISSING_TENANT"));
    let (_, body) = face.get(&format!("{path}?sessionId=foreign"), &[ONE]).await;
    assert_eq!((&body["count"], &body["session_id"]), (&json!(0), &json!("foreign")));
    face.end().await;
}
