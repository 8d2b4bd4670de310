//! What the door keeps across restarts: sessions that outlive their connections, and retained messages.
//!
//! Everything that changes is a [`Change`]. The door hands them over in order, many at a time, and answers its clients
//! only after the changes that belong to the answer are stored.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use schema::clock::Timestamp;
use uuid::Uuid;

use crate::gatekeeper::Identity;
use crate::message::Qos;
use crate::publication::Publication;

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("reach the store of sessions and retained messages")]
pub struct DoorStoreError {
    /// It is not the store that is at fault but what was handed to it: it would be refused again.
    pub is_data: bool,
    /// What the store said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Where sessions and retained messages last.
#[async_trait]
pub trait DoorStore: Send + Sync {
    /// Everything that is stored; read once, before the door opens.
    async fn load(&self) -> Result<Stored, DoorStoreError>;

    /// Stores changes in their order, all or none of them. The same changes may come again after an error, even when they
    /// were stored.
    async fn apply(&self, changes: &[Change]) -> Result<(), DoorStoreError>;
}

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Clients without a credential.
    Anonymous,
    /// A device.
    Device(Identity),
    /// An operator, by name.
    Operator(Arc<str>),
}

/// A name a client gave itself, in the realm of its owner: nobody takes another's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Who stands behind it.
    pub owner: Owner,
    /// The name.
    pub client_id: Arc<str>,
}

/// What a client asked for with one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter as it was sent, with its share name.
    pub filter: Arc<str>,
    /// The highest quality messages are sent with.
    pub qos: Qos,
    /// Not what the client published itself.
    pub no_local: bool,
    /// With the retain flag they were published with.
    pub retain_as_published: bool,
    /// The number the client wants to see with each message.
    pub id: Option<NonZeroU32>,
}

/// A message in the queue of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its place in the queue; the packet id follows from it.
    pub sequence: u64,
    /// The message.
    pub publication: Arc<Publication>,
    /// At least once or exactly once.
    pub qos: Qos,
    /// The retain flag it is sent with.
    pub retain: bool,
    /// Numbers of the subscriptions it comes from.
    pub subscription_ids: Vec<NonZeroU32>,
    /// The client has it, and is only to be told to release its id (quality 2).
    pub is_received: bool,
    /// When it was queued.
    pub queued_at: Timestamp,
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its key.
    pub id: Uuid,
    /// Whose it is.
    pub client: Client,
    /// Seconds it outlives its connection.
    pub expiry_seconds: u32,
    /// When its connection ended; `None` while it lasted.
    pub left_at: Option<Timestamp>,
    /// What the client subscribed to.
    pub subscriptions: Vec<Subscription>,
    /// Ids of messages at quality 2 that were taken in and not yet released.
    pub received: Vec<u16>,
    /// What waits for the client, in order.
    pub queue: Vec<Queued>,
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sessions that outlived their connections.
    pub sessions: Vec<StoredSession>,
    /// Retained messages.
    pub retained: Vec<Publication>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session began, or lasts as long as this from now on; its connection is there, or left at that time.
    Session {
        /// The session.
        id: Uuid,
        /// Whose it is.
        client: Client,
        /// Seconds it outlives its connection.
        expiry_seconds: u32,
        /// When its connection ended.
        left_at: Option<Timestamp>,
    },
    /// A session is over, with everything that belongs to it.
    Ended {
        /// The session.
        id: Uuid,
    },
    /// A subscription was made or replaced.
    Subscribed {
        /// The session.
        id: Uuid,
        /// The subscription.
        subscription: Subscription,
    },
    /// A subscription was taken back.
    Unsubscribed {
        /// The session.
        id: Uuid,
        /// Its filter.
        filter: Arc<str>,
    },
    /// A message at quality 2 was taken in.
    Received {
        /// The session.
        id: Uuid,
        /// Its packet id.
        packet_id: u16,
    },
    /// The client released that id.
    Released {
        /// The session.
        id: Uuid,
        /// The packet id.
        packet_id: u16,
    },
    /// A message waits for the client.
    Queued {
        /// The session.
        id: Uuid,
        /// The message.
        queued: Queued,
    },
    /// The client has a message at quality 2, and is to release its id.
    Taken {
        /// The session.
        id: Uuid,
        /// The message's place.
        sequence: u64,
    },
    /// A message does not wait any more: delivered, or dropped.
    Dequeued {
        /// The session.
        id: Uuid,
        /// The message's place.
        sequence: u64,
    },
    /// A message is the retained one of its topic.
    Retained(Arc<Publication>),
    /// A topic has no retained message any more.
    Unretained(Arc<str>),
}

impl Change {
    /// Bytes it takes on its way to the store, about.
    pub(crate) fn cost_bytes(&self) -> usize {
        match self {
            Self::Queued { queued, .. } => queued.publication.cost_bytes(),
            Self::Retained(publication) => publication.cost_bytes(),
            Self::Subscribed { subscription, .. } => subscription.filter.len(),
            Self::Unsubscribed { filter, .. } => filter.len(),
            Self::Unretained(topic) => topic.len(),
            Self::Session { .. }
            | Self::Ended { .. }
            | Self::Received { .. }
            | Self::Released { .. }
            | Self::Taken { .. }
            | Self::Dequeued { .. } => 0,
        }
    }
}

/// Keeps nothing: sessions and retained messages last as long as the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

#[async_trait]
impl DoorStore for Forgetful {
    async fn load(&self) -> Result<Stored, DoorStoreError> {
        Ok(Stored::default())
    }

    async fn apply(&self, _changes: &[Change]) -> Result<(), DoorStoreError> {
        Ok(())
    }
}
