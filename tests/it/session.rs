//! Weighing sessions end to end: any order, any repetition, kills at any point, and a judge at the cloud.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use actors::directory::{Directory, DirectorySettings};
use actors::session::order::{Command, Mark, Order};
use actors::session::{SessionActors, SessionContext, SessionSettings, Sessions};
use broker::{Delivery, Message, Qos, Settlement, Verdict};
use chrono::{TimeDelta, TimeZone, Utc};
use engine::parts::Parts;
use http_body_util::Full;
use loadtest::cloud::{self, PretendCloud};
use loadtest::device::{Place, Station, Weighing};
use loadtest::mqtt::Publish;
use ractor::{Actor, ActorCell};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tests::barn::{Barn, admit, check_idle};
use tests::device::{Device, TENANT};
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

/// Sessions of one round of traffic.
const SESSIONS_PER_ROUND: i64 = 4;
/// Rounds, each in another order.
const ROUNDS: i64 = 100;

fn began_at() -> schema::clock::Timestamp {
    Utc.with_ymd_and_hms(2026, 2, 12, 9, 32, 15).single().expect("a time")
}

/// Four weighings of seven messages, as weight-vision-service sends them; rounds have sessions of their own.
fn traffic(round: i64, random: &mut StdRng) -> Vec<Publish> {
    let place = Place { tenant: TENANT.into(), farm: "f-001".into(), barn: "b-001".into() };
    let station = Station { place, station: "st-01".into(), device: "wv-001".into() };
    let mut weigh = |number: i64| {
        let at = began_at() + TimeDelta::seconds(90 * (SESSIONS_PER_ROUND * round + number));
        let session = at.format("%Y%m%d_%H%M%S").to_string();
        let weighing = Weighing { session: &session, weight_kg: 0.5, at };
        station.weigh(weighing, random)
    };
    (0..SESSIONS_PER_ROUND).flat_map(&mut weigh).map(|message| message.publish).collect()
}

/// Checks that so many sessions have come to the one end they can come to.
async fn check_rows(db: &Database, sessions: i64) {
    let queries = [
        (
            "SELECT count(*) FROM weight_sessions WHERE status = 'finalized' AND image_count = 2
            AND initial_weight_kg = 0.5 AND final_weight_kg = 0.5 AND end_at > start_at",
            1,
        ),
        ("SELECT count(*) FROM weight_sessions", 1),
        ("SELECT count(*) FROM session_weights WHERE is_bound", 1),
        ("SELECT count(*) FROM session_media_bindings WHERE is_bound", 2),
        ("SELECT count(*) FROM telemetry_raw", 2),
        ("SELECT count(*) FROM ingress_dedupe", 7),
        ("SELECT count(*) FROM sync_outbox WHERE event_type = 'weighvision.session.created'", 1),
        ("SELECT count(*) FROM sync_outbox WHERE event_type = 'weighvision.weight.recorded'", 1),
        ("SELECT count(*) FROM sync_outbox WHERE event_type = 'weighvision.session.finalized'", 1),
        ("SELECT count(*) FROM session_parked", 0),
        ("SELECT count(*) FROM dead_letters", 0),
        ("SELECT count(*) FROM ingress_rejects", 0),
    ];
    for (query, per_session) in queries {
        assert_eq!(db.count(query).await, per_session * sessions, "{query}");
    }
    let amended = "SELECT (SELECT count(*) FROM sync_outbox WHERE event_type = 'weighvision.session.amended')
        - (SELECT coalesce(sum(amendment_count), 0)::bigint FROM weight_sessions)";
    assert_eq!(db.count(amended).await, 0, "as many amendments as the sessions say");
}

/// Weights that come after the end of their session are late by nature.
fn lenient() -> cloud::Settings {
    cloud::Settings { tolerates_late: true, ..cloud::Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_in_order_come_to_their_end_at_the_cloud() {
    let barn = Barn::start().await;
    let mut device = barn.device("wv-001").await;
    let traffic = traffic(0, &mut StdRng::seed_from_u64(1));
    device.put_all(traffic.clone()).await;
    check_rows(&barn.db, SESSIONS_PER_ROUND).await;
    barn.delivered(20).await;
    device.put_all(traffic).await;
    check_rows(&barn.db, SESSIONS_PER_ROUND).await;
    assert_eq!(barn.metric("ingress_deduped", "weighvision"), 20.0);
    assert_eq!(barn.cloud.judge().by_event_type.get("weighvision.session.amended"), None);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_orders_of_the_same_messages_end_the_same() {
    let barn = Barn::start_judged(lenient(), |settings| settings).await;
    let mut device = barn.device("wv-001").await;
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..ROUNDS {
        let mut messages = traffic(round, &mut random);
        // Every other round comes doubled.
        if round % 2 == 1 {
            messages.extend(messages.clone());
        }
        messages.shuffle(&mut random);
        device.put_all(messages).await;
    }
    check_rows(&barn.db, ROUNDS * SESSIONS_PER_ROUND).await;
    let events = barn.db.count("SELECT count(*) FROM sync_outbox").await;
    barn.delivered(events.unsigned_abs()).await;
    let verdict = barn.cloud.judge();
    let count = |event_type: &str| verdict.by_event_type.get(event_type).copied();
    let sessions = Some((ROUNDS * SESSIONS_PER_ROUND).unsigned_abs());
    assert_eq!(count("weighvision.session.created"), sessions);
    assert_eq!(count("weighvision.session.finalized"), sessions);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_message_lose_nothing_and_double_nothing() {
    let db = Database::fresh().await;
    admit(&db).await;
    let cloud = PretendCloud::start(lenient()).await.expect("a free port");
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let settings =
        Settings::of(&db.url).set("cloud.url", &cloud.url()).set("outbox.backoff_seconds_max", "1");
    let mut engine = Engine::start(settings).await;
    let rounds = 10;
    for round in 0..rounds {
        let mut messages = traffic(round, &mut random);
        messages.shuffle(&mut random);
        let cut = random.random_range(0..messages.len());
        let mut device = Device::connect(engine.settings.mqtt, "wv-001").await;
        // Some of these are acknowledged, some are not: all that were sent are sent again.
        for message in &messages[..cut] {
            device.send(message).await;
        }
        device.settled(cut / 2).await;
        engine.kill().await;
        engine.start_again().await;
        let mut device = Device::connect(engine.settings.mqtt, "wv-001").await;
        device.put_all(messages).await;
    }
    check_rows(&db, rounds * SESSIONS_PER_ROUND).await;
    let events = db.count("SELECT count(*) FROM sync_outbox").await.unsigned_abs();
    until("the cloud has every event", async || cloud.judge().accepted >= events).await;
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    assert_eq!(cloud.judge().violations, []);
}

async fn post(barn: &Barn, path: &str, body: &Value) -> (u16, Value) {
    let uri = format!("/api/v1/weighvision/sessions{path}");
    let request = hyper::Request::post(uri).header("host", "edge").header("content-type", "application/json");
    let request = request.body(Full::from(body.to_string())).expect("a request");
    let http = format!("http://{}", barn.settings.http);
    let (status, body) = loadtest::http::call(&http, request).await.expect("the engine answers");
    (status, serde_json::from_slice(&body).expect("a JSON body"))
}

/// The call that a device makes before it publishes this message; none for telemetry.
fn http_copy(message: &Publish) -> Option<(String, Value, u16)> {
    let segments: Vec<_> = message.topic.split('/').collect();
    let ["iot", "weighvision", tenant, farm, barn, station, "session", session, event_type] = segments[..]
    else {
        return None;
    };
    let envelope: Value = serde_json::from_slice(&message.payload).expect("an envelope");
    let (event, ts) = (&envelope["event_id"], &envelope["ts"]);
    let payload = &envelope["payload"];
    let bind = |key: &str, value: &Value| json!({"tenantId": tenant, "occurredAt": ts, "eventId": event, key: value});
    Some(match event_type {
        "weighvision.session.created" => {
            let body = json!({"sessionId": session, "eventId": event, "tenantId": tenant, "farmId": farm, "barnId": barn,
                "deviceId": envelope["device_id"], "stationId": station, "startAt": ts});
            (String::new(), body, 201)
        }
        "weighvision.weight.recorded" => {
            (format!("/{session}/bind-weight"), bind("weightKg", &payload["weightKg"]), 200)
        }
        "weighvision.image.captured" => {
            (format!("/{session}/bind-media"), bind("mediaObjectId", &payload["mediaObjectId"]), 200)
        }
        _ => (format!("/{session}/finalize"), bind("x", &json!(0)), 200),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_over_http_is_a_duplicate_over_mqtt() {
    let barn = Barn::start().await;
    let traffic = traffic(0, &mut StdRng::seed_from_u64(1));
    for (path, body, expected) in traffic.iter().filter_map(http_copy) {
        let (status, answer) = post(&barn, &path, &body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let mut device = barn.device("wv-001").await;
    device.put_all(traffic).await;
    check_rows(&barn.db, SESSIONS_PER_ROUND).await;
    assert_eq!(barn.metric("ingress_deduped", "weighvision"), 20.0);
    assert_eq!(barn.metric("ingress_dedupe_conflict", ""), 0.0);
    assert_eq!(barn.db.count("SELECT sum(amendment_count)::bigint FROM weight_sessions").await, 0);
    barn.delivered(20).await;
    barn.finish().await;
}

async fn redrive(barn: &Barn) -> Value {
    let request = hyper::Request::post("/api/v1/sync/redrive").header("host", "edge");
    let request = request.header("content-type", "application/json").body(Full::from(r#"{"allDlq":true}"#));
    let http = format!("http://{}", barn.settings.http);
    let answer = loadtest::http::call(&http, request.expect("a request")).await.expect("the engine answers");
    serde_json::from_slice(&answer.1).expect("a JSON body")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalize_that_waited_too_long_is_given_up_and_applied_again_on_demand() {
    let barn = Barn::start_judged(lenient(), |settings| settings.set("auth.admin_enabled", "true")).await;
    let mut device = barn.device("wv-001").await;
    let mut messages: Vec<_> = traffic(0, &mut StdRng::seed_from_u64(1)).into_iter().take(7).collect();
    let finalize = messages.remove(5);
    device.publish(&finalize.topic, finalize.payload.clone()).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM session_parked").await, 1);
    barn.db.execute("UPDATE session_parked SET expires_at = received_at").await;
    let given_up =
        "SELECT count(*) FROM dead_letters WHERE reason = 'FINALIZE_WITHOUT_SESSION' AND redriven_at IS NULL";
    until("the finalize is given up", async || barn.db.count(given_up).await == 1).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM session_parked").await, 0);
    device.put_all(messages).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM weight_sessions WHERE status = 'created'").await, 1);
    let answer = redrive(&barn).await;
    assert_eq!(answer["redriven_count"], 1, "{answer}");
    assert_eq!(barn.db.count("SELECT count(*) FROM weight_sessions WHERE status = 'finalized'").await, 1);
    assert_eq!(barn.db.count("SELECT count(*) FROM dead_letters WHERE redriven_at IS NOT NULL").await, 1);
    assert_eq!(redrive(&barn).await["redriven_count"], 0);
    barn.delivered(5).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_fell_silent_is_cancelled_and_stays_so() {
    let limited = |settings: Settings| settings.set("session.idle_cancel_hours", "2");
    let mut barn = Barn::start_judged(lenient(), limited).await;
    let traffic = traffic(0, &mut StdRng::seed_from_u64(1));
    let (silent, open) = (&traffic[..7], &traffic[7..14]);
    let mut device = barn.device("wv-001").await;
    device.put_all([silent[0].clone(), silent[1].clone(), open[0].clone(), open[1].clone()]).await;
    barn.delivered(4).await;
    let begin = |messages: &[Publish]| {
        let envelope: Value = serde_json::from_slice(&messages[0].payload).expect("an envelope");
        envelope["payload"]["capture_id"].as_str().expect("a session").to_owned()
    };
    let (silent_id, open_id) = (begin(silent), begin(open));
    // One was silent for a little longer than it may be, the other for a little less.
    for (session, minutes) in [(&silent_id, 121), (&open_id, 119)] {
        let aged = format!(
            "UPDATE weight_sessions SET updated_at = now() - interval '{minutes} minutes' WHERE session_id = '{session}'"
        );
        barn.db.execute(&aged).await;
    }
    // The first thing an engine does is to look.
    barn.restart().await;
    let cancelled = format!(
        "SELECT count(*) FROM weight_sessions WHERE session_id = '{silent_id}' AND status = 'cancelled' AND end_at IS NULL"
    );
    until("the silent session is cancelled", async || barn.db.count(&cancelled).await == 1).await;
    assert_eq!(barn.metric("session_cancelled", ""), 1.0);
    // Whatever comes for it now is refused, over either way in, and says so.
    let mut device = barn.device("wv-001").await;
    device.put_all([silent[5].clone(), open[5].clone()]).await;
    let refused = "SELECT count(*) FROM ingress_rejects WHERE reason = 'SESSION_CLOSED'";
    until("the refusal is recorded", async || barn.db.count(refused).await == 1).await;
    let (path, body, _) = http_copy(&silent[5]).expect("a call");
    let (status, answer) = post(&barn, &path, &body).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("SESSION_CLOSED")), "{answer}");
    let finalized = format!(
        "SELECT count(*) FROM weight_sessions WHERE session_id = '{open_id}' AND status = 'finalized'"
    );
    assert_eq!(barn.db.count(&finalized).await, 1);
    assert_eq!(barn.db.count(&cancelled).await, 1);
    // The cloud hears of the end of the other, and nothing of a session that was given up.
    barn.delivered(5).await;
    let about_silent = format!("SELECT count(*) FROM sync_outbox WHERE session_id = '{silent_id}'");
    assert_eq!(barn.db.count(&about_silent).await, 2);
    assert_eq!(barn.cloud.judge().by_event_type.get("weighvision.session.finalized"), Some(&1));
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_station_under_the_same_session_id_is_refused_and_kept() {
    let barn = Barn::start().await;
    let mut device = barn.device("wv-001").await;
    let messages = traffic(0, &mut StdRng::seed_from_u64(1));
    device.put_all(messages[..1].to_vec()).await;
    let topic = messages[1].topic.replace("/st-01/", "/st-02/");
    device.publish(&topic, messages[1].payload.clone()).await;
    let kept = "SELECT count(*) FROM dead_letters WHERE reason = 'SESSION_CONFLICT' AND redriven_at IS NULL";
    assert_eq!(barn.db.count(kept).await, 1);
    assert_eq!(
        barn.db.count("SELECT count(*) FROM ingress_rejects WHERE reason = 'SESSION_CONFLICT'").await,
        1
    );
    // It left no mark: the same event from the right station is taken.
    device.put_all(messages[1..2].to_vec()).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM session_weights WHERE is_bound").await, 1);
    barn.delivered(2).await;
    barn.finish().await;
}

/// Sessions alone, and their directory.
async fn sessions(db: &Database) -> (Sessions, ActorCell) {
    let parts = Parts::new(&Settings::of(&db.url).config()).expect("the settings are right");
    let settings = SessionSettings { dedupe_ttl: TimeDelta::hours(72), finalize_wait: TimeDelta::hours(24) };
    let context = Arc::new(SessionContext::new(
        db.store.clone(),
        parts.clock,
        parts.database,
        parts.stats,
        parts.writers,
        parts.sync.waker(),
        parts.media_wake,
        settings,
    ));
    let limits = DirectorySettings { idle: Duration::from_secs(60), children_max: 10 };
    let sessions = Sessions::default();
    let arguments = (SessionActors(context), limits, sessions.children().clone());
    let (directory, _) =
        Actor::spawn(None, Directory::default(), arguments).await.expect("the directory starts");
    sessions.children().address().set(directory.clone());
    (sessions, directory.get_cell())
}

/// Sends the order with a delivery, and says how that ends.
fn deliver(sessions: &Sessions) -> mpsc::Receiver<Settlement> {
    let (delivery, settled) = delivery();
    sessions.deliver(create_order(), None, delivery);
    settled
}

fn create_order() -> Order {
    let command = Command::Create {
        farm_id: "f-001".into(),
        barn_id: "b-001".into(),
        device_id: "wv-001".into(),
        station_id: "st-01".into(),
        batch_id: None,
    };
    let mark = Mark { topic: "t".into(), hash: "h".into() };
    Order {
        event_id: "e-1".into(),
        trace_id: "tr-1".into(),
        station_id: Some("st-01".into()),
        mark: Some(mark),
        ..Order::own(TENANT, "s-1", command, began_at())
    }
}

/// A delivery, and how it ends.
fn delivery() -> (Delivery, mpsc::Receiver<Settlement>) {
    let message = Message {
        topic: "t".into(),
        parsed: None,
        payload: Default::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        received_at: tokio::time::Instant::now(),
        arrived_at: began_at(),
        identity: None,
        verdict: Verdict::Admitted,
    };
    let (send, settled) = mpsc::channel();
    (
        Delivery::with_callback(message, move |settlement| send.send(settlement).expect("the test listens")),
        settled,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_actor_that_is_killed_within_a_command_hands_it_back() {
    let db = Database::fresh().await;
    let (sessions, directory) = sessions(&db).await;
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('session/{TENANT}/s-1', 0))");
    db.execute(&format!("BEGIN; {lock}")).await;
    let ended = deliver(&sessions);
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    until("the actor is in the middle of its command", async || db.count(waits).await == 1).await;
    directory.get_children().iter().for_each(ActorCell::kill);
    until("the delivery is handed back", async || ended.try_recv() == Ok(Settlement::HandedBack)).await;
    db.execute("COMMIT").await;
    // Before the directory hears of the death, what comes is handed back as well.
    let mut ended = deliver(&sessions);
    until("the delivery is done", async || match ended.try_recv() {
        Ok(Settlement::HandedBack) => {
            ended = deliver(&sessions);
            false
        }
        settlement => settlement == Ok(Settlement::Done),
    })
    .await;
    let created = "SELECT count(*) FROM weight_sessions WHERE status = 'created'";
    assert_eq!(db.count(created).await, 1);
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox").await, 1);
    directory.stop(None);
}
