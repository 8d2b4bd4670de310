//! The janitor's endpoints: who may order a pass, and what is said of it.

use std::time::Duration;

use actors::address::Address;
use actors::retention::Retention;
use actors::supervisor::{ChildSpec, Supervised};
use axum::http::StatusCode;
use engine::config::{Config, Role};
use serde_json::json;
use tempfile::TempDir;

use super::{Face, code, compat, config, key};

const RUN: &str = "/api/v1/janitor/run";
const STATE: &str = "/api/v1/janitor/state";
const ADMIN: [(&str, &str); 1] = [("x-api-key", "all")];
const READER: [(&str, &str); 1] = [("x-api-key", "reader")];

/// A face with a janitor, and the directory of its images.
struct Janitor {
    face: Face,
    tree: Supervised,
    _directory: TempDir,
}

impl Janitor {
    async fn of(mut config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        config.media.root = directory.path().to_owned();
        let face = Face::of(config).await;
        let hub = face.retention.clone();
        let janitor = ChildSpec::new("retention", "", &Address::default(), move || (Retention, hub.clone()));
        let tree = Supervised::start(vec![janitor]).await.expect("it starts");
        Self { face, tree, _directory: directory }
    }

    async fn end(self) {
        self.tree.shut_down(Duration::from_secs(5)).await;
        self.face.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_orders_a_pass_and_a_reader_sees_its_result() {
    let mut config = config();
    config.auth.operator_keys.push(key("reader", Role::Read, &["*"]));
    let janitor = Janitor::of(config).await;
    let face = &janitor.face;
    face.db
        .execute(
            "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
             VALUES (gen_random_uuid(), 't-001', 'd', 'e', 'm', 1, now() - interval '200 days', now() - interval '200 days');
             INSERT INTO retention_passes (last_at) VALUES (now())",
        )
        .await;
    let (status, before) = face.get(STATE, &READER).await;
    let nothing = json!({"data": {"last_run_at": null, "last_deleted_files": 0, "last_freed_bytes": 0, "last_error": null}});
    assert_eq!((status, before), (StatusCode::OK, nothing));
    let rows = "SELECT count(*) FROM telemetry_raw";
    for (uri, is_dry_run, left) in [(format!("{RUN}?dry_run=true"), true, 1), (RUN.to_owned(), false, 0)] {
        let (status, body) = face.post(&uri, &ADMIN, &json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let data = &body["data"];
        assert_eq!((&data["dry_run"], &data["error"]), (&json!(is_dry_run), &json!(null)), "{body}");
        assert_eq!(data["deleted_rows"], json!({"telemetry_raw": 1}));
        assert_eq!(face.db.count(rows).await, left);
        let (_, state) = face.get(STATE, &READER).await;
        assert_eq!(state["data"]["last_run_at"], data["finished_at"]);
    }
    janitor.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_for_administrators_and_its_words_are_checked() {
    let mut config = config();
    config.auth.operator_keys.push(key("reader", Role::Read, &["*"]));
    let janitor = Janitor::of(config).await;
    let face = &janitor.face;
    let (status, body) = face.post(RUN, &[], &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    let (status, body) = face.post(RUN, &READER, &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "FORBIDDEN"));
    let (status, body) = face.get(STATE, &[]).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    let (status, body) = face.post(&format!("{RUN}?dry_run=perhaps"), &ADMIN, &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    janitor.end().await;
    let open = Janitor::of(compat()).await;
    let (status, body) = open.face.post(RUN, &[], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    open.end().await;
}
