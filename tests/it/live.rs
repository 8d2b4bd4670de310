//! What is seen live of a barn: the board, the stream, and the end of both.

use std::time::{Duration, Instant};

use actors::console::{ConsoleDesk, Guest, Role};
use schema::clock::Clock;
use schema::store::audit::Author;
use serde_json::{Value, json};
use tests::barn::{Barn, admit};
use tests::device::{Device, at_least_once, new_event_id, temperature_topic};
use tests::engine::Engine;
use tests::events::Events;
use tests::http::{exchange, send};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::net::{TcpSocket, TcpStream};

/// What is told once in two seconds, with time for the commit.
const SOON: Duration = Duration::from_secs(4);
/// Metrics of a device that says much, and readings of one call.
const METRICS: usize = 4000;
const EVENTS_MAX: usize = 1000;
/// Credentials are judged once a second; with time to tell.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);
/// What the engine may take to end.
const END_MAX: Duration = Duration::from_secs(10);

async fn get(settings: &Settings, path: &str) -> Value {
    let mut stream = TcpStream::connect(settings.http).await.expect("somebody listens");
    let head = format!("GET {path} HTTP/1.1\r\nx-tenant-id: t-001");
    let answer = exchange(&mut stream, &head, "").await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

fn reading(device: &str, value: f64) -> (String, String) {
    let now = Clock::system().now().to_rfc3339();
    let body = json!({"schema_version": "1.0", "event_id": new_event_id(), "tenant_id": "t-001", "device_id": device,
        "event_type": "telemetry.reading", "ts": now, "payload": {"value": value, "unit": "celsius"}});
    (temperature_topic(device), body.to_string())
}

async fn publish(device: &mut Device, name: &str, value: f64) {
    let (topic, body) = reading(name, value);
    device.put(&at_least_once(&topic, body)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_live_at_once_and_on_the_board_after_a_restart() {
    let mut barn = Barn::start().await;
    let headers = [("x-tenant-id", "t-001")];
    let mut events = Events::open(barn.settings.http, "/api/v1/stream?barn_id=b-001", &headers).await;
    assert_eq!(events.named("board").await.data["full"], true);
    let mut foreign = Events::open(barn.settings.http, "/api/v1/stream", &[("x-tenant-id", "t-002")]).await;
    foreign.named("board").await;
    let mut device = barn.device("d-1").await;
    let told_at = Instant::now();
    publish(&mut device, "d-1", 27.5).await;
    let event = events.named("board").await;
    assert!(told_at.elapsed() < SOON, "{:?}", told_at.elapsed());
    let entry = &event.data["entries"][0];
    assert_eq!(
        (&entry["device_id"], &entry["value"], &entry["barn_id"]),
        (&json!("d-1"), &json!(27.5), &json!("b-001"))
    );
    assert_eq!((&entry["unit"], &entry["source"]), (&json!("celsius"), &json!("live")));
    let board = get(&barn.settings, "/api/v1/board?barn_id=b-001").await;
    assert_eq!((&board["count"], &board["entries"][0]["value"]), (&json!(1), &json!(27.5)), "{board}");
    assert_eq!(get(&barn.settings, "/api/v1/board?barn_id=b-002").await["count"], 0);
    assert_eq!(events.named("sync").await.data["failed"], 0);
    drop(device);

    // The closed minute of a device that has been silent since.
    barn.db
        .execute(
            "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
                 avg_value, min_value, max_value, count, created_at)
             SELECT gen_random_uuid(), 't-001', d, '1m', t, t + interval '1 minute', m, v, v, v, 1, now()
             FROM (VALUES ('d-1', 'temperature', 27.5, 5), ('d-2', 'humidity', 61.0, 7), ('d-2', 'humidity', 99.0, 9),
                 ('nobody', 'humidity', 1.0, 5)) AS a (d, m, v, age),
                 LATERAL (SELECT date_trunc('minute', now()) - age * interval '1 minute') AS b (t)",
        )
        .await;
    barn.restart().await;
    assert_eq!(events.named("end").await.data["reason"], "stopping");
    assert_eq!(events.next().await, None);
    until("the board has read its rows", async || get(&barn.settings, "/api/v1/board").await["count"] == 2)
        .await;
    let board = get(&barn.settings, "/api/v1/board").await;
    let humidity = &board["entries"][1];
    assert_eq!(
        (&humidity["device_id"], &humidity["value"], &humidity["source"], &humidity["unit"]),
        (&json!("d-2"), &json!(61.0), &json!("aggregate"), &Value::Null)
    );
    let age = humidity["age_seconds"].as_i64().expect("an age");
    assert!((360..500).contains(&age), "{age}");
    let mut device = barn.device("d-1").await;
    publish(&mut device, "d-1", 28.0).await;
    until("what is heard goes before rows", async || {
        let board = get(&barn.settings, "/api/v1/board").await;
        board["entries"][0]["source"] == "live" && board["entries"][0]["value"] == 28.0
    })
    .await;
    while let Some(event) = foreign.next().await {
        assert!(event.name != "board" && event.name != "alarm", "{event:?}");
    }
    drop(device);
    barn.finish().await;
}

/// Readings of many metrics of one device.
async fn flood(settings: &Settings, round: usize) {
    let now = Clock::system().now().to_rfc3339();
    for part in 0..METRICS / EVENTS_MAX {
        let event = |number: usize| {
            let metric = format!("metric-with-a-long-name-{:04}", part * EVENTS_MAX + number);
            json!({"event_id": new_event_id(), "tenant_id": "t-001", "device_id": "d-1", "farm_id": "f-001", "barn_id": "b-001",
                "event_type": "telemetry.reading", "ts": now, "payload": {"metric": metric, "value": round}})
        };
        let events: Vec<_> = (0..EVENTS_MAX).map(event).collect();
        let mut stream = TcpStream::connect(settings.http).await.expect("somebody listens");
        let head = "POST /api/v1/telemetry/readings HTTP/1.1\r\ncontent-type: application/json\r\nx-tenant-id: t-001";
        let answer = exchange(&mut stream, head, &json!({"events": events}).to_string()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_hung_up_on() {
    let barn = Barn::start().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut slow = socket.connect(barn.settings.http).await.expect("somebody listens");
    send(&mut slow, "GET /api/v1/stream HTTP/1.1\r\nx-tenant-id: t-001", "").await.expect("the engine reads");
    until("the stream is open", async || barn.metric("stream_open", "") == 1.0).await;
    let mut round = 0;
    until("it is given up", async || {
        // Until the buffers of the system are full, too.
        flood(&barn.settings, round).await;
        round += 1;
        barn.metric("stream_ended", "slow") == 1.0
    })
    .await;
    // Nobody takes the last event, so the connection is ended.
    until("its place is free", async || barn.metric("stream_open", "") == 0.0).await;
    drop(slow);
    barn.finish().await;
}

/// A browser that logs in with the code of an invitation; its cookie.
async fn log_in(settings: &Settings, code: &str) -> String {
    let mut stream = TcpStream::connect(settings.http).await.expect("somebody listens");
    let head = "POST /login HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded";
    let answer = exchange(&mut stream, head, &format!("code={code}")).await.expect("an answer");
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    cookie.and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_open_ends_with_the_login_of_whoever_looks_at_it() {
    let barn = Barn::start_with(|settings| settings.set("auth.mode", "jwt")).await;
    let desk = ConsoleDesk { store: tests::postgres::store(&barn.db.url), clock: Clock::system() };
    let author = Author { actor: "shell:0".to_owned(), origin: "box".to_owned() };
    let invite = async |name: &str| {
        let tenants = vec!["t-001".to_owned()];
        let guest = Guest { name: name.to_owned(), role: Role::Viewer, tenants, key_mark: None };
        desk.invite(&guest, chrono::Duration::minutes(10), &author).await.expect("an invitation")
    };
    let leaver = log_in(&barn.settings, &invite("Somchai").await).await;
    let stayer = log_in(&barn.settings, &invite("Malee").await).await;
    let path = "/api/v1/stream?tenant_id=t-001&barn_id=b-001";
    let mut left = Events::open(barn.settings.http, path, &[("cookie", &*leaver)]).await;
    let mut stayed = Events::open(barn.settings.http, path, &[("cookie", &*stayer)]).await;
    left.named("board").await;
    stayed.named("board").await;

    let ended_at = Instant::now();
    assert_eq!(desk.end_all("Somchai", &author).await.expect("the database answers"), 1);
    assert_eq!(left.named("end").await.data["reason"], "removed");
    assert!(ended_at.elapsed() < REMOVED_WITHIN, "{:?}", ended_at.elapsed());
    assert_eq!(left.next().await, None);
    let status = async |cookie: &str| {
        let mut stream = TcpStream::connect(barn.settings.http).await.expect("somebody listens");
        let head = format!("GET {path} HTTP/1.1\r\ncookie: {cookie}");
        exchange(&mut stream, &head, "").await.expect("an answer").status
    };
    assert_eq!(status(&leaver).await, 401, "and no other is opened");

    // Who was not meant goes on, and hears nothing of another tenant.
    let mut device = barn.device("d-1").await;
    publish(&mut device, "d-1", 27.5).await;
    until("the reading is told", async || {
        let event = stayed.named("board").await;
        event.data["entries"][0]["device_id"] == "d-1"
    })
    .await;
    let mut foreign = TcpStream::connect(barn.settings.http).await.expect("somebody listens");
    let head = format!("GET /api/v1/stream?tenant_id=t-002 HTTP/1.1\r\ncookie: {stayer}");
    let answer = exchange(&mut foreign, &head, "").await.expect("an answer");
    assert_eq!(answer.status, 403, "{answer:?}");
    drop((device, stayed));
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_do_not_hold_the_end_up() {
    let db = Database::fresh().await;
    admit(&db).await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let headers = [("x-tenant-id", "t-001")];
        streams.push(Events::open(engine.settings.http, "/api/v1/stream", &headers).await);
    }
    for stream in &mut streams {
        stream.named("board").await;
    }
    let ended = engine.terminate().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.took < END_MAX, "{:?}", ended.took);
    for stream in &mut streams {
        assert_eq!(stream.named("end").await.data["reason"], "stopping");
    }
}
