//! How the door behaves, where it listens, and why it may not open.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io;

use crate::store::DoorStoreError;
use crate::tls::{TlsError, TlsFiles};

/// Places that there are at least for clients that are not logged in.
const HANDSHAKES_MIN: usize = 64;

/// What carries messages to subscribers that are promised nothing: plain subscriptions at quality 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// The queues of the door.
    Queues,
    /// The router of rumqttd, embedded.
    Rumqttd,
}

/// How the door behaves.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Address of the plain listener; port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// Address of the encrypted listener; it needs `tls`.
    pub listen_tls: Option<SocketAddr>,
    /// Address of the listener of WebSockets in the clear.
    pub listen_ws: Option<SocketAddr>,
    /// Address of the listener of encrypted WebSockets; it needs `tls`.
    pub listen_wss: Option<SocketAddr>,
    /// What encrypts.
    pub tls: Option<TlsFiles>,
    /// Origins of pages that may open a WebSocket; none named means all.
    pub ws_allowed_origins: Vec<String>,
    /// Whether clients without a credential are let in.
    pub allow_anonymous: bool,
    /// Clients that are logged in; one owner has a third at most of what the others leave.
    pub connections_max: usize,
    /// Clients of one address that are not logged in; zero means a third of what other addresses leave.
    pub handshakes_per_address_max: usize,
    /// What carries messages to subscribers that are promised nothing.
    pub live: Live,
    /// Unanswered messages per connection, in each direction.
    pub inflight_max: usize,
    /// Bytes after the fixed header a PUBLISH may have; a larger one is refused and recorded.
    pub message_bytes_max: usize,
    /// Messages of all connections in the engine's hands.
    pub credit_messages_max: usize,
    /// Bytes of all connections in the engine's hands; at least one message of the largest size.
    pub credit_bytes_max: usize,
    /// From the accept to the end of the login.
    pub connect_timeout: Duration,
    /// Database trouble that lasts longer turns new clients away.
    pub stall_max: Duration,
    /// A packet that was begun must be complete by then, and an answer must have been read by then.
    pub stuck_timeout: Duration,
    /// Seconds a client of MQTT 5 may stay silent; it is told so when it asks for more, or for no limit.
    pub keep_alive_seconds_max: u16,
    /// Seconds a session may outlive its connection.
    pub session_expiry_seconds_max: u32,
    /// Sessions that may outlive their connections.
    pub sessions_max: usize,
    /// Filters one client may subscribe to.
    pub subscriptions_max: usize,
    /// Messages that may wait for one client.
    pub queued_messages_max: usize,
    /// Bytes that may wait for one client.
    pub queued_bytes_max: usize,
    /// Bytes that may wait for all clients together.
    pub queued_total_bytes_max: usize,
    /// How long a message may wait for its client.
    pub queued_age_max: Duration,
}

impl DoorSettings {
    /// Sockets that a door with so many connections may have open: those of clients that are not logged in are among them.
    #[must_use]
    pub fn sockets_max(connections_max: usize) -> usize {
        connections_max.saturating_add(Self::handshakes_max(connections_max))
    }

    /// The most connections for which so many sockets suffice; one at least.
    #[must_use]
    pub fn connections_within(sockets_max: usize) -> usize {
        (sockets_max / 2).min(sockets_max.saturating_sub(HANDSHAKES_MIN)).max(1)
    }

    /// Places for clients that are not logged in, beside so many for those that are.
    pub(crate) fn handshakes_max(connections_max: usize) -> usize {
        connections_max.max(HANDSHAKES_MIN)
    }
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            listen: None,
            listen_tls: None,
            listen_ws: None,
            listen_wss: None,
            tls: None,
            ws_allowed_origins: Vec::new(),
            allow_anonymous: false,
            connections_max: 1000,
            handshakes_per_address_max: 0,
            live: Live::Queues,
            inflight_max: 100,
            message_bytes_max: 1 << 20,
            credit_messages_max: 20_000,
            credit_bytes_max: 32 << 20,
            connect_timeout: Duration::from_secs(10),
            stall_max: Duration::from_secs(30),
            stuck_timeout: Duration::from_secs(30),
            keep_alive_seconds_max: 60,
            session_expiry_seconds_max: 7 * 24 * 3600,
            sessions_max: 1000,
            subscriptions_max: 100,
            queued_messages_max: 1000,
            queued_bytes_max: 8 << 20,
            queued_total_bytes_max: 64 << 20,
            queued_age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The files of the encrypted listeners are of no use.
    #[error("encrypt the MQTT listener")]
    Tls(#[from] TlsError),
    /// A listener is to be encrypted and nothing is there to do it with.
    #[error("encrypt the listener at {address} without a certificate")]
    NoCertificate {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The sessions and retained messages could not be loaded.
    #[error("load the sessions and retained messages")]
    Store(#[from] DoorStoreError),
}

/// Where a door listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In the clear.
    pub plain: Option<SocketAddr>,
    /// Encrypted.
    pub tls: Option<SocketAddr>,
    /// WebSockets in the clear.
    pub ws: Option<SocketAddr>,
    /// Encrypted WebSockets.
    pub wss: Option<SocketAddr>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("mqtt", self.plain), ("mqtts", self.tls), ("ws", self.ws), ("wss", self.wss)];
        let mut separator = "";
        for (scheme, address) in all {
            if let Some(address) = address {
                write!(f, "{separator}{scheme}://{address}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_fit_as_there_are_sockets_for() {
        for sockets in 66..2000 {
            let connections = DoorSettings::connections_within(sockets);
            assert!(DoorSettings::sockets_max(connections) <= sockets, "{sockets}");
            assert!(DoorSettings::sockets_max(connections + 2) > sockets, "{sockets}");
        }
        assert_eq!(DoorSettings::connections_within(0), 1);
    }
}
