//! The limits of the HTTP port, seen from outside, through real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::barn::Barn;
use tests::descriptors;
use tests::device::new_event_id;
use tests::engine::Engine;
use tests::http::{Answer, exchange, receive, send};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Another host.
const NEIGHBOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const IN_FLIGHT_MAX: usize = 256;
const STATE: &str = "GET /api/v1/sync/state HTTP/1.1";
/// The head of a request whose two bytes of body are still to come.
const UNFINISHED: &str = "POST /api/v1/sync/unclaim-stuck HTTP/1.1\r\nhost: localhost\r\n\
    content-type: application/json\r\ncontent-length: 2\r\n\r\n";

async fn barn() -> Barn {
    Barn::start_with(|settings| settings.set("auth.admin_enabled", "true")).await
}

async fn connect(http: SocketAddr) -> TcpStream {
    TcpStream::connect(http).await.expect("somebody listens")
}

async fn connect_from(from: Ipv4Addr, http: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("an address of this machine");
    socket.connect(http).await.expect("somebody listens")
}

async fn get(http: SocketAddr, head: &str) -> Answer {
    exchange(&mut connect(http).await, head, "").await.expect("an answer")
}

/// A connection with a request in flight, which ends when it is sent `{}`: the engine has asked for its body.
async fn in_flight(http: SocketAddr) -> TcpStream {
    const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut stream = connect(http).await;
    let head = UNFINISHED.replace("content-length: 2\r\n", "content-length: 2\r\nexpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.expect("the engine reads");
    let mut told = [0; GO_ON.len()];
    stream.read_exact(&mut told).await.expect("the engine answers");
    assert_eq!(told, GO_ON, "{}", String::from_utf8_lossy(&told));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn the_257th_request_in_flight_is_turned_away_until_others_have_ended() {
    let barn = barn().await;
    let http = barn.settings.http;
    let mut waiting = Vec::new();
    for _ in 0..IN_FLIGHT_MAX {
        waiting.push(in_flight(http).await);
    }
    let refused = get(http, STATE).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: 1\r\n"), "{refused:?}");
    assert!(refused.body.contains("\"NOT_READY\""), "{refused:?}");
    assert_eq!(
        get(http, "GET /api/health HTTP/1.1").await.status,
        200,
        "whoever decides by it gets an answer"
    );
    waiting[0].write_all(b"{}").await.expect("the engine reads");
    assert_eq!(receive(&mut waiting[0]).await.expect("an answer").status, 200);
    drop(waiting);
    until("there is room again", async || get(http, STATE).await.status == 200).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_however_many_connections_of_one_host_are_idle() {
    const IDLE: usize = 1400;
    descriptors::make_room(8192);
    let barn = barn().await;
    let http = barn.settings.http;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect_from(NEIGHBOR, http).await);
    }
    for path in ["/api/health", "/health", "/api/ready", "/ready", "/metrics"] {
        let mut stream = connect_from(NEIGHBOR, http).await;
        let answer = exchange(&mut stream, &format!("GET {path} HTTP/1.1"), "").await.expect("an answer");
        assert_eq!(answer.status, 200, "{path} {answer:?}");
    }
    let refused = exchange(&mut connect_from(NEIGHBOR, http).await, STATE, "").await.expect("an answer");
    assert_eq!(refused.status, 503, "its address has all places it may have: {refused:?}");
    assert!(refused.body.contains("\"too many connections\""), "{refused:?}");
    assert_eq!(get(http, STATE).await.status, 200, "another address has places left");
    drop(idle);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_head_is_cut_off() {
    let barn = barn().await;
    let mut slow = connect(barn.settings.http).await;
    slow.write_all(b"GET /api/health HTTP/1.1\r\nhost: ").await.expect("the engine reads");
    let mut rest = Vec::new();
    let ended = slow.read_to_end(&mut rest).await;
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{ended:?} {}",
        String::from_utf8_lossy(&rest)
    );
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let barn = barn().await;
    let mut stream = connect(barn.settings.http).await;
    let head = UNFINISHED.replace("content-length: 2", "content-length: 1048577");
    stream.write_all(head.as_bytes()).await.expect("the engine reads");
    let answer = receive(&mut stream).await.expect("an answer");
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.body.contains("\"BODY_TOO_LARGE\""), "{answer:?}");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_although_the_engine_is_told_to_end() {
    let barn = barn().await;
    let http = barn.settings.http;
    let mut last = in_flight(http).await;
    // The request is known to be in flight once a later one on the same engine was answered.
    let mut other = connect(http).await;
    send(&mut other, STATE, "").await.expect("the engine reads");
    assert_eq!(receive(&mut other).await.expect("an answer").status, 200);
    let ending = barn.finish();
    let finishing = async {
        until("nobody is let in any more", async || TcpStream::connect(http).await.is_err()).await;
        last.write_all(b"{}").await.expect("the engine still reads");
        receive(&mut last).await.expect("an answer")
    };
    let (_, answer) = tokio::join!(ending, finishing);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_calls_left_behind_while_the_database_hangs_is_bounded_and_goes() {
    const READINGS: usize = 1000;
    let barn = barn().await;
    let http = barn.settings.http;
    barn.db.execute("BEGIN; LOCK TABLE telemetry_raw").await;
    let head = "POST /api/v1/telemetry/readings HTTP/1.1\r\ncontent-type: application/json";
    // Clients give up and come again, until one is told that there is no room.
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let (mut stream, body) = (connect(http).await, readings(READINGS));
        calls.spawn(async move {
            let call = exchange(&mut stream, head, &body);
            timeout(Duration::from_secs(2), call).await.ok()?.ok()
        });
    }
    let mut refused = None;
    while refused.is_none() {
        refused = calls.join_next().await.expect("one of them is refused").expect("it does not panic");
    }
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("too much waits"), "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: 1\r\n"), "{refused:?}");
    calls.shutdown().await;
    barn.db.execute("COMMIT").await;
    until("there is room again", async || {
        let mut stream = connect(http).await;
        exchange(&mut stream, head, &readings(1)).await.expect("an answer").status == 200
    })
    .await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_takes_as_many_descriptors_as_it_may_have() {
    let own = getrlimit(Resource::Nofile);
    // What the engine is started with, as by a service manager.
    setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..own }).expect("it may be lowered");
    let engine = Engine::start(Settings::of(&Database::fresh().await.url)).await;
    setrlimit(Resource::Nofile, own).expect("it may be raised again");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.pid())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let [soft, hard] = [3, 4].map(|column| line.split_whitespace().nth(column).expect("a column"));
    assert_eq!(soft, hard, "{line}");
}

fn readings(count: usize) -> String {
    let reading = |_| {
        json!({"event_id": new_event_id(), "tenant_id": "t-001", "device_id": "d-1", "ts": "2026-02-12T09:32:15.052Z",
            "event_type": "telemetry.reading", "payload": {"metric": "temperature", "value": 25.5}})
    };
    json!({"events": (0..count).map(reading).collect::<Vec<_>>()}).to_string()
}
