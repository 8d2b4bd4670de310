//! The judgment as a table: fields, scope, allowlist, payload.

use serde_json::json;

use super::*;
use crate::config::Role;
use crate::http::auth::{Caller, Operator, Tenants};
use crate::http::frame::CallIds;

fn event(changes: &Value) -> Value {
    let mut event = json!({"event_id": "e-1", "tenant_id": "t-1", "device_id": "d-1", "event_type": "x",
        "ts": "2026-02-12T09:00:00Z", "payload": {"value": 1.5}});
    for (name, value) in changes.as_object().expect("changes are an object") {
        event[name] = value.clone();
    }
    event
}

fn call(caller: Caller) -> Call {
    let ids = CallIds { request_id: "r".into(), trace_id: "trace".into(), is_trace_given: true };
    Call { caller, tenant_header: None, ids, peer: None }
}

fn token(farm_id: Option<&str>) -> Caller {
    Caller::Device(Scope {
        tenant_id: "t-1".into(),
        device_id: "d-1".into(),
        farm_id: farm_id.map(str::to_owned),
        ..Scope::default()
    })
}

fn row(farm_id: Option<&str>, barn_id: Option<&str>) -> Allowed {
    Allowed {
        tenant_id: "t-1".into(),
        id: "d-1".into(),
        farm_id: farm_id.map(str::to_owned),
        barn_id: barn_id.map(str::to_owned),
        station_id: None,
        is_enabled: true,
        is_pending: false,
    }
}

/// The stored reading, or code and message of the refusal.
fn judged(changes: &Value, caller: Caller, row: Option<&Allowed>) -> Result<Reading, (&'static str, String)> {
    let event = event(changes);
    let object = event.as_object().expect("an object");
    let outcome = Fields::of(object).map_err(Refusal::from).and_then(|fields| {
        let call = call(caller);
        check_credential(&call, &fields)?;
        accept(&call, &fields, row, "{}")
    });
    outcome.map_err(|refusal| {
        let rejected = rejected(None, &refusal);
        (rejected.code, rejected.message)
    })
}

fn code(changes: &Value, caller: Caller, row: Option<&Allowed>) -> &'static str {
    judged(changes, caller, row).map_or_else(|(code, _)| code, |_| "")
}

#[test]
fn fields_are_judged_one_by_one() {
    let row = row(Some("f"), Some("b"));
    let check = |changes: Value, expected: &str| {
        assert_eq!(code(&changes, Caller::Compat, Some(&row)), expected, "{changes}");
    };
    check(json!({}), "");
    check(json!({"event_id": null}), "FIELD_MISSING");
    check(json!({"event_id": 5}), "FIELD_TYPE");
    check(json!({"event_id": ""}), "FIELD_INVALID");
    check(json!({"tenant_id": "a/b"}), "FIELD_INVALID");
    check(json!({"device_id": null}), "FIELD_MISSING");
    check(json!({"event_type": null}), "FIELD_MISSING");
    check(json!({"event_type": "whatever it says"}), "");
    check(json!({"schema_version": "1.0"}), "");
    check(json!({"schema_version": "2.0"}), "SCHEMA_VERSION_UNSUPPORTED");
    check(json!({"trace_id": ""}), "FIELD_INVALID");
    check(json!({"farm_id": 1}), "FIELD_TYPE");
    check(json!({"ts": null}), "TS_MISSING");
    check(json!({"ts": "yesterday"}), "TS_INVALID");
    check(json!({"payload": null}), "FIELD_MISSING");
    check(json!({"payload": 5}), "VALUE_NOT_NUMBER");
    check(json!({"payload": {"value": "1"}}), "VALUE_NOT_NUMBER");
    check(json!({"payload": {"value": 1, "unit": "a\0"}}), "PAYLOAD_KEY_INVALID");
    check(json!({"payload": {"value": 1, "metric": 5}}), "PAYLOAD_KEY_INVALID");
    check(json!({"payload": {"value": 1, "metric": "nul\0"}}), "PAYLOAD_KEY_INVALID");
}

#[test]
fn a_message_names_its_field_once() {
    let row = row(Some("f"), Some("b"));
    let message =
        |changes: Value| judged(&changes, Caller::Compat, Some(&row)).map_err(|(_, message)| message);
    assert_eq!(message(json!({"ts": "x"})).err().as_deref(), Some("ts is not a time"));
    assert_eq!(
        message(json!({"tenant_id": null})).err().as_deref(),
        Some("tenant_id: required field is missing")
    );
}

#[test]
fn tenant_goes_before_scope_and_scope_before_the_allowlist() {
    let good = row(Some("f"), Some("b"));
    let disabled = Allowed { is_enabled: false, ..good.clone() };
    let foreign = Caller::Operator(Operator {
        name: "#1".into(),
        role: Role::Admin,
        tenants: Tenants::Of(vec!["t-2".into()]),
    });
    let check = |changes: Value, caller: Caller, row: Option<&Allowed>, expected: &str| {
        assert_eq!(code(&changes, caller.clone(), row), expected, "{changes} {caller:?} {row:?}");
    };
    check(json!({}), token(None), Some(&good), "");
    check(json!({"tenant_id": "t-2", "device_id": "d-2"}), token(None), None, "TENANT_MISMATCH");
    check(json!({}), foreign, Some(&good), "TENANT_MISMATCH");
    check(json!({"device_id": "d-2"}), token(None), None, "SCOPE_MISMATCH");
    check(json!({"farm_id": "x"}), token(Some("f")), None, "SCOPE_MISMATCH");
    check(json!({}), token(None), None, "DEVICE_NOT_ALLOWED");
    check(json!({}), Caller::Compat, Some(&disabled), "DEVICE_NOT_ALLOWED");
    check(json!({"farm_id": "x"}), Caller::Compat, Some(&good), "SCOPE_MISMATCH");
    check(json!({"barn_id": "x"}), token(None), Some(&good), "SCOPE_MISMATCH");
    check(json!({}), token(Some("x")), Some(&good), "SCOPE_MISMATCH");
    check(json!({}), token(None), Some(&row(None, None)), "SCOPE_UNKNOWN");
    check(json!({"farm_id": "f"}), token(None), Some(&row(None, None)), "SCOPE_UNKNOWN");
    check(json!({"payload": {}}), Caller::Compat, None, "DEVICE_NOT_ALLOWED");
}

#[test]
fn a_missing_place_comes_from_the_token_and_then_from_the_allowlist() {
    let reading = judged(&json!({}), token(Some("f-t")), Some(&row(None, Some("b-a")))).expect("accepted");
    assert_eq!((reading.farm_id.as_str(), reading.barn_id.as_str()), ("f-t", "b-a"));
    let named = json!({"farm_id": "f-e", "barn_id": "b-e"});
    let reading = judged(&named, Caller::Compat, Some(&row(None, None))).expect("accepted");
    assert_eq!((reading.farm_id.as_str(), reading.barn_id.as_str()), ("f-e", "b-e"));
}

#[test]
fn what_is_left_out_has_a_default() {
    let row = row(Some("f"), Some("b"));
    let upper = json!({"event_id": "BE6EAD4E-49B4-4366-A96B-EDF9725F68BF"});
    let reading = judged(&upper, Caller::Compat, Some(&row)).expect("accepted");
    assert_eq!((reading.metric.as_str(), reading.unit), ("unknown", None));
    assert_eq!(reading.trace_id, "trace");
    assert_eq!(reading.event_id, "be6ead4e-49b4-4366-a96b-edf9725f68bf");
    assert_eq!(reading.outbox_id.to_string(), reading.event_id);
    assert_eq!(reading.topic, "http:/api/v1/telemetry/readings");
    let own = judged(&json!({"trace_id": "mine"}), Caller::Compat, Some(&row)).expect("accepted");
    assert_eq!(own.trace_id, "mine");
}
