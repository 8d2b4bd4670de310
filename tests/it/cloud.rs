//! The cloud away in every way it can be, with load going on: nothing fails, and in the end everything arrives once
//! and in order. And an event the cloud will not have.

use std::collections::HashSet;

use loadtest::cloud::{Mode, PretendCloud, Settings as CloudSettings};
use tests::barn::{Barn, admit, check_idle};
use tests::device::{TENANT, new_event_id, reading};
use tests::engine::Engine;
use tests::load::{Load, LoadSettings};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

/// Readings of each of four devices while the cloud is away.
const READINGS: usize = 150;

/// Settings that give up and come back quickly.
fn quick(settings: Settings) -> Settings {
    settings
        .set("outbox.backoff_seconds_max", "1")
        .set("outbox.poll_ms", "100")
        .set("cloud.timeout_seconds", "1")
        .set("outbox.batch_events_max", "50")
}

async fn away(mode: Mode, kind: &str, error: &str) {
    let barn = Barn::start_with(quick).await;
    let load = LoadSettings { devices: 4, readings: READINGS, ..LoadSettings::default() };
    let load = Load::start(barn.mqtt(), load);
    barn.delivered(20).await;
    barn.cloud.mode(mode).await;
    let label = format!("kind=\"{kind}\"");
    until("the engine notices", async || barn.metric("sync_send_failure", &label) >= 2.0).await;
    let ledger = load.finish().await;
    assert_eq!(ledger.counts().1, 4 * READINGS, "readings go on while the cloud is away");
    assert!(barn.db.count("SELECT count(*) FROM sync_outbox WHERE status <> 'acked'").await > 0);
    assert_eq!(barn.db.count("SELECT count(*) FROM sync_outbox WHERE status = 'failed'").await, 0);
    barn.cloud.mode(Mode::Ok).await;
    barn.delivered(4 * READINGS as u64).await;
    let verdict = barn.cloud.judge();
    let arrived: HashSet<_> = barn.cloud.ids(TENANT).into_iter().collect();
    assert_eq!(arrived, ledger.acked_outbox_ids());
    assert_eq!(verdict.lanes, 4, "{verdict:?}");
    until("every row is acknowledged", async || {
        barn.db.count("SELECT count(*) FROM sync_outbox WHERE status <> 'acked'").await == 0
    })
    .await;
    let db = barn.finish_after(error).await;
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE reject_count > 0").await, 0);
}

#[tokio::test]
async fn a_cloud_that_refuses_connections_costs_only_time() {
    away(Mode::Refuse, "network", "").await;
}

#[tokio::test]
async fn a_cloud_that_hangs_costs_only_time() {
    away(Mode::Hang, "timeout", "").await;
}

#[tokio::test]
async fn a_cloud_that_is_overloaded_costs_only_time() {
    away(Mode::Unavailable, "server", "").await;
}

#[tokio::test]
async fn a_cloud_that_does_not_know_us_costs_only_time() {
    away(Mode::Unauthorized, "auth", "the cloud refuses this engine").await;
}

#[tokio::test]
async fn a_cloud_that_throttles_costs_only_time() {
    away(Mode::Throttled { retry_after: Some("1".to_owned()) }, "throttled", "").await;
}

#[tokio::test]
async fn a_captive_portal_costs_only_time() {
    away(Mode::Captive, "network", "").await;
}

#[tokio::test]
async fn a_lost_answer_is_repeated_and_counts_once() {
    let barn = Barn::start_with(quick).await;
    let load =
        Load::start(barn.mqtt(), LoadSettings { devices: 4, readings: READINGS, ..LoadSettings::default() });
    barn.delivered(20).await;
    barn.cloud.mode(Mode::LoseAnswer).await;
    until("answers are lost", async || barn.metric("sync_send_failure", "") >= 3.0).await;
    barn.cloud.mode(Mode::Ok).await;
    let ledger = load.finish().await;
    barn.delivered(4 * READINGS as u64).await;
    let arrived: HashSet<_> = barn.cloud.ids(TENANT).into_iter().collect();
    assert_eq!(arrived, ledger.acked_outbox_ids());
    assert!(barn.cloud.judge().duplicated > 0);
    barn.finish().await;
}

#[tokio::test]
async fn one_poisonous_event_among_ten_thousand_fails_alone() {
    let barn = Barn::start_with(|settings| {
        quick(settings).set("outbox.rejections_max", "2").set("outbox.batch_events_max", "500")
    })
    .await;
    barn.cloud.mode(Mode::Refuse).await;
    let load = LoadSettings { devices: 4, readings: 2500, per_second: 1e6, ..LoadSettings::default() };
    let ledger = Load::start(barn.mqtt(), load).finish().await;
    let sql = "SELECT id::text FROM sync_outbox ORDER BY seq OFFSET 5000 LIMIT 1";
    let poison: String = barn.db.client.query_one(sql, &[]).await.expect("ten thousand rows").get(0);
    barn.cloud.mode(Mode::Poison { ids: [poison.clone()].into() }).await;
    barn.delivered(9_999).await;
    let failed =
        "SELECT id::text, last_error_code, dlq_reason, reject_count FROM sync_outbox WHERE status = 'failed'";
    until("the poisonous event fails", async || {
        !barn.db.client.query(failed, &[]).await.expect("the query is right").is_empty()
    })
    .await;
    let rows = barn.db.client.query(failed, &[]).await.expect("the query is right");
    let row = |row: &tokio_postgres::Row| -> (String, String, String, i32) {
        (row.get(0), row.get(1), row.get(2), row.get(3))
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    assert_eq!(rows, [(poison.clone(), "CLOUD_BATCH_REJECTED".to_owned(), "max_rejections".to_owned(), 2)]);
    let mut expected = ledger.acked_outbox_ids();
    expected.remove(&poison);
    assert_eq!(barn.cloud.ids(TENANT).into_iter().collect::<HashSet<_>>(), expected);
    barn.finish_after("event waits for a person").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_on_one_database_send_each_event_once_and_lanes_in_order() {
    let db = Database::fresh().await;
    admit(&db).await;
    let cloud = PretendCloud::start(CloudSettings::default()).await.expect("a free port");
    let settings =
        || quick(Settings::of(&db.url)).set("cloud.url", &cloud.url()).set("cloud.timeout_seconds", "30");
    let mut engines = [Engine::start(settings()).await, Engine::start(settings()).await];
    let half =
        |first_device| LoadSettings { first_device, devices: 4, readings: 500, ..LoadSettings::default() };
    let [one, other] = &engines;
    let loads = (Load::start(one.settings.mqtt, half(0)), Load::start(other.settings.mqtt, half(4)));
    let (one, other) = tokio::join!(loads.0.finish(), loads.1.finish());
    let expected: HashSet<_> = one.acked_outbox_ids().union(&other.acked_outbox_ids()).cloned().collect();
    assert_eq!(expected.len(), 4000);
    until("the cloud takes every event", async || cloud.judge().accepted >= 4000).await;
    for engine in &mut engines {
        assert_eq!(engine.terminate().await.code, Some(0));
    }
    check_idle(&db).await;
    let verdict = cloud.judge();
    assert_eq!((verdict.accepted, verdict.duplicated, verdict.lanes), (4000, 0, 8), "{verdict:?}");
    assert_eq!(verdict.violations, []);
    assert_eq!(cloud.ids(TENANT).into_iter().collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn events_wait_in_the_outbox_without_a_cloud_and_go_when_there_is_one() {
    let mut barn = Barn::start_with(|settings| quick(settings).set("cloud.url", "")).await;
    let mut device = barn.device("d-1").await;
    device.put_all((0..20).map(|_| reading("d-1", &new_event_id()))).await;
    drop(device);
    assert_eq!(barn.db.count("SELECT count(*) FROM sync_outbox WHERE status = 'pending'").await, 20);
    barn.settings = barn.settings.clone().set("cloud.url", &barn.cloud.url());
    barn.restart().await;
    barn.delivered(20).await;
    barn.finish().await;
}
