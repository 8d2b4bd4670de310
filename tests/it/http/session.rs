//! Weighing sessions over HTTP: what they answer, and to whom.

use axum::body::Body;
use axum::http::StatusCode;
use broker::Identity;
use engine::config::AuthMode;
use engine::http::auth::ClientCertificate;
use schema::id::{DeviceId, TenantId};
use serde_json::{Value, json};

use super::device::{bearer, give_login};
use super::{Face, code, compat, config, request};

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

/// What a device shows of itself.
enum Credential {
    Token(String),
    Certificate(Identity),
}

impl Credential {
    fn certificate(tenant_id: &str, device_id: &str) -> Self {
        let tenant_id = TenantId::new(tenant_id).expect("an id");
        Self::Certificate(Identity { tenant_id, device_id: DeviceId::new(device_id).expect("an id") })
    }

    /// Posts, and gives the status with the code of the error and what it says.
    async fn post(&self, face: &Face, path: &str, body: &Value) -> (u16, String, String) {
        let mut headers = vec![("content-type", "application/json")];
        if let Self::Token(bearer) = self {
            headers.push(("authorization", bearer));
        }
        let mut request =
            request("POST", &format!("{SESSIONS}{path}"), &headers, Body::from(body.to_string()));
        if let Self::Certificate(identity) = self {
            request.extensions_mut().insert(ClientCertificate {
                identity: identity.clone(),
                sha256: [7; 32],
                ends_at_seconds: i64::MAX,
            });
        }
        let (status, answer) = face.send(request).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        (status.as_u16(), code(&answer).to_owned(), message)
    }
}

/// The calls about a session that is there.
fn calls(session: &str, event: &str) -> [(String, Value); 4] {
    let at = |step: &str| format!("/{session}/{step}");
    let id = |step: &str| format!("{event}-{step}");
    [
        (at("bind-weight"), of_event(&id("w"), "weightKg", json!(0.2))),
        (at("bind-media"), of_event(&id("m"), "mediaObjectId", json!(id("m")))),
        (at("attach"), json!({"media_id": id("a")})),
        (at("finalize"), of_event(&id("f"), "x", json!(0))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_belongs_to_the_device_that_its_credential_names() {
    let mut config = config();
    config.auth.mode = AuthMode::JwtOrMtls;
    let face = Face::of(config).await;
    for (device, barn) in [("wv-001", "b-001"), ("wv-002", "b-001"), ("wv-003", "b-002")] {
        face.db.allow_device("t-001", device, "f-001", barn).await;
        give_login(&face, device, device).await;
    }
    face.db.allow_device("t-002", "wv-001", "f-001", "b-001").await;
    face.db.allow_station("t-001", "st-01", "f-001", "b-001").await;
    face.db
        .execute(
            "INSERT INTO device_allowlist (tenant_id, device_id, enabled) VALUES ('t-001', 'wv-off', false)",
        )
        .await;
    let mut tokens = Vec::new();
    for device in ["wv-001", "wv-002", "wv-003"] {
        tokens.push(Credential::Token(bearer(&face, device).await));
    }
    let certificates = ["wv-001", "wv-002", "wv-003"].map(|device| Credential::certificate("t-001", device));
    for (session, [own, other, elsewhere]) in
        [("s-token", tokens.as_slice()), ("s-certificate", certificates.as_slice())]
            .map(|(session, all)| (session, [&all[0], &all[1], &all[2]]))
    {
        // A child may come first, from whichever device; the call names no place.
        let early = of_event(&format!("{session}-early"), "weightKg", json!(0.1));
        assert_eq!(other.post(&face, &format!("/{session}/bind-weight"), &early).await.0, 200);
        let began = create(session, &format!("{session}-0"));
        let (status, code, message) = other.post(&face, "", &began).await;
        assert_eq!((status, &*code), (403, "SCOPE_MISMATCH"), "{message}");
        assert!(message.contains("device"), "{message}");
        let mut abroad = began.clone();
        abroad["deviceId"] = json!("wv-003");
        let (status, code, message) = elsewhere.post(&face, "", &abroad).await;
        assert_eq!((status, &*code), (403, "SCOPE_MISMATCH"), "{message}");
        let (status, _, message) = own.post(&face, "", &began).await;
        assert_eq!(status, 201, "{message}");
        let foreign = Credential::certificate("t-002", "wv-001");
        for (path, body) in calls(session, session) {
            for stranger in [other, elsewhere] {
                let (status, code, message) = stranger.post(&face, &path, &body).await;
                assert_eq!((status, &*code), (403, "SCOPE_MISMATCH"), "{path}: {message}");
                assert!(message.contains("credential"), "{message}");
            }
            if !path.ends_with("attach") {
                let (status, code, message) = foreign.post(&face, &path, &body).await;
                assert_eq!((status, &*code), (403, "TENANT_MISMATCH"), "{path}: {message}");
                assert!(message.contains("tenants"), "{message}");
            }
        }
        // Nobody but its own device has changed it.
        let untouched = format!(
            "SELECT count(*) FROM weight_sessions WHERE session_id = '{session}' AND status = 'created' AND image_count = 0
                AND initial_weight_kg = 0.1"
        );
        assert_eq!(face.db.count(&untouched).await, 1);
        for (path, body) in calls(session, session) {
            let (status, code, message) = own.post(&face, &path, &body).await;
            assert_eq!((status, &*code), (200, ""), "{path}: {message}");
        }
    }
    // A device that is shut out does not even leave something for later.
    let shut_out = Credential::certificate("t-001", "wv-off");
    for (path, body) in calls("s-new", "off") {
        let (status, code, message) = shut_out.post(&face, &path, &body).await;
        assert_eq!((status, &*code), (403, "DEVICE_NOT_ALLOWED"), "{path}: {message}");
    }
    // A session of the same name in another tenant is another session.
    let foreign = Credential::certificate("t-002", "wv-001");
    let mut mine = of_event("e-mine", "weightKg", json!(0.3));
    mine["tenantId"] = json!("t-002");
    assert_eq!(foreign.post(&face, "/s-token/bind-weight", &mine).await.0, 200);
    assert_eq!(
        face.db
            .count("SELECT count(*) FROM session_weights WHERE tenant_id = 't-002' AND NOT is_bound")
            .await,
        1
    );
    face.end().await;
}
