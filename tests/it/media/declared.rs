//! The hash that a device declares of its image, in any order, and an image that is another one.

use loadtest::mqtt::Publish;
use tests::device::{at_least_once, envelope, new_event_id};

use super::*;

/// The hash of the image: `(cat src/picture.jpg; yes Z | tr -d '\n') | head -c 200000 | sha256sum`.
const RIGHT: &str = "c19d05eeecfdf775a92a38e9449b3262e98217809e4f45477bb896a29bb85b5b";
/// A hash of nothing that is here.
const WRONG: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

/// What the device says of an image that it was offered.
fn announcement(presigned: &Value, event_id: &str, sha256: &str) -> Publish {
    let mut body = envelope("wv-001", event_id, "weighvision.image.captured");
    body["payload"] = json!({"mediaObjectId": presigned["media_id"], "sha256": sha256});
    let topic = "iot/weighvision/t-001/f-001/b-001/st-01/session/s-7/weighvision.image.captured";
    at_least_once(topic, body.to_string())
}

async fn announce(barn: &Barn, presigned: &Value, sha256: &str) {
    barn.device("wv-001").await.put(&announcement(presigned, &new_event_id(), sha256)).await;
}

/// A complete image whose hash was declared before it came.
async fn declared_first(barn: &Barn, sha256: &str) -> Value {
    let presigned = presign(barn).await;
    announce(barn, &presigned, sha256).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    assert_eq!(complete(barn, &presigned).await.0, 200);
    presigned
}

/// A complete image whose hash was declared afterwards.
async fn declared_last(barn: &Barn, sha256: &str) -> Value {
    let presigned = presign(barn).await;
    assert_eq!(put(&presigned, IMAGE).await, 200);
    assert_eq!(complete(barn, &presigned).await.0, 200);
    announce(barn, &presigned, sha256).await;
    presigned
}

/// Its hash, who says so, and what the device had declared.
async fn check(barn: &Barn, presigned: &Value, expected: [&str; 3]) {
    let id = presigned["media_id"].as_str().expect("an id");
    let (_, meta) = fetch(barn, &format!("/api/v1/media/objects/{id}/meta")).await;
    let meta: Value = serde_json::from_slice(&meta).expect("JSON");
    let found = ["sha256", "sha256_source", "declared_sha256"].map(|key| &meta["media"][key]);
    assert_eq!(found, expected, "{meta}");
    let (status, bytes) = fetch(barn, &format!("/api/v1/media/objects/{id}")).await;
    assert!(status == 200 && bytes == IMAGE, "{status}, {} bytes", bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_a_directory_that_is_not_the_declared_one_is_kept_and_told_of() {
    let barn = Barn::start_with(in_directory).await;
    check(&barn, &declared_first(&barn, RIGHT).await, [RIGHT, "computed", RIGHT]).await;
    check(&barn, &declared_last(&barn, &RIGHT.to_uppercase()).await, [RIGHT, "computed", RIGHT]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 0.0);
    check(&barn, &declared_first(&barn, WRONG).await, [RIGHT, "computed", WRONG]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 1.0);
    let last = declared_last(&barn, WRONG).await;
    check(&barn, &last, [RIGHT, "computed", WRONG]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 2.0);
    assert!(barn.has_complained("image is not the one its device declared"));
    // Nothing that is said later makes it the declared one, and it is counted once.
    announce(&barn, &last, RIGHT).await;
    announce(&barn, &last, WRONG).await;
    check(&barn, &last, [RIGHT, "computed", WRONG]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 2.0);
    barn.delivered(4).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_a_bucket_has_the_declared_hash() {
    let objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    check(&barn, &declared_first(&barn, RIGHT).await, [RIGHT, "declared", RIGHT]).await;
    let last = declared_last(&barn, RIGHT).await;
    check(&barn, &last, [RIGHT, "declared", RIGHT]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 0.0);
    announce(&barn, &last, WRONG).await;
    check(&barn, &last, [RIGHT, "declared", WRONG]).await;
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 1.0);
    barn.delivered(2).await;
    let sent =
        "SELECT count(*) FROM sync_outbox WHERE event_type = 'media.stored' AND payload_json->>'sha256' = ";
    assert_eq!(barn.db.count(&format!("{sent}'{RIGHT}'")).await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mqtt_copy_of_a_call_brings_the_hash_that_the_call_had_not() {
    let barn = Barn::start_with(in_directory).await;
    let presigned = presign(&barn).await;
    let call = json!({"tenantId": "t-001", "mediaObjectId": presigned["media_id"], "eventId": "e-7",
        "occurredAt": "2026-02-12T09:32:15.052Z"});
    let path = "/api/v1/weighvision/sessions/s-7/bind-media";
    let (status, bound) = post(barn.settings.http, path, &call).await;
    assert_eq!((status, &bound["isBound"]), (200, &json!(false)), "{bound}");
    let mut device = barn.device("wv-001").await;
    device.put(&announcement(&presigned, "e-7", RIGHT)).await;
    assert_eq!(barn.metric("ingress_deduped", "weighvision"), 1.0);
    assert_eq!(put(&presigned, IMAGE).await, 200);
    assert_eq!(complete(&barn, &presigned).await.0, 200);
    check(&barn, &presigned, [RIGHT, "computed", RIGHT]).await;
    barn.delivered(1).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_and_an_image_that_come_at_once_meet() {
    let barn = Barn::start_with(in_directory).await;
    let mut images = Vec::new();
    for _ in 0..8 {
        let presigned = presign(&barn).await;
        assert_eq!(put(&presigned, IMAGE).await, 200);
        images.push(presigned);
    }
    for presigned in &images {
        let (completed, ()) = tokio::join!(complete(&barn, presigned), announce(&barn, presigned, WRONG));
        assert_eq!(completed.0, 200);
    }
    let met = "SELECT count(*) FROM media_objects WHERE declared_sha256 <> sha256";
    assert_eq!(barn.db.count(met).await, 8);
    assert_eq!(barn.metric("media_sha256_mismatch", ""), 8.0);
    barn.delivered(8).await;
    barn.finish().await;
}
