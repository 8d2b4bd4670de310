//! Real clients of three makes, each over every transport, in both versions of MQTT, with everything a client does.

use std::sync::Arc;

use serde_json::json;
use tests::clients::{Credential, Listening, Make, Message, Puppets, Way};
use tests::device::TENANT;
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::site::Site;
use tokio::task::JoinSet;

/// How a client reaches the engine, and what it shows: name, in a WebSocket, over TLS, with a certificate.
const TRANSPORTS: [(&str, bool, bool, bool); 6] = [
    ("tcp", false, false, false),
    ("tls", false, true, false),
    ("mtls", false, true, true),
    ("ws", true, false, false),
    ("wss", true, true, false),
    ("mwss", true, true, true),
];
/// MQTT 3.1.1 and 5, as they call themselves on the wire.
const VERSIONS: [u8; 2] = [4, 5];
const PASSWORD: &str = "correct horse";

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Feature {
    Live,
    Retained,
    Will,
    Takeover,
    Offline,
}

const FEATURES: [Feature; 5] =
    [Feature::Live, Feature::Retained, Feature::Will, Feature::Takeover, Feature::Offline];

/// One cell of the table: a device of its own, which nobody else speaks for.
#[derive(Clone, Debug)]
struct Cell {
    device: String,
    way: Way,
    feature: Feature,
}

impl Cell {
    fn topic(&self) -> String {
        format!("iot/status/{TENANT}/f-001/b-001/{}", self.device)
    }

    fn message(&self, text: &str, qos: u8, retain: bool) -> Message {
        let body = json!({"device_id": self.device, "status": "online", "message": text});
        Message { topic: self.topic(), payload: body.to_string(), qos, retain }
    }

    fn listening(&self, name: &str) -> Listening {
        let client_id = format!("{}-{name}", self.device);
        Listening { client_id, lasts: false, will: None, topic: self.topic() }
    }

    async fn check(&self, make: &Make) {
        match self.feature {
            Feature::Live => self.check_live(make).await,
            Feature::Retained => self.check_retained(make).await,
            Feature::Will => self.check_will(make).await,
            Feature::Takeover => self.check_takeover(make).await,
            Feature::Offline => self.check_offline(make).await,
        }
    }

    /// What is published arrives, at the lower of two QoS.
    async fn check_live(&self, make: &Make) {
        let mut listener = make.listen(&self.way, &self.listening("listener")).await;
        for qos in 0..=2 {
            let sent = self.message(&format!("at {qos}"), qos, false);
            make.publish(&self.way, &sent).await;
            assert_eq!(listener.message().await, Message { qos: qos.min(1), ..sent });
        }
        listener.leave().await;
    }

    /// What is retained is there for whoever comes later, until it is taken back.
    async fn check_retained(&self, make: &Make) {
        let kept = self.message("kept", 1, true);
        make.publish(&self.way, &kept).await;
        let mut listener = make.listen(&self.way, &self.listening("one")).await;
        assert_eq!(listener.message().await, kept);
        listener.leave().await;
        make.publish(&self.way, &Message { payload: String::new(), ..kept }).await;
        let mut listener = make.listen(&self.way, &self.listening("two")).await;
        let live = self.message("live", 1, false);
        make.publish(&self.way, &live).await;
        assert_eq!(listener.message().await, live);
        listener.leave().await;
    }

    /// Whoever says goodbye leaves no will, whoever vanishes does.
    async fn check_will(&self, make: &Make) {
        let mut witness = make.listen(&self.way, &self.listening("witness")).await;
        let with_will =
            |text| Listening { will: Some(self.message(text, 1, false)), ..self.listening("mortal") };
        // A `mosquitto_sub` of MQTT 5 that is told to end asks for its will to be published.
        if !(matches!(make, Make::Mosquitto) && self.way.version == 5) {
            make.listen(&self.way, &with_will("left")).await.leave().await;
        }
        make.listen(&self.way, &with_will("vanished")).await.vanish().await;
        assert_eq!(witness.message().await, self.message("vanished", 1, false));
        witness.leave().await;
    }

    /// A client id belongs to whoever came last; the one before leaves its will.
    async fn check_takeover(&self, make: &Make) {
        let mut witness = make.listen(&self.way, &self.listening("witness")).await;
        let will = Some(self.message("taken over", 1, false));
        let listening = Listening { will, ..self.listening("twin") };
        let first = make.listen(&self.way, &listening).await;
        let parting = self.message("mine now", 1, false);
        make.take_over(&self.way, &listening, &parting).await;
        first.closed().await;
        // They come from two connections, so either may be first.
        let seen = [witness.message().await, witness.message().await];
        assert!(seen.contains(&parting) && seen.contains(&self.message("taken over", 1, false)), "{seen:?}");
        witness.leave().await;
    }

    /// A session that lasts gets what it missed, in order.
    async fn check_offline(&self, make: &Make) {
        let lasting = Listening { lasts: true, ..self.listening("lasting") };
        let first = make.listen(&self.way, &lasting).await;
        assert!(!first.session_present);
        first.leave().await;
        let missed = ["one", "two", "three"].map(|text| self.message(text, 1, false));
        for message in &missed {
            make.publish(&self.way, message).await;
        }
        let mut second = make.listen(&self.way, &lasting).await;
        assert!(second.session_present || matches!(make, Make::Mosquitto), "the session is gone");
        for message in missed {
            assert_eq!(second.message().await, message);
        }
        second.leave().await;
    }
}

/// Every cell for a make, with its device let in.
async fn cells(db: &Database, settings: &Settings, site: &Site, has_websocket: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (transport, websocket, encrypted, has_certificate) in TRANSPORTS {
        if websocket && !has_websocket {
            continue;
        }
        let address = match (websocket, encrypted) {
            (false, false) => settings.mqtt,
            (false, true) => site.tls,
            (true, false) => site.ws,
            (true, true) => site.wss,
        };
        for (version, feature) in VERSIONS.into_iter().flat_map(|version| FEATURES.map(|it| (version, it))) {
            let device = format!("{transport}-{version}-{feature:?}").to_lowercase();
            db.allow_device(TENANT, &device, "f-001", "b-001").await;
            let credential = if has_certificate {
                let (cert, key) = site.device_files(TENANT, &device);
                Credential::Certificate(cert, key)
            } else {
                db.set_password(TENANT, &device, &device, PASSWORD).await;
                Credential::Password(device.clone(), PASSWORD.to_owned())
            };
            let ca = encrypted.then(|| site.ca_file());
            let way = Way { port: address.port(), websocket, ca, credential, version };
            cells.push(Cell { device, way, feature });
        }
    }
    cells
}

async fn check_every_cell(make: Make) {
    let site = Site::new();
    let db = Database::fresh().await;
    let settings = site.settings(Settings::of(&db.url));
    let cells = cells(&db, &settings, &site, !matches!(make, Make::Mosquitto)).await;
    let mut engine = Engine::start(settings).await;
    let make = Arc::new(make);
    let mut running = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    for cell in cells {
        let (make, name) = (Arc::clone(&make), cell.device.clone());
        let id = running.spawn(async move { cell.check(&make).await }).id();
        names.insert(id, name);
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next_with_id().await {
        if let Err(error) = ended {
            failed.push(names[&error.id()].clone());
        }
    }
    failed.sort();
    assert!(failed.is_empty(), "{} of {} cells failed: {failed:?}", failed.len(), names.len());
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_paho_do_everything_over_every_transport() {
    check_every_cell(Make::Puppets(Box::new(Puppets::paho()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_mqttjs_do_everything_over_every_transport() {
    check_every_cell(Make::Puppets(Box::new(Puppets::mqttjs()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_mosquitto_do_everything_over_every_transport() {
    check_every_cell(Make::Mosquitto).await;
}
