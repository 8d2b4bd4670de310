//! A morning's traffic of weight-vision-service, as it goes over the wire, and the same morning once more.

use chrono::{Duration, TimeZone, Utc};
use loadtest::device::{Place, Station, Weighing};
use loadtest::mqtt::Publish;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tests::barn::Barn;
use tests::device::TENANT;
use tests::postgres::Database;

/// Four weighings of seven messages each: two readings, and five steps of a session.
fn traffic() -> Vec<Publish> {
    let place = Place { tenant: TENANT.into(), farm: "f-001".into(), barn: "b-001".into() };
    let station = Station { place, station: "st-01".into(), device: "wv-001".into() };
    let mut random = StdRng::seed_from_u64(20_260_212);
    let began_at = Utc.with_ymd_and_hms(2026, 2, 12, 9, 32, 15).unwrap();
    let mut weigh = |number: i32| {
        let at = began_at + Duration::seconds(90 * i64::from(number)) + Duration::microseconds(52_317);
        let session = at.format("%Y%m%d_%H%M%S").to_string();
        let weighing = Weighing { session: &session, weight_kg: 0.2 + f64::from(number) / 10.0, at };
        station.weigh(weighing, &mut random)
    };
    (0..4).flat_map(&mut weigh).map(|message| message.publish).collect()
}

async fn rows(db: &Database) -> [i64; 6] {
    let queries = [
        "SELECT count(*) FROM telemetry_raw",
        "SELECT count(*) FROM ingress_dedupe",
        "SELECT count(*) FROM ingress_rejects",
        "SELECT count(*) FROM sync_outbox WHERE event_type = 'telemetry.ingested'",
        "SELECT count(*) FROM sync_outbox WHERE event_type LIKE 'weighvision.%'",
        "SELECT count(DISTINCT event_id) FROM telemetry_raw WHERE metric_type = 'weight' AND unit = 'kg'",
    ];
    let mut counts = [0; 6];
    for (count, query) in counts.iter_mut().zip(queries) {
        *count = db.count(query).await;
    }
    counts
}

#[tokio::test]
async fn a_replayed_morning_is_stored_once() {
    let barn = Barn::start().await;
    let traffic = traffic();
    assert_eq!(traffic.len(), 28);
    let mut device = barn.device("wv-001").await;
    device.put_all(traffic.clone()).await;
    let expected = [8, 28, 0, 8, 12, 8];
    assert_eq!(rows(&barn.db).await, expected);
    assert_eq!(barn.metric("ingress_deduped", ""), 0.0);
    device.put_all(traffic).await;
    assert_eq!(rows(&barn.db).await, expected);
    assert_eq!(barn.metric("ingress_deduped", ""), 28.0);
    assert_eq!(barn.metric("ingress_dedupe_conflict", ""), 0.0);
    barn.finish().await;
}
