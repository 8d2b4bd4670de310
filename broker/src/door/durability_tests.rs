//! What a client is told waits until the journal has it: sessions, their inflow and their wills, without a door.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use schema::clock::Timestamp;
use schema::id::{DeviceId, TenantId};
use tokio::time::Instant;

use super::*;
use crate::credits::Cost;
use crate::door::doubles::{Bench, client, message, will};
use crate::door::inflow::{Arrived, Inflow, Owed};
use crate::door::journal::Lsn;
use crate::door::outbox::Outbox;
use crate::door::outflow::Outflow;
use crate::door::packet::{ConnectProperties, Reason, RetainHandling, Version};
use crate::door::queue::{Manner, Parcel};
use crate::door::session::Session;
use crate::door::sessions::{CloseReason, Seated, Visitor, Wish};
use crate::door::will::HeldWill;
use crate::gatekeeper::Principal;
use crate::message::{Fingerprint, Message, Qos};
use crate::publication::Publication;
use crate::store::{
    Change, Client, DoorStoreError, Owner, Received, Stored, StoredSession, Subscription, WaitingWill,
};
use crate::window::{Answer, Echo};

/// What a message is known by.
const MESSAGE: Fingerprint = Fingerprint(1);

/// Remembers what it was given in each transaction.
#[derive(Default)]
struct Ledger(std::sync::Mutex<Vec<Vec<Change>>>);

#[async_trait]
impl DoorStore for Ledger {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        Ok(true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        Ok(Stored::default())
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<uuid::Uuid>, DoorStoreError> {
        self.0.lock().unwrap().push(changes.to_vec());
        Ok(Vec::new())
    }
}

/// Is away so often, and then there.
struct AwayAtFirst(std::sync::atomic::AtomicU32);

impl AwayAtFirst {
    fn ask(&self) -> Result<(), DoorStoreError> {
        let left = self.0.load(std::sync::atomic::Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.0.store(left - 1, std::sync::atomic::Ordering::Relaxed);
        Err(DoorStoreError { fault: Fault::Away, source: "no writes".into() })
    }
}

#[async_trait]
impl DoorStore for AwayAtFirst {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        self.ask().map(|()| true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        self.ask().map(|()| Stored::default())
    }

    async fn apply(&self, _: &[Change]) -> Result<Vec<uuid::Uuid>, DoorStoreError> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_when_the_door_opens_is_waited_for() {
    let store = AwayAtFirst(5.into());
    let (keeps_sessions, _) = open_store(&store).await.unwrap();
    assert!(keeps_sessions);
    assert_eq!(store.0.into_inner(), 0);
}

/// Everything below a connection, with a journal that is stored only when a test says so.
struct Parts {
    ledger: Arc<Ledger>,
    bench: Bench,
    journal: Arc<Journal>,
}

impl Parts {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let bench = Bench::with_store(Arc::clone(&ledger) as Arc<dyn DoorStore>);
        let journal = Arc::clone(&bench.sessions.journal);
        Self { ledger, bench, journal }
    }

    fn hub(&self) -> &Hub {
        &self.bench.inflow.hub
    }

    fn session(&self, number: u64, expiry_seconds: u32) -> Arc<Session> {
        let session = Session::new(&self.bench.sessions, number, client(&number.to_string()), expiry_seconds);
        session.attach(expiry_seconds).unseen();
        session
    }

    fn talk(&self, session: &Arc<Session>) -> Talk {
        Talk {
            inflow: Inflow::new(
                Arc::clone(&self.bench.inflow),
                self.bench.inflow.inbound(&session.client().owner),
                Arc::clone(session),
                Version::V4,
            ),
            outflow: Outflow::new(Version::V4, &ConnectProperties::default(), 10, session.unsent()),
            session: Arc::clone(session),
        }
    }

    /// Stores what was recorded so far.
    async fn store(&self) {
        self.journal.store_all().await.unwrap();
    }

    fn sessions(&self, lasting_max: usize) -> (Arc<Sessions>, UnboundedReceiver<Inflow>) {
        Sessions::new(Arc::clone(&self.bench.sessions), Arc::clone(&self.bench.inflow), lasting_max)
    }
}

/// A connection without a stream.
struct Talk {
    inflow: Inflow,
    outflow: Outflow,
    session: Arc<Session>,
}

impl Talk {
    /// What the client is sent now.
    fn heard(&mut self) -> Vec<u8> {
        let mut outbox = Outbox::default();
        self.inflow.collect(Instant::now(), Some(outbox.tail()));
        let stored = self.inflow.stored();
        let _ = self.outflow.send(&self.session, &mut outbox, Timestamp::UNIX_EPOCH, stored);
        outbox.tail().to_vec()
    }

    /// Nothing is heard before the journal is stored, and this after it.
    async fn hears_once_stored(&mut self, parts: &Parts, expected: &[u8]) {
        assert_eq!(self.heard(), b"", "before the journal has it");
        parts.store().await;
        assert_eq!(self.heard(), expected);
    }

    /// Publishes a message, which is committed at once.
    fn publishes(&mut self, parts: &Parts, answer: Answer, qos: Qos) {
        let arrived = Arrived {
            answer,
            cost: Cost::default(),
            echo: Echo { fan_out: true, is_foreign: true, ..Echo::default() },
            is_denied: false,
            kind: None,
            received_at: Instant::now(),
        };
        self.inflow.deliver(Message { retain: false, ..message("t", "x", qos) }, arrived);
        parts.bench.intake.next().done();
    }

    /// As on PUBREC.
    fn has_taken(&mut self, packet_id: u16) {
        let found = self.session.taken(packet_id).unwrap();
        self.inflow.owe(found.lsn, Owed::PubRel(packet_id, found.reason()));
    }

    /// As on PUBREL.
    fn releases(&mut self, packet_id: u16) {
        let found = self.session.release(packet_id).unwrap();
        self.inflow.owe(found.lsn, Owed::PubComp(packet_id, found.reason()));
    }
}

fn subscription(qos: Qos) -> Subscription {
    Subscription { filter: Arc::from("t"), qos, no_local: false, retain_as_published: false, id: None }
}

fn parcel(payload: &'static [u8], qos: Qos) -> Parcel {
    let publication = Arc::new(Publication {
        topic: Arc::from("t"),
        payload: Bytes::from_static(payload),
        qos,
        retain: false,
        carried: Bytes::new(),
        expires_at: None,
        publisher: 0,
    });
    Parcel { publication, manner: Manner { qos, retain: false, subscription_ids: Vec::new() } }
}

#[tokio::test]
async fn a_message_at_quality_2_and_its_release_leave_once_the_journal_has_them() {
    let parts = Parts::new();
    let session = parts.session(1, 60);
    let mut talk = parts.talk(&session);
    session.offer(parcel(b"x", Qos::ExactlyOnce), Timestamp::UNIX_EPOCH).unseen();
    talk.hears_once_stored(&parts, b"\x34\x06\0\x01t\0\x01x").await;
    talk.has_taken(1);
    talk.has_taken(1);
    talk.hears_once_stored(&parts, b"\x62\x02\0\x01\x62\x02\0\x01").await;
    session.completed(1).unwrap();
    talk.has_taken(1);
    talk.hears_once_stored(&parts, b"\x62\x02\0\x01").await;
}

#[tokio::test]
async fn a_new_connection_waits_for_the_journal_as_well() {
    let parts = Parts::new();
    let session = parts.session(1, 60);
    session.offer(parcel(b"x", Qos::ExactlyOnce), Timestamp::UNIX_EPOCH).unseen();
    parts.store().await;
    let mut talk = parts.talk(&session);
    assert_eq!(talk.heard(), b"\x34\x06\0\x01t\0\x01x");
    talk.has_taken(1);
    session.attach(60).unseen();
    parts.talk(&session).hears_once_stored(&parts, b"\x62\x02\0\x01").await;
}

#[tokio::test]
async fn what_is_not_promised_to_last_leaves_at_once() {
    let parts = Parts::new();
    let lasting = parts.session(1, 60);
    lasting.offer(parcel(b"x", Qos::AtLeastOnce), Timestamp::UNIX_EPOCH).unseen();
    assert_eq!(parts.talk(&lasting).heard(), b"\x32\x06\0\x01t\0\x01x", "quality 1 may come twice");
    let passing = parts.session(2, 0);
    let mut talk = parts.talk(&passing);
    passing.offer(parcel(b"x", Qos::ExactlyOnce), Timestamp::UNIX_EPOCH).unseen();
    assert_eq!(talk.heard(), b"\x34\x06\0\x01t\0\x01x");
    talk.has_taken(1);
    talk.releases(9);
    assert_eq!(talk.heard(), b"\x62\x02\0\x01\x70\x02\0\x09");
}

#[tokio::test]
async fn a_release_is_confirmed_once_the_journal_has_it_and_also_when_it_comes_again() {
    let parts = Parts::new();
    let session = parts.session(1, 60);
    let mut talk = parts.talk(&session);
    assert!(session.receive(7, MESSAGE));
    talk.publishes(&parts, Answer::PubRec(7, MESSAGE), Qos::ExactlyOnce);
    talk.hears_once_stored(&parts, b"\x50\x02\0\x07").await;
    talk.releases(7);
    // The answer is lost with the connection, and the client asks again over another one.
    let mut talk = parts.talk(&session);
    talk.releases(7);
    talk.hears_once_stored(&parts, b"\x70\x02\0\x07").await;
}

#[tokio::test]
async fn a_message_is_acknowledged_once_the_queues_of_its_subscribers_are_stored() {
    let parts = Parts::new();
    let (reader, writer) = (parts.session(1, 60), parts.session(2, 0));
    let made = parts.hub().subscribe(&reader, subscription(Qos::AtLeastOnce), RetainHandling::Never, 9);
    made.unwrap().lsn.unseen();
    parts.store().await;
    let mut talk = parts.talk(&writer);
    talk.publishes(&parts, Answer::PubAck(5), Qos::AtLeastOnce);
    talk.hears_once_stored(&parts, b"\x40\x02\0\x05").await;
}

#[tokio::test]
async fn a_message_at_quality_2_is_stored_together_with_its_id() {
    let parts = Parts::new();
    let (reader, writer) = (parts.session(1, 60), parts.session(2, 60));
    let made = parts.hub().subscribe(&reader, subscription(Qos::ExactlyOnce), RetainHandling::Never, 9);
    made.unwrap().lsn.unseen();
    parts.store().await;
    let mut talk = parts.talk(&writer);
    assert!(writer.receive(5, MESSAGE));
    talk.publishes(&parts, Answer::PubRec(5, MESSAGE), Qos::ExactlyOnce);
    talk.hears_once_stored(&parts, b"\x50\x02\0\x05").await;
    let transactions = parts.ledger.0.lock().unwrap();
    let last = transactions.last().unwrap();
    let id = writer.id();
    assert!(matches!(&last[0], Change::Queued { .. }), "{last:?}");
    assert_eq!(
        last[1],
        Change::Received { id, received: Received { packet_id: 5, fingerprint: Some(MESSAGE) } }
    );
}

#[tokio::test]
async fn subscriptions_are_confirmed_once_the_journal_has_them() {
    let parts = Parts::new();
    let session = parts.session(1, 60);
    let mut talk = parts.talk(&session);
    let qos = subscription(Qos::AtLeastOnce);
    let made = parts.hub().subscribe(&session, qos, RetainHandling::Never, 9).unwrap();
    talk.inflow.owe(made.lsn, Owed::SubAck(3, vec![1], Vec::new()));
    talk.hears_once_stored(&parts, b"\x90\x03\0\x03\x01").await;
    let lsn = parts.hub().unsubscribe(&session, "t").unwrap().lsn;
    lsn.unseen();
    assert!(parts.hub().unsubscribe(&session, "t").is_none());
    // There is none any more, which the journal does not have yet.
    talk.inflow.owe(session.recorded(), Owed::UnsubAck(4, vec![Reason::NO_SUBSCRIPTION_EXISTED]));
    talk.hears_once_stored(&parts, b"\xb0\x02\0\x04").await;
}

impl Parts {
    /// A client takes its seat.
    async fn sit(&self, sessions: &Arc<Sessions>, name: &str, is_clean: bool) -> Seated {
        let visitor = Visitor { principal: Principal::Anonymous, chain: None, credential: None };
        let wish = Wish { is_clean, expiry_seconds: 60 };
        let seated = sessions.sit(&client(name), &visitor, wish, Instant::now()).await;
        seated.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// A client leaves a will behind that waits ten seconds.
    async fn leave_will(&self, sessions: &Arc<Sessions>, name: &'static str) {
        let mut seat = self.sit(sessions, name, false).await.seat;
        let held = HeldWill::hold(&self.bench.inflow.wills, &Owner::Anonymous, will(name, "gone")).unwrap();
        seat.leave_will(held, Principal::Anonymous, Duration::from_secs(10));
    }

    /// Changes of wills since the last look: the topics of those that wait, and how many are gone.
    async fn wills(&self) -> (Vec<String>, usize) {
        self.store().await;
        let changes = std::mem::take(&mut *self.ledger.0.lock().unwrap()).concat();
        let (mut waiting, mut gone) = (Vec::new(), 0);
        for change in &changes {
            if let Change::WillWaits(will) = change {
                waiting.push(will.topic.to_string());
            }
            gone += usize::from(matches!(change, Change::WillGone { .. }));
        }
        (waiting, gone)
    }

    /// The topics of the wills that are due now, which are settled.
    async fn publish_due(&self, due: &mut UnboundedReceiver<Inflow>) -> Vec<String> {
        let mut topics = Vec::new();
        while let Ok(inflow) = due.try_recv() {
            let delivery = self.bench.intake.next();
            topics.push(delivery.topic.to_string());
            delivery.done();
            inflow.finish().await;
        }
        topics
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_that_waits_is_stored_until_its_client_comes_back_or_it_is_published() {
    let parts = Parts::new();
    let (sessions, mut due) = parts.sessions(9);
    parts.leave_will(&sessions, "a").await;
    parts.leave_will(&sessions, "b").await;
    assert_eq!(parts.wills().await, (vec!["a".to_owned(), "b".to_owned()], 0));
    assert!(parts.sit(&sessions, "a", false).await.is_present);
    assert_eq!(parts.wills().await, (vec![], 1));
    tokio::time::advance(Duration::from_secs(10)).await;
    sessions.end_overdue(Instant::now());
    assert_eq!(parts.wills().await, (vec![], 0), "it is stored until it is published");
    assert_eq!(parts.publish_due(&mut due).await, ["b"]);
    assert_eq!(parts.wills().await, (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn the_will_of_a_session_that_makes_room_is_published() {
    let parts = Parts::new();
    let (sessions, mut due) = parts.sessions(1);
    parts.leave_will(&sessions, "a").await;
    let _seated = parts.sit(&sessions, "b", false).await;
    assert_eq!(parts.wills().await, (vec!["a".to_owned()], 0), "it is stored until it is published");
    assert_eq!(parts.publish_due(&mut due).await, ["a"]);
    assert_eq!(parts.wills().await, (vec![], 1));
}

#[tokio::test]
async fn a_client_that_begins_anew_is_told_so_once_its_old_session_is_gone() {
    let parts = Parts::new();
    let (sessions, _due) = parts.sessions(9);
    drop(parts.sit(&sessions, "a", false).await);
    parts.store().await;
    let seated = parts.sit(&sessions, "a", true).await;
    assert!(!seated.is_present);
    assert!(seated.ended > *parts.journal.follow().borrow());
    parts.store().await;
    assert!(seated.ended <= *parts.journal.follow().borrow());
    let other = parts.sit(&sessions, "b", false).await;
    assert_eq!(other.ended, Lsn::START, "it waits for nothing");
}

fn stored_session(name: &str) -> StoredSession {
    StoredSession {
        id: uuid::Uuid::now_v7(),
        client: client(name),
        expiry_seconds: 60,
        left_at: Some(Timestamp::UNIX_EPOCH),
        subscriptions: Vec::new(),
        received: Vec::new(),
        queue: Vec::new(),
    }
}

fn stored_will(owner: Owner, name: &str, after: Duration) -> WaitingWill {
    WaitingWill {
        id: uuid::Uuid::now_v7(),
        client: Client { owner, client_id: Arc::from(name) },
        topic: Arc::from(name),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        carried: Bytes::new(),
        expiry_seconds: None,
        due_at: Timestamp::UNIX_EPOCH + after,
    }
}

#[tokio::test(start_paused = true)]
async fn wills_are_restored_with_their_sessions_and_published_when_the_session_is_over() {
    let parts = Parts::new();
    let (sessions, mut due) = parts.sessions(9);
    let device = Owner::Device(Identity {
        tenant_id: TenantId::new("t").unwrap(),
        device_id: DeviceId::new("d").unwrap(),
    });
    let ten = Duration::from_secs(10);
    let wills = vec![stored_will(Owner::Anonymous, "a", ten), stored_will(device, "over", ten)];
    sessions.restore(vec![stored_session("a")], wills, Timestamp::UNIX_EPOCH);
    assert_eq!(parts.publish_due(&mut due).await, ["over"]);
    sessions.end_overdue(Instant::now() + ten / 2);
    assert_eq!(parts.publish_due(&mut due).await, [""; 0]);
    sessions.end_overdue(Instant::now() + ten);
    assert_eq!(parts.publish_due(&mut due).await, ["a"]);
    assert_eq!(parts.wills().await, (vec![], 2));
}

#[tokio::test]
async fn sessions_beyond_a_limit_that_was_lowered_end_when_they_are_restored() {
    let parts = Parts::new();
    let (sessions, _due) = parts.sessions(2);
    let stored = ["a", "b", "c", "d"].map(stored_session).to_vec();
    sessions.restore(stored, Vec::new(), Timestamp::UNIX_EPOCH);
    assert_eq!(sessions.all().len(), 2);
    parts.store().await;
    let changes = parts.ledger.0.lock().unwrap().concat();
    assert_eq!(changes.iter().filter(|change| matches!(change, Change::Ended { .. })).count(), 2);
}

#[tokio::test]
async fn a_session_whose_row_was_deleted_ends_and_records_nothing_more() {
    let parts = Parts::new();
    let (sessions, mut due) = parts.sessions(9);
    let mut seated = parts.sit(&sessions, "a", false).await;
    parts.leave_will(&sessions, "b").await;
    let ids: Vec<_> = sessions.all().iter().map(|session| session.id()).collect();
    let before = parts.journal.last();
    sessions.end_deleted(&ids);
    assert_eq!(seated.seat.close_asked().await, CloseReason::Deleted);
    drop(seated);
    assert_eq!((sessions.all().len(), parts.journal.last()), (0, before));
    assert_eq!(parts.publish_due(&mut due).await, ["b"]);
    assert!(!parts.sit(&sessions, "a", false).await.is_present);
}
