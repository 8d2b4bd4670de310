//! A bucket that refuses: what its answers mean, and what they never lead to.

use std::sync::Arc;

use actors::media::store::{MediaStoreError, ObjectRef, Part};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use tests::settings::free_address;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// What a server says to a request for the bucket itself, or else for an object.
type Says = Arc<dyn Fn(&Method, bool) -> (u16, &'static str) + Send + Sync>;

/// A server that always says the same.
struct Refusal {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Refusal {
    async fn start(says: impl Fn(&Method, bool) -> (u16, &'static str) + Send + Sync + 'static) -> Self {
        let (address, says) = (free_address(), Arc::new(says) as Says);
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listener");
                let says = Arc::clone(&says);
                let service = service_fn(move |request| {
                    let answer = answer(&says, &request);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(serving.await) });
            }
        });
        Self { address, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn store(&self) -> S3Store {
        S3Store::new(&S3Settings {
            endpoint: Some(self.url()),
            presign_endpoint: None,
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            is_bucket_made: false,
        })
    }
}

/// An answer to HEAD has no body, as with S3.
fn answer(says: &Says, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_object = request.uri().path().trim_matches('/') != BUCKET;
    let (status, code) = says(request.method(), is_object);
    let body = match code {
        _ if request.method() == Method::HEAD => String::new(),
        "" => String::new(),
        code => format!("<Error><Code>{code}</Code><Message>no</Message></Error>"),
    };
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(Full::from(body))
        .expect("an answer")
}

fn object() -> ObjectRef {
    ObjectRef { object_key: "tenants/t-001/a.jpg".to_owned(), path: None }
}

#[tokio::test]
async fn what_is_forbidden_to_who_may_not_list_is_absent() {
    // With what answers the bucket itself, and GET: a right to look at the bucket does not go with one to list it
    // everywhere, and not every server names a reason.
    for (bucket, get) in [(200, "AccessDenied"), (403, "AccessDenied"), (200, ""), (403, "")] {
        let says = move |_: &Method, is_object| if is_object { (403, get) } else { (bucket, "AccessDenied") };
        let store = Refusal::start(says).await;
        let (place, store) = (object(), store.store());
        assert!(store.head(&place).await.expect("an answer").is_none(), "{bucket} {get}");
        assert!(store.open(&place, Part::Whole).await.expect("an answer").is_none(), "{bucket} {get}");
        assert_eq!(store.delete(&place).await.expect("an answer"), None, "{bucket} {get}");
        store.probe().await.expect("it is usable for who knows the keys");
    }
}

#[tokio::test]
async fn a_credential_or_a_clock_that_is_wrong_makes_nothing_absent() {
    for code in [
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "RequestTimeTooSkewed",
        "ExpiredToken",
        "AuthorizationHeaderMalformed",
    ] {
        let refusal = Refusal::start(move |_, _| (403, code)).await;
        let store = refusal.store();
        let errors = [
            store.head(&object()).await.map(drop).expect_err("nothing is known"),
            store.open(&object(), Part::Whole).await.map(drop).expect_err("nothing is known"),
            store.probe().await.expect_err("it is of no use"),
        ];
        for error in errors {
            let MediaStoreError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
            assert!(source.to_string().contains(code), "{source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_forbidden_to_be_asked_for_is_not_found_and_expires() {
    let refusal = Refusal::start(|method, is_object| {
        if is_object && method == Method::HEAD {
            (403, "")
        } else if is_object {
            (403, "AccessDenied")
        } else {
            (200, "")
        }
    })
    .await;
    let barn = Barn::start_with(|settings| {
        in_directory(settings)
            .set("media.endpoint", &refusal.url())
            .set("media.bucket", BUCKET)
            .set("media.access_key", ACCESS_KEY)
            .set("media.secret_key", SECRET_KEY)
    })
    .await;
    let presigned = presign(&barn).await;
    for _ in 0..3 {
        let (status, body) = complete(&barn, &presigned).await;
        assert_eq!((status, body["error"]["code"].as_str()), (404, Some("OBJECT_NOT_FOUND")), "{body}");
    }
    barn.db.execute("UPDATE media_uploads SET expires_at = now()").await;
    let expired = "SELECT count(*) FROM media_uploads WHERE status = 'expired'";
    until("the upload expires", async || barn.db.count(expired).await == 1).await;
    let advice = "the credential lacks a right on the bucket: s3:ListBucket, else s3:GetObject";
    assert_eq!(barn.complaints(advice), 1, "it is said once");
    barn.finish_after(advice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_in_a_bucket_is_not_completed_and_expires() {
    let objects = Objects::start().await;
    let barn = Barn::start_with(|settings| objects.of(in_directory(settings))).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    let bodies: [&'static [u8]; 3] = [b"", b"<html></html>", b"GIF89a\x01\0\x01\0"];
    let mut left = Vec::new();
    for body in bodies {
        let presigned = presign(&barn).await;
        assert_eq!(put(&presigned, body).await, 200, "the bucket takes everything");
        let key = presigned["object_key"].clone();
        let said = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
            "object_key": key, "mime_type": "image/jpeg"});
        let (status, body) = post(barn.settings.http, "/api/v1/media/images/complete", &said).await;
        assert_eq!((status, body["error"]["code"].as_str()), (409, Some("CONTENT_TYPE_MISMATCH")), "{body}");
        left.push(presigned);
    }
    // A good one in the place of the first is what counts.
    assert_eq!(put(&left[0], IMAGE).await, 200);
    assert_eq!(complete(&barn, &left[0]).await.0, 200);
    barn.db.execute("UPDATE media_uploads SET expires_at = now(), next_look_at = NULL").await;
    let expired = "SELECT count(*) FROM media_uploads WHERE status = 'expired'";
    until("the others expire", async || barn.db.count(expired).await == 2).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM media_objects").await, 1);
    barn.delivered(1).await;
    barn.finish().await;
}
