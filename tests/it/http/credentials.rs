//! Operators who let devices in, give them passwords and put them out.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::config::Role;
use serde_json::{Value, json};

use super::{Face, code, config, key};

const DEVICES: &str = "/api/v1/devices";
const ONE: [(&str, &str); 1] = [("x-api-key", "one")];

async fn may_log_in(face: &Face, issued: &Value) -> bool {
    let login = format!(
        "{}:{}",
        issued["username"].as_str().expect("a text"),
        issued["password"].as_str().expect("a text")
    );
    let basic = format!("Basic {}", STANDARD.encode(login));
    let path = "/api/v1/ingress/device-token";
    face.post(path, &[("authorization", &basic)], &json!({})).await.0 == StatusCode::OK
}

fn newcomer(tenant: &str, device: &str) -> Value {
    json!({"tenant_id": tenant, "farm_id": "f-001", "barn_id": "b-001", "device_id": device})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_let_in_gets_another_password_and_is_put_out() {
    let face = Face::of(config()).await;
    let (status, first) = face.post(DEVICES, &ONE, &newcomer("t-001", "d-1")).await;
    assert_eq!((status, &first["username"]), (StatusCode::CREATED, &json!("t-001/d-1")), "{first}");
    assert!(may_log_in(&face, &first).await);
    let (status, body) = face.post(DEVICES, &ONE, &newcomer("t-001", "d-1")).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "DEVICE_CONFLICT"));

    let rotate = format!("{DEVICES}/d-1/rotate");
    let (status, second) = face.post(&rotate, &ONE, &json!({"overlap_seconds": 3600})).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert!(second["old_password_good_until"].is_string(), "{second}");
    assert!(may_log_in(&face, &first).await && may_log_in(&face, &second).await);
    let (status, body) = face.post(&rotate, &ONE, &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "DEVICE_CONFLICT"), "one is under way");
    let (_, third) = face.post(&rotate, &ONE, &json!({"overlap_seconds": 0})).await;
    assert!(!may_log_in(&face, &first).await && !may_log_in(&face, &second).await);
    assert!(may_log_in(&face, &third).await);

    let (status, body) = face.post(&format!("{DEVICES}/d-1/revoke"), &ONE, &json!({})).await;
    assert_eq!(
        (status, &body["enabled"], &body["password_enabled"]),
        (StatusCode::OK, &json!(false), &json!(false))
    );
    assert!(!may_log_in(&face, &third).await);
    let (status, body) = face.post(&rotate, &ONE, &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "DEVICE_CONFLICT"));
    let (status, fourth) = face.post(DEVICES, &ONE, &newcomer("t-001", "d-1")).await;
    assert_eq!(status, StatusCode::CREATED, "it comes back");
    face.allowlist.refresh().await.expect("the database answers");
    assert!(may_log_in(&face, &fourth).await && !may_log_in(&face, &third).await);
    let stored = "SELECT count(*) FROM device_credentials WHERE password_hash LIKE '$argon2id$%' AND mosquitto_hash LIKE '$7$101$%'";
    assert_eq!(face.db.count(stored).await, 1);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_devices_of_their_tenants_and_no_others() {
    let mut config = config();
    config.auth.operator_keys.push(key("reader", Role::Read, &["*"]));
    let face = Face::of(config).await;
    let all = [("x-api-key", "all")];
    for (tenant, device) in [("t-001", "d-1"), ("t-001", "d-2"), ("t-002", "d-1")] {
        let (status, body) = face.post(DEVICES, &all, &newcomer(tenant, device)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let names = async |query: &str, headers: &[(&str, &str)]| {
        let (_, body) = face.get(&format!("{DEVICES}{query}"), headers).await;
        let name = |device: &Value| {
            format!("{}/{}", device["tenant_id"].as_str().unwrap(), device["device_id"].as_str().unwrap())
        };
        let names: Vec<String> = body["devices"].as_array().expect("a list").iter().map(name).collect();
        (names.join(" "), body["next"].clone())
    };
    assert_eq!(names("", &all).await, ("t-001/d-1 t-001/d-2 t-002/d-1".to_owned(), Value::Null));
    let (first, next) = names("?limit=2", &all).await;
    let next = format!("?limit=2&after={}", next.as_str().expect("there is more"));
    assert_eq!(first, "t-001/d-1 t-001/d-2");
    assert_eq!(names(&next, &all).await, ("t-002/d-1".to_owned(), Value::Null));
    assert_eq!(names("?limit=2&after=t-001/d-2", &all).await, ("t-002/d-1".to_owned(), Value::Null));
    assert_eq!(names("", &ONE).await.0, "t-001/d-1 t-001/d-2");
    let check =
        async |method: &str, path: &str, headers: &[(&str, &str)], body: Value, expected: (u16, &str)| {
            let (status, answer) = match method {
                "GET" => face.get(path, headers).await,
                _ => face.post(path, headers, &body).await,
            };
            assert_eq!((status.as_u16(), code(&answer)), expected, "{method} {path} {body} {answer}");
        };
    let (reader, other) = ([("x-api-key", "reader")], json!({"tenant_id": "t-002"}));
    check("GET", "/api/v1/devices/d-1?tenant_id=t-002", &ONE, json!({}), (403, "TENANT_MISMATCH")).await;
    check("GET", "/api/v1/devices/nobody", &ONE, json!({}), (404, "NOT_FOUND")).await;
    check("GET", "/api/v1/devices/d-1?tenant_id=t-002", &reader, json!({}), (200, "")).await;
    check("GET", "/api/v1/devices/d-1", &all, json!({}), (400, "MISSING_TENANT")).await;
    check("POST", "/api/v1/devices/d-1/revoke", &ONE, other.clone(), (403, "TENANT_MISMATCH")).await;
    check("POST", "/api/v1/devices/d-1/revoke", &reader, other, (403, "FORBIDDEN")).await;
    check("POST", "/api/v1/devices/nobody/revoke", &ONE, json!({}), (404, "NOT_FOUND")).await;
    check("POST", "/api/v1/devices/nobody/rotate", &ONE, json!({}), (404, "NOT_FOUND")).await;
    check(
        "POST",
        "/api/v1/devices/d-1/rotate",
        &ONE,
        json!({"overlap_seconds": -1}),
        (400, "VALIDATION_ERROR"),
    )
    .await;
    check("POST", DEVICES, &ONE, newcomer("t-001", "a/b"), (400, "VALIDATION_ERROR")).await;
    check("POST", DEVICES, &ONE, newcomer("t-001", "a:b"), (409, "DEVICE_CONFLICT")).await;
    check("POST", DEVICES, &[], newcomer("t-001", "d-9"), (401, "UNAUTHORIZED")).await;
    assert_eq!(face.db.count("SELECT count(*) FROM device_credentials WHERE enabled").await, 3);
    face.end().await;
}
