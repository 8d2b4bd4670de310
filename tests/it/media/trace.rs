//! One trace id, from the first call about an image to what the cloud is told of its weight.

use image::ImageFormat;
use tests::onnx::picture;

use super::*;

/// The trace ids of all events of this type that the cloud has.
fn traces(barn: &Barn, event_type: &str) -> Vec<Value> {
    let events = barn.cloud.events(100);
    let events = events.iter().map(|event| event.get("event").unwrap_or(event));
    events.filter(|event| event["event_type"] == event_type).map(|event| event["trace_id"].clone()).collect()
}

async fn call(barn: &Barn, path: &str, ids: &[(&str, &str)], body: &Value) -> Value {
    let mut request = Request::post(path)
        .header("host", "edge")
        .header("content-type", "application/json")
        .header("x-tenant-id", "t-001");
    for (name, id) in ids {
        request = request.header(*name, *id);
    }
    let request = request.body(Full::from(body.to_string())).expect("a request");
    let http = format!("http://{}", barn.settings.http);
    let (status, answer) = loadtest::http::call(&http, request).await.expect("the engine answers");
    assert!(status == 200 || status == 201, "{path}: {status} {answer:?}");
    serde_json::from_slice(&answer).expect("JSON")
}

/// Offers, puts and completes an image of a session under the ids of its calls.
async fn photograph(barn: &Barn, session_id: &str, offer: &[(&str, &str)], end: &[(&str, &str)]) {
    let mut wish = wish();
    wish["session_id"] = json!(session_id);
    let presigned = call(barn, "/api/v1/media/images/presign", offer, &wish).await;
    assert_eq!(put(&presigned, picture(51, ImageFormat::Jpeg).leak()).await, 200);
    let body = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "object_key": presigned["object_key"], "mime_type": "image/jpeg"});
    call(barn, "/api/v1/media/images/complete", end, &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_offer_of_an_image_to_its_weight_at_the_cloud() {
    let barn = Barn::start_with(|settings| in_directory(settings).set("inference.enabled", "true")).await;
    // The offer begins the trace; a request id is that of its request alone.
    photograph(
        &barn,
        "s-1",
        &[("x-trace-id", "tr-offer"), ("x-request-id", "r-1")],
        &[("x-request-id", "r-2")],
    )
    .await;
    photograph(
        &barn,
        "s-2",
        &[("x-request-id", "r-3")],
        &[("x-trace-id", "tr-end"), ("x-request-id", "r-4")],
    )
    .await;
    photograph(&barn, "s-3", &[("x-request-id", "r-5")], &[("x-request-id", "r-6")]).await;
    barn.delivered(6).await;
    for event_type in ["media.stored", "inference.completed"] {
        let mut found: Vec<_> = traces(&barn, event_type);
        found.sort_by_key(Value::to_string);
        assert_eq!(found, ["r-6", "tr-end", "tr-offer"], "{event_type}");
    }
    let jobs = "SELECT count(*) FROM inference_jobs WHERE trace_id IN ('tr-offer', 'tr-end', 'r-6')";
    assert_eq!(barn.db.count(jobs).await, 3);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_each_call_of_a_session_to_the_cloud() {
    let barn = Barn::start_with(in_directory).await;
    let at = "2026-02-12T09:32:15.052Z";
    let sessions = "/api/v1/weighvision/sessions";
    let weight = json!({"tenantId": "t-001", "occurredAt": at, "eventId": "e-1", "weightKg": 0.2});
    let created = json!({"sessionId": "s-1", "eventId": "e-0", "tenantId": "t-001", "farmId": "f-001", "barnId": "b-001",
        "deviceId": "wv-001", "stationId": "st-01", "startAt": at});
    let end = json!({"tenantId": "t-001", "occurredAt": at, "eventId": "e-2"});
    // The weight waits for its session and keeps its own trace.
    let bound =
        call(&barn, &format!("{sessions}/s-1/bind-weight"), &[("x-trace-id", "tr-weight")], &weight).await;
    assert_eq!(bound["traceId"], "tr-weight");
    call(&barn, sessions, &[("x-request-id", "r-begin")], &created).await;
    call(&barn, &format!("{sessions}/s-1/finalize"), &[("x-trace-id", "tr-end")], &end).await;
    barn.delivered(3).await;
    assert_eq!(traces(&barn, "weighvision.session.created"), ["r-begin"]);
    assert_eq!(traces(&barn, "weighvision.weight.recorded"), ["tr-weight"]);
    assert_eq!(traces(&barn, "weighvision.session.finalized"), ["tr-end"]);
    barn.finish().await;
}
