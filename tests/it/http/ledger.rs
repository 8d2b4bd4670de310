//! The ledger over HTTP, each caller within its own tenants.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Face, code, config};

const ALL: [(&str, &str); 1] = [("x-api-key", "all")];
const ONE: [(&str, &str); 1] = [("x-api-key", "one")];
const DIGEST: &str = "/api/v1/ledger/digest?from=2026-02-12T09:00:00Z&to=2026-02-12T11:00:00Z";

async fn face() -> Face {
    let face = Face::of(config()).await;
    face.db
        .execute(
            "INSERT INTO ledger (tenant_id, day, shard, received, stored, refused, queued, acked) VALUES
                 ('t-001', '2026-02-12', 0, 7, 5, 2, 4, 4), ('t-001', '2026-02-11', 0, 3, 3, 0, 0, 0),
                 ('t-001', '2026-02-11', 7, 1, 1, 0, 0, 0),
                 ('t-002', '2026-02-12', 0, 9, 8, 0, 0, 0), ('', '2026-02-12', 0, 2, 0, 2, 0, 0);
             INSERT INTO ledger_hours (tenant_id, hour, shard, events, hash) VALUES
                 ('t-001', '2026-02-12T09:00:00Z', 0, 3, 30), ('t-001', '2026-02-12T09:00:00Z', 7, -1, -10),
                 ('t-001', '2026-02-12T10:00:00Z', 0, 1, 5), ('t-001', '2026-02-12T10:00:00Z', 7, -1, -5),
                 ('t-002', '2026-02-12T09:00:00Z', 0, 1, 1152921504606846975)",
        )
        .await;
    face
}

fn days(body: &Value) -> Vec<(&str, &str, i64)> {
    let days = body["days"].as_array().expect("a list").iter();
    days.map(|day| (text(&day["tenant_id"]), text(&day["day"]), day["received"].as_i64().expect("a number")))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_shows_the_tenants_of_the_key_by_day() {
    let face = face().await;
    let uri = "/api/v1/ledger?from=2026-02-11&to=2026-02-12";
    let (status, one) = face.get(uri, &ONE).await;
    assert_eq!(status, StatusCode::OK, "{one}");
    assert_eq!(
        (&one["is_whole"], &one["difference"], &one["total"]["received"]),
        (&json!(true), &json!(0), &json!(11))
    );
    assert_eq!(days(&one), [("t-001", "2026-02-12", 7), ("t-001", "2026-02-11", 4)]);
    let (_, all) = face.get(uri, &ALL).await;
    assert_eq!((&all["is_whole"], &all["difference"]), (&json!(false), &json!(1)), "t-002 misses one");
    assert_eq!(
        days(&all)[..3],
        [("", "2026-02-12", 2), ("t-001", "2026-02-12", 7), ("t-002", "2026-02-12", 9)]
    );
    let (_, narrowed) = face.get("/api/v1/ledger?tenant_id=t-002&from=2026-02-12&to=2026-02-12", &ALL).await;
    assert_eq!(narrowed["days"][0]["difference_in"], 1, "{narrowed}");
    let (status, body) = face.get("/api/v1/ledger?tenant_id=t-002", &ONE).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    let (status, body) = face.get("/api/v1/ledger?from=yesterday", &ONE).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_sums_up_what_the_cloud_has_of_each_hour() {
    let face = face().await;
    let (status, body) = face.get(&format!("{DIGEST}&tenant_id=t-001"), &ONE).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["hours"], json!([{"hour": "2026-02-12T09:00:00.000Z", "events": 2, "hash": "20"}]));
    let (_, body) = face.get(&format!("{DIGEST}&tenant_id=t-002"), &ALL).await;
    assert_eq!(body["hours"][0]["hash"], "1152921504606846975", "a number that no JSON number holds");
    for (query, key, expected) in
        [("&tenant_id=t-002", &ONE, StatusCode::FORBIDDEN), ("", &ALL, StatusCode::BAD_REQUEST)]
    {
        assert_eq!(face.get(&format!("{DIGEST}{query}"), key).await.0, expected, "{query}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_stays_within_the_tenants_of_the_key() {
    let face = face().await;
    let body = json!({"tenant_id": "t-002", "from": "2026-02-12T09:00:00Z", "to": "2026-02-12T10:00:00Z"});
    let (status, answer) = face.post("/api/v1/sync/resend", &ONE, &body).await;
    assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    assert_eq!(face.db.count("SELECT count(*) FROM audit_log").await, 0);
    let (status, answer) = face.post("/api/v1/sync/resend", &ALL, &body).await;
    assert_eq!((status, &answer["gone_count"]), (StatusCode::OK, &json!(1)), "{answer}");
    face.end().await;
}
