//! Acknowledged readings: kept without what their reading says, and sent again with the bytes that they were sent with.

use std::collections::BTreeMap;

use chrono::Duration;
use schema::clock::{Clock, Timestamp};
use schema::id;
use schema::store::outbox::claim;
use schema::store::outbox::groups_of;
use schema::store::outbox::resend::{self, Range, Resent};
use schema::store::outbox::settle::{Settlement, settle};
use schema::store::partition;
use schema::store::telemetry::{self, Reading, Replays, WriteContext};
use tests::outbox::request;
use tests::postgres::Database;
use uuid::Uuid;

const TENANT: &str = "t-001";

fn readings(count: usize, at: Timestamp) -> Vec<Reading> {
    let units = [None, Some("celsius"), Some("°C"), Some("\"quoted\\unit\"\u{1f414}")];
    let values = [21.5, -0.0, 27.0, 1e300, 5e-324, 0.1 + 0.2, -40.0, 123_456_789_012_345.0];
    (0..count)
        .map(|n| {
            let event_id =
                if n % 3 == 0 { id::new_id().to_string() } else { format!("sample-{n}-{}", id::new_id()) };
            Reading {
                id: id::new_id(),
                outbox_id: id::outbox_id(TENANT, &event_id),
                tenant_id: TENANT.to_owned(),
                farm_id: "f-001".to_owned(),
                barn_id: "b-001".to_owned(),
                device_id: format!("d-{:03}", n % 40),
                event_id,
                metric: ["temperature", "humidity", "light"][n % 3].to_owned(),
                value: values[n % values.len()],
                unit: units[n % units.len()].map(str::to_owned),
                // Some devices say the same moment several times.
                occurred_at: at + Duration::milliseconds(i64::try_from(n / 80).expect("few") * 7),
                trace_id: id::new_id().to_string(),
                topic: "t".to_owned(),
                hash: "00".to_owned(),
            }
        })
        .collect()
}

async fn store(db: &Database, readings: &[Reading], now: Timestamp) {
    let rows: Vec<&Reading> = readings.iter().collect();
    let at = WriteContext {
        now,
        dedupe_ttl: Duration::hours(72),
        shard: 0,
        replays: Replays::PassOver,
        copy_rows_min: usize::MAX,
    };
    let work = async |conn: &mut _| telemetry::store_readings(conn, &rows, &[], at).await;
    assert_eq!(db.store.run("test", work).await.expect("they are stored").len(), readings.len());
}

/// Sends what waits to a cloud that takes everything; returns the events as they went.
async fn send(db: &Database, now: Timestamp) -> BTreeMap<Uuid, String> {
    let groups = groups_of(0, 1);
    let mut sent = BTreeMap::new();
    loop {
        let request = request("edge-a", &groups, now);
        let claimed = db.store.run("claim", async |conn| claim::claim(conn, &request).await).await;
        let Some(batch) = claimed.expect("the database works").batch else { return sent };
        for event in &batch.events {
            sent.insert(event.id, batch.event_text(event).to_owned());
        }
        let settlement =
            Settlement { acked: batch.events.iter().collect(), is_last: true, ..Settlement::default() };
        let work = async |conn: &mut _| settle(conn, TENANT, batch.id, &settlement, now).await;
        let settled = db.store.run("settle", work).await.expect("the database works");
        assert_eq!(settled.acked.len(), batch.events.len());
    }
}

async fn resend(db: &Database, is_rehearsal: bool, now: Timestamp) -> Resent {
    let range = Range { tenant_id: TENANT, from: now - Duration::hours(2), to: now + Duration::hours(2) };
    let work = async |conn: &mut _| resend::resend(conn, &range, is_rehearsal, now).await;
    db.store.run("resend", work).await.expect("the database works")
}

#[tokio::test]
async fn a_reading_that_is_resent_has_the_bytes_of_the_first_time() {
    let db = Database::fresh().await;
    let now = Clock::system().now();
    store(&db, &readings(600, now), now).await;
    // Somebody's own event of the same type, and one of another.
    let own = "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json, payload_size_bytes)
        VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd-1', $1, $2, $3::text::jsonb, 40)";
    for (event_type, payload) in [
        ("telemetry.ingested", r#"{"metric_type": "t", "metric_value": 1}"#),
        ("telemetry.ingested", "{}"),
        ("media.stored", r#"{"telemetry_raw_id": "x"}"#),
    ] {
        // An empty payload is two bytes large.
        db.client.execute(own, &[&event_type, &now, &payload]).await.expect("it may");
        db.execute("UPDATE sync_outbox SET payload_size_bytes = 2 WHERE payload_json = '{}'").await;
    }
    let first = send(&db, now).await;
    assert_eq!(first.len(), 603);
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE payload_json = '{}'").await, 601);
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE payload_size_bytes > 100").await, 600);

    let all = Resent { found: 603, ..Resent::default() };
    assert_eq!(resend(&db, true, now).await, all);
    assert_eq!(resend(&db, false, now).await, Resent { resent: 603, ..all });
    let again = send(&db, now).await;
    assert!(first == again, "the same ids with the same bytes");
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE attempt_count = 1").await, 603);

    // Retention may have been faster with a reading than with its event.
    db.execute("DELETE FROM telemetry_raw WHERE device_id = 'd-007'").await;
    let lost = Resent { found: 603, without_reading: 15, resent: 0 };
    assert_eq!(resend(&db, true, now).await, lost);
    assert_eq!(resend(&db, false, now).await, Resent { resent: 588, ..lost });
    assert_eq!(send(&db, now).await.len(), 588);
    let kept = "SELECT count(*) FROM sync_outbox WHERE device_id = 'd-007' AND status = 'acked'";
    assert_eq!(db.count(kept).await, 15, "what cannot go stays where it is");
}

#[tokio::test]
async fn an_acknowledged_reading_takes_little_room() {
    let db = Database::fresh().await;
    let now = Clock::system().now();
    for _ in 0..4 {
        store(&db, &readings(2_000, now), now).await;
    }
    let waiting = db.count("SELECT pg_relation_size('sync_outbox') / count(*) FROM ONLY sync_outbox").await;
    let indexes = db.count("SELECT pg_indexes_size('sync_outbox') / count(*) FROM ONLY sync_outbox").await;
    assert_eq!(send(&db, now).await.len(), 8_000);
    let table = partition::acked_table(now.date_naive());
    let archived = db.count(&format!("SELECT pg_relation_size('{table}') / count(*) FROM {table}")).await;
    println!("bytes a row: {waiting} waiting, {indexes} of its indexes, {archived} acknowledged");
    assert!(archived < 300, "{archived} bytes a row");
}
