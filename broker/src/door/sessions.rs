//! The sessions of the door: one per client id, so that the second connection of a client ends the first, and a session
//! that outlives its connection is found again.
//!
//! A client id belongs to the credential that uses it: nobody can push another device out by taking its name.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use schema::clock::Timestamp;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::door::hub::Hub;
use crate::door::inbound::Inbound;
use crate::door::inflow::{Inflow, InflowParts};
use crate::door::journal::Lsn;
use crate::door::session::{Session, SessionParts};
use crate::door::will::{DelayedWill, HeldWill};
use crate::gatekeeper::{CredentialId, Identity, Principal};
use crate::lines::Lines;
use crate::store::{Change, Client, Owner, StoredSession, WaitingWill};
use crate::tls::ClientChain;

/// Why a session's connection is told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client connected again.
    TakenOver,
    /// The device is not enabled any more, or its certificate or password not accepted.
    Revoked,
    /// Its session was deleted from the store.
    Deleted,
}

/// How a client wants to find and leave its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Nothing of an earlier session is wanted.
    pub(crate) is_clean: bool,
    /// Seconds the session outlives its connection; zero when it ends with it.
    pub(crate) expiry_seconds: u32,
}

/// All sessions of a door.
pub(crate) struct Sessions {
    hub: Arc<Hub>,
    parts: Arc<SessionParts>,
    inflow: Arc<InflowParts>,
    lasting_max: usize,
    next_number: AtomicU64,
    state: Mutex<Registry>,
    /// Where last wills go that are published by nobody's connection: to somebody who finishes them.
    wills: UnboundedSender<Inflow>,
    /// What the log is told of sessions that ended to make room for others.
    ended_lines: Lines<()>,
}

#[derive(Default)]
struct Registry {
    entries: HashMap<Client, Entry>,
    /// Windows of sessions that are over, as long as somebody still collects them: a client that comes back meanwhile
    /// goes on with them, so that its messages keep their order.
    leftovers: HashMap<Client, Weak<Inbound>>,
}

struct Entry {
    session: Arc<Session>,
    inbound: Arc<Inbound>,
    place: Place,
}

/// Where a session is.
enum Place {
    /// Its client is connected.
    Seated(SeatEntry),
    /// Its client left.
    Away {
        since: Instant,
        ends_at: Instant,
        /// Its last will, which waits for the client to come back in time.
        will: Option<DelayedWill>,
    },
}

/// Who is connected, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) principal: Principal,
    /// The certificate it came with.
    pub(crate) chain: Option<ClientChain>,
    /// The password it came with.
    pub(crate) credential: Option<CredentialId>,
}

/// Somebody who is connected, and may be told to go.
pub(crate) struct Connected {
    pub(crate) visitor: Visitor,
    close: watch::Sender<Option<CloseReason>>,
}

impl Connected {
    /// Tells the connection to close.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.close.send_replace(Some(reason));
    }
}

struct SeatEntry {
    id: u64,
    visitor: Visitor,
    close: watch::Sender<Option<CloseReason>>,
    /// Its sender goes when the connection is over and its last will was taken.
    gone: watch::Receiver<()>,
}

/// A connection's place at its session; dropping it says that the connection is over.
pub(crate) struct Seat {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    inbound: Arc<Inbound>,
    id: u64,
    close: watch::Receiver<Option<CloseReason>>,
    will: Option<(HeldWill, Principal, Duration)>,
    _alive: watch::Sender<()>,
}

/// A seat that was taken.
pub(crate) struct Seated {
    pub(crate) seat: Seat,
    /// The session was there before.
    pub(crate) is_present: bool,
    /// How far the journal must be stored before the client is told: the session it had is gone then.
    pub(crate) ended: Lsn,
}

/// No seat is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// Whoever sat there did not go in time.
    Occupied,
    /// There are as many lasting sessions as there may be, and all their clients are connected.
    TooMany,
}

impl Sessions {
    /// No sessions yet, and the last wills that come due: whoever gets one finishes it.
    pub(crate) fn new(
        parts: Arc<SessionParts>,
        inflow: Arc<InflowParts>,
        lasting_max: usize,
    ) -> (Arc<Self>, UnboundedReceiver<Inflow>) {
        // Number 0 stands for publishers of an earlier process.
        let next_number = AtomicU64::new(1);
        let hub = Arc::clone(&inflow.hub);
        let (wills, due) = unbounded_channel();
        let (state, ended_lines) = <(Mutex<Registry>, Lines<()>)>::default();
        let sessions = Self { hub, parts, inflow, lasting_max, next_number, state, wills, ended_lines };
        (Arc::new(sessions), due)
    }

    /// Takes up what was stored, as if all clients had left `now` or when they did. Wills whose session is over are published.
    pub(crate) fn restore(&self, sessions: Vec<StoredSession>, wills: Vec<WaitingWill>, now: Timestamp) {
        let mut state = self.lock();
        for stored in sessions {
            let away =
                stored.left_at.map_or(Duration::ZERO, |left_at| (now - left_at).to_std().unwrap_or_default());
            let left = Duration::from_secs(u64::from(stored.expiry_seconds)).saturating_sub(away);
            let had_left = stored.left_at.is_some();
            let session = Session::restore(&self.parts, self.number(), stored);
            if left.is_zero() {
                session.end().unseen();
                continue;
            }
            self.hub.restore(&session);
            if !had_left {
                session.detach(now);
            }
            let since = Instant::now();
            let place = Place::Away { since, ends_at: since + left, will: None };
            let inbound = self.inflow.inbound(&session.client().owner);
            state.entries.insert(session.client().clone(), Entry { session, inbound, place });
        }
        for stored in wills {
            self.restore_will(&mut state, stored, now);
        }
        // There may have been more room when they were stored.
        while lasting(&state) > self.lasting_max && self.end_one(&mut state).is_ok() {}
    }

    fn restore_will(&self, state: &mut Registry, stored: WaitingWill, now: Timestamp) {
        let client = stored.client.clone();
        match state.entries.get_mut(&client) {
            Some(Entry { session, inbound, place: Place::Away { will, .. } }) => {
                let restored = DelayedWill::restore(&self.inflow.wills, stored, Arc::clone(session), now);
                let before = std::mem::replace(will, restored);
                self.publish(inbound, before);
            }
            Some(Entry { place: Place::Seated(_), .. }) | None => {
                // Nobody can tell its publisher from others any more, which matters to nobody else.
                let session = Session::new(&self.parts, self.number(), client.clone(), 0);
                let restored = DelayedWill::restore(&self.inflow.wills, stored, session, now);
                let inbound = self.inflow.inbound(&client.owner);
                self.publish(&inbound, restored);
                // Its client may connect before the will is settled.
                state.leftovers.insert(client, Arc::downgrade(&inbound));
            }
        }
    }

    /// Takes the seat of `client`. Whoever sits there is closed first, and its last will is out before this returns.
    pub(crate) async fn sit(
        self: &Arc<Self>,
        client: &Client,
        visitor: &Visitor,
        wish: Wish,
        deadline: Instant,
    ) -> Result<Seated, NoSeat> {
        loop {
            let mut gone = match self.try_sit(client, visitor, wish)? {
                Ok(seated) => return Ok(seated),
                Err(gone) => gone,
            };
            // The channel carries no value: its end is the message.
            while timeout_at(deadline, gone.changed()).await.map_err(|_| NoSeat::Occupied)?.is_ok() {}
        }
    }

    /// Whether the client is connected.
    pub(crate) fn is_seated(&self, client: &Client) -> bool {
        self.lock().entries.get(client).is_some_and(|entry| matches!(entry.place, Place::Seated(_)))
    }

    /// Everybody who is connected, or those of one device.
    pub(crate) fn connected(&self, of: Option<&Identity>) -> Vec<Connected> {
        self.seated(|visitor| of.is_none() || of == visitor.principal.device())
    }

    /// Everybody who is connected and came with a certificate.
    pub(crate) fn certified(&self) -> Vec<Connected> {
        self.seated(|visitor| visitor.chain.is_some())
    }

    /// Ends the sessions whose time is over, and publishes the last wills whose time has come.
    pub(crate) fn end_overdue(&self, now: Instant) {
        let mut state = self.lock();
        let mut ended = Vec::new();
        for (client, Entry { inbound, place, .. }) in &mut state.entries {
            let Place::Away { ends_at, will, .. } = place else { continue };
            let is_over = now >= *ends_at;
            // Within the lock: a client that comes back publishes after its will.
            self.publish(inbound, will.take_if(|will| is_over || now >= will.due_at));
            if is_over {
                ended.push(client.clone());
            }
        }
        for client in ended {
            self.end(&mut state, &client).unseen();
        }
        state.leftovers.retain(|_, inbound| inbound.strong_count() > 0);
    }

    /// Ends sessions that the store does not have any more: their clients begin new ones.
    pub(crate) fn end_deleted(&self, ids: &[Uuid]) {
        let mut state = self.lock();
        let mut away = Vec::new();
        for (client, entry) in state.entries.iter().filter(|(_, entry)| ids.contains(&entry.session.id())) {
            entry.session.forget();
            match &entry.place {
                Place::Seated(seat) => drop(seat.close.send_replace(Some(CloseReason::Deleted))),
                Place::Away { .. } => away.push(client.clone()),
            }
        }
        for client in away {
            self.end(&mut state, &client).unseen();
        }
    }

    /// Has it said once a minute how many more sessions ended to make room for others, for ever.
    pub(crate) async fn sum_up(&self) -> Infallible {
        self.ended_lines
            .sum_up(|(), more| tracing::warn!(more, "lasting sessions ended as well in the last minute"))
            .await
    }

    /// All sessions.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().entries.values().map(|entry| Arc::clone(&entry.session)).collect()
    }

    fn try_sit(
        self: &Arc<Self>,
        client: &Client,
        visitor: &Visitor,
        wish: Wish,
    ) -> Result<Result<Seated, watch::Receiver<()>>, NoSeat> {
        let mut state = self.lock();
        let mut is_present = false;
        let mut ended = Lsn::START;
        match state.entries.get_mut(client).map(|entry| &mut entry.place) {
            Some(Place::Seated(seat)) => {
                seat.close.send_replace(Some(CloseReason::TakenOver));
                return Ok(Err(seat.gone.clone()));
            }
            Some(Place::Away { ends_at, .. }) if wish.is_clean || Instant::now() >= *ends_at => {
                ended = self.end(&mut state, client);
            }
            Some(Place::Away { will, .. }) => {
                is_present = true;
                if let Some(DelayedWill { id, .. }) = will.take() {
                    self.hub.journal.note(Change::WillGone { id });
                }
            }
            None => {}
        }
        if !is_present && wish.expiry_seconds > 0 {
            self.make_room(&mut state)?;
        }
        let (session, inbound) = match state.entries.remove(client) {
            Some(Entry { session, inbound, .. }) => (session, inbound),
            None => {
                let session = Session::new(&self.parts, self.number(), client.clone(), wish.expiry_seconds);
                let inbound = state.leftovers.remove(client).and_then(|inbound| inbound.upgrade());
                (session, inbound.unwrap_or_else(|| self.inflow.inbound(&client.owner)))
            }
        };
        let ended = ended.max(session.attach(wish.expiry_seconds));
        let id = self.number();
        let (close, close_seen) = watch::channel(None);
        let (alive, gone) = watch::channel(());
        let seat = SeatEntry { id, visitor: visitor.clone(), close, gone };
        let entry = Entry {
            session: Arc::clone(&session),
            inbound: Arc::clone(&inbound),
            place: Place::Seated(seat),
        };
        state.entries.insert(client.clone(), entry);
        drop(state);
        let sessions = Arc::clone(self);
        let seat = Seat { sessions, session, inbound, id, close: close_seen, will: None, _alive: alive };
        Ok(Ok(Seated { seat, is_present, ended }))
    }

    /// Ends a session. What it left open is collected all the same, its last will among it. A client is told once the journal
    /// is stored up to there.
    fn end(&self, state: &mut Registry, client: &Client) -> Lsn {
        let Some(Entry { session, inbound, place }) = state.entries.remove(client) else { return Lsn::START };
        if let Place::Away { will, .. } = place {
            self.publish(&inbound, will);
        }
        if inbound.open() > 0 {
            state.leftovers.insert(client.clone(), Arc::downgrade(&inbound));
        }
        self.hub.end(&session)
    }

    fn publish(&self, inbound: &Arc<Inbound>, will: Option<DelayedWill>) {
        if let Some(will) = will {
            // The receiver is there as long as the door.
            let _ = self.wills.send(Inflow::of_will(&self.inflow, inbound, will));
        }
    }

    fn seated(&self, is_meant: impl Fn(&Visitor) -> bool) -> Vec<Connected> {
        let state = self.lock();
        let seats = state.entries.values().filter_map(|entry| match &entry.place {
            Place::Seated(seat) => Some(seat),
            Place::Away { .. } => None,
        });
        seats
            .filter(|seat| is_meant(&seat.visitor))
            .map(|seat| Connected { visitor: seat.visitor.clone(), close: seat.close.clone() })
            .collect()
    }

    /// Ends lasting sessions until there is room for one more.
    fn make_room(&self, state: &mut Registry) -> Result<(), NoSeat> {
        while lasting(state) >= self.lasting_max {
            self.end_one(state)?;
        }
        Ok(())
    }

    /// Ends a lasting session whose client is away: of the owner who has the most of them the one that is away longest. So
    /// nobody pushes others out by taking many names.
    fn end_one(&self, state: &mut Registry) -> Result<(), NoSeat> {
        let mut counts: HashMap<&Owner, usize> = HashMap::new();
        for (client, entry) in &state.entries {
            *counts.entry(&client.owner).or_default() += usize::from(entry.session.expiry_seconds() > 0);
        }
        let away = state.entries.iter().filter_map(|(client, entry)| match entry.place {
            Place::Away { since, .. } => Some((Reverse(counts.get(&client.owner)), since, client)),
            Place::Seated(_) => None,
        });
        let (.., client) = away.min_by_key(|(count, since, _)| (*count, *since)).ok_or(NoSeat::TooMany)?;
        let client = client.clone();
        if self.ended_lines.has_room(()) {
            tracing::warn!(
                client_id = &*client.client_id,
                "a lasting session ended to make room for another"
            );
        }
        self.end(state, &client).unseen();
        Ok(())
    }

    fn leave(&self, seat: &mut Seat) {
        let mut state = self.lock();
        let client = seat.session.client();
        let Some(entry) = state.entries.get_mut(client) else { return };
        if !matches!(&entry.place, Place::Seated(own) if own.id == seat.id) {
            return;
        }
        let expiry_seconds = seat.session.expiry_seconds();
        if expiry_seconds == 0 {
            return self.end(&mut state, client).unseen();
        }
        let since = Instant::now();
        let now = self.hub.clock.now();
        let lasts = Duration::from_secs(u64::from(expiry_seconds));
        let will = seat.will.take().map(|(will, principal, delay)| {
            let session = Arc::clone(&seat.session);
            let waits = delay.min(lasts);
            let will = DelayedWill { id: Uuid::now_v7(), will, principal, session, due_at: since + waits };
            self.hub.journal.note(Change::WillWaits(Arc::new(will.to_stored(now + waits))));
            will
        });
        entry.place = Place::Away { since, ends_at: since + lasts, will };
        seat.session.detach(now);
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many sessions outlive their connections.
fn lasting(state: &Registry) -> usize {
    state.entries.values().filter(|entry| entry.session.expiry_seconds() > 0).count()
}

impl Seat {
    /// The session it is at.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The inbound window of its client.
    pub(crate) fn inbound(&self) -> &Arc<Inbound> {
        &self.inbound
    }

    /// Leaves the last will behind, for the time the client may take to come back.
    pub(crate) fn leave_will(&mut self, will: HeldWill, principal: Principal, delay: Duration) {
        self.will = Some((will, principal, delay));
    }

    /// Waits until this connection is told to close.
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
        let sessions = Arc::clone(&self.sessions);
        sessions.leave(self);
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
