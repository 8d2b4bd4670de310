//! The HTTP face with a real database: what is stored, what is shown, and to whom.

use std::sync::Arc;
use std::time::Duration;

use actors::allowlist::Allowlist;
use actors::flock::keeper::FlockKeeper;
use actors::last_seen::SignsOfLife;
use actors::retention::RetentionHub;
use actors::supervisor::{ChildSpec, Supervised};
use actors::telemetry::tap::Tap;
use actors::telemetry::{self, TelemetryWriter};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use engine::config::{AuthMode, Config, OperatorKey, Role, Secret};
use engine::http::{AppState, CurrentAuthority, router};
use engine::parts::Parts;
use serde_json::Value;
use tests::postgres::Database;
use tower::ServiceExt;

mod chart;
mod climate;
mod compare;
mod console;
mod console_walk;
mod credentials;
mod device;
mod flock;
mod ledger;
mod lists;
mod media;
mod ops;
mod place;
mod retention;
mod rights;
mod session;
mod sync;
mod telemetry_intake;
mod telemetry_lists;
mod tenants;
mod thumbnails;

/// The HTTP face of an engine without MQTT.
struct Face {
    db: Database,
    router: Router,
    writers: Supervised,
    retention: RetentionHub,
    allowlist: Allowlist,
    signs_of_life: SignsOfLife,
    keeper: FlockKeeper,
    tap: Tap,
    authority: CurrentAuthority,
}

fn key(key: &str, role: Role, tenants: &[&str]) -> OperatorKey {
    let tenants = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
    OperatorKey { name: None, key: Secret::from(key.to_owned()), role, tenants }
}

/// Tokens, and keys `all` (every tenant) and `one` (t-001), both of the role admin.
fn config() -> Config {
    let mut config = Config::default();
    config.auth.mode = AuthMode::Jwt;
    config.auth.admin_enabled = true;
    config.auth.jwt_secrets = vec![Secret::from("secret".to_owned())];
    config.media.upload_secret = Some(Secret::from("secret".to_owned()));
    config.auth.operator_keys = vec![key("all", Role::Admin, &["*"]), key("one", Role::Admin, &["t-001"])];
    config
}

fn compat() -> Config {
    let mut config = config();
    config.auth.mode = AuthMode::Compat;
    config.auth.operator_keys.clear();
    config
}

impl Face {
    async fn of(mut config: Config) -> Self {
        let db = Database::fresh().await;
        config.database.url = Some(Secret::from(db.url.clone()));
        let parts = Parts::new(&config).expect("the URL can be read");
        let args = telemetry::Args {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            database: parts.database.clone(),
            stats: Arc::clone(&parts.stats),
            wake_sync: parts.sync.waker(),
            tap: parts.tap.clone(),
            dedupe_ttl: chrono::Duration::hours(72),
            shard: 0,
        };
        let writer = |address| {
            let args = args.clone();
            ChildSpec::new("telemetry", "0", address, move || (TelemetryWriter, args.clone()))
        };
        let mut writers: Vec<_> = parts.writers.addresses().iter().map(writer).collect();
        writers.push(engine::tree::sessions(&config, &parts));
        writers.insert(0, engine::tree::board(&parts));
        let writers = Supervised::start(writers).await.expect("the writers start");
        parts.database.works();
        let state = AppState::of(&config, &parts).expect("no key files");
        let authority = state.authority();
        let keeper = FlockKeeper::new(parts.store.clone(), parts.clock.clone(), parts.sync.waker());
        let (retention, allowlist, signs_of_life) = (parts.retention, parts.allowlist, parts.signs_of_life);
        let tap = parts.tap;
        let router = router(state);
        Self { db, router, writers, retention, allowlist, signs_of_life, keeper, tap, authority }
    }

    async fn end(self) {
        self.writers.shut_down(Duration::from_secs(5)).await;
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.expect("a router never fails");
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory");
        (status, serde_json::from_slice(&bytes).expect("a JSON body"))
    }

    async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        self.send(request("GET", uri, headers, Body::empty())).await
    }

    async fn post(&self, uri: &str, headers: &[(&str, &str)], body: &Value) -> (StatusCode, Value) {
        let json = [headers, &[("content-type", "application/json")]].concat();
        self.send(request("POST", uri, &json, Body::from(body.to_string()))).await
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

/// The code of an error answer.
fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}
