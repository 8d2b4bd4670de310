//! Numbers of a device's payload, digit by digit: in the database, on the way to the cloud, and in the API.

use serde_json::json;
use tests::barn::Barn;
use tests::device::{at_least_once, envelope, new_event_id};
use tests::engine::get;

/// A payload as a device writes it, and as the database writes it.
const SENT: &str = r#"{ "iccid": 89660012345678901234, "least": -9223372036854775809, "price": 1.10,
    "fine": 0.1000000000000000055, "deep": [{"n": 18446744073709551616}], "text": "1e999 \u00fc" }"#;
const STORED: [&str; 5] = [
    "\"iccid\": 89660012345678901234",
    "\"least\": -9223372036854775809",
    "\"price\": 1.10",
    "\"fine\": 0.1000000000000000055",
    "\"n\": 18446744073709551616",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_digit_of_an_events_payload_is_kept_forwarded_and_shown() {
    let barn = Barn::start_with(|settings| settings.set("ingress.forward_events", "modem_seen")).await;
    let mut body = envelope("d-1", &new_event_id(), "modem_seen");
    body["payload"] = json!("?");
    let body = body.to_string().replace("\"?\"", SENT);
    let topic = "iot/event/t-001/f-001/b-001/d-1/modem_seen";
    barn.device("d-1").await.put(&at_least_once(topic, body)).await;
    barn.delivered(1).await;
    for table in ["device_events", "sync_outbox"] {
        for stored in STORED {
            let sql =
                format!("SELECT count(*) FROM {table} WHERE strpos(payload_json::text, $${stored}$$) > 0");
            assert_eq!(barn.db.count(&sql).await, 1, "{stored} in {table}");
        }
    }
    let (status, shown) = get(barn.settings.http, "/api/v1/events?tenant_id=t-001").await;
    assert_eq!(status, 200, "{shown}");
    for stored in STORED {
        assert!(shown.contains(stored), "{stored} in {shown}");
    }
    barn.finish().await;
}
