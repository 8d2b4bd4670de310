//! Where committed messages go: the retained set, the queues of subscribers, and the router of live ones, if there is one.
//!
//! Two ways lead to a subscriber. A subscription is matched here and served from the queue of its session; one that carries
//! no promise, a plain one at quality 0, is left to the router where there is one: best effort. Only this file knows which
//! goes which way.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use schema::clock::{Clock, Timestamp};

use crate::door::journal::{Journal, Lsn};
use crate::door::packet::{Reason, RetainHandling};
use crate::door::pending::PendingRetained;
use crate::door::queue::Manner;
use crate::door::retained::Retained;
use crate::door::routes::{Match, Routes};
use crate::door::session::Session;
use crate::fanout::Fanout;
use crate::filter::{self, Shared};
use crate::message::Qos;
use crate::publication::Publication;
use crate::share::Spent;
use crate::store::Subscription;
use crate::window::Audience;

/// Everything a committed message may reach.
pub(crate) struct Hub {
    pub(crate) clock: Clock,
    pub(crate) journal: Arc<Journal>,
    pub(crate) retained: Arc<Retained>,
    /// The router of live messages, an option.
    pub(crate) router: Option<Arc<dyn Fanout>>,
    routes: RwLock<Routes>,
    /// Whether there is any route: one load for publish-only traffic.
    has_routes: AtomicBool,
    /// Whose turn it is in a group that shares a subscription.
    turn: AtomicUsize,
}

/// A subscription that was made.
#[derive(Debug)]
pub(crate) struct Subscribed {
    /// How far the journal must be stored before the client is told.
    pub(crate) lsn: Lsn,
    /// What the connection has to tell the router.
    pub(crate) listening: Listening,
    /// The retained messages that follow the answer.
    pub(crate) retained: Option<PendingRetained>,
}

/// A subscription that was taken back.
#[derive(Debug)]
pub(crate) struct Unsubscribed {
    /// How far the journal must be stored before the client is told.
    pub(crate) lsn: Lsn,
    /// What the connection has to tell the router.
    pub(crate) listening: Listening,
}

/// Whether the router has to hear of a change of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    /// It does not serve it, or serves it as before.
    Same,
    /// It serves it from now on.
    Begins,
    /// It does not serve it any more.
    Ends,
}

impl Listening {
    fn of(was_live: bool, is_live: bool) -> Self {
        match (was_live, is_live) {
            (false, true) => Self::Begins,
            (true, false) => Self::Ends,
            (true, true) | (false, false) => Self::Same,
        }
    }
}

impl Hub {
    pub(crate) fn new(
        clock: Clock,
        journal: Arc<Journal>,
        retained: Arc<Retained>,
        router: Option<Arc<dyn Fanout>>,
    ) -> Self {
        Self {
            clock,
            journal,
            retained,
            router,
            routes: RwLock::default(),
            has_routes: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        }
    }

    /// Shows a committed message to everybody who wants it. What is promised to them is stored once the journal is
    /// stored up to there.
    pub(crate) fn publish(&self, publication: Publication) -> Lsn {
        let publication = Arc::new(publication);
        let lsn = if publication.retain { self.retained.set(&publication) } else { Lsn::START };
        if filter::is_too_deep(&publication.topic) {
            return lsn;
        }
        if let Some(router) = self.router.as_ref().filter(|router| router.is_wanted()) {
            router.publish(&publication);
        }
        lsn.max(self.queue(&publication))
    }

    /// Makes a subscription that is allowed. It is refused when the client has as many as it may have, or its owner as many
    /// whose retained messages are still to be sent.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        subscription: Subscription,
        retain_handling: RetainHandling,
        subscriptions_max: usize,
    ) -> Result<Subscribed, Reason> {
        let is_shared = Shared::parse(&subscription.filter).is_some();
        let may_want_retained = retain_handling != RetainHandling::Never && !is_shared;
        let retained = may_want_retained.then(|| self.pending(session, &subscription)).transpose()?;
        let (lsn, replaced) =
            session.subscribe(subscription.clone(), subscriptions_max).ok_or(Reason::QUOTA_EXCEEDED)?;
        let (was_live, is_live) =
            (replaced.as_ref().is_some_and(|replaced| self.is_live(replaced)), self.is_live(&subscription));
        if !is_live {
            self.insert_route(session, subscription);
        } else if replaced.is_some() && !was_live {
            self.remove_route(session, &subscription.filter);
        }
        let listening = Listening::of(was_live, is_live);
        let is_known = retain_handling == RetainHandling::SendIfNew && replaced.is_some();
        Ok(Subscribed { lsn, listening, retained: retained.filter(|_| !is_known) })
    }

    /// Takes a subscription back: says where that is in the journal. `None` when there is none.
    pub(crate) fn unsubscribe(&self, session: &Arc<Session>, filter: &str) -> Option<Unsubscribed> {
        let (lsn, removed) = session.unsubscribe(filter)?;
        let was_live = self.is_live(&removed);
        if !was_live {
            self.remove_route(session, filter);
        }
        Some(Unsubscribed { lsn, listening: Listening::of(was_live, false) })
    }

    /// Looks after the router for as long as this is polled.
    pub(crate) async fn watch_router(&self) {
        match &self.router {
            Some(router) => router.watch().await,
            None => std::future::pending().await,
        }
    }

    /// The filters of a session that the router serves.
    pub(crate) fn live_filters(&self, session: &Session) -> Vec<Arc<str>> {
        let subscriptions = session.subscriptions().into_iter();
        subscriptions.filter(|known| self.is_live(known)).map(|known| known.filter).collect()
    }

    /// How a session gets a message that the router shows; `None` when it does not want it.
    pub(crate) fn live_manner(&self, session: &Session, publication: &Publication) -> Option<Manner> {
        session.manner_at(publication, |known| self.is_live(known))
    }

    /// Whether a subscription is served by the router: nothing is promised, and nobody shares it.
    fn is_live(&self, subscription: &Subscription) -> bool {
        let is_plain = subscription.qos == Qos::AtMostOnce && Shared::parse(&subscription.filter).is_none();
        is_plain && self.router.is_some()
    }

    /// Whether a session that outlives its connection subscribed to a topic.
    pub(crate) fn is_kept(&self, topic: &str) -> bool {
        self.has_routes.load(Ordering::Relaxed)
            && self.routes.read().unwrap_or_else(PoisonError::into_inner).is_kept(topic)
    }

    /// Takes up the routes of a session that was stored.
    pub(crate) fn restore(&self, session: &Arc<Session>) {
        for subscription in session.subscriptions().into_iter().filter(|known| !self.is_live(known)) {
            self.insert_route(session, subscription);
        }
    }

    /// A session is over, for a client that is told so once the journal is stored up to there.
    pub(crate) fn end(&self, session: &Arc<Session>) -> Lsn {
        for subscription in session.subscriptions() {
            if !self.is_live(&subscription) {
                self.remove_route(session, &subscription.filter);
            }
        }
        session.end()
    }

    fn pending(&self, session: &Arc<Session>, subscription: &Subscription) -> Result<PendingRetained, Spent> {
        let search = self.retained.search(&session.client().owner, &subscription.filter)?;
        Ok(PendingRetained::new(search, subscription))
    }

    fn queue(&self, publication: &Arc<Publication>) -> Lsn {
        if !self.has_routes.load(Ordering::Relaxed) {
            return Lsn::START;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let matches = routes.matching(&publication.topic, publication.publisher, turn);
        drop(routes);
        if matches.is_empty() {
            return Lsn::START;
        }
        let now = self.clock.now();
        let each = matches.each.iter().map(|found| found.session.offer(found.parcel(publication), now));
        let lsn = each.max().unwrap_or_default();
        let groups = matches.groups.iter().map(|members| offer_one(members, publication, now));
        groups.fold(lsn, Lsn::max)
    }

    fn insert_route(&self, session: &Arc<Session>, subscription: Subscription) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(session, subscription);
        self.has_routes.store(true, Ordering::Relaxed);
    }

    fn remove_route(&self, session: &Arc<Session>, filter: &str) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.remove(session, filter);
        self.has_routes.store(!routes.is_empty(), Ordering::Relaxed);
    }
}

/// Queues a message for the first member of a group that has room for it.
fn offer_one(members: &[Match], publication: &Arc<Publication>, now: Timestamp) -> Lsn {
    let Some((last, others)) = members.split_last() else { return Lsn::START };
    let mut places =
        others.iter().filter_map(|member| member.session.try_offer(member.parcel(publication), now).ok());
    places.next().unwrap_or_else(|| last.session.offer(last.parcel(publication), now))
}

impl Audience for Hub {
    fn is_listening(&self) -> bool {
        self.has_routes.load(Ordering::Relaxed)
            || self.router.as_ref().is_some_and(|router| router.is_wanted())
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("router", &self.router).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
