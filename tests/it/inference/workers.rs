//! The whole way of an image: the job, the model, the result, the session, the cloud.

use serde_json::json;
use tests::engine::{Engine, get};

use super::*;

/// The weight that a result has, in thousandths of a kilogram.
async fn grams(db: &Database, job_id: Uuid) -> i64 {
    let sql = "SELECT COALESCE(sum(round(predicted_weight_kg * 1000)), -1)::bigint FROM inference_results WHERE id = ";
    db.count(&format!("{sql}'{job_id}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_weight_in_its_session_and_at_the_cloud() {
    let (barn, _package) = barn_with(Network::Mean, |settings| settings).await;
    let root = media_root(&barn.settings);
    open_session(&barn.db, "s-1").await;
    let mut jobs = Vec::new();
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        jobs.push(put_image_job(&barn.db, &root, &picture(51, format), Some("s-1")).await);
    }
    until("every image is looked at", async || in_status(&barn.db, "completed").await == 3).await;
    for job in &jobs {
        let grams = grams(&barn.db, *job).await;
        assert!((198..=202).contains(&grams), "{grams}");
    }
    let attached = "SELECT count(*) FROM weight_sessions JOIN inference_results AS r ON inference_result_id = r.id::text";
    assert_eq!(barn.db.count(attached).await, 1);
    barn.delivered(3).await;
    let results = get(barn.settings.http, "/api/v1/inference/results?sessionId=s-1&tenant_id=t-001").await;
    let results: serde_json::Value = serde_json::from_str(&results.1).unwrap();
    assert_eq!(results["count"], 3, "{results}");
    assert_eq!(results["results"][0]["model_version"], "v1");
    let stats = get(barn.settings.http, "/api/v1/inference/stats?tenant_id=t-001").await.1;
    assert!(stats.contains("\"total_results\":3"), "{stats}");
    let nobody = get(barn.settings.http, "/api/v1/inference/stats").await.1;
    let nobody: serde_json::Value = serde_json::from_str(&nobody).unwrap();
    assert_eq!(nobody, json!({"total_results": 0, "last_result_at": null, "tenant_id": null}));
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_asked_for_once_per_image_and_only_for_ones_own() {
    let (barn, _package) =
        barn_with(Network::Mean, |settings| settings.set("inference.enabled", "false")).await;
    let root = media_root(&barn.settings);
    let media_id = put_image(&barn.db, &root, &picture(51, ImageFormat::Png), None).await;
    let post = async |body: serde_json::Value| {
        let request = hyper::Request::post("/api/v1/inference/jobs").header("host", "edge");
        let request = request.header("content-type", "application/json");
        let request = request.body(http_body_util::Full::from(body.to_string())).unwrap();
        let base = format!("http://{}", barn.settings.http);
        let (status, body) = loadtest::http::call(&base, request).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
    };
    let (status, first) = post(json!({"tenant_id": "t-001", "media_id": media_id})).await;
    assert_eq!((status, &first["status"]), (200, &json!("pending")), "{first}");
    let by_key = json!({"tenantId": "t-001", "objectKey": format!("key/{media_id}"), "job_type": "weight"});
    let (_, again) = post(by_key).await;
    assert_eq!(first["job_id"], again["job_id"]);
    let expected = id::inference_job_id("t-001", &media_id.to_string(), "v1").to_string();
    assert_eq!(first["job_id"], expected);
    let check = async |body: serde_json::Value, status: u16, code: &str| {
        let (got, answer) = post(body).await;
        assert_eq!((got, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
    };
    check(json!({"tenant_id": "t-001"}), 400, "VALIDATION_ERROR").await;
    check(json!({"media_id": media_id}), 400, "MISSING_TENANT").await;
    check(json!({"tenant_id": "t-002", "media_id": media_id}), 404, "NOT_FOUND").await;
    check(json!({"tenant_id": "t-002", "object_key": format!("key/{media_id}")}), 404, "NOT_FOUND").await;
    check(json!({"tenant_id": "t-001", "media_id": id::new_id()}), 404, "NOT_FOUND").await;
    let other = json!({"tenant_id": "t-001", "media_id": media_id, "device_id": "unknown"});
    check(other, 403, "SCOPE_MISMATCH").await;
    let shown = get(barn.settings.http, &format!("/api/v1/inference/jobs/{expected}?tenant_id=t-001")).await;
    assert!(shown.0 == 200 && shown.1.contains("\"device_id\":\"wv-001\""), "{shown:?}");
    for path in [format!("{expected}?tenant_id=t-002"), "no-id?tenant_id=t-001".to_owned()] {
        assert_eq!(get(barn.settings.http, &format!("/api/v1/inference/jobs/{path}")).await.0, 404, "{path}");
    }
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_looked_at_ends_as_a_dead_letter_that_says_why() {
    let (barn, _package) =
        barn_with(Network::Mean, |settings| settings.set("inference.attempts_max", "1")).await;
    let root = media_root(&barn.settings);
    let jpeg = picture(51, ImageFormat::Jpeg);
    let broken = [
        (
            put_image_job(&barn.db, &root, &jpeg[..jpeg.len() / 2], None).await,
            "IMAGE_UNDECODABLE: decode the image: ",
        ),
        (
            put_image_job(&barn.db, &root, b"<svg/>", None).await,
            "IMAGE_FORMAT_UNKNOWN: the file is no JPEG, PNG or WebP",
        ),
        (
            put_image_job(&barn.db, &root, &bomb(), None).await,
            "IMAGE_TOO_LARGE: the image has 60000 x 60000 pixels",
        ),
        (put_job_of(&barn.db, id::new_id(), None).await, "OBJECT_NOT_FOUND: the image is not in the store"),
    ];
    put_image_job(&barn.db, &root, &jpeg, None).await;
    until("every job is settled", async || {
        in_status(&barn.db, "failed").await == 4 && in_status(&barn.db, "completed").await == 1
    })
    .await;
    for reason in ["IMAGE_UNDECODABLE", "IMAGE_FORMAT_UNKNOWN", "IMAGE_TOO_LARGE", "OBJECT_NOT_FOUND"] {
        let sql =
            format!("SELECT count(*) FROM dead_letters WHERE source = 'inference' AND reason = '{reason}'");
        assert_eq!(barn.db.count(&sql).await, 1, "{reason}");
    }
    for (job_id, error) in broken {
        let path = format!("/api/v1/inference/jobs/{job_id}?tenant_id=t-001");
        let job: serde_json::Value = serde_json::from_str(&get(barn.settings.http, &path).await.1).unwrap();
        let told = job["error"].as_str().unwrap();
        assert!(job["status"] == "failed" && told.starts_with(error), "{job}, not {error}");
    }
    assert_eq!(barn.db.count("SELECT count(*) FROM inference_results").await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_will_not_change_is_tried_once_and_a_missing_one_again() {
    let (barn, _package) = barn_with(Network::Mean, |settings| settings).await;
    let root = media_root(&barn.settings);
    let jpeg = picture(51, ImageFormat::Jpeg);
    let end_mark = [0xff, 0xd9];
    let half = &jpeg[..jpeg.len() * 4 / 5];
    for bytes in [half, &[half, &end_mark].concat(), b"GIF89a\x01\0\x01\0", b"", &bomb()] {
        put_image_job(&barn.db, &root, bytes, None).await;
    }
    let missing = put_job_of(&barn.db, id::new_id(), None).await;
    put_image_job(&barn.db, &root, &jpeg[..jpeg.len() - end_mark.len()], None).await;
    until("every image is settled and the missing one was looked for", async || {
        let looked_for =
            format!("SELECT count(*) FROM inference_jobs WHERE id = '{missing}' AND last_error IS NOT NULL");
        in_status(&barn.db, "failed").await == 5
            && in_status(&barn.db, "completed").await == 1
            && barn.db.count(&looked_for).await == 1
    })
    .await;
    let tried_once = "SELECT count(*) FROM inference_jobs WHERE status = 'failed' AND attempt_count = 1";
    assert_eq!(barn.db.count(tried_once).await, 5);
    assert_eq!(barn.db.count("SELECT count(*) FROM dead_letters WHERE source = 'inference'").await, 5);
    barn.finish().await;
}

/// A small file that says it is 60,000 x 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut png = picture(0, ImageFormat::Png);
    png[16..24].copy_from_slice(&[60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    let crc = png[12..29].iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_image_kills_its_worker_ends_as_a_dead_letter_and_the_others_go_on() {
    let (barn, _package) =
        barn_with(Network::Fragile, |settings| settings.set("inference.attempts_max", "2")).await;
    let root = media_root(&barn.settings);
    let restarts = barn.metric("engine_restarts", "actor=\"inference\"");
    let poisoned = put_image_job(&barn.db, &root, &picture(255, ImageFormat::Png), None).await;
    put_image_job(&barn.db, &root, &picture(51, ImageFormat::Png), None).await;
    until("the good image is looked at", async || in_status(&barn.db, "completed").await >= 1).await;
    until("the bad one is given up", async || in_status(&barn.db, "failed").await == 1).await;
    let sql = "SELECT count(*) FROM dead_letters WHERE reason = 'WORKER_DIED' AND attempt_count = 2 AND event_id = ";
    assert_eq!(barn.db.count(&format!("{sql}'{poisoned}'")).await, 1);
    until("the worker lives", async || {
        barn.metric("engine_restarts", "actor=\"inference\"") - restarts >= 2.0
    })
    .await;
    put_image_job(&barn.db, &root, &picture(102, ImageFormat::Png), None).await;
    until("work goes on", async || in_status(&barn.db, "completed").await == 2).await;
    barn.finish_after("actor ended, restarting it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_alone_share_the_jobs_and_take_over_that_of_one_that_is_killed() {
    let db = Database::fresh().await;
    let package = tempfile::tempdir().unwrap();
    write_package(package.path(), "v1", Network::Mean);
    let images = tempfile::tempdir().unwrap();
    let settings = Settings::of(&db.url)
        .set("inference.model_path", &package.path().display().to_string())
        .set("inference.lease_seconds", "5")
        .set("media.root", &images.path().display().to_string());
    for _ in 0..200 {
        put_image_job(&db, images.path(), &picture(51, ImageFormat::Jpeg), None).await;
    }
    let mut two = Engine::stopped(settings.elsewhere());
    let mut one = Engine::stopped(settings);
    one.spawn_as("worker");
    two.spawn_as("worker");
    for worker in [&one, &two] {
        until("it is up", async || worker.log().contains("farmiq-edge runs")).await;
    }
    for worker in [&one, &two] {
        let done = async || worker.metric("inference_jobs", "result=\"completed\"").await;
        until("it works", async || done().await > 0.0).await;
    }
    let held = lock_a_job_of(&db, &one).await;
    one.kill().await;
    db.execute("ROLLBACK").await;
    until("every image is looked at", async || in_status(&db, "completed").await == 200).await;
    let again = format!("SELECT count(*) FROM inference_jobs WHERE id = '{held}' AND attempt_count > 1");
    assert_eq!(db.count(&again).await, 1, "it was held when its worker was killed");
    assert_eq!(db.count("SELECT count(*) FROM inference_results").await, 200);
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 200);
    let (status, ready) = get(two.settings.http, "/api/ready").await;
    assert_eq!(status, 200, "{ready}");
    assert_eq!(get(two.settings.http, "/api/v1/sync/state").await.0, 404);
    assert_eq!(two.terminate().await.code, Some(0));
}

/// Begins a transaction that holds the row of a job that this worker has in hand, so that the worker cannot settle it
/// before the transaction ends.
pub(super) async fn lock_a_job_of(db: &Database, worker: &Engine) -> Uuid {
    let holder = format!("edge-{}", worker.settings.mqtt.port());
    let sql = "SELECT id FROM inference_jobs WHERE claimed_by = $1 AND status = 'processing' FOR UPDATE SKIP LOCKED LIMIT 1";
    let mut held = None;
    until("it has a job in hand", async || {
        db.execute("BEGIN").await;
        held = db.client.query_opt(sql, &[&holder]).await.expect("jobs are listed").map(|row| row.get(0));
        if held.is_none() {
            db.execute("ROLLBACK").await;
        }
        held.is_some()
    })
    .await;
    held.expect("it was just found")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_engine_takes_its_own_jobs_back_at_once_and_nobody_elses() {
    let off = |settings: Settings| settings.set("inference.enabled", "false");
    let (mut barn, _package) = barn_with(Network::Mean, off).await;
    let root = media_root(&barn.settings);
    let image = picture(51, ImageFormat::Png);
    let own = put_image_job(&barn.db, &root, &image, None).await;
    let other = put_image_job(&barn.db, &root, &image, None).await;
    // As a kill leaves them, with leases longer than anybody waits here.
    let edge_id = barn.settings.config().edge.id;
    for (job, holder) in [(own, edge_id.as_str()), (other, "elsewhere")] {
        barn.db
            .execute(&format!(
                "UPDATE inference_jobs SET status = 'processing', attempt_count = 1, claimed_by = '{holder}',
                    lease_expires_at = now() + interval '3000 seconds' WHERE id = '{job}'"
            ))
            .await;
    }
    barn.settings = barn.settings.set("inference.enabled", "true").set("inference.lease_seconds", "3600");
    barn.restart().await;
    until("the engine's own job is done", async || in_status(&barn.db, "completed").await == 1).await;
    assert!(grams(&barn.db, own).await > 0);
    assert_eq!(in_status(&barn.db, "processing").await, 1, "the other one is still held");
    barn.finish().await;
}
