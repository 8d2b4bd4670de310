//! The low-water marks of the outbox: looks cost the same while a vacuum is kept from its work, and no row is overlooked,
//! whenever and by whomever it was queued.

use chrono::{DateTime, Duration};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schema::clock::{Clock, Timestamp};
use schema::store::health;
use schema::store::outbox::claim::{self, ClaimRequest};
use schema::store::outbox::{groups_of, low_water, measure, queries};
use tests::outbox;
use tests::plan::plan;
use tests::postgres::{Database, connect};
use tests::wait::until;
use tokio_postgres::Client;

const TENANT: &str = "t-001";

fn now() -> Timestamp {
    DateTime::from_timestamp(1_770_888_735, 0).expect("a time")
}

/// Rows that wait below where a look at their lane group begins.
const OVERLOOKED: &str = "SELECT count(*) FROM ONLY sync_outbox AS o
    JOIN sync_lane_marks AS m ON m.tenant_id = o.tenant_id AND m.lane_group = o.lane_group
    WHERE o.failed_at IS NULL AND coalesce(o.order_at, o.occurred_at, o.created_at) < least(m.low_at, (
        SELECT min(l.at) FROM sync_lane_late AS l WHERE l.tenant_id = o.tenant_id AND l.lane_group = o.lane_group))";

async fn advance(db: &Database, is_full: bool, now: Timestamp) -> u64 {
    let tenants = [TENANT.to_owned()];
    let work = async |conn: &mut _| low_water::advance(conn, &tenants, is_full, now).await;
    db.store.run("advance", work).await.expect("the database works")
}

/// Until the marks are as high as they may be: a transaction anywhere on the server holds them up.
async fn settle_marks(db: &Database, now: Timestamp) {
    let low = (now - Duration::seconds(5)).to_rfc3339();
    let behind = format!("SELECT count(*) FROM sync_lane_marks WHERE safe_at < '{low}'");
    until("the marks are safe", async || {
        advance(db, false, now).await;
        db.count(&behind).await == 0
    })
    .await;
}

/// Rows of a device, `seconds` before `now`, as anybody queues them.
fn queue(device: &str, now: Timestamp, seconds: i64) -> String {
    format!(
        "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json)
         VALUES (gen_random_uuid(), '{TENANT}', 'f', 'b', '{device}', 'telemetry.ingested', '{}', 'tr', '{{\"n\": 1}}')",
        (now - Duration::seconds(seconds)).to_rfc3339()
    )
}

fn request(groups: &[i16], now: Timestamp) -> ClaimRequest<'_> {
    ClaimRequest { window_rows: 125, ..outbox::request("edge-a", groups, now) }
}

async fn claimed(db: &Database, now: Timestamp) -> usize {
    let groups = groups_of(0, 1);
    let request = request(&groups, now);
    let work = async |conn: &mut _| claim::claim(conn, &request).await;
    let claimed = db.store.run("claim", work).await.expect("the database works");
    db.execute("DELETE FROM sync_lane_groups").await;
    claimed.batch.map_or(0, |batch| batch.events.len())
}

async fn lowest(db: &Database) -> Timestamp {
    let row =
        db.client.query_one("SELECT min(low_at) FROM sync_lane_marks WHERE low_at > '-infinity'", &[]).await;
    row.expect("it can be asked").get::<_, Option<Timestamp>>(0).unwrap_or(Timestamp::MIN_UTC)
}

#[tokio::test]
async fn looks_cost_the_same_while_somebody_holds_an_old_snapshot() {
    let db = Database::fresh().await;
    let mut looker = connect(&db.url).await;
    let now = Clock::system().now();
    let groups = groups_of(0, 4);
    let hour_ago = now - Duration::hours(1);
    let fill = async |from: i64, to: i64| {
        db.execute(&format!(
            "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json)
             SELECT gen_random_uuid(), '{TENANT}', 'f', 'b', 'd-' || (n % 100), 'telemetry.ingested',
                 '{}'::timestamptz + n * interval '40 ms', 'tr', '{{\"metric_value\": 1}}'
             FROM generate_series({from}, {to}) AS n",
            hour_ago.to_rfc3339()
        ))
        .await;
    };
    let pages = async || {
        let look = request(&groups, now);
        db.store
            .run("look", async |conn| measure::pages_of_a_claim(conn, &look).await)
            .await
            .expect("it works")
            .0
    };
    fill(1, 2_000).await;
    let few = pages().await;
    let dump = connect(&db.url).await;
    dump.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sync_outbox")
        .await
        .expect("it may");
    fill(2_001, 80_000).await;
    db.execute(&format!(
        "DELETE FROM ONLY sync_outbox WHERE occurred_at < '{}'::timestamptz + 78000 * interval '40 ms'",
        hour_ago.to_rfc3339()
    ))
    .await;
    db.execute("VACUUM sync_outbox").await;
    let without = pages().await;
    settle_marks(&db, now).await;
    let with = pages().await;
    println!(
        "pages of a look: {few} of a young outbox, {without} behind 78,000 dead rows, {with} with marks"
    );
    assert!(without > 10 * few, "the snapshot keeps what was deleted: {without}");
    assert!(with < few + 600, "{with} pages");

    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
        SET enable_mergejoin = off; SET enable_sort = off";
    looker.batch_execute(by_index).await.expect("settings can be changed");
    let farthest = now + Duration::minutes(6);
    let due = plan(&mut looker, "due_tenants", &[&groups, &now, &farthest]).await;
    let present = vec![TENANT.to_owned()];
    let oldest = plan(&mut looker, "outbox_oldest_pending", &[&present, &16_i64]).await;
    println!("pages of a look for tenants: {}, for the oldest: {}", due.pages, oldest.pages);
    assert!(due.pages < 100 && oldest.pages < 600, "{due:?} {oldest:?}");
    // When all is sent, nothing is read to see that.
    db.execute("DELETE FROM ONLY sync_outbox").await;
    for seconds in 1..4 {
        advance(&db, false, now + Duration::seconds(seconds)).await;
    }
    let none = plan(&mut looker, "due_tenants", &[&groups, &now, &farthest]).await;
    assert!(none.pages < 100, "{none:?}");
    assert!(pages().await < 100);

    let snapshot = async |conn: &mut schema::store::Conn| health::oldest_snapshot(conn).await;
    let pid = dump.query_one("SELECT pg_backend_pid()", &[]).await.expect("it may").get::<_, i32>(0);
    let found = db.store.run("test", snapshot).await.expect("it works").expect("somebody holds one");
    // Other tests hold theirs on the same server.
    assert!(found.seconds >= 0.0 && found.pid != 0, "{found:?} {pid}");
}

#[tokio::test]
async fn a_row_that_comes_below_the_mark_is_found_at_once() {
    let db = Database::fresh_at(now()).await;
    db.execute(&queue("d-1", now(), 60)).await;
    settle_marks(&db, now()).await;
    assert_eq!(lowest(&db).await, now() - Duration::seconds(60), "the mark is at the first row that waits");
    db.execute("DELETE FROM sync_outbox").await;
    settle_marks(&db, now()).await;
    assert_eq!(lowest(&db).await, now() - Duration::seconds(5), "it stays behind the present");
    for seconds in [6, 3_600, 56 * 365 * 86_400] {
        db.execute(&queue("d-1", now(), seconds)).await;
        assert_eq!(claimed(&db, now()).await, 1, "{seconds} s late");
        settle_marks(&db, now()).await;
        assert_eq!((claimed(&db, now()).await, db.count(OVERLOOKED).await), (1, 0));
        db.execute("DELETE FROM sync_outbox").await;
        advance(&db, false, now()).await;
        assert_eq!(lowest(&db).await, now() - Duration::seconds(5), "it is back with the next move");
    }
    assert_eq!(db.count("SELECT count(*) FROM sync_lane_late").await, 0);
}

#[tokio::test]
async fn a_row_that_waits_again_is_found_at_once() {
    let db = Database::fresh_at(now()).await;
    db.execute(&queue("d-1", now(), 60)).await;
    db.execute("UPDATE sync_outbox SET status = 'failed', failed_at = now(), reject_count = 1").await;
    settle_marks(&db, now()).await;
    assert_eq!((claimed(&db, now()).await, lowest(&db).await), (0, now() - Duration::seconds(5)));
    let work = async |conn: &mut _| queries::redrive(conn, None, None, now()).await;
    assert_eq!(db.store.run("redrive", work).await.expect("the database works"), 1);
    assert_eq!(claimed(&db, now()).await, 1);
    db.execute("UPDATE sync_outbox SET order_at = '2001-01-01'").await;
    settle_marks(&db, now()).await;
    assert_eq!(claimed(&db, now()).await, 1);
}

#[tokio::test]
async fn what_came_in_past_all_triggers_is_found_by_a_full_look() {
    let db = Database::fresh_at(now()).await;
    settle_marks(&db, now()).await;
    let quiet = format!(
        "SET session_replication_role = replica; {}; SET session_replication_role = origin",
        queue("d-1", now(), 60)
    );
    db.execute(&quiet).await;
    assert_eq!((claimed(&db, now()).await, db.count(OVERLOOKED).await), (0, 1));
    assert_eq!(advance(&db, true, now()).await, 1);
    assert_eq!((claimed(&db, now()).await, db.count(OVERLOOKED).await), (1, 0));
    assert_eq!(advance(&db, true, now()).await, 0);
}

#[tokio::test]
async fn a_writer_that_began_before_a_mark_is_waited_for() {
    let db = Database::fresh_at(now()).await;
    let writer = connect(&db.url).await;
    writer.batch_execute(&format!("BEGIN; {}", queue("d-1", now(), 60))).await.expect("it may");
    for _ in 0..10 {
        advance(&db, false, now()).await;
    }
    assert_eq!(lowest(&db).await, Timestamp::MIN_UTC, "no mark has moved");
    writer.batch_execute("COMMIT").await.expect("it may");
    assert_eq!(claimed(&db, now()).await, 1);
    settle_marks(&db, now()).await;
    assert_eq!((claimed(&db, now()).await, db.count(OVERLOOKED).await), (1, 0));
}

#[tokio::test]
async fn marks_of_another_clock_or_another_server_hold_nothing_up() {
    let db = Database::fresh_at(now()).await;
    settle_marks(&db, now() + Duration::days(3_650)).await;
    db.execute(&queue("d-1", now(), 0)).await;
    assert_eq!(claimed(&db, now()).await, 1);
    settle_marks(&db, now()).await;
    let ahead = format!("SELECT count(*) FROM sync_lane_marks WHERE safe_at > '{}'", now().to_rfc3339());
    assert_eq!((claimed(&db, now()).await, db.count(&ahead).await), (1, 0));
    // A dump of a server that had counted further.
    db.execute("UPDATE sync_lane_marks SET next_at = now(), barrier = '99999999999'::xid8").await;
    db.execute("DELETE FROM sync_outbox").await;
    let later = now() + Duration::hours(1);
    settle_marks(&db, later).await;
    assert_eq!(lowest(&db).await, later - Duration::seconds(5));
}

/// Somebody who writes, perhaps with a transaction open.
struct Writer {
    client: Client,
    is_open: bool,
}

#[tokio::test]
async fn whatever_order_writers_and_marks_come_in_no_row_is_overlooked() {
    for seed in 0..6 {
        println!("seed {seed}");
        let random = &mut StdRng::seed_from_u64(seed);
        let db = Database::fresh_at(now()).await;
        let mut writers = Vec::new();
        for _ in 0..4 {
            writers.push(Writer { client: connect(&db.url).await, is_open: false });
        }
        let mut time = now();
        for _ in 0..150 {
            time += Duration::seconds(random.random_range(0..4));
            match random.random_range(0..10) {
                0..3 => {
                    advance(&db, random.random_ratio(1, 20), time).await;
                }
                3 => {
                    // What was sent is gone.
                    db.execute("DELETE FROM ONLY sync_outbox WHERE ctid IN (
                        SELECT ctid FROM ONLY sync_outbox WHERE failed_at IS NULL ORDER BY occurred_at LIMIT 3 FOR UPDATE SKIP LOCKED)")
                        .await;
                }
                4 => {
                    let change = *[
                        "status = 'failed', failed_at = now(), reject_count = 1",
                        "status = 'pending', failed_at = NULL",
                        "order_at = occurred_at - interval '7 s'",
                    ]
                    .choose(random)
                    .expect("not empty");
                    db.execute(&format!(
                        "UPDATE ONLY sync_outbox SET {change} WHERE ctid IN (
                        SELECT ctid FROM ONLY sync_outbox ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED)"
                    ))
                    .await;
                }
                _ => {
                    let device = format!("d-{}", random.random_range(0..6));
                    let seconds = *[0, 1, 4, 6, 20, 90].choose(random).expect("not empty");
                    let number = random.random_range(0..writers.len());
                    let writer = &mut writers[number];
                    if !writer.is_open {
                        writer.client.batch_execute("BEGIN").await.expect("it may");
                    }
                    writer.client.batch_execute(&queue(&device, time, seconds)).await.expect("it may");
                    let end = *["COMMIT", "COMMIT", "ROLLBACK", ""].choose(random).expect("not empty");
                    writer.client.batch_execute(end).await.expect("it may");
                    writer.is_open = end.is_empty();
                }
            }
            assert_eq!(db.count(OVERLOOKED).await, 0, "seed {seed}");
        }
        for writer in writers {
            writer.client.batch_execute("COMMIT").await.expect("it may");
        }
        settle_marks(&db, time).await;
        assert_eq!(db.count(OVERLOOKED).await, 0, "seed {seed}");
        assert!(lowest(&db).await > Timestamp::MIN_UTC, "marks have moved");
    }
}
