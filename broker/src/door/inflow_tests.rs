//! What flows in, without a door: order over takeovers, answers, and what becomes of the ids of QoS 2.

use super::*;
use crate::door::doubles::{Bench, client, message, will};
use crate::message::Qos;

const TOPIC: &str = "status";
/// What a message is known by.
const MESSAGE: Fingerprint = Fingerprint(1);

/// A client that connects again and again to one session.
struct Device {
    bench: Bench,
    inbound: Arc<Inbound>,
    session: Arc<Session>,
}

impl Device {
    fn new() -> Self {
        let bench = Bench::new();
        let session = Session::new(&bench.sessions, 1, client("d"), 60);
        Self { inbound: bench.inflow.inbound(&Owner::Anonymous), session, bench }
    }

    fn connect(&self, version: Version) -> Inflow {
        let (parts, inbound) = (Arc::clone(&self.bench.inflow), Arc::clone(&self.inbound));
        Inflow::new(parts, inbound, Arc::clone(&self.session), version)
    }

    fn retained(&self) -> Option<bytes::Bytes> {
        self.bench.retained(TOPIC)
    }
}

fn publish(inflow: &Inflow, payload: &'static str, qos: Qos, answer: Answer) {
    let echo = Echo { retain: true, fan_out: true, is_foreign: true, ..Echo::default() };
    let cost = Cost::of_message(payload.len());
    assert!(inflow.purse().try_take(cost));
    let received_at = Instant::now();
    let arrived = Arrived { answer, cost, echo, is_denied: false, kind: None, received_at };
    inflow.deliver(message(TOPIC, payload, qos), arrived);
}

/// Collects, and says what the client is sent.
fn collect(inflow: &mut Inflow) -> Vec<u8> {
    let mut outbox = BytesMut::new();
    inflow.collect(Instant::now(), Some(&mut outbox));
    outbox.to_vec()
}

#[tokio::test]
async fn whoever_takes_over_shows_what_was_left_open_before_its_own_messages() {
    let device = Device::new();
    let credit = device.bench.inflow.credits.free();
    let mut before = device.connect(Version::V4);
    let wills = &device.bench.inflow.wills;
    let held = HeldWill::hold(wills, &Owner::Anonymous, will(TOPIC, "offline")).unwrap();
    before.deliver_will(held, &Principal::Anonymous);
    assert!(wills.taken() > 0, "a will under way has its part of the budget of wills");
    assert_eq!(device.bench.inflow.credits.free(), credit, "and nothing of the credit");
    let mut after = device.connect(Version::V4);
    publish(&after, "online", Qos::AtLeastOnce, Answer::PubAck(1));
    let (offline, online) = (device.bench.intake.next(), device.bench.intake.next());
    online.done();
    assert_eq!(collect(&mut after), b"", "the message before it is not settled");
    offline.done();
    assert_eq!(collect(&mut before), b"", "another took over");
    assert_eq!(device.retained(), None);
    assert_eq!(collect(&mut after), b"", "it is retained, and that is not stored yet");
    assert_eq!(device.retained().unwrap(), "online");
    device.bench.sessions.journal.store_all().await.unwrap();
    assert_eq!(collect(&mut after), b"\x40\x02\0\x01");
    assert_eq!((after.open(), device.bench.inflow.stats.unacked()), (0, 0));
    assert_eq!((device.bench.inflow.credits.free(), wills.taken()), (credit, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_over_stays_until_its_last_delivery_is_settled_or_another_takes_over() {
    let device = Device::new();
    let alone = device.connect(Version::V4);
    publish(&alone, "one", Qos::AtLeastOnce, Answer::PubAck(1));
    let delivery = device.bench.intake.next();
    tokio::join!(alone.finish(), async { delivery.done() });
    assert_eq!(device.retained().unwrap(), "one");

    let before = device.connect(Version::V4);
    publish(&before, "two", Qos::AtLeastOnce, Answer::PubAck(1));
    let delivery = device.bench.intake.next();
    let mut after = None;
    tokio::join!(before.finish(), async { after = Some(device.connect(Version::V4)) });
    let mut after = after.unwrap();
    tokio::join!(after.changed(None), async { delivery.done() });
    assert_eq!(collect(&mut after), b"", "its sender is gone");
    assert_eq!(device.retained().unwrap(), "two");
}

#[tokio::test]
async fn a_refused_message_at_qos_2_is_answered_when_it_comes_again() {
    const REFUSED: &[u8] = b"\x50\x03\0\x07\x83";
    for comes_again_first in [false, true] {
        let device = Device::new();
        let mut before = device.connect(Version::V5);
        assert!(device.session.receive(7, MESSAGE));
        let mut message = message(TOPIC, "no", Qos::ExactlyOnce);
        message.retain = false;
        let arrived = Arrived {
            answer: Answer::PubRec(7, MESSAGE),
            cost: Cost::default(),
            echo: Echo::default(),
            is_denied: false,
            kind: None,
            received_at: Instant::now(),
        };
        before.deliver(message, arrived);
        if !comes_again_first {
            device.bench.intake.next().reject();
            // The connection is lost.
            before.collect(Instant::now(), None);
        }
        let mut after = device.connect(Version::V5);
        assert!(!device.session.receive(7, MESSAGE), "the same message comes again");
        after.answer_again(7, Instant::now());
        if comes_again_first {
            assert_eq!(collect(&mut after), b"");
            device.bench.intake.next().reject();
        }
        assert_eq!(collect(&mut after), REFUSED);
        assert!(device.session.receive(7, MESSAGE), "the exchange is over, and the id free");
        assert_eq!(after.owed(), 0);
    }
}

#[tokio::test]
async fn a_committed_message_at_qos_2_is_answered_each_time_it_comes() {
    const RECEIVED: &[u8] = b"\x50\x02\0\x07";
    let device = Device::new();
    let before = device.connect(Version::V4);
    assert!(device.session.receive(7, MESSAGE));
    publish(&before, "once", Qos::ExactlyOnce, Answer::PubRec(7, MESSAGE));
    let mut after = device.connect(Version::V4);
    after.answer_again(7, Instant::now());
    after.answer_again(7, Instant::now());
    device.bench.intake.next().done();
    assert_eq!(collect(&mut after), b"", "it is not stored");
    device.bench.sessions.journal.store_all().await.unwrap();
    assert_eq!(collect(&mut after), [RECEIVED, RECEIVED].concat());
}

#[tokio::test]
async fn another_message_under_an_id_that_is_not_released_is_no_repetition() {
    const RECEIVED: &[u8] = b"\x50\x02\0\x07";
    const OTHER: Fingerprint = Fingerprint(2);
    for settles_late in [false, true] {
        let device = Device::new();
        let before = device.connect(Version::V4);
        assert!(device.session.receive(7, MESSAGE));
        publish(&before, "first", Qos::ExactlyOnce, Answer::PubRec(7, MESSAGE));
        let first = device.bench.intake.next();
        let mut late = Some(first);
        let mut after = device.connect(Version::V4);
        if !settles_late {
            late.take().into_iter().for_each(crate::Delivery::done);
            assert_eq!(collect(&mut after), b"", "its sender is gone");
        }
        assert!(device.session.receive(7, OTHER), "the device forgot that it had used the id");
        publish(&after, "second", Qos::ExactlyOnce, Answer::PubRec(7, OTHER));
        late.take().into_iter().for_each(crate::Delivery::done);
        assert_eq!(collect(&mut after), b"");
        assert!(!device.session.receive(7, OTHER), "what became of the first says nothing of the second");
        device.bench.intake.next().done();
        assert_eq!(collect(&mut after), b"");
        device.bench.sessions.journal.store_all().await.unwrap();
        assert_eq!(collect(&mut after), RECEIVED);
        assert_eq!(device.retained().unwrap(), "second");
        assert!(!device.session.receive(7, OTHER), "the second once more");
        assert!(device.session.release(7).unwrap().is_found);
        assert!(device.session.receive(7, OTHER), "the id is free");
    }
}

#[tokio::test]
async fn what_a_dead_connection_left_open_is_counted_and_collected_by_the_next() {
    let device = Device::new();
    let before = device.connect(Version::V4);
    publish(&before, "left", Qos::AtLeastOnce, Answer::PubAck(1));
    drop(before);
    let stats = Arc::clone(&device.bench.inflow.stats);
    assert_eq!((stats.abandoned(), stats.unacked()), (1, 0));
    let mut after = device.connect(Version::V4);
    assert_eq!(after.open(), 0, "it takes no room from the next");
    publish(&after, "new", Qos::AtLeastOnce, Answer::PubAck(2));
    device.bench.intake.next().done();
    device.bench.intake.next().done();
    assert_eq!(collect(&mut after), b"");
    device.bench.sessions.journal.store_all().await.unwrap();
    assert_eq!(collect(&mut after), b"\x40\x02\0\x02");
    assert_eq!((stats.abandoned(), stats.unacked(), after.open()), (1, 0, 0));
    assert_eq!(device.retained().unwrap(), "new");
}
