//! One connection after its login: talks to the client, watches over it, and publishes its last will.
//!
//! Everything happens in one task that is generic over the byte stream. Each turn of its loop collects what was
//! settled, takes in the packets that are complete, and then waits for whatever comes first. A socket is read only
//! while the window has room and the credit is not spent. After the end of the stream the task stays until its last
//! delivery is settled, so that what was taken in reaches the commit whether the client waits for it or not.

mod packets;

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::acl;
use crate::credits::Cost;
use crate::door::admission::Admitted;
use crate::door::connection::packets::Skipping;
use crate::door::hub::Listening;
use crate::door::inflow::Inflow;
use crate::door::outflow::Outflow;
use crate::door::packet::{self, Malformed, Reason, Version};
use crate::door::session::Left;
use crate::door::sessions::{CloseReason, Seat};
use crate::door::shared::{Phase, Shared};
use crate::door::topics::{Aliases, Topics};
use crate::door::transport::Transport;
use crate::door::will::HeldWill;
use crate::fanout::{Forward, RouterGone};
use crate::filter;
use crate::gatekeeper::{Principal, Scope};
use crate::share::Permit;
use crate::stats::Refusal;
use crate::store::Owner;

/// How often a connection looks whether its device is still enabled.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of a packet that must arrive in each second, beside the time that any packet may take.
const PACKET_BYTES_PER_SECOND_MIN: usize = 4 << 10;
/// Bytes of a client that are still heard after it came again.
const HEARD_OUT_BYTES_MAX: usize = 1 << 20;
/// How long the goodbye of a stream may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A client that is logged in.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    transport: Transport<S>,
    seat: Seat,
    version: Version,
    principal: Principal,
    scope: Option<Scope>,
    /// The gatekeeper's generation when the scope was looked up last.
    scope_generation: Option<u64>,
    will: Option<HeldWill>,
    /// Silence that ends the connection: one and a half times the client's keepalive.
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// When the incomplete packet in the inbox was begun.
    begun_at: Option<Instant>,
    /// Bytes of that packet, as far as they are known.
    packet_bytes: usize,
    /// Since when the stream took nothing of what waits in the outbox.
    unread_since: Option<Instant>,
    skipping: Option<Skipping>,
    inflow: Inflow,
    topics: Topics,
    aliases: Aliases,
    outflow: Outflow,
    phase: watch::Receiver<Phase>,
    place: Permit<Owner>,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The client said goodbye: no last will.
    Disconnected,
    /// The client said goodbye, and wants its last will published.
    DisconnectedWithWill,
    /// The stream ended or failed.
    Lost,
    Malformed(Malformed),
    /// A DISCONNECT that breaks the protocol. Who sends one reads nothing more.
    BrokenGoodbye(Malformed),
    /// No sign of life for too long.
    Silent,
    /// A packet never got complete, or an answer was never read.
    Stuck,
    TakenOver,
    Revoked,
    /// Its session is gone from the store; it gets a new one when it comes again.
    Deleted,
    /// The door closes: no last will.
    DoorClosed,
}

/// What taking in packets stopped at.
#[derive(Clone, Copy, Debug)]
enum Pause {
    /// More bytes are needed, and so many at least for a large packet.
    Bytes(usize),
    /// The window is full, or the client does not read its answers.
    Answers,
    /// The packet that comes next would add to a journal whose store is behind.
    Journal,
    /// The credit is spent.
    Credit(Cost),
}

/// What a turn woke up for.
enum Woken {
    /// Something was settled, stored, or queued for the client.
    Changed,
    Read(io::Result<bool>),
    Wrote(io::Result<()>),
    Credit(Cost),
    Forward(Result<Forward, RouterGone>),
    Close(CloseReason),
    Phase,
    Timer,
}

impl From<Malformed> for Ending {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    pub(crate) fn new(shared: Arc<Shared>, admitted: Admitted<S>) -> Self {
        let Admitted {
            transport,
            seat,
            place,
            version,
            principal,
            scope,
            keep_alive_seconds,
            will,
            properties,
        } = admitted;
        let now = Instant::now();
        let silence = Duration::from_secs(u64::from(keep_alive_seconds)) * 3 / 2;
        Self {
            inflow: Inflow::new(
                Arc::clone(&shared.inflow),
                Arc::clone(seat.inbound()),
                Arc::clone(seat.session()),
                version,
            ),
            outflow: Outflow::new(
                version,
                &properties,
                shared.settings.inflight_max,
                seat.session().unsent(),
            ),
            transport,
            seat,
            version,
            principal,
            scope,
            scope_generation: None,
            will,
            silence_max: (!silence.is_zero()).then_some(silence),
            heard_at: now,
            begun_at: None,
            packet_bytes: 0,
            unread_since: None,
            skipping: None,
            topics: Topics::default(),
            aliases: Aliases::default(),
            phase: shared.phase.clone(),
            shared,
            place,
        }
    }

    /// Talks to the client until it goes, then stays until its last delivery is settled.
    pub(crate) async fn run(mut self) {
        let present = Present::start(&self.shared);
        let ending = Box::pin(self.converse()).await;
        drop(present);
        self.log(&ending);
        if let Some(will) = self.will.take().filter(|_| ending.publishes_will()) {
            let delay = Duration::from_secs(u64::from(will.will.delay_seconds));
            if delay.is_zero() || self.seat.session().expiry_seconds() == 0 {
                self.inflow.deliver_will(will, &self.principal);
            } else {
                self.seat.leave_will(will, self.principal.clone(), delay);
            }
        }
        let Self { inflow, mut transport, seat, outflow, place, version, .. } = self;
        if let (Version::V5, Some((reason, text))) = (version, ending.farewell()) {
            packet::put_disconnect(transport.outbox.tail(), reason, text, outflow.packet_bytes_max());
        }
        drop((seat, outflow));
        let leave = async {
            part(transport, &ending).await;
            drop(place);
        };
        // Nobody waits for a client that is slow to close: its last will least of all.
        tokio::join!(Box::pin(leave), inflow.finish());
    }

    async fn converse(&mut self) -> Ending {
        if self.resume().await.is_err() {
            return Ending::Lost;
        }
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut was_reading = true;
        loop {
            let now = Instant::now();
            self.inflow.collect(now, Some(self.transport.outbox.tail()));
            let is_draining = *self.phase.borrow() != Phase::Open;
            let has_answered = self.inflow.open() == 0 && self.inflow.owed() == 0;
            if is_draining && has_answered && !self.transport.has_unsent() {
                return Ending::DoorClosed;
            }
            let pause = match self.take_in(now, is_draining).await {
                Ok(pause) => pause,
                Err(ending) => return ending,
            };
            self.inflow.answer(Some(self.transport.outbox.tail()));
            let stored = self.inflow.stored();
            let Self { outflow, seat, transport, shared, .. } = self;
            let left = outflow.send(seat.session(), &mut transport.outbox, shared.clock.now(), stored);
            let is_reading = matches!(pause, Some(Pause::Bytes(_)));
            self.packet_bytes = self.incoming_bytes(pause);
            if is_reading && !was_reading {
                // While the door did not read, the client's signs of life waited in its socket.
                (self.heard_at, self.begun_at) = (now, None);
            }
            was_reading = is_reading;
            if let Some(ending) = self.overdue(now, is_reading) {
                return ending;
            }
            let wake_at = self.wake_at(now, is_reading);
            if timer.deadline() > wake_at || timer.is_elapsed() {
                timer.as_mut().reset(wake_at);
            }
            match self.wait(pause, left, timer.as_mut()).await {
                Woken::Changed | Woken::Timer | Woken::Phase => {}
                Woken::Read(Ok(true)) => self.heard_at = Instant::now(),
                Woken::Wrote(Ok(())) => self.unread_since = None,
                Woken::Read(Ok(false) | Err(_)) | Woken::Wrote(Err(_)) => return Ending::Lost,
                Woken::Credit(cost) => self.inflow.granted = Some(cost),
                Woken::Forward(Ok(forward)) => {
                    let Self { outflow, transport, shared, seat, .. } = self;
                    let now = shared.clock.now();
                    if let Some(manner) = shared.hub.live_manner(seat.session(), &forward.publication) {
                        outflow.send_live(&forward, &manner, &mut transport.outbox, now, &shared.stats);
                    }
                }
                Woken::Forward(Err(RouterGone)) => {
                    if self.listen_again().await.is_err() {
                        return Ending::Lost;
                    }
                }
                Woken::Close(CloseReason::TakenOver) => return self.hear_out().await,
                Woken::Close(CloseReason::Revoked) => return Ending::Revoked,
                Woken::Close(CloseReason::Deleted) => return Ending::Deleted,
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, pause: Option<Pause>, left: Left, timer: Pin<&mut Sleep>) -> Woken {
        let Self { transport, seat, inflow, outflow, phase, .. } = self;
        let session = Arc::clone(seat.session());
        let purse = Arc::clone(inflow.purse());
        let has_unsent = transport.has_unsent();
        let Transport { inbox, outbox, reader, writer } = transport;
        let may_forward = Outflow::may_send(outbox);
        let (missing, cost) = match pause {
            Some(Pause::Bytes(missing)) => (Some(missing), None),
            Some(Pause::Credit(cost)) => (None, Some(cost)),
            Some(Pause::Answers | Pause::Journal) | None => (None, None),
        };
        let more = matches!(pause, Some(Pause::Journal)).then(|| inflow.stored().next());
        let waits_for = left.waits_for.into_iter().chain(more).min();
        tokio::select! {
            biased;
            reason = seat.close_asked() => Woken::Close(reason),
            wrote = writer.write(outbox), if has_unsent => Woken::Wrote(wrote),
            () = inflow.changed(waits_for) => Woken::Changed,
            () = session.changed() => Woken::Changed,
            () = purse.take(cost.unwrap_or_default()), if cost.is_some() => {
                Woken::Credit(cost.unwrap_or_default())
            }
            read = reader.read(inbox, missing.unwrap_or_default()), if missing.is_some() => Woken::Read(read),
            forward = outflow.next(), if may_forward => Woken::Forward(forward),
            _ = phase.changed() => Woken::Phase,
            () = yield_now(), if left.is_more => Woken::Changed,
            () = timer => Woken::Timer,
        }
    }

    /// Takes in what the client had sent before it came again: its last messages and its goodbye may be among it, and the
    /// new connection may be seen first. It waits for nothing that has not arrived.
    async fn hear_out(&mut self) -> Ending {
        let mut unheard_bytes = HEARD_OUT_BYTES_MAX;
        loop {
            let is_draining = *self.phase.borrow() != Phase::Open;
            let missing = match self.take_in(Instant::now(), is_draining).await {
                Ok(Some(Pause::Bytes(missing))) => missing,
                Ok(Some(Pause::Answers | Pause::Journal | Pause::Credit(_)) | None) => {
                    return Ending::TakenOver;
                }
                Err(ending) => return ending,
            };
            // The runtime looks at its sockets before it goes on here.
            yield_now().await;
            let Transport { inbox, reader, .. } = &mut self.transport;
            let heard_bytes = inbox.len();
            let has_read = tokio::select! {
                biased;
                read = reader.read(inbox, missing) => matches!(read, Ok(true)),
                () = ready(()) => false,
            };
            unheard_bytes = unheard_bytes.saturating_sub(inbox.len() - heard_bytes);
            if !has_read || unheard_bytes == 0 {
                return Ending::TakenOver;
            }
        }
    }

    /// Takes up what an earlier connection of this session subscribed to, as far as it is still allowed.
    async fn resume(&mut self) -> Result<(), RouterGone> {
        self.drop_denied().await;
        self.listen_again().await
    }

    /// Asks the router, if there is one, for everything that it serves of this session.
    async fn listen_again(&mut self) -> Result<(), RouterGone> {
        let hub = &self.shared.hub;
        let Some(router) = &hub.router else { return Ok(()) };
        let filters = hub.live_filters(self.seat.session());
        self.outflow.listen_again(&filters, &**router).await
    }

    /// Tells the router, if there is one, of a change of a subscription.
    async fn listen(&mut self, filter: &str, listening: Listening) -> Result<(), RouterGone> {
        match (listening, &self.shared.hub.router) {
            (Listening::Begins, Some(router)) => self.outflow.listen(filter, &**router).await?,
            (Listening::Ends, Some(_)) => self.outflow.unlisten(filter).await,
            (Listening::Same, _) | (_, None) => {}
        }
        Ok(())
    }

    /// Takes back the subscriptions the client may not have any more, and what waits for them.
    async fn drop_denied(&mut self) {
        let session = Arc::clone(self.seat.session());
        let mut has_dropped = false;
        for subscription in session.subscriptions() {
            if self.may_subscribe(&subscription.filter) {
                continue;
            }
            has_dropped = true;
            self.refuse_scope("subscription ended", &subscription.filter);
            if let Some(removed) = self.shared.hub.unsubscribe(&session, &subscription.filter) {
                // A router that is gone serves nothing.
                let _ = self.listen(&subscription.filter, removed.listening).await;
            }
        }
        if has_dropped {
            session.drop_unsubscribed();
        }
    }

    /// Looks whether the device is still enabled, and forgets what was judged in another scope.
    async fn check_scope(&mut self) -> Result<(), Ending> {
        let Some(identity) = self.principal.device() else { return Ok(()) };
        let generation = Some(self.shared.gatekeeper.generation());
        if generation == self.scope_generation {
            return Ok(());
        }
        self.scope_generation = generation;
        let scope = self.shared.gatekeeper.scope(identity).ok_or(Ending::Revoked)?;
        if self.scope.as_ref() != Some(&scope) {
            self.topics.forget();
            self.scope = Some(scope);
            self.drop_denied().await;
        }
        Ok(())
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        let filter = filter::Shared::parse(filter).map_or(filter, |shared| shared.filter);
        match (&self.principal, &self.scope) {
            (Principal::Anonymous, _) => acl::anonymous_may_use(filter),
            (Principal::Operator(operator), _) => acl::operator_may_subscribe(operator, filter),
            (Principal::Device(identity), Some(scope)) => acl::may_subscribe(scope, identity, filter),
            (Principal::Device(_), None) => false,
        }
    }

    /// Whether the connection waited too long for its peer.
    fn overdue(&mut self, now: Instant, is_reading: bool) -> Option<Ending> {
        let is_partial = is_reading && !(self.transport.inbox.is_empty() && self.skipping.is_none());
        self.begun_at = is_partial.then(|| self.begun_at.unwrap_or(now));
        let is_unread = self.transport.has_unsent();
        self.unread_since = is_unread.then(|| self.unread_since.unwrap_or(now));
        if is_reading && self.silence_max.is_some_and(|silence_max| now >= self.heard_at + silence_max) {
            return Some(Ending::Silent);
        }
        self.stuck_at().is_some_and(|stuck_at| now >= stuck_at).then_some(Ending::Stuck)
    }

    /// When the packet that comes in, or the answer that goes out, has taken too long. A large packet gets more time.
    fn stuck_at(&self) -> Option<Instant> {
        let stuck_timeout = self.shared.settings.stuck_timeout;
        let whole_seconds = self.packet_bytes / PACKET_BYTES_PER_SECOND_MIN;
        let for_size = Duration::from_secs(u64::try_from(whole_seconds).unwrap_or(u64::MAX));
        let incoming = self.begun_at.map(|begun_at| begun_at + stuck_timeout + for_size);
        let outgoing = self.unread_since.map(|since| since + stuck_timeout);
        incoming.into_iter().chain(outgoing).min()
    }

    /// Bytes of the packet that is being read, as far as they are known.
    fn incoming_bytes(&self, pause: Option<Pause>) -> usize {
        match (&self.skipping, pause) {
            (Some(skipping), _) => skipping.size_bytes,
            (None, Some(Pause::Bytes(missing))) => self.transport.inbox.len() + missing,
            (None, Some(Pause::Answers | Pause::Journal | Pause::Credit(_)) | None) => {
                self.transport.inbox.len()
            }
        }
    }

    /// When the connection must look again even if nothing happens.
    fn wake_at(&self, now: Instant, is_reading: bool) -> Instant {
        let silent_at =
            self.silence_max.filter(|_| is_reading).map(|silence_max| self.heard_at + silence_max);
        let due = [silent_at, self.stuck_at(), self.inflow.due_at()];
        due.into_iter().flatten().fold(now + CHECK_INTERVAL, Instant::min)
    }

    /// Counts, and says in the log if there is room, that something is outside what the client may do.
    fn refuse_scope(&self, what: &'static str, topic: &str) {
        if self.shared.refuse(Refusal::Acl) {
            let device_id = self.principal.device().map(|identity| identity.device_id.as_str());
            let client_id = &*self.seat.session().client().client_id;
            tracing::info!(device_id, client_id, topic, "{what}: outside the scope");
        }
    }

    fn log(&self, ending: &Ending) {
        let device_id = self.principal.device().map(|identity| identity.device_id.as_str());
        let client_id = &*self.seat.session().client().client_id;
        match ending {
            Ending::Malformed(rule) | Ending::BrokenGoodbye(rule) => {
                if self.shared.refuse(Refusal::Malformed) {
                    tracing::warn!(device_id, client_id, %rule, "connection closed: protocol broken");
                }
            }
            Ending::Revoked => {
                if self.shared.refuse(Refusal::Revoked) {
                    tracing::info!(device_id, client_id, "connection closed: access revoked");
                }
            }
            Ending::Disconnected
            | Ending::DisconnectedWithWill
            | Ending::Lost
            | Ending::Silent
            | Ending::Stuck
            | Ending::TakenOver
            | Ending::Deleted
            | Ending::DoorClosed => tracing::debug!(device_id, client_id, ?ending, "connection closed"),
        }
    }
}

impl Ending {
    fn publishes_will(&self) -> bool {
        match self {
            Self::Disconnected | Self::DoorClosed => false,
            Self::DisconnectedWithWill
            | Self::Lost
            | Self::Malformed(_)
            | Self::BrokenGoodbye(_)
            | Self::Silent
            | Self::Stuck
            | Self::TakenOver
            | Self::Revoked
            | Self::Deleted => true,
        }
    }

    /// What a client of version 5 is told, if it still listens: the reason, and words for people if they are of use.
    fn farewell(&self) -> Option<(Reason, &'static str)> {
        match self {
            Self::Disconnected
            | Self::DisconnectedWithWill
            | Self::BrokenGoodbye(_)
            | Self::Lost
            | Self::Stuck => None,
            // The number is all a broken client is told, as by other brokers; the log has the rule it broke.
            Self::Malformed(Malformed {
                reason: reason @ (Reason::MALFORMED_PACKET | Reason::PROTOCOL_ERROR),
                ..
            }) => Some((*reason, "")),
            Self::Malformed(Malformed { reason, rule }) => Some((*reason, rule)),
            Self::Silent => Some((Reason::KEEP_ALIVE_TIMEOUT, "no sign of life within the keep-alive")),
            Self::TakenOver => Some((Reason::SESSION_TAKEN_OVER, "this client id logged in again")),
            Self::Revoked => Some((Reason::ADMINISTRATIVE_ACTION, "access was revoked")),
            Self::Deleted => Some((Reason::IMPLEMENTATION_SPECIFIC, "the session was deleted")),
            Self::DoorClosed => Some((Reason::SERVER_SHUTTING_DOWN, "the engine stops")),
        }
    }
}

/// Sends what is left to a client that is still there, and closes its stream. What the client still sends is read and
/// thrown away until it closes too: closing over unread bytes could take back the last answers.
async fn part<S: AsyncRead + AsyncWrite>(mut transport: Transport<S>, ending: &Ending) {
    if matches!(ending, Ending::Lost | Ending::Stuck) {
        return;
    }
    let goodbye = async {
        transport.flush().await?;
        transport.writer.shutdown().await?;
        while transport.read().await? {
            transport.inbox.clear();
        }
        io::Result::Ok(())
    };
    // Nobody is left to tell when the goodbye fails.
    let _ = timeout(GOODBYE_MAX, goodbye).await;
}

/// Counts a client as connected.
struct Present(Arc<Shared>);

impl Present {
    fn start(shared: &Arc<Shared>) -> Self {
        shared.stats.client_came();
        Self(Arc::clone(shared))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.stats.client_left();
    }
}
