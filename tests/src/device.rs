//! A device: one MQTT connection, and the bodies it sends.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use loadtest::mqtt::{self, Heard, Login, Publish};
use schema::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// The tenant of all tests that need only one.
pub const TENANT: &str = "t-001";
/// Messages open at once.
const WINDOW: usize = 50;

/// A connected device.
#[derive(Debug)]
pub struct Device {
    stream: TcpStream,
    inbox: BytesMut,
    last_id: u16,
    open: usize,
}

impl Device {
    /// Connects without a credential.
    ///
    /// # Panics
    /// When the engine does not let it in.
    pub async fn connect(mqtt: SocketAddr, client_id: &str) -> Self {
        Self::login(mqtt, &login(client_id)).await
    }

    /// Connects with more to say.
    ///
    /// # Panics
    /// When the engine does not let it in.
    pub async fn login(mqtt: SocketAddr, login: &Login) -> Self {
        let connecting = timeout(PATIENCE, mqtt::connect(&mqtt.to_string(), login)).await;
        let stream = connecting.expect("an answer in time").expect("the engine lets the device in");
        Self { stream, inbox: BytesMut::new(), last_id: 0, open: 0 }
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    ///
    /// # Panics
    /// When none comes.
    pub async fn publish(&mut self, topic: &str, body: impl Into<Bytes>) {
        self.put(&at_least_once(topic, body)).await;
    }

    /// Publishes a message and waits for its acknowledgement.
    ///
    /// # Panics
    /// When none comes.
    pub async fn put(&mut self, publish: &Publish) {
        self.send(publish).await;
        self.settled(0).await;
    }

    /// Publishes many messages, a window at a time, and waits for all acknowledgements.
    ///
    /// # Panics
    /// When one does not come.
    pub async fn put_all(&mut self, messages: impl IntoIterator<Item = Publish>) {
        for publish in messages {
            self.settled(WINDOW - 1).await;
            self.send(&publish).await;
        }
        self.settled(0).await;
    }

    /// Publishes and waits for nothing.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send(&mut self, publish: &Publish) {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let mut packet = Vec::new();
        mqtt::put_publish(&mut packet, publish, self.last_id, false);
        let sending = timeout(PATIENCE, self.stream.write_all(&packet)).await;
        sending.expect("the engine reads").expect("the connection stands");
        self.open += usize::from(publish.qos > 0);
    }

    /// Waits until so many messages at most lack their acknowledgement.
    ///
    /// # Panics
    /// When the connection breaks or nothing comes.
    pub async fn settled(&mut self, open_max: usize) {
        while self.open > open_max {
            match mqtt::take_packet(&self.inbox).expect("packets a publisher expects") {
                Some((heard, length)) => {
                    self.inbox.advance(length);
                    self.open -= usize::from(matches!(heard, Heard::PubAck(_)));
                }
                None => {
                    let reading = timeout(PATIENCE, self.stream.read_buf(&mut self.inbox)).await;
                    let read = reading.expect("an acknowledgement in time").expect("the connection stands");
                    assert!(read > 0, "the engine closed the connection");
                }
            }
        }
    }

    /// Waits until the engine closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(mut self) {
        let reading =
            async { while self.stream.read_buf(&mut self.inbox).await.is_ok_and(|read| read > 0) {} };
        timeout(PATIENCE, reading).await.expect("the engine closes the connection");
    }

    /// Says goodbye: no last will.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn disconnect(mut self) {
        self.stream.write_all(&mqtt::DISCONNECT).await.expect("the connection stands");
        self.closed().await;
    }
}

/// A login that says nothing but a client id.
#[must_use]
pub fn login(client_id: &str) -> Login {
    Login { client_id: client_id.to_owned(), keepalive_seconds: 60, ..Login::default() }
}

/// A message at QoS 1 that is not retained.
pub fn at_least_once(topic: &str, body: impl Into<Bytes>) -> Publish {
    Publish {
        topic: topic.into(),
        payload: body.into(),
        qos: 1,
        is_retained: false,
        properties: Bytes::new(),
    }
}

/// The topic of a device's temperature, in the place of all tests that need only one.
#[must_use]
pub fn temperature_topic(device: &str) -> String {
    format!("iot/telemetry/{TENANT}/f-001/b-001/{device}/temperature")
}

/// A canonical temperature reading of now.
#[must_use]
pub fn reading(device: &str, event_id: &str) -> Publish {
    let mut body = envelope(device, event_id, "telemetry.reading");
    body["payload"] = json!({"value": 26.4, "unit": "celsius"});
    at_least_once(&temperature_topic(device), body.to_string())
}

/// A canonical envelope of now without a payload.
#[must_use]
pub fn envelope(device: &str, event_id: &str, event_type: &str) -> Value {
    let ts = schema::wire::time::format(Clock::system().now());
    json!({"schema_version": "1.0", "event_id": event_id, "trace_id": "tr-1", "tenant_id": TENANT,
        "device_id": device, "event_type": event_type, "ts": ts})
}

/// A new event id, as devices make them.
#[must_use]
pub fn new_event_id() -> String {
    loadtest::ids::new_event_id(&mut rand::rng())
}
