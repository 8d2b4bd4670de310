//! Running counts: right whoever changes the rows, put right when somebody went past them, and as cheap after a year.

use actors::chore::Chore;
use actors::tallies::Tallies;
use chrono::Duration;
use schema::clock::Clock;
use schema::store::outbox::queries;
use schema::store::tally::{self, Counted, Tally};
use schema::store::{inference, media, session, telemetry};
use tests::plan::plan;
use tests::postgres::{Database, connect};

const T_1: &str = "t-001";

async fn outbox(db: &Database) -> queries::Counts {
    db.store.run("test", async |conn| queries::counts(conn, None).await).await.expect("it can be read")
}

async fn rows(db: &Database, counted: Counted, kind: &str) -> i64 {
    let read = async |conn: &mut _| tally::read_kind(conn, counted, kind, Some(&[T_1.to_owned()])).await;
    db.store.run("test", read).await.expect("it can be read").rows
}

/// Rows as a script writes them, `first` to `last`.
fn events(first: u32, last: u32) -> String {
    format!(
        "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json, status)
         SELECT ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, 't-001', 'f', 'b', 'd-' || i % 7,
             'telemetry.ingested', now(), '{{}}', 'pending' FROM generate_series({first}, {last}) AS i"
    )
}

#[tokio::test]
async fn the_outbox_is_counted_along_whoever_writes_it() {
    let db = Database::fresh().await;
    let other = connect(&db.url).await;
    db.execute(&events(1, 10)).await;
    other.batch_execute(&events(11, 15)).await.expect("another one may write");
    let script = "UPDATE sync_outbox SET status = 'sent' WHERE device_id = 'd-1';
        UPDATE sync_outbox SET status = 'claimed' WHERE device_id = 'd-2';
        UPDATE sync_outbox SET status = 'failed', failed_at = now() WHERE device_id = 'd-3';
        DELETE FROM sync_outbox WHERE device_id = 'd-4';
        INSERT INTO sync_outbox (id, tenant_id, event_type, payload_json, session_id, status, failed_at)
        VALUES (gen_random_uuid(), 't-001', 'weighvision.session.created', '{}', 's', 'failed', now())";
    other.batch_execute(script).await.expect("the script is right");
    // What is rolled back does not count.
    other.batch_execute(&format!("BEGIN; {}; ROLLBACK", events(100, 200))).await.expect("it can be undone");
    let counts = outbox(&db).await;
    let found = (counts.pending, counts.claimed, counts.sent, counts.failed, counts.lanes_held);
    assert_eq!(found, (6, 2, 3, 3, 1));
    assert!(counts.oldest_pending_at.is_some());
    other.batch_execute("TRUNCATE sync_outbox").await.expect("it can be emptied");
    assert_eq!(outbox(&db).await, queries::Counts::default());
}

#[tokio::test]
async fn what_the_archive_holds_is_not_counted() {
    let db = Database::fresh().await;
    db.execute(&events(1, 10)).await;
    let day = Clock::system().now().format("%Y%m%d").to_string();
    db.execute(&format!(
        "WITH gone AS (DELETE FROM ONLY sync_outbox WHERE device_id = 'd-1' RETURNING *)
         INSERT INTO sync_outbox_acked_{day} (id, tenant_id, event_type, payload_json, status, acked_at, seq)
         SELECT id, tenant_id, event_type, payload_json, 'acked', now(), seq FROM gone;
         UPDATE sync_outbox SET updated_at = now();
         DELETE FROM sync_outbox WHERE status = 'acked'"
    ))
    .await;
    assert_eq!(outbox(&db).await.pending, 8);
}

#[tokio::test]
async fn every_page_that_is_polled_counts_right() {
    let db = Database::fresh().await;
    let at = "now() - interval '1 hour'";
    db.execute(&format!(
        "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value,
             min_value, max_value, count, created_at)
         SELECT gen_random_uuid(), 't-00' || i % 2 + 1, 'd', '1m', now() + i * interval '1 minute', now(), 'm', 1, 1, 1, 1, now()
         FROM generate_series(1, 10) AS i;
         INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, mime_type, size_bytes, captured_at, created_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd', 'b', 'k' || i, 'image/jpeg', i * 100, now(), {at} FROM generate_series(1, 3) AS i;
         UPDATE media_objects SET size_bytes = 1000 WHERE object_key = 'k1';
         DELETE FROM media_objects WHERE object_key = 'k2';
         INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status, next_attempt_at, created_at, updated_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd', gen_random_uuid(), 'k', 'v', status, now(), {at}, now()
         FROM unnest(ARRAY['pending', 'processing', 'completed', 'failed']) AS status;
         INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, confidence, model_version, occurred_at, created_at, event_id)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd', 1, 'v', {at}, now(), gen_random_uuid() FROM generate_series(1, 4);
         INSERT INTO session_weights (id, tenant_id, session_id, weight_kg, occurred_at, event_id, is_bound, created_at)
         SELECT gen_random_uuid(), 't-001', 's', 1, now(), i::text, i = 1, now() FROM generate_series(1, 3) AS i;
         UPDATE session_weights SET is_bound = true WHERE event_id = '2';
         INSERT INTO session_parked (tenant_id, event_id, session_id, occurred_at, received_at, expires_at, body_json)
         VALUES ('t-001', 'p', 's', now(), now(), now(), '{{}}');
         INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at)
         SELECT gen_random_uuid(), 't-001', 'media', 'r', 't', '{{}}', now(), now() FROM generate_series(1, 2);
         UPDATE dead_letters SET redriven_at = now() WHERE ctid = (SELECT min(ctid) FROM dead_letters)"
    ))
    .await;
    let read = async |conn: &mut _| {
        assert_eq!(telemetry::totals(conn, Some(T_1)).await?.aggregates, 5);
        assert_eq!(telemetry::totals(conn, None).await?.aggregates, 10);
        let images = media::stats(conn, T_1).await?;
        assert_eq!((images.objects, images.size_bytes), (2, 1300));
        assert!(images.last_created_at.is_some());
        assert_eq!(media::stored_bytes(conn).await?, 1300);
        let (depth, oldest_at) = inference::queue(conn).await?;
        assert_eq!((depth, oldest_at.is_some()), (2, true));
        let (results, last_at) = inference::stats(conn, T_1).await?;
        assert_eq!((results, last_at.is_some()), (4, true));
        assert_eq!(inference::stats(conn, "t-002").await?, (0, None));
        assert_eq!(session::waiting(conn).await?, [1, 1]);
        Ok(())
    };
    db.store.run("test", read).await.expect("it can be read");
    assert_eq!(rows(&db, Counted::DeadLetters, "media").await, 1);
}

#[tokio::test]
async fn a_count_that_is_off_is_put_right_and_one_that_was_never_made_is_made() {
    let db = Database::fresh().await;
    // As a restored dump leaves it, and a database whose tables were large when the counting began.
    db.execute("SET session_replication_role = replica").await;
    db.execute(&events(1, 30)).await;
    db.execute("SET session_replication_role = origin").await;
    assert_eq!(outbox(&db).await.pending, 0, "the triggers were passed by");
    db.execute("UPDATE tally_checks SET checked_at = NULL").await;
    assert_eq!(outbox(&db).await.pending, 30, "counted row by row until the tallies are made");
    db.execute(&events(31, 40)).await;

    let mut chore = Tallies { store: db.store.clone(), clock: Clock::system() };
    while db.count("SELECT count(*) FROM tally_checks WHERE checked_at IS NULL").await > 0 {
        chore.run().await.expect("the database works");
    }
    assert_eq!(outbox(&db).await.pending, 40);
    db.execute("DELETE FROM sync_outbox WHERE device_id = 'd-1'").await;
    assert_eq!(outbox(&db).await.pending, 34);
}

#[tokio::test]
async fn a_check_beside_writers_changes_no_count_that_was_right() {
    let db = Database::fresh().await;
    db.execute(&events(1, 1000)).await;
    let writer = connect(&db.url).await;
    let writing = async {
        for round in 0_u32..40 {
            let first = 1001 + round * 50;
            let script = format!(
                "{}; UPDATE ONLY sync_outbox SET status = 'sent' WHERE id IN (
                     SELECT id FROM ONLY sync_outbox WHERE status = 'pending' LIMIT 60);
                 DELETE FROM ONLY sync_outbox WHERE ctid IN (SELECT ctid FROM ONLY sync_outbox WHERE status = 'sent' LIMIT 40)",
                events(first, first + 49)
            );
            writer.batch_execute(&script).await.expect("the script is right");
        }
    };
    let checking = async {
        for _ in 0..20 {
            let check = async |conn: &mut _| tally::check(conn, "sync_outbox", Clock::system().now()).await;
            assert_eq!(db.store.run_at_leisure("check", check).await.expect("it works"), 0);
        }
    };
    tokio::join!(writing, checking);
    let counts = outbox(&db).await;
    let counted = db.count("SELECT count(*) FROM ONLY sync_outbox").await;
    assert_eq!(counts.pending + counts.sent, counted);
}

#[tokio::test]
async fn processes_that_are_gone_leave_one_row_behind() {
    let db = Database::fresh().await;
    for number in 1..=6 {
        let gone = connect(&db.url).await;
        gone.batch_execute(&events(number, number)).await.expect("it may write");
        drop(gone);
    }
    let fold = async || db.store.run("test", async |conn| tally::fold(conn).await).await.expect("it works");
    let shards = "SELECT count(*) FROM tallies WHERE counted = 'sync_outbox'";
    tests::wait::until("their processes have ended", async || {
        fold().await;
        db.count(shards).await == 1
    })
    .await;
    assert_eq!(outbox(&db).await.pending, 6);
}

#[tokio::test]
async fn what_is_polled_costs_the_same_with_a_hundred_times_the_rows() {
    let mut db = Database::fresh().await;
    let now = Clock::system().now();
    let mut pages = Vec::new();
    for (first, last) in [(1, 300), (301, 30_000)] {
        db.execute(&events(first, last)).await;
        db.execute("VACUUM ANALYZE sync_outbox").await;
        db.execute("VACUUM ANALYZE tallies").await;
        let all: Option<Vec<String>> = None;
        let tallies = plan(&mut db.client, "tally_read", &[&"sync_outbox", &all]).await;
        db.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off").await;
        let present = vec![T_1.to_owned()];
        let oldest = plan(&mut db.client, "outbox_oldest_pending", &[&present, &16_i64]).await;
        assert!(oldest.indexes.iter().any(|index| index == "sync_outbox_order"), "{oldest:?}");
        assert_eq!(oldest.scanned, [""; 0]);
        db.execute("RESET ALL").await;
        pages.push((tallies.pages, oldest.pages));
    }
    let [(tallies_before, oldest_before), (tallies_after, oldest_after)] = pages[..] else {
        panic!("two looks")
    };
    assert!(tallies_after <= tallies_before + 5, "{pages:?}");
    assert!(oldest_after <= oldest_before * 2 + 32, "{pages:?}");
    let oldest = outbox(&db).await.oldest_pending_at.expect("there is one");
    assert!(now - oldest < Duration::hours(1));
    let none = Tally { kind: "x".to_owned(), rows: 0, bytes: 0, last_at: None };
    let read = async |conn: &mut _| tally::read_kind(conn, Counted::Outbox, "x", None).await;
    assert_eq!(db.store.run("test", read).await.expect("it can be read"), none);
}
