//! Why a packet is refused, and the numbers version 5 has for it.

use crate::share::Spent;

/// A reason code of version 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u8);

impl Reason {
    /// Whether it says that something was refused or went wrong.
    pub(crate) fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    pub(crate) const SUCCESS: Self = Self(0x00);
    pub(crate) const NORMAL_DISCONNECTION: Self = Self(0x00);
    pub(crate) const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    pub(crate) const UNSPECIFIED: Self = Self(0x80);
    pub(crate) const MALFORMED_PACKET: Self = Self(0x81);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x82);
    pub(crate) const IMPLEMENTATION_SPECIFIC: Self = Self(0x83);
    pub(crate) const UNSUPPORTED_VERSION: Self = Self(0x84);
    pub(crate) const CLIENT_ID_NOT_VALID: Self = Self(0x85);
    pub(crate) const NOT_AUTHORIZED: Self = Self(0x87);
    pub(crate) const SERVER_UNAVAILABLE: Self = Self(0x88);
    pub(crate) const SERVER_BUSY: Self = Self(0x89);
    pub(crate) const SERVER_SHUTTING_DOWN: Self = Self(0x8b);
    pub(crate) const BAD_AUTHENTICATION_METHOD: Self = Self(0x8c);
    pub(crate) const KEEP_ALIVE_TIMEOUT: Self = Self(0x8d);
    pub(crate) const SESSION_TAKEN_OVER: Self = Self(0x8e);
    pub(crate) const TOPIC_FILTER_INVALID: Self = Self(0x8f);
    pub(crate) const PACKET_ID_NOT_FOUND: Self = Self(0x92);
    pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    pub(crate) const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub(crate) const PACKET_TOO_LARGE: Self = Self(0x95);
    pub(crate) const QUOTA_EXCEEDED: Self = Self(0x97);
    pub(crate) const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    pub(crate) const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    pub(crate) const USE_ANOTHER_SERVER: Self = Self(0x9c);
    pub(crate) const CONNECTION_RATE_EXCEEDED: Self = Self(0x9f);
}

/// The owner has its share of a budget, or the budget is spent.
impl From<Spent> for Reason {
    fn from(_: Spent) -> Self {
        Self::QUOTA_EXCEEDED
    }
}

/// A packet that breaks the protocol: the rule it breaks, and the reason a client of version 5 is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub(crate) struct Malformed {
    pub(crate) rule: &'static str,
    pub(crate) reason: Reason,
}

impl Malformed {
    /// A packet that cannot be read.
    pub(crate) const fn new(rule: &'static str) -> Self {
        Self::with(rule, Reason::MALFORMED_PACKET)
    }

    /// A packet that can be read and must not be sent.
    pub(crate) const fn protocol(rule: &'static str) -> Self {
        Self::with(rule, Reason::PROTOCOL_ERROR)
    }

    /// A packet for which there is a reason of its own.
    pub(crate) const fn with(rule: &'static str, reason: Reason) -> Self {
        Self { rule, reason }
    }
}
