//! A client before its login.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::guesses::{Guesses, Source};
use crate::share::Permit;
use crate::tls::ClientChain;

/// What is known of a client before its first packet. It counts as waiting as long as this lives.
pub(crate) struct Caller {
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// Its login must be over by then.
    pub(crate) deadline: Instant,
    /// The certificate it showed.
    pub(crate) chain: Option<ClientChain>,
    /// When its credential began to be checked. A refusal is told so long after that, so that the time a check takes shows
    /// nobody which user names there are.
    asked_at: Instant,
    /// When a refusal is told.
    pub(crate) told_at: Instant,
    /// Its place among those of its address.
    _place: Permit<Source>,
}

impl Caller {
    pub(crate) fn new(peer: SocketAddr, deadline: Instant, place: Permit<Source>) -> Self {
        let now = Instant::now();
        Self { peer, deadline, chain: None, asked_at: now, told_at: now, _place: place }
    }

    /// What it has in common with others of its address.
    pub(crate) fn source(&self) -> Source {
        Source::of(self.peer.ip())
    }

    /// Notes that its credential is about to be checked.
    pub(crate) fn asks(&mut self) {
        self.asked_at = Instant::now();
    }

    /// Notes that its credential is right.
    pub(crate) fn was_right(&self, guesses: &Guesses, user: Option<&str>) {
        if let Some(user) = user {
            guesses.right_credential(self.source(), user);
        }
    }

    /// Notes that its credential is wrong, or that it showed none where one is needed.
    pub(crate) fn was_wrong(&mut self, guesses: &Guesses, user: Option<&str>) {
        self.told_at = self.asked_at + guesses.wrong_credential(self.source(), user, Instant::now());
    }
}
