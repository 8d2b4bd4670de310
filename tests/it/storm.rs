//! A hundred thousand messages nobody should send: each is refused or stored, and nothing stops.

use loadtest::mqtt::Publish;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::barn::{admit, check_ledger};
use tests::device::{Device, TENANT, at_least_once, envelope, new_event_id, reading};
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tokio::task::JoinSet;

/// Connections that storm.
const CONNECTIONS: u64 = 4;
/// Messages of each; together 100,000.
const MESSAGES: usize = 25_000;
/// Longest topic and body that are made up from nothing.
const MADE_UP_MAX: usize = 400;

/// What real devices send, as something to be spoilt.
fn models() -> Vec<(String, String)> {
    let session =
        |event_type: &str| format!("iot/weighvision/{TENANT}/f-001/b-001/st-01/session/s-1/{event_type}");
    let with = |event_type: &str, payload| {
        let mut body = envelope("d-1", "e-1", event_type);
        body["payload"] = payload;
        body.to_string()
    };
    vec![
        (format!("iot/telemetry/{TENANT}/f-001/b-001/d-1/temperature"), with("telemetry.reading", json!({"value": 26.4, "unit": "celsius"}))),
        (format!("iot/telemetry/{TENANT}/f-001/b-001/d-1/humidity"), json!({"event_id": "e-2", "tenant_id": TENANT, "device_id": "d-1", "farm_id": "f-001", "value": 60, "ts": "2026-02-12T09:00:00+00:00"}).to_string()),
        (format!("iot/event/{TENANT}/f-001/b-001/d-1/door_opened"), with("door_opened", json!({"door": [1, 2, {"three": null}]}))),
        (format!("iot/status/{TENANT}/f-001/b-001/d-1"), json!({"device_id": "d-1", "status": "online", "message": "\u{e9}"}).to_string()),
        (session("weighvision.weight.recorded"), with("weighvision.weight.recorded", json!({"weightKg": 0.2}))),
        (session("weighvision.image.captured"), with("weighvision.image.captured", json!({"media_id": "m-1", "size_bytes": 5}))),
    ]
}

/// Spoils a message in one of many ways, or makes one up.
fn spoil(models: &[(String, String)], random: &mut StdRng) -> Publish {
    let (topic, body) = models.choose(random).expect("there are models");
    let topic = if random.random_ratio(1, 4) { spoilt_topic(topic, random) } else { topic.clone() };
    let body = match random.random_range(0..8) {
        0 => made_up(random),
        1 => body.as_bytes()[..random.random_range(0..=body.len())].to_vec(),
        2 => nested(random),
        3 => [body.as_bytes(), &made_up(random)].concat(),
        4 => replaced(body, random).into_bytes(),
        // A new event, so that some of the storm is stored.
        5 => body.replace("e-1", &new_event_id()).into_bytes(),
        _ => flipped(body, random),
    };
    Publish { is_retained: random.random_ratio(1, 50), ..at_least_once(&topic, body) }
}

fn made_up(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(0..MADE_UP_MAX);
    (0..length).map(|_| random.random()).collect()
}

fn nested(random: &mut StdRng) -> Vec<u8> {
    let depth = random.random_range(1..2000);
    let (open, close) = *[("[", "]"), (r#"{"payload":"#, "}")].choose(random).expect("not empty");
    [open.repeat(depth), "1".to_owned(), close.repeat(depth)].concat().into_bytes()
}

fn flipped(body: &str, random: &mut StdRng) -> Vec<u8> {
    let mut body = body.as_bytes().to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..body.len());
        match random.random_range(0..3) {
            0 => body[at] = random.random(),
            1 => body.insert(at, random.random()),
            _ => drop(body.remove(at)),
        }
    }
    body
}

/// Puts something unlikely in the place of a value.
fn replaced(body: &str, random: &mut StdRng) -> String {
    let unlikely = [
        "null",
        "{}",
        "[]",
        "-0.0",
        "1e308",
        "18446744073709551616",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "true",
        "\"9999-12-31T23:59:59Z\"",
        "\"0001-01-01T00:00:00+23:59\"",
        "\"BE6EAD4E-49B4-4366-A96B-EDF9725F68BF\"",
    ];
    let old = ["\"1.0\"", "\"e-1\"", "\"t-001\"", "\"d-1\"", "26.4", "\"celsius\"", "\"tr-1\"", "0.2", "60"];
    let (old, new) = (old.choose(random).expect("not empty"), unlikely.choose(random).expect("not empty"));
    body.replace(old, new)
}

/// A topic MQTT allows: at least one character, no wildcard, no NUL.
fn spoilt_topic(topic: &str, random: &mut StdRng) -> String {
    let spoilt: String = match random.random_range(0..4) {
        0 => (0..random.random_range(1..MADE_UP_MAX)).map(|_| random.random::<char>()).collect(),
        1 => topic
            .split('/')
            .map(|part| if random.random_ratio(1, 5) { "\u{e9}/" } else { part })
            .collect::<Vec<_>>()
            .join("/"),
        2 => format!("/{topic}//"),
        _ => topic.chars().rev().collect(),
    };
    let allowed =
        |c: &char| !matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '+' | '#') && !is_noncharacter(*c);
    let spoilt: String = spoilt.chars().filter(allowed).collect();
    if spoilt.is_empty() { "x".to_owned() } else { spoilt }
}

/// Code points that MQTT lets a server close the connection for.
fn is_noncharacter(c: char) -> bool {
    let point = u32::from(c);
    (0xFDD0..=0xFDEF).contains(&point) || point & 0xFFFE == 0xFFFE
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_spoilt_messages_stop_nothing() {
    let db = Database::fresh().await;
    admit(&db).await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    let mqtt = engine.settings.mqtt;
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut storms = JoinSet::new();
    for number in 0..CONNECTIONS {
        storms.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
            let models = models();
            let mut device = Device::connect(mqtt, &format!("storm-{number}")).await;
            let messages: Vec<_> = (0..MESSAGES).map(|_| spoil(&models, &mut random)).collect();
            device.put_all(messages).await;
        });
    }
    while let Some(ended) = storms.join_next().await {
        ended.expect("every message is acknowledged");
    }
    assert!(engine.is_alive());
    assert_eq!(engine.metric("engine_restarts", "").await, 0.0);
    assert!(!engine.log().contains("panicked"), "something panicked");
    let stats = engine.json("/api/v1/ingress/stats").await;
    let counters = ["messages_total", "messages_invalid_total", "messages_deduped_total"]
        .map(|name| stats[name].clone());
    println!("messages, invalid, deduped: {counters:?}");
    let sent = MESSAGES as u64 * CONNECTIONS;
    let counted = stats["messages_total"].as_u64().expect("a number");
    assert_eq!(counted, sent, "an empty retained status is received as well");
    let event_id = new_event_id();
    Device::connect(mqtt, "d-2").await.put(&reading("d-2", &event_id)).await;
    assert_eq!(
        db.count(&format!("SELECT count(*) FROM telemetry_raw WHERE event_id = '{event_id}'")).await,
        1
    );
    assert_eq!(engine.terminate().await.code, Some(0));
    let line = check_ledger(&db).await;
    assert_eq!(line.received, i64::try_from(sent + 1).expect("a count"), "each has a state: {line:?}");
}
