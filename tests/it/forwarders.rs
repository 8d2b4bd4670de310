//! Sending as the work of processes of its own: `farmiq-edge worker --for sync` beside an engine that sends nothing.

use std::collections::HashSet;

use loadtest::cloud::{self, Mode, PretendCloud};
use tests::barn::{admit, check_idle};
use tests::device::TENANT;
use tests::engine::{Engine, get};
use tests::load::{Load, LoadSettings};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

/// How long a killed forwarder keeps its lane groups.
const LEASE_SECONDS: &str = "5";

/// Of senders with small batches, short leases and short pauses.
fn settings(db: &Database, cloud: &PretendCloud) -> Settings {
    Settings::of(&db.url)
        .set("cloud.url", &cloud.url())
        .set("outbox.lease_seconds", LEASE_SECONDS)
        .set("outbox.batch_events_max", "20")
        .set("outbox.backoff_seconds_max", "1")
}

/// Lane groups that this process holds.
async fn held_by(db: &Database, name: &str) -> i64 {
    db.count(&format!("SELECT count(*) FROM sync_lane_groups WHERE claimed_by = '{name}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarders_send_for_an_engine_that_does_not_and_go_on_where_a_killed_one_stopped() {
    let db = Database::fresh().await;
    admit(&db).await;
    let cloud = PretendCloud::start(cloud::Settings::default()).await.expect("a free port");
    let settings = settings(&db, &cloud);
    let mut engine = Engine::start(settings.clone().set("outbox.mode", "noop")).await;
    let [mut one, mut two] =
        ["one", "two"].map(|name| Engine::stopped(settings.elsewhere().set("edge.id", name)));
    for forwarder in [&mut one, &mut two] {
        forwarder.spawn_as("worker --for sync");
    }
    let load =
        Load::start(engine.settings.mqtt, LoadSettings { per_second: 50.0, ..LoadSettings::default() });
    for forwarder in [&one, &two] {
        until("it is up", async || forwarder.log().contains("farmiq-edge runs")).await;
        until("it sends", async || forwarder.metric("sync_send_success", "").await > 0.0).await;
    }
    assert!(engine.metric("sync_send_success", "").await < 1.0, "the engine sends");
    cloud.mode(Mode::Slow { latency_ms: 2000 }).await;
    until("the first has batches on the line", async || held_by(&db, "one").await > 0).await;
    one.kill().await;
    assert!(held_by(&db, "one").await > 0, "it was killed between two batches");
    cloud.mode(Mode::Ok).await;
    load.progress(500).await;
    let ledger = load.stop().await;
    ledger.check_kept(&db.client).await;
    until("the cloud has every reading", async || {
        let arrived: HashSet<_> = cloud.ids(TENANT).into_iter().collect();
        ledger.acked_outbox_ids().is_subset(&arrived)
    })
    .await;
    let (status, ready) = get(two.settings.http, "/api/ready").await;
    assert_eq!(status, 200, "{ready}");
    assert_eq!(get(two.settings.http, "/api/v1/sync/state").await.0, 404);
    assert_eq!(two.terminate().await.code, Some(0));
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    // Its judge objects to an event that comes twice, and to one that comes before what its lane has sent earlier.
    assert_eq!(cloud.judge().violations, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_for_both_needs_no_engine_to_be_ready_and_one_without_a_cloud_says_why_it_ends() {
    let db = Database::fresh().await;
    let cloud = PretendCloud::start(cloud::Settings::default()).await.expect("a free port");
    let settings = Settings::of(&db.url);
    let mut both = Engine::stopped(settings.elsewhere().set("cloud.url", &cloud.url()));
    both.spawn_as("worker --for inference,sync");
    until("it is up", async || both.log().contains("farmiq-edge runs")).await;
    until("it is ready", async || get(both.settings.http, "/api/ready").await.0 == 200).await;
    assert_eq!(both.terminate().await.code, Some(0));
    let mut none = Engine::stopped(settings.elsewhere());
    none.spawn_as("worker --for sync");
    until("it ends", async || !none.is_alive()).await;
    assert!(none.log().contains("a worker for sync would send nothing"), "{}", none.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_and_a_program_that_claims_row_by_row_share_the_outbox_and_take_over_from_each_other() {
    let db = Database::fresh().await;
    admit(&db).await;
    let cloud = PretendCloud::start(cloud::Settings::default()).await.expect("a free port");
    let settings = settings(&db, &cloud);
    let Some(mut old) = Engine::previous(settings.elsewhere().set("edge.id", "old")) else {
        eprintln!("SKIPPED: the previous program is not built, see tests/previous-program");
        return;
    };
    let mut engine = Engine::start(settings.clone().set("outbox.mode", "noop")).await;
    let mut new = Engine::stopped(settings.elsewhere().set("edge.id", "new"));
    old.start_again().await;
    new.spawn_as("worker --for sync");
    let load =
        Load::start(engine.settings.mqtt, LoadSettings { per_second: 50.0, ..LoadSettings::default() });
    let senders = "SELECT count(DISTINCT claimed_by) FROM sync_outbox WHERE status = 'acked'";
    until("both send", async || db.count(senders).await == 2).await;
    cloud.mode(Mode::Slow { latency_ms: 3000 }).await;
    let sent_by = async |name: &str| {
        let sent =
            format!("SELECT count(*) FROM sync_outbox WHERE claimed_by = '{name}' AND status = 'sent'");
        held_by(&db, name).await > 0 && db.count(&sent).await > 0
    };
    until("the old one has batches on the line", async || sent_by("old").await).await;
    old.kill().await;
    until("the new one has batches on the line", async || sent_by("new").await).await;
    new.kill().await;
    assert!(held_by(&db, "new").await > 0, "it was killed between two batches");
    cloud.mode(Mode::Ok).await;
    // What is left of both is the old one's, and then the new one's.
    old.start_again().await;
    load.progress(100).await;
    until("the leases of the new one are over", async || held_by(&db, "new").await == 0).await;
    old.kill().await;
    new.spawn_as("worker --for sync");
    load.progress(200).await;
    let ledger = load.stop().await;
    ledger.check_kept(&db.client).await;
    until("everything is sent", async || db.count("SELECT count(*) FROM ONLY sync_outbox").await == 0).await;
    until("no group is leased", async || db.count("SELECT count(*) FROM sync_lane_groups").await == 0).await;
    assert_eq!(new.terminate().await.code, Some(0));
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    assert_eq!(cloud.judge().violations, []);
}
