//! Clients of several makes behind one face: they listen, publish, leave and vanish.

mod mosquitto;
mod puppet;

use std::collections::VecDeque;
use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Child;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wait::PATIENCE;
pub use puppet::Puppets;

/// A program that speaks MQTT.
pub enum Make {
    /// A library in a process of its own, all clients in one.
    Puppets(Box<Puppets>),
    /// `mosquitto_pub` and `mosquitto_sub`, a process per client.
    Mosquitto,
}

/// How a client reaches the engine and who it is.
#[derive(Clone, Debug)]
pub struct Way {
    /// The listener's port on this machine.
    pub port: u16,
    /// In a WebSocket.
    pub websocket: bool,
    /// Over TLS, with the engine vouched for by this file.
    pub ca: Option<PathBuf>,
    /// What the client shows.
    pub credential: Credential,
    /// 4 for MQTT 3.1.1, or 5.
    pub version: u8,
}

/// What a client shows.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A user name and a password.
    Password(String, String),
    /// The files of a certificate and its key.
    Certificate(PathBuf, PathBuf),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: String,
    /// How it is delivered.
    pub qos: u8,
    /// Whether it is kept, or was.
    pub retain: bool,
}

/// A client that listens.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its client id.
    pub client_id: String,
    /// Whether its session outlives its connection.
    pub lasts: bool,
    /// What is published when it vanishes.
    pub will: Option<Message>,
    /// What it subscribes to, at QoS 1.
    pub topic: String,
}

/// What a client tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Connected { session_present: bool },
    Refused(u64),
    Subscribed(Vec<u64>),
    Published,
    Message(Message),
    Closed,
}

/// A client at work. It ends with the test.
pub struct Client {
    control: Control,
    events: UnboundedReceiver<Event>,
    messages: VecDeque<Message>,
    /// Whether the engine knew its session.
    pub session_present: bool,
    _reader: JoinSet<()>,
}

enum Control {
    Puppet(puppet::Strings),
    Process(Child),
}

impl Make {
    /// A client that listens; it is connected and subscribed.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn listen(&self, way: &Way, listening: &Listening) -> Client {
        let mut client = match self {
            Self::Puppets(puppets) => puppets.listen(way, listening).await,
            Self::Mosquitto => mosquitto::listen(way, listening),
        };
        let codes = loop {
            match client.next().await {
                Event::Connected { session_present } => client.session_present = session_present,
                Event::Message(message) => client.messages.push_back(message),
                Event::Subscribed(codes) => break codes,
                other @ (Event::Refused(_) | Event::Published | Event::Closed) => {
                    panic!("{listening:?} is not let in: {other:?}")
                }
            }
        };
        assert_eq!(codes, [1], "the subscription is granted");
        client
    }

    /// Connects, publishes, waits for the end of the exchange and leaves.
    ///
    /// # Panics
    /// When any of it fails.
    pub async fn publish(&self, way: &Way, message: &Message) {
        match self {
            Self::Puppets(puppets) => puppets.publish(way, message).await,
            Self::Mosquitto => mosquitto::publish(way, message, None).await,
        }
    }

    /// Takes the place of a client with its client id, for a moment at least.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn take_over(&self, way: &Way, listening: &Listening, parting: &Message) {
        match self {
            Self::Puppets(_) => {
                let client = self.listen(way, &Listening { will: None, ..listening.clone() }).await;
                self.publish(way, parting).await;
                client.leave().await;
            }
            Self::Mosquitto => mosquitto::publish(way, parting, Some(&listening.client_id)).await,
        }
    }
}

impl Client {
    /// The next message.
    ///
    /// # Panics
    /// When none comes.
    pub async fn message(&mut self) -> Message {
        if let Some(message) = self.messages.pop_front() {
            return message;
        }
        match self.next().await {
            Event::Message(message) => message,
            other @ (Event::Connected { .. }
            | Event::Refused(_)
            | Event::Subscribed(_)
            | Event::Published
            | Event::Closed) => panic!("{other:?} instead of a message"),
        }
    }

    /// Waits until the engine closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(mut self) {
        while self.next().await != Event::Closed {}
    }

    /// Says goodbye.
    ///
    /// # Panics
    /// When the client does not end.
    pub async fn leave(mut self) {
        match &mut self.control {
            Control::Puppet(strings) => strings.pull("disconnect").await,
            Control::Process(child) => {
                let pid = child.id().expect("it runs");
                crate::engine::signal(pid, rustix::process::Signal::TERM);
            }
        }
        self.closed().await;
    }

    /// Is gone without a word.
    ///
    /// # Panics
    /// When the client does not end.
    pub async fn vanish(mut self) {
        match &mut self.control {
            Control::Puppet(strings) => strings.pull("vanish").await,
            Control::Process(child) => child.start_kill().expect("it runs"),
        }
        self.closed().await;
    }

    async fn next(&mut self) -> Event {
        let next = timeout(PATIENCE, self.events.recv()).await;
        next.expect("the client says something").expect("the client lives")
    }
}

/// What a client tells in JSON.
fn event(told: &Value) -> Event {
    let text = |key: &str| told[key].as_str().expect("a text").to_owned();
    match told["event"].as_str().expect("an event has a name") {
        "connected" => {
            Event::Connected { session_present: told["session_present"].as_bool().expect("a boolean") }
        }
        "refused" => Event::Refused(told["code"].as_u64().expect("a number")),
        "subscribed" => {
            let codes = told["codes"].as_array().expect("a list");
            Event::Subscribed(codes.iter().map(|code| code.as_u64().expect("a number")).collect())
        }
        "published" => Event::Published,
        "message" => Event::Message(Message {
            topic: text("topic"),
            payload: text("payload"),
            qos: told["qos"].as_u64().and_then(|qos| qos.try_into().ok()).expect("a QoS"),
            retain: told["retain"].as_bool().expect("a boolean"),
        }),
        "closed" => Event::Closed,
        other => panic!("no such event: {other}"),
    }
}
