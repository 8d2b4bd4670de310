//! PostgreSQL goes away for ten seconds while real clients publish: nothing is acknowledged, nothing is lost.

use std::time::Duration;

use tests::barn::admit;
use tests::engine::Engine;
use tests::paho::Paho;
use tests::server::Server;
use tests::settings::Settings;
use tests::wait::{still, until};

/// Clients of paho-mqtt.
const CLIENTS: usize = 8;
/// Readings of each client; together 16,000.
const READINGS: usize = 2000;
/// Of each client; together they need 16 seconds, of which the database is away for ten.
const PER_SECOND: f64 = 125.0;
/// How long the database is away.
const AWAY: Duration = Duration::from_secs(10);
/// How much memory the outage may cost.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

async fn outage(
    mut server: Server,
    take_away: impl AsyncFnOnce(&mut Server),
    bring_back: impl AsyncFnOnce(&mut Server),
) {
    let db = server.database().await;
    admit(&db).await;
    drop(db);
    let mut engine = Engine::start(Settings::of(&server.url())).await;
    let clients = Paho::start(engine.settings.mqtt, CLIENTS, READINGS, PER_SECOND);
    until("the clients are at work", async || clients.ledger.counts().1 > 2000).await;

    let resident_before = engine.resident_bytes();
    take_away(&mut server).await;
    let ledger = &clients.ledger;
    let acked_before = still("the last answers", async || ledger.counts().1).await;
    let offered_before = ledger.counts().0;
    let mut resident_max = resident_before;
    let ends_at = tokio::time::Instant::now() + AWAY;
    while tokio::time::Instant::now() < ends_at {
        tokio::time::sleep(Duration::from_millis(100)).await;
        resident_max = resident_max.max(engine.resident_bytes());
    }
    let (offered, acked) = clients.ledger.counts();
    assert_eq!(acked, acked_before, "acknowledged while nothing could be committed");
    assert!(offered > offered_before + 4000, "only {} offered meanwhile", offered - offered_before);
    assert!(acked < CLIENTS * READINGS / 2, "the outage came too late: {acked}");

    bring_back(&mut server).await;
    let ledger = clients.finish().await;
    resident_max = resident_max.max(engine.resident_bytes());
    let growth = resident_max - resident_before;
    #[expect(clippy::print_stdout, reason = "figures of the test")]
    {
        println!(
            "resident {} KiB before, at most {} KiB more; {acked} acknowledged before the outage, {} in the end",
            resident_before >> 10,
            growth >> 10,
            ledger.counts().1,
        );
    }
    assert_eq!(ledger.counts(), (CLIENTS * READINGS, CLIENTS * READINGS));
    ledger.check_kept(&server.connect().await).await;
    assert!(growth < GROWTH_BYTES_MAX, "the outage cost {growth} bytes");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_database_holds_back_acknowledgements_and_loses_nothing() {
    outage(Server::start().await, Server::stop_at_once, Server::start_again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_holds_back_acknowledgements_and_loses_nothing() {
    outage(Server::start().await, async |server| server.freeze(), async |server| server.thaw()).await;
}
