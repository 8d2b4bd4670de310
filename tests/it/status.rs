//! The state of devices: live messages, last wills, takeovers, and when a device was last seen.

use loadtest::mqtt::{Login, Publish, Will};
use serde_json::{Value, json};
use tests::barn::Barn;
use tests::device::{Device, at_least_once, login, new_event_id, reading};
use tests::postgres::Database;
use tests::wait::until;

const TOPIC: &str = "iot/status/t-001/f-001/b-001/d-1";

/// A status as iot-sensor-agent writes it.
fn bare(status: &str) -> Publish {
    let body =
        json!({"device_id": "d-1", "status": status, "ts": "2026-02-12T09:00:00+00:00", "message": "m"});
    Publish { is_retained: true, ..at_least_once(TOPIC, body.to_string()) }
}

/// A status as iot-weighvision-agent writes it, always with the same event id.
fn full(mqtt_ok: bool, camera_ok: bool) -> Publish {
    let health = json!({"camera_ok": camera_ok, "scale_ok": true, "disk_ok": true, "mqtt_ok": mqtt_ok, "note": "no flag"});
    let body = json!({"schema_version": "1.0", "event_id": "always-the-same", "trace_id": "tr", "tenant_id": "t-001",
        "device_id": "d-1", "event_type": "device.status", "ts": "2026-02-12T09:00:00+00:00", "content_hash": null,
        "payload": {"last_seen_at": "2026-02-12T09:00:00+00:00", "firmware_version": "1.0.0", "ip": null,
            "signal_strength": null, "health": health}});
    Publish { is_retained: true, ..at_least_once(TOPIC, body.to_string()) }
}

fn with_will(will: &Publish) -> Login {
    let will = Will { topic: will.topic.to_string(), payload: will.payload.to_vec(), is_retained: true };
    Login { will: Some(will), ..login("d-1") }
}

/// What is known of the device: state, firmware, message, health, and when it was last seen.
async fn known(
    db: &Database,
) -> (String, Option<String>, Option<String>, Option<Value>, chrono::DateTime<chrono::Utc>) {
    let sql = "SELECT state, firmware_version, message, health_json, last_seen_at FROM device_last_seen
               WHERE tenant_id = 't-001' AND device_id = 'd-1'";
    let row = db.client.query_one(sql, &[]).await.expect("the device is known");
    (row.get::<_, Option<String>>(0).unwrap_or_default(), row.get(1), row.get(2), row.get(3), row.get(4))
}

async fn state(db: &Database) -> String {
    known(db).await.0
}

async fn becomes(db: &Database, expected: &str) {
    until(&format!("the device is {expected}"), async || state(db).await == expected).await;
}

#[tokio::test]
async fn a_status_says_how_a_device_is_and_an_offline_one_is_no_sign_of_life() {
    let barn = Barn::start().await;
    let mut device = barn.device("d-1").await;
    device.put(&bare("offline")).await;
    let (state, _, message, _, seen_at) = known(&barn.db).await;
    assert_eq!((state.as_str(), message.as_deref()), ("offline", Some("m")));
    assert_eq!(seen_at.to_rfc3339(), "2026-02-12T09:00:00+00:00", "an offline status starts at its own time");
    device.put(&full(true, false)).await;
    let (state, firmware, message, health, online_at) = known(&barn.db).await;
    assert_eq!((state.as_str(), firmware.as_deref(), message), ("online", Some("1.0.0"), None));
    assert_eq!(health, Some(json!({"camera_ok": false, "scale_ok": true, "disk_ok": true, "mqtt_ok": true})));
    assert!(online_at > seen_at);
    device.put(&bare("error")).await;
    let (state, _, _, _, error_at) = known(&barn.db).await;
    assert!(state == "error" && error_at > online_at);
    device.put(&full(false, true)).await;
    let (state, _, _, _, seen_at) = known(&barn.db).await;
    assert_eq!((state.as_str(), seen_at), ("offline", error_at), "an offline status does not move the time");
    // Statuses are not deduped: the same event id counts each time.
    device.put(&full(true, true)).await;
    assert_eq!(known(&barn.db).await.0, "online");
    let marks = barn.db.count("SELECT count(*) FROM ingress_dedupe").await;
    let events = barn.db.count("SELECT count(*) FROM sync_outbox").await;
    assert_eq!((marks, events, barn.metric("ingress_deduped", "")), (0, 0, 0.0));
    barn.finish().await;
}

#[tokio::test]
async fn any_live_message_is_a_sign_of_life_written_at_intervals() {
    let barn = Barn::start_with(|settings| settings.set("device.last_seen_write_seconds", "1")).await;
    let mut device = barn.device("d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;
    let (state, _, _, _, first) = known(&barn.db).await;
    assert_eq!(state, "", "a reading says nothing about the state");
    device.put(&reading("d-1", &new_event_id())).await;
    until("a later reading moves the time", async || {
        device.put(&reading("d-1", &new_event_id())).await;
        known(&barn.db).await.4 > first
    })
    .await;
    let second = known(&barn.db).await.4;
    assert!(second - first >= chrono::Duration::milliseconds(990), "written {first} and {second}");
    barn.finish().await;
}

#[tokio::test]
async fn the_last_will_of_a_lost_connection_counts_each_time_and_that_of_a_goodbye_never() {
    let barn = Barn::start().await;
    let will = full(false, false);
    for _ in 0..2 {
        let mut device = Device::login(barn.mqtt(), &with_will(&will)).await;
        device.put(&full(true, true)).await;
        assert_eq!(state(&barn.db).await, "online");
        drop(device);
        becomes(&barn.db, "offline").await;
    }
    let mut device = Device::login(barn.mqtt(), &with_will(&will)).await;
    device.put(&full(true, true)).await;
    device.disconnect().await;
    // A later message is behind whatever the goodbye might have caused.
    barn.device("d-2").await.put(&reading("d-2", &new_event_id())).await;
    assert_eq!(state(&barn.db).await, "online");
    barn.finish().await;
}

#[tokio::test]
async fn a_takeover_closes_the_first_connection_and_publishes_its_will_before_the_second_speaks() {
    let barn = Barn::start().await;
    let will = full(false, false);
    let mut agent = Device::login(barn.mqtt(), &with_will(&will)).await;
    agent.put(&full(true, true)).await;
    let mut session = Device::login(barn.mqtt(), &with_will(&will)).await;
    agent.closed().await;
    becomes(&barn.db, "offline").await;
    session.put(&full(true, true)).await;
    assert_eq!(state(&barn.db).await, "online");
    session.disconnect().await;
    barn.finish().await;
}
