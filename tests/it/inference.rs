//! Inference: jobs in the store, and the whole way of an image through a real engine and a real model.

use std::path::Path;

use image::ImageFormat;
use schema::clock::Clock;
use schema::id;
use schema::store::inference::{NewJob, put_job};
use tests::barn::Barn;
use tests::device::TENANT;
use tests::onnx::{Network, picture, write_package};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use uuid::Uuid;

mod detector;
mod jobs;
mod model;
mod rabbitmq;
mod trial;
mod workers;
mod yolo;

/// Puts an image into the store of an engine and its row into the database, as a completed upload leaves them.
async fn put_image(db: &Database, media_root: &Path, bytes: &[u8], session_id: Option<&str>) -> Uuid {
    let media_id = id::new_id();
    std::fs::create_dir_all(media_root).expect("a folder");
    std::fs::write(media_root.join(media_id.to_string()), bytes).expect("an image file");
    let session_id = session_id.map_or("NULL".to_owned(), |session_id| format!("'{session_id}'"));
    db.execute(&format!(
        "INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, path,
            mime_type, captured_at, created_at)
         VALUES ('{media_id}', '{TENANT}', 'f-001', 'b-001', 'wv-001', {session_id}, 'farmiq-media', 'key/{media_id}',
            '{media_id}', 'image/jpeg', now(), now())"
    ))
    .await;
    media_id
}

/// Puts an image and a job for it.
async fn put_image_job(db: &Database, media_root: &Path, bytes: &[u8], session_id: Option<&str>) -> Uuid {
    let media_id = put_image(db, media_root, bytes, session_id).await;
    put_job_of(db, media_id, session_id).await
}

/// Puts a job for an image.
async fn put_job_of(db: &Database, media_id: Uuid, session_id: Option<&str>) -> Uuid {
    let object_key = format!("key/{media_id}");
    let job = NewJob {
        tenant_id: TENANT,
        farm_id: "f-001",
        barn_id: "b-001",
        device_id: "wv-001",
        media_id,
        object_key: &object_key,
        session_id,
        model_version: "v1",
        trace_id: Some("trace-1"),
    };
    let now = Clock::system().now();
    db.store.run("put_job", async |conn| put_job(conn, &job, now).await).await.expect("a job")
}

/// An open session.
async fn open_session(db: &Database, session_id: &str) {
    db.execute(&format!(
        "INSERT INTO weight_sessions (id, tenant_id, session_id, farm_id, barn_id, device_id, station_id, start_at,
            created_event_id, created_at, updated_at)
         VALUES (gen_random_uuid(), '{TENANT}', '{session_id}', 'f-001', 'b-001', 'wv-001', 'st-01', now(), 'e-1', now(), now())"
    ))
    .await;
}

/// An engine with a package of its own and the place of its images.
async fn barn_with(network: Network, change: impl FnOnce(Settings) -> Settings) -> (Barn, tempfile::TempDir) {
    let package = tempfile::tempdir().expect("a folder");
    write_package(package.path(), "v1", network);
    let path = package.path().display().to_string();
    let barn = Barn::start_with(|settings| change(settings.set("inference.model_path", &path))).await;
    (barn, package)
}

fn media_root(settings: &Settings) -> std::path::PathBuf {
    settings.data_dir().join("media")
}

async fn in_status(db: &Database, status: &str) -> i64 {
    db.count(&format!("SELECT count(*) FROM inference_jobs WHERE status = '{status}'")).await
}
