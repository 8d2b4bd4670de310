//! Aggregates under clocks that jump, and of readings that come when their neighbors are gone.

use chrono::{DateTime, Duration};
use schema::clock::Timestamp;
use schema::store::aggregate::{self, STEP_MAX, Scope};
use tests::postgres::Database;
use tests::server::Server;

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

/// One pass a minute, as a process does it that runs on.
struct Passes<'a> {
    db: &'a Database,
    horizon: Option<i64>,
}

impl Passes<'_> {
    async fn at(&mut self, now: Timestamp) {
        let scope = Scope { horizon: self.horizon, ..later(now) };
        let pass =
            aggregate::pass(&self.db.store, scope).await.expect("the pass works").expect("nobody else");
        self.horizon = Some(pass.horizon);
    }
}

/// Minutes whose bucket is not what their readings say.
const WRONG: &str = "SELECT count(*) FROM (
        SELECT tenant_id, device_id, metric_type, date_trunc('minute', occurred_at) AS bucket, count(*) AS readings,
            min(metric_value) AS lowest, max(metric_value) AS highest, avg(metric_value) AS mean
        FROM telemetry_raw GROUP BY 1, 2, 3, 4
    ) AS r FULL JOIN (SELECT * FROM telemetry_agg WHERE \"window\" = '1m') AS a
        ON (a.tenant_id, a.device_id, a.metric_type, a.bucket_start_at) = (r.tenant_id, r.device_id, r.metric_type, r.bucket)
    WHERE (a.count, a.min_value, a.max_value) IS DISTINCT FROM (r.readings::int, r.lowest, r.highest)
        OR abs(a.avg_value - r.mean) > 1e-9";

#[tokio::test]
async fn what_closed_is_computed_at_once_and_what_comes_late_by_itself() {
    let start = at("2026-11-23T10:00:00Z");
    let db = Database::fresh_at(start).await;
    let mut passes = Passes { db: &db, horizon: None };
    passes.at(start).await;
    for minute in 0..6 {
        let came = start + Duration::minutes(minute);
        // Readings of the minute, of its last second and its first, of devices and metrics side by side; some an hour late.
        let sql = "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
            SELECT gen_random_uuid(), 't-' || i % 2, 'd-' || i % 7, $1::text || '-' || i, 'm-' || i % 3, sin(i) * 100,
                $2::timestamptz + CASE WHEN i % 50 = 0 THEN interval '-1 hour' ELSE interval '0' END + i * interval '0.3 seconds',
                $2::timestamptz + i * interval '0.3 seconds'
            FROM generate_series(0, 199) AS i";
        db.client.execute(sql, &[&minute.to_string(), &came]).await.expect("they can be stored");
        passes.at(came + Duration::seconds(62)).await;
        assert_eq!(db.count(WRONG).await, 0, "minute {minute}");
    }
    assert_eq!(readings_in(&db, "1m").await, 1200);
}

#[tokio::test]
async fn a_commit_that_comes_after_the_pass_is_found_and_nothing_else_is_looked_at_again() {
    let start = at("2026-11-23T10:00:00Z");
    // A server of its own: transactions of all its databases have their numbers in common.
    let server = Server::start().await;
    let db = server.database().await;
    let mut passes = Passes { db: &db, horizon: None };
    passes.at(start).await;
    let mut other = server.connect().await;
    let late = other.transaction().await.expect("a transaction can begin");
    let of = |device: &str, event_id: &str| {
        format!(
            "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
             VALUES (gen_random_uuid(), 't-001', '{device}', '{event_id}', 'm', 1, '2026-11-23T10:00:55Z', '2026-11-23T10:00:56Z')"
        )
    };
    db.execute(&of("d-there", "there")).await;
    late.batch_execute(&of("d-late", "late")).await.expect("it can be stored");
    passes.at(start + Duration::seconds(62)).await;
    assert_eq!(readings_in(&db, "1m").await, 1, "the other one is not there yet");
    late.commit().await.expect("it is committed");
    passes.at(start + Duration::seconds(122)).await;
    assert_eq!(readings_in(&db, "1m").await, 2);
    // An upsert that changes nothing would lock the row.
    let touched = "SELECT count(*) FROM telemetry_agg WHERE \"window\" = '1m' AND xmax::text <> '0'";
    assert_eq!(db.count(touched).await, 0);
    passes.at(start + Duration::seconds(182)).await;
    assert_eq!((db.count(touched).await, db.count(WRONG).await), (0, 0));
}

#[tokio::test]
async fn a_pass_that_covers_half_a_minute_more_leaves_that_minute_whole() {
    let now = at("2026-11-23T10:00:00Z");
    let db = Database::fresh_at(now).await;
    pass(&db, Scope::at(now)).await;
    for n in 0..60 {
        let came = now + Duration::seconds(n * 10);
        put(&db, &format!("e-{n}"), came, came).await;
    }
    let scope = Scope { step: STEP_MAX / 4, ..later(now + Duration::minutes(10)) };
    assert!(pass(&db, scope).await >= 4);
    assert_eq!(db.count(WRONG).await, 0);
    // A mark in the middle of a minute, as programs before this one have left it.
    db.execute(
        "DELETE FROM telemetry_agg; UPDATE telemetry_agg_progress SET closed_until = '2026-11-23T10:05:30Z'",
    )
    .await;
    pass(&db, later(now + Duration::minutes(10))).await;
    assert_eq!(db.count("SELECT min(count)::bigint FROM telemetry_agg WHERE \"window\" = '1m'").await, 6);
}
