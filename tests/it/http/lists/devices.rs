//! Devices with what is wrong with them, stations, and what was refused.

use axum::http::StatusCode;
use engine::config::Role;
use serde_json::{Value, json};

use super::ONE;
use crate::http::{Face, code, config, key};

const ALL: (&str, &str) = ("x-api-key", "all");

/// Seven readings of a device at once, every minute for ten minutes up to so many seconds ago, and a status.
async fn lives(face: &Face, device: &str, seconds_ago: i64) {
    face.db.allow_device("t-001", device, "f-001", "b-001").await;
    face.db
        .execute(&format!(
            "INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value,
                 occurred_at, ingested_at)
             SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', '{device}', '{device}-' || i || '-' || m, 'm-' || m, 1, at, at
             FROM generate_series(0, 9) AS i, generate_series(1, 7) AS m,
                 LATERAL (SELECT now() - interval '1 second' * {seconds_ago} - i * interval '1 minute' AS at) AS t;
             INSERT INTO device_last_seen (tenant_id, device_id, last_seen_at, last_topic, state, state_changed_at,
                 firmware_version, health_json, updated_at)
             VALUES ('t-001', '{device}', now() - interval '1 second' * {seconds_ago}, 'x', 'online', now(), '1.2.3',
                 '{{\"scale_ok\": true}}', now())"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_shown_with_what_is_wrong_with_it() {
    let face = Face::of(config()).await;
    lives(&face, "d-fine", 5).await;
    lives(&face, "d-silent", 900).await;
    lives(&face, "d-refused", 5).await;
    face.db.allow_device("t-001", "d-new", "f-001", "b-001").await;
    face.db
        .execute(
            "INSERT INTO ingress_rejects (id, reason, topic, tenant_id, device_id, size_bytes, sha256, rejected_at)
             SELECT gen_random_uuid(), CASE WHEN i = 0 THEN 'TS_INVALID' ELSE 'FIELD_MISSING' END, 'x', 't-001', 'd-refused', 1, '',
                 now() - i * interval '1 minute' FROM generate_series(0, 2) AS i;
             INSERT INTO ingress_rejects (id, reason, topic, tenant_id, device_id, size_bytes, sha256, rejected_at)
             VALUES (gen_random_uuid(), 'TS_INVALID', 'x', 't-001', 'd-fine', 1, '', now() - interval '25 hours'),
                 (gen_random_uuid(), 'TS_INVALID', 'x', 't-002', 'd-fine', 1, '', now())",
        )
        .await;
    let (status, body) = face.get("/api/v1/devices", &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let device = |name: &str| {
        let devices = body["devices"].as_array().expect("a list");
        devices.iter().find(|device| device["device_id"] == name).expect("the device").clone()
    };
    let fine = device("d-fine");
    assert_eq!(
        (&fine["state"], &fine["firmware_version"], &fine["health"], &fine["usual_interval_seconds"]),
        (&json!("online"), &json!("1.2.3"), &json!({"scale_ok": true}), &json!(60)),
        "{fine}"
    );
    assert_eq!(
        (&fine["trouble"], &fine["silent_seconds"], &fine["refusals_last_day"]),
        (&Value::Null, &Value::Null, &json!(0)),
        "{fine}"
    );
    let silent = device("d-silent");
    assert_eq!(silent["trouble"]["word"], "silent", "{silent}");
    assert!(silent["silent_seconds"].as_i64().is_some_and(|seconds| seconds >= 900), "{silent}");
    let refused = device("d-refused");
    let told = "3 messages refused within a day, the last because: ts is not a time";
    assert_eq!(refused["trouble"], json!({"word": "refused", "text": told}), "{refused}");
    assert_eq!(device("d-new")["trouble"]["word"], "never_seen");
    let (_, shown) = face.get("/api/v1/devices/d-refused", &[ONE]).await;
    assert_eq!(shown["trouble"], refused["trouble"]);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_listed_by_device_reason_and_time_to_those_whose_they_are() {
    let face = Face::of(config()).await;
    face.db
        .execute(
            "INSERT INTO ingress_rejects (id, reason, topic, detail, tenant_id, device_id, size_bytes, sha256, rejected_at)
             SELECT gen_random_uuid(), reason, 'topic', 'ts', tenant, device, n, '', timestamptz '2026-02-12T09:00Z' + n * interval '1 min'
             FROM (VALUES (1, 'TS_INVALID', 't-001', 'd-1'), (2, 'FIELD_MISSING', 't-001', 'd-1'), (3, 'TS_INVALID', 't-001', 'd-2'),
                 (4, 'TS_INVALID', 't-002', 'd-1'), (5, 'TOPIC_INVALID', NULL, NULL)) AS v (n, reason, tenant, device)",
        )
        .await;
    let path = "/api/v1/ingress/rejects";
    let check = async |key: (&str, &str), query: &str, expected: &[i64]| {
        let (status, body) = face.get(&format!("{path}{query}"), &[key]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let rows = body["rejects"].as_array().expect("a list").iter();
        let found: Vec<_> = rows.map(|row| row["size_bytes"].as_i64().expect("a number")).collect();
        assert_eq!(found, expected, "{query}");
        body
    };
    let body = check(ONE, "", &[3, 2, 1]).await;
    assert_eq!(
        (&body["rejects"][0]["text"], &body["rejects"][0]["field"]),
        (&json!("ts is not a time"), &json!("ts"))
    );
    check(ALL, "", &[5, 4, 3, 2, 1]).await;
    check(ALL, "?tenant_id=t-002", &[4]).await;
    check(ONE, "?device_id=d-1", &[2, 1]).await;
    check(ONE, "?reason=TS_INVALID&device_id=d-1", &[1]).await;
    check(ONE, "?from=2026-02-12T09:02:00Z&to=2026-02-12T09:03:00Z", &[2]).await;
    let first = check(ONE, "?limit=2", &[3, 2]).await;
    let next = first["next"].as_str().expect("there is more");
    check(ONE, &format!("?limit=2&after={next}"), &[1]).await;
    for (query, expected) in [("?reason=x", "VALIDATION_ERROR"), ("?tenant_id=t-002", "TENANT_MISMATCH")] {
        let (_, body) = face.get(&format!("{path}{query}"), &[ONE]).await;
        assert_eq!(code(&body), expected, "{query}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_let_in_moved_and_silenced_by_an_admin_of_its_tenant() {
    let mut config = config();
    config.auth.operator_keys.push(key("reader", Role::Read, &["t-001"]));
    config.auth.operator_keys.push(key("writer", Role::Write, &["t-001"]));
    let face = Face::of(config).await;
    let path = "/api/v1/stations";
    let station = |barn: &str| json!({"farm_id": "f-001", "barn_id": barn, "station_id": "st-01"});
    for key in ["reader", "writer"] {
        let (status, _) = face.post(path, &[("x-api-key", key)], &station("b-001")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{key}");
    }
    let (status, body) = face.post(path, &[ONE], &station("b-001")).await;
    assert_eq!(
        (status, &body["enabled"], &body["barn_id"]),
        (StatusCode::CREATED, &json!(true), &json!("b-001"))
    );
    let (_, body) = face.post(path, &[ONE], &station("b-002")).await;
    assert_eq!(body["barn_id"], "b-002", "{body}");
    let foreign = json!({"tenant_id": "t-002", "farm_id": "f", "barn_id": "b", "station_id": "st-02"});
    let (status, body) = face.post(path, &[ONE], &foreign).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    face.post(path, &[ALL], &foreign).await;
    let listed = async |key: &str, query: &str| {
        let (_, body) = face.get(&format!("{path}{query}"), &[("x-api-key", key)]).await;
        let stations = body["stations"].as_array().expect("a list").iter();
        let names: Vec<_> =
            stations.map(|station| station["station_id"].as_str().unwrap_or_default().to_owned()).collect();
        (names, body["next"].clone())
    };
    assert_eq!(listed("reader", "").await, (vec!["st-01".to_owned()], Value::Null));
    let (names, next) = listed("all", "?limit=1").await;
    assert_eq!(names, ["st-01"]);
    let next = format!("?limit=1&after={}", next.as_str().expect("there is more"));
    assert_eq!(listed("all", &next).await.0, ["st-02"]);

    let revoke = format!("{path}/st-01/revoke");
    assert_eq!(face.post(&revoke, &[("x-api-key", "writer")], &json!({})).await.0, StatusCode::FORBIDDEN);
    let (status, body) = face.post(&revoke, &[ONE], &json!({})).await;
    assert_eq!((status, &body["enabled"]), (StatusCode::OK, &json!(false)), "{body}");
    let (status, _) = face.post(&format!("{path}/st-02/revoke"), &[ONE], &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "it is another tenant's");
    let (_, audit) = face.get("/api/v1/audit?limit=3", &[ONE]).await;
    let deeds: Vec<_> =
        audit["entries"].as_array().expect("a list").iter().map(|row| &row["action"]).collect();
    assert_eq!(deeds, ["station.revoke", "station.add", "station.add"]);
    face.end().await;
}
