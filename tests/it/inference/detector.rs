//! A network that finds birds one by one: from the pixels to the row, the session and the cloud.

use serde_json::{Value, json};
use tests::engine::get;
use tests::onnx::cells;

use super::*;

/// The results of a session as the API shows them, newest first.
async fn results(barn: &Barn, session_id: &str) -> Vec<Value> {
    let path = format!("/api/v1/inference/results?sessionId={session_id}&tenant_id={TENANT}");
    let answer: Value = serde_json::from_str(&get(barn.settings.http, &path).await.1).expect("a JSON body");
    answer["results"].as_array().expect("a list").clone()
}

fn assert_near(shown: &Value, expected: f64) {
    let is_near = shown.as_f64().is_some_and(|shown| (shown - expected).abs() < 1e-5);
    assert!(is_near, "{shown} is not {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn birds_in_boxes_become_one_result_with_each_of_them() {
    let (barn, _package) = barn_with(Network::Grid, |settings| settings).await;
    let root = media_root(&barn.settings);
    open_session(&barn.db, "s-1").await;
    // Two birds far apart, one of them seen a second time next to it, and something too dim to be one.
    let picture = cells(&[(0, 0, 230), (1, 0, 204), (3, 3, 153), (3, 0, 102)]);
    put_image_job(&barn.db, &root, &picture, Some("s-1")).await;
    until("the image is looked at", async || in_status(&barn.db, "completed").await == 1).await;

    let [result] = results(&barn, "s-1").await.try_into().unwrap();
    let (one, other) = (230.0 / 255.0, 153.0 / 255.0);
    assert_near(&result["predicted_weight_kg"], 3.0 * (one + other) / 2.0);
    assert_near(&result["confidence"], (one + other) / 2.0);
    assert_eq!(result["metadata"]["count"], 2, "{result}");
    let found = &result["metadata"]["detections"];
    for (bird, class, brightness, left, top) in
        [(&found[0], "left", one, -4.0, -4.0), (&found[1], "right", other, 8.0, 8.0)]
    {
        assert_eq!(bird["class"], class, "{bird}");
        assert_near(&bird["score"], brightness);
        assert_near(&bird["weight_kg"], 3.0 * brightness);
        assert_near(&bird["left"], left / 16.0);
        assert_near(&bird["top"], top / 16.0);
        assert_near(&bird["width"], 12.0 / 16.0);
    }
    let attached = "SELECT count(*) FROM weight_sessions JOIN inference_results AS r ON inference_result_id = r.id::text";
    assert_eq!(barn.db.count(attached).await, 1);
    barn.delivered(1).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bird_is_a_result_without_a_weight_and_the_configured_thresholds_decide_what_a_bird_is() {
    let change = |settings: Settings| {
        settings.set("inference.confidence_threshold", "0.3").set("inference.nms_threshold", "0.6")
    };
    let (barn, _package) = barn_with(Network::Grid, change).await;
    let root = media_root(&barn.settings);
    let dark = put_image_job(&barn.db, &root, &cells(&[]), Some("dark")).await;
    put_image_job(&barn.db, &root, &cells(&[(0, 0, 230), (1, 0, 204), (3, 0, 102)]), Some("dim")).await;
    until("both are looked at", async || in_status(&barn.db, "completed").await == 2).await;

    let [nothing] = results(&barn, "dark").await.try_into().unwrap();
    assert_eq!((&nothing["predicted_weight_kg"], &nothing["metadata"]["count"]), (&Value::Null, &json!(0)));
    let sql = format!(
        "SELECT count(*) FROM inference_results WHERE id = '{dark}' AND predicted_weight_kg IS NULL AND confidence = 0"
    );
    assert_eq!(barn.db.count(&sql).await, 1);
    let [three] = results(&barn, "dim").await.try_into().unwrap();
    assert_eq!(three["metadata"]["count"], 3, "{three}");
    barn.delivered(2).await;
    barn.finish().await;
}
