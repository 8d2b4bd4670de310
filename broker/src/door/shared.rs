//! What all connections of a door share, and where the door is on its way down.

use std::sync::Arc;

use schema::clock::Clock;
use tokio::sync::watch;

use crate::door::hub::Hub;
use crate::door::inflow::InflowParts;
use crate::door::judge::Judge;
use crate::door::refusals::Refusals;
use crate::door::room::Room;
use crate::door::sessions::Sessions;
use crate::door::settings::DoorSettings;
use crate::door::websocket::Origins;
use crate::gatekeeper::Gatekeeper;
use crate::guesses::Guesses;
use crate::stats::{DoorStats, Refusal};

/// Where the door is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everybody is welcome.
    Open,
    /// Nothing more is read; what is in hand is finished and answered.
    Draining,
    /// The deadline passed.
    Over,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) settings: DoorSettings,
    /// Whether sessions may outlive their connections here: of several doors on one store one keeps them.
    pub(crate) keeps_sessions: bool,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) clock: Clock,
    pub(crate) hub: Arc<Hub>,
    pub(crate) inflow: Arc<InflowParts>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) judge: Judge,
    pub(crate) stats: Arc<DoorStats>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) guesses: Guesses,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) origins: Origins,
    pub(crate) room: Room,
}

impl Shared {
    /// Counts a refusal; says whether the log has room for it.
    pub(crate) fn refuse(&self, refusal: Refusal) -> bool {
        self.refusals.count(refusal)
    }
}
