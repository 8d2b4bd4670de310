//! The pretend cloud, seen from the wire.

use bytes::Bytes;
use chrono::DateTime;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use schema::clock::Clock;

use super::*;
use crate::http;

const BATCH_ID: &str = "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f";

struct Edge {
    cloud: PretendCloud,
}

impl Edge {
    async fn start(settings: Settings) -> Self {
        Self { cloud: PretendCloud::start(settings).await.unwrap() }
    }

    async fn new() -> Self {
        Self::start(Settings::default()).await
    }

    fn base(&self) -> String {
        format!("http://{}", self.cloud.address())
    }

    fn headers(&self) -> hyper::http::request::Builder {
        Request::post(BATCH_PATH)
            .header("host", "cloud")
            .header("content-type", "application/json")
            .header("x-tenant-id", "t-001")
            .header("x-request-id", BATCH_ID)
            .header("x-trace-id", BATCH_ID)
            .header("x-idempotency-key", BATCH_ID)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, Value)> {
        let (status, body) = http::call(&self.base(), request).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    async fn post(&self, events: &[Value]) -> (u16, Value) {
        let body = batch(events).to_string();
        self.send(self.headers().body(Full::from(body)).unwrap()).await.unwrap()
    }

    fn kinds(&self) -> Vec<String> {
        self.cloud.judge().violations.into_iter().map(|violation| violation.kind).collect()
    }
}

fn batch(events: &[Value]) -> Value {
    json!({"tenant_id": "t-001", "edge_id": "barn-7", "sent_at": "2026-02-12T09:32:30.000Z", "events": events})
}

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn event(number: u32, event_type: &str, second: u32) -> Value {
    let event_id = id(number);
    json!({"event_id": event_id, "event_type": event_type, "tenant_id": "t-001", "farm_id": "f", "barn_id": "b",
        "device_id": "d-001", "occurred_at": format!("2026-02-12T09:32:{second:02}.000Z"), "trace_id": "tr",
        "schema_version": "1.0", "payload": {"metric_type": "temperature", "metric_value": 26.4},
        "idempotency_key": format!("t-001:{event_id}")})
}

fn reading(number: u32, second: u32) -> Value {
    event(number, "telemetry.ingested", second)
}

fn of_session(number: u32, event_type: &str, second: u32) -> Value {
    let mut event = event(number, event_type, second);
    event["session_id"] = json!("s-1");
    event
}

#[tokio::test]
async fn a_good_batch_is_accepted_once_and_then_duplicated() {
    let edge = Edge::new().await;
    let events = [reading(1, 1), reading(2, 1)];
    let first = edge.post(&events).await;
    assert_eq!(first, (200, json!({"accepted": 2, "duplicated": 0, "rejected": 0})));
    let second = edge.post(&events).await;
    assert_eq!(second, (200, json!({"accepted": 0, "duplicated": 2, "rejected": 0})));
    let verdict = edge.cloud.judge();
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.received_batches, verdict.lanes), (2, 1));
    assert_eq!(verdict.by_event_type.get("telemetry.ingested"), Some(&2));
    let mut ids = edge.cloud.ids("t-001");
    ids.sort();
    assert_eq!(ids, [id(1), id(2)]);
}

#[tokio::test]
async fn an_incomplete_event_is_rejected_by_name_and_the_others_are_taken() {
    let edge = Edge::new().await;
    let mut incomplete = reading(1, 1);
    incomplete["farm_id"] = json!("");
    let (status, answer) = edge.post(&[incomplete, reading(2, 1)]).await;
    assert_eq!(status, 200);
    assert_eq!(answer["errors"], json!([{"event_id": id(1), "error": "Missing farm_id"}]));
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(edge.kinds(), ["incomplete"]);
}

#[tokio::test]
async fn malformed_batches_are_refused_and_recorded() {
    let edge = Edge::new().await;
    let whole = batch(&[reading(1, 1)]).to_string();
    let check = async |request: Request<Full<Bytes>>| {
        let (status, answer) = edge.send(request).await.unwrap();
        assert_eq!(status, 400, "{answer}");
    };
    for body in ["", "[]", "{}", r#"{"tenant_id":"t-001","events":{}}"#, r#"{"tenant_id":"","events":[]}"#] {
        check(edge.headers().body(Full::from(body)).unwrap()).await;
    }
    for (name, value) in [("x-tenant-id", "t-002"), ("content-type", "text/plain"), ("x-trace-id", "other")] {
        let mut request = edge.headers().body(Full::from(whole.clone())).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        check(request).await;
    }
    assert_eq!(edge.kinds(), ["malformed_batch"; 8]);
    assert_eq!(edge.cloud.judge().accepted, 0);
}

#[tokio::test]
async fn a_null_element_is_fatal() {
    let edge = Edge::new().await;
    let request = edge.headers().body(Full::from(batch(&[Value::Null]).to_string())).unwrap();
    assert!(edge.send(request).await.is_err(), "the process would have exited");
    assert_eq!(edge.kinds(), ["fatal_null_event"]);
}

#[tokio::test]
async fn a_body_above_ten_megabytes_is_refused() {
    let edge = Edge::new().await;
    let request = edge.headers().body(Full::from(vec![b' '; 10 * 1024 * 1024 + 1])).unwrap();
    assert_eq!(edge.send(request).await.unwrap().0, 413);
    assert_eq!(edge.kinds(), ["body_too_large"]);
}

#[tokio::test]
async fn a_lane_must_not_go_back() {
    let edge = Edge::new().await;
    edge.post(&[reading(1, 5), reading(2, 4)]).await;
    assert_eq!(edge.kinds(), ["batch_order", "lane_order"]);
    edge.cloud.reset();
    edge.post(&[reading(1, 5)]).await;
    edge.post(&[reading(2, 4)]).await;
    assert_eq!(edge.kinds(), ["lane_order"]);
    edge.cloud.reset();
    let mut other = reading(2, 4);
    other["device_id"] = json!("d-002");
    edge.post(&[reading(1, 5), other]).await;
    assert_eq!(edge.kinds(), [""; 0]);
}

#[tokio::test]
async fn a_resent_batch_is_no_step_back() {
    let edge = Edge::new().await;
    edge.post(&[reading(1, 1)]).await;
    edge.post(&[reading(2, 2)]).await;
    edge.post(&[reading(1, 1), reading(2, 2), reading(3, 3)]).await;
    assert_eq!(edge.kinds(), [""; 0]);
}

#[tokio::test]
async fn late_events_are_only_counted_when_they_are_tolerated() {
    let edge = Edge::start(Settings { tolerates_late: true, ..Settings::default() }).await;
    edge.post(&[reading(1, 5)]).await;
    edge.post(&[reading(2, 4)]).await;
    assert_eq!(edge.kinds(), [""; 0]);
    assert_eq!(edge.cloud.judge().late, 1);
}

#[tokio::test]
async fn a_session_ends_only_after_its_start_was_acknowledged() {
    let created = || of_session(1, "weighvision.session.created", 1);
    let finalized = || of_session(2, "weighvision.session.finalized", 2);
    let check = async |batches: &[&[Value]], expected: &[&str]| {
        let edge = Edge::new().await;
        for events in batches {
            edge.post(events).await;
        }
        assert_eq!(edge.kinds(), expected, "{batches:?}");
    };
    check(&[&[created()], &[finalized()]], &[]).await;
    check(&[&[created(), finalized()]], &["ahead_of_created"]).await;
    check(&[&[finalized()], &[created()]], &["ahead_of_created"]).await;
    check(&[&[of_session(3, "weighvision.session.amended", 3)]], &["ahead_of_created"]).await;
    let twice = of_session(4, "weighvision.session.created", 1);
    check(&[&[created()], &[twice]], &["second_created"]).await;
    let twice = of_session(4, "weighvision.session.finalized", 2);
    check(&[&[created()], &[finalized()], &[twice]], &["second_finalized"]).await;
    // An image stored before the session began, and a weight as old as the session, are no steps back.
    let early = of_session(5, "media.stored", 9);
    let weight = of_session(6, "weighvision.weight.recorded", 0);
    check(&[&[early], &[created(), weight]], &[]).await;
}

#[tokio::test]
async fn modes_switch_at_run_time() {
    let edge = Edge::new().await;
    let check = async |mode: Mode, status: u16| {
        edge.cloud.mode(mode.clone()).await;
        assert_eq!(edge.post(&[reading(1, 1)]).await.0, status, "{mode:?}");
    };
    check(Mode::Unavailable, 503).await;
    check(Mode::Unauthorized, 401).await;
    check(Mode::Forbidden, 403).await;
    check(Mode::NotFound, 404).await;
    check(Mode::Throttled { retry_after: Some("2".into()) }, 429).await;
    check(Mode::Status { code: 408 }, 408).await;
    check(Mode::Redirect, 302).await;
    check(Mode::TooLarge { bytes_max: 100 }, 413).await;
    check(Mode::Poison { ids: [id(1)].into() }, 400).await;
    assert_eq!(edge.cloud.judge().accepted, 0);
    check(Mode::Poison { ids: [id(9)].into() }, 200).await;
    edge.cloud.mode(Mode::Captive).await;
    let (status, answer) = edge.post(&[reading(2, 2)]).await;
    assert_eq!((status, answer), (200, Value::Null), "a captive portal answers no JSON");
    edge.cloud.mode(Mode::BareOk).await;
    assert_eq!(edge.post(&[reading(2, 2)]).await, (200, json!({"ok": true})));
}

#[tokio::test]
async fn an_empty_batch_passes_unless_everything_is_refused() {
    let edge = Edge::new().await;
    edge.cloud.mode(Mode::Poison { ids: [id(1)].into() }).await;
    assert_eq!(edge.post(&[]).await, (200, json!({"accepted": 0, "duplicated": 0, "rejected": 0})));
    edge.cloud.mode(Mode::Poison { ids: [].into() }).await;
    assert_eq!(edge.post(&[]).await.0, 400);
}

#[tokio::test]
async fn rejections_are_told_by_name_without_name_or_by_number_only() {
    let edge = Edge::new().await;
    let ids: std::collections::HashMap<_, _> = [(id(1), "broker down".to_owned())].into();
    edge.cloud.mode(Mode::RejectIds { ids: ids.clone(), marks: false }).await;
    let rejected = json!({"accepted": 1, "duplicated": 0, "rejected": 1,
        "errors": [{"event_id": id(1), "error": "broker down"}]});
    assert_eq!(edge.post(&[reading(1, 1), reading(2, 2)]).await, (200, rejected.clone()));
    edge.cloud.mode(Mode::RejectIds { ids, marks: true }).await;
    assert_eq!(edge.post(&[reading(1, 1)]).await.1["rejected"], 1);
    assert_eq!(edge.post(&[reading(1, 1)]).await.1["duplicated"], 1, "it was marked");
    assert_eq!(edge.cloud.ids("t-001"), [id(2)], "nobody has it");
    edge.cloud.mode(Mode::RejectWithoutIds).await;
    let (_, answer) = edge.post(&[reading(3, 3)]).await;
    assert_eq!(answer["errors"], json!([{"error": "publish failed"}]));
    edge.cloud.mode(Mode::CountMismatch).await;
    let (_, answer) = edge.post(&[reading(4, 4)]).await;
    assert_eq!((&answer["rejected"], answer.get("errors")), (&json!(1), None));
    assert_eq!(edge.kinds(), [""; 0]);
}

#[tokio::test]
async fn a_lost_answer_is_a_batch_taken() {
    let edge = Edge::new().await;
    edge.cloud.mode(Plan { requests: Some(1), ..Mode::LoseAnswer.into() }).await;
    let request = edge.headers().body(Full::from(batch(&[reading(1, 1)]).to_string())).unwrap();
    assert!(edge.send(request).await.is_err());
    assert_eq!(edge.cloud.judge().accepted, 1);
    assert_eq!(edge.post(&[reading(1, 1)]).await.1["duplicated"], 1);
}

#[tokio::test]
async fn a_refusing_cloud_comes_back_on_the_same_port() {
    let edge = Edge::new().await;
    for round in 1..=3 {
        edge.cloud.mode(Mode::Refuse).await;
        let refused = TcpStream::connect(edge.cloud.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        edge.cloud.mode(Mode::Ok).await;
        assert_eq!(edge.post(&[reading(round, round)]).await.1["accepted"], 1);
    }
}

#[tokio::test]
async fn a_hanging_request_is_cut_when_the_mode_changes() {
    let edge = Edge::new().await;
    edge.cloud.mode(Mode::Hang).await;
    let request = edge.headers().body(Full::from(batch(&[]).to_string())).unwrap();
    let (hanging, ()) = tokio::join!(edge.send(request), async {
        // The request is on its way once the port has taken a connection; a later one is simply answered.
        tokio::task::yield_now().await;
        edge.cloud.mode(Mode::Unavailable).await;
    });
    assert!(hanging.map_or(true, |(status, _)| status == 503));
}

#[tokio::test]
async fn signed_batches_are_taken_once() {
    let now = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    let auth = Auth::Hmac(vec!["secret".to_owned()]);
    let edge = Edge::start(Settings { auth, clock: Clock::manual(now), ..Settings::default() }).await;
    let body = r#"{"tenant_id":"t-001","events":[]}"#;
    let request = || {
        edge.headers()
            .header("x-edge-timestamp", "1700000000000")
            .header(
                "x-edge-signature",
                "sha256=b54951f15c8f9ba78701cd872958c1249fcd5f5e8d6a13fc1bd247d422196fc3",
            )
            .body(Full::from(body))
            .unwrap()
    };
    assert_eq!(edge.send(request()).await.unwrap().0, 200);
    let (status, answer) = edge.send(request()).await.unwrap();
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("HMAC_REPLAY_DETECTED")));
    let mut late = request();
    late.headers_mut().insert("x-edge-timestamp", "1700000400000".parse().unwrap());
    let (_, answer) = edge.send(late).await.unwrap();
    assert_eq!(answer["error"]["code"], "HMAC_TIMESTAMP_OUT_OF_WINDOW");
    assert_eq!(
        (&answer["skewMs"], &answer["serverTime"]),
        (&json!(400_000), &json!("2023-11-14T22:13:20.000Z"))
    );
}

#[tokio::test]
async fn the_handshake_and_the_dedupe_list_tell_what_the_contract_says() {
    let edge = Edge::start(Settings { auth: Auth::ApiKey("k".into()), ..Settings::default() }).await;
    let get = |path: &str, key: &str| {
        Request::get(path).header("host", "cloud").header("x-api-key", key).body(Full::default()).unwrap()
    };
    assert_eq!(edge.send(get(HANDSHAKE_PATH, "wrong")).await.unwrap().0, 401);
    let (status, answer) = edge.send(get(HANDSHAKE_PATH, "k")).await.unwrap();
    assert_eq!((status, &answer["ok"], &answer["auth_mode"]), (200, &json!(true), &json!("api_key")));
    let mut request =
        edge.headers().body(Full::from(batch(&[reading(1, 1), reading(2, 2)]).to_string())).unwrap();
    request.headers_mut().insert("x-api-key", "k".parse().unwrap());
    edge.send(request).await.unwrap();
    let path = format!("{DEDUPE_PATH}?tenant_id=t-001&limit=1");
    let (_, answer) = edge.send(get(&path, "k")).await.unwrap();
    assert_eq!((&answer["count"], &answer["entries"][0]["event_id"]), (&json!(1), &json!(id(2))));
}

#[tokio::test]
async fn accepted_ids_survive_a_restart_in_the_state_file() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { state_file: Some(directory.path().join("ids")), ..Settings::default() };
    let edge = Edge::start(settings.clone()).await;
    edge.post(&[reading(1, 1), of_session(2, "weighvision.session.created", 1)]).await;
    edge.cloud.shutdown().await;
    let edge = Edge::start(settings).await;
    assert_eq!(edge.post(&[reading(1, 1)]).await.1["duplicated"], 1);
    edge.post(&[of_session(3, "weighvision.session.finalized", 2)]).await;
    assert_eq!(edge.kinds(), [""; 0], "the session began before the restart");
}

#[tokio::test]
async fn acknowledged_ids_are_compared_with_what_arrived() {
    let edge = Edge::new().await;
    edge.post(&[reading(1, 1), reading(2, 2)]).await;
    let directory = tempfile::tempdir().unwrap();
    let ids_file = directory.path().join("ids");
    std::fs::write(&ids_file, format!("{}\n{}\n{}\n", id(1), id(1), id(7))).unwrap();
    let settings = crate::verify::Settings {
        ids_file: Some(ids_file),
        cloud: Some(edge.base()),
        ..crate::verify::Settings::default()
    };
    let findings = crate::verify::judge(&settings).await.unwrap();
    assert!(!findings.is_good());
    let differences = findings.first_differences();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].contains(&id(7)), "{differences:?}");
}

#[tokio::test]
async fn the_judge_answers_over_http_while_the_cloud_refuses() {
    let control = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let edge = Edge::start(Settings { control, ..Settings::default() }).await;
    edge.post(&[reading(1, 1)]).await;
    edge.cloud.mode(Mode::Refuse).await;
    let base = format!("http://{}", edge.cloud.control_address().unwrap());
    let get = |path: &str| Request::get(path).header("host", "judge").body(Full::default()).unwrap();
    let (status, body) = http::call(&base, get("/judge")).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_slice::<Verdict>(&body).unwrap().accepted, 1);
    let (_, body) = http::call(&base, get("/judge/events?limit=5")).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()[0]["event_id"], id(1));
    let switch = Request::post("/mode").header("host", "judge").body(Full::from(r#"{"mode":"ok"}"#)).unwrap();
    assert_eq!(http::call(&base, switch).await.unwrap().0, 200);
}
