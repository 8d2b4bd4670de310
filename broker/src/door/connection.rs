//! One connection after its login: talks to the client, watches over it, and publishes its last will.
//!
//! Everything happens in one task that is generic over the byte stream. Each turn of its loop collects what was
//! settled, takes in the packets that are complete, and then waits for whatever comes first. A socket is read only
//! while the window has room and the credit is not spent. After the end of the stream the task stays until its last
//! delivery is settled, so that what was taken in reaches the commit whether the client waits for it or not.

mod packets;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::credits::Cost;
use crate::delivery::{Message, Verdict};
use crate::door::admission::{Admitted, HeldWill};
use crate::door::codec::Malformed;
use crate::door::connection::packets::Skipping;
use crate::door::inflow::Inflow;
use crate::door::sessions::{CloseReason, Seat};
use crate::door::subscriber::Subscriber;
use crate::door::topics::{KnownTopic, Topics};
use crate::door::transport::Transport;
use crate::door::{Phase, Shared};
use crate::fanout::{Forward, RouterGone};
use crate::gatekeeper::Scope;
use crate::stats::Refusal;
use crate::window::Answer;

/// How often a connection looks whether its device is still enabled and its peer still alive.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the goodbye of a stream may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A client that is logged in.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    transport: Transport<S>,
    seat: Seat,
    scope: Option<Scope>,
    will: Option<HeldWill>,
    /// Silence that ends the connection: one and a half times the client's keepalive.
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// When the incomplete packet in the inbox was begun.
    begun_at: Option<Instant>,
    /// Since when the stream took nothing of what waits in the outbox.
    unread_since: Option<Instant>,
    skipping: Option<Skipping>,
    inflow: Inflow,
    topics: Topics,
    subscriber: Subscriber,
    phase: watch::Receiver<Phase>,
    place: OwnedSemaphorePermit,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The client said goodbye: no last will.
    Disconnected,
    /// The stream ended or failed.
    Lost,
    Malformed(Malformed),
    /// No sign of life for too long.
    Silent,
    /// A packet never got complete, or an answer was never read.
    Stuck,
    TakenOver,
    Revoked,
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
    /// The credit is spent.
    Credit(Cost),
}

/// What a turn woke up for.
enum Woken {
    Settled,
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
    pub(crate) fn new(shared: Arc<Shared>, admitted: Admitted<S>, place: OwnedSemaphorePermit) -> Self {
        let Admitted { transport, seat, scope, keep_alive_seconds, will } = admitted;
        let now = Instant::now();
        let silence = Duration::from_secs(u64::from(keep_alive_seconds)) * 3 / 2;
        Self {
            transport,
            seat,
            scope,
            will,
            silence_max: (!silence.is_zero()).then_some(silence),
            heard_at: now,
            begun_at: None,
            unread_since: None,
            skipping: None,
            inflow: Inflow::new(Arc::clone(&shared)),
            topics: Topics::default(),
            subscriber: Subscriber::default(),
            phase: shared.phase.clone(),
            shared,
            place,
        }
    }

    /// Talks to the client until it goes, then stays until its last delivery is settled.
    pub(crate) async fn run(mut self) {
        let present = Present::start(&self.shared);
        let ending = self.converse().await;
        drop(present);
        self.log(&ending);
        if let Some(will) = self.will.take().filter(|_| ending.publishes_will()) {
            self.publish_will(will);
        }
        let Self { inflow, transport, seat, subscriber, place, .. } = self;
        drop((seat, subscriber));
        part(transport, &ending).await;
        drop(place);
        inflow.finish().await;
    }

    async fn converse(&mut self) -> Ending {
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut was_reading = true;
        loop {
            let now = Instant::now();
            self.inflow.collect(now, Some(&mut self.transport.outbox));
            let is_draining = *self.phase.borrow() != Phase::Open;
            if is_draining && self.inflow.open == 0 && !self.transport.has_unsent() {
                return Ending::DoorClosed;
            }
            let pause = match self.take_in(now, is_draining).await {
                Ok(pause) => pause,
                Err(ending) => return ending,
            };
            self.subscriber.send_retained(&mut self.transport.outbox, self.shared.settings.inflight_max);
            let is_reading = matches!(pause, Some(Pause::Bytes(_)));
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
            match self.wait(pause, timer.as_mut()).await {
                Woken::Settled | Woken::Timer | Woken::Phase => {}
                Woken::Read(Ok(true)) => self.heard_at = Instant::now(),
                Woken::Wrote(Ok(())) => self.unread_since = None,
                Woken::Read(Ok(false) | Err(_)) | Woken::Wrote(Err(_)) => return Ending::Lost,
                Woken::Credit(cost) => self.inflow.granted = Some(cost),
                Woken::Forward(Ok(forward)) => self.subscriber.send(&forward, &mut self.transport.outbox),
                Woken::Forward(Err(RouterGone)) => {
                    if self.subscriber.listen_again(&*self.shared.fanout).await.is_err() {
                        return Ending::Lost;
                    }
                }
                Woken::Close(CloseReason::TakenOver) => return Ending::TakenOver,
                Woken::Close(CloseReason::Revoked) => return Ending::Revoked,
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, pause: Option<Pause>, timer: Pin<&mut Sleep>) -> Woken {
        let Self { transport, seat, inflow, subscriber, phase, shared, .. } = self;
        let has_unsent = transport.has_unsent();
        let Transport { inbox, outbox, reader, writer } = transport;
        let may_forward = subscriber.may_send(outbox, shared.settings.inflight_max);
        let (missing, cost) = match pause {
            Some(Pause::Bytes(missing)) => (Some(missing), None),
            Some(Pause::Credit(cost)) => (None, Some(cost)),
            Some(Pause::Answers) | None => (None, None),
        };
        tokio::select! {
            biased;
            reason = seat.close_asked() => Woken::Close(reason),
            wrote = writer.write(outbox), if has_unsent => Woken::Wrote(wrote),
            () = inflow.changed() => Woken::Settled,
            () = shared.credits.take(cost.unwrap_or_default()), if cost.is_some() => {
                Woken::Credit(cost.unwrap_or_default())
            }
            read = reader.read(inbox, missing.unwrap_or_default()), if missing.is_some() => Woken::Read(read),
            forward = subscriber.next(), if may_forward => Woken::Forward(forward),
            _ = phase.changed() => Woken::Phase,
            () = timer => Woken::Timer,
        }
    }

    /// Looks whether the device is still enabled, and forgets what was judged in another scope.
    fn check_scope(&mut self) -> Result<(), Ending> {
        let Some(identity) = &self.seat.client().identity else { return Ok(()) };
        let scope = self.shared.gatekeeper.scope(identity).ok_or(Ending::Revoked)?;
        if self.scope.as_ref() != Some(&scope) {
            self.topics.forget();
            self.scope = Some(scope);
        }
        Ok(())
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
        let stuck_timeout = self.shared.settings.stuck_timeout;
        let is_stuck = |since: Option<Instant>| since.is_some_and(|since| now >= since + stuck_timeout);
        (is_stuck(self.begun_at) || is_stuck(self.unread_since)).then_some(Ending::Stuck)
    }

    /// When the connection must look again even if nothing happens.
    fn wake_at(&self, now: Instant, is_reading: bool) -> Instant {
        let stuck_timeout = self.shared.settings.stuck_timeout;
        let silent_at =
            self.silence_max.filter(|_| is_reading).map(|silence_max| self.heard_at + silence_max);
        let stuck_at =
            self.begun_at.into_iter().chain(self.unread_since).min().map(|since| since + stuck_timeout);
        let due = [silent_at, stuck_at, self.inflow.due_at()];
        due.into_iter().flatten().fold(now + CHECK_INTERVAL, Instant::min)
    }

    /// Publishes the last will as a live message, through the same checks as any other.
    fn publish_will(&mut self, held: HeldWill) {
        let (will, cost) = held.release();
        let topic = match &self.seat.client().identity {
            None => KnownTopic::judge(&will.topic, None),
            Some(identity) => match self.shared.gatekeeper.scope(identity) {
                Some(scope) => KnownTopic::judge(&will.topic, Some((identity, &scope))),
                None => KnownTopic::judge(&will.topic, None).denied(),
            },
        };
        if !topic.may_publish {
            self.shared.stats.count_refused(Refusal::Acl);
        }
        let message = Message {
            topic: Arc::clone(&topic.name),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            received_at: Instant::now(),
            arrived_at: self.shared.clock.now(),
            identity: self.seat.client().identity.clone(),
            verdict: if topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied },
        };
        self.inflow.deliver(message, &topic, Answer::None, cost);
    }

    fn log(&self, ending: &Ending) {
        let client = self.seat.client();
        let device_id = client.identity.as_ref().map(|identity| identity.device_id.as_str());
        match ending {
            Ending::Malformed(rule) => {
                self.shared.stats.count_refused(Refusal::Malformed);
                tracing::warn!(device_id, client_id = &*client.client_id, %rule, "connection closed: protocol broken");
            }
            Ending::Revoked => {
                self.shared.stats.count_refused(Refusal::Revoked);
                tracing::info!(
                    device_id,
                    client_id = &*client.client_id,
                    "connection closed: device not enabled"
                );
            }
            Ending::Disconnected
            | Ending::Lost
            | Ending::Silent
            | Ending::Stuck
            | Ending::TakenOver
            | Ending::DoorClosed => {
                tracing::debug!(device_id, client_id = &*client.client_id, ?ending, "connection closed");
            }
        }
    }
}

impl Ending {
    fn publishes_will(&self) -> bool {
        match self {
            Self::Disconnected | Self::DoorClosed => false,
            Self::Lost
            | Self::Malformed(_)
            | Self::Silent
            | Self::Stuck
            | Self::TakenOver
            | Self::Revoked => true,
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
