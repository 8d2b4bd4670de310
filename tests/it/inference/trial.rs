//! A model that is tried on stored pictures before it is used, with the real program: through a kill, and there and back.

use std::path::PathBuf;

use serde_json::Value;
use tests::barn::admit;
use tests::engine::{Engine, binary, get};
use tokio::process::Command;

use super::*;

/// Pictures that both models can read.
const PICTURES: i64 = 30;

/// What `model candidate` says.
async fn candidate(settings: &Settings, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(binary())
        .args(["model", "candidate"])
        .args(arguments)
        .env_clear()
        .envs(settings.variables())
        .output()
        .await
        .expect("the program can be run");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).expect("text"))
}

async fn trial(settings: &Settings) -> Value {
    let (_, said) = candidate(settings, &["state", "--json"]).await;
    serde_json::from_str(&said).expect("JSON")
}

async fn version(engine: &Engine) -> Value {
    let (_, body) = get(engine.settings.http, "/api/v1/inference/models").await;
    serde_json::from_str::<Value>(&body).expect("a JSON body")["model_version"].clone()
}

/// A package that says the mean brightness, times two.
fn twice(place: &Path) -> PathBuf {
    let package = place.join("v2");
    std::fs::create_dir(&package).expect("it is not there yet");
    write_package(&package, "v2", Network::Mean);
    let settings = std::fs::read_to_string(package.join("model.toml")).expect("it was just written");
    let settings = settings
        .replace("height = 16\n", "height = 16\nscale = 127.5\n")
        .replace("_min = 0.45", "_min = 0.95")
        .replace("_max = 0.55", "_max = 1.05");
    std::fs::write(package.join("model.toml"), settings).expect("it can be written");
    package
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_reads_stored_pictures_survives_a_kill_and_is_switched_to_and_back() {
    let place = tempfile::tempdir().expect("a folder");
    let first = place.path().join("v1");
    std::fs::create_dir(&first).expect("it is not there yet");
    write_package(&first, "v1", Network::Mean);
    let current = place.path().join("current");
    std::os::unix::fs::symlink("v1", &current).expect("it is not there yet");
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = Settings::of(&db.url).set("inference.model_path", &current.display().to_string());
    let mut engine = Engine::start(settings.clone()).await;
    let root = media_root(&settings);
    for number in 0..PICTURES {
        let brightness = u8::try_from(50 + number).expect("a level");
        let session_id = format!("s-{number}");
        put_image_job(&db, &root, &picture(brightness, ImageFormat::Png), Some(&session_id)).await;
    }
    until("every picture is read", async || in_status(&db, "completed").await == PICTURES).await;
    // What the scale said of them: a tenth more than the model in use.
    db.execute(
        "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, status, start_at, end_at,
             final_weight_kg, created_event_id, finalized_event_id, created_at, updated_at)
         SELECT gen_random_uuid(), tenant_id, farm_id, barn_id, device_id, session_id, 'st-01', 'finalized', now(), now(),
             predicted_weight_kg * 1.1, 'e', 'f', now(), now() FROM inference_results",
    )
    .await;
    // One is broken, and one the model in use never saw.
    put_image(&db, &root, b"no picture", None).await;
    put_image(&db, &root, &picture(51, ImageFormat::Png), None).await;
    let results = "SELECT count(*) FROM inference_results";
    let before = db.count(results).await;

    let (is_ok, said) = candidate(&settings, &["report"]).await;
    assert!(!is_ok && said.contains("no model is tried"), "{said}");
    let (is_ok, said) = candidate(&settings, &["set", &first.join("nothing").display().to_string()]).await;
    assert!(!is_ok && said.contains("nothing"), "{said}");
    // While a job waits, nothing is read.
    db.execute(
        "INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status,
             next_attempt_at, created_at, updated_at)
         VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', gen_random_uuid(), 'none', 'v1', 'pending',
             now() + interval '50 s', now(), now())",
    )
    .await;
    let second = twice(place.path());
    let path = second.display().to_string();
    let (is_ok, said) = candidate(&settings, &["set", &path, "--pictures", "1000"]).await;
    assert!(is_ok && said.contains("v2"), "{said}");
    let (is_ok, said) = candidate(&settings, &["switch"]).await;
    assert!(!is_ok && said.contains("wait until it is done"), "{said}");
    assert_eq!(trial(&settings).await["pictures"], 0);
    db.execute("DELETE FROM inference_jobs WHERE object_key = 'none'").await;

    let seen = async || db.count("SELECT count(*) FROM model_trial_pictures").await;
    until("some are read", async || seen().await >= 5).await;
    engine.kill().await;
    let at_kill = seen().await;
    assert!(at_kill < PICTURES, "it was killed amid them");
    engine.start_again().await;
    until("the trial is done", async || trial(&settings).await["state"] == "done").await;
    assert_eq!(seen().await, PICTURES + 2, "each once");
    assert_eq!(db.count(results).await, before, "none of it is a result");

    let (_, said) = candidate(&settings, &["report", "--json", "--worst", "3"]).await;
    let found: Value = serde_json::from_str::<Value>(&said).expect("JSON")["report"].clone();
    assert_eq!(
        (&found["pictures"], &found["failed"], &found["unread"]),
        (&(PICTURES + 2).into(), &1.into(), &2.into()),
        "{found}"
    );
    let of = |name: &str, key: &str| found[name]["kg"][key].as_f64().expect("a number");
    assert_eq!(found["candidate_to_scale"]["n"], PICTURES);
    // Twice is once more; a tenth less than the scale is nine tenths more.
    let mean = of("candidate_to_present", "bias");
    assert!((0.24..0.27).contains(&mean), "{found}");
    assert!((of("present_to_scale", "bias") + 0.1 * mean).abs() < 0.002, "{found}");
    assert!((of("candidate_to_scale", "bias") - 0.9 * mean).abs() < 0.002, "{found}");
    assert!(of("candidate_to_present", "lower") < mean && of("candidate_to_present", "upper") > mean);
    let worst = found["worst"].as_array().expect("pictures");
    assert_eq!(worst.len(), 3);
    assert!(
        worst[0]["candidate_kg"].as_f64() > worst[2]["candidate_kg"].as_f64(),
        "the worst first: {found}"
    );
    let (is_ok, said) = candidate(&settings, &["report"]).await;
    assert!(
        is_ok && said.contains("candidate − scale") && said.contains("the models differ most in"),
        "{said}"
    );

    let (is_ok, said) = candidate(&settings, &["back"]).await;
    assert!(!is_ok && said.contains("was a candidate ever switched to?"), "{said}");
    let (is_ok, said) = candidate(&settings, &["switch"]).await;
    assert!(is_ok, "{said}");
    until("the candidate is in use", async || version(&engine).await == "v2").await;
    let (is_ok, said) = candidate(&settings, &["switch"]).await;
    assert!(!is_ok && said.contains("in use already"), "{said}");
    let (is_ok, said) = candidate(&settings, &["back"]).await;
    assert!(is_ok, "{said}");
    until("the one of before is in use", async || version(&engine).await == "v1").await;
    assert_eq!(std::fs::read_link(&current).expect("a link"), Path::new("v1"));
    assert_eq!(db.count("SELECT count(*) FROM audit_log WHERE action = 'model.switch'").await, 2);

    // Other files than those that were tried are not switched to, and a trial of them breaks.
    let (is_ok, said) = candidate(&settings, &["set", &path]).await;
    assert!(is_ok, "{said}");
    let toml = std::fs::read_to_string(second.join("model.toml")).expect("it is there");
    std::fs::write(second.join("model.toml"), toml.replace("0.9\n", "0.8\n")).expect("it can be written");
    let (is_ok, said) = candidate(&settings, &["switch", "--now"]).await;
    assert!(!is_ok, "{said}");
    assert_eq!(engine.terminate().await.code, Some(0));
}
