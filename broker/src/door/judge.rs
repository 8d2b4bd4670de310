//! Judges clients that are connected once more, when what they logged in with may have changed since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::door::sessions::{CloseReason, Sessions};
use crate::gatekeeper::{Gatekeeper, Identity, Principal};

/// Closes the connections of clients that the gatekeeper would not let in now.
pub(crate) struct Judge {
    sessions: Arc<Sessions>,
    gatekeeper: Arc<dyn Gatekeeper>,
    /// Counts how often clients were judged again.
    rechecks: AtomicU64,
}

impl Judge {
    pub(crate) fn new(sessions: Arc<Sessions>, gatekeeper: Arc<dyn Gatekeeper>) -> Self {
        Self { sessions, gatekeeper, rechecks: AtomicU64::new(0) }
    }

    /// Judges everybody who is connected, or the connections of one device: the device may not be enabled any more, or its
    /// password not accepted. Nobody is closed for want of an answer.
    pub(crate) async fn recheck(&self, of: Option<&Identity>) {
        self.rechecks.fetch_add(1, Ordering::SeqCst);
        self.judge(of).await;
    }

    /// How often clients were judged so far.
    pub(crate) fn rechecks(&self) -> u64 {
        self.rechecks.load(Ordering::SeqCst)
    }

    /// Judges a device that has just taken its seat, when others were judged since its login was looked up: it was not
    /// among them, and its credential may have gone meanwhile.
    pub(crate) async fn judge_if_missed(&self, principal: &Principal, rechecks: u64) {
        if let Some(identity) = principal.device()
            && self.rechecks() != rechecks
        {
            self.judge(Some(identity)).await;
        }
    }

    async fn judge(&self, of: Option<&Identity>) {
        let gatekeeper = &self.gatekeeper;
        let mut holders = Vec::new();
        let mut credentials = Vec::new();
        for connected in self.sessions.connected(of) {
            let device = connected.visitor.principal.device();
            if device.is_some_and(|identity| gatekeeper.scope(identity).is_none()) {
                connected.close(CloseReason::Revoked);
            } else if let Some(credential) = &connected.visitor.credential {
                credentials.push(credential.clone());
                holders.push(connected);
            }
        }
        if credentials.is_empty() {
            return;
        }
        let accepted = gatekeeper.still_accepts(&credentials).await.unwrap_or_default();
        let refused = holders.iter().zip(accepted).filter(|(_, is_accepted)| !is_accepted);
        refused.for_each(|(holder, _)| holder.close(CloseReason::Revoked));
    }
}
