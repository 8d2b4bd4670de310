//! The webhook and ntfy, at a receiver that checks what it gets: over TLS with a CA of its own, failing and hanging.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::alarm::way::ntfy::{Ntfy, NtfySettings};
use actors::alarm::way::webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, WebhookSettings, signature};
use actors::alarm::way::{Failure, Language, MessageKind};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use schema::clock::Clock;
use serde_json::{Value, json};
use tests::certificates::{Authority, accept_tls};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{message, only};

/// What came in.
#[derive(Clone, Debug)]
struct Got {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Value,
    bytes: Bytes,
}

/// A receiver that answers with these statuses, one after the other, and with the last one for ever.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    _serving: JoinSet<()>,
}

fn router(statuses: &'static [u16], got: Arc<Mutex<Vec<Got>>>) -> Router {
    Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, bytes: Bytes| {
        let got = Arc::clone(&got);
        async move {
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let mut got = got.lock().expect("nobody panics");
            let status = statuses[got.len().min(statuses.len() - 1)];
            got.push(Got { method, path: uri.path().to_owned(), headers, body, bytes });
            (StatusCode::from_u16(status).expect("a status"), format!("number {}", got.len()))
        }
    })
}

impl Receiver {
    async fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, got) = (listener.local_addr().expect("it listens"), Arc::default());
        let router = router(statuses, Arc::clone(&got));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, got, _serving: serving }
    }

    /// The same over TLS; the PEM of its authority is written to `ca`.
    async fn start_encrypted(ca: &Path) -> Self {
        let authority = Authority::new("receivers");
        std::fs::write(ca, authority.pem()).expect("a file can be written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, got) = (listener.local_addr().expect("it listens"), Arc::default());
        let router = router(&[200], Arc::clone(&got));
        let mut serving = JoinSet::new();
        let signed = authority.server();
        serving.spawn(async move { accept_tls(listener, &signed, router).await });
        Self { address, got, _serving: serving }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().expect("nobody panics").clone()
    }
}

fn webhook(url: String) -> WebhookSettings {
    WebhookSettings { url, hmac_secret_file: None, tls_ca: None, timeout_seconds: 2, attempts_max: 3 }
}

fn hook(settings: WebhookSettings) -> Webhook {
    Webhook::new("office", settings, Clock::system())
}

fn secret(home: &Path) -> PathBuf {
    let path = home.join("secret");
    std::fs::write(&path, "hush\n").expect("a file can be written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_anew_for_each_try_and_says_the_same_telling_each_time() {
    let home = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start(&[503, 429, 200]).await;
    let settings = WebhookSettings {
        hmac_secret_file: Some(secret(home.path())),
        ..webhook(format!("http://{}/alarms?barn=1", receiver.address))
    };
    let ways = only(hook(settings));
    let receipt = ways.tell("office", &message(MessageKind::Raised)).await.expect("the third try is taken");
    assert_eq!(receipt.detail, "200 OK number 3");
    let got = receiver.got();
    assert_eq!(got.len(), 3);
    for got in &got {
        let timestamp = got.headers[TIMESTAMP_HEADER].to_str().expect("text").parse().expect("a number");
        assert_eq!(got.headers[SIGNATURE_HEADER], signature("hush", timestamp, &got.bytes));
        assert_eq!(got.headers["x-idempotency-key"], "00000000-0000-0000-0000-000000000000-1-0-raised");
        assert_eq!(got.body["title"]["th"], "โรงเรือนร้อนเกินไป");
        assert_eq!((&got.body["kind"], &got.body["class"]), (&json!("raised"), &json!("critical")));
    }
    let stamps: Vec<_> = got.iter().map(|got| got.headers[TIMESTAMP_HEADER].clone()).collect();
    assert!(stamps[0] != stamps[1] && stamps[1] != stamps[2], "{stamps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_refused_is_not_tried_again_and_one_that_hangs_is_given_up() {
    let failure = async |url: String| {
        let ways = only(hook(webhook(url)));
        let error =
            ways.tell("office", &message(MessageKind::Raised)).await.expect_err("it does not get out");
        assert!(!error.advice.is_empty() && !error.to_string().contains("u:p"), "{error}");
        error.failure
    };
    let receiver = Receiver::start(&[401]).await;
    assert_eq!(failure(format!("http://{}/", receiver.address)).await, Failure::Refused);
    assert_eq!(receiver.got().len(), 1, "a wrong secret stays wrong");
    let receiver = Receiver::start(&[302]).await;
    assert_eq!(failure(format!("http://{}/", receiver.address)).await, Failure::Refused);
    let receiver = Receiver::start(&[500]).await;
    assert_eq!(failure(format!("http://{}/", receiver.address)).await, Failure::Refused);
    assert_eq!(receiver.got().len(), 3);
    assert_eq!(failure("http://127.0.0.1:1/".to_owned()).await, Failure::Unreachable);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let began_at = Instant::now();
    let url = format!("http://{}/", silent.local_addr().expect("it listens"));
    assert_eq!(failure(url).await, Failure::TimedOut);
    assert!(began_at.elapsed() < Duration::from_secs(9), "three tries of two seconds");
    let ways = only(hook(WebhookSettings {
        hmac_secret_file: Some("/nowhere".into()),
        ..webhook("http://127.0.0.1:1/".into())
    }));
    assert_eq!(ways.reach("office").await.expect_err("no secret").failure, Failure::Broken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_trusts_the_authority_it_was_told_of_and_no_other() {
    let home = tempfile::tempdir().expect("a directory");
    let ca = home.path().join("ca.pem");
    let receiver = Receiver::start_encrypted(&ca).await;
    let url = format!("https://localhost:{}/alarms", receiver.address.port());
    let ways = only(hook(WebhookSettings { tls_ca: Some(ca), ..webhook(url.clone()) }));
    ways.reach("office").await.expect("it answers");
    ways.tell("office", &message(MessageKind::Ended)).await.expect("it is taken");
    let got = receiver.got();
    assert_eq!(got.iter().map(|got| got.method.clone()).collect::<Vec<_>>(), [Method::HEAD, Method::POST]);
    let other = home.path().join("other.pem");
    std::fs::write(&other, Authority::new("others").pem()).expect("a file can be written");
    let ways = only(hook(WebhookSettings { tls_ca: Some(other), attempts_max: 1, ..webhook(url) }));
    let error = ways.tell("office", &message(MessageKind::Raised)).await.expect_err("it is not trusted");
    assert_eq!((error.failure, receiver.got().len()), (Failure::Unreachable, 2), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ntfy_gets_what_its_description_of_json_asks_for() {
    let home = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start(&[200]).await;
    let settings = NtfySettings {
        url: format!("http://{}", receiver.address),
        topic: "barn-1".to_owned(),
        token_file: Some(secret(home.path())),
        tls_ca: None,
        click: Some("http://10.0.0.5:3000/".to_owned()),
        language: Language::Th,
        timeout_seconds: 2,
        attempts_max: 1,
    };
    let ways = only(Ntfy::new("phones", settings.clone()));
    ways.reach("phones").await.expect("it is well");
    for kind in [MessageKind::Raised, MessageKind::Ended] {
        ways.tell("phones", &message(kind)).await.expect("it is taken");
    }
    let got = receiver.got();
    assert_eq!((got[0].method.clone(), got[0].path.as_str()), (Method::GET, "/v1/health"));
    assert!(got.iter().all(|got| got.headers["authorization"] == "Bearer hush"));
    // Published as JSON, a message goes to the root of the server, and its topic is in the body.
    assert_eq!((got[1].method.clone(), got[1].path.as_str()), (Method::POST, "/"));
    let expected = json!({"topic": "barn-1", "title": "Barn 1: โรงเรือนร้อนเกินไป",
        "message": "35.2 °C เกินขีดจำกัด 35 °C\nnorth\nตรวจพัดลม", "priority": 5,
        "tags": ["rotating_light", "critical", "house_hot"], "click": "http://10.0.0.5:3000/"});
    assert_eq!(got[1].body, expected);
    assert_eq!(
        (&got[2].body["priority"], &got[2].body["title"]),
        (&json!(2), &json!("สิ้นสุดแล้ว: Barn 1: โรงเรือนร้อนเกินไป"))
    );
    let receiver = Receiver::start(&[403]).await;
    let ways =
        only(Ntfy::new("phones", NtfySettings { url: format!("http://{}", receiver.address), ..settings }));
    let error = ways.tell("phones", &message(MessageKind::Raised)).await.expect_err("it is refused");
    assert!(
        error.failure == Failure::Refused
            && error.advice.contains("token")
            && !error.to_string().contains("hush")
    );
}
