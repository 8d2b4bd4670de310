//! A client before its login.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::door::protection::{Protection, Waiting};
use crate::tls::ClientChain;

/// What is known of a client before its first packet. It counts as waiting as long as this lives.
pub(crate) struct Caller {
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// Its login must be over by then.
    pub(crate) deadline: Instant,
    /// The certificate it showed.
    pub(crate) chain: Option<ClientChain>,
    /// What a refusal waits before it is told.
    pub(crate) penalty: Duration,
    /// Its place among those of its address.
    _waiting: Waiting,
}

impl Caller {
    pub(crate) fn new(peer: SocketAddr, deadline: Instant, waiting: Waiting) -> Self {
        Self { peer, deadline, chain: None, penalty: Duration::ZERO, _waiting: waiting }
    }

    /// Notes that its credential is right.
    pub(crate) fn was_right(&self, protection: &Protection, user: Option<&str>) {
        if let Some(user) = user {
            protection.right_credential(user);
        }
    }

    /// Notes that its credential is wrong, or that it showed none where one is needed.
    pub(crate) fn was_wrong(&mut self, protection: &Protection, user: Option<&str>) {
        self.penalty = protection.wrong_credential(self.peer.ip(), user, Instant::now());
    }
}
