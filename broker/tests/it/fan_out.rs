//! What subscribers see: committed messages, retained status, and nothing they may not.

use broker::{DoorSettings, Live, Refusal};

use crate::clients::{Hello, Raw, packet, puback, publish, subscribe};
use crate::support::{PATIENCE, open, settings};

const STATUS: &str = "iot/status/t/f/b/d";
const READING: &str = "iot/telemetry/t/f/b/d/weight";

/// Everything that may carry messages to subscribers that are promised nothing.
const WAYS: [Live; 2] = [Live::Queues, Live::Rumqttd];

async fn ping(raw: &mut Raw) {
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_live_message_is_shown_after_it_is_done() {
    for live in WAYS {
        check_shown(live).await;
    }
}

async fn check_shown(live: Live) {
    let (door, mut arrivals) = open(DoorSettings { live, ..settings() }).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, "iot/#", 0)).await;
    tool.expect(&packet(0x90, &[0, 1, 0])).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    for (id, payload) in [(1, b"1"), (2, b"2"), (3, b"3")] {
        device.send(&publish(READING, payload, 1, id, false)).await;
    }
    let mut deliveries = arrivals.take(3).await;
    ping(&mut tool).await;
    let third = deliveries.pop().unwrap();
    third.done();
    deliveries.pop().unwrap().reject();
    deliveries.pop().unwrap().done();
    tool.expect(&publish(READING, b"1", 0, 0, false)).await;
    tool.expect(&publish(READING, b"3", 0, 0, false)).await;
    device.expect(&[puback(1), puback(2), puback(3)].concat()).await;
}

#[tokio::test]
async fn retained_status_is_sent_on_subscribe_and_removed_by_an_empty_one() {
    let (door, mut arrivals) = open(settings()).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    device.send(&publish(STATUS, b"online", 1, 1, true)).await;
    device.send(&publish(READING, b"5", 1, 2, true)).await;
    arrivals.next().await.done();
    arrivals.next().await.done();
    device.expect(&[puback(1), puback(2)].concat()).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, "iot/#", 1)).await;
    tool.expect(&packet(0x90, &[0, 1, 1])).await;
    tool.expect(&publish(STATUS, b"online", 1, 1, true)).await;
    tool.send(&puback(1)).await;
    device.send(&publish(STATUS, b"", 1, 3, true)).await;
    arrivals.next().await.done();
    device.expect(&puback(3)).await;
    tool.expect(&publish(STATUS, b"", 1, 2, false)).await;
    assert!(arrivals.is_empty());
    let mut late = Raw::login(door.address(), &Hello::named("late")).await;
    late.send(&subscribe(1, STATUS, 1)).await;
    late.expect(&packet(0x90, &[0, 1, 1])).await;
    ping(&mut late).await;
}

#[tokio::test]
async fn a_device_may_subscribe_only_to_its_own_status() {
    let (door, _arrivals) = open(settings()).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    for (id, filter, code) in [
        (1, STATUS, 1),
        (2, "iot/status/t/f/b/d2", 0x80),
        (3, "#", 0x80),
        (4, "iot/#", 0x80),
        (5, READING, 0x80),
    ] {
        device.send(&subscribe(id, filter, 1)).await;
        device.expect(&packet(0x90, &[0, id as u8, code])).await;
    }
    assert_eq!(door.door.stats().refused(Refusal::Acl), 4);
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, "$SYS/#", 1)).await;
    tool.expect(&packet(0x90, &[0, 1, 0x80])).await;
}

#[tokio::test]
async fn nothing_comes_after_an_unsubscribe() {
    for live in WAYS {
        check_unsubscribed(live).await;
    }
}

async fn check_unsubscribed(live: Live) {
    let (door, mut arrivals) = open(DoorSettings { live, ..settings() }).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, READING, 0)).await;
    tool.expect(&packet(0x90, &[0, 1, 0])).await;
    tool.send(&subscribe(2, STATUS, 0)).await;
    tool.expect(&packet(0x90, &[0, 2, 0])).await;
    tool.send(&packet(0xa2, &[vec![0, 3], crate::clients::text(READING)].concat())).await;
    tool.expect(&packet(0xb0, &[0, 3])).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    device.send(&publish(READING, b"1", 0, 0, false)).await;
    device.send(&publish(STATUS, b"2", 0, 0, false)).await;
    arrivals.next().await.done();
    arrivals.next().await.done();
    tool.expect(&publish(STATUS, b"2", 0, 0, false)).await;
}

#[tokio::test]
async fn a_topic_the_router_cannot_bear_is_spelled_for_it() {
    for live in WAYS {
        check_spelled(live).await;
    }
}

async fn check_spelled(live: Live) {
    let (door, mut arrivals) = open(DoorSettings { live, ..settings() }).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, "iot/#", 0)).await;
    tool.expect(&packet(0x90, &[0, 1, 0])).await;
    for topic in ["ü", "iot/ü", "/iot/status/t/f/b/d", "€/iot", READING] {
        tool.send(&publish(topic, b"1", 0, 0, false)).await;
        let delivery = arrivals.next().await;
        assert_eq!(&*delivery.topic, topic);
        delivery.done();
    }
    tool.expect(&publish("iot/ü", b"1", 0, 0, false)).await;
    tool.expect(&publish(STATUS, b"1", 0, 0, false)).await;
    tool.expect(&publish(READING, b"1", 0, 0, false)).await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_answer_gets_no_more_than_its_window() {
    let (door, mut arrivals) = open(DoorSettings { inflight_max: 2, ..settings() }).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    tool.send(&subscribe(1, "iot/#", 1)).await;
    tool.expect(&packet(0x90, &[0, 1, 1])).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    for _ in 0..4 {
        device.send(&publish(READING, b"1", 1, 9, false)).await;
        arrivals.next().await.done();
        device.expect(&puback(9)).await;
    }
    tool.expect(&publish(READING, b"1", 1, 1, false)).await;
    tool.expect(&publish(READING, b"1", 1, 2, false)).await;
    ping(&mut tool).await;
    tool.send(&puback(1)).await;
    tool.expect(&publish(READING, b"1", 1, 3, false)).await;
    tool.send(&[puback(2), puback(3)].concat()).await;
    tool.expect(&publish(READING, b"1", 1, 4, false)).await;
    assert_eq!(door.close(PATIENCE).await, 0);
}

#[tokio::test]
async fn live_messages_need_no_room_in_the_queue_of_what_is_promised() {
    let (door, mut arrivals) = open(DoorSettings { queued_messages_max: 1, ..settings() }).await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    for (id, filter, qos) in [(1, READING, 0), (2, STATUS, 1)] {
        tool.send(&subscribe(id, filter, qos)).await;
        tool.expect(&packet(0x90, &[0, id as u8, qos])).await;
    }
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    device.send(&publish(STATUS, b"promised", 1, 1, false)).await;
    arrivals.next().await.done();
    device.expect(&puback(1)).await;
    tool.expect(&publish(STATUS, b"promised", 1, 1, false)).await;
    // The queue is full until that is acknowledged.
    for number in 0..20_u8 {
        device.send(&publish(READING, &[b'a' + number], 0, 0, false)).await;
        arrivals.next().await.done();
        tool.expect(&publish(READING, &[b'a' + number], 0, 0, false)).await;
    }
    assert_eq!(broker::stats::QueueDrop::ALL.map(|reason| door.door.stats().queue_dropped(reason)), [0; 9]);
}
