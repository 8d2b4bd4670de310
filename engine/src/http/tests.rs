//! The whole router without a database: who is let in where, and what every failure looks like.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use broker::{CredentialId, Identity};
use schema::id::{DeviceId, TenantId};
use schema::wire;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::auth::{Authority, ClientCertificate, Grounds};
use super::*;
use crate::config::{AuthMode, OperatorKey, Role, Secret};

/// Routes that do what no handler should, so that the layers around them show.
fn with_odd_routes(state: AppState, permits: &Arc<Semaphore>, requests_in_flight_max: usize) -> Router {
    let permits = Arc::clone(permits);
    let wait = async move || permits.acquire().await.expect("open").forget();
    let panic = async || -> () { panic!("a bug") };
    let state = Arc::new(state);
    let routes = guarded(&state, table())
        .route("/odd/wait", axum::routing::get(wait))
        .route("/odd/panic", axum::routing::get(panic));
    layered(routes, Router::new(), state, requests_in_flight_max)
}

fn config(mode: AuthMode) -> Config {
    let key = |key: &str, role| OperatorKey {
        name: None,
        key: Secret::from(key.to_owned()),
        role,
        tenants: vec!["*".to_owned()],
    };
    let mut config = Config::default();
    config.auth.mode = mode;
    config.auth.admin_enabled = true;
    config.auth.jwt_secrets = vec![Secret::from("secret".to_owned())];
    config.auth.operator_keys =
        vec![key("reader", Role::Read), key("writer", Role::Write), key("admin", Role::Admin)];
    config.edge.commit = "abc123".to_owned();
    config.media.root = std::env::temp_dir();
    config.media.upload_secret = Some(Secret::from("secret".to_owned()));
    config
}

fn open_config() -> Config {
    let mut config = config(AuthMode::Compat);
    config.auth.operator_keys.clear();
    config
}

/// An engine whose database is away.
pub(super) fn state(config: &Config) -> AppState {
    let mut config = config.clone();
    config.database.url = Some(Secret::from("host=/nonexistent user=nobody dbname=nothing".to_owned()));
    let parts = Parts::new(&config).expect("the URL can be read");
    let clock = Clock::manual(wire::time::parse("2026-02-12T09:00:00Z").expect("a time"));
    let ingress = Arc::new(IngressStats::new(clock.now()));
    let state = AppState::of(&config, &parts).expect("no key files");
    AppState {
        is_mqtt_connected: Arc::new(|| true),
        render_metrics: Some(Arc::new(|| "up 1\n".to_owned())),
        ingress,
        clock,
        ..state
    }
}

fn app(config: &Config) -> Router {
    router(state(config))
}

fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request")
}

fn post(uri: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(uri)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

async fn answer(app: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let response = app.clone().oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    if parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        // It would last for minutes.
        return (parts.status, parts.headers, Vec::new());
    }
    let bytes = to_bytes(body, usize::MAX).await.expect("a body in memory");
    (parts.status, parts.headers, bytes.to_vec())
}

async fn json_answer(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let (status, _, body) = answer(app, request).await;
    (status, serde_json::from_slice(&body).expect("a JSON body"))
}

/// Checks the one shape of errors and that it names the call.
async fn check_error(app: &Router, request: Request<Body>, status: u16, code: &str) -> String {
    let uri = request.uri().clone();
    let (found, headers, body) = answer(app, request).await;
    let body: Value = serde_json::from_slice(&body).expect("a JSON body");
    assert_eq!((found.as_u16(), &body["error"]["code"]), (status, &json!(code)), "{uri} {body}");
    assert_eq!(headers["content-type"], "application/json", "{uri}");
    assert_eq!(body["error"]["traceId"], headers["x-trace-id"].to_str().expect("ASCII"), "{uri}");
    assert_eq!(body["error"].as_object().map(serde_json::Map::len), Some(3), "{uri}");
    assert_eq!(headers.contains_key("retry-after"), status == 503, "{uri}");
    body["error"]["message"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_page_of_another_origin_does_nothing_to_an_open_box() {
    let app = app(&open_config());
    let from = |origin: &str| {
        let mut request = request("POST", "/api/v1/sync/trigger");
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
        request
    };
    check_error(&app, from("http://evil.example"), 403, "FORBIDDEN").await;
    let (status, ..) = answer(&app, from("http://localhost:5110")).await;
    assert_ne!(status, StatusCode::FORBIDDEN, "a page that is named may");
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_answer_is_read() {
    let state = Arc::new(state(&open_config()));
    let download = async || Body::from("a long answer");
    let routes = guarded(&state, table()).route("/odd/download", axum::routing::get(download));
    let app = layered(routes, Router::new(), state, 1);
    let reading = app.clone().oneshot(request("GET", "/odd/download")).await.expect("a router never fails");
    assert_eq!(reading.status(), StatusCode::OK);
    check_error(&app, request("GET", "/odd/download"), 503, "NOT_READY").await;
    drop(reading);
    let (status, _, body) = answer(&app, request("GET", "/odd/download")).await;
    assert_eq!((status, body.as_slice()), (StatusCode::OK, b"a long answer".as_slice()));
}

/// Method and path of every operation of the table.
fn operations() -> Vec<(Class, &'static str, &'static str)> {
    let mut operations = Vec::new();
    for Route { class, path, mut handlers } in table() {
        let mut paths: Vec<_> = handlers.1.paths.iter_mut().collect();
        let [(described, item)] = paths.as_mut_slice() else { panic!("{path} has one path") };
        assert_eq!(*described, path, "the table and the handler name the same path");
        operations.extend(openapi::operations(item).map(|(method, _)| (class, method, path)));
    }
    operations
}

fn described() -> utoipa::openapi::OpenApi {
    guarded(&Arc::new(state(&open_config())), table()).into_openapi()
}

#[test]
fn every_route_is_described_once_and_nothing_else_is() {
    let in_table: Vec<(String, String)> =
        operations().into_iter().map(|(_, method, path)| (method.to_owned(), path.to_owned())).collect();
    let mut api = described();
    let mut in_description = Vec::new();
    for (path, item) in &mut api.paths.paths {
        in_description.extend(openapi::operations(item).map(|(method, _)| (method.to_owned(), path.clone())));
    }
    let unique: BTreeSet<_> = in_table.iter().cloned().collect();
    assert_eq!(unique.len(), in_table.len());
    assert_eq!(unique, in_description.into_iter().collect());
}

#[test]
fn every_operation_says_what_it_needs_and_how_it_fails() {
    let mut api = described();
    for (class, method, path) in operations() {
        let item = api.paths.paths.get_mut(path).expect("a described path");
        let (_, operation) =
            openapi::operations(item).find(|(name, _)| *name == method).expect("a described method");
        let needs_credential = class != Class::Public || path.ends_with("device-token");
        assert_eq!(operation.security.is_some(), needs_credential, "{method} {path}");
        for status in ["500", "503"] {
            assert!(operation.responses.responses.contains_key(status), "{method} {path} {status}");
        }
        assert!(operation.summary.is_some() || operation.description.is_some(), "{method} {path}");
    }
    let text = serde_json::to_value(&api).expect("a document");
    let schemas = text["components"]["schemas"].as_object().expect("schemas");
    for reference in references(&text) {
        assert!(schemas.contains_key(&reference), "{reference} is referred to and not described");
    }
}

#[test]
fn every_body_is_described_with_an_example_and_every_failure_with_its_code() {
    let api = openapi::document(&described());
    for (class, method, path) in operations() {
        let operation = &api["paths"][path][method.to_lowercase()];
        let told = format!("{method} {path}");
        let responses = operation["responses"].as_object().expect("responses");
        let mut needed = vec!["500", "503"];
        if class != Class::Public {
            needed.extend(["400", "401", "403"]);
        }
        if path.contains('{') {
            needed.push("404");
        }
        if operation.get("requestBody").is_some() {
            needed.extend(["400", "413"]);
            check_bodies(&operation["requestBody"]["content"], &told);
        }
        for status in needed {
            assert!(responses.contains_key(status), "{told} does not describe {status}");
        }
        assert!(responses.keys().any(|status| status.starts_with('2')), "{told} describes no success");
        for (status, response) in responses {
            check_bodies(&response["content"], &format!("{told} {status}"));
            let code = &response["content"]["application/json"]["example"]["error"]["code"];
            if let Some(code) = code.as_str().filter(|code| *code != "CLOUD_UNAVAILABLE") {
                let known = error::Code::ALL.iter().find(|known| known.as_str() == code);
                let known = known.unwrap_or_else(|| panic!("{told} {status} {code}"));
                assert_eq!(known.status().as_str(), status, "{told} {code}");
            }
        }
    }
}

fn check_bodies(content: &Value, told: &str) {
    let bodies = content.as_object().filter(|bodies| !bodies.is_empty());
    for (kind, body) in bodies.unwrap_or_else(|| panic!("{told} describes no body")) {
        assert!(body["schema"].as_object().is_some_and(|schema| !schema.is_empty()), "{told} {kind}: schema");
        assert!(!body["example"].is_null(), "{told} {kind}: example");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str);
            let own = own.and_then(|text| text.strip_prefix("#/components/schemas/")).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// What a caller shows, as a change to its request.
type Show = Box<dyn Fn(&mut Request<Body>)>;

/// The ways to show oneself, in the order of [`expected`].
fn shows(app: &Authority) -> Vec<Show> {
    let identity = Identity {
        tenant_id: TenantId::new("t-001").expect("an id"),
        device_id: DeviceId::new("d-001").expect("an id"),
    };
    let credential = CredentialId { username: "d-001".into(), mark: [0; 32] };
    let grounds = Grounds::Password(identity.clone(), credential);
    let certificate = ClientCertificate { identity, sha256: [7; 32], ends_at_seconds: i64::MAX };
    let now = wire::time::parse("2026-02-12T09:00:00Z").expect("a time");
    let token = format!("Bearer {}", app.tokens.issue(&grounds, now).expect("a secret").text);
    let header = |name: &'static str, value: String| -> Show {
        Box::new(move |request| {
            request.headers_mut().insert(name, value.parse().expect("a header value"));
        })
    };
    vec![
        Box::new(|_| {}),
        header("authorization", token),
        header("authorization", "Bearer a.b.c".to_owned()),
        Box::new(move |request| {
            request.extensions_mut().insert(certificate.clone());
        }),
        header("x-api-key", "reader".to_owned()),
        header("x-api-key", "writer".to_owned()),
        header("x-api-key", "admin".to_owned()),
        header("x-api-key", "nobody".to_owned()),
        header("authorization", "bearer reader".to_owned()),
    ]
}

/// One letter per way to show oneself: nothing, token, bad token, certificate, read, write and admin key, bad key, read key
/// as a bearer.
fn expected(mode: AuthMode, class: Class) -> &'static str {
    match (mode, class) {
        (_, Class::Public) => "+++++++++",
        (AuthMode::Jwt, Class::Device) => "1+113++13",
        (AuthMode::Jwt, Class::Read) => "1+11+++1+",
        (AuthMode::Jwt, Class::Box) => "1311+++1+",
        (AuthMode::Jwt, Class::Write) => "13113++13",
        (AuthMode::Jwt, Class::Act | Class::Admin) => "131133+13",
        (AuthMode::Mtls, Class::Device) => "111+3++13",
        (AuthMode::Mtls, Class::Read) => "111++++1+",
        (AuthMode::Mtls, Class::Box) => "1113+++1+",
        (AuthMode::Mtls, Class::Write) => "11133++13",
        (AuthMode::Mtls, Class::Act | Class::Admin) => "111333+13",
        (AuthMode::JwtOrMtls, Class::Device) => "1+1+3++13",
        (AuthMode::Compat, Class::Device) => "++1+3++13",
        (AuthMode::JwtOrMtls | AuthMode::Compat, Class::Read) => "1+1++++1+",
        (AuthMode::JwtOrMtls | AuthMode::Compat, Class::Box) => "1313+++1+",
        (AuthMode::JwtOrMtls | AuthMode::Compat, Class::Write) => "13133++13",
        (AuthMode::JwtOrMtls | AuthMode::Compat, Class::Act | Class::Admin) => "131333+13",
    }
}

/// Whether the handler itself asks for something: a password, the signature of an upload URL, or a key in any case.
fn has_credential_of_its_own(path: &str) -> bool {
    let is_of_known_operators =
        ["/api/v1/devices", "/api/v1/stations"].iter().any(|own| path.starts_with(own));
    path.ends_with("device-token") || path.contains("/uploads/") || is_of_known_operators
}

#[tokio::test]
async fn every_route_lets_in_whom_its_class_says() {
    for mode in [AuthMode::Jwt, AuthMode::Mtls, AuthMode::JwtOrMtls, AuthMode::Compat] {
        let config = config(mode);
        let shows = shows(&Authority::new(&config.auth).expect("no key files"));
        let app = app(&config);
        for (class, method, path) in operations() {
            if has_credential_of_its_own(path) {
                continue;
            }
            let mut found = String::new();
            for show in &shows {
                let uri = format!("{path}?tenant_id=t-001");
                let mut request = if method == "POST" { post(&uri, "{}") } else { request(method, &uri) };
                show(&mut request);
                found.push(match answer(&app, request).await.0.as_u16() {
                    401 => '1',
                    403 => '3',
                    _ => '+',
                });
            }
            assert_eq!(found, expected(mode, class), "{mode:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn compat_mode_without_keys_is_open() {
    let app = app(&open_config());
    for (_, method, path) in operations() {
        let uri = format!("{path}?tenant_id=t-001");
        let request = if method == "POST" { post(&uri, "{}") } else { request(method, &uri) };
        let status = answer(&app, request).await.0.as_u16();
        assert_eq!(
            status == 401 || status == 403,
            has_credential_of_its_own(path),
            "{method} {path} {status}"
        );
    }
}

#[tokio::test]
async fn every_failure_has_the_one_shape() {
    let app = app(&open_config());
    let readings = "/api/v1/telemetry/readings";
    check_error(&app, request("GET", "/nowhere"), 404, "NOT_FOUND").await;
    check_error(&app, request("GET", "/api/v1/telemetry/readings/"), 404, "NOT_FOUND").await;
    check_error(&app, request("GET", "/api-docs/none.js"), 404, "NOT_FOUND").await;
    check_error(&app, request("DELETE", readings), 405, "METHOD_NOT_ALLOWED").await;
    check_error(&app, request("POST", "/api/health"), 405, "METHOD_NOT_ALLOWED").await;
    check_error(&app, request("BREW", readings), 405, "METHOD_NOT_ALLOWED").await;
    check_error(&app, post(readings, "{"), 400, "BODY_NOT_JSON").await;
    check_error(&app, post(readings, ""), 400, "BODY_NOT_JSON").await;
    check_error(&app, post(readings, "[]"), 400, "VALIDATION_ERROR").await;
    check_error(&app, post("/api/v1/sync/redrive", "[]"), 400, "VALIDATION_ERROR").await;
    check_error(&app, post("/api/v1/sync/redrive", ""), 400, "VALIDATION_ERROR").await;
    check_error(&app, request("GET", readings), 400, "VALIDATION_ERROR").await;
    check_error(&app, request("GET", "/api/v1/telemetry/stats"), 400, "MISSING_TENANT").await;
    check_error(&app, request("GET", "/api/v1/sync/outbox?status=lost"), 400, "VALIDATION_ERROR").await;
    check_error(&app, request("GET", &format!("{readings}?tenant_id=t")), 503, "DATABASE_UNAVAILABLE").await;
    check_error(&app, request("GET", "/api/v1/sync/state"), 503, "DATABASE_UNAVAILABLE").await;
    check_error(&app, request("GET", "/api/v1/ops/edge/status"), 503, "NOT_READY").await;
    let twice = format!("{readings}?tenant_id=t&tenant_id=t");
    check_error(&app, request("GET", &twice), 400, "VALIDATION_ERROR").await;
    for value in ["%00", "%0a", "a%2fb", &"x".repeat(200)] {
        let odd = format!("{readings}?tenant_id={value}");
        check_error(&app, request("GET", &odd), 400, "VALIDATION_ERROR").await;
    }
    for limit in ["99999999999999999999999", "1e3", "0x10", "%ff", "-0"] {
        let odd = format!("{readings}?tenant_id=t&limit={limit}");
        check_error(&app, request("GET", &odd), 400, "VALIDATION_ERROR").await;
    }
    for time in ["2026-02-30T00:00:00Z", "2026-02-12", "1", "+999999-01-01T00:00:00Z", "%ff"] {
        let odd = format!("{readings}?tenant_id=t&start_time={time}");
        check_error(&app, request("GET", &odd), 400, "VALIDATION_ERROR").await;
    }
    check_error(&app, post("/api/v1/sync/redrive", r#"{"ids":["\u0000"]}"#), 400, "VALIDATION_ERROR").await;
    check_error(&app, post("/api/v1/sync/redrive", &"[".repeat(100_000)), 400, "BODY_NOT_JSON").await;
    let message = check_error(
        &app,
        request("GET", &format!("{readings}?limit=0&start_time=soon")),
        400,
        "VALIDATION_ERROR",
    );
    let expected =
        "tenant_id: is required; start_time: is not a time; limit: must be a whole number from 1 to 1000";
    assert_eq!(message.await, expected);
}

#[tokio::test]
async fn bodies_have_a_limit_and_a_type() {
    let app = app(&open_config());
    let uri = "/api/v1/telemetry/readings";
    let large = format!(r#"{{"events":["{}"]}}"#, "x".repeat(1024 * 1024));
    check_error(&app, post(uri, &large), 413, "BODY_TOO_LARGE").await;
    let mut declared = post(uri, "{}");
    declared.headers_mut().insert("content-length", "1048577".parse().expect("a number"));
    check_error(&app, declared, 413, "BODY_TOO_LARGE").await;
    let mut form = post(uri, "events=1");
    form.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().expect("a type"));
    check_error(&app, form, 400, "UNSUPPORTED_CONTENT_TYPE").await;
    let mut untyped = post(uri, r#"{"events":[]}"#);
    untyped.headers_mut().remove("content-type");
    let (status, body) = json_answer(&app, untyped).await;
    assert_eq!(
        (status, body),
        (StatusCode::OK, json!({"ingested_count": 0, "duplicate_count": 0, "rejected": []}))
    );
}

#[tokio::test]
async fn refusals_of_credentials_and_tenants_have_their_codes() {
    let app = app(&config(AuthMode::JwtOrMtls));
    let uri = "/api/v1/telemetry/readings?tenant_id=t-001";
    check_error(&app, request("GET", uri), 401, "UNAUTHORIZED").await;
    check_error(&app, post("/api/v1/ingress/device-token", ""), 401, "UNAUTHORIZED").await;
    let shows = shows(&Authority::new(&config(AuthMode::JwtOrMtls).auth).expect("no key files"));
    let with = |show: usize, mut request: Request<Body>, tenant: &str| {
        shows[show](&mut request);
        request.headers_mut().insert("x-tenant-id", tenant.parse().expect("a header value"));
        request
    };
    // Whether a device is let in still, only the database can tell.
    check_error(&app, with(1, request("GET", uri), "t-001"), 503, "DATABASE_UNAVAILABLE").await;
    check_error(&app, with(6, request("GET", uri), "t-002"), 403, "TENANT_MISMATCH").await;
    check_error(&app, with(6, request("GET", uri), "a/b"), 400, "VALIDATION_ERROR").await;
    check_error(&app, with(1, post("/api/v1/sync/trigger", ""), "t-001"), 403, "FORBIDDEN").await;
}

#[tokio::test]
async fn a_refused_credential_is_challenged_and_never_echoed() {
    let app = app(&config(AuthMode::Jwt));
    let mut bad = request("GET", "/api/v1/sync/state");
    bad.headers_mut().insert("x-api-key", "guessed-key".parse().expect("a header value"));
    let (status, headers, body) = answer(&app, bad).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers["www-authenticate"], "Bearer");
    assert!(!String::from_utf8_lossy(&body).contains("guessed"));
    let (_, headers, _) = answer(&app, post("/api/v1/ingress/device-token", "")).await;
    assert_eq!(headers["www-authenticate"], "Basic realm=\"farmiq-edge\"");
}

#[tokio::test]
async fn every_answer_carries_ids_and_security_headers() {
    let app = app(&open_config());
    for uri in ["/api/health", "/nowhere", "/api/v1/sync/state"] {
        let mut named = request("GET", uri);
        named.headers_mut().insert("x-request-id", "r-1".parse().expect("a header value"));
        let (_, headers, _) = answer(&app, named).await;
        let expected = [
            ("x-request-id", "r-1"),
            ("x-trace-id", "r-1"),
            ("x-commit-id", "abc123"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
        ];
        for (name, value) in expected {
            assert_eq!(headers[name], value, "{uri} {name}");
        }
    }
}

#[tokio::test]
async fn browsers_of_the_configured_origins_may_call() {
    let app = app(&open_config());
    let preflight = |origin: &str| {
        Request::builder()
            .method("OPTIONS")
            .uri("/api/v1/sync/state")
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "x-tenant-id")
            .body(Body::empty())
            .expect("a request")
    };
    let (status, headers, _) = answer(&app, preflight("http://localhost:5113")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["access-control-allow-origin"], "http://localhost:5113");
    assert_eq!(headers["access-control-allow-methods"], "GET,POST,PUT,OPTIONS");
    let allowed = "content-type,authorization,x-tenant-id,x-request-id,x-trace-id,x-api-key";
    assert_eq!(headers["access-control-allow-headers"], allowed);
    let (_, headers, _) = answer(&app, preflight("http://elsewhere")).await;
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_page_of_another_site_does_nothing_in_the_name_of_its_reader() {
    let app = app(&open_config());
    let check = async |method: &str, origin: &str, is_refused: bool| {
        let mut sent = request(method, "/api/v1/janitor/run");
        sent.headers_mut().insert("origin", origin.parse().expect("a header value"));
        sent.headers_mut().insert("host", "barn-7:3000".parse().expect("a header value"));
        let (status, _, _) = answer(&app, sent).await;
        assert_eq!(status == StatusCode::FORBIDDEN, is_refused, "{method} {origin} {status}");
    };
    check("POST", "http://elsewhere", true).await;
    check("POST", "null", true).await;
    check("POST", "http://barn-7:3000", false).await;
    check("POST", "http://localhost:5113", false).await;
    check("OPTIONS", "http://elsewhere", false).await;
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let app = with_odd_routes(state(&open_config()), &Arc::new(Semaphore::new(0)), 1);
    check_error(&app, request("GET", "/odd/panic"), 500, "INTERNAL_ERROR").await;
    check_error(&app, request("GET", "/nowhere"), 404, "NOT_FOUND").await;
}

#[tokio::test]
async fn too_many_requests_are_turned_away_but_health_answers() {
    let permits = Arc::new(Semaphore::new(0));
    let app = with_odd_routes(state(&open_config()), &permits, 1);
    let first = async { answer(&app, request("GET", "/odd/wait")).await.0 };
    let second = async {
        check_error(&app, request("GET", "/odd/wait"), 503, "NOT_READY").await;
        for uri in ["/api/health", "/metrics"] {
            assert_eq!(answer(&app, request("GET", uri)).await.0, StatusCode::OK, "{uri}");
        }
        permits.add_permits(1);
    };
    // Both are polled in turn, the first one first, so that it is in flight before the second begins.
    let (status, ()) = tokio::join!(biased; first, second);
    assert_eq!(status, StatusCode::OK);
    check_error(&app, request("GET", "/nowhere"), 404, "NOT_FOUND").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_given_up() {
    let app = with_odd_routes(state(&open_config()), &Arc::new(Semaphore::new(0)), 1);
    check_error(&app, request("GET", "/odd/wait"), 503, "NOT_READY").await;
}

#[tokio::test]
async fn readiness_is_a_status_document() {
    let app = app(&open_config());
    let (status, body) = json_answer(&app, request("GET", "/api/ready")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({"status": "not_ready", "db": "down", "mqtt": true, "outbox": "error",
        "bucket": "farmiq-media", "presign": "ok", "s3": "up", "cloud": "disabled", "cloud_last_success_at": null,
        "waits_for": "database"});
    assert_eq!(body, expected);
    let state = state(&open_config());
    state.database.works();
    let (status, body) = json_answer(&router(state), request("GET", "/ready")).await;
    assert_eq!((status, &body["status"], &body["db"]), (StatusCode::OK, &json!("ready"), &json!("up")));
}

#[tokio::test]
async fn counters_have_the_names_of_the_contract() {
    let (status, body) = json_answer(&app(&open_config()), request("GET", "/api/v1/ingress/stats")).await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({"startedAt": "2026-02-12T09:00:00.000Z", "mqttConnected": true, "lastMessageAt": null,
        "messages_total": 0, "messages_deduped_total": 0, "messages_invalid_total": 0,
        "counters": {"messages_received_total": 0, "messages_valid_total": 0, "messages_invalid_total": 0,
            "messages_deduped_total": 0, "messages_processing_errors_total": 0,
            "routed_edge_telemetry_timeseries_total": 0, "routed_edge_telemetry_timeseries_success_total": 0,
            "routed_edge_weighvision_session_total": 0, "routed_edge_weighvision_session_success_total": 0,
            "routed_device_last_seen_total": 0, "routed_device_last_seen_success_total": 0},
        "lastErrors": {}});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_cloud_that_does_not_answer_is_a_bad_gateway_with_both_shapes() {
    let (status, body) =
        json_answer(&app(&open_config()), request("GET", "/api/v1/sync/diagnostics/cloud")).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!((&body["ok"], &body["status"]), (&json!(false), &json!(null)));
    assert_eq!(body["error"]["message"], body["message"]);
}

#[tokio::test]
async fn the_documentation_needs_no_network() {
    let app = app(&config(AuthMode::Jwt));
    let (status, headers, page) = answer(&app, request("GET", "/api-docs")).await;
    assert_eq!((status, headers["content-type"].as_bytes()), (StatusCode::OK, b"text/html".as_slice()));
    let page = String::from_utf8(page).expect("text");
    assert!(page.contains("<base href=\"/api-docs/\">"));
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("http"),
        "{policy}"
    );
    let (_, _, settings) = answer(&app, request("GET", "/api-docs/swagger-initializer.js")).await;
    let settings = String::from_utf8(settings).expect("text");
    assert!(settings.contains(r#""validatorUrl": "none""#), "{settings}");
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert!(page.contains(file), "{file}");
        assert_eq!(
            answer(&app, request("GET", &format!("/api-docs/{file}"))).await.0,
            StatusCode::OK,
            "{file}"
        );
    }
    let (status, api) = json_answer(&app, request("GET", "/api-docs/openapi.json")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(api["openapi"], "3.1.0");
    assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn runbooks_are_shown_to_everybody_without_scripts_or_network() {
    let app = app(&config(AuthMode::Jwt));
    let (status, headers, page) = answer(&app, request("GET", "/docs/runbooks")).await;
    let page = String::from_utf8(page).expect("text");
    assert!(status == StatusCode::OK && page.contains("FarmiqDown") && page.contains("Watchdog"), "{page}");
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(
        !policy.contains("unsafe") && !page.contains("<script") && !page.contains("href=\"http"),
        "{page}"
    );
    let (status, _, page) = answer(&app, request("GET", "/docs/runbooks/FarmiqCertificate")).await;
    let page = String::from_utf8(page).expect("text");
    assert!(status == StatusCode::OK && page.contains("30 days") && !page.contains("Watchdog"), "{page}");
    check_error(&app, request("GET", "/docs/runbooks/Nobody"), 404, "NOT_FOUND").await;
}

#[tokio::test]
async fn metrics_are_text_and_can_be_switched_off() {
    let (status, headers, body) = answer(&app(&open_config()), request("GET", "/metrics")).await;
    assert_eq!((status, body.as_slice()), (StatusCode::OK, b"up 1\n".as_slice()));
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let off = router(AppState { render_metrics: None, ..state(&open_config()) });
    check_error(&off, request("GET", "/metrics"), 404, "NOT_FOUND").await;
}

#[tokio::test]
async fn readings_are_refused_while_the_database_is_away() {
    let app = app(&open_config());
    let event = json!({"events": [{"event_id": "e", "tenant_id": "t", "device_id": "d", "event_type": "x",
        "ts": "2026-02-12T09:00:00Z", "payload": {"value": 1}}]});
    check_error(&app, post("/api/v1/telemetry/readings", &event.to_string()), 503, "DATABASE_UNAVAILABLE")
        .await;
}
