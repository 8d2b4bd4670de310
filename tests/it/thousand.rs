//! A thousand encrypted connections, in both versions of MQTT and at both QoS that are acknowledged, while the engine is
//! killed and while its database is away.

#![expect(clippy::print_stdout, reason = "figures that a reader of the test wants to see")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use loadtest::mqtt::{self, Login, Refused, Version};
use loadtest::publisher::Link;
use loadtest::stream::{Stream, Tls};
use tests::descriptors;
use tests::device::TENANT;
use tests::engine::Engine;
use tests::load::{Line, Load};
use tests::postgres::Database;
use tests::server::Server;
use tests::settings::Settings;
use tests::site::Site;
use tests::wait::until;

/// How long the database is away: longer than new clients are let in without it.
const AWAY: Duration = Duration::from_secs(20);
/// Database trouble after which new clients are turned away.
const STALL_SECONDS: u64 = 3;
/// What was committed before the end may still be acknowledged within this time.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How much memory an outage may cost.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Unacknowledged messages of a connection.
const WINDOW: usize = 20;

/// How large a run is.
#[derive(Clone, Copy)]
struct Size {
    connections: usize,
    /// Readings of each connection per second.
    per_second: f64,
    kills: usize,
}

const SMALL: Size = Size { connections: 1000, per_second: 0.5, kills: 3 };
const LARGE: Size = Size { connections: 5000, per_second: 0.2, kills: 20 };

impl Size {
    /// Readings that are waited for before the next blow.
    fn progress(self) -> usize {
        self.connections
    }
}

async fn admit(db: &Database, size: Size) {
    let last = size.connections - 1;
    db.execute(&format!(
        "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id)
         SELECT '{TENANT}', 'd-' || number, 'f-001', 'b-001' FROM generate_series(0, {last}) AS number"
    ))
    .await;
}

fn settings(site: &Site, database_url: &str, size: Size) -> Settings {
    descriptors::make_room(4 * size.connections as u64);
    let places = 2 * size.connections;
    site.settings(Settings::of(database_url))
        .set("broker.connections_max", &places.to_string())
        .set("broker.handshakes_per_address_max", &places.to_string())
        .set("broker.sessions_max", &places.to_string())
        .set("broker.stall_seconds", &STALL_SECONDS.to_string())
}

/// Each device with a certificate of its own; the four kinds of client take turns.
fn lines(site: &Site, size: Size) -> Vec<Line> {
    let line = |number: usize| {
        let device = format!("d-{number}");
        let (cert, key) = site.device_ca.device(&device, Some(TENANT)).pem();
        let own = Some((cert.as_bytes(), key.as_bytes()));
        let tls = Tls::trusting(site.server_ca.pem().as_bytes(), own).expect("certificates that fit");
        let (version, qos) = KINDS[number % KINDS.len()];
        let login = Login {
            client_id: device.clone(),
            keepalive_seconds: 60,
            version,
            // What QoS 2 promises is promised to a session.
            is_lasting: qos == 2,
            ..Login::default()
        };
        Line {
            device,
            link: Link { broker: site.tls.to_string(), tls: Some(tls), login, window: WINDOW },
            qos,
        }
    };
    (0..size.connections).map(line).collect()
}

const KINDS: [(Version, u8); 4] =
    [(Version::V311, 1), (Version::V5, 1), (Version::V311, 2), (Version::V5, 2)];

async fn all_connected(engine: &Engine, size: Size) -> Duration {
    let started = Instant::now();
    #[expect(clippy::cast_precision_loss, reason = "connections are few")]
    let wanted = size.connections as f64;
    until("every device is connected", async || engine.metric("mqtt_connections", "").await >= wanted).await;
    started.elapsed()
}

async fn kill(size: Size) {
    let site = Site::new();
    let db = Database::fresh().await;
    admit(&db, size).await;
    let mut engine = Engine::start(settings(&site, &db.url, size)).await;
    let load = Load::over(lines(&site, size), usize::MAX, size.per_second);
    println!("connected after {:?}", all_connected(&engine, size).await);
    for _ in 0..size.kills {
        load.progress(size.progress()).await;
        engine.kill().await;
        engine.start_again().await;
        println!("connected again after {:?}", all_connected(&engine, size).await);
    }
    load.progress(size.progress()).await;
    let reconnects = load.meter.reconnects.load(Ordering::Relaxed);
    let ledger = load.stop().await;
    let (offered, acked) = ledger.counts();
    println!(
        "{} kills, {reconnects} reconnects, {offered} readings offered, {acked} acknowledged",
        size.kills
    );
    ledger.check_kept(&db.client).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// What becomes of a newcomer.
#[derive(Debug, PartialEq, Eq)]
enum Newcomer {
    LetIn,
    /// It is told why not.
    Refused(u8),
    /// Its connection is closed without a CONNACK.
    Unanswered,
}

async fn newcomer(site: &Site, version: Version) -> Newcomer {
    let own = site.device_ca.device("d-0", Some(TENANT)).pem();
    let tls = Tls::trusting(site.server_ca.pem().as_bytes(), Some((own.0.as_bytes(), own.1.as_bytes())));
    let tls = tls.expect("certificates that fit");
    let mut stream = Stream::open(&site.tls.to_string(), Some(&tls)).await.expect("TLS needs no database");
    let login = Login { client_id: "newcomer".to_owned(), version, ..Login::default() };
    match mqtt::introduce(&mut stream, &login).await {
        Ok(_) => Newcomer::LetIn,
        Err(error) => {
            error.downcast::<Refused>().map_or(Newcomer::Unanswered, |it| Newcomer::Refused(it.code))
        }
    }
}

async fn outage(size: Size) {
    let site = Site::new();
    let mut server = Server::start().await;
    let db = server.database().await;
    admit(&db, size).await;
    drop(db);
    let mut engine = Engine::start(settings(&site, &server.url(), size)).await;
    let load = Load::over(lines(&site, size), usize::MAX, size.per_second);
    all_connected(&engine, size).await;
    load.progress(size.progress()).await;

    let resident_before = engine.resident_bytes();
    server.stop_at_once().await;
    let stopped_at = tokio::time::Instant::now();
    tokio::time::sleep(LAST_ANSWERS).await;
    let (_, acked_before) = load.ledger.counts();
    let mut resident_max = resident_before;
    let turned_away = async || newcomer(&site, Version::V5).await != Newcomer::LetIn;
    until("new clients are turned away", turned_away).await;
    assert_eq!(newcomer(&site, Version::V5).await, Newcomer::Refused(0x88));
    assert_eq!(
        newcomer(&site, Version::V311).await,
        Newcomer::Unanswered,
        "devices take a code for a success"
    );
    while stopped_at.elapsed() < AWAY {
        tokio::time::sleep(Duration::from_millis(100)).await;
        resident_max = resident_max.max(engine.resident_bytes());
    }
    assert_eq!(load.ledger.counts().1, acked_before, "acknowledged while nothing could be committed");
    let reconnects = load.meter.reconnects.load(Ordering::Relaxed);
    assert_eq!(reconnects, 0, "whoever is connected stays");

    server.start_again().await;
    let back_at = Instant::now();
    load.progress(2 * size.progress()).await;
    println!("{} more acknowledged {:?} after the database is back", 2 * size.progress(), back_at.elapsed());
    for version in [Version::V311, Version::V5] {
        until("new clients are let in", async || newcomer(&site, version).await == Newcomer::LetIn).await;
    }
    resident_max = resident_max.max(engine.resident_bytes());
    assert_eq!(load.meter.reconnects.load(Ordering::Relaxed), 0, "nobody had to come again");
    let ledger = load.stop().await;
    let growth = resident_max - resident_before;
    println!("resident {} KiB before, at most {} KiB more", resident_before >> 10, growth >> 10);
    ledger.check_kept(&server.connect().await).await;
    assert!(growth < GROWTH_BYTES_MAX, "the outage cost {growth} bytes");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_encrypted_connections_lose_nothing_when_the_engine_is_killed() {
    kill(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_encrypted_connections_wait_while_the_database_is_away() {
    outage(SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "large: `make test-large`"]
async fn five_thousand_encrypted_connections_lose_nothing_in_twenty_kills() {
    kill(LARGE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "large: `make test-large`"]
async fn five_thousand_encrypted_connections_wait_while_the_database_is_away() {
    outage(LARGE).await;
}
