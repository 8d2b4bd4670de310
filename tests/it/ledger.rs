//! The conservation ledger: everything that comes in has one state, everything that is queued has one, and a loss is a number.

use actors::chore::Chore;
use actors::tallies::Tallies;
use chrono::{Days, Duration};
use http_body_util::Full;
use loadtest::cloud::{HourDigest, Mode};
use loadtest::mqtt::Publish;
use schema::clock::Clock;
use schema::store::ledger::{self, Line, Totals};
use schema::store::outbox::resend::{self, Range, Resent};
use schema::store::{discard, outbox, partition};
use serde_json::{Value, json};
use tests::barn::{Barn, check_ledger};
use tests::device::{TENANT, at_least_once, new_event_id, reading};
use tests::engine::get;
use tests::postgres::{Database, connect};
use tests::wait::until;

/// Posts readings over HTTP.
async fn post_readings(barn: &Barn, body: &Value) -> Value {
    let request = hyper::Request::post("/api/v1/telemetry/readings").header("host", "edge");
    let request = request.header("content-type", "application/json").body(Full::from(body.to_string()));
    let url = format!("http://{}", barn.settings.http);
    let answer = loadtest::http::call(&url, request.expect("a request")).await;
    let (status, body) = answer.expect("the engine answers");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

async fn totals(db: &Database) -> Totals {
    db.store.run("test", async |conn| ledger::totals(conn, None).await).await.expect("it can be read")
}

/// Events as a program writes them, `first` to `last`, of so many days ago.
fn events(first: u32, last: u32, days: u32) -> String {
    format!(
        "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json, created_at)
         SELECT ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, 't-001', 'f', 'b', 'd-' || i % 7,
             'telemetry.ingested', now(), '{{}}', now() - interval '{days} days' FROM generate_series({first}, {last}) AS i"
    )
}

/// What any program does with events that the cloud has.
fn acknowledge(table: &str, which: &str) -> String {
    format!(
        "WITH gone AS (DELETE FROM ONLY sync_outbox WHERE {which} RETURNING *)
         INSERT INTO {table} (id, tenant_id, event_type, occurred_at, payload_json, status, acked_at, created_at, seq)
         OVERRIDING SYSTEM VALUE
         SELECT id, tenant_id, event_type, occurred_at, payload_json, 'acked', now(), created_at, seq FROM gone"
    )
}

fn today_table() -> String {
    partition::acked_table(Clock::system().now().date_naive())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_in_has_one_state() {
    let barn = Barn::start_with(|settings| settings.set("ingress.forward_events", "door_opened")).await;
    let mut device = barn.device("any").await;
    let once = reading("d-1", &new_event_id());
    device.put_all([once.clone(), once, reading("d-2", &new_event_id())]).await;
    device.put(&reading("d-unknown", &new_event_id())).await;
    device.put(&at_least_once("nothing/of/ours", "{}")).await;
    let status = format!("iot/status/{TENANT}/f-001/b-001/d-1");
    device.put(&at_least_once(&status, r#"{"device_id":"d-1","status":"online"}"#)).await;
    device.put(&Publish { is_retained: true, ..at_least_once(&status, "") }).await;
    let event = tests::device::envelope("d-1", &new_event_id(), "door_opened").to_string();
    let topic = format!("iot/event/{TENANT}/f-001/b-001/d-1/door_opened");
    device.put_all([at_least_once(&topic, event.clone()), at_least_once(&topic, event)]).await;
    let line = check_ledger(&barn.db).await;
    let found = [line.received, line.stored, line.duplicate, line.refused, line.removed];
    assert_eq!(found, [9, 4, 2, 2, 1], "{line:?}");

    let good = new_event_id();
    let of_call = |event_id: &str, value: Value| {
        json!({"event_id": event_id, "tenant_id": TENANT, "device_id": "d-3",
        "event_type": "telemetry.reading", "ts": "2026-02-12T09:32:15.052Z", "payload": {"metric": "t", "value": value}})
    };
    let body = json!({"events": [of_call(&good, json!(1.0)), of_call(&good, json!(1.0)), of_call("e-bad", json!("x"))]});
    let answer = post_readings(&barn, &body).await;
    assert_eq!((&answer["ingested_count"], &answer["duplicate_count"]), (&json!(2), &json!(1)), "{answer}");
    let line = check_ledger(&barn.db).await;
    let found = [line.received, line.stored, line.duplicate, line.refused, line.removed];
    assert_eq!(found, [12, 5, 3, 3, 1], "{line:?}");

    barn.delivered(4).await;
    until("the engine has noted it", async || totals(&barn.db).await.line.acked == 4).await;
    let (status, body) = get(barn.settings.http, "/api/v1/ledger").await;
    assert_eq!(status, 200, "{body}");
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&shown["is_whole"], &shown["difference"]), (&json!(true), &json!(0)), "{shown}");
    assert_eq!((&shown["total"]["received"], &shown["total"]["acked"]), (&json!(12), &json!(4)), "{shown}");
    let tenants: Vec<_> =
        shown["days"].as_array().expect("a list").iter().map(|day| &day["tenant_id"]).collect();
    assert_eq!(tenants, ["", TENANT], "the topic of nobody counts under no tenant: {shown}");
    let gauges = barn.metric("ledger_events", "state=\"received\"");
    until("the gauges show it", async || barn.metric("ledger_events", "state=\"received\"") == 12.0).await;
    assert!(gauges <= 12.0 && barn.metric("ledger_difference", "") == 0.0);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_beyond_what_is_described_are_counted() {
    let barn = Barn::start().await;
    let mut device = barn.device("any").await;
    device.put_all((0..300).map(|_| reading("d-unknown", &new_event_id()))).await;
    let described = barn.db.count("SELECT count(*) FROM ingress_rejects").await;
    assert!(described < 300, "{described}");
    let line = check_ledger(&barn.db).await;
    assert_eq!((line.received, line.refused), (300, 300));
    barn.finish().await;
}

#[tokio::test]
async fn an_event_has_one_state_from_the_outbox_to_its_end() {
    let db = Database::fresh().await;
    let other = connect(&db.url).await;
    db.execute(&events(1, 70, 3)).await;
    other.batch_execute(&events(71, 100, 0)).await.expect("another one may write");
    other
        .batch_execute(&format!("BEGIN; {}; ROLLBACK", events(200, 300, 0)))
        .await
        .expect("it can be undone");
    let states = async |expected: [i64; 5]| {
        let Totals { line, difference } = totals(&db).await;
        let Line { queued, acked, waiting, failed, discarded, .. } = line;
        assert_eq!([queued, acked, waiting, failed, discarded], expected);
        assert_eq!(difference, 0, "{line:?}");
    };
    states([100, 0, 100, 0, 0]).await;
    // Batches go out and come back.
    db.execute("UPDATE ONLY sync_outbox SET status = 'sent' WHERE device_id IN ('d-1', 'd-2', 'd-3')").await;
    other
        .batch_execute("UPDATE ONLY sync_outbox SET status = 'pending' WHERE device_id = 'd-3'")
        .await
        .expect("it may");
    states([100, 0, 100, 0, 0]).await;
    other.batch_execute(&acknowledge(&today_table(), "device_id = 'd-1'")).await.expect("it may");
    states([100, 15, 85, 0, 0]).await;
    db.execute("UPDATE ONLY sync_outbox SET status = 'failed', failed_at = now() WHERE device_id = 'd-2'")
        .await;
    states([100, 15, 70, 15, 0]).await;
    let mut ids = Vec::new();
    for row in db
        .client
        .query("SELECT id FROM ONLY sync_outbox WHERE status = 'failed' LIMIT 5", &[])
        .await
        .expect("rows")
    {
        ids.push(row.get(0));
    }
    let now = Clock::system().now();
    let work = async |conn: &mut _| discard::discard(conn, &ids, None, "a test", now).await;
    assert_eq!(db.store.run("test", work).await.expect("it can be discarded"), 5);
    states([100, 15, 70, 10, 5]).await;
    let work = async |conn: &mut _| outbox::queries::redrive(conn, None, None, now).await;
    assert_eq!(db.store.run("test", work).await.expect("it can be redriven"), 10);
    states([100, 15, 80, 0, 5]).await;
    // What was acknowledged counts when it is deleted.
    db.execute(&format!("DROP TABLE {}", today_table())).await;
    states([100, 15, 80, 0, 5]).await;

    let days = (now.date_naive() - Days::new(6), now.date_naive());
    let days = db.store.run("test", async |conn| ledger::days(conn, None, days).await).await.expect("days");
    let queued: Vec<_> =
        days.iter().map(|day| (day.day, day.line.queued, day.line.difference_out())).collect();
    assert_eq!(queued, [(now.date_naive(), 30, 0), ((now - Duration::days(3)).date_naive(), 70, 0)]);
    // Server processes that are gone leave nothing behind but the sum.
    drop(other);
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    until("the other process ends", async || db.count(others).await <= 4).await;
    db.store.run("test", async |conn| ledger::fold(conn).await).await.expect("it can be folded");
    states([100, 15, 80, 0, 5]).await;
}

#[tokio::test]
async fn a_loss_shows_whoever_caused_it_and_can_be_closed() {
    let db = Database::fresh().await;
    db.execute(&events(1, 70, 0)).await;
    db.execute("DELETE FROM ONLY sync_outbox WHERE device_id = 'd-1'").await;
    assert_eq!(totals(&db).await.difference, 10, "somebody deleted what the cloud has not");
    // Past the triggers, as a restored dump or a broken index would: found by the comparison.
    db.execute(
        "SET session_replication_role = replica; DELETE FROM ONLY sync_outbox WHERE device_id = 'd-2';
         SET session_replication_role = origin",
    )
    .await;
    assert_eq!(totals(&db).await.difference, 10);
    db.execute("UPDATE ledger_checks SET checked_at = NULL").await;
    let mut chore = Tallies { store: db.store.clone(), clock: Clock::system() };
    chore.run().await.expect("the database works");
    assert_eq!(totals(&db).await.difference, 20);
    db.execute(
        "INSERT INTO ledger (tenant_id, day, shard, written_off)
         VALUES ('t-001', (now() AT TIME ZONE 'UTC')::date, 0, 20)
         ON CONFLICT (tenant_id, day, shard) DO UPDATE SET written_off = ledger.written_off + excluded.written_off",
    )
    .await;
    check_ledger(&db).await;
    db.execute("TRUNCATE sync_outbox").await;
    assert_eq!(totals(&db).await.difference, 50);
}

#[tokio::test]
async fn what_waited_before_the_ledger_is_its_opening_entry() {
    let db = Database::fresh().await;
    // As a database whose outbox was large when the ledger was introduced.
    db.execute("UPDATE ledger_checks SET opened_at = NULL, checked_at = NULL; SET session_replication_role = replica").await;
    db.execute(&events(1, 70, 2)).await;
    db.execute("SET session_replication_role = origin").await;
    db.execute(&events(71, 80, 0)).await;
    db.execute(&acknowledge(&today_table(), "device_id = 'd-1'")).await;
    assert_eq!(totals(&db).await.difference, 0, "old rows are missing on both sides");
    let mut chore = Tallies { store: db.store.clone(), clock: Clock::system() };
    chore.run().await.expect("the database works");
    let line = check_ledger(&db).await;
    // One of those of d-1 was queued after the ledger began.
    assert_eq!((line.queued, line.acked, line.waiting), (80, line.acked, 80 - line.acked), "{line:?}");
}

#[tokio::test]
async fn a_day_that_a_program_without_a_ledger_made_is_counted_in_the_end() {
    let db = Database::fresh().await;
    db.execute(&events(1, 70, 0)).await;
    db.execute(&format!("DROP TABLE {0}; CREATE TABLE {0} () INHERITS (sync_outbox)", today_table())).await;
    db.execute(&acknowledge(&today_table(), "device_id = 'd-1'")).await;
    assert_eq!(totals(&db).await.difference, 10, "nobody counts what goes there yet");
    let now = Clock::system().now();
    let ensure = async |conn: &mut _| partition::ensure_days(conn, now).await;
    db.store.run("test", ensure).await.expect("the days are there");
    assert_eq!(check_ledger(&db).await.acked, 10);
    db.execute(&acknowledge(&today_table(), "device_id = 'd-2'")).await;
    assert_eq!(check_ledger(&db).await.acked, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_whole_while_everything_moves() {
    let barn = Barn::start().await;
    barn.cloud.mode(Mode::Slow { latency_ms: 5 }).await;
    let mut device = barn.device("any").await;
    let readings: Vec<_> =
        (0..2_000).map(|number| reading(&format!("d-{}", number % 10), &new_event_id())).collect();
    let looks = async {
        let mut looks = 0;
        while totals(&barn.db).await.line.acked < 2_000 {
            let totals = totals(&barn.db).await;
            assert_eq!(totals.difference, 0, "{totals:?}");
            looks += 1;
        }
        looks
    };
    let (looks, ()) = tokio::join!(looks, device.put_all(readings));
    assert!(looks > 10, "{looks}");
    barn.finish().await;
}

/// A reading of a device at a time of its own.
fn reading_at(device: &str, event_id: &str, at: &str) -> Publish {
    let mut body = tests::device::envelope(device, event_id, "telemetry.reading");
    body["ts"] = json!(at);
    body["payload"] = json!({"value": 26.4, "unit": "celsius"});
    at_least_once(&tests::device::temperature_topic(device), body.to_string())
}

async fn json_of(barn: &Barn, path: &str) -> Value {
    let (status, body) = get(barn.settings.http, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn post_resend(barn: &Barn, body: Value) -> (u16, Value) {
    let request = hyper::Request::post("/api/v1/sync/resend").header("host", "edge");
    let request = request.header("content-type", "application/json").body(Full::from(body.to_string()));
    let url = format!("http://{}", barn.settings.http);
    let answer = loadtest::http::call(&url, request.expect("a request")).await;
    let (status, body) = answer.expect("the engine answers");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// What the engine says that the cloud has.
async fn digest(barn: &Barn) -> Vec<HourDigest> {
    let range = "from=2026-02-12T00:00:00Z&to=2026-02-13T00:00:00Z";
    let shown = json_of(barn, &format!("/api/v1/ledger/digest?tenant_id={TENANT}&{range}")).await;
    assert!(shown["since"].is_string(), "{shown}");
    serde_json::from_value(shown["hours"].clone()).expect("hours")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_cloud_is_found_by_the_digest_and_filled_by_a_resend_of_its_hour() {
    const PER_HOUR: usize = 20;
    let barn = Barn::start_with(|settings| settings.set("auth.admin_enabled", "true")).await;
    let mut device = barn.device("any").await;
    let mut lost = String::new();
    for hour in 8..11 {
        for minute in 0..PER_HOUR {
            let event_id = new_event_id();
            let at = format!("2026-02-12T{hour:02}:{minute:02}:00.000Z");
            device.put(&reading_at(&format!("d-{}", minute % 3), &event_id, &at)).await;
            if (hour, minute) == (9, 7) {
                lost = schema::id::outbox_id(TENANT, &event_id).to_string();
            }
        }
    }
    let all = 3 * PER_HOUR as u64;
    barn.delivered(all).await;
    let acked = async || totals(&barn.db).await.line.acked.unsigned_abs();
    until("the engine has noted it", async || acked().await == all).await;
    assert_eq!(digest(&barn).await, barn.cloud.digest(TENANT), "both have the same");

    let lost_at = "2026-02-12T09:07:00Z".parse().expect("a time");
    assert!(barn.cloud.forget(TENANT, &lost, lost_at), "the cloud had it");
    let (ours, theirs) = (digest(&barn).await, barn.cloud.digest(TENANT));
    let holes: Vec<_> = ours.iter().filter(|hour| !theirs.contains(hour)).map(|hour| &*hour.hour).collect();
    assert_eq!(holes, ["2026-02-12T09:00:00.000Z"]);

    let range = |dry_run: bool| json!({"tenant_id": TENANT, "from": "2026-02-12T09:00:00Z", "to": "2026-02-12T10:00:00Z", "dry_run": dry_run});
    let (status, told) = post_resend(&barn, range(true)).await;
    let found = [&told["acked_count"], &told["found_count"], &told["resent_count"], &told["gone_count"]];
    assert_eq!((status, found), (200, [&json!(20), &json!(20), &json!(0), &json!(0)]), "{told}");
    assert_eq!(totals(&barn.db).await.line.resent, 0, "nothing goes in a rehearsal");
    let before = barn.cloud.judge();
    let (status, told) = post_resend(&barn, range(false)).await;
    assert_eq!((status, &told["resent_count"]), (200, &json!(20)), "{told}");
    until("the cloud has it again", async || acked().await == all + PER_HOUR as u64).await;
    let after = barn.cloud.judge();
    assert_eq!(
        (after.accepted - before.accepted, after.duplicated - before.duplicated),
        (1, 19),
        "that hour alone"
    );
    assert_eq!((digest(&barn).await, barn.cloud.digest(TENANT).len()), (barn.cloud.digest(TENANT), 3));
    let line = check_ledger(&barn.db).await;
    assert_eq!((line.queued, line.resent, line.acked, line.waiting), (60, 20, 80, 0));
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'sync.resend' AND tenant_id = 't-001'";
    assert_eq!(barn.db.count(audited).await, 1);

    // What is kept no more cannot go again, and that is said.
    barn.db.execute(&format!("DELETE FROM {}", today_table())).await;
    let (_, told) = post_resend(&barn, range(true)).await;
    assert_eq!((&told["found_count"], &told["gone_count"]), (&json!(0), &json!(20)), "{told}");
    let (status, told) =
        post_resend(&barn, json!({"tenant_id": TENANT, "from": "2026-02-12T09:30:00Z", "to": "x"})).await;
    assert_eq!(status, 400, "{told}");
    barn.finish().await;
}

#[tokio::test]
async fn what_goes_again_keeps_its_place_and_what_waits_stays_as_it_is() {
    let db = Database::fresh().await;
    db.execute(&events(1, 21, 0)).await;
    db.execute(&acknowledge(&today_table(), "device_id IN ('d-1', 'd-2')")).await;
    let seqs = "SELECT seq FROM sync_outbox ORDER BY id";
    let before: Vec<i64> =
        db.client.query(seqs, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect();
    let now = Clock::system().now();
    let range = Range { tenant_id: TENANT, from: now - Duration::hours(2), to: now + Duration::hours(1) };
    let others = Range { tenant_id: "t-002", ..range };
    let run = async |range: &Range<'_>, is_rehearsal: bool| {
        let work = async |conn: &mut _| resend::resend(conn, range, is_rehearsal, now).await;
        db.store.run("test", work).await.expect("it can be resent")
    };
    assert_eq!(run(&others, false).await, Resent::default());
    assert_eq!(run(&range, true).await, Resent { found: 6, ..Resent::default() });
    assert_eq!(run(&range, false).await, Resent { found: 6, resent: 6, ..Resent::default() });
    assert_eq!(run(&range, false).await, Resent::default(), "it waits already");
    let after: Vec<i64> =
        db.client.query(seqs, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect();
    assert_eq!(before, after);
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox WHERE status = 'pending'").await, 21);
    let hours = db.count("SELECT coalesce(sum(events), 0)::bigint FROM ledger_hours").await;
    assert_eq!(hours, 0, "the cloud is not said to have what goes again");
    assert_eq!(check_ledger(&db).await.resent, 6);
}
