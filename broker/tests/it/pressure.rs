//! Back-pressure: what is not settled is bounded, per client and for all of them together.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::{Delivery, DoorSettings};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::clients::{Hello, Raw, puback, publish};
use crate::support::{Done, open, open_with, settings, until};

const TOPIC: &str = "iot/telemetry/t/f/b/d/weight";

#[tokio::test]
async fn a_client_is_read_only_while_its_window_has_room() {
    let (door, mut arrivals) = open(DoorSettings { inflight_max: 10, ..settings() }).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    for id in 1..=30 {
        raw.send(&publish(TOPIC, b"x", 1, id, false)).await;
    }
    let mut held = arrivals.take(10).await;
    for id in 1..=20 {
        assert!(arrivals.is_empty(), "the window is full");
        held.remove(0).done();
        raw.expect(&puback(id)).await;
        held.push(arrivals.next().await);
    }
    held.into_iter().for_each(Delivery::done);
    raw.expect(&(21..=30).flat_map(puback).collect::<Vec<_>>()).await;
}

/// Clients push all they can, whether anything is settled or not.
async fn flood(door: std::net::SocketAddr, clients: usize, payload_bytes: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let name: &'static str = format!("c{client}").leak();
        tasks.spawn(async move {
            let mut raw = Raw::login(door, &Hello::named(name)).await;
            let message = publish(TOPIC, &vec![b'x'; payload_bytes], 1, 1, false);
            // Ends when the door is gone.
            while raw.0.write_all(&message).await.is_ok() {}
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_socket_is_read_when_the_credit_in_messages_is_spent() {
    let (door, mut arrivals) = open(DoorSettings { credit_messages_max: 50, ..settings() }).await;
    let _clients = flood(door.address(), 20, 10).await;
    let mut held: VecDeque<Delivery> = arrivals.take(50).await.into();
    // However many come, there are never more than the credit allows: each new one takes the place of one that was done.
    for _ in 0..2000 {
        assert!(arrivals.is_empty(), "the credit is spent");
        assert_eq!(door.door.stats().unacked(), 50);
        held.pop_front().expect("there are 50").done();
        held.push_back(arrivals.next().await);
    }
    held.into_iter().take(25).for_each(Delivery::done);
    // The other half was handed back; all of it comes again, or something new in the place of what was done.
    arrivals.take(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_socket_is_read_when_the_credit_in_bytes_is_spent() {
    let credit_bytes_max = 4 << 20;
    let (door, mut arrivals) = open(DoorSettings { credit_bytes_max, ..settings() }).await;
    let before = resident_bytes();
    let _clients = flood(door.address(), 50, 300_000).await;
    let mut held: VecDeque<Delivery> = arrivals.take(credit_bytes_max / 301_000).await.into();
    for _ in 0..500 {
        assert!(arrivals.is_empty(), "so many bytes are in hand");
        held.pop_front().expect("there are some").done();
        held.push_back(arrivals.next().await);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes of memory for {credit_bytes_max} bytes of credit");
    assert!(held.iter().all(|delivery| delivery.payload.len() == 300_000));
}

/// Resident memory of this process: test and door.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_fifty_clients_at_full_speed_is_answered_in_order() {
    const CLIENTS: usize = 50;
    const MESSAGES: usize = 1_000;
    const WINDOW: usize = 20;
    let door = Arc::new(open_with(settings(), Arc::new(Done)).await);
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let address = door.address();
        let name: &'static str = format!("c{client}").leak();
        tasks.spawn(async move {
            let mut raw = Raw::login(address, &Hello::named(name)).await;
            let burst = publish(TOPIC, &[b'x'; 300], 1, 1, false).repeat(WINDOW);
            let answers = puback(1).repeat(WINDOW);
            for _ in 0..MESSAGES / WINDOW {
                raw.send(&burst).await;
                raw.expect(&answers).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    until("all is answered", || door.door.stats().unacked() == 0).await;
}
