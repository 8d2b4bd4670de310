//! Upgrade and rollback: tables of the first programs, programs of two versions on the same tables, and migrations that
//! fail or have to wait.

use loadtest::device::Weighing;
use loadtest::station::Course;
use schema::clock::Clock;
use schema::store::migration::{self, Misfit, Standing};
use schema::store::{Store, StoreError};
use tests::barn::{admit, check_ledger};
use tests::device::{Device, new_event_id, reading};
use tests::engine::{Engine, get};
use tests::postgres::{self, Database};
use tests::settings::Settings;
use tests::stations::{check_rows, stations};
use tests::wait::until;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

/// Readings of each turn of an engine.
const READINGS: usize = 40;

/// The migrations that the first programs know, with the checksums that they know them by: neither may ever change.
const FIRST: [(i32, &str, &str, &str); 8] = [
    (1, "tables", "10188355743460506657", include_str!("../../schema/migrations/V1__tables.sql")),
    (2, "sessions", "6127359664922128527", include_str!("../../schema/migrations/V2__sessions.sql")),
    (3, "media", "11155894459998843461", include_str!("../../schema/migrations/V3__media.sql")),
    (4, "inference", "2164233465443770278", include_str!("../../schema/migrations/V4__inference.sql")),
    (5, "retention", "11575099741924278712", include_str!("../../schema/migrations/V5__retention.sql")),
    (
        6,
        "declared_hashes",
        "17883156753207276208",
        include_str!("../../schema/migrations/V6__declared_hashes.sql"),
    ),
    (7, "access", "17645928393035729959", include_str!("../../schema/migrations/V7__access.sql")),
    (
        8,
        "door_sessions",
        "5094928565706349434",
        include_str!("../../schema/migrations/V8__door_sessions.sql"),
    ),
];

/// A database as the first programs leave it.
async fn first() -> Database {
    let db = Database::empty().await;
    db.execute(
        "CREATE TABLE refinery_schema_history
            (version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))",
    )
    .await;
    for (version, name, checksum, sql) in FIRST {
        db.execute(sql).await;
        db.execute(&format!(
            "INSERT INTO refinery_schema_history VALUES ({version}, '{name}', '2026-11-24T10:00:00Z', '{checksum}')"
        ))
        .await;
    }
    db
}

async fn standing(store: &Store) -> Standing {
    store.run("test", async |conn| migration::standing(conn).await).await.expect("it can be asked")
}

/// The tables of the engine and how many rows each has.
async fn rows(db: &Database) -> Vec<(String, i64)> {
    let sql = "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'refinery_schema_history' ORDER BY 1";
    let mut rows = Vec::new();
    for table in db.client.query(sql, &[]).await.expect("the query is right") {
        let table: String = table.get(0);
        rows.push((table.clone(), db.count(&format!("SELECT count(*) FROM {table}")).await));
    }
    rows
}

#[tokio::test]
async fn tables_of_the_first_programs_are_upgraded_with_their_rows() {
    let db = first().await;
    db.execute(include_str!("upgrade/rows.sql")).await;
    let before = rows(&db).await;
    let empty: Vec<_> = before.iter().filter(|(_, count)| *count == 0).collect();
    assert!(empty.is_empty(), "tables without a row in this test: {empty:?}");
    assert!(matches!(standing(&db.store).await, Standing::Behind { is: Some(8), .. }));

    db.store.migrate().await.expect("the tables can be upgraded");
    assert!(matches!(standing(&db.store).await, Standing::Current(_)));
    let after = rows(&db).await;
    let lost: Vec<_> = before.iter().filter(|before| !after.contains(before)).collect();
    assert!(lost.is_empty(), "{lost:?} became {after:?}");
    assert_eq!(db.count("SELECT max(version)::int8 FROM refinery_schema_history").await, 8);
}

#[tokio::test]
async fn of_several_sessions_of_one_client_the_newest_is_kept() {
    let db = first().await;
    let session = |id: u8, device: &str, client: &str| {
        format!(
            "INSERT INTO mqtt_sessions (session_id, tenant_id, device_id, client_id, expiry_seconds)
             VALUES ('00000000-0000-7000-8000-0000000000{id:02}', {device}, '{client}', 60)"
        )
    };
    let nobody = "NULL, NULL";
    for (id, device, client) in
        [(1, nobody, "a"), (2, nobody, "a"), (3, "'t', 'd'", "a"), (4, "'t', 'd'", "a"), (5, nobody, "b")]
    {
        db.execute(&session(id, device, client)).await;
    }
    db.store.migrate().await.expect("the tables can be upgraded");
    let kept = "SELECT sum(right(session_id::text, 2)::int8)::int8 FROM mqtt_sessions";
    assert_eq!(db.count(kept).await, 2 + 4 + 5);
    let again = db.client.batch_execute(&session(6, nobody, "a")).await;
    assert!(again.is_err_and(|error| error.code() == Some(&SqlState::UNIQUE_VIOLATION)));
}

/// An engine at work: a device and every station, in whichever version.
async fn work(settings: &Settings, name: &str) -> Vec<Course> {
    let mut device = Device::connect(settings.mqtt, name).await;
    device.put_all((0..READINGS).map(|_| reading("d-1", &new_event_id()))).await;
    device.disconnect().await;
    let mut busy = JoinSet::new();
    for mut station in stations(settings.mqtt, &format!("http://{}", settings.http)) {
        busy.spawn(async move {
            let (session, at) = (new_event_id(), Clock::system().now());
            let weighing = Weighing { session: &session, weight_kg: 2.0, at };
            let course = station.weigh(weighing).await.expect("the engine takes pictures");
            station.close().await;
            course
        });
    }
    let courses = busy.join_all().await;
    for path in [
        "/api/ready",
        "/api/v1/ops/edge/status",
        "/api/v1/sync/state",
        "/api/v1/sync/outbox",
        "/api/v1/telemetry/readings?tenant_id=t-001&device_id=d-1",
        "/api/v1/telemetry/aggregates?tenant_id=t-001&device_id=d-1&window=1m",
        "/api/v1/telemetry/stats?tenant_id=t-001",
        "/api/v1/telemetry/metrics?tenant_id=t-001",
        "/api/v1/events?tenant_id=t-001",
        "/api/v1/inference/results?tenant_id=t-001&sessionId=s-1",
        "/api/v1/media/stats?tenant_id=t-001",
        "/api/v1/janitor/state",
    ] {
        let (status, body) = get(settings.http, path).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    courses
}

/// Runs the engine in its version for as long as it works, and ends it.
async fn turn(mut engine: Engine, name: &str) -> Vec<Course> {
    engine.start_again().await;
    let courses = work(&engine.settings, name).await;
    end(engine).await;
    courses
}

async fn end(mut engine: Engine) {
    assert_eq!(engine.terminate().await.code, Some(0));
    let errors: Vec<String> =
        engine.log().lines().filter(|line| line.contains("\"level\":\"error\"")).map(str::to_owned).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn settings(db: &Database) -> Settings {
    let settings = Settings::of(&db.url).set("media.presign_per_minute", "1000");
    let (base, root) = (format!("http://{}", settings.http), settings.data_dir().join("media"));
    settings
        .set("media.public_base_url", &base)
        .set("media.root", &root.display().to_string())
        .set("retention.free_disk_gb_min", "0")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_program_serves_on_these_tables_beside_this_one_and_after_it() {
    let db = Database::empty().await;
    let settings = settings(&db);
    let Some(mut previous) = Engine::previous(settings.clone()) else {
        eprintln!("SKIPPED: the previous program is not built, see tests/previous-program");
        return;
    };
    previous.start_again().await;
    admit(&db).await;
    end(previous).await;

    // It is replaced by this one; a second engine is still of the previous version.
    let previous = || Engine::previous(settings.clone()).expect("it was there a moment ago");
    let mut this = Engine::start(settings.clone()).await;
    let beside = settings.elsewhere();
    let base = format!("http://{}", beside.http);
    let beside = beside.set("media.public_base_url", &base);
    let mut courses = work(&settings, "this").await;
    let engine = Engine::previous(beside.clone()).expect("it was there a moment ago");
    courses.extend(turn(engine, "beside").await);
    assert!(this.is_alive());
    end(this).await;
    // Back, and once more to this one.
    courses.extend(turn(previous(), "back").await);
    this = Engine::start(settings.clone()).await;
    courses.extend(work(&settings, "again").await);

    let unread = "SELECT count(*) FROM inference_jobs WHERE status <> 'completed'";
    until("every picture is read", async || db.count(unread).await == 0).await;
    end(this).await;
    assert_eq!(
        db.count("SELECT count(*) FROM telemetry_raw WHERE device_id = 'd-1'").await,
        4 * READINGS as i64
    );
    // The previous program counts nothing that comes in, and everything that it sends.
    check_ledger(&db).await;
    let root = settings.data_dir().join("media");
    for course in &courses {
        check_rows(&db.client, course, |image| {
            let path = image.path.as_ref().expect("it lies in a directory");
            std::fs::read(root.join(path)).expect("the image is there")
        })
        .await;
    }
}

#[tokio::test]
async fn a_newer_program_says_who_may_run_on_its_tables() {
    let db = Database::fresh().await;
    let Standing::Current(ours) = standing(&db.store).await else { panic!("the tables are new") };
    let add = async |version: i32, oldest: i32| {
        let sql = "INSERT INTO schema_migrations (version, name, checksum, applied_at, oldest_program)
            VALUES ($1, 'of_the_future', '1', now(), $2)";
        db.client.execute(sql, &[&version, &oldest]).await.expect("a row can be added");
    };
    add(ours + 1, ours).await;
    db.store.migrate().await.expect("this program may run");
    assert_eq!(standing(&db.store).await, Standing::Ahead { is: ours + 1, ours });
    add(ours + 2, ours + 1).await;
    let refused = db.store.migrate().await.expect_err("this program is too old");
    assert!(refused.is_permanent());
    let StoreError::Misfit(misfit) = refused else { panic!("{refused:?}") };
    assert!(misfit.to_string().contains("run the newer program"), "{misfit}");
    assert_eq!(standing(&db.store).await, Standing::Misfit(misfit));
}

#[tokio::test]
async fn a_program_that_knows_no_marks_refuses_what_stands_in_its_own_history() {
    let db = Database::fresh().await;
    db.execute(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         VALUES (9999, 'of_the_future', '2030-01-01T00:00:00Z', '1')",
    )
    .await;
    let refused = db.store.migrate().await.expect_err("nobody older may run");
    assert!(matches!(refused, StoreError::Misfit(Misfit::Newer { version: 9999, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_migration_that_fails_is_given_up_with_its_name_and_the_words_of_the_server() {
    let db = first().await;
    db.execute("CREATE TABLE database_probe ()").await;
    let failed = db.store.migrate().await.expect_err("the table is there already");
    assert!(failed.is_permanent());
    let text = format!("{:#}", anyhow::Error::from(failed));
    assert!(text.starts_with("apply migration V12__database_probe: "), "{text}");
    assert!(text.contains("relation \"database_probe\" already exists (SQLSTATE 42P07)"), "{text}");
    db.execute("DROP TABLE database_probe").await;
    db.store.migrate().await.expect("nothing was left half done");
}

#[tokio::test]
async fn whoever_may_not_make_tables_is_told_so_and_may_still_run() {
    let db = first().await;
    let role = format!(
        "reader_of_{}",
        db.count("SELECT oid::int8 FROM pg_database WHERE datname = current_database()").await
    );
    db.execute(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
        .await;
    let stranger = postgres::store(&db.url.replace("user=farmiq", &format!("user={role}")));
    let refused = stranger.migrate().await.expect_err("a right is missing");
    assert!(refused.is_permanent());
    let text = format!("{:#}", anyhow::Error::from(refused));
    assert!(text.contains("permission denied for schema public (SQLSTATE 42501)"), "{text}");

    db.store.migrate().await.expect("the owner may");
    db.execute(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")).await;
    stranger.migrate().await.expect("nothing is left to be done");
    db.execute(&format!("DROP OWNED BY {role}")).await;
}

#[tokio::test]
async fn a_migration_that_waits_for_a_table_lets_others_pass_and_tries_again() {
    let db = first().await;
    let holder = postgres::connect(&db.url).await;
    db.store.migrate().await.expect("the tables can be upgraded");
    db.execute("DELETE FROM schema_migrations WHERE version = 12; DROP TABLE database_probe").await;
    holder.batch_execute("BEGIN; LOCK TABLE schema_migrations IN SHARE MODE").await.expect("it is free");
    let mut migrating = JoinSet::new();
    let store = db.store.clone();
    migrating.spawn(async move { store.migrate().await });
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'schema_migrations'::regclass AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("the migration waits", async || db.count(waits).await == 1).await;
    until("it has given way", async || db.count(waits).await == 0).await;
    holder.batch_execute("COMMIT").await.expect("the lock is given back");
    migrating.join_next().await.expect("one migrates").expect("no panic").expect("it tried again");
    assert!(matches!(standing(&db.store).await, Standing::Current(_)));
}
