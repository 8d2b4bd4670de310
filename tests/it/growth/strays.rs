//! Rows outside every monthly partition: they move some at a time, and nobody waits for them.

use actors::chore::Chore;
use actors::retention::upkeep::Partitions;
use chrono::{DateTime, Duration, Months, Utc};
use schema::clock::{Clock, Timestamp};
use schema::id;
use schema::store::aggregate::{self, Scope};
use schema::store::partition::{self, ATTACH_PATIENCE};
use schema::store::telemetry::copy::COPY_ROWS_MIN;
use schema::store::telemetry::{self, DeviceEvent, Replays, WriteContext};
use tests::engine::Engine;
use tests::postgres::{Database, connect};
use tests::server::Server;
use tests::settings::Settings;

/// Far more than move in one transaction.
const STRAYS: i64 = 20_000;

fn now() -> Timestamp {
    DateTime::parse_from_rfc3339("2026-11-23T10:00:00Z").expect("a time").with_timezone(&Utc)
}

/// A time whose month gets its partition when [`later`] has come.
fn odd() -> Timestamp {
    now() + Months::new(3)
}

fn later() -> Timestamp {
    now() + Months::new(1)
}

async fn put_strays(db: &Database, at: Timestamp) {
    let sql = "INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value,
            occurred_at, ingested_at)
        SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-001', i::text, 'temperature', 1, $1::timestamptz, $2::timestamptz
        FROM generate_series(1, $3::bigint) AS i";
    db.client.execute(sql, &[&at, &now(), &STRAYS]).await.expect("strays can be stored");
}

fn chore(db: &Database, at: Timestamp) -> Partitions {
    Partitions::new(db.store.clone(), Clock::manual(at))
}

const OF_THE_MONTH: &str = "SELECT count(*) FROM telemetry_raw_202702";

#[tokio::test]
async fn many_strays_move_in_transactions_of_their_own() {
    let db = Database::fresh_at(now()).await;
    put_strays(&db, odd()).await;
    put_strays(&db, odd() + Months::new(40)).await;
    let crowded = db.store.run("test", async |conn| partition::ensure_ahead(conn, later()).await).await;
    let tables: Vec<_> = crowded.expect("it works").iter().map(partition::Month::table).collect();
    assert_eq!(tables, ["telemetry_raw_202702"], "only where there are many");

    chore(&db, later()).run().await.expect("the strays move");
    assert_eq!(db.count(OF_THE_MONTH).await, STRAYS);
    assert_eq!(db.count("SELECT count(*) FROM telemetry_raw_default").await, STRAYS, "the others stay");
    assert_eq!(db.count("SELECT count(*) FROM telemetry_raw").await, 2 * STRAYS);
    assert_eq!(db.count("SELECT count(*) FROM pg_constraint WHERE conname LIKE '%_range'").await, 0);
}

#[tokio::test]
async fn a_move_that_was_cut_goes_on_where_it_was() {
    let db = Database::fresh_at(now()).await;
    put_strays(&db, odd()).await;
    let cut = async |conn: &mut _| {
        let crowded = partition::ensure_ahead(conn, later()).await?;
        crowded[0].stage(conn).await?;
        crowded[0].move_chunk(conn, 0).await
    };
    let moved = db.store.run("test", cut).await.expect("a chunk moves");
    assert!(moved.rows > 0 && moved.rows < STRAYS.unsigned_abs() && moved.next.is_some(), "{moved:?}");

    // Readings on their way are not seen, so nobody makes sums of what is left.
    let pass = async || aggregate::pass(&db.store, Scope::at(later())).await.expect("the database works");
    assert!(pass().await.is_none());
    chore(&db, later()).run().await.expect("the rest moves");
    assert_eq!(db.count(OF_THE_MONTH).await, STRAYS);
    assert!(pass().await.is_some());
}

#[tokio::test]
async fn a_reader_of_the_default_partition_keeps_nobody_waiting_but_the_partition() {
    let db = Database::fresh_at(now()).await;
    put_strays(&db, odd()).await;
    let mut reader = connect(&db.url).await;
    let backup = reader.transaction().await.expect("a transaction can begin");
    backup.execute("SELECT FROM telemetry_raw_default LIMIT 1", &[]).await.expect("it can be read");
    backup.execute("SELECT FROM device_events_default LIMIT 1", &[]).await.expect("it can be read");

    let mut partitions = chore(&db, later());
    let failure = partitions.run().await.expect_err("the reader is in the way");
    assert!(format!("{failure:?}").contains("lock timeout"), "{failure:?}");
    // Would wait for the reader as well if somebody still stood between them.
    store_event(&db).await;

    backup.commit().await.expect("the reader ends");
    partitions.run().await.expect("the way is free");
    assert_eq!(db.count(OF_THE_MONTH).await, STRAYS);
    assert!(ATTACH_PATIENCE <= std::time::Duration::from_secs(1));
}

async fn store_event(db: &Database) {
    let event = DeviceEvent {
        id: id::new_id(),
        tenant_id: "t-001".to_owned(),
        farm_id: "f-001".to_owned(),
        barn_id: "b-001".to_owned(),
        device_id: "d-001".to_owned(),
        event_id: "e-1".to_owned(),
        event_type: "door.opened".to_owned(),
        occurred_at: now(),
        trace_id: "tr".to_owned(),
        payload_json: None,
        topic: "t".to_owned(),
        hash: "h".to_owned(),
        is_forwarded: false,
    };
    let at = WriteContext {
        now: now(),
        dedupe_ttl: Duration::hours(72),
        shard: 0,
        replays: Replays::PassOver,
        copy_rows_min: COPY_ROWS_MIN,
    };
    let stored =
        db.store.run("test", async |conn| telemetry::store_events(conn, &[&event], &[], at).await).await;
    assert_eq!(stored.expect("an event can be stored").len(), 1);
}

#[tokio::test]
async fn the_engine_starts_while_strays_wait_and_a_reader_holds_them() {
    let server = Server::start().await;
    let db = server.database().await;
    let this_month = Clock::system().now();
    let table = format!("telemetry_raw_{}", this_month.format("%Y%m"));
    db.execute(&format!("DROP TABLE {table}")).await;
    put_strays(&db, this_month).await;
    let mut reader = server.connect().await;
    let backup = reader.transaction().await.expect("a transaction can begin");
    backup.execute("SELECT FROM telemetry_raw_default LIMIT 1", &[]).await.expect("it can be read");

    let engine = Engine::start(Settings::of(&server.url())).await;
    backup.commit().await.expect("the reader ends");
    let arrived = format!("SELECT count(*) FROM {table}");
    tests::wait::until("the strays have moved", async || {
        let row = db.client.query_one(&arrived, &[]).await;
        row.is_ok_and(|row| row.get::<_, i64>(0) == STRAYS)
    })
    .await;
    let troubles = engine.log().matches("chore failed").count();
    assert!(troubles <= 2, "a trouble is told once: {troubles}");
}
