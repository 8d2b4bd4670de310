//! The database as the engine lives with it: what it must be, how the way there is encrypted, who waits for whom, and what
//! is said when it takes no writes.

use std::time::Duration;

use schema::clock::Clock;
use schema::store::access::Touched;
use schema::store::{Store, StoreError, StoreSettings, health};
use serde_json::json;
use tests::certificates::Authority;
use tests::device::{Device, TENANT, new_event_id, reading};
use tests::engine::{Engine, get};
use tests::postgres::{self, Database};
use tests::server::Server;
use tests::settings::Settings;
use tests::wait::until;
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// Calls at once, more than there are connections.
const CALLS: usize = 20;

fn text(error: StoreError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// The columns that each statement returns.
async fn columns(client: &Client) -> Vec<(&'static str, Vec<String>)> {
    let mut columns = Vec::new();
    for sql in schema::store::STATEMENTS.iter().flat_map(|statements| statements.iter()) {
        let statement = client.prepare(sql).await.expect("the statement is right");
        let names = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        columns.push((*sql, names));
    }
    columns
}

#[tokio::test]
async fn a_column_of_a_newer_program_changes_no_statement() {
    let db = Database::fresh().await;
    let before = columns(&db.client).await;
    db.execute(
        "DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace
                AND relkind IN ('r', 'p') AND NOT relispartition
                AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid)
            LOOP EXECUTE format('ALTER TABLE %s ADD COLUMN of_the_future text', name); END LOOP;
        END $$",
    )
    .await;
    let after = columns(&postgres::connect(&db.url).await).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn an_engine_that_starts_while_nothing_can_be_written_waits_for_it() {
    let db = Database::fresh().await;
    db.allow_device(TENANT, "d-1", "f-001", "b-001").await;
    let row = db.client.query_one("SELECT current_database()::text", &[]).await.expect("a name");
    let name: String = row.get(0);
    // Of connections that are made from now on.
    db.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let mut engine = Engine::stopped(Settings::of(&db.url));
    engine.spawn();
    until("the door waits", async || engine.log().contains("cannot be loaded, the door waits")).await;
    assert!(engine.is_alive());
    db.execute(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    until("the engine runs", async || engine.log().contains("farmiq-edge runs")).await;
    let mut device = Device::connect(engine.settings.mqtt, "d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;
    assert_eq!(db.count("SELECT count(*) FROM telemetry_raw").await, 1);
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// A lock on a table that is held until it is dropped.
async fn lock(db: &Database, table: &str) -> Client {
    let holder = postgres::connect(&db.url).await;
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {table}")).await.expect("the table is there");
    holder
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND application_name LIKE 'farmiq-edge%'";

/// Many who wait for a table leave connections for those who write others.
async fn check_a_reading_gets_through(table: &str, call: impl Fn(&Settings) -> Call) {
    let db = Database::fresh().await;
    db.allow_device(TENANT, "d-1", "f-001", "b-001").await;
    let settings = Settings::of(&db.url)
        .set("database.statement_timeout_seconds", "300")
        .set("database.read_timeout_seconds", "300")
        .set("media.presign_per_minute", "1000");
    let engine = Engine::start(settings).await;
    let mut device = Device::connect(engine.settings.mqtt, "d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;

    let holder = lock(&db, table).await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(call(&engine.settings));
    }
    until("they wait for the table", async || db.count(WAITING).await >= 4).await;
    device.put(&reading("d-1", &new_event_id())).await;
    assert!(db.count(WAITING).await >= 4, "{table}: they wait all the while");
    drop(holder);
}

type Call = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_look_at_a_locked_table_hold_no_acknowledgement_up() {
    check_a_reading_gets_through("weight_sessions", |settings| {
        let http = settings.http;
        Box::pin(async move { drop(get(http, "/api/v1/weighvision/sessions/s-1?tenant_id=t-001").await) })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_write_a_locked_table_hold_no_acknowledgement_up() {
    check_a_reading_gets_through("media_uploads", |settings| {
        let url = format!("http://{}/api/v1/media/images/presign", settings.http);
        let body = json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-1",
            "content_type": "image/jpeg", "filename": "hen.jpg"});
        Box::pin(async move {
            let request = hyper::Request::post(url.clone())
                .header("host", "edge")
                .header("x-tenant-id", TENANT)
                .header("content-type", "application/json")
                .body(http_body_util::Full::from(body.to_string()));
            drop(loadtest::http::call(&url, request.expect("a request")).await);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_wait_for_a_locked_table_hold_no_acknowledgement_up() {
    check_a_reading_gets_through("device_credentials", |settings| {
        let mqtt = settings.mqtt;
        Box::pin(async move {
            let mut login = tests::device::login("d-2");
            (login.user, login.password) = (Some("t-001/d-2".to_owned()), Some("wrong".to_owned()));
            drop(loadtest::mqtt::connect(&mqtt.to_string(), &login).await);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_no_database_until_it_takes_writes_again() {
    let server = Server::start().await;
    let db = server.database().await;
    db.allow_device(TENANT, "d-1", "f-001", "b-001").await;
    let mut engine = Engine::start(Settings::of(&server.url())).await;
    let mut device = Device::connect(engine.settings.mqtt, "d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;

    db.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    db.execute("SELECT pg_reload_conf()").await;
    let http = engine.settings.http;
    let status = async || get(http, "/api/ready").await.0;
    until("the engine notices without a message", async || status().await == 503).await;
    device.send(&reading("d-1", &new_event_id())).await;
    // Nothing comes of it, which only time can show.
    let ends_at = tokio::time::Instant::now() + Duration::from_secs(6);
    while tokio::time::Instant::now() < ends_at {
        assert_eq!(status().await, 503, "it is not ready in between");
        assert_eq!(engine.metric("db_up", "").await, 0.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let reset = "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only";
    for statement in reset.split("; ") {
        db.execute(statement).await;
    }
    db.execute("SELECT pg_reload_conf()").await;
    device.settled(0).await;
    until("the engine is ready", async || status().await == 200).await;
    assert_eq!(engine.terminate().await.code, Some(0));
    let log = engine.log();
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("the database takes no writes"), 1, "{log}");
    assert_eq!(count("the database takes writes again"), 1, "{log}");
    assert!(log.contains("in a read-only transaction (SQLSTATE 25006)"), "{log}");
    assert_eq!(db.count("SELECT count(*) FROM telemetry_raw").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_commits_is_turned_down_with_a_way_out() {
    let server = Server::start().await;
    let db = server.database().await;
    for (setting, word) in [("fsync", "fsync is off"), ("full_page_writes", "full_page_writes is off")] {
        db.execute(&format!("ALTER SYSTEM SET {setting} = off")).await;
        db.execute("SELECT pg_reload_conf()").await;
        let mut engine = Engine::stopped(Settings::of(&server.url()));
        engine.spawn();
        until("the engine gives up", async || !engine.is_alive()).await;
        let log = engine.log();
        assert!(log.contains(word) && log.contains("set it to on in postgresql.conf"), "{log}");
        db.execute(&format!("ALTER SYSTEM RESET {setting}")).await;
        db.execute("SELECT pg_reload_conf()").await;
    }
    let mut engine = Engine::start(Settings::of(&server.url())).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test]
async fn a_database_that_does_not_hold_every_text_is_turned_down() {
    let db = Database::empty().await;
    let name = postgres::unique_name();
    db.execute(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")).await;
    let (head, _) = db.url.rsplit_once("dbname=").expect("a URL of the tests");
    let refused = postgres::store(&format!("{head}dbname={name}")).migrate().await.expect_err("refused");
    assert!(refused.is_permanent());
    assert!(text(refused).contains("the encoding of the database is LATIN1"));
    db.execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test]
async fn a_role_or_a_database_cannot_switch_durable_commits_off() {
    let db = Database::fresh().await;
    let name: String =
        db.client.query_one("SELECT current_database()::text", &[]).await.expect("it has a name").get(0);
    db.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let shown = postgres::connect(&db.url).await.query_one("SHOW synchronous_commit", &[]).await;
    assert_eq!(shown.expect("it can be shown").get::<_, &str>(0), "off");
    // A connection whose commits are not durable is turned down.
    postgres::store(&db.url).ping().await.expect("ours are durable all the same");
}

#[tokio::test]
async fn more_connections_than_the_server_lets_in_are_a_problem_that_is_told() {
    let db = Database::fresh().await;
    assert_eq!(health::problems(&db.store).await.expect("it can be asked"), []);
    let settings = StoreSettings { pool_max: 1000, ..StoreSettings::new(&db.url, "farmiq-tests") };
    let store = Store::new(&settings).expect("the URL is right");
    let problems = health::problems(&store).await.expect("it can be asked");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].text.contains("the engine may open 1013 connections"), "{problems:?}");
    assert!(!problems[0].is_fatal);
}

#[tokio::test]
async fn a_probe_writes_and_finds_room() {
    let db = Database::fresh().await;
    for needs_room in [false, true, true] {
        let probe =
            db.store.run("test", async |conn| health::probe(conn, needs_room, Clock::system().now()).await);
        probe.await.expect("there is room");
    }
    assert_eq!(db.count("SELECT count(*) FROM database_probe").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM pg_class WHERE relname = 'farmiq_room'").await, 0);
}

#[tokio::test]
async fn a_statement_whose_columns_changed_fails_once_at_most() {
    let db = Database::fresh().await;
    db.allow_device(TENANT, "d-1", "f-001", "b-001").await;
    let look = async || {
        let read = db.store.run("test", async |conn| schema::store::device::allowlists(conn).await);
        read.await.map(drop)
    };
    // Several connections that have the statement prepared.
    let looked = tokio::join!(look(), look(), look());
    assert!(looked.0.is_ok() && looked.1.is_ok() && looked.2.is_ok());
    db.execute(
        "ALTER TABLE device_allowlist ALTER COLUMN notes TYPE varchar, ALTER COLUMN farm_id TYPE varchar",
    )
    .await;
    let mut failures = 0;
    for _ in 0..10 {
        failures += usize::from(look().await.is_err());
    }
    assert!(failures <= 1, "{failures} calls failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_server_is_encrypted_as_libpq_does_it() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let mut server = Server::start().await;
    let port = server.encrypt(&authority).await;
    let client = server.connect().await;
    client
        .batch_execute("ALTER ROLE farmiq PASSWORD 'hush'; CREATE ROLE certified SUPERUSER LOGIN")
        .await
        .expect("roles");
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    };
    let (ca, other) = (write("ca.pem", &authority.pem()), write("other.pem", &stranger.pem()));
    let (cert, key) = authority.device("certified", None).pem();
    let own = format!("sslcert={}&sslkey={}", write("own.pem", &cert), write("own.key", &key));
    let url = |user: &str, host: &str, parameters: &str| {
        format!("postgresql://{user}@{host}:{port}/postgres?{parameters}")
    };
    let farmiq = "farmiq:hush";

    for (url, words) in [
        (url(farmiq, "localhost", "sslmode=disable"), "no pg_hba.conf entry"),
        (
            url(farmiq, "127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}")),
            "certificate not valid for name",
        ),
        (url(farmiq, "localhost", &format!("sslmode=verify-full&sslrootcert={other}")), "UnknownIssuer"),
        (url(farmiq, "localhost", &format!("sslmode=require&sslrootcert={other}")), "UnknownIssuer"),
        (url(farmiq, "localhost", "sslmode=verify-ca&sslrootcert=/nowhere.pem"), "/nowhere.pem"),
        (url("certified", "localhost", "sslmode=require"), "certificate"),
    ] {
        let failed = postgres::store(&url).ping().await.expect_err(&url);
        let failed = text(failed);
        assert!(failed.contains(words), "{url}: {failed}");
    }
    for url in [
        url(farmiq, "localhost", ""),
        url(farmiq, "127.0.0.1", "sslmode=require&channel_binding=require"),
        url(farmiq, "127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")),
        url(farmiq, "localhost", &format!("sslmode=verify-full&sslrootcert={ca}")),
        url("certified", "localhost", &format!("sslmode=verify-full&sslrootcert={ca}&{own}")),
        format!(
            "host=localhost port={port} user=farmiq password=hush dbname=postgres sslmode=verify-full sslrootcert='{ca}'"
        ),
    ] {
        let store = postgres::store(&url);
        store.migrate().await.unwrap_or_else(|error| panic!("{url}: {}", text(error)));
        let mut news = store.access_news().await.unwrap_or_else(|error| panic!("{url}: {}", text(error)));
        store.ping().await.expect("it answers");
        let sql = "SELECT bool_and(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'farmiq-tests'";
        let row = client.query_one(sql, &[]).await.expect("the query is right");
        assert!(row.get::<_, bool>(0), "{url}");
        assert!(row.get::<_, i64>(1) >= 2, "{url}");
        let insert =
            "INSERT INTO device_allowlist (tenant_id, device_id) VALUES ('t', gen_random_uuid()::text)";
        client.batch_execute(insert).await.expect("a row");
        assert!(matches!(news.next().await.expect("it tells"), Touched::Device { .. }));
    }
}
