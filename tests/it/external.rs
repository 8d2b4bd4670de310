//! The engine behind a real Mosquitto.

use loadtest::mqtt::Publish;
use serde_json::json;
use tests::barn::admit;
use tests::device::{Device, at_least_once, new_event_id, reading};
use tests::engine::Engine;
use tests::load::{Load, LoadSettings};
use tests::mosquitto::Mosquitto;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

fn settings(db: &Database, broker: &Mosquitto) -> Settings {
    Settings::of(&db.url).set("mqtt.mode", "external").set("mqtt.url", &format!("mqtt://{}", broker.address))
}

/// Waits until the engine holds its subscriptions.
async fn linked(engine: &Engine) {
    until("the link is up", async || engine.json("/api/v1/ingress/stats").await["mqttConnected"] == true)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_finds_everything_at_the_broker_again() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let mut engine = Engine::start(settings(&db, &broker)).await;
    linked(&engine).await;
    // The broker answers the devices, so the load goes on whether the engine is there or not.
    let load = LoadSettings { devices: 4, readings: 1500, per_second: 250.0, ..LoadSettings::default() };
    let load = Load::start(broker.address, load);
    for _ in 0..5 {
        load.progress(300).await;
        engine.kill().await;
        load.progress(300).await;
        engine.start_again().await;
    }
    let ledger = load.finish().await;
    until("everything is stored", async || {
        usize::try_from(db.count("SELECT count(*) FROM telemetry_raw").await) == Ok(ledger.counts().1)
    })
    .await;
    ledger.check_kept(&db.client).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test]
async fn a_retained_copy_of_what_is_known_changes_nothing() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let topic = "iot/status/t-001/f-001/b-001/d-1";
    let status = |status: &str| {
        let body =
            json!({"device_id": "d-1", "status": status, "ts": "2026-02-12T09:00:00+00:00", "message": ""});
        Publish { is_retained: true, ..at_least_once(topic, body.to_string()) }
    };
    let row = async || {
        let sql = "SELECT state, last_seen_at::text, updated_at::text FROM device_last_seen WHERE device_id = 'd-1'";
        let row = db.client.query_opt(sql, &[]).await.expect("the query is right");
        row.map(|row| (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, String>(2)))
    };
    let mut device = Device::connect(broker.address, "d-1").await;
    device.put(&status("online")).await;

    // A copy of what nobody knew is applied, and says when it was true.
    let mut first = Engine::start(settings(&db, &broker)).await;
    until("the copy arrives", async || row().await.is_some()).await;
    let (state, seen_at, _) = row().await.expect("it was just there");
    assert_eq!(state, "online");
    assert!(seen_at.starts_with("2026-02-12 09:00:00"), "{seen_at}");
    device.put(&status("online")).await;
    until("a live message is a sign of life", async || row().await.is_some_and(|row| row.1 != seen_at)).await;
    let known = row().await;
    assert_eq!(first.terminate().await.code, Some(0));

    // A new session gets the copy again, and whatever comes behind it shows that it was taken.
    let mut second = Engine::start(settings(&db, &broker).set("mqtt.client_id", "another")).await;
    linked(&second).await;
    until("the copy arrives", async || second.json("/api/v1/ingress/stats").await["messages_total"] == 1)
        .await;
    let event_id = new_event_id();
    device.put(&reading("d-2", &event_id)).await;
    until("the reading is stored", async || {
        db.count(&format!("SELECT count(*) FROM telemetry_raw WHERE event_id = '{event_id}'")).await == 1
    })
    .await;
    assert_eq!(row().await, known);
    device.put(&status("offline")).await;
    until("a live message is applied", async || row().await.is_some_and(|row| row.0 == "offline")).await;
    assert_eq!(second.terminate().await.code, Some(0));
}
