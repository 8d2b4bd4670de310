//! Charts: columns in buckets of a time zone, what is too much, who may look, and by which indexes it is read.

use std::time::Instant;

use axum::http::StatusCode;
use chrono::{Duration, TimeZone, Utc};
use engine::config::Role;
use schema::clock::Clock;
use serde_json::{Value, json};
use tests::plan::plan;
use tests::postgres::Database;
use tokio_postgres::types::ToSql;

use super::{Face, code, config, key};

const CHART: &str = "/api/v1/telemetry/aggregates";
const ONE: (&str, &str) = ("x-api-key", "one");
/// What any list may take on sixty days of a barn.
const LIST_MS_MAX: u128 = 100;

/// Aggregates of a window from a time on: `step` apart, each the number of its bucket.
fn aggregates(device: &str, metric: &str, window: &str, unit: &str, from: &str, count: i64) -> String {
    format!(
        "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value,
             min_value, max_value, count, created_at)
         SELECT gen_random_uuid(), 't-001', '{device}', '{window}', t, t + '1 {unit}'::interval, '{metric}', n, n - 1, n + 1, 2, now()
         FROM generate_series(0, {count} - 1) AS n, LATERAL (SELECT timestamptz '{from}' + n * '1 {unit}'::interval) AS b (t);"
    )
}

async fn chart(face: &Face, query: &str) -> Value {
    let (status, body) = face.get(&format!("{CHART}?{query}"), &[ONE]).await;
    assert_eq!(status, StatusCode::OK, "{query} {body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_come_in_buckets_and_columns() {
    let face = Face::of(config()).await;
    let sql = [
        aggregates("d-1", "temperature", "1m", "minute", "2026-02-12T09:00Z", 60),
        aggregates("d-2", "temperature", "1m", "minute", "2026-02-12T09:30Z", 10),
        aggregates("d-2", "humidity", "1m", "minute", "2026-02-12T09:30Z", 10),
        aggregates("d-3", "temperature", "1m", "minute", "2026-02-12T09:00Z", 60),
    ];
    face.db.execute(&sql.concat()).await;
    let range = "start_time=2026-02-12T09:00:00Z&end_time=2026-02-12T10:00:00Z";
    let body = chart(&face, &format!("device_id=d-1&device_id=d-2&bucket=15m&{range}")).await;
    let series = body["series"].as_array().expect("series");
    let names: Vec<_> =
        series.iter().map(|one| format!("{}/{}", one["device_id"], one["metric_type"])).collect();
    assert_eq!(names, ["\"d-1\"/\"temperature\"", "\"d-2\"/\"humidity\"", "\"d-2\"/\"temperature\""]);
    assert_eq!(series[0]["avg"], json!([7.0, 22.0, 37.0, 52.0]));
    assert_eq!(series[0]["min"], json!([-1.0, 14.0, 29.0, 44.0]));
    assert_eq!(series[0]["max"], json!([15.0, 30.0, 45.0, 60.0]));
    assert_eq!(series[0]["count"], json!([30, 30, 30, 30]));
    assert_eq!(series[2]["t"], json!(["2026-02-12T09:30:00.000Z"]), "buckets without readings are not there");
    assert_eq!(series[0].get("day"), None);
    let one = chart(&face, &format!("device_id=d-2&metric_type=humidity&bucket=5m&{range}")).await;
    assert_eq!((&one["series"][0]["avg"], &one["tz"]), (&json!([2.0, 7.0]), &json!("UTC")));
    face.db.allow_device("t-001", "d-3", "f-001", "b-001").await;
    let barn = chart(&face, &format!("barn_id=b-001&bucket=1h&{range}")).await;
    assert_eq!(barn["series"].as_array().map(Vec::len), Some(0), "the hour is closed and has no row");
    // The old call knows metrics, too.
    let (status, rows) = face
        .get(&format!("{CHART}?tenant_id=t-001&device_id=d-2&window=1m&metric_type=humidity"), &[ONE])
        .await;
    assert_eq!((status, &rows["count"]), (StatusCode::OK, &json!(10)), "{rows}");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_those_of_the_zone_over_every_change_of_the_clocks() {
    let face = Face::of(config()).await;
    // 72 hours from midnight in Berlin before the clocks go forward, and the minutes of those that half an hour cuts.
    let sql = [
        aggregates("d-1", "temperature", "1h", "hour", "2026-03-27T23:00Z", 72),
        aggregates("d-1", "temperature", "1m", "minute", "2026-03-27T23:00Z", 72 * 60),
    ];
    face.db.execute(&sql.concat()).await;
    let range = "device_id=d-1&bucket=1d&start_time=2026-03-27T23:00:00Z&end_time=2026-03-30T21:59:59Z";
    let berlin = chart(&face, &format!("{range}&tz=Europe/Berlin")).await;
    let series = &berlin["series"][0];
    assert_eq!(series["day"], json!(["2026-03-28", "2026-03-29", "2026-03-30"]));
    assert_eq!(series["count"], json!([48, 46, 48]), "24, 23 and 24 hours");
    assert_eq!(series["t"][1], "2026-03-28T23:00:00.000Z");
    let kathmandu = chart(&face, &format!("{range}&tz=Asia/Kathmandu")).await;
    let series = &kathmandu["series"][0];
    assert_eq!(series["t"][1], "2026-03-28T18:15:00.000Z", "midnight there is a quarter past an hour of UTC");
    let counts: Vec<i64> =
        series["count"].as_array().expect("counts").iter().filter_map(Value::as_i64).collect();
    // Whole hours count two, and each minute of the hour that is cut counts two as well.
    assert_eq!(counts[1], 2 * 23 + 2 * 60);
    // The last minute before its edge is the 2,595th, and no later one of that hour is in it.
    assert_eq!(series["max"][1], 2595.0);
    let hours = chart(&face, "device_id=d-1&bucket=1h&tz=Asia/Kathmandu&start_time=2026-03-28T00:00:00Z&end_time=2026-03-28T02:00:00Z").await;
    assert_eq!(hours["series"][0]["t"][0], "2026-03-27T23:15:00.000Z");
    assert_eq!(hours["series"][0]["count"], json!([120, 120, 120]));
    // Where nobody says, days are those of the barn.
    face.db.allow_device("t-001", "d-1", "f-001", "b-001").await;
    let barn =
        json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "time_zone": "Asia/Bangkok"});
    assert_eq!(face.post("/api/v1/barns", &[ONE], &barn).await.0, StatusCode::OK);
    let own =
        chart(&face, "barn_id=b-001&bucket=1d&start_time=2026-03-28T00:00:00Z&end_time=2026-03-29T00:00:00Z")
            .await;
    assert_eq!(
        (&own["tz"], &own["series"][0]["t"][0]),
        (&json!("Asia/Bangkok"), &json!("2026-03-27T17:00:00.000Z"))
    );
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hour_under_way_is_charted_by_its_minutes() {
    let face = Face::of(config()).await;
    let hour =
        Utc.timestamp_opt(Clock::system().now().timestamp() / 3600 * 3600, 0).single().expect("a time");
    let before = (hour - Duration::hours(2)).format("%FT%TZ").to_string();
    let sql = [
        aggregates("d-1", "temperature", "1h", "hour", &before, 1),
        aggregates("d-1", "temperature", "1m", "minute", &hour.format("%FT%TZ").to_string(), 1),
    ];
    face.db.execute(&sql.concat()).await;
    let body = chart(&face, &format!("device_id=d-1&bucket=1h&start_time={before}")).await;
    assert_eq!(body["series"][0]["count"], json!([2, 2]), "{body}");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_said_and_nobody_sees_anothers() {
    let mut config = config();
    config.auth.operator_keys.push(key("two", Role::Admin, &["t-002"]));
    let face = Face::of(config).await;
    face.db.execute(&aggregates("d-1", "temperature", "1m", "minute", "2026-02-12T09:00Z", 60)).await;
    let many: String = (0..51).map(|number| format!("device_id=d-{number}&")).collect();
    let twenty: String = (0..20).map(|number| format!("device_id=d-{number}&")).collect();
    let year = "start_time=2025-02-12T00:00:00Z&end_time=2026-02-12T00:00:00Z";
    for (query, told) in [
        ("bucket=5m".to_owned(), "name device_id or barn_id"),
        ("bucket=5s&device_id=d-1".to_owned(), "bucket: must be one of 5m, 15m, 1h, 1d"),
        ("bucket=5m&device_id=d-1&tz=Mars".to_owned(), "tz: is not a time zone"),
        (format!("bucket=5m&device_id=d-1&{year}"), "buckets of 5m are more than 1500"),
        (format!("bucket=5m&{many}"), "51 devices are more than 50"),
        (
            "bucket=5m&device_id=d-1&start_time=2026-02-12T00:00:00Z&end_time=2026-02-11T00:00:00Z"
                .to_owned(),
            "behind",
        ),
        (
            format!("bucket=15m&{twenty}start_time=2026-02-01T00:00:00Z&end_time=2026-02-12T00:00:00Z"),
            "too much for one chart",
        ),
    ] {
        let (status, body) = face.get(&format!("{CHART}?{query}"), &[ONE]).await;
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{query} {body}");
        let message = body["error"]["message"].as_str().expect("a text");
        assert!(message.contains(told), "{query}: {message}");
    }
    let query = "device_id=d-1&bucket=5m&start_time=2026-02-12T09:00:00Z&end_time=2026-02-12T10:00:00Z";
    assert_eq!(chart(&face, query).await["series"][0]["count"].as_array().map(Vec::len), Some(12));
    let (status, foreign) = face.get(&format!("{CHART}?{query}"), &[("x-api-key", "two")]).await;
    assert_eq!((status, &foreign["series"]), (StatusCode::OK, &json!([])));
    let (status, _) = face.get(&format!("{CHART}?{query}&tenant_id=t-001"), &[("x-api-key", "two")]).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    face.end().await;
}

/// Sixty days of a barn: minutes, hours and faults of so many devices with four metrics.
async fn sixty_days(db: &Database, devices: i64, days: i64) {
    for (window, unit, step) in [("1m", "minute", 60), ("1h", "hour", 3600)] {
        db.execute(&format!(
            "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value,
                 min_value, max_value, count, created_at)
             SELECT gen_random_uuid(), 't-001', 'd-' || d, '{window}', t, t + '1 {unit}'::interval, m, 25, 24, 26, 2, t
             FROM generate_series(1, {days} * 86400 / {step}) AS n, generate_series(1, {devices}) AS d,
                 unnest(ARRAY['temperature', 'humidity', 'co2', 'light_intensity']) AS m,
                 LATERAL (SELECT date_trunc('{unit}', now()) - n * '1 {unit}'::interval) AS b (t)"
        ))
        .await;
    }
    db.execute(&format!(
        "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id)
             SELECT 't-001', 'd-' || d, 'f-001', 'b-001' FROM generate_series(1, {devices}) AS d;
         INSERT INTO sensor_faults SELECT 't-001', 'd-' || d, 'temperature', 'spike', 'fail', t, t, 1, 1, now()
             FROM generate_series(1, {devices}) AS d, generate_series(1, 24 * {days}) AS n,
                 LATERAL (SELECT now() - n * interval '1 hour') AS b (t);
         INSERT INTO barn_days SELECT 't-001', 'f-001', 'b-001', current_date - n, 'UTC', '{{\"hours\": 24}}', now()
             FROM generate_series(0, {days}) AS n"
    ))
    .await;
    db.execute("VACUUM ANALYZE").await;
}

#[tokio::test]
async fn what_is_charted_is_found_by_an_index() {
    let mut db = Database::fresh().await;
    sixty_days(&db, 3, 6).await;
    let now = Clock::system().now();
    let (day_ago, soon) = (now - Duration::days(1), now + Duration::hours(1));
    let edges: Vec<_> = (0..=24).map(|hour| day_ago + Duration::hours(hour)).collect();
    let devices = vec!["d-1".to_owned(), "d-2".to_owned()];
    let (metric, hours, limit) = (Some("temperature"), vec![now], 20_001_i64);
    let metrics = vec!["temperature", "humidity"];
    let (always, failures) = (vec!["spike"], vec!["rate"]);
    let tenants = vec!["t-001", "t-001"];
    let (first, last) = (day_ago.date_naive(), now.date_naive());
    type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;
    let aggregates = "telemetry_agg_";
    let asked: Vec<(&str, Params<'_>, &str, i64)> = vec![
        (
            "chart_minutes",
            vec![&"t-001", &devices, &metric, &edges, &day_ago, &soon, &limit],
            aggregates,
            4000,
        ),
        (
            "chart_hours",
            vec![&"t-001", &devices, &metric, &edges, &day_ago, &soon, &limit, &hours, &15_i32],
            aggregates,
            1000,
        ),
        ("faults", vec![&"t-001", &devices, &metric, &day_ago, &soon, &5000_i64], "sensor_faults_pkey", 200),
        (
            "house_minutes",
            vec![&"t-001", &"f-001", &"b-001", &metrics, &day_ago, &now, &always, &failures, &40_000_i64],
            aggregates,
            20_000,
        ),
        ("board_last_minutes", vec![&tenants, &devices, &day_ago, &now, &64_i64], aggregates, 300),
        ("barn_days", vec![&"t-001", &"f-001", &"b-001", &first, &last, &400_i64], "barn_days_pkey", 20),
    ];
    // Small tables would be read as a whole.
    db.execute("SET enable_seqscan = off").await;
    for (name, params, index, pages_max) in asked {
        let found = plan(&mut db.client, name, &params).await;
        assert!(
            found.indexes.iter().any(|used| used.starts_with(index)),
            "{name} does not use {index}: {found:?}"
        );
        assert!(found.pages <= pages_max, "{name} reads {} pages: {found:?}", found.pages);
        assert!(!found.scanned.contains(&"telemetry_agg".to_owned()), "{name}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: it makes sixty days of a barn, which takes minutes"]
async fn every_list_of_sixty_days_is_quick() {
    let face = Face::of(config()).await;
    sixty_days(&face.db, 10, 60).await;
    let now = Clock::system().now();
    let since = |days: i64| (now - Duration::days(days)).format("%FT%TZ").to_string();
    let paths = [
        "/api/v1/board".to_owned(),
        "/api/v1/places".to_owned(),
        format!("{CHART}?tenant_id=t-001&window=1h&limit=1000"),
        format!("{CHART}?barn_id=b-001&metric_type=temperature&bucket=5m&start_time={}", since(1)),
        format!("{CHART}?device_id=d-1&bucket=15m&start_time={}", since(7)),
        format!("{CHART}?device_id=d-1&metric_type=temperature&bucket=1h&start_time={}", since(60)),
        format!(
            "{CHART}?barn_id=b-001&metric_type=temperature&bucket=1d&tz=Asia/Bangkok&start_time={}",
            since(60)
        ),
        format!(
            "{CHART}?barn_id=b-001&metric_type=temperature&bucket=1d&tz=Asia/Kathmandu&start_time={}",
            since(60)
        ),
        format!("/api/v1/climate?barn_id=b-001&from={}", (now - Duration::days(59)).date_naive()),
    ];
    let mut slow = Vec::new();
    for path in &paths {
        let mut took = Vec::new();
        for _ in 0..5 {
            let asked_at = Instant::now();
            let (status, body) = face.get(path, &[ONE]).await;
            took.push(asked_at.elapsed().as_millis());
            assert_eq!(status, StatusCode::OK, "{path} {body}");
        }
        took.sort_unstable();
        println!("{:>5} ms  {path}", took[2]);
        if took[2] > LIST_MS_MAX {
            slow.push((took[2], path));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
    face.end().await;
}
