//! Who is let in: what the door asks of whoever knows the credentials and the allowlist.

use std::time::Duration;

use async_trait::async_trait;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};

use crate::tls::Subject;

/// The one device a credential stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The customer.
    pub tenant_id: TenantId,
    /// The device of that customer.
    pub device_id: DeviceId,
}

/// Where a device may act; `None` is a wildcard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The farm of its allowlist row.
    pub farm_id: Option<FarmId>,
    /// The barn of its allowlist row.
    pub barn_id: Option<BarnId>,
    /// The only weighing station it may speak for.
    pub station_id: Option<StationId>,
}

/// What a client shows of itself.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Whom its verified certificate names.
    pub certificate: Option<&'a Subject>,
    /// The user name of its CONNECT.
    pub username: Option<&'a str>,
    /// The password of its CONNECT.
    pub password: Option<&'a [u8]>,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// No credential was shown and none is needed.
    Anonymous,
    /// The credential belongs to this device.
    Device(Identity),
    /// A wrong credential, or none where one is needed.
    Refused,
    /// Nobody can tell now; the client should come back later.
    Unavailable,
}

/// Answers who a client is and what it may do. Implementations keep a snapshot: only [`Gatekeeper::login`] may wait.
#[async_trait]
pub trait Gatekeeper: Send + Sync {
    /// Checks what a client shows. Whoever shows a certificate and a password must be the same device by both. The door
    /// bounds the wait and slows down refused clients itself.
    async fn login(&self, shown: Shown<'_>) -> Login;

    /// Where the device may act now; `None` when it is not enabled any more, which closes its connections.
    fn scope(&self, identity: &Identity) -> Option<Scope>;

    /// How long nothing could be committed; zero while all is well.
    fn stalled_for(&self) -> Duration;
}
