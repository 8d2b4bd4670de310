//! The volume of the database: how long it lasts without the cloud, and what goes first when it is nearly full.

use chrono::{TimeDelta, Utc};
use schema::clock::Clock;
use serde_json::json;
use tests::engine::{Engine, binary};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_keep_the_promise_is_told_with_the_arithmetic() {
    let db = Database::fresh().await;
    // So many events within two hours fill any disk.
    db.execute("SELECT setval(pg_get_serial_sequence('sync_outbox', 'seq'), 1000000000000)").await;
    let settings = Settings::of(&db.url).set("ops.check_seconds", "1");
    let two_hours_ago = Clock::system().now() - TimeDelta::hours(2);
    let kept = json!({"samples": [{"at": two_hours_ago, "events": 0}], "last": null});
    std::fs::write(settings.data_dir().join("runway.json"), kept.to_string()).expect("the directory is ours");
    let engine = Engine::start(settings).await;
    until("the runway is told", async || engine.log().contains("fewer than seven days")).await;
    let log = engine.log();
    let line = log.lines().find(|line| line.contains("fewer than seven days")).expect("it was told");
    assert!(line.contains("events/s of 1150 bytes are") && line.contains("GB are free"), "{line}");
    let (_, metrics) = tests::engine::get(engine.settings.http, "/metrics").await;
    let days = metrics.lines().find_map(|line| line.strip_prefix("disk_runway_days "));
    assert!(days.and_then(|days| days.parse::<f64>().ok()).is_some_and(|days| days < 7.0), "{days:?}");
    let status = engine.json("/api/v1/ops/edge/status").await;
    assert!(status["data"]["resources"]["offline_runway_days"].is_number(), "{status}");
    let mut doctor = tokio::process::Command::new(binary());
    doctor.arg("doctor").env_clear().envs(engine.settings.variables());
    let said = doctor.output().await.expect("the program can be run").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("warn  runway         the cloud may stay away for"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cloud_has_goes_first_when_the_disk_is_nearly_full_and_what_it_has_not_stays() {
    let db = Database::fresh().await;
    let day =
        |days: i64| (Clock::system().now() - TimeDelta::days(days)).with_timezone(&Utc).format("%Y%m%d");
    let (old, today) = (format!("sync_outbox_acked_{}", day(5)), format!("sync_outbox_acked_{}", day(0)));
    db.execute(&format!(
        "CREATE TABLE {old} () INHERITS (sync_outbox);
         INSERT INTO {old} (id, seq, tenant_id, event_type, payload_json, status, acked_at, created_at)
         VALUES (gen_random_uuid(), 1, 't', 'e', '{{}}', 'acked', now() - interval '5 days', now() - interval '6 days');
         CREATE TABLE IF NOT EXISTS {today} () INHERITS (sync_outbox);
         INSERT INTO {today} (id, seq, tenant_id, event_type, payload_json, status, acked_at, created_at)
         VALUES (gen_random_uuid(), 2, 't', 'e', '{{}}', 'acked', now(), now());
         INSERT INTO sync_outbox (id, tenant_id, event_type, payload_json, created_at)
         VALUES (gen_random_uuid(), 't', 'e', '{{}}', now() - interval '40 days');
         INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
             avg_value, min_value, max_value, count, created_at)
         SELECT gen_random_uuid(), 't', 'd', w, now() - age, now() - age + interval '1 minute', 'm', 1, 1, 1, 1, now() - age
         FROM unnest(ARRAY['1m', '1h']) AS w, unnest(ARRAY[interval '2 days', interval '9 days']) AS age"
    ))
    .await;
    let settings =
        Settings::of(&db.url).set("ops.check_seconds", "1").set("retention.database_free_gb_min", "1000000");
    let engine = Engine::start(settings).await;
    until("the day that the cloud has is gone", async || {
        db.count(&format!("SELECT count(*) FROM pg_class WHERE relname = '{old}'")).await == 0
    })
    .await;
    let minutes = "SELECT count(*) FROM telemetry_agg WHERE \"window\" = '1m'";
    until("old minutes are gone", async || db.count(minutes).await == 1).await;
    assert_eq!(db.count("SELECT count(*) FROM telemetry_agg WHERE \"window\" = '1h'").await, 2);
    assert_eq!(db.count(&format!("SELECT count(*) FROM {today}")).await, 1);
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 1);
    assert!(engine.log().contains("events that the cloud has go before their time"));
    assert!(engine.metric("retention_emergency_tables", "").await >= 1.0);
}
