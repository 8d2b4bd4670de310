//! Events are written as the contract shows them; answers of all kinds are read.

use serde_json::{Value, json};

use super::*;

const ID: Uuid = Uuid::from_u128(0xbe6ead4e_49b4_4366_a96b_edf9725f68bf);

fn row() -> EventRow<'static> {
    EventRow {
        id: ID,
        tenant_id: "t-001",
        farm_id: Some("f-001"),
        barn_id: Some("b-001"),
        device_id: Some("wv-001"),
        station_id: Some("st-01"),
        session_id: Some("20260212_093215"),
        event_type: "weighvision.session.created",
        occurred_at: time::parse("2026-02-12T09:32:15.052269Z").unwrap(),
        trace_id: Some("94f9b9b4-6dd8-439e-9d74-9e8da0db2683"),
        payload_json: r#"{"session_id": "20260212_093215", "start_at": "2026-02-12T09:32:15.052Z"}"#,
    }
}

fn written(row: &EventRow<'_>) -> Result<Value, &'static str> {
    let mut out = String::new();
    write_event(&mut out, row)?;
    Ok(serde_json::from_str(&out).expect("an event is JSON"))
}

#[test]
fn an_event_has_every_field_of_the_contract() {
    let expected = json!({"event_id": "be6ead4e-49b4-4366-a96b-edf9725f68bf", "event_type": "weighvision.session.created",
        "tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001", "station_id": "st-01",
        "session_id": "20260212_093215", "occurred_at": "2026-02-12T09:32:15.052Z",
        "trace_id": "94f9b9b4-6dd8-439e-9d74-9e8da0db2683", "schema_version": "1.0",
        "payload": {"session_id": "20260212_093215", "start_at": "2026-02-12T09:32:15.052Z"},
        "idempotency_key": "t-001:be6ead4e-49b4-4366-a96b-edf9725f68bf"});
    assert_eq!(written(&row()), Ok(expected));
}

#[test]
fn what_a_row_lacks_is_left_out_or_replaced() {
    let sparse = EventRow { device_id: Some(""), session_id: None, trace_id: Some(""), ..row() };
    let event = written(&sparse).unwrap();
    assert_eq!(event.get("device_id"), None);
    assert_eq!(event.get("session_id"), None);
    assert_eq!(event["trace_id"], "trace-be6ead4e-49b4-4366-a96b-edf9725f68bf");
}

#[test]
fn station_and_schema_version_may_come_from_the_payload() {
    let check = |payload_json: &str, station: Option<&str>, version: &str| {
        let event = written(&EventRow { station_id: None, payload_json, ..row() }).unwrap();
        assert_eq!(event.get("station_id").and_then(Value::as_str), station, "{payload_json}");
        assert_eq!(event["schema_version"], version, "{payload_json}");
    };
    check(r#"{"station_id": "s-1", "stationId": "s-2"}"#, Some("s-1"), "1.0");
    check(r#"{"station_id": "", "stationId": "s-2"}"#, Some("s-2"), "1.0");
    check(r#"{"station_id": 7, "schema_version": "2.0"}"#, None, "2.0");
    check(r#"{"schema_version": 2, "note": "\"station_id\""}"#, None, "1.0");
    check(r#"["station_id"]"#, None, "1.0");
    check("{}", None, "1.0");
}

#[test]
fn a_row_that_the_cloud_would_refuse_is_named_before_it_is_sent() {
    let check = |row: EventRow<'_>, expected: &'static str| {
        let mut out = String::from("before");
        assert_eq!(write_event(&mut out, &row), Err(expected));
        assert_eq!(out, "before");
    };
    check(EventRow { event_type: "", ..row() }, "Missing event_type");
    check(EventRow { tenant_id: "", ..row() }, "Missing tenant_id");
    check(EventRow { farm_id: None, barn_id: None, ..row() }, "Missing farm_id");
    check(EventRow { barn_id: Some(""), ..row() }, "Missing barn_id");
    check(EventRow { device_id: None, station_id: None, ..row() }, "Missing device_id or station_id");
    check(EventRow { payload_json: r#"{"schema_version": ""}"#, ..row() }, "Missing schema_version");
    for payload_json in ["null", "0", "0.00", "false", "\"\""] {
        check(EventRow { payload_json, ..row() }, "Missing payload");
    }
    for payload_json in ["{}", "[]", "0.5", "-1", "true", "\"0\""] {
        assert!(written(&EventRow { payload_json, ..row() }).is_ok(), "{payload_json}");
    }
}

#[test]
fn a_body_is_json_for_any_text_and_its_frame_has_the_predicted_size() {
    let mut event = String::new();
    write_event(&mut event, &EventRow { trace_id: Some("a\"b\\c\u{1}d"), ..row() }).unwrap();
    let text = body("t\"1", "barn-7", row().occurred_at, [event.as_str(), event.as_str()]);
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["tenant_id"], "t\"1");
    assert_eq!(parsed["edge_id"], "barn-7");
    assert_eq!(parsed["sent_at"], "2026-02-12T09:32:15.052Z");
    assert_eq!(parsed["events"][1]["trace_id"], "a\"b\\c\u{1}d");
    assert_eq!(text.len(), frame_bytes("t\"1", "barn-7") + 2 * event.len() + 1);
}

#[test]
fn answers_are_read_in_every_form() {
    let check = |body: &str, expected: Option<Receipt>| {
        assert_eq!(Receipt::read(body.as_bytes()), expected, "{body}")
    };
    let error = |event_id, error: &str| EventError { event_id, error: error.to_owned() };
    check("", None);
    check("<html>", None);
    check("[]", None);
    check("{}", Some(Receipt::default()));
    check(r#"{"accepted":1,"rejected":null}"#, Some(Receipt::default()));
    check(
        r#"{"accepted":1,"duplicated":2,"rejected":0}"#,
        Some(Receipt { duplicated: 2, rejected: Some(0), errors: vec![] }),
    );
    check(
        r#"{"rejected":"1","errors":[{"event_id":"be6ead4e-49b4-4366-a96b-edf9725f68bf","error":"Missing farm_id"},{"error":"x"},7]}"#,
        Some(Receipt {
            duplicated: 0,
            rejected: Some(UNREADABLE_COUNT),
            errors: vec![
                error(Some(ID), "Missing farm_id"),
                error(None, "x"),
                error(None, "rejected without a text"),
            ],
        }),
    );
}
