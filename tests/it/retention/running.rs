//! Retention of an engine at work: beside traffic, and killed in the middle of a pass.

use std::collections::HashSet;
use std::net::SocketAddr;

use bytes::Bytes;
use chrono::{Duration, TimeDelta};
use http_body_util::Full;
use hyper::Request;
use loadtest::cloud::Mode;
use loadtest::device::{Place, Station, Weighing};
use loadtest::mqtt::Publish;
use rand::SeedableRng;
use rand::rngs::StdRng;
use schema::clock::{Clock, Timestamp};
use schema::wire::time;
use serde_json::{Value, json};
use tests::barn::{Barn, admit};
use tests::device::{at_least_once, envelope, new_event_id, temperature_topic};
use tests::engine::Engine;
use tests::load::{Load, LoadSettings};
use tests::postgres::{Database, connect, store};
use tests::settings::Settings;
use tests::wait::until;

use super::{House, TENANT};

/// Where the events are that the cloud does not have.
const UNSENT: &str = "SELECT count(*) FROM ONLY sync_outbox";
/// Readings of the times that a pass looks at.
const OLD_READINGS: &str =
    "SELECT count(*) FROM telemetry_raw WHERE occurred_at < now() - interval '100 days'";

/// An engine that keeps its images in this directory and has nobody look at them.
fn in_directory(settings: Settings, root: &tempfile::TempDir) -> Settings {
    settings
        .set("media.root", &root.path().display().to_string())
        .set("retention.free_disk_gb_min", "0")
        .set("inference.enabled", "false")
        .set("telemetry.aggregate", "false")
        .set("outbox.backoff_seconds_max", "1")
}

/// Orders a pass and returns what is said of it; nothing when the engine is gone.
async fn order(http: SocketAddr) -> Value {
    let request = Request::post("/api/v1/janitor/run?confirm_orphans=true")
        .header("host", "edge")
        .body(Full::<Bytes>::default());
    let answer = loadtest::http::call(&format!("http://{http}"), request.expect("a request")).await;
    answer.ok().and_then(|(_, body)| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

/// Orders passes until nobody was in the way of one.
async fn passed(http: SocketAddr) {
    until("a pass succeeds", async || order(http).await["data"]["error"] == Value::Null).await;
}

/// A reading of a device that has been away for long.
fn late_reading(at: Timestamp) -> Publish {
    let mut body = envelope("d-9", &new_event_id(), "telemetry.reading");
    body["ts"] = json!(time::format(at));
    body["payload"] = json!({"value": 26.4, "unit": "celsius"});
    at_least_once(&temperature_topic("d-9"), body.to_string())
}

/// A weighing; its last two messages are the end of its session and a reading.
fn weighing(session: &str, at: Timestamp) -> Vec<Publish> {
    let place = Place { tenant: TENANT.into(), farm: "f-001".into(), barn: "b-001".into() };
    let station = Station { place, station: "st-01".into(), device: "wv-001".into() };
    let messages = station.weigh(Weighing { session, weight_kg: 0.5, at }, &mut StdRng::seed_from_u64(1));
    messages.into_iter().map(|message| message.publish).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_beside_traffic_leaves_what_is_open_or_unacknowledged() {
    let root = tempfile::tempdir().expect("a directory");
    let barn = Barn::start_with(|settings| in_directory(settings, &root)).await;
    let url = barn.db.url.clone();
    let db = Database { client: connect(&url).await, store: store(&url), url };
    let house = House::over(db, root, Clock::system().now()).await;
    barn.cloud.mode(Mode::Unavailable).await;
    let long_ago = house.now - Duration::days(240);
    let mut late = barn.device("d-9").await;
    late.put_all((0..5).map(|number| late_reading(long_ago + TimeDelta::seconds(number)))).await;
    let mut messages = weighing("live", house.now);
    let end = messages.split_off(messages.len() - 2);
    let mut scale = barn.device("wv-001").await;
    scale.put_all(messages).await;
    house.image("live", 91, Some("live")).await;
    for number in 0..60 {
        house.image(&format!("old-{number}"), 91, None).await;
    }
    house.reading("old", 150).await;
    house.reading("odd", 2000).await;

    let load = Load::start(barn.mqtt(), LoadSettings { devices: 4, ..LoadSettings::default() });
    load.progress(1).await;
    passed(barn.settings.http).await;
    load.progress(1).await;
    assert_eq!(house.db.count(OLD_READINGS).await, 5, "the cloud does not have those that came late");
    assert_eq!((house.rows().await, house.files()), (vec!["live".to_owned()], vec!["live".to_owned()]));

    barn.cloud.mode(Mode::Ok).await;
    scale.put_all(end).await;
    let ledger = load.stop().await;
    until("the cloud has everything", async || house.db.count(UNSENT).await == 0).await;
    let arrived: HashSet<_> = barn.cloud.ids(TENANT).into_iter().collect();
    assert!(ledger.acked_outbox_ids().is_subset(&arrived), "an acknowledged reading is missing");
    assert_eq!(house.db.count("SELECT count(*) FROM weight_sessions WHERE status = 'finalized'").await, 1);

    passed(barn.settings.http).await;
    assert_eq!(house.db.count(OLD_READINGS).await, 5, "those that came late are kept as long as all others");
    assert_eq!((house.rows().await, house.files()), (Vec::new(), Vec::new()));
    let kept = house
        .db
        .count("SELECT count(DISTINCT event_id) FROM telemetry_raw WHERE device_id NOT IN ('wv-001', 'd-9')")
        .await;
    assert_eq!(kept.unsigned_abs(), ledger.acked_outbox_ids().len() as u64);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_killed_is_finished_by_the_next() {
    let root = tempfile::tempdir().expect("a directory");
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = in_directory(Settings::of(&db.url), &root);
    let http = settings.http;
    let house = House::over(db, root, Clock::system().now()).await;
    house.old_things().await;
    let aggregates = "SELECT count(*) FROM telemetry_agg";
    let all = house.db.count(aggregates).await;
    let mut engine = Engine::start(settings).await;

    // Killed while rows go.
    tokio::select! {
        _ = order(http) => {}
        () = until("aggregates go", async || house.db.count(aggregates).await < all) => {}
    }
    engine.kill().await;
    check_files(&house).await;

    // Killed between the end of a file and the end of its row.
    let holder = connect(&house.db.url).await;
    let hold = "BEGIN; SELECT FROM media_objects WHERE object_key = 'tenants/old-119' FOR UPDATE";
    holder.batch_execute(hold).await.expect("the row is held");
    engine.start_again().await;
    tokio::select! {
        _ = order(http) => panic!("the pass does not end while a row is held"),
        () = until("the row is waited for", async || house.db.count(&waiting("pid")).await > 0) => {}
    }
    engine.kill().await;
    // The server does not notice the death of a client that it is at work for.
    let cut = waiting("pg_terminate_backend(pid)");
    until("nobody waits", async || house.db.count(&cut).await == 0).await;
    holder.batch_execute("COMMIT").await.expect("the row is let go");
    assert!(house.rows().await.contains(&"old-119".to_owned()));
    assert!(!house.files().contains(&"old-119".to_owned()));
    check_files(&house).await;

    engine.start_again().await;
    passed(http).await;
    let held = vec!["held".to_owned()];
    assert_eq!(
        (house.readings().await, house.rows().await, house.files()),
        (held.clone(), held.clone(), held)
    );
    for (rows, left) in [
        (aggregates, 0),
        ("SELECT count(*) FROM device_events", 0),
        ("SELECT count(*) FROM media_uploads", 0),
        ("SELECT count(*) FROM dead_letters", 0),
        ("SELECT count(*) FROM sync_outbox WHERE status = 'acked'", 0),
        (UNSENT, 1),
        ("SELECT count(*) FROM weight_sessions", 2),
    ] {
        assert_eq!(house.db.count(rows).await, left, "{rows}");
    }
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// Counts something of the connections that wait to delete the row of an image.
fn waiting(what: &str) -> String {
    format!(
        "SELECT count({what}) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
            AND query LIKE '-- retention_delete_images%'"
    )
}

/// Checks that no file lost its row, but for the one that never had any.
async fn check_files(house: &House) {
    let rows = house.rows().await;
    let orphans: Vec<_> =
        house.files().into_iter().filter(|file| file != "forgotten" && !rows.contains(file)).collect();
    assert_eq!(orphans, Vec::<String>::new());
}
