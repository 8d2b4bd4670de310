//! One tenant on the paths of another: every operation of the API's own description, with foreign ids and names.

use std::fmt::Write;

use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use broker::Identity;
use bytes::Bytes;
use engine::config::{AuthMode, Role};
use engine::http::auth::ClientCertificate;
use http_body_util::BodyExt;
use schema::id::{DeviceId, TenantId, new_id};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Face, config, key, request};

/// Whose rows are to stay unseen and untouched, and who looks for them.
pub(super) const OWNER: &str = "t-001";
pub(super) const STRANGER: &str = "t-002";
/// In every row of the owner, beside the names by which a stranger asks for it.
pub(super) const SECRET: &str = "s3cr3t";
/// A count of the owner's that nobody else has.
const SECRET_COUNT: &str = "987654";

/// Names under which rows are asked for: those of the owner's rows, or those that nobody has.
pub(super) struct Names {
    pub(super) session_id: &'static str,
    pub(super) id: &'static str,
    pub(super) device_id: &'static str,
    object_key: &'static str,
}

pub(super) const FOREIGN: Names = Names {
    session_id: "session-of-the-owner",
    id: "0198a6f2-7c1e-7d2a-9f35-00000000aaaa",
    device_id: "s3cr3t-device",
    object_key: "tenants/t-001/farms/f/barns/b/devices/d/images/2026/02/12/a.jpg",
};
const UNKNOWN: Names = Names {
    session_id: "session-of-nobody",
    id: "0198a6f2-7c1e-7d2a-9f35-00000000bbbb",
    device_id: "device-of-nobody",
    object_key: "tenants/t-001/farms/f/barns/b/devices/d/images/2026/02/12/b.jpg",
};

/// A row of the owner in every table that a path leads to.
pub(super) async fn furnish(face: &Face) {
    let Names { session_id, id, object_key, .. } = FOREIGN;
    let place = "'t-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t-device'";
    let mut sql = String::new();
    let _ = write!(
        sql,
        "INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
             VALUES ('{id}', {place}, 's3cr3t-event', 's3cr3t-metric', 1, now(), now());
         INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value, min_value, max_value, count, created_at)
             VALUES ('{id}', 't-001', 's3cr3t-device', '1h', now(), now(), 's3cr3t-metric', 1, 1, 1, 1, now());
         INSERT INTO telemetry_totals VALUES ('t-001', 0, {SECRET_COUNT}, now());
         INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
             VALUES ('{id}', {place}, 's3cr3t-event', 's3cr3t-type', now(), now());
         INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, payload_json, status, lease_expires_at, last_error_message)
             VALUES ('{id}', {place}, 's3cr3t.type', '{{}}', 'failed', NULL, 's3cr3t error'),
                    (gen_random_uuid(), {place}, 's3cr3t.type', '{{}}', 'sent', now() - interval '1 day', NULL),
                    (gen_random_uuid(), {place}, 's3cr3t.type', '{{}}', 'pending', NULL, NULL);
         INSERT INTO sync_state (tenant_id, last_error_at, last_error_message, updated_at) VALUES ('t-001', now(), 's3cr3t error', now());
         INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at)
             VALUES ('{id}', 't-001', 'session', 's3cr3t-reason', 's3cr3t.type', '{{}}', now(), now());
         INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, start_at, created_event_id, created_at, updated_at)
             VALUES ('{id}', {place}, '{session_id}', 's3cr3t-station', now(), 's3cr3t-event', now(), now());
         INSERT INTO session_weights (id, tenant_id, session_id, weight_kg, occurred_at, event_id, created_at)
             VALUES ('{id}', 't-001', '{session_id}', 1, now(), 's3cr3t-event', now());
         INSERT INTO session_marks (id, tenant_id, session_id, kind, reason, author, created_at)
             VALUES ('{id}', 't-001', '{session_id}', 'excluded', 's3cr3t-reason', 's3cr3t-author', now());
         INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, mime_type, captured_at, created_at)
             VALUES ('{id}', {place}, '{session_id}', 's3cr3t-bucket', '{object_key}', 'image/jpeg', now(), now());
         INSERT INTO audit_log (id, happened_at, actor, origin, action, tenant_id, target, detail_json)
             VALUES ('{id}', now(), 's3cr3t-actor', 's3cr3t-origin', 'device.add', 't-001', 's3cr3t-device', '{{}}');
         INSERT INTO ingress_rejects (id, reason, topic, tenant_id, device_id, size_bytes, sha256, rejected_at)
             VALUES ('{id}', 'TS_INVALID', 's3cr3t-topic', 't-001', 's3cr3t-device', 1, 's3cr3t-hash', now());
         INSERT INTO device_credentials (username, tenant_id, device_id, password_hash, created_at, updated_at)
             VALUES ('s3cr3t-user', 't-001', 's3cr3t-device', 's3cr3t-hash', now(), now());
         INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type, status, expires_at, created_at)
             VALUES ('{id}', {place}, 's3cr3t-bucket', '{object_key}', 'image/jpeg', 'presigned', now() + interval '1 day', now());
         INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, session_id, model_version, status, next_attempt_at, created_at, updated_at)
             VALUES ('{id}', {place}, '{id}', '{object_key}', '{session_id}', 's3cr3t-model', 'failed', now(), now(), now());
         INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, media_id, confidence, model_version, occurred_at, created_at, event_id)
             VALUES ('{id}', {place}, '{session_id}', '{id}', 1, 's3cr3t-model', now(), now(), '{id}');
         INSERT INTO barns VALUES ('t-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t-name', 'UTC', 'en', 'METRIC', now());
         INSERT INTO standard_sets VALUES ('{id}', 't-001', 's3cr3t-standard', 'TARGET', 's3cr3t-line', 'MALE', 's3cr3t-source', 2026, now());
         INSERT INTO flocks (id, tenant_id, farm_id, barn_id, batch_id, genetic_line_code, sex, placed_on, birds, created_at, updated_at)
             VALUES ('{id}', 't-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t-batch', 's3cr3t-line', 'MALE', '2026-01-05', 1, now(), now());
         INSERT INTO flock_records (id, tenant_id, flock_id, kind, day, note, source, author, occurred_at, created_at)
             VALUES ('{id}', 't-001', '{id}', 'NOTE', '2026-01-05', 's3cr3t-note', 'MANUAL', 's3cr3t-author', now(), now());
         INSERT INTO flock_days VALUES ('t-001', '{id}', '2026-01-05', '{{}}', 1, now());
         INSERT INTO device_places VALUES ('t-001', 's3cr3t-device', '', 'inside', 's3cr3t-zone', 1, 1, now());
         INSERT INTO sensor_faults VALUES ('t-001', 's3cr3t-device', 's3cr3t-metric', 'stuck', 'fail', now(), now(), 1, 1, now());
         INSERT INTO barn_days VALUES ('t-001', 's3cr3t-farm', 's3cr3t-barn', '2026-01-05', 'UTC', '{{\"note\": \"s3cr3t\"}}', now());
         INSERT INTO house_modes VALUES ('t-001', 's3cr3t-farm', 's3cr3t-barn', 'catching', 's3cr3t-reason', 's3cr3t-author', now());
         INSERT INTO alarm_rules VALUES ('t-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t_rule', 1, '{{}}', 's3cr3t-reason', 's3cr3t-author', now());
         INSERT INTO alarms (id, tenant_id, farm_id, barn_id, rule_id, place, class, state, is_active, is_unacknowledged, is_latching,
                 occurrence, rounds, raised_lately, tellings, round_first, state_since, revision, updated_at)
             VALUES ('{id}', 't-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t-rule', '', 'critical', 'UNACK', true, true, false, 1, 1,
                 '{{}}', 0, 0, now(), 1, now());
         INSERT INTO alarm_events (id, alarm_id, tenant_id, farm_id, barn_id, rule_id, place, class, occurrence, kind, from_state,
                 to_state, author, happened_at)
             VALUES ('{id}', '{id}', 't-001', 's3cr3t-farm', 's3cr3t-barn', 's3cr3t-rule', '', 'critical', 1, 'raised', 'NORM', 'UNACK',
                 's3cr3t-author', now());
         INSERT INTO alarm_drills (id, tenant_id, farm_id, barn_id, alarm_id, occurrence, is_scheduled, author, started_at, result)
             VALUES ('{id}', 't-001', 's3cr3t-farm', 's3cr3t-barn', '{id}', 1, false, 's3cr3t-author', now(), 'waiting');"
    );
    face.db.execute(&sql).await;
    face.db.allow_device(OWNER, "s3cr3t-device", "s3cr3t-farm", "s3cr3t-barn").await;
    face.db.allow_station(OWNER, "s3cr3t-device", "s3cr3t-farm", "s3cr3t-barn").await;
    face.db.allow_device(STRANGER, "d-2", "f-2", "b-2").await;
    face.db.allow_station(STRANGER, "st-2", "f-2", "b-2").await;
}

/// Every row of the owner, as text.
pub(super) async fn rows_of_owner(face: &Face) -> Vec<(String, String)> {
    let tables = "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition ORDER BY 1";
    let mut found = Vec::new();
    for row in face.db.client.query(tables, &[]).await.expect("the query is right") {
        let table: String = row.get(0);
        let rows = format!(
            "SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {table} t WHERE tenant_id = '{OWNER}'"
        );
        let rows = face.db.client.query_one(&rows, &[]).await.expect("the query is right").get(0);
        found.push((table, rows));
    }
    found
}

/// How the stranger shows itself: with its key, or as its device by certificate or token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Key,
    Certificate,
    Token,
}

/// One way to ask: who, for which tenant by header and by query or body.
#[derive(Clone, Copy, Debug)]
struct Way {
    shown: Shown,
    header: Option<&'static str>,
    named: Option<&'static str>,
}

fn ways() -> Vec<Way> {
    let headers = [None, Some(OWNER), Some(STRANGER)];
    let named = [None, Some(OWNER), Some(STRANGER)];
    let of =
        |shown| headers.into_iter().flat_map(move |header| named.map(|named| Way { shown, header, named }));
    [Shown::Key, Shown::Certificate, Shown::Token].into_iter().flat_map(of).collect()
}

/// The certificate of the stranger's device.
fn certificate() -> ClientCertificate {
    let tenant_id = TenantId::new(STRANGER).expect("an id");
    let device_id = DeviceId::new("d-2").expect("an id");
    ClientCertificate {
        identity: Identity { tenant_id, device_id },
        sha256: [7; 32],
        ends_at_seconds: i64::MAX,
    }
}

/// A token of the stranger's device.
async fn token(face: &Face) -> String {
    let mut request = request("POST", "/api/v1/ingress/device-token", &[], Body::empty());
    request.extensions_mut().insert(certificate());
    let (status, body) = face.send(request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["token"].as_str().expect("a token").to_owned()
}

/// An operation of the description.
struct Operation<'a> {
    method: String,
    path: &'a str,
    described: &'a Value,
}

fn operations(api: &Value) -> Vec<Operation<'_>> {
    let mut found = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, described) in item.as_object().expect("an item") {
            assert!(
                ["get", "post", "put", "delete"].contains(&method.as_str()),
                "{method} {path} is not walked"
            );
            found.push(Operation { method: method.to_uppercase(), path, described });
        }
    }
    found
}

impl Operation<'_> {
    fn request(&self, way: Way, names: &Names, token: &str) -> Request<Body> {
        let mut request = Request::builder().method(self.method.as_str()).uri(self.uri(way, names));
        request = match way.shown {
            Shown::Key => request.header("x-api-key", "two"),
            Shown::Token => request.header("authorization", format!("Bearer {token}")),
            Shown::Certificate => request,
        };
        if let Some(tenant) = way.header {
            request = request.header("x-tenant-id", tenant);
        }
        let content = self.described.pointer("/requestBody/content").and_then(Value::as_object);
        let (kind, body) = match content.and_then(|content| content.iter().next()) {
            Some((kind, body)) if kind.ends_with("json") => {
                let mut body = body["example"].clone();
                fill(&mut body, way, names);
                if self.path == "/api/v1/devices" {
                    // Each can be let in once.
                    body["device_id"] = json!(new_id().to_string());
                }
                if self.path == "/api/v1/flocks" {
                    // A barn has one at a time.
                    body["barn_id"] = json!(new_id().to_string());
                }
                (kind.clone(), body.to_string())
            }
            Some((kind, _)) => (kind.clone(), "bytes".to_owned()),
            None => ("application/json".to_owned(), String::new()),
        };
        let mut request = request.header("content-type", kind).body(Body::from(body)).expect("a request");
        // A token that was given for a certificate is good beside it alone.
        if way.shown != Shown::Key {
            request.extensions_mut().insert(certificate());
        }
        request
    }

    fn uri(&self, way: Way, names: &Names) -> String {
        let mut uri = self.path.to_owned();
        let mut query = Vec::new();
        for parameter in self.described["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            match parameter["in"].as_str() {
                Some("path") => uri = uri.replace(&format!("{{{name}}}"), self.path_value(name, names)),
                // Each list has words of its own.
                Some("query") if name == "status" && self.path.ends_with("/sessions") => {}
                // What is asked of one barn is asked of another tenant's, by its name.
                Some("query")
                    if self.path.starts_with("/api/v1/alarms/") && ["farm_id", "barn_id"].contains(&name) =>
                {
                    query.push(format!("{name}=s3cr3t-{}", name.trim_end_matches("_id")));
                }
                Some("query") => {
                    query.extend(query_value(name, way, names).map(|value| format!("{name}={value}")))
                }
                Some(_) | None => {}
            }
        }
        assert!(!uri.contains('{'), "{uri} has a part that this test does not know");
        if query.is_empty() { uri } else { format!("{uri}?{}", query.join("&")) }
    }

    fn path_value(&self, name: &str, names: &Names) -> &'static str {
        match name {
            "id" | "session_id" | "sessionId" if self.path.contains("/sessions/") => names.session_id,
            "id" | "media_id" | "job_id" | "record_id" => names.id,
            "device_id" | "station_id" => names.device_id,
            "rule_id" => "ammonia",
            "alert" => "FarmiqDown",
            "name" if self.path.contains("/ways/") => "siren",
            _ => panic!("{}: this test does not know {name}", self.path),
        }
    }
}

fn query_value(name: &str, way: Way, names: &Names) -> Option<String> {
    match name {
        "tenant_id" | "tenantId" => way.named.map(str::to_owned),
        "session_id" | "sessionId" => Some(names.session_id.to_owned()),
        "object_key" => Some(names.object_key.to_owned()),
        "expires" => Some("4102444800".to_owned()),
        "signature" => Some("00".repeat(32)),
        "status" => Some("failed".to_owned()),
        "day" => Some("2026-01-05".to_owned()),
        // Nothing is deleted, whoever may order it.
        "dry_run" => Some("true".to_owned()),
        "confirm_clock" | "confirm_orphans" | "adopt_store" => None,
        // These narrow a list further.
        "bucket" | "width" | "reason" | "source" | "tz" | "date" | "farm_id" | "metric_type" | "batch_id"
        | "flag" | "reviewed" | "max_confidence" | "from" | "to" | "device_id" | "after" | "before"
        | "event_type" | "start_time" | "end_time" | "window" | "limit" | "barn_id" | "present"
        | "target_weight_g" | "rule_id" | "state" => None,
        _ => panic!("this test does not know the parameter {name}"),
    }
}

/// Puts names into an example of a body.
fn fill(body: &mut Value, way: Way, names: &Names) {
    match body {
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, way, names)),
        Value::Object(fields) => {
            if way.named.is_none() {
                fields.retain(|name, _| name != "tenant_id" && name != "tenantId");
            }
            for (name, value) in fields {
                match name.as_str() {
                    "tenant_id" | "tenantId" => *value = json!(way.named),
                    "farm_id" | "farmId" => *value = json!("f-2"),
                    "barn_id" | "barnId" => *value = json!("b-2"),
                    "device_id" | "deviceId" => *value = json!("d-2"),
                    "station_id" | "stationId" => *value = json!("st-2"),
                    "event_id" | "eventId" => *value = json!(new_id().to_string()),
                    "session_id" | "sessionId" => *value = json!(names.session_id),
                    "media_id"
                    | "mediaId"
                    | "mediaObjectId"
                    | "inference_result_id"
                    | "inferenceResultId" => {
                        *value = json!(names.id);
                    }
                    "object_key" | "objectKey" => *value = json!(names.object_key),
                    "ids" => *value = json!([names.id]),
                    _ => fill(value, way, names),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a stream tells up to the end of its first event of the board.
async fn first_events(mut body: Body) -> Bytes {
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("event: board\n") {
        let frame = body.frame().await.expect("it goes on").expect("it does not fail");
        told.extend_from_slice(&frame.into_data().expect("data"));
    }
    told.into()
}

/// Status, error code, and the whole answer; of a stream, its beginning.
async fn ask(face: &Face, request: Request<Body>) -> (u16, Value, String) {
    let response = face.router.clone().oneshot(request).await.expect("a router never fails");
    let status = response.status().as_u16();
    let is_stream = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let bytes = if is_stream {
        first_events(response.into_body()).await
    } else {
        to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory")
    };
    let code = serde_json::from_slice::<Value>(&bytes).map(|body| body["error"]["code"].clone());
    (status, code.unwrap_or_default(), String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_shows_or_changes_what_belongs_to_another_tenant() {
    let mut config = config();
    config.auth.mode = AuthMode::JwtOrMtls;
    config.auth.operator_keys = vec![key("two", Role::Admin, &[STRANGER])];
    config.media.presign_per_minute = 60_000;
    let face = Face::of(config).await;
    furnish(&face).await;
    let before = rows_of_owner(&face).await;
    let token = token(&face).await;
    let (_, api) = face.get("/api-docs/openapi.json", &[]).await;
    for operation in operations(&api) {
        for way in ways() {
            let told = format!("{} {} {way:?}", operation.method, operation.path);
            let (status, code, body) = ask(&face, operation.request(way, &FOREIGN, &token)).await;
            assert!(!body.contains(SECRET) && !body.contains(SECRET_COUNT), "{told}: {body}");
            let (unknown_status, unknown_code, unknown) =
                ask(&face, operation.request(way, &UNKNOWN, &token)).await;
            assert_eq!((status, code), (unknown_status, unknown_code), "{told}: {body} {unknown}");
        }
    }
    for (before, after) in before.into_iter().zip(rows_of_owner(&face).await) {
        assert_eq!(before, after);
    }
    face.end().await;
}
