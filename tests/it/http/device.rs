//! Devices with credentials: the token they fetch, and what it lets them do.

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHasher};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Face, code, config};

async fn face() -> Face {
    let face = Face::of(config()).await;
    give_login(&face, "dev", "d-001").await;
    face
}

/// Gives a device of t-001 the password `pass:word`.
pub(super) async fn give_login(face: &Face, username: &str, device_id: &str) {
    let salt = SaltString::encode_b64(b"salt of one test").expect("a salt");
    let hash = Argon2::default().hash_password(b"pass:word", &salt).expect("a hash").to_string();
    face.db
        .execute(&format!(
            "INSERT INTO device_credentials (username, tenant_id, device_id, password_hash, created_at, updated_at)
             VALUES ('{username}', 't-001', '{device_id}', '{hash}', now(), now())"
        ))
        .await;
}

async fn token(face: &Face, login: &str) -> (StatusCode, Value) {
    let basic = format!("Basic {}", STANDARD.encode(login));
    face.post("/api/v1/ingress/device-token", &[("authorization", &basic)], &json!({})).await
}

/// The header of a token that this login fetches.
pub(super) async fn bearer(face: &Face, username: &str) -> String {
    let (_, body) = token(face, &format!("{username}:pass:word")).await;
    format!("Bearer {}", body["token"].as_str().expect("a token"))
}

fn readings(device_id: &str, farm_id: &str) -> Value {
    json!({"events": [{"event_id": "e-1", "tenant_id": "t-001", "device_id": device_id, "farm_id": farm_id,
        "event_type": "telemetry.reading", "ts": "2026-02-12T09:32:15.052Z", "payload": {"value": 1}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_becomes_a_token() {
    let face = face().await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    let (status, body) = token(&face, "dev:pass:word").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(600)));
    for login in ["dev:wrong", "nobody:pass:word", "dev", "", "de\0v:x"] {
        let (status, body) = token(&face, login).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"), "{login:?}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_acts_for_its_device_alone() {
    let face = face().await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    face.db.allow_device("t-001", "d-002", "f-001", "b-001").await;
    let bearer = bearer(&face, "dev").await;
    let check = async |body: Value, expected: Value| {
        let (status, answer) =
            face.post("/api/v1/telemetry/readings", &[("authorization", &bearer)], &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["rejected"][0]["code"], expected, "{body}");
    };
    check(readings("d-001", "f-001"), json!(null)).await;
    check(readings("d-002", "f-001"), json!("SCOPE_MISMATCH")).await;
    check(readings("d-001", "f-002"), json!("SCOPE_MISMATCH")).await;
    let (status, _) =
        face.get("/api/v1/telemetry/readings?tenant_id=t-001", &[("authorization", &bearer)]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) =
        face.get("/api/v1/telemetry/readings?tenant_id=t-002", &[("authorization", &bearer)]).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_device_gets_no_token() {
    let face = face().await;
    face.db
        .execute(
            "INSERT INTO device_allowlist (tenant_id, device_id, enabled) VALUES ('t-001', 'd-001', false)",
        )
        .await;
    let (status, body) = token(&face, "dev:pass:word").await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_as_long_as_the_password_it_was_given_for() {
    let face = face().await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    let status = async |bearer: &str| {
        let path = "/api/v1/telemetry/readings?tenant_id=t-001";
        face.get(path, &[("authorization", bearer)]).await.0
    };
    let by_password = bearer(&face, "dev").await;
    face.db.execute("UPDATE device_credentials SET enabled = false").await;
    assert_eq!(status(&by_password).await, StatusCode::UNAUTHORIZED);
    face.db.execute("UPDATE device_credentials SET enabled = true").await;
    assert_eq!(status(&by_password).await, StatusCode::OK);
    face.db.execute("UPDATE device_allowlist SET enabled = false").await;
    face.allowlist.refresh().await.expect("the database answers");
    assert_eq!(status(&by_password).await, StatusCode::FORBIDDEN);
    face.end().await;
}
