//! Strangers who would break the door, while devices publish: the devices notice nothing.

#![expect(clippy::print_stdout, reason = "figures that a reader of the test wants to see")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use loadtest::mqtt::{self, Login, connect_packet, put_publish};
use rustls::version::TLS13;
use tests::barn::admit;
use tests::certificates::connect;
use tests::descriptors;
use tests::device::{Device, TENANT, at_least_once, new_event_id, reading};
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::site::Site;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Sockets that are opened and never log in.
const SLOW_LORISES: usize = 2000;
/// Handshakes that are begun and never ended.
const HALF_OPEN: usize = 500;
/// Connections that are reset right after their CONNECT.
const RESETS: usize = 1000;
/// The time from the first byte to the login, and how much later a busy machine may notice.
const LOGIN_MAX: Duration = Duration::from_secs(10 + 10);
/// Devices that publish all the time.
const DEVICES: usize = 8;

/// Devices at work beside an attack.
struct Devices {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<String>>,
}

impl Devices {
    /// Lets every device publish one reading after the other, each after the last was acknowledged.
    async fn start(mqtt: SocketAddr) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for number in 0..DEVICES {
            let name = format!("d-{number}");
            let mut device = Device::connect(mqtt, &name).await;
            let stopped = stop.subscribe();
            tasks.spawn(async move {
                let mut ids = Vec::new();
                while !*stopped.borrow() {
                    let id = new_event_id();
                    // Fails when the connection breaks or no acknowledgement comes.
                    device.put(&reading(&name, &id)).await;
                    ids.push(id);
                }
                ids
            });
        }
        Self { stop, tasks }
    }

    /// Checks that no device lost its connection and every reading is stored.
    async fn finish(mut self, db: &Database) {
        self.stop.send_replace(true);
        let mut acknowledged = 0;
        while let Some(ended) = self.tasks.join_next().await {
            let ids = ended.expect("no device notices anything");
            assert!(!ids.is_empty(), "a device was not acknowledged at all");
            acknowledged += ids.len();
        }
        let stored = db.count("SELECT count(*) FROM telemetry_raw").await;
        assert_eq!(usize::try_from(stored), Ok(acknowledged), "acknowledged but not stored");
        println!("{acknowledged} readings of {DEVICES} devices acknowledged meanwhile");
    }
}

/// An engine of its own process, and what it stores.
async fn engine(change: impl FnOnce(Settings) -> Settings) -> (Database, Engine) {
    descriptors::make_room(10_000);
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = Settings::of(&db.url).set("broker.connections_max", "4000");
    let engine = Engine::start(change(settings)).await;
    (db, engine)
}

/// Ends the engine; nothing in it broke.
async fn finish(mut engine: Engine) {
    assert_eq!(engine.metric("engine_restarts", "").await, 0.0);
    assert!(!engine.log().contains("panicked"), "something panicked");
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// Connects from one of the many addresses that this machine has.
async fn connect_from(host: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 9, host), 0).into()).expect("an address of this machine");
    socket.connect(address).await.expect("somebody listens")
}

/// Waits until the engine closes every one of these; says what the slowest took.
async fn all_closed(streams: Vec<TcpStream>) -> Duration {
    let started = Instant::now();
    for mut stream in streams {
        let mut rest = Vec::new();
        // A reset is as good an end as any.
        let ended = timeout(LOGIN_MAX, stream.read_to_end(&mut rest)).await;
        drop(ended.expect("the engine closes the connection in time"));
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_slow_lorises_end_by_the_deadline() {
    let (db, engine) = engine(|settings| settings).await;
    let mqtt = engine.settings.mqtt;
    let devices = Devices::start(mqtt).await;
    let hello =
        connect_packet(&Login { client_id: "slow".to_owned(), ..Login::default() }).expect("a packet");
    let mut lorises = Vec::new();
    for number in 0..SLOW_LORISES {
        let host = u8::try_from(number % 20).expect("a small number");
        let mut stream = connect_from(host, mqtt).await;
        stream.write_all(&hello[..number % hello.len()]).await.expect("the engine listens");
        lorises.push(stream);
    }
    // Whoever comes new is let in beside them.
    Device::connect(mqtt, "newcomer").await.publish("iot/x", "x").await;
    // A byte now and then is no sign of life.
    for (number, stream) in lorises.iter_mut().enumerate().step_by(10) {
        drop(stream.write_all(&hello[number % hello.len()..][..1]).await);
    }
    println!("{SLOW_LORISES} closed after {:?}", all_closed(lorises).await);
    devices.finish(&db).await;
    finish(engine).await;
}

/// Each stops at another point: says nothing, half a greeting, a greeting and then nothing.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_keep_nobody_out() {
    let site = Site::new();
    let (db, engine) = engine(|settings| site.settings(settings).set("broker.allow_anonymous", "true")).await;
    let devices = Devices::start(engine.settings.mqtt).await;
    let greeting = client_hello();
    let mut half_open = Vec::new();
    for number in 0..HALF_OPEN {
        let mut stream = TcpStream::connect(site.tls).await.expect("somebody listens");
        let said = [0, greeting.len() / 2, greeting.len(), greeting.len()][number % 4];
        stream.write_all(&greeting[..said]).await.expect("the engine listens");
        half_open.push(stream);
    }
    let own = site.device_ca.device("d-9", Some(TENANT));
    let started = Instant::now();
    let mut device = connect(site.tls, &site.server_ca, &TLS13, Some(&own)).await.expect("it is let in");
    mqtt::introduce(&mut device, &Login { client_id: "d-9".to_owned(), ..Login::default() })
        .await
        .expect("it is let in");
    let took = started.elapsed();
    println!("a device shook hands in {took:?} beside {HALF_OPEN} that did not");
    assert!(took < LOGIN_MAX, "it had to wait for them");
    println!("{HALF_OPEN} closed after {:?}", all_closed(half_open).await);
    devices.finish(&db).await;
    finish(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_resets_after_the_connect_harm_nobody() {
    let (db, engine) = engine(|settings| settings).await;
    let mqtt = engine.settings.mqtt;
    let devices = Devices::start(mqtt).await;
    let hello =
        connect_packet(&Login { client_id: "reset".to_owned(), ..Login::default() }).expect("a packet");
    for _ in 0..RESETS {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_zero_linger().expect("it can be set");
        let mut stream = socket.connect(mqtt).await.expect("somebody listens");
        stream.write_all(&hello).await.expect("the engine listens");
        drop(stream);
    }
    devices.finish(&db).await;
    finish(engine).await;
}

/// What a client sends after its login, and whether it is still connected afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn packets_at_every_limit_harm_nobody() {
    let (db, engine) = engine(|settings| settings).await;
    let mqtt = engine.settings.mqtt;
    let devices = Devices::start(mqtt).await;
    for length in [0, 1, 23, 65_535] {
        let login = Login { client_id: "x".repeat(length), ..Login::default() };
        let mut stream = TcpStream::connect(mqtt).await.expect("somebody listens");
        let answer = timeout(LOGIN_MAX, mqtt::introduce(&mut stream, &login)).await.expect("an end in time");
        // Longer ones than these the protocol leaves to the server.
        assert!(answer.is_ok() || length > 23, "a client id of {length} bytes: {answer:?}");
    }
    let deep = |levels: usize| vec!["x"; levels].join("/");
    let topics = [
        "\u{e9}".to_owned(),
        "\u{1f414}/x".to_owned(),
        "x".repeat(65_535),
        deep(32_768),
        deep(128),
        deep(129),
    ];
    let mut device = Device::connect(mqtt, "topics").await;
    for topic in topics {
        device.put(&at_least_once(&topic, "x")).await;
    }
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a PINGREQ with a body", vec![0xc0, 2, 0, 0]),
        ("a filter of 65,535 bytes", subscribe(&"x".repeat(65_535))),
        ("a filter of 32,768 levels", subscribe(&deep(32_768))),
        ("a filter of 129 levels", subscribe(&deep(129))),
        ("a topic that is no UTF-8", [&[0x32, 6, 0, 2][..], &[0xc3, 0x28, 0, 1]].concat()),
        ("a PUBLISH that never ends", vec![0x32, 0xff, 0xff, 0xff, 0x7f, 0, 1]),
    ];
    for (what, bytes) in cases {
        let login = Login { client_id: "limits".to_owned(), ..Login::default() };
        let mut stream = mqtt::connect(&mqtt.to_string(), &login).await.expect("it is let in");
        drop(stream.write_all(&bytes).await);
        drop(stream.write_all(&mqtt::PINGREQ).await);
        let mut answer = [0; 2];
        // An answer, a goodbye or an end: but none of them waits for ever, and nobody else is hurt.
        let answered = timeout(Duration::from_secs(45), stream.read(&mut answer)).await;
        println!("{what}: {answered:?} {answer:02x?}");
        answered.expect("an answer or an end").ok();
    }
    let mut packet = Vec::new();
    put_publish(&mut packet, &at_least_once("iot/x", vec![0; 2 << 20]), 1, false);
    let login = Login { client_id: "large".to_owned(), ..Login::default() };
    let mut stream = mqtt::connect(&mqtt.to_string(), &login).await.expect("it is let in");
    stream.write_all(&packet).await.expect("it is read to its end");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, [0x40, 2, 0, 1], "a message of 2 MiB is recorded and acknowledged");
    devices.finish(&db).await;
    finish(engine).await;
}

fn subscribe(filter: &str) -> Vec<u8> {
    let length = u16::try_from(filter.len()).expect("a filter that can be sent").to_be_bytes();
    let body = [&[0, 1][..], &length, filter.as_bytes(), &[0]].concat();
    let mut packet = vec![0x82];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left & 0x7f).expect("seven bits");
        left >>= 7;
        packet.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    [packet, body].concat()
}

/// The first words of a TLS client, which trusts nobody.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks both versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a host name");
    let mut client =
        rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("a client can begin");
    let mut words = Vec::new();
    client.write_tls(&mut words).expect("a vector takes everything");
    words
}
