//! Who is let in: what the door asks of whoever knows the credentials and the allowlist.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use tokio::time::Instant;

use crate::guesses::Source;
use crate::tls::Subject;

/// The one device a credential stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The customer.
    pub tenant_id: TenantId,
    /// The device of that customer.
    pub device_id: DeviceId,
}

/// Whose topics somebody may read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenants {
    /// Everybody's.
    All,
    /// Those of these tenants.
    Of(Vec<TenantId>),
}

/// A person's tool: it reads the topics of its tenants, and writes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operator {
    /// What it is called, in logs and as owner of its sessions.
    pub name: Arc<str>,
    /// Whose topics it may read.
    pub tenants: Tenants,
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Somebody without a credential, where none is needed.
    Anonymous,
    /// A device.
    Device(Identity),
    /// An operator's tool.
    Operator(Operator),
}

impl Principal {
    /// The device, if it is one.
    #[must_use]
    pub fn device(&self) -> Option<&Identity> {
        match self {
            Self::Device(identity) => Some(identity),
            Self::Anonymous | Self::Operator(_) => None,
        }
    }
}

/// A stored password that a client logged in with. Another password of the same user is another credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialId {
    /// The user name.
    pub username: Arc<str>,
    /// SHA-256 of what is stored of the password.
    pub mark: [u8; 32],
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
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Where it comes from.
    pub source: Source,
    /// It is not let in any more after that.
    pub deadline: Instant,
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
    /// The credential belongs to a device.
    Device {
        /// The device.
        identity: Identity,
        /// Its password; `None` when a certificate alone let it in.
        credential: Option<CredentialId>,
    },
    /// The credential belongs to an operator.
    Operator {
        /// The operator.
        operator: Operator,
        /// Its key; `None` when it cannot be taken away.
        credential: Option<CredentialId>,
    },
    /// A wrong credential, or none where one is needed.
    Refused,
    /// Nobody can tell now; the client should come back later.
    Unavailable,
}

/// Answers who a client is and what it may do. Implementations keep a snapshot: what is not `async` never waits.
#[async_trait]
pub trait Gatekeeper: Send + Sync {
    /// Checks what a client shows. Whoever shows a certificate and a password must be the same device by both. The door
    /// bounds the wait and slows down refused clients itself.
    async fn login(&self, shown: Shown<'_>) -> Login;

    /// Where the device may act now; `None` when it is not enabled any more, which closes its connections.
    fn scope(&self, identity: &Identity) -> Option<Scope>;

    /// Changes after any answer of [`Gatekeeper::scope`] has changed, so that nobody asks for each message.
    fn generation(&self) -> u64;

    /// Which of these passwords would be accepted now, one answer each; `None` when nobody can tell. Never answered from a
    /// snapshot that is older than the question.
    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>>;

    /// How long nothing could be committed; zero while all is well.
    fn stalled_for(&self) -> Duration;
}
