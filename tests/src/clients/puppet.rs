//! A client library in a process of its own, which does what it is told in lines of JSON.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::{Client, Control, Credential, Event, Listening, Message, Way, event};

type Listeners = Arc<SyncMutex<HashMap<String, UnboundedSender<Event>>>>;

/// A process with many clients of one library.
pub struct Puppets {
    orders: Arc<Mutex<ChildStdin>>,
    listeners: Listeners,
    count: AtomicU64,
    _child: Child,
    _reader: JoinSet<()>,
}

/// What moves one client.
pub(super) struct Strings {
    name: String,
    orders: Arc<Mutex<ChildStdin>>,
}

impl Puppets {
    /// Clients of paho-mqtt.
    ///
    /// # Panics
    /// When the library is not installed.
    #[must_use]
    pub fn paho() -> Self {
        let mut command = Command::new(crate::python::program("python3"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/paho_client.py"));
        Self::start(command)
    }

    /// Clients of MQTT.js.
    ///
    /// # Panics
    /// When the library is not installed.
    #[must_use]
    pub fn mqttjs() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = here.join("../target/node/node_modules");
        assert!(
            modules.join("mqtt").exists(),
            "MQTT.js is not installed: run `make test`, or `make target/node/.ready`"
        );
        let mut command = Command::new("node");
        command.arg(here.join("clients/mqttjs_client.js")).env("NODE_PATH", modules);
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it can be started");
        let orders = Arc::new(Mutex::new(child.stdin.take().expect("it was piped")));
        let output = child.stdout.take().expect("it was piped");
        let listeners = Listeners::default();
        let mut reader = JoinSet::new();
        reader.spawn(read(output, Arc::clone(&listeners)));
        Self { orders, listeners, count: AtomicU64::new(0), _child: child, _reader: reader }
    }

    /// Connects a client and has it subscribe.
    pub(super) async fn listen(&self, way: &Way, listening: &Listening) -> Client {
        let Listening { client_id, lasts, will, topic } = listening;
        let (strings, events) = self.connect(way, client_id, *lasts, will.as_ref()).await;
        // A library sends it when it is connected, or waits until it is.
        let mut client = Client {
            control: Control::Puppet(strings),
            events,
            messages: [].into(),
            session_present: false,
            _reader: JoinSet::new(),
        };
        let first = client.next().await;
        let Event::Connected { session_present } = first else {
            panic!("{listening:?} is not let in: {first:?}")
        };
        client.session_present = session_present;
        let Control::Puppet(strings) = &client.control else { unreachable!("it was just made") };
        strings.tell(json!({"do": "subscribe", "topic": topic, "qos": 1})).await;
        client
    }

    /// Connects, publishes and leaves.
    pub(super) async fn publish(&self, way: &Way, message: &Message) {
        let name = format!("publisher-{}", self.count.fetch_add(1, Ordering::Relaxed));
        let (strings, mut events) = self.connect(way, &name, false, None).await;
        let mut expect = async |expected: &[Event]| {
            let heard = events.recv().await.expect("the client lives");
            assert!(expected.contains(&heard), "{name}: {heard:?}");
        };
        expect(&[Event::Connected { session_present: false }]).await;
        let Message { topic, payload, qos, retain } = message;
        let order =
            json!({"do": "publish", "topic": topic, "payload": payload, "qos": qos, "retain": retain});
        strings.tell(order).await;
        expect(&[Event::Published]).await;
        strings.pull("disconnect").await;
        expect(&[Event::Closed]).await;
    }

    async fn connect(
        &self,
        way: &Way,
        client_id: &str,
        lasts: bool,
        will: Option<&Message>,
    ) -> (Strings, UnboundedReceiver<Event>) {
        let name = format!("{client_id}/{}", self.count.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = unbounded_channel();
        self.listeners.lock().expect("nothing panics while it holds the lock").insert(name.clone(), sender);
        let strings = Strings { name, orders: Arc::clone(&self.orders) };
        let mut order = json!({"do": "connect", "client_id": client_id, "lasts": lasts, "version": way.version,
            "host": "localhost", "port": way.port, "websocket": way.websocket, "ca": way.ca});
        if let Some(Message { topic, payload, qos, retain }) = will {
            order["will"] = json!({"topic": topic, "payload": payload, "qos": qos, "retain": retain});
        }
        match &way.credential {
            Credential::Password(user, password) => {
                order["user"] = user.as_str().into();
                order["password"] = password.as_str().into();
            }
            Credential::Certificate(cert, key) => {
                order["cert"] = json!(cert);
                order["key"] = json!(key);
            }
        }
        strings.tell(order).await;
        (strings, events)
    }
}

impl Strings {
    /// Gives an order that is one word.
    pub(super) async fn pull(&self, order: &str) {
        self.tell(json!({"do": order})).await;
    }

    async fn tell(&self, mut order: Value) {
        order["client"] = self.name.as_str().into();
        let mut orders = self.orders.lock().await;
        orders.write_all(format!("{order}\n").as_bytes()).await.expect("the clients live");
    }
}

async fn read(output: ChildStdout, listeners: Listeners) {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.expect("the clients write text") {
        let told: Value = serde_json::from_str(&line).expect("the clients write JSON");
        let client = told["client"].as_str().expect("an event has a client");
        let listeners = listeners.lock().expect("nothing panics while it holds the lock");
        // A client nobody listens to any more has nothing of interest to say.
        drop(listeners[client].send(event(&told)));
    }
}
