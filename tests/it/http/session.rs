//! Weighing sessions over HTTP: what they answer, and to whom.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Face, code, compat, config};

const SESSIONS: &str = "/api/v1/weighvision/sessions";
const AT: &str = "2026-02-12T09:32:15.052Z";

fn create(session: &str, event: &str) -> Value {
    json!({"sessionId": session, "eventId": event, "tenantId": "t-001", "farmId": "f-001", "barnId": "b-001",
        "deviceId": "wv-001", "stationId": "st-01", "startAt": AT, "batchId": null})
}

fn of_event(event: &str, key: &str, value: Value) -> Value {
    let mut body = json!({"tenantId": "t-001", "occurredAt": AT, "eventId": event});
    body[key] = value;
    body
}

async fn face() -> Face {
    let face = Face::of(compat()).await;
    face.db.allow_device("t-001", "wv-001", "f-001", "b-001").await;
    face.db.allow_station("t-001", "st-01", "f-001", "b-001").await;
    face.db.allow_station("t-001", "st-02", "f-001", "b-001").await;
    face
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_step_by_step_and_shown() {
    let face = face().await;
    let call = async |path: &str, body: Value| face.post(&format!("{SESSIONS}{path}"), &[], &body).await;
    let (status, parked) = call("/s-1/finalize", of_event("e-end", "x", json!(0))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{parked}");
    assert_eq!(parked, json!({"status": "parked", "sessionId": "s-1", "eventId": "e-end"}));
    let (status, again) = call("/s-1/finalize", of_event("e-end", "x", json!(0))).await;
    assert_eq!((status, again), (StatusCode::ACCEPTED, parked));
    let (status, image) = call("/s-1/bind-media", of_event("e-2", "mediaObjectId", json!("m-1"))).await;
    assert_eq!((status, &image["isBound"]), (StatusCode::OK, &json!(false)), "{image}");
    let (status, weight) = call("/s-1/bind-weight", of_event("e-1", "weightKg", json!(0.2))).await;
    assert_eq!((status, &weight["weightKg"]), (StatusCode::OK, &json!(0.2)), "{weight}");
    let (status, missing) = call("/s-1/attach?", json!({"media_id": "m-2"})).await;
    assert_eq!((status, code(&missing)), (StatusCode::BAD_REQUEST, "MISSING_TENANT"));
    let tenant = [("x-tenant-id", "t-001")];
    let (status, _) =
        face.post(&format!("{SESSIONS}/s-1/attach"), &tenant, &json!({"media_id": "m-2"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let (status, session) = call("", create("s-1", "e-0")).await;
    assert_eq!(status, StatusCode::CREATED, "{session}");
    assert_eq!((&session["status"], &session["imageCount"]), (&json!("finalized"), &json!(1)));
    assert_eq!((&session["finalWeightKg"], &session["startAt"]), (&json!(0.2), &json!(AT)));
    let (status, same) = call("", create("s-1", "e-0")).await;
    assert_eq!((status, &same), (StatusCode::CREATED, &session));
    let mut other = create("s-1", "e-7");
    other["stationId"] = json!("st-02");
    let (status, conflict) = call("", other).await;
    assert_eq!((status, code(&conflict)), (StatusCode::CONFLICT, "SESSION_CONFLICT"));

    let attach = json!({"media_id": "m-2", "inference_result_id": "r-1", "captured_at": AT});
    let (status, attached) = face.post(&format!("{SESSIONS}/s-1/attach"), &tenant, &attach).await;
    assert_eq!(status, StatusCode::OK, "{attached}");
    assert_eq!(attached["media_binding"]["eventId"], "attach:s-1:m-2");
    assert_eq!(attached["session"]["inferenceResultId"], "r-1");
    let (status, shown) = face.get(&format!("{SESSIONS}/s-1"), &tenant).await;
    assert_eq!((status, &shown["weights"][0]["eventId"]), (StatusCode::OK, &json!("e-1")), "{shown}");
    let (status, _) = face.get(&format!("{SESSIONS}/s-1"), &[("x-tenant-id", "t-002")]).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, missing) = face.get(&format!("{SESSIONS}/s-1"), &[]).await;
    assert_eq!((status, code(&missing)), (StatusCode::BAD_REQUEST, "MISSING_TENANT"));
    let amended = "SELECT count(*) FROM sync_outbox WHERE event_type = 'weighvision.session.amended'";
    assert_eq!(face.db.count(amended).await, 1);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_begun_only_where_station_and_device_are_enabled() {
    let face = face().await;
    face.db
        .execute("INSERT INTO station_allowlist (tenant_id, station_id, enabled) VALUES ('t-001', 'st-off', false)")
        .await;
    let check = async |key: &str, value: &str, expected: &str| {
        let mut body = create("s-9", "e-9");
        body[key] = json!(value);
        let (status, answer) = face.post(SESSIONS, &[], &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, expected), "{key} {value}");
    };
    check("stationId", "st-99", "STATION_NOT_ALLOWED").await;
    check("stationId", "st-off", "STATION_NOT_ALLOWED").await;
    check("barnId", "b-9", "SCOPE_MISMATCH").await;
    let (status, answer) = face.post(SESSIONS, &[("x-tenant-id", "t-2")], &create("s-9", "e-9")).await;
    assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    let (status, answer) = face.post(SESSIONS, &[], &json!({})).await;
    assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    assert_eq!(face.db.count("SELECT count(*) FROM weight_sessions").await, 0);
    // A device without a row may weigh at a station that has one.
    let mut body = create("s-9", "e-9");
    body["deviceId"] = json!("wv-new");
    assert_eq!(face.post(SESSIONS, &[], &body).await.0, StatusCode::CREATED);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_nothing_is_told() {
    let face = Face::of(config()).await;
    let (status, answer) = face.post(SESSIONS, &[], &create("s-9", "e-9")).await;
    assert_eq!((status, code(&answer)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    let (status, answer) = face.post(SESSIONS, &[("x-api-key", "one")], &create("s-9", "e-9")).await;
    assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "STATION_NOT_ALLOWED"));
    face.end().await;
}
