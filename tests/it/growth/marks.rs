//! Dedupe marks that expire, over many times their lifetime.

use chrono::{DateTime, Duration};
use schema::clock::Timestamp;
use schema::store::dedupe::{EXPIRED_ROWS_PER_CHUNK, ExpiredMarks};
use tests::plan::plan;
use tests::postgres::Database;

/// Marks that live at any time.
const LIVING: i64 = 24_000;
/// Parts of a mark's lifetime; after each of them the expired marks go.
const PARTS: i64 = 12;
const LIFETIME_HOURS: i64 = 72;

fn start() -> Timestamp {
    DateTime::from_timestamp(1_770_888_735, 0).expect("a time")
}

/// What the time of one part brings: marks in batches of a hundred, as a writer makes them.
async fn mark(db: &Database, from: Timestamp) {
    let sql = "INSERT INTO ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
        SELECT 't-001', gen_random_uuid()::text, $1::timestamptz + seconds, $1::timestamptz + seconds + interval '72 hours',
            'iot/telemetry/t-001/f-001/b-001/d-001/temperature', md5(i::text)
        FROM generate_series(1, $2::bigint) AS i, LATERAL (SELECT (i / 100) * interval '1 second' AS seconds) AS s";
    db.client.execute(sql, &[&from, &(LIVING / PARTS)]).await.expect("marks can be made");
}

/// Deletes what has expired; says how many marks went.
async fn clean(db: &Database, now: Timestamp) -> u64 {
    let (mut expired, mut count) = (ExpiredMarks::new(now), 0);
    loop {
        let chunk = db.store.run("test", async |conn| expired.delete_chunk(conn).await).await;
        let chunk = chunk.expect("marks can be deleted");
        count += chunk;
        if chunk < EXPIRED_ROWS_PER_CHUNK.unsigned_abs() {
            return count;
        }
    }
}

#[tokio::test]
async fn finding_expired_marks_costs_the_same_in_the_first_and_in_the_sixth_lifetime() {
    let mut db = Database::fresh_at(start()).await;
    let mut pages = Vec::new();
    for part in 0..PARTS * 7 {
        let now = start() + Duration::hours(LIFETIME_HOURS / PARTS * part);
        if part >= PARTS {
            // The plan of what is about to be deleted, taken back; then the deletion itself.
            let found =
                plan(&mut db.client, "dedupe_delete_expired", &[&now, &start(), &EXPIRED_ROWS_PER_CHUNK])
                    .await;
            assert!(found.indexes.contains(&"ingress_dedupe_expires".to_owned()), "{found:?}");
            assert_eq!(found.scanned, Vec::<String>::new());
            let deleted = clean(&db, now).await;
            assert!(deleted > 0, "nothing has expired in part {part}");
            pages.push(found.pages / i64::try_from(deleted).expect("a count"));
        }
        mark(&db, now).await;
        // As the server does by itself, so that the freed pages are used again.
        db.execute("VACUUM ANALYZE ingress_dedupe").await;
    }
    let (first, last) = (pages[0], *pages.last().expect("many parts"));
    assert!(last <= first + 1, "pages per mark: {pages:?}");
    assert!(db.count("SELECT count(*) FROM ingress_dedupe").await <= LIVING + LIVING / PARTS);
}

#[tokio::test]
async fn marks_stay_while_their_index_is_missing() {
    let db = Database::fresh_at(start()).await;
    mark(&db, start()).await;
    db.execute("DROP INDEX ingress_dedupe_expires").await;
    assert_eq!(clean(&db, start() + Duration::days(30)).await, 0);
}
