//! Judges clients that are connected once more, when what they logged in with may have changed since.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::door::sessions::{CloseReason, Sessions, Visitor};
use crate::gatekeeper::{Gatekeeper, Identity};
use crate::tls::{ClientChain, Tls};

/// How often the door looks for certificates that have expired.
const EXPIRY_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Closes the connections of clients that the gatekeeper would not let in now.
pub(crate) struct Judge {
    sessions: Arc<Sessions>,
    gatekeeper: Arc<dyn Gatekeeper>,
    /// Knows which certificates are trusted.
    tls: Option<Arc<Tls>>,
    /// Counts how often clients were judged again.
    rechecks: AtomicU64,
}

impl Judge {
    pub(crate) fn new(
        sessions: Arc<Sessions>,
        gatekeeper: Arc<dyn Gatekeeper>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self { sessions, gatekeeper, tls, rechecks: AtomicU64::new(0) }
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

    /// Judges a client that has just taken its seat, because it was not among those who were judged before: false when its
    /// certificate is not trusted any more. Its password is looked up only if others were judged since it was checked.
    pub(crate) async fn admits(&self, visitor: &Visitor, rechecks: u64) -> bool {
        if let Some(identity) = visitor.principal.device()
            && self.rechecks() != rechecks
        {
            self.judge(Some(identity)).await;
        }
        visitor.chain.as_ref().is_none_or(|chain| self.trusts(chain))
    }

    /// Takes up changed certificate files, and closes the connections of clients that are not trusted any more, for ever.
    pub(crate) async fn watch_certificates(&self) -> Infallible {
        let Some(tls) = &self.tls else { return std::future::pending().await };
        let mut taken_up = tls.taken_up();
        let close_untrusted = async {
            loop {
                tokio::select! {
                    changed = taken_up.changed() => {
                        changed.expect("the sender is as old as the files");
                        self.close_unless(|chain| tls.still_trusts(chain)).await;
                    }
                    () = sleep(EXPIRY_LOOK_INTERVAL) => self.close_unless(|chain| !chain.is_over()).await,
                }
            }
        };
        tokio::select! {
            never = close_untrusted => never,
            never = tls.watch() => never,
        }
    }

    fn trusts(&self, chain: &ClientChain) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.still_trusts(chain))
    }

    /// Closes the connections that came with certificates which are not accepted any more.
    async fn close_unless(&self, is_accepted: impl Fn(&ClientChain) -> bool) {
        for connected in self.sessions.certified() {
            if connected.visitor.chain.as_ref().is_some_and(|chain| !is_accepted(chain)) {
                connected.close(CloseReason::Revoked);
            }
            // A signature takes a while to verify, and there may be a thousand.
            yield_now().await;
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
