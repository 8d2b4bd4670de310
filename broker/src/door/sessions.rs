//! The sessions that are logged in: one per client id, so that the second connection of a client ends the first.
//!
//! A client id belongs to the credential that uses it: nobody can push another device out by taking its name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::gatekeeper::{CredentialId, Identity};
use crate::tls::ClientChain;

/// Who is connected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// The device, unless anonymous.
    pub(crate) identity: Option<Identity>,
    /// The name the client gave itself.
    pub(crate) client_id: Arc<str>,
}

/// Why a session is told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client connected again.
    TakenOver,
    /// The device is not enabled any more, or its password or certificate not accepted.
    Revoked,
}

/// All sessions of a door.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    next_id: u64,
    entries: HashMap<Client, Entry>,
}

struct Entry {
    id: u64,
    /// The certificate it came with.
    chain: Option<ClientChain>,
    /// The password it came with.
    credential: Option<CredentialId>,
    close: watch::Sender<Option<CloseReason>>,
    /// Its sender goes when the session is over and its last will was taken.
    gone: watch::Receiver<()>,
}

/// A device that is connected.
pub(crate) struct Connected {
    pub(crate) identity: Identity,
    /// The password it came with.
    pub(crate) credential: Option<CredentialId>,
    close: watch::Sender<Option<CloseReason>>,
}

impl Connected {
    /// Tells its session to close.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.close.send_replace(Some(reason));
    }
}

/// A session's own entry; dropping it says that the session is over.
pub(crate) struct Seat {
    sessions: Arc<Sessions>,
    client: Client,
    id: u64,
    close: watch::Receiver<Option<CloseReason>>,
    _alive: watch::Sender<()>,
}

impl Sessions {
    /// Takes the seat of `client`. Whoever sits there is closed first, and its last will is out before this returns.
    /// `None` when that did not happen until `deadline`.
    pub(crate) async fn sit(
        self: &Arc<Self>,
        client: &Client,
        chain: Option<ClientChain>,
        credential: Option<CredentialId>,
        deadline: Instant,
    ) -> Option<Seat> {
        loop {
            let mut gone = match self.try_sit(client, chain.as_ref(), credential.as_ref()) {
                Ok(seat) => return Some(seat),
                Err(gone) => gone,
            };
            // The channel carries no value: its end is the message.
            while timeout_at(deadline, gone.changed()).await.ok()?.is_ok() {}
        }
    }

    /// Who is connected: every device, or the connections of one.
    pub(crate) fn connected(&self, of: Option<&Identity>) -> Vec<Connected> {
        let state = self.lock();
        let connected = state.entries.iter().filter_map(|(client, entry)| {
            let identity = client.identity.as_ref()?;
            of.is_none_or(|of| of == identity).then(|| Connected {
                identity: identity.clone(),
                credential: entry.credential.clone(),
                close: entry.close.clone(),
            })
        });
        connected.collect()
    }

    /// Closes every session of a device.
    pub(crate) fn close_all_of(&self, identity: &Identity, reason: CloseReason) {
        let state = self.lock();
        let own = state.entries.iter().filter(|(client, _)| client.identity.as_ref() == Some(identity));
        for (_, entry) in own {
            entry.close.send_replace(Some(reason));
        }
    }

    /// Closes every session that came with a certificate which is not accepted any more.
    pub(crate) fn close_untrusted(&self, is_trusted: impl Fn(&ClientChain) -> bool) {
        // Judging costs some time each, so it happens outside the lock.
        let holders: Vec<_> = (self.lock().entries.values())
            .filter_map(|entry| Some((entry.chain.clone()?, entry.close.clone())))
            .collect();
        for (_, close) in holders.into_iter().filter(|(chain, _)| !is_trusted(chain)) {
            close.send_replace(Some(CloseReason::Revoked));
        }
    }

    fn try_sit(
        self: &Arc<Self>,
        client: &Client,
        chain: Option<&ClientChain>,
        credential: Option<&CredentialId>,
    ) -> Result<Seat, watch::Receiver<()>> {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get(client) {
            entry.close.send_replace(Some(CloseReason::TakenOver));
            return Err(entry.gone.clone());
        }
        let id = state.next_id;
        state.next_id += 1;
        let (close, close_seen) = watch::channel(None);
        let (alive, gone) = watch::channel(());
        let entry = Entry { id, chain: chain.cloned(), credential: credential.cloned(), close, gone };
        state.entries.insert(client.clone(), entry);
        drop(state);
        Ok(Seat { sessions: Arc::clone(self), client: client.clone(), id, close: close_seen, _alive: alive })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Who sits here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until this session is told to close.
    pub(crate) async fn close_asked(&mut self) -> CloseReason {
        if let Ok(reason) = self.close.wait_for(Option::is_some).await.map(|reason| *reason) {
            return reason.unwrap_or(CloseReason::TakenOver);
        }
        // The entry outlives the seat, so its end of the channel never goes first.
        std::future::pending().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        if state.entries.get(&self.client).is_some_and(|entry| entry.id == self.id) {
            state.entries.remove(&self.client);
        }
    }
}
