//! The link over a real external broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker::{Delivery, Intake, Link, LinkParts, LinkSettings, Verdict};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use schema::clock::Clock;
use tokio::task::JoinSet;

use crate::mosquitto::Mosquitto;
use crate::support::{Arrivals, PATIENCE, tray, until};

const TOPIC: &str = "iot/telemetry/t/f/b/d/weight";

struct Linked {
    link: Arc<Link>,
    arrivals: Arrivals,
    tasks: JoinSet<()>,
}

async fn connect(broker: &Mosquitto, ack_window: usize) -> Linked {
    let (tray, arrivals) = tray();
    let settings = LinkSettings {
        tls: None,
        host: broker.address.ip().to_string(),
        port: broker.address.port(),
        client_id: "edge-ingress-gateway".into(),
        credentials: None,
        ack_window,
        packet_bytes_max: 1 << 20,
        keepalive: Duration::from_secs(60),
        will: None,
    };
    let parts = LinkParts { intake: tray as Arc<dyn Intake>, clock: Clock::system() };
    let link = Arc::new(Link::new(settings, parts));
    let mut tasks = JoinSet::new();
    let running = Arc::clone(&link);
    tasks.spawn(async move { running.run().await });
    until("the link is up", || link.stats().is_connected()).await;
    Linked { link, arrivals, tasks }
}

/// Publishes numbers and waits until the broker has them.
async fn publish(broker: &Mosquitto, numbers: std::ops::Range<usize>) {
    let mut options = MqttOptions::new("device", broker.address.ip().to_string(), broker.address.port());
    options.set_max_packet_size(8 << 20, 8 << 20);
    let (client, mut events) = AsyncClient::new(options, numbers.len() + 1);
    for number in numbers.clone() {
        client.try_publish(TOPIC, QoS::AtLeastOnce, false, number.to_string()).unwrap();
    }
    let mut answered = 0;
    while answered < numbers.len() {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            answered += 1;
        }
    }
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.payload).unwrap().parse().unwrap()
}

#[tokio::test]
async fn messages_are_acknowledged_after_they_are_done_within_the_window() {
    let broker = Mosquitto::start().await;
    let mut linked = connect(&broker, 10).await;
    publish(&broker, 0..100).await;
    let mut held = linked.arrivals.take(10).await;
    assert_eq!(linked.link.stats().unacked(), 10);
    assert!(linked.arrivals.is_empty());
    let mut seen: Vec<usize> = held.iter().map(number).collect();
    held.drain(..).rev().for_each(Delivery::done);
    while seen.len() < 100 {
        let delivery = linked.arrivals.next().await;
        seen.push(number(&delivery));
        delivery.done();
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(linked.link.shutdown(PATIENCE).await, 0);
    linked.tasks.join_next().await;
    let mut again = connect(&broker, 10).await;
    publish(&broker, 100..101).await;
    assert_eq!(number(&again.arrivals.next().await), 100, "nothing that was acknowledged comes again");
}

#[tokio::test]
async fn what_was_not_done_when_the_engine_died_comes_again() {
    let broker = Mosquitto::start().await;
    let mut first = connect(&broker, 50).await;
    publish(&broker, 0..50).await;
    let held = first.arrivals.take(50).await;
    let (done, lost): (Vec<_>, Vec<_>) = held.into_iter().partition(|delivery| number(delivery) < 20);
    done.into_iter().for_each(Delivery::done);
    until("20 are acknowledged", || first.link.stats().unacked() == 30).await;
    publish(&broker, 50..51).await;
    let after = first.arrivals.next().await;
    assert_eq!(number(&after), 50);
    first.tasks.shutdown().await;
    drop((lost, after));
    let mut second = connect(&broker, 100).await;
    let mut missing: BTreeSet<usize> = (20..=50).collect();
    while !missing.is_empty() {
        let delivery = second.arrivals.next().await;
        missing.remove(&number(&delivery));
        delivery.done();
    }
}

#[tokio::test]
async fn an_acknowledgement_of_an_earlier_connection_is_not_sent_on_a_later_one() {
    let mut broker = Mosquitto::start().await;
    let mut linked = connect(&broker, 100).await;
    publish(&broker, 0..40).await;
    let held = linked.arrivals.take(40).await;
    broker.stop().await;
    until("the link is down", || !linked.link.stats().is_connected()).await;
    broker.start_again().await;
    until("the link is up again", || linked.link.stats().is_connected()).await;
    let repeated = linked.arrivals.take(40).await;
    held.into_iter().for_each(Delivery::done);
    publish(&broker, 40..41).await;
    let mut seen: BTreeSet<usize> = repeated.iter().map(number).collect();
    seen.insert(number(&linked.arrivals.next().await));
    assert_eq!(seen, (0..=40).collect());
    linked.tasks.shutdown().await;
    drop(repeated);
    let mut second = connect(&broker, 100).await;
    let again: BTreeSet<usize> = second.arrivals.take(41).await.iter().map(number).collect();
    assert_eq!(again, (0..=40).collect(), "the stale acknowledgements took nothing away");
}

#[tokio::test]
async fn a_session_the_broker_lost_is_subscribed_again() {
    let mut broker = Mosquitto::start().await;
    let mut linked = connect(&broker, 10).await;
    broker.stop().await;
    broker.forget();
    until("the link is down", || !linked.link.stats().is_connected()).await;
    broker.start_again().await;
    until("the link is up again", || linked.link.stats().is_connected()).await;
    publish(&broker, 0..1).await;
    assert_eq!(number(&linked.arrivals.next().await), 0);
}

#[tokio::test]
async fn a_message_above_the_limit_is_recorded_and_does_not_break_the_link() {
    let broker = Mosquitto::start().await;
    let mut linked = connect(&broker, 10).await;
    let mut options = MqttOptions::new("device", broker.address.ip().to_string(), broker.address.port());
    options.set_max_packet_size(8 << 20, 8 << 20);
    let (client, mut events) = AsyncClient::new(options, 10);
    client.try_publish(TOPIC, QoS::AtLeastOnce, false, vec![b'x'; 2 << 20]).unwrap();
    client.try_publish(TOPIC, QoS::AtLeastOnce, false, "1").unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while events.poll().await.is_ok() {} });
    let large = linked.arrivals.next().await;
    assert_eq!(large.verdict, Verdict::TooLarge { size_bytes: 2 << 20 });
    large.reject();
    assert_eq!(number(&linked.arrivals.next().await), 1);
    assert!(linked.link.stats().is_connected());
}

#[tokio::test]
async fn a_dropped_delivery_of_the_link_comes_again() {
    let broker = Mosquitto::start().await;
    let mut linked = connect(&broker, 10).await;
    publish(&broker, 0..1).await;
    drop(linked.arrivals.next().await);
    let again = linked.arrivals.next().await;
    assert_eq!((number(&again), again.attempt()), (0, 1));
    again.done();
    until("it is acknowledged", || linked.link.stats().unacked() == 0).await;
    assert_eq!(linked.link.stats().handed_back(), 1);
}
