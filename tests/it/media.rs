//! Images the whole way on both backends: offered, put, completed, and at the cloud.

use std::net::SocketAddr;
use std::path::Path;

use actors::media::s3::{S3Settings, S3Store};
use actors::media::store::{MARKER, MediaStore};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use image::ImageFormat;
use serde_json::{Value, json};
use tests::barn::Barn;
use tests::objects::{ACCESS_KEY, BUCKET, Objects, SECRET_KEY};
use tests::onnx::picture;
use tests::picture::jpeg_of;
use tests::settings::Settings;
use tests::wait::until;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

mod declared;
mod refused;
mod trace;

static IMAGE: &[u8] = &jpeg_of::<200_000>();

/// A barn that keeps images in a directory and has nobody look at them.
fn in_directory(settings: Settings) -> Settings {
    let base = format!("http://{}", settings.http);
    settings
        .set("media.public_base_url", &base)
        .set("retention.free_disk_gb_min", "0")
        .set("inference.enabled", "false")
        .set("media.implicit_grace_seconds", "3600")
}

async fn post(http: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::post(path)
        .header("host", "edge")
        .header("content-type", "application/json")
        .header("x-tenant-id", "t-001")
        .header("x-trace-id", "trace-of-the-call")
        .body(Full::from(body.to_string()))
        .expect("a request");
    let (status, body) =
        loadtest::http::call(&format!("http://{http}"), request).await.expect("the engine answers");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// Puts an image where presign said, as a device does.
async fn put(presigned: &Value, image: &'static [u8]) -> u16 {
    let url = presigned["upload_url"].as_str().expect("a URL");
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = rest.split_once('/').expect("a path");
    let request = Request::put(format!("/{path}"))
        .header("host", host)
        .header("content-type", presigned["headers"]["Content-Type"].as_str().expect("a type"))
        .body(Full::from(Bytes::from_static(image)))
        .expect("a request");
    loadtest::http::call(&format!("http://{host}"), request).await.expect("the store answers").0
}

fn wish() -> Value {
    json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "content_type": "image/jpeg", "filename": "left.jpg", "captured_at": "2026-02-12T09:32:15.052Z"})
}

async fn presign(barn: &Barn) -> Value {
    let (status, presigned) = post(barn.settings.http, "/api/v1/media/images/presign", &wish()).await;
    assert_eq!(status, 200, "{presigned}");
    presigned
}

async fn complete(barn: &Barn, presigned: &Value) -> (u16, Value) {
    let body = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "object_key": presigned["object_key"], "mime_type": "image/jpeg", "size_bytes": IMAGE.len(),
        "session_id": "20260212_093215"});
    post(barn.settings.http, "/api/v1/media/images/complete", &body).await
}

async fn fetch(barn: &Barn, path: &str) -> (u16, Bytes) {
    let request =
        Request::get(path).header("host", "edge").header("x-tenant-id", "t-001").body(Full::default());
    let base = format!("http://{}", barn.settings.http);
    loadtest::http::call(&base, request.expect("a path")).await.expect("the engine answers")
}

/// The way of one image: what a device does, what it is told, what is stored and what the cloud gets.
async fn whole_way(barn: Barn) -> Barn {
    let presigned = presign(&barn).await;
    let (status, absent) = complete(&barn, &presigned).await;
    assert_eq!((status, absent["error"]["code"].as_str()), (404, Some("OBJECT_NOT_FOUND")));
    assert_eq!(put(&presigned, IMAGE).await, 200);
    let (status, completed) = complete(&barn, &presigned).await;
    assert_eq!(status, 200, "{completed}");
    assert_eq!(completed["media_id"], presigned["media_id"]);
    assert_eq!(completed["size_bytes"], IMAGE.len());
    assert!(completed["inference_job_id"].is_string(), "{completed}");
    let (status, again) = complete(&barn, &presigned).await;
    let mut expected = completed.clone();
    expected["inference_job_id"] = Value::Null;
    assert_eq!((status, again), (200, expected));

    let id = presigned["media_id"].as_str().expect("an id");
    let (status, bytes) = fetch(&barn, &format!("/api/v1/media/objects/{id}")).await;
    assert!(status == 200 && bytes == IMAGE, "{status}, {} bytes", bytes.len());
    let key = presigned["object_key"].as_str().expect("a key");
    let (status, bytes) = fetch(&barn, &format!("/api/v1/media/objects/by-key?object_key={key}")).await;
    assert!(status == 200 && bytes == IMAGE, "{status}, {} bytes", bytes.len());

    barn.delivered(1).await;
    let event = barn.cloud.events(10).remove(0);
    let event = event.get("event").unwrap_or(&event);
    assert_eq!(event["event_type"], "media.stored", "{event}");
    let jobs =
        barn.db.count("SELECT count(*) FROM inference_jobs WHERE session_id = '20260212_093215'").await;
    let rows = "SELECT count(*) FROM media_objects AS o JOIN media_uploads AS u ON u.media_id = o.id
        WHERE u.status = 'completed' AND o.session_id = '20260212_093215' AND o.captured_at = '2026-02-12T09:32:15.052Z'";
    let traced = "SELECT count(*) FROM sync_outbox WHERE trace_id = 'trace-of-the-call' AND event_type = 'media.stored'";
    assert_eq!((jobs, barn.db.count(rows).await, barn.db.count(traced).await), (1, 1, 1));
    barn
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_the_whole_way_through_a_directory() {
    let barn = whole_way(Barn::start_with(in_directory).await).await;
    let hashed = barn.db.count("SELECT count(*) FROM media_objects WHERE sha256_source = 'computed'").await;
    assert_eq!(hashed, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_the_whole_way_through_a_bucket() {
    let objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    let barn = whole_way(barn).await;
    let presigned = presign(&barn).await;
    let url = presigned["upload_url"].as_str().expect("a URL");
    assert!(url.contains("X-Amz-SignedHeaders=host&"), "{url}");
    assert!(!url.to_lowercase().contains("checksum"), "{url}");
    assert!(url.contains("X-Amz-Expires=900&"), "{url}");
    let longer = url.replace("X-Amz-Expires=900&", "X-Amz-Expires=901&");
    let forged = json!({"upload_url": longer, "headers": presigned["headers"]});
    assert_eq!(put(&forged, IMAGE).await, 403);
    assert!(!objects.place(presigned["object_key"].as_str().expect("a key")).exists());
    // The server's own complaint about the forged URL, in the same process.
    barn.finish_after("SignatureDoesNotMatch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_completes_is_completed_after_the_grace() {
    let soon = |settings: Settings| in_directory(settings).set("media.implicit_grace_seconds", "1");
    let barn = Barn::start_with(soon).await;
    let presigned = presign(&barn).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    barn.delivered(1).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM media_uploads WHERE status = 'completed'").await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_an_event_binds_is_completed_with_its_session() {
    let barn = Barn::start_with(in_directory).await;
    let presigned = presign(&barn).await;
    let id = presigned["media_id"].as_str().expect("an id");
    // The row that a session writes when its station announces an image.
    let binding = format!(
        "INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, trace_id, created_at)
         VALUES (gen_random_uuid(), 't-001', 's-7', '{id}', now(), 'e-1', 'tr-7', now())"
    );
    barn.db.execute(&binding).await;
    let looked = "SELECT count(*) FROM media_uploads WHERE next_look_at IS NOT NULL";
    until("the upload is looked for", async || barn.db.count(looked).await == 1).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    barn.delivered(1).await;
    // The session is that of the event, the trace that of the offer, which came first.
    let bound =
        "SELECT count(*) FROM sync_outbox WHERE session_id = 's-7' AND trace_id = 'trace-of-the-call'";
    assert_eq!(barn.db.count(bound).await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_never_comes_expires() {
    let objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    let (lost, late) = (presign(&barn).await, presign(&barn).await);
    // It came, but nobody says so.
    let key = late["object_key"].as_str().expect("a key");
    let place = objects.place(key);
    std::fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
    std::fs::write(place, IMAGE).expect("a file");
    barn.db.execute("UPDATE media_uploads SET expires_at = now()").await;
    barn.delivered(1).await;
    let id = lost["media_id"].as_str().expect("an id");
    let expired =
        format!("SELECT count(*) FROM media_uploads WHERE status = 'expired' AND media_id = '{id}'");
    until("the upload expires", async || barn.db.count(&expired).await == 1).await;
    assert_eq!(barn.metric("media_completed", "expiry"), 1.0);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_said_so_and_comes_back() {
    let mut objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    let (before, presigned) = (presign(&barn).await, presign(&barn).await);
    for presigned in [&before, &presigned] {
        assert_eq!(put(presigned, IMAGE).await, 200);
    }
    assert_eq!(complete(&barn, &before).await.0, 200);
    let shown = format!("/api/v1/media/objects/{}", before["media_id"].as_str().expect("an id"));
    objects.stop().await;
    let (_, body) = fetch(&barn, &shown).await;
    let read = serde_json::from_slice(&body).expect("JSON");
    for (status, body) in [complete(&barn, &presigned).await, (503, read)] {
        let told = (body["error"]["code"].as_str(), body["error"]["message"].as_str());
        let expected = (Some("STORAGE_UNAVAILABLE"), Some("the store of the images does not answer"));
        assert_eq!((status, told), (503, expected), "{body}");
    }
    assert_eq!(barn.db.count("SELECT count(*) FROM media_objects").await, 1);
    objects.start_again().await;
    let (status, body) = complete(&barn, &presigned).await;
    assert_eq!(status, 200, "{body}");
    let (status, bytes) = fetch(&barn, &shown).await;
    assert!(status == 200 && bytes == IMAGE, "{status}, {} bytes", bytes.len());
    barn.delivered(2).await;
    barn.finish().await;
}

/// Every file below a directory.
fn files(place: &Path) -> usize {
    let entries = std::fs::read_dir(place).into_iter().flatten();
    let places =
        entries.map(|entry| entry.expect("a directory").path()).filter(|place| !place.ends_with(MARKER));
    places.map(|place| if place.is_dir() { files(&place) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_connection_breaks_leaves_nothing_and_is_sent_again() {
    let barn = Barn::start_with(in_directory).await;
    let root = barn.settings.data_dir().join("media");
    let presigned = presign(&barn).await;
    let url = presigned["upload_url"].as_str().expect("a URL");
    let path = url.strip_prefix(&format!("http://{}", barn.settings.http)).expect("our address");
    let mut stream = TcpStream::connect(barn.settings.http).await.expect("the engine listens");
    let head = format!("PUT {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n", IMAGE.len());
    stream.write_all(head.as_bytes()).await.expect("a connection");
    stream.write_all(&IMAGE[..IMAGE.len() / 2]).await.expect("a connection");
    until("half of the image is written", async || files(&root) == 1).await;
    drop(stream);
    until("the half is gone", async || files(&root) == 0).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM media_uploads WHERE status = 'presigned'").await, 1);
    assert_eq!(put(&presigned, IMAGE).await, 200);
    assert_eq!(complete(&barn, &presigned).await.0, 200);
    assert_eq!(files(&root), 1);
    barn.delivered(1).await;
    barn.finish().await;
}

#[tokio::test]
async fn a_bucket_is_listed_page_by_page_and_emptied() {
    let objects = Objects::start().await;
    let store = S3Store::new(&S3Settings {
        endpoint: Some(objects.url()),
        presign_endpoint: None,
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        is_bucket_made: true,
    });
    store.probe().await.expect("the bucket is made");
    let keys = ["a/1", "a/2", "b", "c/d/e"];
    for key in keys {
        let place = objects.place(key);
        std::fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
        std::fs::write(place, "image").expect("a file");
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after.as_deref(), 3).await.expect("a bucket");
        after = page.last().map(|listed| listed.place.clone());
        let is_last = page.len() < 3;
        for listed in page {
            assert_eq!(store.delete(&listed.object()).await.expect("a bucket"), Some(5));
            found.push(listed.place);
        }
        if is_last {
            break;
        }
    }
    assert_eq!(found, keys);
    assert!(store.list(None, 3).await.expect("a bucket").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_read_does_not_hold_up_the_others() {
    let barn = Barn::start_with(in_directory).await;
    let odd = presign(&barn).await;
    let id = odd["media_id"].as_str().expect("an id");
    // It stands first, and its path is none.
    barn.db
        .execute(&format!(
            "UPDATE media_uploads SET path = '../odd', expires_at = now() WHERE media_id = '{id}'"
        ))
        .await;
    let looked = "SELECT count(*) FROM media_uploads WHERE path = '../odd' AND next_look_at IS NOT NULL";
    until("the odd one is looked at", async || barn.db.count(looked).await == 1).await;
    let presigned = presign(&barn).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    barn.db
        .execute("UPDATE media_uploads SET next_look_at = NULL, expires_at = least(expires_at, now())")
        .await;
    barn.delivered(1).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_looked_at_before_its_session_was_known_is_given_to_it() {
    let soon = |settings: Settings| {
        in_directory(settings).set("inference.enabled", "true").set("media.implicit_grace_seconds", "1")
    };
    let barn = Barn::start_with(soon).await;
    let image: &'static [u8] = picture(51, ImageFormat::Jpeg).leak();
    let (announced, completed) = (presign(&barn).await, presign(&barn).await);
    for presigned in [&announced, &completed] {
        assert_eq!(put(presigned, image).await, 200);
    }
    let looked_at = "SELECT count(*) FROM inference_results WHERE session_id IS NULL";
    until("both are looked at", async || barn.db.count(looked_at).await == 2).await;
    let sessions = "/api/v1/weighvision/sessions";
    for session in ["s-7", "s-8"] {
        let created = json!({"sessionId": session, "eventId": format!("e-{session}"), "tenantId": "t-001",
            "farmId": "f-001", "barnId": "b-001", "deviceId": "wv-001", "stationId": "st-01",
            "startAt": "2026-02-12T09:32:15.052Z"});
        assert_eq!(post(barn.settings.http, sessions, &created).await.0, 201);
    }
    let captured = json!({"tenantId": "t-001", "mediaObjectId": announced["media_id"],
        "occurredAt": "2026-02-12T09:32:15.052Z", "eventId": "e-image"});
    assert_eq!(post(barn.settings.http, &format!("{sessions}/s-7/bind-media"), &captured).await.0, 200);
    let said = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "object_key": completed["object_key"], "mime_type": "image/jpeg", "session_id": "s-8"});
    assert_eq!(post(barn.settings.http, "/api/v1/media/images/complete", &said).await.0, 200);
    for (session, presigned) in [("s-7", &announced), ("s-8", &completed)] {
        let media_id = presigned["media_id"].as_str().expect("an id");
        let attached = format!(
            "SELECT count(*) FROM weight_sessions AS s JOIN inference_results AS r ON r.id::text = s.inference_result_id
             JOIN media_objects AS o ON o.id::text = r.media_id
             WHERE s.session_id = '{session}' AND r.session_id = '{session}' AND o.session_id = '{session}'
                AND o.id = '{media_id}'"
        );
        assert_eq!(barn.db.count(&attached).await, 1, "{session}");
    }
    barn.finish().await;
}

/// A text as it stands in a query, with every odd byte escaped.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            escaped + &char::from(byte).to_string()
        }
        _ => format!("{escaped}%{byte:02X}"),
    })
}

/// Keys that name no image of this camera, however they are spelled, lead nowhere: neither to a row nor to bytes.
async fn check_odd_keys(barn: &Barn) {
    let presigned = presign(barn).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    let key = presigned["object_key"].as_str().expect("a key");
    let images = &key[..key.find("images/").expect("a place") + "images/".len()];
    for (odd, expected) in [
        (key.replace("t-001", "t-002"), (403, "SCOPE_MISMATCH")),
        (key.replace("wv-001", "wv-002"), (403, "SCOPE_MISMATCH")),
        (key.replace("tenants/", "tenants%2F"), (403, "SCOPE_MISMATCH")),
        (format!("/{key}"), (403, "SCOPE_MISMATCH")),
        (format!("./{key}"), (403, "SCOPE_MISMATCH")),
        (format!("{images}../../../wv-002/images/x.jpg"), (403, "SCOPE_MISMATCH")),
        (format!("{images}..%2F..%2Fx.jpg"), (403, "SCOPE_MISMATCH")),
        (format!("{images}..\\..\\x.jpg"), (403, "SCOPE_MISMATCH")),
        (format!("{images}%2e%2e/%2e%2e/x.jpg"), (404, "OBJECT_NOT_FOUND")),
        (format!("{images}%252e%252e%252fx.jpg"), (404, "OBJECT_NOT_FOUND")),
        (format!("{images}\u{2025}/x.jpg"), (404, "OBJECT_NOT_FOUND")),
        (format!("{key}?versionId=1"), (404, "OBJECT_NOT_FOUND")),
        (format!("{key}#x"), (404, "OBJECT_NOT_FOUND")),
        (format!("{key}\0"), (400, "VALIDATION_ERROR")),
        (format!("{key}\r\nx-amz-acl: public-read"), (400, "VALIDATION_ERROR")),
    ] {
        let (status, body) = complete(barn, &json!({"object_key": odd})).await;
        let told = (status, body["error"]["code"].as_str().unwrap_or_default());
        assert_eq!(told, expected, "complete {odd:?}: {body}");
        let path = format!("/api/v1/media/objects/by-key?object_key={}", escaped(&odd));
        let (status, body) = fetch(barn, &path).await;
        assert!(matches!(status, 400 | 404), "{odd:?}: {status} {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(barn.db.count("SELECT count(*) FROM media_objects").await, 0);
    let (status, body) = complete(barn, &presigned).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_lead_nowhere_in_a_directory() {
    let barn = Barn::start_with(in_directory).await;
    check_odd_keys(&barn).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_lead_nowhere_in_a_bucket() {
    let objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    check_odd_keys(&barn).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_url_of_a_bucket_takes_nothing() {
    let objects = Objects::start().await;
    let short = |settings: Settings| objects.of(in_directory(settings)).set("media.presign_seconds", "1");
    let barn = Barn::start_with(short).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    let presigned = presign(&barn).await;
    let expired = "SELECT count(*) FROM media_uploads WHERE status = 'expired'";
    until("the URL expires", async || barn.db.count(expired).await == 1).await;
    assert_eq!(put(&presigned, IMAGE).await, 403);
    assert!(!objects.place(presigned["object_key"].as_str().expect("a key")).exists());
    let (status, body) = complete(&barn, &presigned).await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("OBJECT_NOT_FOUND")), "{body}");
    // The server's own complaint, in the same process.
    barn.finish_after("Request has expired").await;
}
