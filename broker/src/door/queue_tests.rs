//! The queue of one session: order, limits, repetition, and that every promised message is finished once.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits =
    QueueLimits { messages_max: 1000, bytes_max: 1 << 20, age_max: Duration::from_secs(60) };

fn publication(payload: &str) -> Arc<Publication> {
    Arc::new(Publication {
        topic: Arc::from("t"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::ExactlyOnce,
        retain: false,
        carried: Bytes::new(),
        expires_at: None,
        publisher: 1,
    })
}

fn parcel(payload: &str, qos: Qos) -> Parcel {
    parcel_of(&publication(payload), qos)
}

fn parcel_of(message: &Arc<Publication>, qos: Qos) -> Parcel {
    let manner = Manner { qos, retain: false, subscription_ids: Vec::new() };
    Parcel { publication: Arc::clone(message), manner }
}

fn queue() -> Queue {
    Queue::new(&QueueBudget::new(4 << 20, LIMITS.messages_max), &Owner::Anonymous)
}

/// Appends a message that the journal has at once; says its place.
fn push(queue: &mut Queue, payload: &str, qos: Qos) -> Result<Option<u64>, QueueDrop> {
    let mut place = None;
    let pushed = queue.push(parcel(payload, qos), Timestamp::UNIX_EPOCH, &LIMITS, |sequence| {
        place = Some(sequence);
        Lsn::START
    });
    pushed.map(|_| place)
}

/// Appends a message that the journal has at a number.
fn push_at(queue: &mut Queue, payload: &str, qos: Qos, lsn: u64) {
    let pushed = queue.push(parcel(payload, qos), Timestamp::UNIX_EPOCH, &LIMITS, |_| Lsn::at(lsn));
    assert_eq!(pushed, Ok(Lsn::at(lsn)));
}

/// The client has a message at quality 2, which the journal has at a number.
fn taken_at(queue: &mut Queue, id: u16, lsn: u64) -> Option<Lsn> {
    queue.taken(id, |_| Lsn::at(lsn)).unwrap()
}

/// Sends what may be sent with everything stored: payload, id and repetition of each message, and ids that are to be
/// released.
fn send(queue: &mut Queue, in_flight_max: usize) -> Vec<String> {
    let (sent, waits_for) = send_stored(queue, in_flight_max, u64::MAX);
    assert_eq!(waits_for, None);
    sent
}

/// As [`send`], with the journal stored up to a number; says how far it must be stored for more.
fn send_stored(queue: &mut Queue, in_flight_max: usize, stored: u64) -> (Vec<String>, Option<Lsn>) {
    let mut sent = Vec::new();
    let write = |step: Step<'_>| {
        sent.push(match step {
            Step::Publish { publication, packet_id, is_repeated, .. } => {
                let payload = String::from_utf8_lossy(&publication.payload);
                format!("{payload}:{packet_id}{}", if is_repeated { ":dup" } else { "" })
            }
            Step::Release { packet_id } => format!("release:{packet_id}"),
        });
        Written::Yes
    };
    let waits_for = queue.send(allowance(in_flight_max, stored), write, |_, _| {});
    (sent, waits_for)
}

fn allowance(in_flight_max: usize, stored: u64) -> Allowance {
    let age_max = LIMITS.age_max;
    Allowance { now: Timestamp::UNIX_EPOCH, in_flight_max, age_max, stored: Lsn::at(stored) }
}

#[test]
fn messages_leave_in_order_as_far_as_the_client_allows() {
    let mut queue = queue();
    for payload in ["a", "b", "c"] {
        push(&mut queue, payload, Qos::AtLeastOnce).unwrap();
    }
    push(&mut queue, "free", Qos::AtMostOnce).unwrap();
    assert_eq!(send(&mut queue, 2), ["a:1", "b:2"]);
    assert_eq!(send(&mut queue, 2), [] as [&str; 0]);
    assert_eq!(queue.acknowledged(2).unwrap(), Some(1));
    assert_eq!(send(&mut queue, 2), ["c:3", "free:0"]);
    assert_eq!(queue.acknowledged(1).unwrap(), Some(0));
    assert_eq!(queue.acknowledged(3).unwrap(), Some(2));
    assert_eq!(queue.acknowledged(3).unwrap(), None);
    assert_eq!((queue.len(), queue.bytes.amount(), queue.in_flight), (0, 0, 0));
}

#[test]
fn a_new_connection_gets_what_was_not_answered_once_more_under_the_same_ids() {
    let mut queue = queue();
    for (payload, qos) in [("a", Qos::ExactlyOnce), ("b", Qos::ExactlyOnce), ("c", Qos::AtLeastOnce)] {
        push(&mut queue, payload, qos).unwrap();
    }
    push(&mut queue, "free", Qos::AtMostOnce).unwrap();
    assert_eq!(send(&mut queue, 3), ["a:1", "b:2", "c:3", "free:0"]);
    assert_eq!(taken_at(&mut queue, 1, 7), Some(Lsn::at(7)));
    assert_eq!(taken_at(&mut queue, 1, 8), Some(Lsn::at(7)), "no news");
    queue.restart();
    assert_eq!(send(&mut queue, 2), ["release:1", "b:2:dup"]);
    assert_eq!(queue.completed(1).unwrap(), Some(0));
    assert_eq!(send(&mut queue, 2), ["c:3:dup"]);
    assert_eq!(taken_at(&mut queue, 9, 9), None);
    assert!(queue.acknowledged(2).is_err(), "PUBACK for a message at quality 2");
    assert!(queue.completed(2).is_err(), "PUBCOMP before PUBREC");
    assert!(queue.taken(3, |_| Lsn::START).is_err(), "PUBREC for a message at quality 1");
}

#[test]
fn at_quality_2_nothing_leaves_before_the_journal_has_it() {
    let mut queue = queue();
    push_at(&mut queue, "first", Qos::AtLeastOnce, 1);
    push_at(&mut queue, "once", Qos::ExactlyOnce, 2);
    push_at(&mut queue, "last", Qos::AtLeastOnce, 3);
    assert_eq!(send_stored(&mut queue, 10, 1), (vec!["first:1".to_owned()], Some(Lsn::at(2))));
    assert_eq!(send_stored(&mut queue, 10, 2), (vec!["once:2".to_owned(), "last:3".to_owned()], None));
    assert_eq!(taken_at(&mut queue, 2, 9), Some(Lsn::at(9)));
    queue.restart();
    let (sent, waits_for) = send_stored(&mut queue, 10, 8);
    assert_eq!(
        (sent, waits_for),
        (vec!["first:1:dup".to_owned()], Some(Lsn::at(9))),
        "a new connection waits as well"
    );
    assert_eq!(send_stored(&mut queue, 10, 9), (vec!["release:2".to_owned(), "last:3:dup".to_owned()], None));
}

#[test]
fn a_restored_queue_goes_on_where_it_was() {
    let stored = [(5, false), (6, true), (9, false)].map(|(sequence, is_received)| Queued {
        sequence,
        publication: publication(&sequence.to_string()),
        qos: Qos::ExactlyOnce,
        retain: false,
        subscription_ids: Vec::new(),
        is_received,
        queued_at: Timestamp::UNIX_EPOCH,
    });
    let mut queue = Queue::restore(&QueueBudget::new(1 << 20, 1000), &Owner::Anonymous, stored.to_vec());
    assert_eq!(push(&mut queue, "new", Qos::AtLeastOnce).unwrap(), Some(10));
    assert_eq!(send(&mut queue, 10), ["5:6:dup", "release:7", "9:10:dup", "new:11"]);
}

fn push_bytes(queue: &mut Queue, payload: usize, limits: &QueueLimits) -> Result<Lsn, QueueDrop> {
    queue.push(parcel(&"x".repeat(payload), Qos::AtLeastOnce), Timestamp::UNIX_EPOCH, limits, Lsn::at)
}

#[test]
fn every_limit_binds_and_says_which_it_was() {
    let limits = QueueLimits { messages_max: 2, bytes_max: 1000, age_max: Duration::from_secs(60) };
    let budget = QueueBudget::new(3600, limits.messages_max);
    let operator = Owner::Operator("ops".into());
    let mut queue = Queue::new(&budget, &operator);
    assert_eq!(push_bytes(&mut queue, 900, &limits), Err(QueueDrop::Bytes));
    assert_eq!(push_bytes(&mut queue, 10, &limits), Ok(Lsn::at(0)));
    assert_eq!(push_bytes(&mut queue, 10, &limits), Ok(Lsn::at(1)));
    assert_eq!(push_bytes(&mut queue, 10, &limits), Err(QueueDrop::Count));
    let mut second = Queue::new(&budget, &operator);
    assert_eq!(push_bytes(&mut second, 800, &limits), Err(QueueDrop::OwnerBytes), "a third is 1200");
    let mut other = Queue::new(&budget, &Owner::Anonymous);
    assert_eq!(push_bytes(&mut other, 800, &limits), Ok(Lsn::at(0)));
    let stored = budget.bytes.account(&operator).take_anyway(3600);
    let mut third = Queue::new(&budget, &Owner::Operator("third".into()));
    assert_eq!(push_bytes(&mut third, 10, &limits), Err(QueueDrop::TotalBytes));
    drop((queue, second, other, third, stored));
    assert_eq!((budget.bytes.taken(), budget.messages.taken(), budget.messages.owners()), (0, 0, 0));
}

#[test]
fn one_owner_has_as_many_messages_as_it_may_and_another_still_gets_its_own() {
    let budget = QueueBudget::new(1 << 30, LIMITS.messages_max);
    let mut greedy: Vec<Queue> = Vec::new();
    let refusal = loop {
        let mut queue = Queue::new(&budget, &Owner::Anonymous);
        let refusals: Vec<QueueDrop> =
            (0..LIMITS.messages_max).filter_map(|_| push(&mut queue, "", Qos::AtLeastOnce).err()).collect();
        greedy.push(queue);
        if let Some(refusal) = refusals.first() {
            break *refusal;
        }
    };
    assert_eq!((refusal, budget.messages.taken()), (QueueDrop::OwnerMessages, QUEUED_MESSAGES_MAX / 3));
    let mut other = Queue::new(&budget, &Owner::Operator("ops".into()));
    for _ in 0..LIMITS.messages_max {
        push(&mut other, "", Qos::AtLeastOnce).unwrap();
    }
}

#[test]
fn an_entry_that_only_keeps_its_place_counts_until_it_is_gone() {
    let budget = QueueBudget::new(1 << 20, LIMITS.messages_max);
    let mut queue = Queue::new(&budget, &Owner::Anonymous);
    for payload in ["first", "a", "b"] {
        push(&mut queue, payload, Qos::AtLeastOnce).unwrap();
    }
    send(&mut queue, 10);
    queue.acknowledged(2).unwrap();
    queue.acknowledged(3).unwrap();
    assert_eq!((queue.len(), budget.messages.taken()), (1, 3));
    queue.acknowledged(1).unwrap();
    assert_eq!((budget.messages.taken(), budget.bytes.taken()), (0, 0));
}

#[test]
fn what_waited_too_long_is_dropped_and_told() {
    let mut queue = queue();
    push(&mut queue, "old", Qos::AtLeastOnce).unwrap();
    let mut dropped = Vec::new();
    let later = Timestamp::UNIX_EPOCH + LIMITS.age_max;
    let allowance = Allowance { now: later, ..allowance(10, 0) };
    queue.send(allowance, |_| Written::Yes, |place, reason| dropped.push((place, reason)));
    assert_eq!(dropped, [(Some(0), QueueDrop::Age)]);
    assert_eq!((queue.len(), queue.in_flight), (0, 0));
}

#[test]
fn what_only_keeps_its_place_holds_no_payload() {
    let mut queue = queue();
    let messages = ["first", "a", "b"].map(publication);
    for (message, qos) in messages.iter().zip([Qos::AtLeastOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]) {
        queue.push(parcel_of(message, qos), Timestamp::UNIX_EPOCH, &LIMITS, Lsn::at).unwrap().unseen();
    }
    send(&mut queue, 10);
    queue.acknowledged(2).unwrap();
    let _ = taken_at(&mut queue, 3, 0);
    let holders = messages.each_ref().map(|message| Arc::strong_count(message) - 1);
    assert_eq!(holders, [1, 0, 0], "the client has all but the first");
    assert_eq!((queue.bytes.amount(), queue.places.amount()), (messages[0].cost_bytes(), 3));
}

proptest! {
    /// Whatever is sent, answered and broken off in whatever order: every promised message arrives, in order, and is
    /// finished exactly once. A message that is finished is held by nobody.
    #[test]
    fn every_promised_message_is_finished_once(actions in proptest::collection::vec(0u8..6, 1..300)) {
        let mut queue = queue();
        let mut messages: Vec<Arc<Publication>> = Vec::new();
        let mut finished = Vec::new();
        let mut in_flight: Vec<u16> = Vec::new();
        for action in actions {
            match action {
                0 | 1 => {
                    let message = publication(&messages.len().to_string());
                    let parcel = parcel_of(&message, Qos::AtLeastOnce);
                    messages.push(message);
                    queue.push(parcel, Timestamp::UNIX_EPOCH, &LIMITS, |_| Lsn::START).unwrap().unseen();
                }
                2 | 3 => in_flight.extend(ids(send(&mut queue, 5))),
                4 if !in_flight.is_empty() => {
                    let id = in_flight.swap_remove(in_flight.len() / 2);
                    finished.extend(queue.acknowledged(id).unwrap());
                }
                _ => {
                    queue.restart();
                    in_flight.clear();
                }
            }
            for (sequence, message) in messages.iter().enumerate() {
                let holders = Arc::strong_count(message) - 1;
                prop_assert_eq!(holders, usize::from(!finished.contains(&(sequence as u64))));
            }
        }
        queue.restart();
        loop {
            let sent = ids(send(&mut queue, 5));
            if sent.is_empty() {
                break;
            }
            for id in sent {
                finished.extend(queue.acknowledged(id).unwrap());
            }
        }
        finished.sort_unstable();
        prop_assert_eq!(finished, (0..messages.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!((queue.len(), queue.bytes.amount(), queue.in_flight), (0, 0, 0));
    }
}

fn ids(sent: Vec<String>) -> Vec<u16> {
    sent.iter().filter_map(|text| text.split(':').nth(1)?.parse().ok()).collect()
}
