//! Streams through the router, with a database that is away: everything here is memory.

use std::time::Duration;

use actors::alarm::feed::{NOTICES_MAX, Notice};
use actors::alarm::state::State;
use actors::alarm::way::Class;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use schema::clock::{Clock, Timestamp};
use schema::id::{Uuid, new_id};
use schema::store::telemetry::Reading;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::super::{AppState, router, tests::state};
use super::places::{STREAMS_MAX, STREAMS_PER_CALLER_MAX, Streams};
use crate::config::{AuthMode, Config, OperatorKey, Role, Secret};

fn key(name: &str, tenants: &[&str]) -> OperatorKey {
    OperatorKey {
        name: Some(name.to_owned()),
        key: Secret::from(name.to_owned()),
        role: Role::Read,
        tenants: tenants.iter().map(|&tenant| tenant.to_owned()).collect(),
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.auth.mode = AuthMode::Jwt;
    config.auth.jwt_secrets = vec![Secret::from("a secret that is as long as it must be".to_owned())];
    config.auth.operator_keys = vec![key("one", &["t-1"]), key("two", &["t-2"]), key("all", &["*"])];
    config.media.root = std::env::temp_dir();
    config.media.upload_secret = Some(Secret::from("secret".to_owned()));
    config
}

/// What a test needs of an engine.
struct Engine {
    app: Router,
    board: actors::board::Board,
    places: actors::place::Places,
    feed: actors::alarm::feed::AlarmFeed,
    authority: super::super::CurrentAuthority,
    streams: Streams,
    clock: Clock,
    config: Config,
}

impl Engine {
    fn new() -> Self {
        let config = config();
        let state: AppState = state(&config);
        Self {
            board: state.board.clone(),
            places: state.place_desk.places.clone(),
            feed: state.alarm_feed.clone(),
            authority: state.authority(),
            streams: state.streams.clone(),
            clock: state.clock.clone(),
            config,
            app: router(state),
        }
    }

    fn hear(&self, tenant: &str, barn: &str, device: &str, value: f64) {
        let now = self.clock.now();
        self.board.hear(&[reading(tenant, barn, device, value, now)], now, &self.places);
    }

    async fn open(&self, query: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Reader) {
        let mut request = Request::builder().uri(format!("/api/v1/stream{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = self.app.clone().oneshot(request).await.expect("a router never fails");
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, Reader { body, text: String::new() })
    }

    async fn reader(&self, key: &str) -> Reader {
        let (status, _, reader) = self.open("", &[("x-api-key", key)]).await;
        assert_eq!(status, StatusCode::OK);
        reader
    }
}

fn reading(tenant: &str, barn: &str, device: &str, value: f64, now: Timestamp) -> Reading {
    Reading {
        id: new_id(),
        outbox_id: new_id(),
        tenant_id: tenant.to_owned(),
        farm_id: "f".to_owned(),
        barn_id: barn.to_owned(),
        device_id: device.to_owned(),
        event_id: String::new(),
        metric: "temperature".to_owned(),
        value,
        unit: Some("celsius".to_owned()),
        occurred_at: now,
        trace_id: String::new(),
        topic: String::new(),
        hash: String::new(),
    }
}

fn notice(tenant: &str, place: &str) -> Notice {
    let of = |name: &str| if tenant.is_empty() { String::new() } else { name.to_owned() };
    Notice {
        alarm_id: Uuid::nil(),
        tenant_id: tenant.to_owned(),
        farm_id: of("f"),
        barn_id: of("b"),
        rule_id: "house_hot".to_owned(),
        place: place.to_owned(),
        class: Class::Critical,
        state: State::Unack,
        value: Some(36.0),
        limit: Some(35.0),
        unit: Some("°C".to_owned()),
        happened_at: Timestamp::UNIX_EPOCH,
    }
}

/// Reads events.
struct Reader {
    body: Body,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Reader {
    /// The next event, or `None` at the end. Pings and waits are passed over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    frame
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                if let Some(name) = field("event") {
                    let data = serde_json::from_str(&field("data").expect("data")).expect("JSON");
                    return Some(Event { id: field("id"), name, data });
                }
            }
            let frame = self.body.frame().await?.expect("it does not fail");
            let bytes = frame.into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    /// The next event of a name.
    async fn named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.name == name {
                return event;
            }
        }
    }
}

fn devices(event: &Event) -> Vec<&str> {
    let entries = event.data["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["device_id"].as_str().expect("an id")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_all_values_and_goes_on_with_what_changed() {
    let engine = Engine::new();
    engine.hear("t-1", "b", "d-1", 25.0);
    engine.hear("t-1", "b", "d-2", 26.0);
    engine.hear("t-2", "b", "d-9", 99.0);
    let (status, headers, mut reader) = engine.open("", &[("x-api-key", "one")]).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"text/event-stream".parse().expect("a value"))
    );
    assert_eq!(headers["cache-control"], "no-store");
    let first = reader.named("board").await;
    assert_eq!((devices(&first), &first.data["full"]), (vec!["d-1", "d-2"], &Value::Bool(true)));
    let entry = &first.data["entries"][0];
    assert_eq!(
        (&entry["unit"], &entry["quality"], &entry["source"]),
        (&"celsius".into(), &"pass".into(), &"live".into())
    );
    engine.hear("t-2", "b", "d-9", 98.0);
    engine.hear("t-1", "b", "d-2", 27.0);
    engine.hear("t-1", "b", "d-2", 28.0);
    let asked = Instant::now();
    let next = reader.named("board").await;
    assert_eq!((devices(&next), &next.data["entries"][0]["value"]), (vec!["d-2"], &28.0.into()));
    assert!(asked.elapsed() <= Duration::from_secs(2));
    assert_eq!(next.data["full"], false);
    // Nothing changes: nothing but pings is told, one in fifteen seconds.
    assert!(timeout(Duration::from_secs(100), reader.named("board")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_told_at_once_and_to_whom_it_concerns() {
    let engine = Engine::new();
    let mut readers = Vec::new();
    for (query, key) in [("", "one"), ("", "two"), ("?barn_id=x", "one"), ("?tenant_id=t-1", "all")] {
        let (status, _, mut reader) = engine.open(query, &[("x-api-key", key)]).await;
        assert_eq!(status, StatusCode::OK);
        reader.named("board").await;
        readers.push(reader);
    }
    let at = Instant::now();
    engine.feed.tell(notice("", "disk"));
    engine.feed.tell(notice("t-1", "d-1"));
    let alarm = readers[0].named("alarm").await;
    assert_eq!((&alarm.data["place"], &alarm.data["state"]), (&"d-1".into(), &"UNACK".into()));
    assert_eq!(at.elapsed(), Duration::ZERO, "it waits for no tick");
    let places = [readers[3].named("alarm").await, readers[3].named("alarm").await];
    assert_eq!(places.map(|event| event.data["place"].clone()), ["disk", "d-1"], "who sees all sees the box");
    for reader in &mut readers[1..3] {
        assert!(timeout(Duration::from_secs(5), reader.named("alarm")).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_hears_what_was_missed_or_that_it_cannot_be_told() {
    let engine = Engine::new();
    engine.hear("t-1", "b", "d-1", 25.0);
    engine.hear("t-1", "b", "d-2", 25.0);
    let mut reader = engine.reader("one").await;
    let seen = reader.named("board").await.id.expect("an id");
    drop(reader);
    engine.hear("t-1", "b", "d-2", 26.0);
    engine.feed.tell(notice("t-1", "missed"));
    let back = async |seen: &str| {
        let (_, _, mut reader) = engine.open("", &[("x-api-key", "one"), ("last-event-id", seen)]).await;
        let mut told = Vec::new();
        loop {
            let event = reader.next().await.expect("it goes on");
            let is_board = event.name == "board";
            told.push(event);
            if is_board {
                return told;
            }
        }
    };
    let told = back(&seen).await;
    assert_eq!(told.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["alarm", "board"]);
    assert_eq!((devices(&told[1]), &told[1].data["full"]), (vec!["d-2"], &Value::Bool(false)));
    for odd in ["00000000.1.1", "nonsense", ""] {
        let told = back(odd).await;
        if odd.is_empty() {
            continue;
        }
        assert_eq!((&*told[0].name, &told[0].data["reason"]), ("resync", &"restart".into()), "{odd}");
        assert_eq!(devices(&told[1]), ["d-1", "d-2"], "and then everything is told");
    }
    for number in 0..NOTICES_MAX + 1 {
        engine.feed.tell(notice("t-1", &number.to_string()));
    }
    let told = back(&seen).await;
    assert_eq!((&*told[0].name, &told[0].data["reason"]), ("resync", &"gap".into()));
}

#[tokio::test(start_paused = true)]
async fn many_values_are_several_events_and_each_id_goes_on_where_it_ends() {
    let engine = Engine::new();
    for number in 0..450 {
        engine.hear("t-1", "b", &format!("d-{number:03}"), 25.0);
    }
    let mut reader = engine.reader("one").await;
    let first = reader.named("board").await;
    assert_eq!(devices(&first).len(), super::ENTRIES_PER_EVENT_MAX);
    let rest = [reader.named("board").await, reader.named("board").await];
    assert_eq!(rest.each_ref().map(|event| devices(event).len()), [200, 50]);
    drop(reader);
    let id = first.id.expect("an id");
    let (_, _, mut reader) = engine.open("", &[("x-api-key", "one"), ("last-event-id", &id)]).await;
    let next = reader.named("board").await;
    assert_eq!(devices(&next), devices(&rest[0]));
}

#[tokio::test(start_paused = true)]
async fn a_removed_operator_hears_the_end_and_others_go_on() {
    let engine = Engine::new();
    let (mut one, mut two) = (engine.reader("one").await, engine.reader("two").await);
    one.named("board").await;
    two.named("board").await;
    let mut config = engine.config.clone();
    config.auth.operator_keys.retain(|key| key.name.as_deref() != Some("one"));
    let removed_at = Instant::now();
    engine.authority.replace(&config.auth).expect("no key files");
    let end = one.named("end").await;
    assert_eq!(end.data["reason"], "removed");
    assert!(removed_at.elapsed() < Duration::from_secs(1));
    assert_eq!(one.next().await, None);
    engine.hear("t-2", "b", "d-1", 25.0);
    assert_eq!(devices(&two.named("board").await), ["d-1"]);
    // Other rights are another operator.
    config.auth.operator_keys.iter_mut().for_each(|key| key.tenants = vec!["t-1".to_owned()]);
    engine.authority.replace(&config.auth).expect("no key files");
    assert_eq!(two.named("end").await.data["reason"], "removed");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_dropped_with_a_reason_and_holds_nobody_up() {
    let engine = Engine::new();
    for number in 0..3000 {
        engine.hear("t-1", "b", &format!("d-{number:04}"), 25.0);
    }
    let mut slow = engine.reader("one").await;
    let mut quick = engine.reader("one").await;
    for _ in 0..3000 / super::ENTRIES_PER_EVENT_MAX {
        quick.named("board").await;
    }
    tokio::time::sleep(super::STALLED_MAX + Duration::from_secs(1)).await;
    engine.hear("t-1", "b", "d-0000", 26.0);
    assert_eq!(devices(&quick.named("board").await), ["d-0000"]);
    let mut told = Vec::new();
    while let Some(event) = slow.next().await {
        told.push(event);
    }
    let last = told.pop().expect("an end");
    assert_eq!((&*last.name, &last.data["reason"]), ("end", &"slow".into()));
    assert!(told.len() <= super::EVENTS_WAITING_MAX, "{}", told.len());
    drop(slow);
    assert_eq!(engine.streams.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_ten_minutes_and_frees_its_place() {
    let engine = Engine::new();
    let mut reader = engine.reader("one").await;
    let opened_at = Instant::now();
    assert_eq!(reader.named("end").await.data["reason"], "renew");
    assert_eq!(opened_at.elapsed().as_secs(), super::STREAM_MAX.as_secs());
    assert_eq!(reader.next().await, None);
    drop(reader);
    assert_eq!(engine.streams.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_for_each_caller_and_in_all() {
    let engine = Engine::new();
    let mut readers = Vec::new();
    for _ in 0..STREAMS_PER_CALLER_MAX {
        readers.push(engine.reader("one").await);
    }
    let (status, headers, _) = engine.open("", &[("x-api-key", "one")]).await;
    assert_eq!((status, headers.contains_key("retry-after")), (StatusCode::TOO_MANY_REQUESTS, true));
    drop(readers.pop());
    readers.push(engine.reader("one").await);
    let mut config = engine.config.clone();
    config.auth.operator_keys.extend((0..4).map(|number| key(&format!("more-{number}"), &["t-1"])));
    engine.authority.replace(&config.auth).expect("no key files");
    let mut number = 0;
    while readers.len() < STREAMS_MAX {
        let key = format!("more-{}", number / STREAMS_PER_CALLER_MAX);
        readers.push(engine.reader(&key).await);
        number += 1;
    }
    let (status, ..) = engine.open("?tenant_id=t-1", &[("x-api-key", "all")]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(readers);
    assert_eq!(engine.streams.open(), 0);
    engine.reader("two").await;
}

#[tokio::test]
async fn a_stream_needs_a_credential_and_one_tenant() {
    let engine = Engine::new();
    for (query, headers, expected) in [
        ("", vec![], StatusCode::UNAUTHORIZED),
        ("?tenant_id=t-2", vec![("x-api-key", "one")], StatusCode::FORBIDDEN),
        ("", vec![("x-api-key", "all")], StatusCode::BAD_REQUEST),
        ("?barn_id=a%2Fb", vec![("x-api-key", "one")], StatusCode::BAD_REQUEST),
    ] {
        let (status, ..) = engine.open(query, &headers).await;
        assert_eq!(status, expected, "{query} {headers:?}");
    }
    assert_eq!(engine.streams.open(), 0);
}
