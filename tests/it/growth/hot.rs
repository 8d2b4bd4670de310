//! What every message, every minute and every look at the lists asks of a database with a history: a bounded number of pages,
//! however long that history is.

use chrono::{Duration, DurationRound};
use schema::clock::{Clock, Timestamp};
use schema::id::{self, Uuid};
use schema::store::partition;
use schema::wire::event::TELEMETRY_INGESTED;
use tests::plan::{pages_touched, plan};
use tests::postgres::Database;
use tokio_postgres::types::ToSql;

/// Readings of the history, 20 a second, of ten devices with two metrics each.
const HISTORY: i64 = 200_000;
/// Rows of a batch.
const BATCH: usize = 100;

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// The minute at which the history ends.
fn end() -> Timestamp {
    Clock::system().now().duration_trunc(Duration::minutes(1)).expect("a minute divides every time")
}

async fn fill(db: &Database) {
    let sql = "INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value,
            unit, occurred_at, ingested_at, trace_id)
        SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 10, gen_random_uuid()::text, 'm-' || i / 10 % 2, i % 100, 'u',
            $1::timestamptz - i * interval '50 milliseconds', $1::timestamptz - i * interval '50 milliseconds', 'trace'
        FROM generate_series($2::bigint, 1, -1) AS i";
    db.client.execute(sql, &[&end(), &HISTORY]).await.expect("readings can be stored");
    db.execute(
        "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
         SELECT gen_random_uuid(), tenant_id, farm_id, barn_id, device_id, event_id, 'door.opened', occurred_at, ingested_at
         FROM telemetry_raw WHERE metric_value < 25;
         INSERT INTO ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
         SELECT tenant_id, event_id, ingested_at, ingested_at + interval '72 hours', 't', 'h' FROM telemetry_raw;
         INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json, created_at, updated_at)
         SELECT gen_random_uuid(), tenant_id, farm_id, barn_id, device_id, 'telemetry.ingested', occurred_at, '{}', ingested_at, ingested_at
         FROM telemetry_raw WHERE metric_value < 50;
         INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value, min_value,
             max_value, count, created_at)
         SELECT gen_random_uuid(), 't-00' || i % 3, 'd-' || i % 10, '1m', now() - i / 10 * interval '1 minute',
             now() - i / 10 * interval '1 minute' + interval '1 minute', 'm', 1, 1, 1, 1, now()
         FROM generate_series(1, 100000) AS i",
    )
    .await;
    db.execute("VACUUM ANALYZE").await;
}

/// A batch as the statements that store readings take it, one vector a column.
struct Batch {
    texts: [Vec<String>; 9],
    ids: [Vec<Uuid>; 2],
    values: Vec<f64>,
    units: Vec<Option<String>>,
    times: Vec<Timestamp>,
    arrivals: Vec<i32>,
    expires_at: Timestamp,
    now: Timestamp,
    tenants: Vec<String>,
    counts: [Vec<i64>; 2],
}

impl Batch {
    fn new(now: Timestamp) -> Self {
        let every = |text: &str| vec![text.to_owned(); BATCH];
        let numbered = |make: fn(usize) -> String| (0..BATCH).map(make).collect::<Vec<_>>();
        let mut event_ids: Vec<String> = (0..BATCH).map(|_| Uuid::new_v4().to_string()).collect();
        event_ids.sort();
        let rows = i64::try_from(BATCH).expect("it is small");
        Self {
            texts: [
                every("t-001"),
                every("f"),
                every("b"),
                numbered(|i| format!("d-{}", i % 10)),
                event_ids,
                numbered(|i| format!("m-{}", i / 10 % 2)),
                every("trace"),
                every("iot/telemetry/t-001/f/b/d/m"),
                every("{\"telemetry_raw_id\": \"00000000-0000-0000-0000-000000000000\"}"),
            ],
            ids: [(0..BATCH).map(|_| id::new_id()).collect(), (0..BATCH).map(|_| Uuid::new_v4()).collect()],
            values: vec![1.0; BATCH],
            units: vec![Some("u".to_owned()); BATCH],
            times: vec![now; BATCH],
            arrivals: (0..).take(BATCH).collect(),
            expires_at: now + Duration::hours(72),
            now,
            tenants: vec!["t-001".to_owned()],
            counts: [vec![rows], vec![0]],
        }
    }

    fn params(&self) -> Params<'_> {
        let [tenants, farms, barns, devices, events, metrics, traces, topics, payloads] = &self.texts;
        vec![
            tenants,
            farms,
            barns,
            devices,
            events,
            &self.ids[0],
            &self.ids[1],
            metrics,
            &self.values,
            &self.units,
            &self.times,
            traces,
            topics,
            // A hash is a text as any other.
            topics,
            payloads,
            &self.arrivals,
            &self.now,
            &self.expires_at,
            &TELEMETRY_INGESTED,
            &0_i32,
            &self.tenants,
            &self.counts[0],
            &self.counts[1],
        ]
    }
}

#[tokio::test]
async fn a_message_costs_a_few_pages_however_many_came_before() {
    let mut db = Database::fresh().await;
    let now = Clock::system().now();
    let batch = Batch::new(now);
    let mut before = Vec::new();
    for name in ["store_new_readings", "store_readings"] {
        before.push(pages_touched(&mut db.client, name, &batch.params()).await);
    }
    fill(&db).await;
    let rows = i64::try_from(BATCH).expect("it is small");
    for (name, before) in ["store_new_readings", "store_readings"].into_iter().zip(before) {
        let pages = pages_touched(&mut db.client, name, &batch.params()).await;
        assert!(pages / rows <= 45, "{name}: {pages} pages for {rows} rows");
        // Indexes have become deeper, and nothing else.
        assert!(pages <= before * 3, "{name}: {pages} pages, {before} in an empty database");
    }
    let (devices, times) = (vec!["d-1".to_owned()], vec![now]);
    let seen: Params<'_> = vec![&batch.tenants, &devices, &times, &devices, &now];
    let pages = pages_touched(&mut db.client, "device_seen", &seen).await;
    assert!(pages <= 10, "device_seen: {pages} pages");
}

#[tokio::test]
async fn a_minute_is_aggregated_from_its_own_pages() {
    let mut db = Database::fresh().await;
    fill(&db).await;
    let (end, now) = (end(), Clock::system().now());
    let minute_ago = end - Duration::minutes(1);
    // 1,200 readings in about 30 pages, of ranges of 32 pages; 20 buckets.
    let close: Params<'_> = vec![&minute_ago, &end, &now];
    let found = plan(&mut db.client, "close_minutes", &close).await;
    assert!(found.scanned.iter().all(|table| !is_large(table)), "{found:?}");
    assert!(found.pages <= 800, "close_minutes: {found:?}");
    // What came in the last minute, and before that within the time for late commits; all of it is of minutes closed before.
    let (first, new_from, horizon) = (end - Duration::seconds(105), end - Duration::seconds(60), 0_i64);
    let late: Params<'_> = vec![&first, &end, &end, &new_from, &horizon];
    let found = plan(&mut db.client, "late_minutes", &late).await;
    assert!(found.scanned.iter().all(|table| !is_large(table)), "{found:?}");
    assert!(found.pages <= 400, "late_minutes: {found:?}");
    let tenants = vec!["t-001".to_owned(); 5];
    let devices: Vec<String> = (0..5).map(|i| format!("d-{i}")).collect();
    let metrics = vec!["m-0".to_owned(); 5];
    let starts: Vec<Timestamp> = (0..5).map(|i| end - Duration::minutes(60 + i)).collect();
    let compute: Params<'_> = vec![&tenants, &devices, &metrics, &starts, &now];
    let found = plan(&mut db.client, "compute_minutes", &compute).await;
    assert!(found.pages <= 5 * 200, "compute_minutes: {found:?}");
    for name in ["has_occurred", "has_ingested"] {
        let params: Params<'_> = vec![&minute_ago, &end];
        let found = plan(&mut db.client, name, &params).await;
        assert!(found.pages <= 100, "{name}: {found:?}");
    }
    let (none, all): (Option<&str>, Option<&str>) = (None, Some("t-001"));
    for tenant in [&none, &all] {
        let params: Params<'_> = vec![tenant, &minute_ago];
        let found = plan(&mut db.client, "telemetry_rate", &params).await;
        assert!(found.pages <= 400, "telemetry_rate: {found:?}");
    }
}

/// Whether a table holds the history. One that is empty may be read from end to end.
fn is_large(table: &str) -> bool {
    let end = end();
    let begin = end - Duration::milliseconds(HISTORY * 50);
    [end, begin].iter().any(|at| table == format!("telemetry_raw_{}", at.format("%Y%m")))
}

#[tokio::test]
async fn a_page_of_a_list_costs_its_own_rows_wherever_it_lies() {
    let mut db = Database::fresh().await;
    fill(&db).await;
    let (none, no_time): (Option<&str>, Option<Timestamp>) = (None, None);
    let (device, window, hour_ago) = (Some("d-1"), "1m", Some(end() - Duration::hours(1)));
    let (id, no_id): (_, Option<Uuid>) = (Some(Uuid::nil()), None);
    for (at, id) in [(&no_time, &no_id), (&hour_ago, &id)] {
        for (name, device) in [
            ("readings", &none),
            ("readings_of_device", &device),
            ("events", &none),
            ("events_of_device", &device),
        ] {
            let mut params: Params<'_> = vec![&"t-001", device, &no_time, &no_time, &100_i64];
            if name.starts_with("events") {
                params.push(&none);
            }
            params.extend([at as &(dyn ToSql + Sync), id]);
            let found = plan(&mut db.client, name, &params).await;
            assert!(found.scanned.is_empty() && found.pages <= 400, "{name}: {found:?}");
        }
        for device in [&none, &device] {
            let params: Params<'_> =
                vec![&"t-001", device, &window, &no_time, &no_time, &100_i64, at, &none, &none, &none];
            let found = plan(&mut db.client, "aggregates", &params).await;
            assert!(found.scanned.is_empty() && found.pages <= 1_000, "aggregates: {found:?}");
        }
    }
    for name in ["telemetry_totals", "tally_read"] {
        let tenants = Some(vec!["t-001".to_owned()]);
        let params: Params<'_> =
            if name == "tally_read" { vec![&"telemetry_agg", &tenants] } else { vec![&device] };
        let found = plan(&mut db.client, name, &params).await;
        assert!(found.pages <= 20, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn every_table_of_readings_is_vacuumed_before_its_tail_is_long() {
    let db = Database::fresh().await;
    let now = Clock::system().now();
    let forgotten = "SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'telemetry_raw'::regclass
            AND NOT coalesce(c.reloptions, '{}') @> ARRAY['autovacuum_vacuum_insert_scale_factor=0', 'autovacuum_vacuum_insert_threshold=50000']";
    assert_eq!(db.count(forgotten).await, 0);
    // As a program before this one has made them.
    db.execute("ALTER TABLE telemetry_raw_default RESET (autovacuum_vacuum_insert_scale_factor)").await;
    assert_eq!(db.count(forgotten).await, 1);
    let ensure = async || {
        db.store.run("test", async |conn| partition::ensure_ahead(conn, now).await).await.expect("it works")
    };
    // While somebody holds it, nobody waits; the next look sees to it.
    let mut other = tests::postgres::connect(&db.url).await;
    let holder = other.transaction().await.expect("a transaction can begin");
    holder
        .batch_execute("LOCK TABLE telemetry_raw_default IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .expect("it is free");
    ensure().await;
    assert_eq!(db.count(forgotten).await, 1);
    holder.commit().await.expect("it ends");
    ensure().await;
    assert_eq!(db.count(forgotten).await, 0);
}
