//! The engine as a process that is killed, ended and started again under load.

use std::collections::HashSet;
use std::time::Duration;

use loadtest::cloud::{self, Mode, PretendCloud};
use tests::barn::{admit, check_idle, check_ledger};
use tests::device::{Device, TENANT, new_event_id, reading};
use tests::engine::Engine;
use tests::load::{Load, LoadSettings};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

mod weighing;

/// How often the engine is killed.
const KILLS: usize = 20;
/// The longest an ordered end may take.
const END_MAX: Duration = Duration::from_secs(10);

async fn database() -> Database {
    let db = Database::fresh().await;
    admit(&db).await;
    db
}

/// An engine that sends to a cloud.
fn settings(db: &Database, cloud: &PretendCloud) -> Settings {
    Settings::of(&db.url).set("cloud.url", &cloud.url()).set("outbox.backoff_seconds_max", "1")
}

async fn pretend_cloud() -> PretendCloud {
    PretendCloud::start(cloud::Settings::default()).await.expect("a free port")
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_that_was_acknowledged_and_store_nothing_twice() {
    let (db, cloud) = (database().await, pretend_cloud().await);
    let mut engine = Engine::start(settings(&db, &cloud)).await;
    let load = LoadSettings { per_second: 250.0, ..LoadSettings::default() };
    let load = Load::start(engine.settings.mqtt, load);
    for round in 0..KILLS {
        // Each kill comes at another moment of the stream.
        load.progress(100 + 37 * round).await;
        engine.kill().await;
        engine.start_again().await;
    }
    load.progress(100).await;
    let ledger = load.stop().await;
    let (offered, acked) = ledger.counts();
    ledger.check_kept(&db.client).await;
    until("the cloud has every reading", async || {
        let arrived: HashSet<_> = cloud.ids(TENANT).into_iter().collect();
        ledger.acked_outbox_ids().is_subset(&arrived)
    })
    .await;
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    let line = check_ledger(&db).await;
    let stored = db.count("SELECT count(*) FROM telemetry_raw").await;
    assert_eq!((line.stored, line.queued, line.acked), (stored, stored, stored), "{line:?}");
    assert!(line.received >= i64::try_from(acked).expect("a count"), "{line:?}, {acked} acknowledged");
    let verdict = cloud.judge();
    println!(
        "{KILLS} kills, {offered} readings offered, {acked} acknowledged, {} sent again to the cloud",
        verdict.duplicated
    );
    assert_eq!(verdict.violations, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_end_under_load_loses_nothing_and_leaves_no_lease() {
    let (db, cloud) = (database().await, pretend_cloud().await);
    let mut engine = Engine::start(settings(&db, &cloud)).await;
    let load = LoadSettings { per_second: 250.0, ..LoadSettings::default() };
    let load = Load::start(engine.settings.mqtt, load);
    load.progress(1000).await;
    // From here on requests to the cloud are under way at any moment.
    cloud.mode(Mode::Slow { latency_ms: 300 }).await;
    load.progress(1000).await;
    let ended = engine.terminate().await;
    println!("ended {ended:?}");
    assert!(ended.code == Some(0) && ended.took < END_MAX, "{ended:?}");
    check_idle(&db).await;
    load.ledger.check_kept(&db.client).await;
    let took = engine.start_again().await;
    println!("from start to ready on an existing database: {took:?}");
    load.progress(500).await;
    load.stop().await.check_kept(&db.client).await;
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    assert_eq!(cloud.judge().violations, []);
}

#[tokio::test]
async fn two_engines_on_one_database_store_an_event_once() {
    let db = database().await;
    let first = Engine::start(Settings::of(&db.url)).await;
    let second = Engine::start(Settings::of(&db.url)).await;
    let mut devices = [
        Device::connect(first.settings.mqtt, "d-1").await,
        Device::connect(second.settings.mqtt, "d-1").await,
    ];
    let readings: Vec<_> = (0..500).map(|_| reading("d-1", &new_event_id())).collect();
    let [one, other] = &mut devices;
    tokio::join!(one.put_all(readings.clone()), other.put_all(readings));
    let stored = db.count(&format!("SELECT count(*) FROM telemetry_raw WHERE tenant_id = '{TENANT}'")).await;
    let queued = db.count("SELECT count(*) FROM sync_outbox").await;
    assert_eq!((stored, queued), (500, 500));
}
