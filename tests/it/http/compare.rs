//! Cameras beside scales, and standards of a site's own, over HTTP.

use axum::http::StatusCode;
use engine::config::Role;
use serde_json::{Value, json};

use super::flock::{ONE, PLACED_ON, flock, keep, weigh};
use super::{Face, code, config, key};

/// What a model read of each session of a name: so many times what the scale said.
async fn look(face: &Face, name: &str, (camera, model, times): (&str, &str, &str), metadata: &str) {
    face.db
        .execute(&format!(
            "INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, predicted_weight_kg, confidence,
                 model_version, occurred_at, created_at, metadata, event_id)
             SELECT gen_random_uuid(), tenant_id, farm_id, barn_id, '{camera}', session_id, final_weight_kg * {times}, 0.9, '{model}',
                 now(), now(), {metadata}, gen_random_uuid()
             FROM weight_sessions WHERE session_id LIKE '{name}-%'"
        ))
        .await;
}

async fn lines(face: &Face, id: &str) -> Vec<Value> {
    let (status, body) = face.get(&format!("/api/v1/flocks/{id}/comparison"), &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["lines"].as_array().expect("lines").clone()
}

fn names(lines: &[Value]) -> Vec<String> {
    let name = |line: &Value| {
        let word = |key: &str| line[key].as_str().unwrap_or("all").to_owned();
        format!("{} {} {} {}", word("day"), word("device_id"), word("model_version"), line["n"])
    };
    lines.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_compared_with_the_scale_and_is_never_in_its_mean() {
    let mut config = config();
    config.auth.operator_keys.push(key("two", Role::Admin, &["t-002"]));
    let face = Face::of(config).await;
    let id = flock(&face, ONE, "t-001").await;
    weigh(&face, "a", "2026-02-01", 1.5).await;
    weigh(&face, "b", "2026-02-02", 1.6).await;
    keep(&face).await;
    assert_eq!(lines(&face, &id).await, Vec::<Value>::new());
    // Two pictures of each weighing: one a tenth more than the scale, one as it is.
    look(&face, "a", ("cam-1", "v1", "1.1"), "NULL").await;
    look(&face, "a", ("cam-1", "v1", "1.0"), "'{\"count\": 1}'").await;
    look(&face, "b", ("cam-2", "v1", "0.95"), "NULL").await;
    look(&face, "b", ("cam-2", "v2", "1.02"), "NULL").await;
    // A demonstration, several birds in a picture, no bird, and a session that another barn named.
    look(&face, "b", ("cam-2", "demo", "9"), "'{\"demo\": true}'").await;
    look(&face, "b", ("cam-2", "v1", "9"), "'{\"count\": 3}'").await;
    look(&face, "b", ("cam-2", "v1", "NULL"), "'{\"count\": 0}'").await;
    look(&face, "b", ("cam-3", "v1", "9"), "NULL").await;
    face.db.execute("UPDATE inference_results SET barn_id = 'b-002' WHERE device_id = 'cam-3'").await;
    keep(&face).await;
    let found = lines(&face, &id).await;
    assert_eq!(
        names(&found),
        [
            "all all v1 82",
            "all all v2 41",
            "all cam-1 v1 41",
            "all cam-2 v1 41",
            "all cam-2 v2 41",
            "2026-02-01 cam-1 v1 41",
            "2026-02-02 cam-2 v1 41",
            "2026-02-02 cam-2 v2 41",
        ]
    );
    let bias = |at: usize, unit: &str| found[at][unit]["bias"].as_f64().expect("a bias");
    assert!(
        (bias(2, "kg") - 0.05 * 1.5).abs() < 1e-9 && (bias(3, "kg") + 0.05 * 1.6).abs() < 1e-9,
        "{found:?}"
    );
    // 1.05 is 4.878 % more than 1 where their mean is 100 %.
    assert!((bias(2, "percent") - 100.0 * 0.05 / 1.025).abs() < 1e-9, "{found:?}");
    assert!(found[0]["kg"]["lower"].as_f64() < Some(-0.08) && found[0]["kg"]["upper"].as_f64() > Some(0.07));
    let (_, days) = face.get(&format!("/api/v1/flocks/{id}/days"), &[ONE]).await;
    let days = days["days"].as_array().expect("days").clone();
    let mean = |day: &str| days.iter().find(|it| it["day"] == day).and_then(|it| it["mean_kg"].as_f64());
    assert!((mean("2026-02-02").expect("a mean") - 1.6).abs() < 1e-9, "{days:?}");
    // What a person excludes is compared with nothing.
    let (status, body) = face
        .post("/api/v1/weighvision/sessions/a-0/exclude", &[ONE], &json!({"reason": "a wing on the plate"}))
        .await;
    assert!(status.is_success(), "{body}");
    keep(&face).await;
    assert_eq!(names(&lines(&face, &id).await)[2], "all cam-1 v1 40");
    let path = format!("/api/v1/flocks/{id}/comparison");
    assert_eq!(face.get(&path, &[("x-api-key", "two")]).await.0, StatusCode::NOT_FOUND);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_is_made_of_own_finished_flocks_and_says_of_how_many() {
    let mut config = config();
    config.auth.operator_keys.push(key("two", Role::Admin, &["t-002"]));
    let face = Face::of(config).await;
    let first = flock(&face, ONE, "t-001").await;
    let wish = json!({"name": "own", "genetic_line_code": "ROSS308", "dry_run": true});
    let derive = async |wish: &Value| face.post("/api/v1/standards/derive", &[ONE], wish).await;
    let (status, none) = derive(&wish).await;
    assert_eq!((status, code(&none)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{none}");
    for (name, day, mean_kg) in [("a", "2026-01-25", 0.9), ("b", "2026-01-26", 1.0), ("c", "2026-01-27", 1.1)]
    {
        weigh(&face, name, day, mean_kg).await;
    }
    face.post(&format!("/api/v1/flocks/{first}/end"), &[ONE], &json!({"ended_on": "2026-02-01"})).await;
    let next = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-02",
        "genetic_line_code": "ROSS308", "placed_on": "2026-02-05", "birds": 20000});
    let (_, next) = face.post("/api/v1/flocks", &[ONE], &next).await;
    for (name, day, mean_kg) in [("d", "2026-02-25", 1.0), ("e", "2026-02-27", 1.2)] {
        weigh(&face, name, day, mean_kg).await;
    }
    keep(&face).await;
    let (status, present) = derive(&wish).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "the second flock has not ended: {present}");
    let path = format!("/api/v1/flocks/{}/end", next["id"].as_str().expect("an id"));
    face.post(&path, &[ONE], &json!({"ended_on": "2026-03-01"})).await;
    let (status, told) = derive(&wish).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let days = told["days"].as_array().expect("days");
    let day = |at: usize| {
        let grams = days[at]["body_weight_g"].as_f64().expect("a weight").round();
        (days[at]["age_day"].as_i64(), grams, days[at]["flocks"].as_i64())
    };
    assert_eq!(days.len(), 3, "{told}");
    assert_eq!(
        [day(0), day(1), day(2)],
        [(Some(20), 950.0, Some(2)), (Some(21), 1050.0, Some(0)), (Some(22), 1150.0, Some(2))]
    );
    assert_eq!(
        told["source"],
        json!(format!("own: mean of 2 finished flocks, placed from {PLACED_ON} to 2026-02-05"))
    );
    assert_eq!(face.db.count("SELECT count(*) FROM standard_sets").await, 0);
    let (status, made) =
        derive(&json!({"name": "own", "genetic_line_code": "ROSS308", "flocks_min": 1})).await;
    assert_eq!((status, made["days"].as_array().map(Vec::len)), (StatusCode::CREATED, Some(3)), "{made}");
    let path = format!("/api/v1/standards/{}", made["id"].as_str().expect("an id"));
    let (_, shown) = face.get(&path, &[ONE]).await;
    let flocks: Vec<_> =
        shown["days"].as_array().expect("days").iter().map(|day| day["flocks"].as_i64()).collect();
    assert_eq!((flocks, &shown["kind"]), (vec![Some(2), Some(1), Some(2)], &json!("TARGET")));
    let (status, foreign) = face
        .post(
            "/api/v1/standards/derive",
            &[("x-api-key", "two")],
            &json!({"name": "own", "genetic_line_code": "ROSS308", "flocks_min": 1}),
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "another tenant's flocks are nobody's: {foreign}");
    assert_eq!(face.db.count("SELECT count(*) FROM audit_log WHERE action = 'standard.derive'").await, 1);
    face.end().await;
}
