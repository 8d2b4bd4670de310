//! The state of the box, as the operator page reads it.

use axum::http::StatusCode;
use serde_json::{Value, json};
use tests::barn::Barn;
use tests::engine::get;
use tests::objects::Objects;

use super::{Face, code, config};

const URI: &str = "/api/v1/ops/edge/status";

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_box_names_its_parts_by_the_services_they_replaced() {
    let face = Face::of(config()).await;
    let (status, body) = face.get(URI, &[("x-api-key", "one")]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let data = &body["data"];
    let services = data["services"].as_array().expect("a list");
    let names: Vec<_> = services.iter().filter_map(|service| service["name"].as_str()).collect();
    let expected = [
        "edge-ingress-gateway",
        "edge-telemetry-timeseries",
        "edge-weighvision-session",
        "edge-vision-inference",
        "edge-media-store",
        "edge-sync-forwarder",
    ];
    assert_eq!(names, expected);
    // This face stands alone: it has a database, and no way in for MQTT.
    let is_up = |name: usize| (&services[name]["health_ok"], &services[name]["ready_ok"]);
    assert_eq!(is_up(0), (&json!(false), &json!(false)));
    assert_eq!(is_up(1), (&json!(true), &json!(true)));
    assert_eq!(data["overall"], "DEGRADED");
    let latencies: Vec<_> = services.iter().map(|service| service["latency_ms"].is_u64()).collect();
    assert_eq!(latencies, [false, true, true, true, true, true], "{data}");
    assert!(services[0]["latency_ms"].is_null(), "nobody is asked for it");
    assert_eq!(data["last_check_at"], services[5]["last_check_at"]);
    for resource in ["cpu_load_1m", "cpu_load_15m", "memory_free_bytes", "disk_total_bytes"] {
        assert!(data["resources"][resource].is_number(), "{resource} {data}");
    }
    assert_eq!(data["sync_state"]["pending_count"], 0);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_is_shown_as_the_caller_may_see_it() {
    let face = Face::of(config()).await;
    face.db
        .execute(
            "INSERT INTO sync_outbox (id, tenant_id, device_id, event_type, payload_json)
             VALUES (gen_random_uuid(), 't-001', 'd', 'telemetry.ingested', '{}'),
                    (gen_random_uuid(), 't-002', 'd', 'telemetry.ingested', '{}')",
        )
        .await;
    for (key, pending) in [("one", 1), ("all", 2)] {
        let (_, body) = face.get(URI, &[("x-api-key", key)]).await;
        assert_eq!(body["data"]["sync_state"]["pending_count"], pending, "{key}");
    }
    let (status, body) = face.get(URI, &[]).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    face.end().await;
}

/// Services of a state, by their place in it.
const VISION: usize = 3;
const MEDIA: usize = 4;

fn health(service: &Value) -> [&Value; 2] {
    [&service["health_ok"], &service["ready_ok"]]
}

async fn status(barn: &Barn) -> Value {
    let (status, body) = get(barn.settings.http, URI).await;
    assert_eq!(status, 200, "{body}");
    let mut body: Value = serde_json::from_str(&body).expect("a JSON body");
    body["data"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barn_at_work_tells_of_its_workers_its_model_and_its_images() {
    let barn = Barn::start_with(|settings| {
        settings.set("inference.workers", "2").set("retention.free_disk_gb_min", "0")
    })
    .await;
    let data = status(&barn).await;
    let (vision, media) = (&data["services"][VISION], &data["services"][MEDIA]);
    let details = &vision["details"];
    assert_eq!(health(vision), [true, true], "{vision}");
    assert_eq!((&details["model_status"], &details["workers"]), (&json!("demo"), &json!(2)), "{vision}");
    assert_eq!((&details["queue_depth"], &details["queue_age_seconds"]), (&json!(0), &json!(null)));
    assert_eq!(health(media), [true, true], "{media}");
    assert_eq!(media["details"], json!({"backend": "filesystem", "has_room": true}));
    assert_eq!((&data["overall"], &data["services"][0]["details"]), (&json!("OK"), &json!(null)), "{data}");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_degrades_the_box() {
    let mut objects = Objects::start().await;
    objects.stop().await;
    let barn = Barn::start_with(|settings| objects.of(settings)).await;
    let data = status(&barn).await;
    let media = &data["services"][MEDIA];
    assert_eq!(health(media), [false, false], "{media}");
    assert_eq!(media["details"]["backend"], "s3");
    assert_eq!(data["overall"], "DEGRADED");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_and_a_long_queue_are_no_failures_but_a_warning() {
    let mut config = config();
    config.inference.enabled = false;
    config.retention.free_disk_gb_min = 1 << 30;
    config.media.root = std::env::temp_dir();
    let face = Face::of(config).await;
    face.db
        .execute(
            "INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version,
                 status, next_attempt_at, created_at, updated_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', gen_random_uuid(), 'k', 'v', 'pending', now(),
                 now() - interval '31 minutes', now())",
        )
        .await;
    let (_, body) = face.get(URI, &[("x-api-key", "one")]).await;
    let services = &body["data"]["services"];
    let (vision, media) = (&services[VISION], &services[MEDIA]);
    assert_eq!(
        (health(vision), health(media)),
        ([&json!(true), &json!(false)], [&json!(true), &json!(false)])
    );
    let details = &vision["details"];
    assert_eq!((&details["model_status"], &details["workers"]), (&json!("disabled"), &json!(0)), "{vision}");
    assert_eq!(details["queue_depth"], 1);
    assert!(details["queue_age_seconds"].as_i64().is_some_and(|seconds| seconds >= 31 * 60), "{vision}");
    assert_eq!(media["details"]["has_room"], false);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_says_what_is_wrong_with_itself_and_what_to_do() {
    let face = Face::of(config()).await;
    let ask = async || {
        let (status, body) = face.get("/api/v1/ops/doctor", &[("x-api-key", "one")]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let findings = body["findings"].as_array().expect("a list").clone();
        let of = |subject: &str| {
            let found = findings.iter().find(|finding| finding["subject"] == subject);
            found
                .map(|finding| finding["verdict"].as_str().unwrap_or_default().to_owned())
                .unwrap_or_default()
        };
        let subjects = ["database", "tables", "mqtt", "cloud", "outbox", "model", "retention"];
        (subjects.map(of), body)
    };
    let (verdicts, body) = ask().await;
    // This face stands alone: it has a database, and no way in for MQTT.
    assert_eq!(verdicts, ["ok", "ok", "fail", "ok", "ok", "warn", "ok"], "{body}");
    assert_eq!(body["verdict"], "fail");
    let mut findings = body["findings"].as_array().expect("a list").iter();
    assert!(findings.all(|finding| finding["verdict"] == "ok" || finding["advice"].is_string()), "{body}");
    face.db
        .execute(
            "INSERT INTO sync_state (tenant_id, last_error_at, last_error_message, consecutive_failures, updated_at)
                 VALUES ('t-001', now(), 'connection refused', 3, now()), ('t-002', now(), 's3cr3t', 9, now());
             INSERT INTO sync_outbox (id, tenant_id, event_type, payload_json, status, failed_at)
                 VALUES (gen_random_uuid(), 't-001', 'x', '{}', 'failed', now())",
        )
        .await;
    let (verdicts, body) = ask().await;
    assert_eq!(verdicts, ["ok", "ok", "fail", "warn", "warn", "warn", "ok"], "{body}");
    assert!(!body.to_string().contains("s3cr3t"), "{body}");
    assert_eq!(face.get("/api/v1/ops/doctor", &[]).await.0, StatusCode::UNAUTHORIZED);
    face.end().await;
}
