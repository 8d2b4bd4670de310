//! Where devices are: said, shown, forgotten, and by whom.

use axum::body::Body;
use axum::http::StatusCode;
use engine::config::Role;
use schema::clock::Clock;
use serde_json::{Value, json};

use super::{Face, code, config, key, request};

const PLACES: &str = "/api/v1/places";
const ONE: (&str, &str) = ("x-api-key", "one");

async fn put(face: &Face, header: (&str, &str), body: &Value) -> (StatusCode, Value) {
    let headers = [header, ("content-type", "application/json")];
    face.send(request("PUT", PLACES, &headers, Body::from(body.to_string()))).await
}

async fn remove(face: &Face, header: (&str, &str), query: &str) -> (StatusCode, Value) {
    face.send(request("DELETE", &format!("{PLACES}?{query}"), &[header], Body::empty())).await
}

fn reading(device: &str, metric: &str, value: f64) -> Value {
    json!({"event_id": schema::id::new_id(), "tenant_id": "t-001", "device_id": device, "farm_id": "f-001", "barn_id": "b-001",
        "event_type": "telemetry.reading", "ts": Clock::system().now().to_rfc3339(),
        "payload": {"metric": metric, "value": value}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_said_shown_on_the_board_and_forgotten() {
    let face = Face::of(config()).await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    let body = json!({"device_id": "d-001", "role": "inside", "zone": "north", "height_cm": 40});
    let (status, placed) = put(&face, ONE, &body).await;
    assert_eq!(status, StatusCode::OK, "{placed}");
    assert_eq!((&placed["weight"], &placed["metric_type"]), (&json!(1.0), &Value::Null));
    let light =
        json!({"device_id": "d-001", "metric_type": "light_intensity", "role": "light", "weight": 0.5});
    assert_eq!(put(&face, ONE, &light).await.0, StatusCode::OK);
    let again = json!({"device_id": "d-001", "role": "inside", "zone": "south"});
    let (_, placed) = put(&face, ONE, &again).await;
    assert_eq!((&placed["zone"], &placed["height_cm"]), (&json!("south"), &Value::Null), "it is replaced");
    let (_, list) = face.get(&format!("{PLACES}?barn_id=b-001"), &[ONE]).await;
    let roles: Vec<_> =
        list["places"].as_array().expect("a list").iter().map(|place| place["role"].clone()).collect();
    assert_eq!(roles, ["inside", "light"], "{list}");
    assert_eq!(face.get(&format!("{PLACES}?barn_id=b-009"), &[ONE]).await.1["places"], json!([]));

    let events =
        json!({"events": [reading("d-001", "temperature", 27.0), reading("d-001", "light_intensity", 20.0)]});
    let (status, stored) = face.post("/api/v1/telemetry/readings", &[ONE], &events).await;
    assert_eq!((status, &stored["ingested_count"]), (StatusCode::OK, &json!(2)), "{stored}");
    tests::wait::until("the board has heard", async || {
        face.get("/api/v1/board", &[ONE]).await.1["count"] == 2
    })
    .await;
    let (_, board) = face.get("/api/v1/board", &[ONE]).await;
    let entries = board["entries"].as_array().expect("entries");
    assert_eq!(
        (&entries[0]["place"]["role"], &entries[1]["place"]["zone"]),
        (&json!("light"), &json!("south")),
        "{board}"
    );

    assert_eq!(remove(&face, ONE, "device_id=d-001&metric_type=light_intensity").await.0, StatusCode::OK);
    let (status, gone) = remove(&face, ONE, "device_id=d-001&metric_type=light_intensity").await;
    assert_eq!((status, code(&gone)), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    let (_, board) = face.get("/api/v1/board", &[ONE]).await;
    assert_eq!(board["entries"][0]["place"]["role"], "inside", "that of the device holds again");
    let audited = "SELECT count(*) FROM audit_log WHERE tenant_id = 't-001' AND target = 'd-001'
        AND action IN ('place.put', 'place.remove') AND actor LIKE 'operator:%'";
    assert_eq!(face.db.count(audited).await, 4);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_their_tenants_own_and_readers_say_nothing() {
    let mut config = config();
    config.auth.operator_keys.extend([
        key("two", Role::Admin, &["t-002"]),
        key("reader", Role::Read, &["t-001"]),
        key("writer", Role::Write, &["t-001"]),
    ]);
    let face = Face::of(config).await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    let body = json!({"device_id": "d-001", "role": "outside"});
    let (two, reader, writer) = (("x-api-key", "two"), ("x-api-key", "reader"), ("x-api-key", "writer"));
    assert_eq!(put(&face, reader, &body).await.0, StatusCode::FORBIDDEN);
    assert_eq!(put(&face, writer, &body).await.0, StatusCode::OK);
    // To another tenant there is no such device, and no such place.
    assert_eq!(put(&face, two, &body).await.0, StatusCode::NOT_FOUND);
    assert_eq!(remove(&face, two, "device_id=d-001").await.0, StatusCode::NOT_FOUND);
    assert_eq!(remove(&face, two, "device_id=d-001&tenant_id=t-001").await.0, StatusCode::FORBIDDEN);
    assert_eq!(face.get(PLACES, &[two]).await.1["places"], json!([]));
    assert_eq!(face.get(PLACES, &[reader]).await.1["places"].as_array().map(Vec::len), Some(1));
    for (wrong, message) in [
        (json!({"device_id": "d-001"}), "role: is required"),
        (
            json!({"device_id": "d-001", "role": "roof"}),
            "role: must be one of inside, outside, water, scale, light, air",
        ),
        (
            json!({"device_id": "d-001", "role": "inside", "weight": -1}),
            "weight: must be a number from 0 to 1000",
        ),
    ] {
        let (status, body) = put(&face, writer, &wrong).await;
        assert_eq!((status, &body["error"]["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
    }
    face.end().await;
}
