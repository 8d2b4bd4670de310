//! Hot swap: a new package takes over when it is good, and changes nothing when it is not.

use std::path::PathBuf;

use tests::engine::get;

use super::*;

async fn model(barn: &Barn) -> serde_json::Value {
    serde_json::from_str(&get(barn.settings.http, "/api/v1/inference/models").await.1).expect("a JSON body")
}

/// Waits until the newest package is complained about so, and looks that the first one is in use.
async fn assert_complains(barn: &Barn, expected: &str) {
    let complains =
        async || model(barn).await["last_error"].as_str().is_some_and(|text| text.contains(expected));
    until(expected, complains).await;
    let shown = model(barn).await;
    assert_eq!((&shown["model_version"], &shown["status"]), (&"v1".into(), &"ready".into()), "{shown}");
}

/// A package beside others, which the link `current` can be switched to.
fn package(place: &Path, version: &str, network: Network) -> PathBuf {
    let package = place.join(version);
    std::fs::create_dir(&package).expect("it is not there yet");
    write_package(&package, version, network);
    package
}

fn switch_to(package: &Path) {
    let next = package.with_file_name("next");
    std::os::unix::fs::symlink(package, &next).expect("it is not there");
    std::fs::rename(next, package.with_file_name("current")).expect("a link can be replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_package_takes_over_and_a_broken_one_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let first = package(place.path(), "v1", Network::Mean);
    switch_to(&first);
    let current = place.path().join("current").display().to_string();
    let barn = Barn::start_with(|settings| settings.set("inference.model_path", &current)).await;
    let before = model(&barn).await;
    assert_eq!((&before["model_version"], &before["status"]), (&"v1".into(), &"ready".into()), "{before}");

    std::fs::write(first.join("model.onnx"), "no network").unwrap();
    assert_complains(&barn, "load the network").await;
    // A good network that weighs the picture of its self-test wrong.
    let wrong = package(place.path(), "wrong", Network::Mean);
    let settings = std::fs::read_to_string(wrong.join("model.toml")).unwrap();
    let settings = settings.replace("_min = 0.45", "_min = 1.95").replace("_max = 0.55", "_max = 2.05");
    std::fs::write(wrong.join("model.toml"), settings).unwrap();
    switch_to(&wrong);
    assert_complains(&barn, "self-test: selftest.png shows 0.502 kg, 1.95 to 2.05 kg is expected").await;
    let root = media_root(&barn.settings);
    put_image_job(&barn.db, &root, &picture(51, ImageFormat::Png), None).await;
    until("the old model works", async || in_status(&barn.db, "completed").await == 1).await;

    switch_to(&package(place.path(), "v2", Network::Fragile));
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
    assert_eq!(shown["is_loaded"], false, "it was tried at the start, and rests");
    let root = media_root(&barn.settings);
    let bird = loadtest::render::render(2.0, 7).jpeg;
    put_image_job(&barn.db, &root, &bird, None).await;
    until("the bird is weighed", async || in_status(&barn.db, "completed").await == 1).await;
    let sql = "SELECT count(*) FROM inference_results WHERE (metadata->>'demo')::boolean AND predicted_weight_kg BETWEEN 1.5 AND 2.5";
    assert_eq!(barn.db.count(sql).await, 1);
    assert_eq!(model(&barn).await["is_loaded"], true);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_rests_weighs_as_before_though_its_file_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let first = package(place.path(), "v1", Network::Mean);
    let path = first.display().to_string();
    let barn = Barn::start_with(|settings| settings.set("inference.model_path", &path)).await;
    assert_eq!(model(&barn).await["is_loaded"], false);
    std::fs::remove_file(first.join("model.onnx")).unwrap();
    assert_complains(&barn, "model.onnx").await;
    put_image_job(&barn.db, &media_root(&barn.settings), &picture(51, ImageFormat::Png), None).await;
    until("the image is weighed", async || in_status(&barn.db, "completed").await == 1).await;
    assert_eq!(barn.db.count("SELECT max(attempt_count)::bigint FROM inference_jobs").await, 1);
    barn.finish_after("new model is broken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_stays_in_memory_where_that_is_wanted() {
    let barn = Barn::start_with(|settings| settings.set("inference.idle_unload_minutes", "0")).await;
    assert_eq!(model(&barn).await["is_loaded"], true);
    barn.finish().await;
}
