//! The outbox as operators see it and repair it, each within its own tenants.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Face, code, config};

const ALL: [(&str, &str); 1] = [("x-api-key", "all")];
const ONE: [(&str, &str); 1] = [("x-api-key", "one")];
const FAILED: &str = "00000000-0000-4000-8000-000000000003";

/// Two rows of t-001 that wait, one that failed, one whose sender was lost; a failed one of t-002; a dead letter of t-001.
const ROWS: &str = "
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json, status,
        attempt_count, reject_count, failed_at, dlq_reason, last_error_code, last_error_message, claimed_by, lease_expires_at, created_at)
    VALUES
        ('00000000-0000-4000-8000-000000000001', 't-001', 'f', 'b', 'd', 'telemetry.ingested', '2026-02-12T09:00:01Z', 't', '{}', 'pending', 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, now() - interval '90 s'),
        ('00000000-0000-4000-8000-000000000002', 't-001', 'f', 'b', 'd', 'telemetry.ingested', '2026-02-12T09:00:00Z', 't', '{}', 'pending', 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, now()),
        ('00000000-0000-4000-8000-000000000003', 't-001', 'f', 'b', 'd', 'telemetry.ingested', '2026-02-12T09:00:02Z', 't', '{}', 'failed', 10, 10, now() - interval '1 h', 'rejected', 'X', 'no', NULL, NULL, now()),
        ('00000000-0000-4000-8000-000000000004', 't-001', 'f', 'b', 'd2', 'telemetry.ingested', '2026-02-12T09:00:03Z', 't', '{}', 'sent', 1, 0, NULL, NULL, NULL, NULL, 'edge', now() - interval '10 min', now()),
        ('00000000-0000-4000-8000-000000000005', 't-002', 'f', 'b', 'd', 'telemetry.ingested', '2026-02-12T09:00:04Z', 't', '{}', 'failed', 10, 10, now(), 'rejected', 'X', 'no', NULL, NULL, now());
    INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at)
    VALUES (gen_random_uuid(), 't-001', 'session', 'FINALIZE_WITHOUT_SESSION', 'weighvision.session.finalized', '{}', now(), now() - interval '30 min');
    INSERT INTO sync_state (tenant_id, last_success_at, last_error_at, last_error_code, last_error_message, consecutive_failures, paused_until, updated_at)
    VALUES ('t-001', '2026-02-12T08:00:00Z', '2026-02-12T08:30:00Z', 'NETWORK', 'connection refused', 3, now() - interval '1 s', now());";

async fn face() -> Face {
    let face = Face::of(config()).await;
    face.db.execute(ROWS).await;
    face
}

fn ids(body: &Value) -> Vec<char> {
    let last = |row: &Value| row["id"].as_str().and_then(|id| id.chars().last()).expect("an id");
    body["entries"].as_array().expect("a list").iter().map(last).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_counts_the_tenants_of_the_key() {
    let face = face().await;
    let (status, state) = face.get("/api/v1/sync/state", &ONE).await;
    assert_eq!(status, StatusCode::OK, "{state}");
    let age = state["oldest_pending_age_seconds"].as_i64().expect("a number");
    assert!(age >= 90, "{age}");
    let mut rest = state.clone();
    rest.as_object_mut().expect("an object").remove("oldest_pending_age_seconds");
    let expected = json!({"pending_count": 2, "claimed_count": 0, "sent_count": 1, "dlq_count": 1,
        "last_success_at": "2026-02-12T08:00:00.000Z", "last_error_at": "2026-02-12T08:30:00.000Z",
        "last_error": "NETWORK: connection refused", "consecutive_failures": 3, "paused_until": null});
    assert_eq!(rest, expected);
    let (_, all) = face.get("/api/v1/sync/state", &ALL).await;
    assert_eq!(all["dlq_count"], 2);
    let (_, narrowed) = face.get("/api/v1/sync/state?tenant_id=t-002", &ALL).await;
    assert_eq!((&narrowed["dlq_count"], &narrowed["last_error"]), (&json!(1), &json!(null)));
    let header = [("x-api-key", "all"), ("x-tenant-id", "t-002")];
    let (_, not_narrowed) = face.get("/api/v1/sync/state", &header).await;
    assert_eq!(not_narrowed["dlq_count"], 2);
    let (status, body) = face.get("/api/v1/sync/state?tenant_id=t-002", &ONE).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_listed_by_status() {
    let face = face().await;
    let check = async |query: &str, key: &[(&str, &str)], expected: &[char]| {
        let (status, body) = face.get(&format!("/api/v1/sync/outbox{query}"), key).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(ids(&body), expected, "{query}");
        assert_eq!(body["count"], expected.len());
    };
    check("", &ALL, &['2', '1']).await;
    check("?status=pending&limit=1", &ALL, &['2']).await;
    check("?status=sent", &ALL, &['4']).await;
    check("?status=failed", &ALL, &['3', '5']).await;
    check("?status=dlq", &ONE, &['3']).await;
    check("?status=acked", &ALL, &[]).await;
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_listed_newest_first_with_its_source() {
    let face = face().await;
    let (status, body) = face.get("/api/v1/sync/dlq", &ALL).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let sources: Vec<_> =
        body["entries"].as_array().expect("a list").iter().map(|row| &row["source"]).collect();
    assert_eq!(sources, ["outbox", "session", "outbox"]);
    let (_, one) = face.get("/api/v1/sync/dlq?limit=1000", &ONE).await;
    assert_eq!(one["count"], 2);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_touches_only_the_tenants_of_the_key() {
    let face = face().await;
    let foreign = json!({"ids": ["00000000-0000-4000-8000-000000000005"]});
    let (status, body) = face.post("/api/v1/sync/redrive", &ONE, &foreign).await;
    assert_eq!((status, &body["redriven_count"]), (StatusCode::OK, &json!(0)), "{body}");
    let (_, body) = face.post("/api/v1/sync/dlq/redrive", &ONE, &json!({"ids": [FAILED]})).await;
    assert_eq!(body, json!({"redriven_count": 1, "message": "Redriven 1 entries back to pending"}));
    let (_, body) = face.post("/api/v1/sync/redrive", &ALL, &json!({"allDlq": true})).await;
    assert_eq!(body["redriven_count"], 1);
    let failed =
        face.db.count("SELECT count(*) FROM sync_outbox WHERE status = 'failed' OR reject_count > 0").await;
    assert_eq!(failed, 0);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_kept_with_its_reason_and_neither_listed_nor_sent() {
    let face = face().await;
    let uri = "/api/v1/sync/discard";
    let foreign = json!({"ids": ["00000000-0000-4000-8000-000000000005"], "reason": "not mine"});
    let (status, body) = face.post(uri, &ONE, &foreign).await;
    assert_eq!((status, &body["discarded_count"]), (StatusCode::OK, &json!(0)), "{body}");
    let (_, listed) = face.get("/api/v1/sync/dlq", &ONE).await;
    let letter = listed["entries"].as_array().expect("a list").iter().find(|row| row["source"] == "session");
    let ids = json!([FAILED, letter.expect("there is a letter")["id"]]);
    let (_, body) = face.post(uri, &ONE, &json!({"ids": ids, "reason": "a test of the scale"})).await;
    assert_eq!(body, json!({"discarded_count": 2, "message": "Discarded 2 entries"}));
    let (_, body) = face.post(uri, &ONE, &json!({"ids": ids, "reason": "once more"})).await;
    assert_eq!(body["discarded_count"], 0, "it is gone");

    let (_, listed) = face.get("/api/v1/sync/dlq", &ONE).await;
    assert_eq!(listed["count"], 0, "{listed}");
    let (_, body) = face.post("/api/v1/sync/redrive", &ONE, &json!({"allDlq": true})).await;
    assert_eq!(body["redriven_count"], 0);
    let (_, state) = face.get("/api/v1/sync/state", &ONE).await;
    assert_eq!(state["dlq_count"], 0);
    let kept =
        "SELECT count(*) FROM discarded_events WHERE tenant_id = 't-001' AND reason = 'a test of the scale'
        AND failure IS NOT NULL AND body_json IS NOT NULL";
    assert_eq!(face.db.count(kept).await, 2);
    let (status, body) = face.post(uri, &ONE, &json!({"ids": ids})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    face.end().await;
}

/// A job of each tenant that was given up, and a letter of t-001 whose job is no more.
const JOBS: &str = "
    INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status,
        attempt_count, next_attempt_at, last_error, created_at, updated_at)
    VALUES
        ('00000000-0000-4000-8000-00000000000a', 't-001', 'f', 'b', 'd', gen_random_uuid(), 'key/a', 'v1', 'failed', 5, now(), 'IMAGE_UNDECODABLE: broken', now(), now()),
        ('00000000-0000-4000-8000-00000000000b', 't-002', 'f', 'b', 'd', gen_random_uuid(), 'key/b', 'v1', 'failed', 5, now(), 'IMAGE_UNDECODABLE: broken', now(), now());
    INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, event_id, body_json, attempt_count, first_seen_at, dead_at)
    SELECT gen_random_uuid(), tenant_id, 'inference', 'IMAGE_UNDECODABLE', 'inference.job', id::text, jsonb_build_object('job_id', id), 5, now(), now()
    FROM inference_jobs;
    INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, event_id, body_json, attempt_count, first_seen_at, dead_at)
    VALUES (gen_random_uuid(), 't-001', 'inference', 'IMAGE_UNDECODABLE', 'inference.job', 'gone', '{}', 5, now(), now());";

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_has_images_looked_at_again_within_the_tenants_of_the_key() {
    let face = Face::of(config()).await;
    face.db.execute(JOBS).await;
    let (_, listed) = face.get("/api/v1/sync/dlq", &ALL).await;
    let letter_of = |tenant: &str| {
        let entries = listed["entries"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["tenant_id"] == tenant).expect("it has a letter");
        assert_eq!(entry["source"], "inference");
        entry["id"].clone()
    };
    let check = async |key: &[(&str, &str)], body: Value, redriven: u64| {
        let (status, answer) = face.post("/api/v1/sync/redrive", key, &body).await;
        assert_eq!(
            (status, &answer["redriven_count"]),
            (StatusCode::OK, &json!(redriven)),
            "{body}: {answer}"
        );
    };
    check(&ONE, json!({"ids": [letter_of("t-002")]}), 0).await;
    check(&ONE, json!({"allDlq": true}), 1).await;
    check(&ONE, json!({"allDlq": true}), 0).await;
    let again = "SELECT count(*) FROM inference_jobs JOIN dead_letters AS d ON d.event_id = inference_jobs.id::text
        WHERE status = 'pending' AND inference_jobs.attempt_count = 0 AND last_error IS NULL AND redriven_at IS NOT NULL";
    assert_eq!(face.db.count(&format!("{again} AND d.tenant_id = 't-001'")).await, 1);
    assert_eq!(face.db.count(again).await, 1);
    check(&ALL, json!({"ids": [letter_of("t-002")]}), 1).await;
    assert_eq!(face.db.count(again).await, 2);
    let open = "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL AND event_id = 'gone' AND attempt_count = 7";
    assert_eq!(face.db.count(open).await, 1, "what cannot be tried again stays");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_sender_was_lost_is_freed() {
    let face = face().await;
    let uri = "/api/v1/sync/unclaim-stuck";
    let (_, body) = face.post(uri, &ONE, &json!({"olderThanSeconds": 3600})).await;
    assert_eq!(body["unclaimed_count"], 0);
    let (status, body) = face.post(uri, &ONE, &json!({})).await;
    assert_eq!((status, &body["unclaimed_count"]), (StatusCode::OK, &json!(1)), "{body}");
    let (_, state) = face.get("/api/v1/sync/state", &ONE).await;
    assert_eq!((&state["sent_count"], &state["pending_count"]), (&json!(0), &json!(3)));
    face.end().await;
}
