//! Every reason of a refusal that can be caused over MQTT: recorded with its field, counted, acknowledged, and no
//! obstacle for the next message of the same device.

use bytes::Bytes;
use loadtest::mqtt::{Login, Publish};
use schema::wire::reject::Reason;
use serde_json::{Value, json};
use tests::barn::Barn;
use tests::device::{
    Device, TENANT, at_least_once, envelope, login, new_event_id, reading, temperature_topic,
};

/// A message that is refused.
struct Case {
    reason: Reason,
    field: Option<&'static str>,
    topic: String,
    body: Bytes,
}

fn case(reason: Reason, field: &'static str, topic: &str, body: impl Into<Bytes>) -> Case {
    let field = (!field.is_empty()).then_some(field);
    Case { reason, field, topic: topic.to_owned(), body: body.into() }
}

/// Sends each message and a good reading behind it, and looks at what was recorded and counted.
async fn check(barn: &Barn, device: &mut Device, cases: Vec<Case>) {
    for (number, Case { reason, field, topic, body }) in cases.into_iter().enumerate() {
        let told = format!(
            "case {number}, {}: {topic} {}",
            reason.code(),
            String::from_utf8_lossy(&body[..body.len().min(300)])
        );
        let label = format!("reason=\"{}\"", reason.code());
        let counted = barn.metric("ingress_rejected", &label);
        let recorded = barn.db.count("SELECT count(*) FROM ingress_rejects").await;
        device.publish(&topic, body.clone()).await;
        let newest =
            "SELECT reason, detail, topic, size_bytes FROM ingress_rejects ORDER BY rejected_at DESC LIMIT 1";
        let row = barn.db.client.query_one(newest, &[]).await.expect("a refusal is recorded");
        let seen: (String, Option<String>, String) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(seen, (reason.code().to_owned(), field.map(str::to_owned), topic), "{told}");
        assert_eq!(usize::try_from(row.get::<_, i32>(3)).ok(), Some(body.len()), "{told}");
        assert_eq!(barn.db.count("SELECT count(*) FROM ingress_rejects").await, recorded + 1, "{told}");
        assert_eq!(barn.metric("ingress_rejected", &label), counted + 1.0, "{told}");
        let event_id = new_event_id();
        device.put(&reading("d-1", &event_id)).await;
        let stored = format!("SELECT count(*) FROM telemetry_raw WHERE event_id = '{event_id}'");
        assert_eq!(barn.db.count(&stored).await, 1, "the reading behind {told}");
    }
}

fn good() -> Value {
    let mut body = envelope("d-1", &new_event_id(), "telemetry.reading");
    body["payload"] = json!({"value": 1.5});
    body
}

/// A good reading with one field changed.
fn with(field: &str, value: Value) -> String {
    let mut body = good();
    body[field] = value;
    body.to_string()
}

/// A good reading without one field.
fn without(field: &str) -> String {
    let mut body = good();
    body.as_object_mut().expect("an object").remove(field);
    body.to_string()
}

fn flat(field: &str, value: Value) -> String {
    let mut body = json!({"event_id": new_event_id(), "tenant_id": TENANT, "device_id": "d-1", "value": 1.5,
        "ts": "2026-02-12T09:00:00+00:00"});
    body[field] = value;
    body.to_string()
}

fn event(event_type: &str) -> String {
    envelope("d-1", &new_event_id(), event_type).to_string()
}

fn weighing(event_type: &str, payload: Value) -> String {
    let mut body = envelope("wv-001", &new_event_id(), event_type);
    body["payload"] = payload;
    body.to_string()
}

fn session_topic(station: &str, event_type: &str) -> String {
    format!("iot/weighvision/{TENANT}/f-001/b-001/{station}/session/s-1/{event_type}")
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_by_name() {
    use Reason::*;
    let barn = Barn::start().await;
    let mut device = barn.device("d-1").await;
    let topic = temperature_topic("d-1");
    let read = |reason, field, body: String| case(reason, field, &topic, body);
    let number = |text: &str| with("payload", json!({"value": "?"})).replace("\"?\"", text);
    let cases = vec![
        case(TopicInvalid, "", &format!("iot/telemetry/{TENANT}/f-001/b-001/d-1"), good().to_string()),
        case(TopicInvalid, "", &format!("iot/feed/{TENANT}/f-001/b-001/d-1/x"), good().to_string()),
        case(TopicInvalid, "", "nothing/of/ours", good().to_string()),
        case(TopicInvalid, "", &session_topic("st-01", "x").replace("session", "sessions"), "{}"),
        read(BodyNotJson, "", String::new()),
        read(BodyNotJson, "", "{".to_owned()),
        case(BodyNotJson, "", &topic, Bytes::from_static(b"{\"event_id\":\"\xff\"}")),
        read(BodyNotJson, "", number("NaN")),
        read(BodyNotJson, "", number("Infinity")),
        read(BodyNotJson, "", number("1e999")),
        read(BodyNotObject, "", "[]".to_owned()),
        read(BodyNotObject, "", "null".to_owned()),
        read(
            FieldMissing,
            "schema_version",
            r#"{"unit":"kg","timestamp":"2026-02-12T09:00:00Z"}"#.to_owned(),
        ),
        read(
            FieldMissing,
            "event_id",
            r#"{"value":1,"unit":"kg","timestamp":"2026-02-12T09:00:00Z"}"#.to_owned(),
        ),
        read(FieldMissing, "schema_version", without("schema_version")),
        read(FieldMissing, "event_id", without("event_id")),
        read(FieldMissing, "tenant_id", with("tenant_id", Value::Null)),
        read(FieldMissing, "device_id", without("device_id")),
        read(FieldMissing, "event_type", without("event_type")),
        read(FieldType, "event_id", with("event_id", json!(5))),
        read(FieldType, "trace_id", with("trace_id", json!([]))),
        read(FieldType, "content_hash", with("content_hash", json!(5))),
        read(FieldType, "retry_count", with("retry_count", json!(1.5))),
        read(FieldInvalid, "retry_count", with("retry_count", json!(-1))),
        read(FieldType, "retry_count", with("retry_count", json!("1"))),
        read(FieldType, "value", flat("value", json!("1.5"))),
        read(FieldType, "value", flat("value", Value::Null)),
        read(FieldInvalid, "event_id", with("event_id", json!(""))),
        read(FieldInvalid, "event_id", with("event_id", json!("e".repeat(201)))),
        read(FieldInvalid, "trace_id", with("trace_id", json!(""))),
        read(FieldInvalid, "device_id", with("device_id", json!("d/1"))),
        read(SchemaVersionUnsupported, "schema_version", with("schema_version", json!("2.0"))),
        read(SchemaVersionUnsupported, "schema_version", flat("schema_version", json!("0.9"))),
        read(TsMissing, "ts", without("ts")),
        read(TsInvalid, "ts", with("ts", json!("yesterday"))),
        read(TsInvalid, "ts", with("ts", json!("2026-02-30T00:00:00Z"))),
    ];
    check(&barn, &mut device, cases).await;
    barn.finish().await;
}

#[tokio::test]
async fn bodies_that_disagree_with_their_topic_or_their_place_are_refused_by_name() {
    use Reason::*;
    let mut barn = Barn::start().await;
    barn.db.allow_device(TENANT, "d-elsewhere", "f-002", "b-001").await;
    barn.db.allow_device(TENANT, "d-next-door", "f-001", "b-002").await;
    barn.db.allow_station(TENANT, "st-elsewhere", "f-002", "b-001").await;
    barn.db.allow_station(TENANT, "st-next-door", "f-001", "b-002").await;
    barn.db
        .execute(
            "INSERT INTO device_allowlist (tenant_id, device_id, enabled, provision_state)
             VALUES ('t-001', 'd-waits', false, 'pending'), ('t-001', 'd-off', false, 'approved');
             INSERT INTO station_allowlist (tenant_id, station_id, enabled, provision_state)
             VALUES ('t-001', 'st-waits', false, 'pending'), ('t-001', 'st-off', false, 'approved')",
        )
        .await;
    // A change of the lists takes effect within seconds; a start reads them at once.
    barn.restart().await;
    let mut device = barn.device("d-1").await;
    let topic = temperature_topic("d-1");
    let read = |reason, field, body: String| case(reason, field, &topic, body);
    let of_device = |reason, field, device| {
        let publish = reading(device, &new_event_id());
        case(reason, field, &publish.topic, publish.payload)
    };
    let of_station = |reason, field, station| {
        let event_type = "weighvision.session.created";
        case(reason, field, &session_topic(station, event_type), weighing(event_type, json!({})))
    };
    let of_session = |reason, field, event_type, payload| {
        case(reason, field, &session_topic("st-01", event_type), weighing(event_type, payload))
    };
    let events = format!("iot/event/{TENANT}/f-001/b-001/d-1/door_opened");
    let cases = vec![
        read(TenantMismatch, "tenant_id", with("tenant_id", json!("t-002"))),
        read(ScopeMismatch, "farm_id", flat("farm_id", json!("f-002"))),
        read(ScopeMismatch, "barn_id", flat("barn_id", json!("b-002"))),
        read(DeviceMismatch, "device_id", with("device_id", json!("d-2"))),
        read(EventTypeNotTelemetry, "event_type", with("event_type", json!("door_opened"))),
        read(MetricMismatch, "payload.metric", with("payload", json!({"value": 1, "metric": "humidity"}))),
        read(MetricMismatch, "payload.metric", flat("metric", json!("humidity"))),
        case(EventTypeMismatch, "event_type", &events, event("door_closed")),
        of_device(DeviceNotAllowed, "", "d-unknown"),
        of_device(DeviceNotAllowed, "", "d-off"),
        of_device(DevicePending, "", "d-waits"),
        of_device(DeviceFarmMismatch, "farm_id", "d-elsewhere"),
        of_device(DeviceBarnMismatch, "barn_id", "d-next-door"),
        of_station(StationNotAllowed, "", "st-unknown"),
        of_station(StationNotAllowed, "", "st-off"),
        of_station(StationPending, "", "st-waits"),
        of_station(StationFarmMismatch, "farm_id", "st-elsewhere"),
        of_station(StationBarnMismatch, "barn_id", "st-next-door"),
        case(
            EventTypeMismatch,
            "event_type",
            &session_topic("st-01", "weighvision.session.created"),
            weighing("weighvision.session.finalized", json!({})),
        ),
        of_session(NoRoute, "event_type", "weighvision.frame.uploaded", json!({})),
        of_session(
            PayloadKeyInvalid,
            "payload.weightKg",
            "weighvision.weight.recorded",
            json!({"weightKg": "5"}),
        ),
        of_session(PayloadKeyInvalid, "payload.weightKg", "weighvision.weight.recorded", json!({})),
        of_session(
            PayloadKeyInvalid,
            "payload.mediaObjectId",
            "weighvision.image.captured",
            json!({"media_id": ""}),
        ),
        read(ValueNotNumber, "payload.value", with("payload", json!({"value": "26.4"}))),
        read(ValueNotNumber, "payload.value", with("payload", json!({}))),
        read(ValueNotNumber, "payload.value", without("payload")),
        case(
            FieldInvalid,
            "status",
            &format!("iot/status/{TENANT}/f-001/b-001/d-1"),
            r#"{"device_id":"d-1","status":"perhaps"}"#,
        ),
    ];
    check(&barn, &mut device, cases).await;
    barn.finish().await;
}

#[tokio::test]
async fn too_much_is_refused_whether_the_message_or_an_events_payload() {
    let barn = Barn::start().await;
    let mut device = barn.device("d-1").await;
    let events = format!("iot/event/{TENANT}/f-001/b-001/d-1/door_opened");
    let mut stuffed = envelope("d-1", &new_event_id(), "door_opened");
    stuffed["payload"] = json!({"note": "n".repeat(65 << 10)});
    let cases = vec![
        case(Reason::MessageTooLarge, "", &temperature_topic("d-1"), vec![b' '; (1 << 20) + 1]),
        case(Reason::MessageTooLarge, "payload", &events, stuffed.to_string()),
    ];
    check(&barn, &mut device, cases).await;
    barn.finish().await;
}

#[tokio::test]
async fn a_dialect_that_is_switched_off_is_refused_and_the_others_are_not() {
    let barn = Barn::start_with(|settings| {
        settings.set("ingress.dialect_flat", "false").set("ingress.dialect_null_fields", "false")
    })
    .await;
    let mut device = barn.device("d-1").await;
    let topic = temperature_topic("d-1");
    let cases = [
        flat("unit", json!("celsius")),
        with("trace_id", Value::Null),
        with("ts", Value::Null).replacen('{', r#"{"occurred_at":"2026-02-12T09:00:00Z","#, 1),
        with("ts", json!("2026-02-12T09:00:00+00:00")),
    ];
    let cases = cases.map(|body| case(Reason::DialectDisabled, "", &topic, body));
    check(&barn, &mut device, cases.into()).await;
    let empty = case(Reason::FieldInvalid, "occurred_at", &topic, with("occurred_at", json!("")));
    check(&barn, &mut device, vec![empty]).await;
    barn.finish().await;
}

#[tokio::test]
async fn strangers_are_entered_once_as_pending_when_that_is_switched_on() {
    let barn = Barn::start_with(|settings| settings.set("ingress.auto_provision", "true")).await;
    let mut device = barn.device("d-1").await;
    let created = "weighvision.session.created";
    let strangers = || {
        let telemetry = reading("d-new", &new_event_id());
        vec![
            case(Reason::DevicePending, "", &telemetry.topic, telemetry.payload),
            case(Reason::StationPending, "", &session_topic("st-new", created), weighing(created, json!({}))),
        ]
    };
    check(&barn, &mut device, strangers()).await;
    check(&barn, &mut device, strangers()).await;
    for (table, id) in
        [("device_allowlist", "device_id = 'd-new'"), ("station_allowlist", "station_id = 'st-new'")]
    {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE {id} AND NOT enabled AND provision_state = 'pending' AND farm_id = 'f-001'"
        );
        assert_eq!(barn.db.count(&sql).await, 1, "{table}");
    }
    barn.finish().await;
}

#[tokio::test]
async fn only_so_many_strangers_of_a_tenant_are_entered() {
    let barn = Barn::start_with(|settings| {
        settings.set("ingress.auto_provision", "true").set("ingress.auto_provision_rows_max", "2")
    })
    .await;
    let mut device = barn.device("d-1").await;
    let stranger = |reason, id: &str| {
        let Publish { topic, payload, .. } = reading(id, &new_event_id());
        case(reason, "", &topic, payload)
    };
    let pending = ["x-1", "x-2", "x-1"].map(|id| stranger(Reason::DevicePending, id));
    check(&barn, &mut device, pending.into()).await;
    let refused = ["x-3", "x-4"].map(|id| stranger(Reason::DeviceNotAllowed, id));
    check(&barn, &mut device, refused.into()).await;
    assert_eq!(
        barn.db.count("SELECT count(*) FROM device_allowlist WHERE provision_state = 'pending'").await,
        2
    );
    barn.finish().await;
}

#[tokio::test]
async fn a_device_with_a_credential_is_held_to_its_scope_and_stays_connected() {
    let barn = Barn::start_with(|settings| settings.set("broker.allow_anonymous", "false")).await;
    barn.db.set_password(TENANT, "d-1", "user-1", "secret").await;
    let credential = |user: &str, password: &str| Login {
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
        ..login("d-1")
    };
    for wrong in [credential("user-1", "guess"), credential("nobody", "secret"), login("d-1")] {
        let refused = loadtest::mqtt::connect(&barn.mqtt().to_string(), &wrong).await;
        assert!(refused.is_err(), "{wrong:?}");
    }
    let mut device = Device::login(barn.mqtt(), &credential("user-1", "secret")).await;
    let of = |publish: Publish| case(Reason::AclDenied, "", &publish.topic.clone(), publish.payload);
    let elsewhere = |topic: &str| of(at_least_once(topic, good().to_string()));
    let cases = vec![
        of(reading("d-2", &new_event_id())),
        elsewhere("iot/telemetry/t-002/f-001/b-001/d-1/temperature"),
        elsewhere("iot/telemetry/t-001/f-002/b-001/d-1/temperature"),
        elsewhere("iot/status/t-001/f-001/b-001/d-2"),
        elsewhere("nothing/of/ours"),
    ];
    check(&barn, &mut device, cases).await;
    barn.finish().await;
}

#[tokio::test]
async fn whoever_is_let_in_is_heard_at_once() {
    const DEVICES: i64 = 10;
    let barn = Barn::start().await;
    let mut device = barn.device("any").await;
    let publish = async |device: &mut Device, id: &str| {
        let reading = reading(id, &new_event_id());
        device.publish(&reading.topic, reading.payload).await;
    };
    for number in 0..DEVICES {
        // Refused, so that the engine has read the lists a moment ago.
        let (new, enabled) = (format!("d-new-{number}"), format!("d-enabled-{number}"));
        barn.db.allow_device(TENANT, &enabled, "f-001", "b-001").await;
        barn.db
            .execute(&format!("UPDATE device_allowlist SET enabled = false WHERE device_id = '{enabled}'"))
            .await;
        publish(&mut device, &new).await;
        publish(&mut device, &enabled).await;
        barn.db.allow_device(TENANT, &new, "f-001", "b-001").await;
        publish(&mut device, &new).await;
        barn.db
            .execute(&format!("UPDATE device_allowlist SET enabled = true WHERE device_id = '{enabled}'"))
            .await;
        publish(&mut device, &enabled).await;
    }
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 2 * DEVICES);
    assert_eq!(barn.db.count("SELECT count(*) FROM ingress_rejects").await, 2 * DEVICES);
    barn.finish().await;
}
