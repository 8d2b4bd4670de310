//! What a part of the door works with when it is tested alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use schema::clock::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::credits::Credits;
use crate::delivery::{Delivery, Intake};
use crate::door::hub::Hub;
use crate::door::inflow::InflowParts;
use crate::door::journal::Journal;
use crate::door::judge::Judge;
use crate::door::packet::{MessageProperties, Will};
use crate::door::queue::{QueueBudget, QueueLimits};
use crate::door::refusals::Refusals;
use crate::door::retained::Retained;
use crate::door::room::Room;
use crate::door::session::SessionParts;
use crate::door::sessions::Sessions;
use crate::door::settings::DoorSettings;
use crate::door::shared::{Phase, Shared};
use crate::door::websocket::Origins;
use crate::door::will::budget;
use crate::fanout::Fanout;
use crate::gatekeeper::{CredentialId, Gatekeeper, Identity, Login, Scope, Shown};
use crate::guesses::Guesses;
use crate::message::{Message, Qos, Verdict};
use crate::stats::DoorStats;
use crate::store::{Client, DoorStore, Forgetful, Owner};

/// Everything below a connection, without a door.
pub(super) struct Bench {
    pub(super) intake: Arc<Held>,
    pub(super) inflow: Arc<InflowParts>,
    pub(super) sessions: Arc<SessionParts>,
}

impl Bench {
    /// With a store that keeps nothing, and is never behind.
    pub(super) fn new() -> Self {
        Self::with_store(Arc::new(Forgetful))
    }

    pub(super) fn with_store(store: Arc<dyn DoorStore>) -> Self {
        Self::with(store, None)
    }

    pub(super) fn with(store: Arc<dyn DoorStore>, router: Option<Arc<dyn Fanout>>) -> Self {
        let journal = Arc::new(Journal::new(store));
        let stats: Arc<DoorStats> = Arc::default();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let retained = Arc::new(Retained::new(Vec::new(), Arc::clone(&journal), Arc::clone(&stats)));
        let hub = Hub::new(clock.clone(), Arc::clone(&journal), Arc::clone(&retained), router);
        let intake = Arc::new(Held::default());
        let inflow = InflowParts {
            credits: Credits::shared(1000, 1 << 20, 1024, Arc::clone(&stats)),
            wills: budget(10),
            stats: Arc::clone(&stats),
            intake: Arc::clone(&intake) as Arc<dyn Intake>,
            hub: Arc::new(hub),
            gatekeeper: Arc::new(Nobody),
            refusals: Arc::new(Refusals::new(Arc::clone(&stats))),
            clock,
        };
        let limits = QueueLimits { messages_max: 10, bytes_max: 1 << 20, age_max: Duration::from_secs(60) };
        let budget = QueueBudget::new(3 << 20, limits.messages_max);
        let sessions = SessionParts { retained, journal, stats, budget, limits };
        Self { intake, inflow: Arc::new(inflow), sessions: Arc::new(sessions) }
    }

    /// What all connections share, and the phase of the door, which is not there.
    pub(super) fn share(
        &self,
        settings: DoorSettings,
        keeps_sessions: bool,
        gatekeeper: Arc<dyn Gatekeeper>,
    ) -> (Arc<Shared>, watch::Sender<Phase>) {
        let (phase, phase_seen) = watch::channel(Phase::Open);
        let (parts, inflow) = (Arc::clone(&self.sessions), Arc::clone(&self.inflow));
        let (sessions, _due) = Sessions::new(parts, Arc::clone(&inflow), settings.sessions_max);
        let shared = Shared {
            keeps_sessions,
            judge: Judge::new(Arc::clone(&sessions), Arc::clone(&gatekeeper), None),
            gatekeeper,
            clock: inflow.clock.clone(),
            hub: Arc::clone(&inflow.hub),
            refusals: Arc::clone(&inflow.refusals),
            stats: Arc::clone(&inflow.stats),
            inflow,
            sessions,
            phase: phase_seen,
            guesses: Guesses::default(),
            origins: Origins(Vec::new()),
            room: Room::new(&settings),
            settings,
        };
        (Arc::new(shared), phase)
    }

    /// The payload of the retained message of a topic.
    pub(super) fn retained(&self, topic: &str) -> Option<Bytes> {
        let retained = &self.inflow.hub.retained;
        let mut search = retained.search(&Owner::Anonymous, &Arc::from(topic)).expect("nobody else searches");
        let mut found = None;
        retained.look_up(&mut search, Timestamp::UNIX_EPOCH, |known| {
            found = Some(known.payload.clone());
            true
        });
        found
    }
}

/// A client without a credential.
pub(super) fn client(client_id: &str) -> Client {
    Client { owner: Owner::Anonymous, client_id: Arc::from(client_id) }
}

/// A message of a client without a credential.
pub(super) fn message(topic: &str, payload: &'static str, qos: Qos) -> Message {
    Message {
        topic: Arc::from(topic),
        parsed: None,
        payload: Bytes::from_static(payload.as_bytes()),
        qos,
        retain: true,
        received_at: Instant::now(),
        arrived_at: Timestamp::UNIX_EPOCH,
        identity: None,
        verdict: Verdict::Admitted,
    }
}

/// A last will that is to be retained.
pub(super) fn will(topic: &str, payload: &'static str) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay_seconds: 0,
        properties: MessageProperties::default(),
    }
}

/// Holds what it takes until a test settles it.
#[derive(Default)]
pub(super) struct Held(Mutex<VecDeque<Delivery>>);

impl Held {
    /// The oldest message.
    pub(super) fn next(&self) -> Delivery {
        self.0.lock().unwrap().pop_front().expect("a message was delivered")
    }
}

impl Intake for Held {
    fn take(&self, delivery: Delivery) {
        self.0.lock().unwrap().push_back(delivery);
    }
}

/// Knows no device.
pub(super) struct Nobody;

#[async_trait]
impl Gatekeeper for Nobody {
    async fn login(&self, _shown: Shown<'_>) -> Login {
        Login::Anonymous
    }

    fn scope(&self, _identity: &Identity) -> Option<Scope> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>> {
        Some(vec![true; credentials.len()])
    }

    fn stalled_for(&self) -> Duration {
        Duration::ZERO
    }
}
