//! A device that loses its connection again and again while the database stalls: its last will and its next status meet in
//! one commit, and come over two connections.

use serde_json::json;
use tests::barn::Barn;
use tests::raw::Raw;

const TOPIC: &str = "iot/status/t-001/f-001/b-001/d-1";
/// Takeovers under one stall each.
const ROUNDS: u16 = 40;
const ROUNDS_LARGE: u16 = 200;
/// Rounds of a client that says goodbye and comes again at once.
const GOODBYES: u16 = 100;

fn status(state: &str, message: &str) -> String {
    json!({"device_id": "d-1", "status": state, "ts": "2026-02-12T09:00:00+00:00", "message": message})
        .to_string()
}

async fn take_over(rounds: u16) {
    let barn = Barn::start().await;
    let mqtt = barn.settings.mqtt;
    let will = status("offline", "gone");
    let mut before = Raw::with_will(mqtt, "d-1", TOPIC, &will).await;
    for round in 1..=rounds {
        barn.db.execute("BEGIN; LOCK TABLE device_last_seen IN EXCLUSIVE MODE").await;
        // The commit of this one hangs, so that the will and the next status share another.
        before.publish(0x03, TOPIC, 1, &status("online", "held up")).await;
        let mut after = Raw::with_will(mqtt, "d-1", TOPIC, &will).await;
        let latest = status("online", &format!("round {round}"));
        after.publish(0x03, TOPIC, 2, &latest).await;
        barn.db.execute("COMMIT").await;
        after.expect(0x40, 2).await;
        let (mut reader, _) = Raw::resume(mqtt, "reader").await;
        reader.subscribe(TOPIC, 0).await;
        assert_eq!(reader.message().await.payload, latest, "round {round}");
        before = after;
    }
    let sql = format!(
        "SELECT count(*) FROM mqtt_retained WHERE convert_from(payload, 'UTF8') LIKE '%\"round {rounds}\"%'"
    );
    assert_eq!(barn.db.count(&sql).await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retained_status_is_never_an_older_one_however_connections_take_over() {
    take_over(ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "large: `make test-large`"]
async fn the_retained_status_is_never_an_older_one_over_two_hundred_takeovers() {
    take_over(ROUNDS_LARGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sent_before_it_came_again_is_taken_in() {
    let barn = Barn::start().await;
    let mqtt = barn.settings.mqtt;
    let (mut reader, _) = Raw::resume(mqtt, "reader").await;
    reader.subscribe(TOPIC, 0).await;
    let will = status("offline", "the last will of one who said goodbye");
    let mut before = Raw::with_will(mqtt, "d-1", TOPIC, &will).await;
    for round in 1..=GOODBYES {
        let latest = status("online", &format!("round {round}"));
        before.publish(0x00, TOPIC, 0, &latest).await;
        before.send(0xe0, &[]).await;
        drop(before);
        before = Raw::with_will(mqtt, "d-1", TOPIC, &will).await;
        assert_eq!(reader.message().await.payload, latest, "round {round}");
    }
    barn.finish().await;
}
