//! Small copies of images: for whom, of what, and how they go.

use std::io::Cursor;
use std::path::PathBuf;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use image::{DynamicImage, GenericImageView, ImageFormat, Rgb, RgbImage};
use schema::id::{Uuid, new_id};
use serde_json::Value;
use tower::ServiceExt;

use super::{Face, code, config, request};

const ONE: (&str, &str) = ("x-api-key", "one");

struct Album {
    face: Face,
    directory: tempfile::TempDir,
}

impl Album {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = config();
        config.edge.data_dir = directory.path().to_owned();
        config.media.root = directory.path().join("media");
        config.retention.free_disk_gb_min = 0;
        std::fs::create_dir_all(&config.media.root).expect("a directory");
        Self { face: Face::of(config).await, directory }
    }

    fn place(&self, id: Uuid) -> PathBuf {
        self.directory.path().join("media").join(id.to_string())
    }

    /// A completed image.
    async fn put(&self, tenant_id: &str, bytes: &[u8]) -> Uuid {
        let id = new_id();
        std::fs::write(self.place(id), bytes).expect("it can be written");
        self.face
            .db
            .execute(&format!(
                "INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, path, mime_type,
                     etag, size_bytes, captured_at, created_at)
                 VALUES ('{id}', '{tenant_id}', 'f', 'b', 'd', 'farmiq-media', 'key/{id}', '{id}', 'image/png', 'tag',
                     {}, now(), now())",
                bytes.len()
            ))
            .await;
        id
    }

    async fn get(&self, id: Uuid, query: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let uri = format!("/api/v1/media/objects/{id}{query}");
        let answer = self.face.router.clone().oneshot(request("GET", &uri, headers, Body::empty())).await;
        let answer = answer.expect("a router never fails");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.expect("a body in memory");
        (status, headers, bytes.to_vec())
    }

    async fn refused(&self, id: Uuid, query: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let (status, _, bytes) = self.get(id, query, headers).await;
        let body: Value = serde_json::from_slice(&bytes).expect("JSON");
        (status, code(&body).to_owned())
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, ImageFormat::Png).expect("it can be written");
    bytes.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_copy_is_a_small_jpeg_for_those_who_may_see_the_image() {
    let album = Album::new().await;
    let picture = png(1000, 500);
    let id = album.put("t-001", &picture).await;
    let (status, headers, bytes) = album.get(id, "?width=320", &[ONE]).await;
    assert_eq!((status, &headers[CONTENT_TYPE]), (StatusCode::OK, &"image/jpeg".parse().expect("a value")));
    let copy = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).expect("a JPEG");
    assert_eq!(copy.dimensions(), (320, 160));
    let etag = headers[ETAG].to_str().expect("text").to_owned();
    let (status, ..) = album.get(id, "?width=320", &[ONE, ("if-none-match", &etag)]).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    let (status, ..) = album.get(id, "?width=160", &[ONE, ("if-none-match", &etag)]).await;
    assert_eq!(status, StatusCode::OK, "another width is another copy");
    let (_, _, whole) = album.get(id, "", &[ONE]).await;
    assert_eq!(whole, picture, "without a width the image is sent as it is");
    for width in ["0", "321", "99999", "x"] {
        let refused = album.refused(id, &format!("?width={width}"), &[ONE]).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, "VALIDATION_ERROR".to_owned()), "{width}");
    }
    let foreign = album.put("t-002", &picture).await;
    let absent = (StatusCode::NOT_FOUND, "OBJECT_NOT_FOUND".to_owned());
    assert_eq!(album.refused(foreign, "?width=320", &[ONE]).await, absent);
    assert_eq!(album.refused(new_id(), "?width=320", &[ONE]).await, absent);
    let named = album.refused(foreign, "?width=320&tenant_id=t-002", &[ONE]).await;
    assert_eq!(named, (StatusCode::FORBIDDEN, "TENANT_MISMATCH".to_owned()));
    assert_eq!(album.get(foreign, "?width=320", &[("x-api-key", "all")]).await.0, StatusCode::OK);
    // The row of an image decides, and not what was kept of it.
    album.face.db.execute(&format!("DELETE FROM media_objects WHERE id = '{id}'")).await;
    assert_eq!(album.refused(id, "?width=320", &[ONE]).await, absent);
    album.face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_and_what_is_no_picture_have_no_small_copy() {
    let album = Album::new().await;
    let whole = png(80, 60);
    let mut bomb = whole.clone();
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    for bytes in [&bomb[..], &whole[..whole.len() / 2], b"no picture"] {
        let id = album.put("t-001", bytes).await;
        let refused = album.refused(id, "?width=320", &[ONE]).await;
        assert_eq!(refused, (StatusCode::CONFLICT, "IMAGE_UNDECODABLE".to_owned()));
    }
    let lost = album.put("t-001", &whole).await;
    std::fs::remove_file(album.place(lost)).expect("it can be removed");
    let refused = album.refused(lost, "?width=320", &[ONE]).await;
    assert_eq!(refused, (StatusCode::NOT_FOUND, "OBJECT_NOT_FOUND".to_owned()));
    album.face.end().await;
}
