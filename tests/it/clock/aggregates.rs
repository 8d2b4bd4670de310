//! Aggregates under clocks that jump, and of readings that come when their neighbors are gone.

use chrono::{DateTime, Duration};
use schema::clock::Timestamp;
use schema::store::aggregate::{self, STEP_MAX, Scope};
use tests::postgres::Database;

fn at(text: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(text).expect("a time").to_utc()
}

async fn put(db: &Database, event_id: &str, occurred_at: Timestamp, ingested_at: Timestamp) {
    let sql = "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
        VALUES (gen_random_uuid(), 't-001', 'd-1', $1, 'temperature', 20, $2, $3)";
    db.client.execute(sql, &[&event_id, &occurred_at, &ingested_at]).await.expect("it can be inserted");
}

/// Passes until nothing is left to do; says how many there were.
async fn pass(db: &Database, scope: Scope<'_>) -> usize {
    let mut passes = 1;
    while aggregate::pass(&db.store, scope).await.expect("the pass works").expect("nobody else").is_behind {
        passes += 1;
    }
    passes
}

fn later(now: Timestamp) -> Scope<'static> {
    Scope { looked_until: Some(now - Duration::minutes(1)), ..Scope::at(now) }
}

async fn readings_in(db: &Database, window: &str) -> i64 {
    db.count(&format!(
        "SELECT coalesce(sum(count), 0)::bigint FROM telemetry_agg WHERE \"window\" = '{window}'"
    ))
    .await
}

#[tokio::test]
async fn a_late_reading_never_overwrites_what_its_neighbors_have_left() {
    let now = at("2026-11-23T10:00:30Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    for n in 0..3 {
        put(&db, &format!("e-{n}"), now + Duration::seconds(n), now).await;
    }
    pass(&db, later(now + Duration::hours(25))).await;
    assert_eq!(
        [readings_in(&db, "1m").await, readings_in(&db, "1h").await, readings_in(&db, "1d").await],
        [3; 3]
    );
    db.execute("DROP TABLE telemetry_raw_202611").await;
    let months_later = now + Duration::days(120);
    for n in 0..5 {
        put(&db, &format!("late-{n}"), now, months_later).await;
        pass(&db, later(months_later + Duration::minutes(1))).await;
    }
    assert_eq!(
        [readings_in(&db, "1m").await, readings_in(&db, "1h").await, readings_in(&db, "1d").await],
        [3; 3]
    );
}

#[tokio::test]
async fn a_minute_without_a_bucket_is_aggregated_however_late_it_comes() {
    let now = at("2026-11-23T10:00:30Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    for (n, year) in [(1, "1970"), (2, "1970"), (3, "2025")] {
        let came = now + Duration::minutes(n);
        put(&db, &format!("e-{n}"), at(&format!("{year}-05-05T05:05:05Z")), came).await;
        pass(&db, later(came + Duration::seconds(10))).await;
    }
    assert_eq!(readings_in(&db, "1m").await, 3);
    assert_eq!(db.count("SELECT count(*) FROM telemetry_agg WHERE \"window\" = '1m'").await, 2);
}

#[tokio::test]
async fn an_hour_in_1970_is_left_behind_in_a_few_passes() {
    let (first, now) = (at("1970-01-01T00:00:10Z"), at("2026-11-23T10:00:30Z"));
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(first)).await;
    for n in 0..60 {
        put(&db, &format!("e-{n}"), first + Duration::minutes(n), first + Duration::minutes(n)).await;
    }
    pass(&db, later(first + Duration::minutes(30))).await;
    for n in 0..5 {
        put(&db, &format!("f-{n}"), now - Duration::hours(n), now - Duration::hours(n)).await;
    }
    let passes = pass(&db, later(now)).await;
    assert!(passes < 50, "{passes} passes");
    assert_eq!(readings_in(&db, "1m").await, 64, "all but the one of the minute that is open");
    assert_eq!(readings_in(&db, "1h").await, 64, "the hour of 1970, and those since");
    assert_eq!(readings_in(&db, "1d").await, 60);
}

#[tokio::test]
async fn a_jump_ahead_and_back_leaves_no_minute_behind() {
    let (now, ahead) = (at("2026-11-23T10:00:30Z"), at("2036-11-23T10:00:40Z"));
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    let old = now - Duration::hours(3);
    // One came before the jump, one during it and before the pass of that time, one after that, one when it was over.
    let back = now + Duration::seconds(40);
    put(&db, "before", old, now + Duration::seconds(5)).await;
    put(&db, "during", old + Duration::minutes(1), ahead).await;
    let newest_seen = Some(now + Duration::seconds(15));
    let ended = [(now, now + Duration::seconds(10))];
    let scope = Scope { newest_seen, ended: &ended, ..later(ahead + Duration::seconds(2)) };
    pass(&db, scope).await;
    put(&db, "still", old + Duration::minutes(2), ahead + Duration::seconds(20)).await;
    put(&db, "after", old + Duration::minutes(3), back).await;
    let ended = [(ahead + Duration::seconds(2), ahead + Duration::seconds(28))];
    let scope = Scope {
        newest_seen: Some(back),
        ended: &ended,
        looked_until: Some(back),
        ..Scope::at(back + Duration::minutes(1))
    };
    pass(&db, scope).await;
    assert_eq!(readings_in(&db, "1m").await, 4);
    // Time goes on where it was, not where the jump was.
    put(&db, "next", back + Duration::minutes(5), back + Duration::minutes(5)).await;
    pass(&db, later(back + Duration::minutes(7))).await;
    assert_eq!(readings_in(&db, "1m").await, 5);
}

#[tokio::test]
async fn what_a_killed_engine_took_in_ahead_is_found_by_the_next_one() {
    let now = at("2026-11-23T10:00:30Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    put(&db, "ahead", now - Duration::hours(1), now + Duration::days(3650)).await;
    pass(&db, later(now + Duration::minutes(1))).await;
    assert_eq!(readings_in(&db, "1m").await, 0);
    pass(&db, Scope::at(now + Duration::minutes(2))).await;
    assert_eq!(readings_in(&db, "1m").await, 1);
}

#[tokio::test]
async fn a_clock_that_is_a_day_back_leaves_no_minute_behind() {
    let now = at("2026-11-23T10:00:30Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    let (yesterday, newest_seen) = (now - Duration::days(1), Some(now));
    for minute in 0..3 {
        let came = yesterday + Duration::minutes(minute);
        put(&db, &format!("e-{minute}"), came, came).await;
        let scope = Scope {
            newest_seen,
            looked_until: Some(came - Duration::minutes(1)),
            ..Scope::at(came + Duration::seconds(40))
        };
        pass(&db, scope).await;
    }
    assert_eq!(readings_in(&db, "1m").await, 3);
    let ended = [(yesterday + Duration::minutes(2), yesterday + Duration::minutes(4))];
    put(&db, "last", yesterday + Duration::minutes(3), yesterday + Duration::minutes(3)).await;
    let scope = Scope { newest_seen, ended: &ended, ..later(now + Duration::minutes(5)) };
    pass(&db, scope).await;
    assert_eq!(readings_in(&db, "1m").await, 4);
}

#[tokio::test]
async fn a_pass_covers_as_much_as_it_is_told() {
    let now = at("2026-11-23T10:00:00Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    for n in 0..20 {
        put(&db, &format!("e-{n}"), now + Duration::minutes(n), now + Duration::minutes(n)).await;
    }
    let whole = Scope { step: STEP_MAX / 4, ..later(now + Duration::minutes(20)) };
    assert!(pass(&db, whole).await >= 8);
    assert_eq!(readings_in(&db, "1m").await, 20);
}
