//! The state of the box, as the operator page reads it.

use axum::http::StatusCode;
use serde_json::json;

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
