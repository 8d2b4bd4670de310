//! Hot swap: a new package takes over when it is good, and changes nothing when it is not.

use tests::engine::get;

use super::*;

async fn model(barn: &Barn) -> serde_json::Value {
    serde_json::from_str(&get(barn.settings.http, "/api/v1/inference/models").await.1).expect("a JSON body")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_package_takes_over_and_a_broken_one_changes_nothing() {
    let (barn, package) = barn_with(Network::Mean, |settings| settings).await;
    let before = model(&barn).await;
    assert_eq!((&before["model_version"], &before["status"]), (&"v1".into(), &"ready".into()), "{before}");

    std::fs::write(package.path().join("model.onnx"), "no network").unwrap();
    until("the broken package is noticed", async || model(&barn).await["last_error"].is_string()).await;
    let broken = model(&barn).await;
    assert_eq!(broken["model_version"], "v1");
    assert!(broken["last_error"].as_str().unwrap().contains("load the network"), "{broken}");
    let root = media_root(&barn.settings);
    put_image_job(&barn.db, &root, &picture(51, ImageFormat::Png), None).await;
    until("the old model works", async || in_status(&barn.db, "completed").await == 1).await;

    write_package(package.path(), "v2", Network::Fragile);
    until("the new model is in use", async || model(&barn).await["model_version"] == "v2").await;
    let after = model(&barn).await;
    assert!(after.get("last_error").is_none(), "{after}");
    assert_ne!(after["model_sha256"], before["model_sha256"]);
    put_image_job(&barn.db, &root, &picture(51, ImageFormat::Png), None).await;
    until("it looks at images", async || in_status(&barn.db, "completed").await == 2).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM inference_results WHERE model_version = 'v2'").await, 1);
    barn.finish_after("new model is broken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_package_the_bundled_demonstration_is_used_and_says_so() {
    let barn = Barn::start().await;
    let shown = model(&barn).await;
    assert_eq!((&shown["status"], &shown["model_path"]), (&"demo".into(), &"bundled".into()), "{shown}");
    let root = media_root(&barn.settings);
    let bird = loadtest::render::render(2.0, 7).jpeg;
    put_image_job(&barn.db, &root, &bird, None).await;
    until("the bird is weighed", async || in_status(&barn.db, "completed").await == 1).await;
    let sql = "SELECT count(*) FROM inference_results WHERE (metadata->>'demo')::boolean AND predicted_weight_kg BETWEEN 1.5 AND 2.5";
    assert_eq!(barn.db.count(sql).await, 1);
    barn.finish().await;
}
