//! What people say of weighings: it keeps them out of the statistics of their day, and only those.

use std::collections::BTreeMap;
use std::time::Duration;

use actors::chore::Chore;
use axum::http::StatusCode;
use engine::config::{Config, Role};
use serde_json::{Value, json};

use super::ONE;
use crate::http::{Face, code, config, key};

const SESSIONS: &str = "/api/v1/weighvision/sessions";

fn with_roles() -> Config {
    let mut config = config();
    let keys = &mut config.auth.operator_keys;
    keys.extend([key("reader", Role::Read, &["t-001"]), key("writer", Role::Write, &["t-001"])]);
    keys.push(key("two", Role::Admin, &["t-002"]));
    config
}

async fn keep(face: &Face) {
    let mut keeper = face.keeper.clone();
    while keeper.run().await.expect("the database answers") < Duration::from_secs(1) {}
}

/// Five weighings on each of three days of a flock, of 1.00, 1.01 … 1.04 kg; each has two weights, the first a gram less.
async fn flock(face: &Face) -> String {
    let flock = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-01",
        "genetic_line_code": "OWN", "placed_on": "2026-01-05", "birds": 20000});
    let (status, body) = face.post("/api/v1/flocks", &[ONE], &flock).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let id = body["id"].as_str().expect("an id").to_owned();
    face.post(&format!("/api/v1/flocks/{id}/end"), &[ONE], &json!({"ended_on": "2026-02-16"})).await;
    face.db
        .execute(
            "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, status, start_at,
                 end_at, final_weight_kg, created_event_id, finalized_event_id, created_at, updated_at)
             SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 's-' || d || '-' || i, 'st-01', 'finalized',
                 timestamptz '2026-02-01T05:00:00Z' + d * interval '1 day', '2026-02-16T05:00:01Z', 1 + 0.01 * i, 'e', 'f',
                 now(), now() - interval '1 hour'
             FROM generate_series(0, 2) AS d, generate_series(0, 4) AS i;
             INSERT INTO session_weights (id, tenant_id, session_id, weight_kg, occurred_at, event_id, is_bound, created_at)
             SELECT gen_random_uuid(), 't-001', session_id, final_weight_kg - 0.001 * n, start_at - n * interval '1 second',
                 session_id || n, true, now()
             FROM weight_sessions, generate_series(0, 1) AS n;",
        )
        .await;
    keep(face).await;
    id
}

async fn day(face: &Face, id: &str, day: &str) -> (u64, u64, f64) {
    let (status, body) = face.get(&format!("/api/v1/flocks/{id}/days"), &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let days = body["days"].as_array().expect("days");
    let day = days.iter().find(|found| found["day"] == day).expect("the day");
    let count = |name: &str| day[name].as_u64().expect("a count");
    (count("n"), count("n_excluded"), day["mean_kg"].as_f64().expect("a mean"))
}

async fn revisions(face: &Face) -> BTreeMap<String, i32> {
    let rows = face.db.client.query("SELECT day::text, revision FROM flock_days", &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn near(found: (u64, u64, f64), expected: (u64, u64, f64)) {
    let is_near = (found.0, found.1) == (expected.0, expected.1) && (found.2 - expected.2).abs() < 1e-9;
    assert!(is_near, "{found:?} is not {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weighing_that_is_excluded_leaves_the_mean_of_its_day_and_comes_back() {
    let face = Face::of(with_roles()).await;
    let id = flock(&face).await;
    near(day(&face, &id, "2026-02-02").await, (5, 0, 1.02));
    let before = revisions(&face).await;
    let (exclude, include) = (format!("{SESSIONS}/s-1-4/exclude"), format!("{SESSIONS}/s-1-4/include"));
    let (status, mark) = face.post(&exclude, &[ONE], &json!({"reason": "two birds"})).await;
    assert_eq!(status, StatusCode::OK, "{mark}");
    assert_eq!(
        (&mark["kind"], &mark["reason"], &mark["author"], &mark["weightId"]),
        (&json!("excluded"), &json!("two birds"), &json!("operator:#2"), &Value::Null)
    );
    keep(&face).await;
    near(day(&face, &id, "2026-02-02").await, (4, 1, 1.015));
    let changed: Vec<_> =
        revisions(&face).await.into_iter().filter(|(day, revision)| before[day] != *revision).collect();
    assert_eq!(changed.len(), 1, "the day of the weighing, and no other: {changed:?}");
    // Said again, it is what was said before.
    let (_, again) = face.post(&exclude, &[ONE], &json!({"reason": "really"})).await;
    assert_eq!(again["id"], mark["id"], "{again}");
    let (_, listed) = face.get(&format!("{SESSIONS}?flag=excluded"), &[ONE]).await;
    assert_eq!((&listed["count"], &listed["sessions"][0]["sessionId"]), (&json!(1), &json!("s-1-4")));
    // The session itself is what it was.
    let (_, session) = face.get(&format!("{SESSIONS}/s-1-4"), &[ONE]).await;
    assert_eq!((&session["finalWeightKg"], &session["status"]), (&json!(1.04), &json!("finalized")));

    let (status, back) = face.post(&include, &[ONE], &json!({})).await;
    assert_eq!((status, &back["ends"]), (StatusCode::OK, &mark["id"]), "{back}");
    keep(&face).await;
    near(day(&face, &id, "2026-02-02").await, (5, 0, 1.02));
    let (status, body) = face.post(&include, &[ONE], &json!({})).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "BOOK_CONFLICT"));
    let (_, marks) = face.get(&format!("{SESSIONS}/s-1-4/marks"), &[ONE]).await;
    let kinds: Vec<_> = marks["marks"].as_array().expect("marks").iter().map(|mark| &mark["kind"]).collect();
    assert_eq!(kinds, ["included", "excluded"]);
    let (_, first) = face.get(&format!("{SESSIONS}/s-1-4/marks?limit=1"), &[ONE]).await;
    let next = first["next"].as_str().expect("there is more");
    let (_, second) = face.get(&format!("{SESSIONS}/s-1-4/marks?limit=1&after={next}"), &[ONE]).await;
    assert_eq!(second["marks"][0]["id"], mark["id"], "{second}");
    let (_, audit) = face.get("/api/v1/audit?limit=2", &[ONE]).await;
    let deeds = audit["entries"].as_array().expect("entries").iter();
    let deeds: Vec<_> = deeds.map(|deed| (&deed["action"], &deed["target"])).collect();
    assert_eq!(
        deeds,
        [(&json!("session.include"), &json!("s-1-4")), (&json!("session.exclude"), &json!("s-1-4"))]
    );
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_of_its_weights_the_last_of_the_others_counts() {
    let face = Face::of(with_roles()).await;
    let id = flock(&face).await;
    let weights = async |session: &str| {
        let (_, body) = face.get(&format!("{SESSIONS}/{session}"), &[ONE]).await;
        let weights = body["weights"].as_array().expect("weights").clone();
        weights.iter().map(|weight| weight["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let say = async |session: &str, what: &str, body: &Value| {
        let answer = face.post(&format!("{SESSIONS}/{session}/{what}"), &[ONE], body).await;
        keep(&face).await;
        answer
    };
    let own = weights("s-2-0").await;
    let (first, last) = (&own[0], &own[1]);
    let (status, body) = say("s-2-0", "exclude", &json!({"weight_id": last, "reason": "it jumped"})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    near(day(&face, &id, "2026-02-03").await, (5, 0, (5.1 - 0.001) / 5.0));
    say("s-2-0", "exclude", &json!({"weight_id": first, "reason": "so it did before"})).await;
    near(day(&face, &id, "2026-02-03").await, (4, 1, 1.025));
    say("s-2-0", "include", &json!({"weight_id": last})).await;
    near(day(&face, &id, "2026-02-03").await, (5, 0, 1.02));
    // The session as a whole is another thing than its weights.
    let (status, _) = say("s-2-0", "include", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let foreign = weights("s-2-1").await;
    for weight in [foreign[0].as_str(), "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f"] {
        let (status, body) = say("s-2-0", "exclude", &json!({"weight_id": weight, "reason": "x"})).await;
        assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "NOT_FOUND"), "{weight}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_person_has_looked_at_weighings_of_their_own_until_these_change() {
    let face = Face::of(with_roles()).await;
    flock(&face).await;
    let unseen = async |key: &str| {
        let (_, body) = face.get(&format!("{SESSIONS}?reviewed=false"), &[("x-api-key", key)]).await;
        body["count"].as_u64().expect("a count")
    };
    let review = format!("{SESSIONS}/s-0-0/review");
    let (status, body) = face.post(&review, &[("x-api-key", "writer")], &json!({})).await;
    assert_eq!((status, &body["kind"]), (StatusCode::OK, &json!("reviewed")), "{body}");
    assert_eq!((unseen("writer").await, unseen("one").await), (14, 15));
    let (_, seen) = face.get(&format!("{SESSIONS}?reviewed=true"), &[("x-api-key", "writer")]).await;
    assert_eq!((&seen["count"], &seen["sessions"][0]["reviewed"]), (&json!(1), &json!(true)), "{seen}");
    face.db.execute("UPDATE weight_sessions SET updated_at = now() + interval '1 minute'").await;
    assert_eq!(unseen("writer").await, 15);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_writer_of_the_tenant_says_something_of_its_weighings() {
    let face = Face::of(with_roles()).await;
    flock(&face).await;
    let body = json!({"reason": "x"});
    for what in ["exclude", "include", "review"] {
        let path = format!("{SESSIONS}/s-0-0/{what}");
        let (status, answer) = face.post(&path, &[("x-api-key", "reader")], &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "FORBIDDEN"), "{what}");
        let (status, answer) = face.post(&path, &[("x-api-key", "two")], &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, "NOT_FOUND"), "{what}");
        let named = json!({"tenant_id": "t-001", "reason": "x"});
        let (status, answer) = face.post(&path, &[("x-api-key", "two")], &named).await;
        assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"), "{what}");
        let nobody = format!("{SESSIONS}/nobody/{what}");
        let (status, _) = face.post(&nobody, &[("x-api-key", "writer")], &body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
    }
    let (status, answer) = face.post(&format!("{SESSIONS}/s-0-0/exclude"), &[ONE], &json!({})).await;
    assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{answer}");
    assert_eq!(face.db.count("SELECT count(*) FROM session_marks").await, 0);
    let marks = format!("{SESSIONS}/s-0-0/marks");
    assert_eq!(face.get(&marks, &[("x-api-key", "reader")]).await.0, StatusCode::OK);
    assert_eq!(face.get(&marks, &[("x-api-key", "two")]).await.0, StatusCode::NOT_FOUND);
    face.end().await;
}
