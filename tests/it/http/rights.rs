//! Who may do what to which rows: a device that has lost its row, sessions that a body names, roles of operators, and the
//! record of what they did.

use actors::chore::Chore;
use axum::http::StatusCode;
use engine::config::{Config, Role};
use schema::id::{Uuid, new_id};
use serde_json::{Value, json};

use super::device::{bearer, give_login};
use super::{Face, code, compat, config, key};

const AT: &str = "2026-02-12T09:32:15.052Z";
const PRESIGN: &str = "/api/v1/media/images/presign";
const COMPLETE: &str = "/api/v1/media/images/complete";
const JOBS: &str = "/api/v1/inference/jobs";
const SESSIONS: &str = "/api/v1/weighvision/sessions";

/// Devices of t-001 in two barns, each with a station and a token.
struct Barns {
    face: Face,
    /// In b-001.
    here: String,
    /// In b-002.
    there: String,
    _directory: tempfile::TempDir,
}

impl Barns {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = config();
        config.media.root = directory.path().join("media");
        config.retention.free_disk_gb_min = 0;
        let face = Face::of(config).await;
        for (device, station, barn) in [("d-here", "st-here", "b-001"), ("d-there", "st-there", "b-002")] {
            face.db.allow_device("t-001", device, "f-001", barn).await;
            face.db.allow_station("t-001", station, "f-001", barn).await;
            give_login(&face, device, device).await;
        }
        let (here, there) = (bearer(&face, "d-here").await, bearer(&face, "d-there").await);
        Self { face, here, there, _directory: directory }
    }

    async fn post(&self, bearer: &str, path: &str, body: &Value) -> (u16, String, Value) {
        let (status, answer) = self.face.post(path, &[("authorization", bearer)], body).await;
        (status.as_u16(), code(&answer).to_owned(), answer)
    }

    /// Begins a session at the station of b-002.
    async fn begin_there(&self, session: &str) {
        let body = json!({"sessionId": session, "eventId": new_id(), "tenantId": "t-001", "farmId": "f-001",
            "barnId": "b-002", "deviceId": "d-there", "stationId": "st-there", "startAt": AT});
        let (status, _, answer) = self.post(&self.there, SESSIONS, &body).await;
        assert_eq!(status, 201, "{answer}");
    }

    /// A completed image of a device, in the store of this test's database alone.
    async fn image(&self, device: &str, barn: &str, session: Option<&str>) -> Uuid {
        let id = new_id();
        let session = session.map_or("NULL".to_owned(), |session| format!("'{session}'"));
        self.face
            .db
            .execute(&format!(
                "INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key,
                    mime_type, captured_at, created_at)
                 VALUES ('{id}', 't-001', 'f-001', '{barn}', '{device}', {session}, 'farmiq-media', 'key/{id}',
                    'image/jpeg', now(), now())"
            ))
            .await;
        id
    }
}

fn wish(session: &str) -> Value {
    json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-here",
        "content_type": "image/jpeg", "filename": "x.jpg", "session_id": session})
}

fn weight() -> Value {
    json!({"tenantId": "t-001", "weightKg": 0.7, "occurredAt": AT, "eventId": new_id()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_row_neither_acts_nor_reads_nor_gets_a_token() {
    let barns = Barns::new().await;
    let (face, bearer) = (&barns.face, &barns.here);
    let calls = async || {
        let read = "/api/v1/telemetry/readings?tenant_id=t-001";
        let (read, _) = face.get(read, &[("authorization", bearer)]).await;
        let (weigh, _, _) = barns.post(bearer, &format!("{SESSIONS}/s-1/bind-weight"), &weight()).await;
        let (presign, _, _) = barns.post(bearer, PRESIGN, &wish("s-1")).await;
        let basic = base64("d-here:pass:word");
        let login = face.post("/api/v1/ingress/device-token", &[("authorization", &basic)], &json!({})).await;
        [read.as_u16(), weigh, presign, login.0.as_u16()]
    };
    assert_eq!(calls().await, [200, 200, 200, 200]);
    face.db.execute("DELETE FROM device_allowlist WHERE device_id = 'd-here'").await;
    face.allowlist.refresh().await.expect("the database answers");
    assert_eq!(calls().await, [403, 403, 403, 401]);
    barns.face.end().await;
}

fn base64(login: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_and_no_job_goes_to_a_session_of_another_barn() {
    let barns = Barns::new().await;
    barns.begin_there("s-there").await;
    let refused = (403, "SCOPE_MISMATCH".to_owned());
    let (status, code, answer) = barns.post(&barns.here, PRESIGN, &wish("s-there")).await;
    assert_eq!((status, code), refused, "{answer}");
    let (status, _, offer) = barns.post(&barns.here, PRESIGN, &wish("s-later")).await;
    assert_eq!(status, 200, "{offer}");
    let complete = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-here",
        "object_key": offer["object_key"], "mime_type": "image/jpeg", "session_id": "s-there"});
    let (status, code, answer) = barns.post(&barns.here, COMPLETE, &complete).await;
    assert_eq!((status, code), refused, "{answer}");

    let (own, foreign) =
        (barns.image("d-here", "b-001", None).await, barns.image("d-there", "b-002", None).await);
    for body in [
        json!({"tenant_id": "t-001", "media_id": own, "session_id": "s-there"}),
        json!({"tenant_id": "t-001", "media_id": foreign}),
        json!({"tenant_id": "t-001", "object_key": format!("key/{foreign}")}),
        // What the body says of the place does not make it so.
        json!({"tenant_id": "t-001", "media_id": foreign, "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-here"}),
        json!({"tenant_id": "t-001", "media_id": own, "barn_id": "b-002"}),
    ] {
        let (status, code, answer) = barns.post(&barns.here, JOBS, &body).await;
        assert_eq!((status, code), refused, "{body} {answer}");
    }
    let repeated =
        json!({"tenant_id": "t-001", "media_id": own, "barn_id": "b-001", "session_id": "s-later"});
    assert_eq!(barns.post(&barns.here, JOBS, &repeated).await.0, 200);
    // An operator may do it in a device's stead, and does not make a foreign image its own either.
    let crossed = json!({"tenant_id": "t-001", "media_id": foreign, "barn_id": "b-001"});
    let (status, answer) = barns.face.post(JOBS, &[("x-api-key", "one")], &crossed).await;
    assert_eq!((status.as_u16(), super::code(&answer)), (403, "SCOPE_MISMATCH"));
    barns.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_its_session_is_bound_where_device_station_or_barn_fits() {
    let barns = Barns::new().await;
    let early = |session: &str, step: &str| format!("{SESSIONS}/{session}/{step}");
    let foreign = barns.post(&barns.here, &early("s-1", "bind-weight"), &weight()).await;
    assert_eq!(foreign.0, 200, "{}", foreign.2);
    let image = json!({"tenantId": "t-001", "mediaObjectId": "m-1", "occurredAt": AT, "eventId": new_id()});
    assert_eq!(barns.post(&barns.here, &early("s-1", "bind-media"), &image).await.0, 200);
    let end = json!({"tenantId": "t-001", "occurredAt": AT, "eventId": new_id()});
    assert_eq!(barns.post(&barns.here, &early("s-1", "finalize"), &end).await.0, 202);
    let own = barns.post(&barns.there, &early("s-1", "bind-weight"), &weight()).await;
    assert_eq!(own.0, 200, "{}", own.2);
    barns.begin_there("s-1").await;
    let db = &barns.face.db;
    let session = "SELECT count(*) FROM weight_sessions WHERE session_id = 's-1' AND status = 'created' AND image_count = 0";
    assert_eq!(db.count(session).await, 1, "the finalize of another barn does not end it");
    assert_eq!(
        db.count("SELECT count(*) FROM session_weights WHERE is_bound AND device_id = 'd-there'").await,
        1
    );
    assert_eq!(db.count("SELECT count(*) FROM session_weights").await, 1);
    let letters =
        "SELECT count(*) FROM dead_letters WHERE reason = 'SESSION_CONFLICT' AND device_id = 'd-here'";
    assert_eq!(db.count(letters).await, 3);
    // Nor can they be applied by hand.
    let redrive =
        barns.face.post("/api/v1/sync/redrive", &[("x-api-key", "one")], &json!({"allDlq": true})).await;
    assert_eq!(redrive.1["redriven_count"], 0, "{}", redrive.1);
    assert_eq!(db.count(session).await, 1);
    barns.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_neither_image_nor_result_of_another_barn() {
    let barns = Barns::new().await;
    barns.begin_there("s-1").await;
    let foreign = barns.image("d-here", "b-001", None).await;
    let result = new_id();
    barns
        .face
        .db
        .execute(&format!(
            "INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, media_id, confidence,
                model_version, occurred_at, created_at, event_id)
             VALUES ('{result}', 't-001', 'f-001', 'b-001', 'd-here', 's-1', '{foreign}', 1, 'v1', now(), now(), '{result}')"
        ))
        .await;
    let refused = (403, "SCOPE_MISMATCH".to_owned());
    for body in [json!({"media_id": foreign}), json!({"inference_result_id": result})] {
        let (status, code, answer) = barns.post(&barns.there, &format!("{SESSIONS}/s-1/attach"), &body).await;
        assert_eq!((status, code), refused, "{body} {answer}");
    }
    let bind = json!({"tenantId": "t-001", "mediaObjectId": foreign, "occurredAt": AT, "eventId": new_id()});
    let (status, code, answer) = barns.post(&barns.there, &format!("{SESSIONS}/s-1/bind-media"), &bind).await;
    assert_eq!((status, code), refused, "{answer}");
    let results = "/api/v1/inference/results?tenant_id=t-001&sessionId=s-1";
    let (_, shown) = barns.face.get(results, &[("x-api-key", "one")]).await;
    assert_eq!(shown["count"], 0, "{shown}");
    barns.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_station_of_a_session_must_be_enabled() {
    let barns = Barns::new().await;
    barns.begin_there("s-1").await;
    let path = format!("{SESSIONS}/s-1/bind-weight");
    assert_eq!(barns.post(&barns.there, &path, &weight()).await.0, 200);
    barns.face.db.execute("UPDATE station_allowlist SET enabled = false WHERE station_id = 'st-there'").await;
    barns.face.allowlist.refresh().await.expect("the database answers");
    let (status, code, answer) = barns.post(&barns.there, &path, &weight()).await;
    assert_eq!((status, &*code), (403, "STATION_NOT_ALLOWED"), "{answer}");
    barns.face.end().await;
}

fn with_roles() -> Config {
    let mut config = config();
    config
        .auth
        .operator_keys
        .extend([key("reader", Role::Read, &["t-001"]), key("writer", Role::Write, &["t-001"])]);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_writes_with_the_role_for_it_and_shows_its_key_either_way() {
    let face = Face::of(with_roles()).await;
    face.db.allow_device("t-001", "d-1", "f-001", "b-001").await;
    let readings = "/api/v1/telemetry/readings";
    let event = || {
        json!({"events": [{"event_id": new_id(), "tenant_id": "t-001", "device_id": "d-1", "event_type": "x",
            "ts": AT, "payload": {"value": 1}}]})
    };
    for (key, expected) in
        [("reader", StatusCode::FORBIDDEN), ("writer", StatusCode::OK), ("one", StatusCode::OK)]
    {
        let bearer = format!("Bearer {key}");
        for header in [("x-api-key", key), ("authorization", &bearer)] {
            let (status, body) = face.post(readings, &[header], &event()).await;
            assert_eq!(status, expected, "{header:?} {body}");
            let (status, body) = face.get(&format!("{readings}?tenant_id=t-001"), &[header]).await;
            assert_eq!(status, StatusCode::OK, "{header:?} {body}");
            assert_eq!(face.get("/api/v1/sync/state", &[header]).await.0, StatusCode::OK, "{header:?}");
        }
    }
    assert_eq!(face.db.count("SELECT count(*) FROM telemetry_raw").await, 4);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_is_written_down_with_it() {
    let face = Face::of(with_roles()).await;
    let one = [("x-api-key", "one")];
    let all = [("x-api-key", "all")];
    let device = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-1"});
    for (path, body, key, expected) in [
        ("/api/v1/devices", &device, &one, 201),
        ("/api/v1/devices", &device, &one, 409),
        ("/api/v1/devices/d-1/rotate", &json!({"overlap_seconds": 0}), &one, 200),
        ("/api/v1/devices/d-1/revoke", &json!({}), &one, 200),
        ("/api/v1/devices/nobody/revoke", &json!({}), &one, 404),
        ("/api/v1/sync/redrive", &json!({"allDlq": true}), &one, 200),
        ("/api/v1/sync/unclaim-stuck", &json!({}), &all, 200),
        ("/api/v1/sync/trigger", &json!({}), &all, 200),
    ] {
        let (status, answer) = face.post(path, key.as_slice(), body).await;
        assert_eq!(status.as_u16(), expected, "{path} {answer}");
    }
    let list = async |key: &[(&str, &str)], query: &str| {
        let (status, body) = face.get(&format!("/api/v1/audit{query}"), key).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let row = |row: &Value| {
            format!("{} {} {}", row["action"], row["tenant_id"], row["target"]).replace('"', "")
        };
        let rows: Vec<_> = body["entries"].as_array().expect("a list").iter().map(row).collect();
        (rows, body)
    };
    let own =
        ["redrive t-001 null", "device.revoke t-001 d-1", "device.rotate t-001 d-1", "device.add t-001 d-1"];
    let (rows, body) = list(&one, "").await;
    assert_eq!(rows, own, "a failure is not a deed, and what is not the tenant's is not shown");
    assert_eq!(
        (&body["entries"][0]["actor"], &body["next"]),
        (&json!("operator:#2"), &Value::Null),
        "{body}"
    );
    assert!(!body.to_string().contains("password\""), "{body}");
    let (rows, _) = list(&all, "?limit=2").await;
    assert_eq!(rows, ["sync.trigger null null", "unclaim null null"]);
    let (first, body) = list(&one, "?limit=3").await;
    assert_eq!(first, own[..3]);
    let next = body["next"].as_str().expect("there is more");
    assert_eq!(list(&one, &format!("?limit=3&before={next}")).await.0, own[3..]);
    for key in ["reader", "writer"] {
        assert_eq!(face.get("/api/v1/audit", &[("x-api-key", key)]).await.0, StatusCode::FORBIDDEN, "{key}");
    }
    assert_eq!(face.get("/api/v1/audit?before=x", &one).await.0, StatusCode::BAD_REQUEST);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_credential_is_a_sign_of_life() {
    let barns = Barns::new().await;
    let seen = "SELECT count(*) FROM device_last_seen WHERE tenant_id = 't-001' AND device_id = 'd-here'
        AND last_topic = 'http:/api/v1/telemetry/readings' AND last_seen_at > now() - interval '1 hour'";
    let read = "/api/v1/telemetry/readings?tenant_id=t-001";
    assert_eq!(barns.face.get(read, &[("authorization", &barns.here)]).await.0, StatusCode::OK);
    let mut signs = barns.face.signs_of_life.clone();
    signs.run().await.expect("the database answers");
    assert_eq!(barns.face.db.count(seen).await, 1);
    barns.face.db.execute("UPDATE device_last_seen SET last_topic = 'x'").await;
    signs.run().await.expect("the database answers");
    assert_eq!(barns.face.db.count("SELECT count(*) FROM device_last_seen WHERE last_topic = 'x'").await, 2);
    barns.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_may_be_named_in_any_script() {
    let face = Face::of(compat()).await;
    let tenant = [("x-tenant-id", "ฟาร์ม-มิวนิค"), ("x-trace-id", "spur-ü")];
    let (status, body) = face.get("/api/v1/telemetry/stats", &tenant).await;
    assert_eq!((status, &body["tenant_id"]), (StatusCode::OK, &json!("ฟาร์ม-มิวนิค")), "{body}");
    let (status, body) = face.get("/api/v1/telemetry/stats?tenant_id=x", &tenant).await;
    assert_eq!((status, &body["error"]["traceId"]), (StatusCode::FORBIDDEN, &json!("spur-ü")), "{body}");
    let (status, _) = face.get("/api/v1/telemetry/stats", &[("x-tenant-id", "a\u{85}b")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_an_id_like_everything_else() {
    let barns = Barns::new().await;
    let check = async |batch: &str, expected: u16| {
        let body = json!({"sessionId": new_id(), "eventId": new_id(), "tenantId": "t-001", "farmId": "f-001",
            "barnId": "b-002", "deviceId": "d-there", "stationId": "st-there", "startAt": AT, "batchId": batch});
        let (status, _, answer) = barns.post(&barns.there, SESSIONS, &body).await;
        assert_eq!(status, expected, "{batch} {answer}");
    };
    check(&"x".repeat(128), 201).await;
    check(&"x".repeat(129), 400).await;
    check("a/b", 400).await;
    check("a#b", 400).await;
    barns.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_operator_has_the_box_call_its_cloud() {
    let barns = Barns::new().await;
    let path = "/api/v1/sync/diagnostics/cloud";
    let (status, body) = barns.face.get(path, &[("authorization", &barns.here)]).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "FORBIDDEN"));
    assert_eq!(barns.face.get(path, &[("x-api-key", "one")]).await.0, StatusCode::BAD_GATEWAY);
    barns.face.end().await;
}
