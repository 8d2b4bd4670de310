//! How bytes arrive and are acknowledged: the MQTT door of the engine and its link to an external broker.
//!
//! This crate never opens a payload. It turns what a device publishes into a [`Delivery`], hands it to the
//! [`Intake`] and answers the device only after [`Delivery::done`]: acknowledged means committed.

pub mod acl;
mod credits;
pub mod delivery;
pub mod door;
mod embedded;
pub mod fanout;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gatekeeper;
pub mod guesses;
pub mod lines;
pub mod link;
pub mod message;
pub mod places;
pub mod publication;
mod redelivery;
pub mod share;
pub mod stats;
pub mod store;
pub mod tls;
pub mod window;

pub use delivery::{Delivery, Intake, Settlement};
pub use door::{Addresses, Door, DoorError, DoorParts, DoorSettings, Live};
pub use gatekeeper::{CredentialId, Gatekeeper, Identity, Login, Operator, Principal, Scope, Shown, Tenants};
pub use link::{Link, LinkParts, LinkSettings, LinkTls, ProbeError, probe};
pub use message::{Fingerprint, Message, NotPublished, Qos, Verdict};
pub use publication::Publication;
pub use stats::{DoorStats, QueueDrop, Refusal};
pub use store::{DoorStore, DoorStoreError, Fault, Forgetful};
