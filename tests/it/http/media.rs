//! Images over HTTP in one process with a directory: who may do what, and what a fault leaves behind.

use std::path::{Path, PathBuf};

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_RANGE, ETAG, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use engine::config::Config;
use hyper::body::Frame;
use image::ImageFormat;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::onnx;
use tests::picture::{self, jpeg};
use tests::volume::Volume;
use tower::ServiceExt;

use super::{Face, code, compat, config, request};

const T1: [(&str, &str); 1] = [("x-tenant-id", "t-001")];
const T2: [(&str, &str); 1] = [("x-tenant-id", "t-002")];
const PRESIGN: &str = "/api/v1/media/images/presign";
const COMPLETE: &str = "/api/v1/media/images/complete";

/// A face whose images lie in a directory of this test.
struct Camera {
    face: Face,
    root: PathBuf,
    _directory: TempDir,
}

impl Camera {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = compat();
        config.media.root = directory.path().join("media");
        config.media.presign_per_minute = 1000;
        config.retention.free_disk_gb_min = 0;
        change(&mut config);
        let root = config.media.root.clone();
        let face = Face::of(config).await;
        for tenant in ["t-001", "t-002"] {
            face.db.allow_device(tenant, "wv-001", "f-001", "b-001").await;
        }
        Self { face, root, _directory: directory }
    }

    async fn presign(&self) -> Value {
        let (status, body) = self.face.post(PRESIGN, &T1, &wish()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The status, the headers and the code of a PUT.
    async fn put(&self, uri: &str, headers: &[(&str, &str)], body: Body) -> (StatusCode, HeaderMap, Value) {
        let response = self.face.router.clone().oneshot(request("PUT", uri, headers, body)).await;
        let (parts, body) = response.expect("a router never fails").into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body in memory");
        (parts.status, parts.headers, serde_json::from_slice(&bytes).expect("JSON"))
    }

    async fn refused(&self, uri: &str, headers: &[(&str, &str)], body: Body) -> (u16, String) {
        let (status, _, body) = self.put(uri, headers, body).await;
        (status.as_u16(), code(&body).to_owned())
    }

    async fn complete(&self, presigned: &Value, change: Value) -> (StatusCode, Value) {
        let mut body = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
            "object_key": presigned["object_key"], "mime_type": "image/jpeg"});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        self.face.post(COMPLETE, &T1, &body).await
    }

    /// Every file below the root.
    fn files(&self) -> Vec<PathBuf> {
        fn walk(place: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(place).into_iter().flatten() {
                let place = entry.expect("a directory").path();
                if place.is_dir() { walk(&place, found) } else { found.push(place) }
            }
        }
        let mut found = Vec::new();
        walk(&self.root, &mut found);
        found
    }
}

fn wish() -> Value {
    json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "content_type": "image/jpeg", "filename": "left.jpg"})
}

fn with(change: Value) -> Value {
    let mut wish = wish();
    wish.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    wish
}

/// The path of an upload URL.
fn path(presigned: &Value) -> String {
    let url = presigned["upload_url"].as_str().expect("a URL");
    url.strip_prefix("http://localhost:3000").expect("the public address").to_owned()
}

const JPEG: [(&str, &str); 1] = [("content-type", "image/jpeg")];

/// A picture of this type.
fn encoded(format: ImageFormat) -> Vec<u8> {
    onnx::picture(51, format)
}

/// A picture that this text makes its own.
fn image(text: &str) -> Body {
    Body::from(jpeg(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_vocabularies_get_both_vocabularies() {
    let camera = Camera::new().await;
    let camel = json!({"tenantId": "t-001", "farmId": "f-001", "barnId": "b-001", "deviceId": "wv-001",
        "contentType": "image/png", "stationId": "st-01", "sessionId": "s-1", "contentLength": 5});
    // The camera of this vocabulary sends no tenant header.
    let (status, body) = camera.face.post(PRESIGN, &[], &camel).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["headers"], json!({"Content-Type": "image/png"}));
    assert_eq!(body["headers"], body["required_headers"]);
    assert_eq!((&body["method"], &body["expires_in"]), (&json!("PUT"), &json!(900)));
    let key = body["object_key"].as_str().expect("a key");
    assert!(key.starts_with("tenants/t-001/farms/f-001/barns/b-001/devices/wv-001/images/"), "{key}");
    assert!(key.ends_with(".png"), "{key}");
    let kept = camera.face.db.count("SELECT count(*) FROM media_uploads WHERE session_id = 's-1' AND station_id = 'st-01' AND content_length = 5").await;
    assert_eq!(kept, 1);
    let (status, body) = camera.face.post(PRESIGN, &[], &wish()).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"));
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_is_checked_in_order() {
    let camera = Camera::new().await;
    let check = async |change: Value, headers: &[(&str, &str)], expected: (u16, &str)| {
        let (status, body) = camera.face.post(PRESIGN, headers, &with(change.clone())).await;
        assert_eq!((status.as_u16(), code(&body)), expected, "{change}: {body}");
    };
    check(json!({"tenant_id": ""}), &T1, (400, "VALIDATION_ERROR")).await;
    check(json!({"filename": null}), &T1, (400, "VALIDATION_ERROR")).await;
    for name in ["../x.jpg", "a/b.jpg", "a\\b.jpg", "..", "a\u{0}.jpg"] {
        check(json!({"filename": name}), &T1, (400, "VALIDATION_ERROR")).await;
    }
    check(json!({"content_length": -1}), &T1, (400, "VALIDATION_ERROR")).await;
    check(json!({"device_id": "a/../b"}), &T1, (400, "VALIDATION_ERROR")).await;
    check(json!({"content_type": "image/gif"}), &T2, (403, "TENANT_MISMATCH")).await;
    check(json!({"device_id": "stranger"}), &T1, (403, "DEVICE_NOT_ALLOWED")).await;
    check(json!({"barn_id": "b-002"}), &T1, (403, "SCOPE_MISMATCH")).await;
    check(json!({"content_type": "image/gif"}), &T1, (400, "UNSUPPORTED_CONTENT_TYPE")).await;
    check(json!({"content_length": 10_485_761}), &T1, (413, "BODY_TOO_LARGE")).await;
    check(json!({"filename": "%2e%2e%2fetc"}), &T1, (200, "")).await;
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_url_needs_a_credential_only_to_be_offered() {
    let camera = Camera::with(|own| own.auth = config().auth).await;
    let (status, _) = camera.face.post(PRESIGN, &[], &wish()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let key = [("x-api-key", "one")];
    let (status, body) = camera.face.post(PRESIGN, &key, &wish()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, headers, body) = camera.put(&path(&body), &JPEG, image("image")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({})));
    assert!(headers[ETAG].as_bytes().starts_with(b"\""));
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_too_often_is_told_when_to_come_back() {
    let camera = Camera::with(|config| config.media.presign_per_minute = 2).await;
    camera.presign().await;
    camera.presign().await;
    let response = camera.face.router.clone();
    let json = [("x-tenant-id", "t-001"), ("content-type", "application/json")];
    let response = response.oneshot(request("POST", PRESIGN, &json, Body::from(wish().to_string()))).await;
    let response = response.expect("a router never fails");
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u32 = response.headers()[RETRY_AFTER].to_str().expect("a text").parse().expect("a number");
    assert!((1..=31).contains(&seconds), "{seconds}");
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_gets_no_new_uploads() {
    let camera = Camera::with(|config| config.retention.free_disk_gb_min = 1_000_000).await;
    let (status, body) = camera.face.post(PRESIGN, &T1, &wish()).await;
    assert_eq!((status, code(&body)), (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE"));
    assert_eq!(camera.face.db.count("SELECT count(*) FROM media_uploads").await, 0);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_living_urls_take_an_image() {
    let camera = Camera::new().await;
    let (one, other) = (path(&camera.presign().await), path(&camera.presign().await));
    let forged = [
        one.replace("signature=", "signature=0"),
        one.replace("expires=", "expires=1"),
        one.split("signature=").next().expect("a head").to_owned(),
        format!("{}?{}", other.split('?').next().expect("a path"), one.split('?').nth(1).expect("a query")),
        one.replace("/uploads/", "/uploads/..%2f"),
        "/api/v1/media/uploads/00000000-0000-4000-8000-000000000000?expires=99999999999&signature=00"
            .to_owned(),
        "/api/v1/media/uploads/%2e%2e%2f%2e%2e%2fetc%2fpasswd?expires=99999999999&signature=00".to_owned(),
    ];
    for uri in forged {
        let refused = camera.refused(&uri, &JPEG, image("image")).await;
        assert_eq!(refused, (403, "SIGNATURE_INVALID".to_owned()), "{uri}");
    }
    let refused = camera.refused(&one, &[("content-type", "image/png")], Body::from("image")).await;
    assert_eq!(refused, (409, "CONTENT_TYPE_MISMATCH".to_owned()));
    assert_eq!(camera.files(), [] as [PathBuf; 0]);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_url_takes_nothing() {
    let camera = Camera::with(|config| config.media.presign_seconds = 1).await;
    let uri = path(&camera.presign().await);
    tests::wait::until("the URL expires", async || {
        let refused = camera.refused(&uri, &[("content-type", "image/png")], Body::empty()).await;
        refused == (403, "URL_EXPIRED".to_owned())
    })
    .await;
    assert_eq!(camera.files(), [] as [PathBuf; 0]);
    camera.face.end().await;
}

/// A body that sends so much and then breaks off.
struct Broken(u32);

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())));
        };
        self.0 = left;
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[1; 4096])))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_too_large_leaves_nothing() {
    let camera = Camera::new().await;
    let uri = path(&camera.presign().await);
    let refused = camera.refused(&uri, &JPEG, Body::new(Broken(50))).await;
    assert_eq!(refused, (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(camera.files(), [] as [PathBuf; 0]);
    let eleven = || Body::from(vec![1; 11 << 20]);
    assert_eq!(camera.refused(&uri, &JPEG, eleven()).await, (413, "BODY_TOO_LARGE".to_owned()));
    let declared = [JPEG[0], ("content-length", "11534336")];
    assert_eq!(camera.refused(&uri, &declared, eleven()).await, (413, "BODY_TOO_LARGE".to_owned()));
    assert_eq!(camera.files(), [] as [PathBuf; 0]);
    let rows = camera.face.db.count("SELECT count(*) FROM media_uploads WHERE status = 'presigned'").await;
    assert_eq!(rows, 1);
    let (status, _, _) =
        camera.put(&uri, &JPEG, Body::from(jpeg(&"Z".repeat((10 << 20) - picture::JPEG.len())))).await;
    assert_eq!(status, StatusCode::OK, "ten MiB are not too large");
    assert_eq!(camera.files().len(), 1);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_picture_are_refused_and_take_no_place() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    let uri = path(&presigned);
    let good = jpeg("good");
    assert_eq!(camera.put(&uri, &JPEG, Body::from(good.clone())).await.0, StatusCode::OK);
    let half = || picture::JPEG[..picture::JPEG.len() - 10].to_vec();
    let mut filled = half();
    filled.resize(20_000, 0);
    let png = encoded(ImageFormat::Png);
    for (bytes, told) in [
        (Vec::new(), "the file is empty"),
        (half(), "the image is broken: it ends in the middle of its pixels"),
        (filled, "the image is broken"),
        (picture::JPEG[..20].to_vec(), "the image is broken: it ends before its pixels"),
        (
            b"<html><body>Sign in to the network</body></html>".to_vec(),
            "the file is no JPEG, PNG or WebP image",
        ),
        (b"GIF89a\x01\0\x01\0\x80\0\0".to_vec(), "the file is no JPEG, PNG or WebP image"),
        (vec![0; 200_000], "the file is no JPEG, PNG or WebP image"),
        (png[..png.len() / 2].to_vec(), "the image is broken"),
        (png, "is image/png, the upload was offered for image/jpeg"),
    ] {
        let length = bytes.len();
        let (status, _, body) = camera.put(&uri, &JPEG, Body::from(bytes)).await;
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{told}: {body}");
        assert!(message.contains(told), "{length} bytes: {message}, not {told}");
        let kept: Vec<_> = camera.files().iter().map(|file| std::fs::read(file).expect("a file")).collect();
        assert_eq!(kept, std::slice::from_ref(&good), "after {told}");
    }
    assert_eq!(camera.put(&uri, &JPEG, image("better")).await.0, StatusCode::OK);
    let (status, completed) = camera.complete(&presigned, json!({})).await;
    assert_eq!((status, &completed["size_bytes"]), (StatusCode::OK, &json!(jpeg("better").len())));
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_that_is_offered_is_taken() {
    let camera = Camera::new().await;
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let content_type = format.to_mime_type();
        let wish = with(json!({"content_type": content_type}));
        let (_, presigned) = camera.face.post(PRESIGN, &T1, &wish).await;
        let headers = [("content-type", content_type)];
        let (status, _, body) = camera.put(&path(&presigned), &headers, Body::from(encoded(format))).await;
        assert_eq!(status, StatusCode::OK, "{content_type}: {body}");
    }
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_the_length_that_was_announced() {
    let camera = Camera::new().await;
    let length = jpeg("five!").len();
    let announced = async |bytes: usize| {
        let (status, presigned) =
            camera.face.post(PRESIGN, &T1, &with(json!({"content_length": bytes}))).await;
        assert_eq!(status, StatusCode::OK, "{presigned}");
        path(&presigned)
    };
    let uri = announced(length + 1).await;
    let said = length.to_string();
    let (status, _, body) = camera.put(&uri, &JPEG, image("five!")).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{body}");
    let declared = [JPEG[0], ("content-length", said.as_str())];
    let (status, _, body) = camera.put(&uri, &declared, image("five!")).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{body}");
    assert_eq!(camera.files(), [] as [PathBuf; 0]);
    assert_eq!(camera.put(&uri, &JPEG, image("five!!")).await.0, StatusCode::OK);
    // Whoever announces nothing announces no length of 0.
    assert_eq!(camera.put(&announced(0).await, &JPEG, image("five!")).await.0, StatusCode::OK);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_in_the_store_is_not_completed() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    assert_eq!(camera.put(&path(&presigned), &JPEG, image("good")).await.0, StatusCode::OK);
    // As an engine before this one could have left it.
    let file = camera.files().remove(0);
    for bytes in [&b""[..], b"<html></html>"] {
        std::fs::write(&file, bytes).expect("a file");
        let (status, body) = camera.complete(&presigned, json!({})).await;
        assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "CONTENT_TYPE_MISMATCH"), "{body}");
    }
    assert_eq!(camera.face.db.count("SELECT count(*) FROM media_objects").await, 0);
    assert_eq!(camera.put(&path(&presigned), &JPEG, image("again")).await.0, StatusCode::OK);
    assert_eq!(camera.complete(&presigned, json!({})).await.0, StatusCode::OK);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_replaces_until_it_is_complete() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    let uri = path(&presigned);
    for text in ["first", "second"] {
        assert_eq!(camera.put(&uri, &JPEG, image(text)).await.0, StatusCode::OK);
    }
    let size_bytes = jpeg("second").len();
    let check = async |change: Value, expected: (u16, &str)| {
        let (status, body) = camera.complete(&presigned, change.clone()).await;
        assert_eq!((status.as_u16(), code(&body)), expected, "{change}: {body}");
    };
    check(json!({"size_bytes": size_bytes - 1}), (409, "SIZE_MISMATCH")).await;
    check(json!({"mime_type": "image/png"}), (409, "CONTENT_TYPE_MISMATCH")).await;
    check(json!({"size_bytes": -6}), (400, "VALIDATION_ERROR")).await;
    assert_eq!(camera.face.db.count("SELECT count(*) FROM media_objects").await, 0);
    check(json!({"size_bytes": size_bytes}), (200, "")).await;
    check(json!({"size_bytes": size_bytes - 1}), (409, "SIZE_MISMATCH")).await;
    check(json!({"mime_type": "image/png"}), (409, "CONTENT_TYPE_MISMATCH")).await;
    check(json!({"session_id": "s-1"}), (200, "")).await;
    check(json!({"session_id": "s-2"}), (200, "")).await;
    let sessions = camera.face.db.count("SELECT count(*) FROM media_objects WHERE session_id = 's-1'").await;
    assert_eq!(sessions, 1);
    assert_eq!(camera.put(&uri, &JPEG, image("second")).await.0, StatusCode::OK);
    let refused = camera.refused(&uri, &JPEG, image("other!")).await;
    assert_eq!(refused, (409, "ALREADY_COMPLETED".to_owned()));
    let files = camera.files();
    let kept: Vec<_> = files.iter().map(|file| std::fs::read(file).expect("a file")).collect();
    assert_eq!(kept, [jpeg("second")]);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_completed_many_times_at_once_is_completed_once() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    assert_eq!(camera.put(&path(&presigned), &JPEG, image("image")).await.0, StatusCode::OK);
    let call = || camera.complete(&presigned, json!({}));
    let answers = tokio::join!(call(), call(), call(), call(), call(), call());
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5];
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::OK), "{answers:?}");
    let made = answers.iter().filter(|(_, body)| body["inference_job_id"].is_string()).count();
    let rows = "SELECT (SELECT count(*) FROM media_objects) * 100 + (SELECT count(*) FROM sync_outbox) * 10
        + (SELECT count(*) FROM inference_jobs)";
    assert_eq!((made, camera.face.db.count(rows).await), (1, 111));
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_shown_in_parts_and_not_again_to_who_has_it() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    assert_eq!(camera.put(&path(&presigned), &JPEG, image("shown")).await.0, StatusCode::OK);
    let (_, completed) = camera.complete(&presigned, json!({})).await;
    let whole = jpeg("shown");
    let (size, etag) = (whole.len(), format!("\"{}\"", completed["etag"].as_str().expect("a tag")));
    let uri = format!("/api/v1/media/objects/{}", presigned["media_id"].as_str().expect("an id"));
    let get = async |name: &'static str, value: String| {
        let headers = [T1[0], (name, value.as_str())];
        let response =
            camera.face.router.clone().oneshot(request("GET", &uri, &headers, Body::empty())).await;
        let (parts, body) = response.expect("a router never fails").into_parts();
        let range = parts.headers.get(CONTENT_RANGE).map(|range| range.to_str().expect("a text").to_owned());
        (parts.status.as_u16(), range, to_bytes(body, usize::MAX).await.expect("a body"))
    };
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=100-", 100, size - 1),
        ("bytes=-5", size - 5, size - 1),
        ("bytes=10-99999999", 10, size - 1),
    ] {
        let (status, told, bytes) = get("range", range.to_owned()).await;
        assert_eq!((status, told), (206, Some(format!("bytes {first}-{last}/{size}"))), "{range}");
        assert_eq!(bytes, whole[first..=last], "{range}");
    }
    for range in ["bytes=9-5", "bytes=0-1,4-5", "bytes=99999999-", "bytes=-0", "bytes=x-y", "lines=1-2"] {
        assert_eq!(get("range", range.to_owned()).await, (200, None, whole.clone().into()), "{range}");
    }
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        assert_eq!(get("if-none-match", tags.clone()).await, (304, None, Bytes::new()), "{tags}");
    }
    assert_eq!(get("if-none-match", "\"other\"".to_owned()).await.0, 200);
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_crosses_tenants() {
    let camera = Camera::new().await;
    let presigned = camera.presign().await;
    assert_eq!(camera.put(&path(&presigned), &JPEG, image("image")).await.0, StatusCode::OK);
    let foreign = json!({"tenant_id": "t-002", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "object_key": presigned["object_key"], "mime_type": "image/jpeg"});
    let (status, body) = camera.face.post(COMPLETE, &T2, &foreign).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "SCOPE_MISMATCH"));
    let key = presigned["object_key"].as_str().expect("a key");
    for odd in [format!("{key}/../x"), key.replace("tenants/", "tenants%2f"), key.replace("t-001", "t-002")] {
        let (status, body) = camera.complete(&presigned, json!({"object_key": odd})).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "SCOPE_MISMATCH"), "{odd}");
    }
    assert_eq!(camera.complete(&presigned, json!({})).await.0, StatusCode::OK);

    let id = presigned["media_id"].as_str().expect("an id");
    let paths = [
        format!("/api/v1/media/objects/{id}"),
        format!("/api/v1/media/objects/{id}/meta"),
        format!("/api/v1/media/objects/by-key?object_key={key}"),
        "/api/v1/media/objects/nothing".to_owned(),
        "/api/v1/media/objects/%2e%2e%2f%2e%2e%2fetc%2fpasswd".to_owned(),
    ];
    for path in &paths {
        let (status, body) = camera.face.get(path, &T2).await;
        assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "OBJECT_NOT_FOUND"), "{path}");
        let (status, body) = camera.face.get(path, &[]).await;
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "MISSING_TENANT"), "{path}");
    }
    let (status, body) = camera.face.get(&paths[1], &T1).await;
    assert_eq!((status, &body["media"]["object_key"]), (StatusCode::OK, &presigned["object_key"]), "{body}");
    let (_, own) = camera.face.get("/api/v1/media/stats", &T1).await;
    let (_, other) = camera.face.get("/api/v1/media/stats", &T2).await;
    assert_eq!((&own["total_objects"], &other["total_objects"]), (&json!(1), &json!(0)));
    std::fs::remove_dir_all(&camera.root).expect("the images");
    let (status, body) = camera.face.get(&paths[0], &T1).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "OBJECT_NOT_FOUND"), "a lost file");
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_is_wrong() {
    let camera = Camera::with(|config| config.media.presign_per_minute = 3).await;
    let presigned = camera.presign().await;
    let uri = path(&presigned);
    let foreign = camera.presign().await["object_key"].as_str().expect("a key").replace("t-001", "t-002");
    let message = |body: &Value| body["error"]["message"].as_str().expect("a message").to_owned();
    let putting = async |uri: &str, headers: &[(&str, &str)], body: Body| {
        let (status, _, body) = camera.put(uri, headers, body).await;
        (status.as_u16(), message(&body))
    };
    let completing = async |change: Value| {
        let (status, body) = camera.complete(&presigned, change).await;
        (status.as_u16(), message(&body))
    };
    let png = [("content-type", "image/png")];
    let check = |told: (u16, String), status: u16, text: &str| {
        assert_eq!((told.0, told.1.contains(text)), (status, true), "{told:?}, not {text}");
    };
    check(putting(&format!("{uri}0"), &JPEG, Body::from("x")).await, 403, "is not one of ours");
    check(
        putting(&uri, &png, Body::from("x")).await,
        409,
        "content-type: the upload was offered for image/jpeg",
    );
    check(putting(&uri, &JPEG, Body::from(vec![1; 11 << 20])).await, 413, "an image may have 10485760 bytes");
    check(putting(&uri, &JPEG, Body::new(Broken(5))).await, 400, "body: ended too early");
    check(completing(json!({})).await, 404, "the image is not in the store");
    check(completing(json!({"object_key": foreign})).await, 403, "key are not those of the credential");
    assert_eq!(camera.put(&uri, &JPEG, image("image")).await.0, StatusCode::OK);
    let stored = format!("size_bytes: the stored image has {} bytes", jpeg("image").len());
    check(completing(json!({"size_bytes": 4})).await, 409, &stored);
    check(
        completing(json!({"mime_type": "image/png"})).await,
        409,
        "mime_type: the stored image is image/jpeg",
    );
    assert_eq!(camera.complete(&presigned, json!({})).await.0, StatusCode::OK);
    check(putting(&uri, &JPEG, image("other")).await, 409, "another image was completed under this URL");
    let wishing = async |change: Value| {
        let (status, body) = camera.face.post(PRESIGN, &T1, &with(change)).await;
        (status.as_u16(), message(&body))
    };
    check(wishing(json!({"filename": "../x.jpg"})).await, 400, "filename: must be a name without a path");
    check(
        wishing(json!({"content_type": "image/gif"})).await,
        400,
        "must be image/jpeg, image/png or image/webp",
    );
    check(wishing(json!({"content_length": 11 << 20})).await, 413, "an image may have 10485760 bytes");
    camera.presign().await;
    check(wishing(json!({})).await, 429, "too many upload URLs for this device");
    camera.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_and_keeps_what_it_has() {
    let camera = Camera::new().await;
    let Some(_volume) = Volume::mount(&camera.root, "2m") else {
        println!("not tested: this user may not mount a volume of its own");
        return camera.face.end().await;
    };
    let uri = path(&camera.presign().await);
    assert_eq!(camera.put(&uri, &JPEG, image("small")).await.0, StatusCode::OK);
    let refused = camera.refused(&uri, &JPEG, Body::from(vec![1; 4 << 20])).await;
    assert_eq!(refused, (507, "INSUFFICIENT_STORAGE".to_owned()));
    let files = camera.files();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(std::fs::read(&files[0]).expect("a file"), jpeg("small"));
    camera.face.end().await;
}
