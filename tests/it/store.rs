//! The store against a real database: migrations, statements, units of work, partitions, aggregates.

use chrono::{DateTime, Duration, Utc};
use schema::clock::Timestamp;
use schema::store::aggregate::Scope;
use schema::store::ledger::Arrivals;
use schema::store::telemetry::copy::COPY_ROWS_MIN;
use schema::store::telemetry::{self, Reading, Replays, TimeRange, WriteContext};
use schema::store::{Conn, Store, StoreError, StoreSettings, aggregate, dedupe, device, partition};
use tests::postgres::{Database, connect, store};
use tests::wait::until;

fn at(text: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(text).expect("a time").with_timezone(&Utc)
}

/// How a batch of readings gets in. What is in the tables afterwards is the same.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The statement that looks for what was stored before.
    Looking,
    /// The statement that does not, as for a small batch.
    Blind,
    /// COPY, as for a large one.
    Copied,
}

const WAYS: [Way; 3] = [Way::Looking, Way::Blind, Way::Copied];

impl Way {
    fn at(self, now: Timestamp) -> WriteContext {
        let (replays, copy_rows_min) = match self {
            Self::Looking => (Replays::PassOver, COPY_ROWS_MIN),
            Self::Blind => (Replays::Fail, usize::MAX),
            Self::Copied => (Replays::Fail, 1),
        };
        WriteContext { now, dedupe_ttl: Duration::hours(72), shard: 0, replays, copy_rows_min }
    }
}

fn reading(event_id: &str, value: f64, occurred_at: Timestamp) -> Reading {
    Reading {
        id: schema::id::new_id(),
        outbox_id: schema::id::outbox_id("t-001", event_id),
        tenant_id: "t-001".to_owned(),
        farm_id: "f-001".to_owned(),
        barn_id: "b-001".to_owned(),
        device_id: "d-001".to_owned(),
        event_id: event_id.to_owned(),
        metric: "temperature".to_owned(),
        value,
        unit: Some("celsius".to_owned()),
        occurred_at,
        trace_id: "trace".to_owned(),
        topic: "iot/telemetry/t-001/f-001/b-001/d-001/temperature".to_owned(),
        hash: "00".to_owned(),
    }
}

async fn try_put(
    store: &Store,
    readings: &[Reading],
    came: &[Arrivals<'_>],
    at: WriteContext,
) -> Result<Vec<usize>, StoreError> {
    let rows: Vec<&Reading> = readings.iter().collect();
    let work = async |conn: &Conn| telemetry::store_readings(conn, &rows, came, at).await;
    store.run("test", async |conn| conn.transaction("test", work).await).await
}

/// Stores readings as a writer does: once more with a look when one of them was stored before.
async fn put_by(way: Way, database: &Database, readings: &[Reading], now: Timestamp) -> usize {
    let new = match try_put(&database.store, readings, &[], way.at(now)).await {
        Err(error) if error.is_replay() => {
            try_put(&database.store, readings, &[], Way::Looking.at(now)).await
        }
        outcome => outcome,
    };
    new.expect("the readings are stored").len()
}

async fn put(database: &Database, readings: &[Reading], now: Timestamp) -> usize {
    put_by(Way::Looking, database, readings, now).await
}

#[tokio::test]
async fn every_statement_prepares_against_the_migrated_schema() {
    let database = Database::fresh().await;
    for sql in schema::store::STATEMENTS.iter().flat_map(|statements| statements.iter()) {
        assert!(sql.starts_with("-- "), "a statement without a name: {sql}");
        if let Err(error) = database.client.prepare(sql).await {
            panic!("{error:?}\n{sql}");
        }
    }
}

#[tokio::test]
async fn replicas_that_migrate_at_once_take_turns() {
    let database = Database::empty().await;
    let replicas: Vec<_> = (0..4).map(|_| store(&database.url)).collect();
    let mut running = tokio::task::JoinSet::new();
    for replica in replicas {
        running.spawn(async move { replica.migrate().await });
    }
    while let Some(outcome) = running.join_next().await {
        outcome.expect("no panic").expect("each of them succeeds");
    }
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw").await, 0);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_half_way_leaves_nothing_behind() {
    let database = Database::fresh().await;
    let one_connection = StoreSettings { pool_max: 1, ..StoreSettings::new(&database.url, "dropped") };
    let store = Store::new(&one_connection).expect("the URL is right");
    let half_way = store.run("test", async |conn| {
        conn.transaction("test", async |conn| {
            device::provision(
                conn,
                device::Allowlist::Devices,
                ["t", "half", "f", "b"],
                1,
                at("2026-11-23T10:00:00Z"),
            )
            .await?;
            std::future::pending::<()>().await;
            Ok(())
        })
        .await
    });
    let provisioned = async {
        while database.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dropped' AND state = 'idle in transaction'").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = half_way => panic!("the work never ends"),
        () = provisioned => {}
    }
    let whole = store.run("test", async |conn| {
        device::provision(
            conn,
            device::Allowlist::Devices,
            ["t", "whole", "f", "b"],
            1,
            at("2026-11-23T10:00:00Z"),
        )
        .await
    });
    whole.await.expect("the pool has a clean connection");
    assert_eq!(database.count("SELECT count(*) FROM device_allowlist WHERE device_id = 'whole'").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM device_allowlist WHERE device_id = 'half'").await, 0);
}

#[tokio::test]
async fn mark_reading_and_outbox_row_are_written_once() {
    let now = at("2026-11-23T10:00:30Z");
    for way in WAYS {
        let database = Database::fresh_at(now).await;
        let readings = [reading("e-1", 1.0, now), reading("e-2", 2.0, now)];
        assert_eq!(put_by(way, &database, &readings, now).await, 2, "{way:?}");
        let again = [reading("e-2", 2.0, now), reading("e-3", 3.0, now)];
        assert_eq!(put_by(way, &database, &again, now).await, 1, "{way:?}");
        for table in ["telemetry_raw", "ingress_dedupe", "sync_outbox"] {
            assert_eq!(database.count(&format!("SELECT count(*) FROM {table}")).await, 3, "{way:?}: {table}");
        }
        assert_eq!(database.count("SELECT sum(readings)::bigint FROM telemetry_totals").await, 3, "{way:?}");
    }
}

#[tokio::test]
async fn after_the_mark_has_expired_the_domain_key_still_holds() {
    let now = at("2026-11-23T10:00:30Z");
    for way in WAYS {
        let database = Database::fresh_at(now).await;
        put_by(way, &database, &[reading("e-1", 1.0, now)], now).await;
        let a_week_later = now + Duration::days(7);
        assert_eq!(
            put_by(way, &database, &[reading("e-1", 1.0, now)], a_week_later).await,
            1,
            "{way:?}: the mark counts as absent"
        );
        assert_eq!(database.count("SELECT count(*) FROM telemetry_raw").await, 1, "{way:?}");
        assert_eq!(database.count("SELECT count(*) FROM sync_outbox").await, 1, "{way:?}");
    }
}

#[tokio::test]
async fn a_replay_that_nobody_expected_fails_whole() {
    let now = at("2026-11-23T10:00:30Z");
    let later = now + Duration::days(7);
    for way in [Way::Blind, Way::Copied] {
        let database = Database::fresh_at(now).await;
        put_by(way, &database, &[reading("e-1", 1.0, now)], now).await;
        let rows = [reading("e-0", 1.0, now), reading("e-1", 1.0, now)];
        // The mark is there; then it is gone, and the reading is there.
        for _ in 0..2 {
            let error =
                try_put(&database.store, &rows, &[], way.at(later)).await.expect_err("the key is there");
            assert!(error.is_replay(), "{way:?}: {error}");
            for table in ["telemetry_raw", "sync_outbox", "telemetry_totals"] {
                assert_eq!(
                    database.count(&format!("SELECT count(*) FROM {table}")).await,
                    1,
                    "{way:?}: {table}"
                );
            }
            database.execute("DELETE FROM ingress_dedupe").await;
        }
        assert_eq!(database.count("SELECT count(*) FROM ingress_dedupe").await, 0, "{way:?}");
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_to_blame_whichever_way_it_comes() {
    let now = at("2026-11-23T10:00:30Z");
    for way in WAYS {
        let database = Database::fresh_at(now).await;
        for poison in [
            Reading { unit: Some("\0".to_owned()), ..reading("e-1", 1.0, now) },
            reading("e-2", f64::INFINITY, now),
        ] {
            let rows = [reading("e-0", 1.0, now), poison];
            let outcome = try_put(&database.store, &rows, &[], way.at(now)).await;
            let error = outcome.expect_err("the database does not take it");
            assert!(error.is_data() && !error.is_replay(), "{way:?}: {error:?}");
        }
        assert_eq!(put_by(way, &database, &[reading("e-0", 1.0, now)], now).await, 1, "{way:?}");
    }
}

/// What is in the tables that a batch of readings changes, but for what is made anew each time.
async fn written(database: &Database) -> Vec<String> {
    let mut written = Vec::new();
    for (table, left_out, order) in [
        ("ingress_dedupe", vec![], "event_id"),
        ("telemetry_raw", vec!["id"], "event_id"),
        ("sync_outbox", vec!["seq"], "id"),
        ("telemetry_totals", vec![], "tenant_id"),
        ("ledger", vec!["shard"], "tenant_id"),
        ("tallies", vec!["shard"], "counted, kind, tenant_id"),
    ] {
        let sql = format!(
            "SELECT coalesce(jsonb_agg(to_jsonb(t) - $1::text[] #- '{{payload_json,telemetry_raw_id}}' ORDER BY {order}), '[]')::text
             FROM {table} AS t"
        );
        let row = database.client.query_one(&sql, &[&left_out]).await.expect("it can be read");
        written.push(row.get::<_, String>(0));
    }
    written
}

#[tokio::test]
async fn every_way_leaves_the_same_rows_and_the_same_ledger() {
    let now = at("2026-11-23T10:00:30.123456Z");
    let stray = at("2031-01-01T00:00:00Z");
    let of = |event_id: &str, tenant_id: &str, value, occurred_at, unit: Option<&str>| Reading {
        outbox_id: schema::id::outbox_id(tenant_id, event_id),
        tenant_id: tenant_id.to_owned(),
        unit: unit.map(str::to_owned),
        ..reading(event_id, value, occurred_at)
    };
    let first = [
        of("e-2", "t-002", -0.5, now, None),
        of("e-1", "t-001", f64::MAX, now - Duration::days(20), Some("celsius")),
        of("\u{e4}-\u{1f414}", "t-001", 1e-300, stray, Some("\"\\")),
    ];
    let second = [of("e-3", "t-001", 0.1, now, Some("")), of("e-4", "t-003", 7.0, now, Some("%"))];
    let came = |tenant_id, received, repeated| Arrivals { tenant_id, received, repeated };
    let mut found = Vec::new();
    for way in WAYS {
        let database = Database::fresh_at(now).await;
        let batches: [(&[Reading], Vec<Arrivals<'_>>); 2] = [
            (&first, vec![came("t-001", 4, 2), came("t-002", 1, 0)]),
            (&second, vec![came("t-001", 1, 0), came("t-003", 2, 1)]),
        ];
        for (readings, came) in batches {
            let new = try_put(&database.store, readings, &came, way.at(now)).await.expect("they are new");
            assert_eq!(new.len(), readings.len(), "{way:?}");
        }
        let ledger = "SELECT sum(received * 100 + stored * 10 + duplicate)::bigint FROM ledger";
        assert_eq!(database.count(ledger).await, 853, "{way:?}");
        // Rows of the outbox stand in the order in which they came.
        let order = "SELECT string_agg(occurred_at::text, ' ' ORDER BY seq) = string_agg(occurred_at::text, ' ' ORDER BY ingested)
            FROM (SELECT o.seq, o.occurred_at, r.ctid AS ingested FROM sync_outbox AS o JOIN telemetry_raw AS r
                ON r.tenant_id = o.tenant_id AND r.id = (o.payload_json ->> 'telemetry_raw_id')::uuid
                WHERE r.tableoid = 'telemetry_raw_202611'::regclass) AS s";
        let is_in_order: bool = database.client.query_one(order, &[]).await.expect("it can be read").get(0);
        assert!(is_in_order, "{way:?}");
        found.push(written(&database).await);
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[1], found[2]);
}

#[tokio::test]
async fn expired_marks_are_deleted_and_living_ones_stay() {
    let now = at("2026-11-23T10:00:30Z");
    let database = Database::fresh_at(now).await;
    put(&database, &[reading("old", 1.0, now)], now - Duration::hours(73)).await;
    put(&database, &[reading("new", 1.0, now)], now).await;
    let mut expired = dedupe::ExpiredMarks::new(now);
    let deleted = database.store.run("test", async |conn| expired.delete_chunk(conn).await).await;
    assert_eq!(deleted.expect("it works"), 1);
    assert_eq!(database.count("SELECT count(*) FROM ingress_dedupe WHERE event_id = 'new'").await, 1);
}

#[tokio::test]
async fn strays_move_into_their_partition_when_its_time_comes() {
    let now = at("2026-11-23T10:00:30Z");
    let database = Database::fresh_at(now).await;
    let odd = at("2027-06-15T00:00:00Z");
    put(&database, &[reading("e-1", 1.0, odd)], now).await;
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw_default").await, 1);
    let later = at("2027-05-01T00:00:00Z");
    database.store.run("test", async |conn| partition::ensure_ahead(conn, later).await).await.expect("made");
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw_default").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw_202706").await, 1);
    let missing = database.store.run("test", async |conn| partition::missing_ahead(conn, later).await).await;
    assert_eq!(missing.expect("it can be asked"), Vec::<String>::new());
}

#[tokio::test]
async fn a_reading_whose_month_gets_a_partition_while_it_waits_is_not_to_blame() {
    for way in WAYS {
        a_reading_is_not_to_blame(way).await;
    }
}

async fn a_reading_is_not_to_blame(way: Way) {
    let now = at("2026-11-23T10:00:30Z");
    let database = Database::fresh_at(now).await;
    let rows = [reading("e-1", 1.0, at("2027-06-15T00:00:00Z"))];
    let try_it = async || try_put(&database.store, &rows, &[], way.at(now)).await;
    let mut other = connect(&database.url).await;
    let attach = async {
        let making = other.transaction().await.expect("a transaction can begin");
        let lock = "LOCK TABLE telemetry_raw_default IN ACCESS EXCLUSIVE MODE";
        making.batch_execute(lock).await.expect("nobody else has it");
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'telemetry_raw_default'::regclass
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        until("the reading waits", async || database.count(waiting).await > 0).await;
        let partition = "CREATE TABLE telemetry_raw_202706 (LIKE telemetry_raw INCLUDING ALL);
            ALTER TABLE telemetry_raw ATTACH PARTITION telemetry_raw_202706
                FOR VALUES FROM ('2027-06-01 00:00:00+00') TO ('2027-07-01 00:00:00+00')";
        making.batch_execute(partition).await.expect("it can be attached");
        making.commit().await.expect("it is committed");
    };
    // The lock comes first: the reading begins when the other one waits for it.
    let (outcome, ()) = tokio::join!(
        async {
            let locked = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
                AND relation = 'telemetry_raw_default'::regclass
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            until("the partition is locked", async || database.count(locked).await > 0).await;
            try_it().await
        },
        attach
    );
    assert!(!outcome.expect_err("it was sent to where it does not belong any more").is_data(), "{way:?}");
    assert_eq!(try_it().await.expect("it is stored").len(), 1, "{way:?}");
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw_202706").await, 1);
}

async fn buckets(database: &Database, window: &str) -> Vec<(Timestamp, f64, f64, f64, i32)> {
    let range =
        TimeRange { tenant_id: "t-001", device_id: Some("d-001"), start: None, end: None, limit: 100 };
    let rows = database
        .store
        .run("test", async |conn| aggregate::aggregates(conn, &range, window, None, None).await)
        .await;
    rows.expect("it can be read")
        .iter()
        .map(|row| (row.bucket_start_at, row.avg_value, row.min_value, row.max_value, row.count))
        .collect()
}

async fn pass(database: &Database, now: Timestamp) {
    let scope = Scope { looked_until: Some(now), is_emitting: true, ..Scope::at(now) };
    while aggregate::pass(&database.store, scope)
        .await
        .expect("the pass works")
        .is_some_and(|pass| pass.is_behind)
    {}
}

#[tokio::test]
async fn buckets_close_and_a_late_reading_recomputes_its_own() {
    let start = at("2026-11-22T23:58:00Z");
    let database = Database::fresh_at(start).await;
    pass(&database, start).await;
    put(
        &database,
        &[reading("a", 10.0, at("2026-11-22T23:58:10Z")), reading("b", 20.0, at("2026-11-22T23:58:50Z"))],
        start,
    )
    .await;
    pass(&database, at("2026-11-22T23:58:59Z")).await;
    assert!(buckets(&database, "1m").await.is_empty(), "the minute is still open");
    pass(&database, at("2026-11-22T23:59:02Z")).await;
    assert_eq!(buckets(&database, "1m").await, [(at("2026-11-22T23:58:00Z"), 15.0, 10.0, 20.0, 2)]);
    assert!(buckets(&database, "1h").await.is_empty(), "the hour is still open");

    pass(&database, at("2026-11-23T00:00:02Z")).await;
    assert_eq!(buckets(&database, "1h").await, [(at("2026-11-22T23:00:00Z"), 15.0, 10.0, 20.0, 2)]);
    assert_eq!(buckets(&database, "1d").await, [(at("2026-11-22T00:00:00Z"), 15.0, 10.0, 20.0, 2)]);

    let late = at("2026-11-23T00:30:00Z");
    put(&database, &[reading("c", 60.0, at("2026-11-22T23:58:30Z"))], late).await;
    pass(&database, late + Duration::seconds(40)).await;
    for window in ["1m", "1h", "1d"] {
        assert_eq!(buckets(&database, window).await[0].1, 30.0, "{window}");
        assert_eq!(buckets(&database, window).await[0].4, 3, "{window}");
    }
    assert_eq!(
        database.count("SELECT count(*) FROM sync_outbox WHERE event_type = 'telemetry.aggregated'").await,
        3
    );
}

#[tokio::test]
async fn the_largest_numbers_can_be_averaged() {
    let now = at("2026-11-23T10:00:00Z");
    let database = Database::fresh_at(now).await;
    pass(&database, now).await;
    let huge: Vec<Reading> =
        (0..9).map(|i| reading(&format!("e-{i}"), f64::MAX, now + Duration::seconds(i))).collect();
    put(&database, &huge, now).await;
    pass(&database, now + Duration::hours(25)).await;
    for window in ["1m", "1h", "1d"] {
        assert_eq!(
            buckets(&database, window).await.first().map(|bucket| bucket.1),
            Some(f64::MAX),
            "{window}"
        );
    }
}

#[tokio::test]
async fn writers_with_the_same_events_store_each_once() {
    let now = at("2026-11-23T10:00:30Z");
    let database = Database::fresh_at(now).await;
    let mut running = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let store = store(&database.url);
        let way = WAYS[writer % 3];
        running.spawn(async move {
            let mut new = 0;
            for round in 0..20 {
                let mut readings: Vec<Reading> =
                    (0..50).map(|i| reading(&format!("e-{round}-{i}"), 1.0, now)).collect();
                if writer % 2 == 0 {
                    readings.reverse();
                }
                let shard = i32::try_from(writer).expect("a few");
                let of = |way: Way| WriteContext { shard, ..way.at(now) };
                let stored = match try_put(&store, &readings, &[], of(way)).await {
                    Err(error) if error.is_replay() => {
                        try_put(&store, &readings, &[], of(Way::Looking)).await
                    }
                    outcome => outcome,
                };
                new += stored.expect("no deadlock").len();
            }
            new
        });
    }
    let mut sum = 0;
    while let Some(new) = running.join_next().await {
        sum += new.expect("no panic");
    }
    assert_eq!(sum, 1000);
    assert_eq!(database.count("SELECT count(*) FROM telemetry_raw").await, 1000);
}
