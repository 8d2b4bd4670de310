//! The engine is told to end while something waits, and what it waits for never comes: it ends in order all the same. The
//! program itself ends with a failure after ten seconds, so its exit code tells both.

use serde_json::json;
use tests::barn::admit;
use tests::device::{Device, new_event_id, reading};
use tests::engine::Engine;
use tests::http::{exchange, send};
use tests::postgres::Database;
use tests::server::Server;
use tests::settings::Settings;
use tests::wait::until;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const STATE: &str = "GET /api/v1/sync/state HTTP/1.1";

async fn settings() -> Settings {
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = Settings::of(&db.url).set("auth.admin_enabled", "true");
    let base = format!("http://{}", settings.http);
    settings.set("media.public_base_url", &base).set("retention.free_disk_gb_min", "0")
}

async fn ends_in_order(engine: &mut Engine) {
    let ended = engine.terminate().await;
    assert_eq!(ended.code, Some(0), "after {:?}\n{}", ended.took, engine.log());
}

/// Connects, and sends the beginning of a request whose end never comes.
async fn begin(engine: &Engine, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(engine.settings.http).await.expect("somebody listens");
    stream.write_all(request.as_bytes()).await.expect("the engine reads");
    // The request is in flight once a later one on another connection was answered.
    let mut other = TcpStream::connect(engine.settings.http).await.expect("somebody listens");
    assert_eq!(exchange(&mut other, STATE, "").await.expect("an answer").status, 200);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_never_comes_is_given_up() {
    let mut engine = Engine::start(settings().await).await;
    let _slow = begin(
        &engine,
        "POST /api/v1/sync/unclaim-stuck HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 2\r\n\r\n",
    )
    .await;
    ends_in_order(&mut engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_half_way_is_given_up() {
    let mut engine = Engine::start(settings().await).await;
    let mut stream = TcpStream::connect(engine.settings.http).await.expect("somebody listens");
    let wish = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
        "content_type": "image/jpeg", "filename": "left.jpg"});
    let head =
        "POST /api/v1/media/images/presign HTTP/1.1\r\ncontent-type: application/json\r\nx-tenant-id: t-001";
    let offered = exchange(&mut stream, head, &wish.to_string()).await.expect("an answer");
    assert_eq!(offered.status, 200, "{offered:?}");
    let offered: serde_json::Value = serde_json::from_str(&offered.body).expect("JSON");
    let url = offered["upload_url"].as_str().expect("a URL");
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("a path").1;
    let _half = begin(
        &engine,
        &format!(
            "PUT /{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\ncontent-length: 100000\r\n\r\n\
             the first bytes"
        ),
    )
    .await;
    ends_in_order(&mut engine).await;
}

/// A server that takes every connection and never says a word.
async fn silent(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tasks.spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbors_that_never_answer_do_not_hold_the_end_up() {
    let mut tasks = JoinSet::new();
    let (cloud, bucket) = (silent(&mut tasks).await, silent(&mut tasks).await);
    let rabbit = silent(&mut tasks).await;
    let settings = settings()
        .await
        .set("cloud.url", &format!("http://{cloud}/api/v1/edge/batch"))
        .set("media.endpoint", &format!("http://{bucket}"))
        .set("media.access_key", "key")
        .set("media.secret_key", "secret")
        .set("inference.queue", "rabbitmq")
        .set("inference.rabbitmq_url", &format!("amqp://user:password@{rabbit}/"))
        .set("metrics.statsd_address", "nobody.invalid:8125");
    let mut engine = Engine::start(settings).await;
    let mut device = Device::connect(engine.settings.mqtt, "d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;
    ends_in_order(&mut engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_does_not_hold_the_end_up() {
    let server = Server::start().await;
    admit(&server.database().await).await;
    let mut engine = Engine::start(Settings::of(&server.url())).await;
    let mut device = Device::connect(engine.settings.mqtt, "d-1").await;
    server.freeze();
    device.send(&reading("d-1", &new_event_id())).await;
    let mut asking = TcpStream::connect(engine.settings.http).await.expect("somebody listens");
    send(&mut asking, STATE, "").await.expect("the engine reads");
    ends_in_order(&mut engine).await;
    engine.spawn();
    until("it starts once more", async || engine.log().matches("farmiq-edge starts").count() == 2).await;
    ends_in_order(&mut engine).await;
    server.thaw();
}
