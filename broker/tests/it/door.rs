//! The promise of the door: acknowledged means done, in order of arrival; dropped means delivered again.

use std::time::Duration;

use broker::{Delivery, Qos, Refusal, Settlement, Verdict};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

use crate::clients::{Hello, Raw, packet, puback, publish};
use crate::support::{PATIENCE, identity, open, settings, until};

const TOPIC: &str = "iot/telemetry/t/f/b/d/weight";

fn numbers(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.payload.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_acknowledged_only_after_it_is_done() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 7, false)).await;
    let delivery = arrivals.next().await;
    assert_eq!(
        (&*delivery.topic, &delivery.payload[..], delivery.qos, delivery.verdict),
        (TOPIC, b"1".as_slice(), Qos::AtLeastOnce, Verdict::Admitted)
    );
    assert_eq!(delivery.identity, Some(identity("d")));
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
    delivery.done();
    raw.expect(&puback(7)).await;
}

#[tokio::test]
async fn acknowledgements_leave_in_order_of_arrival() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    for id in 1..=5 {
        raw.send(&publish(TOPIC, id.to_string().as_bytes(), 1, id, false)).await;
    }
    let mut deliveries = arrivals.take(5).await;
    assert_eq!(numbers(&deliveries), ["1", "2", "3", "4", "5"]);
    deliveries.rotate_left(2);
    for delivery in deliveries.into_iter().rev() {
        delivery.done();
    }
    raw.expect(&(1..=5).flat_map(puback).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_dropped_delivery_comes_again_until_it_is_done() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    for attempt in 0..3 {
        let delivery = arrivals.next().await;
        assert_eq!((delivery.attempt(), &delivery.payload[..]), (attempt, b"1".as_slice()));
    }
    arrivals.next().await.done();
    raw.expect(&puback(1)).await;
    assert_eq!(door.door.stats().handed_back(), 3);
    assert_eq!(door.door.stats().unacked(), 0);
}

#[tokio::test]
async fn what_was_taken_in_is_delivered_although_the_client_is_gone() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 0, 0, false)).await;
    raw.send(&[0xe0, 0]).await;
    drop(arrivals.next().await);
    assert_eq!(raw.rest().await, b"");
    arrivals.next().await.done();
    until("nothing is open", || door.door.stats().unacked() == 0).await;
}

#[tokio::test]
async fn a_refused_message_is_acknowledged_too() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    arrivals.next().await.reject();
    raw.expect(&puback(1)).await;
}

#[tokio::test]
async fn a_publish_outside_the_scope_is_recorded_and_acknowledged_in_its_turn() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    raw.send(&publish("iot/telemetry/t/f/b/d2/weight", b"2", 1, 2, false)).await;
    raw.send(&publish("$SYS/x", b"3", 1, 3, false)).await;
    let deliveries = arrivals.take(3).await;
    let verdicts: Vec<_> = deliveries.iter().map(|delivery| delivery.verdict).collect();
    assert_eq!(verdicts, [Verdict::Admitted, Verdict::AclDenied, Verdict::AclDenied]);
    deliveries.into_iter().rev().for_each(Delivery::reject);
    raw.expect(&[puback(1), puback(2), puback(3)].concat()).await;
    assert_eq!(door.door.stats().refused(Refusal::Acl), 2);
}

#[tokio::test]
async fn a_scope_is_looked_up_when_it_may_have_changed_and_not_for_each_message() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    let mut exchange = async |id| {
        raw.send(&publish(TOPIC, b"1", 1, id, false)).await;
        arrivals.next().await.done();
        raw.expect(&puback(id)).await;
    };
    exchange(1).await;
    let asked = door.house.asked();
    for id in 2..20 {
        exchange(id).await;
    }
    assert_eq!(door.house.asked(), asked);
    door.house.enable(&identity("d2"), crate::support::scope("f", "b", None));
    exchange(20).await;
    assert_eq!(door.house.asked(), asked + 1);
}

#[tokio::test]
async fn a_changed_scope_holds_for_the_next_message() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 0, 0, false)).await;
    assert_eq!(arrivals.next().await.verdict, Verdict::Admitted);
    door.house.enable(&identity("d"), crate::support::scope("f", "b9", None));
    raw.send(&publish(TOPIC, b"2", 0, 0, false)).await;
    let denied = loop {
        let delivery = arrivals.next().await;
        if &delivery.payload[..] == b"2" {
            break delivery;
        }
        delivery.done();
    };
    assert_eq!(denied.verdict, Verdict::AclDenied);
}

#[tokio::test]
async fn a_message_above_the_limit_is_recorded_without_its_payload_and_acknowledged() {
    let (door, mut arrivals) = open(broker::DoorSettings { message_bytes_max: 1000, ..settings() }).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    raw.send(&publish(TOPIC, &vec![b'x'; 3_000_000], 1, 2, false)).await;
    raw.send(&publish(TOPIC, b"3", 1, 3, false)).await;
    let deliveries = arrivals.take(3).await;
    assert_eq!(deliveries[1].verdict, Verdict::TooLarge { size_bytes: 3_000_000 });
    assert!(deliveries[1].payload.is_empty());
    assert_eq!(&deliveries[2].payload[..], b"3");
    deliveries.into_iter().for_each(Delivery::done);
    raw.expect(&[puback(1), puback(2), puback(3)].concat()).await;
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_arrives_whole() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    let payload: Vec<u8> = (0..(1 << 20) - 2 - TOPIC.len() - 2).map(|index| index as u8).collect();
    raw.send(&publish(TOPIC, &payload, 1, 1, false)).await;
    let delivery = arrivals.next().await;
    assert_eq!((delivery.verdict, &delivery.payload[..]), (Verdict::Admitted, &payload[..]));
    delivery.done();
    raw.expect(&puback(1)).await;
}

#[tokio::test]
async fn qos_2_is_answered_after_the_commit_and_delivered_once() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 2, 9, false).repeat(2)).await;
    arrivals.next().await.done();
    raw.expect(&packet(0x50, &[0, 9]).repeat(2)).await;
    raw.send(&publish(TOPIC, b"1", 2, 9, false)).await;
    raw.expect(&packet(0x50, &[0, 9])).await;
    raw.send(&packet(0x62, &[0, 9])).await;
    raw.expect(&packet(0x70, &[0, 9])).await;
    raw.send(&publish(TOPIC, b"2", 2, 9, false)).await;
    let delivery = arrivals.next().await;
    assert_eq!(&delivery.payload[..], b"2");
    assert!(arrivals.is_empty());
    delivery.done();
    raw.expect(&packet(0x50, &[0, 9])).await;
}

#[tokio::test]
async fn a_shutdown_finishes_and_answers_what_is_in_hand() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw =
        Raw::login(door.address(), &Hello::device("d").with_will("iot/status/t/f/b/d", "off")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    let delivery = arrivals.next().await;
    let address = door.address();
    let handle = std::sync::Arc::clone(&door.door);
    let (abandoned, ()) = tokio::join!(handle.shutdown(PATIENCE), async {
        until("the listener is closed", || std::net::TcpStream::connect(address).is_err()).await;
        delivery.done();
    });
    assert_eq!(abandoned, 0);
    assert_eq!(raw.rest().await, puback(1));
    assert!(arrivals.is_empty(), "a door that closes publishes no last will");
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_does_not_finish_in_time() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    raw.send(&publish(TOPIC, b"1", 1, 1, false)).await;
    let delivery = arrivals.next().await;
    assert_eq!(door.close(Duration::from_millis(50)).await, 1);
    assert_eq!(raw.rest().await, b"");
    delivery.done();
}

#[tokio::test]
async fn a_real_client_gets_its_acknowledgements() {
    let (door, mut arrivals) = open(settings()).await;
    let mut options = MqttOptions::new("d", "127.0.0.1", door.address().port());
    options.set_credentials("d", "secret").set_inflight(50);
    let (client, mut events) = AsyncClient::new(options, 200);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Some(delivery) = arrivals.0.recv().await {
            delivery.done();
        }
    });
    for number in 0..100 {
        client.try_publish(TOPIC, QoS::AtLeastOnce, false, number.to_string()).unwrap();
    }
    let mut answered = 0;
    while answered < 100 {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            answered += 1;
        }
    }
    until("nothing is open", || door.door.stats().unacked() == 0).await;
    assert_eq!(door.door.stats().received(), 100);
}

#[test]
fn a_delivery_of_another_source_tells_how_it_ended() {
    let message = || broker::Message {
        topic: TOPIC.into(),
        parsed: None,
        payload: "1".into(),
        qos: Qos::AtMostOnce,
        retain: false,
        received_at: tokio::time::Instant::now(),
        arrived_at: schema::clock::Clock::system().now(),
        identity: None,
        verdict: Verdict::Admitted,
    };
    let (sender, ends) = std::sync::mpsc::channel();
    let delivery = || {
        let sender = sender.clone();
        Delivery::with_callback(message(), move |settlement| sender.send(settlement).unwrap())
    };
    delivery().done();
    delivery().reject();
    drop(delivery());
    let ends: Vec<_> = ends.try_iter().collect();
    assert_eq!(ends, [Settlement::Done, Settlement::Rejected, Settlement::HandedBack]);
}
