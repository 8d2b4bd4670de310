//! Bytes that no honest client sends: the connection may end, the listener never does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::DoorSettings;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::clients::{Hello, Raw, packet, publish, text};
use crate::support::{OpenDoor, open, open_guarded, open_with, settings, tray, until};

async fn expect_alive(address: SocketAddr) {
    let mut raw = Raw::login(address, &Hello::named("witness")).await;
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_malformed_packet_ends_its_connection_and_nothing_else() {
    let (door, mut arrivals) = open(settings()).await;
    let topic = text("iot/status/t/f/b/d");
    let cases: Vec<Vec<u8>> = vec![
        vec![0x00, 0x00],
        vec![0xf0, 0x00],
        vec![0x36, 0x03, 0x00, 0x01, b't'],
        vec![0x38, 0x03, 0x00, 0x01, b't'],
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x20, 0x02, 0x00, 0x00],
        vec![0x50, 0x03, 0x00, 0x01, 0x00],
        vec![0x40, 0x03, 0x00, 0x01, 0x00],
        vec![0xc0, 0x01, 0x00],
        packet(0x30, &[0, 9, b't']),
        packet(0x30, &[0, 0, b't']),
        packet(0x30, &text("a/+")),
        packet(0x30, &text("a\0b")),
        packet(0x30, &[0, 2, 0xc3, 0x28, 0]),
        packet(0x30, &[0, 3, 0xed, 0xa0, 0x80]),
        packet(0x32, &topic),
        packet(0x32, &[topic.clone(), vec![0, 0]].concat()),
        packet(0x82, &[0, 1]),
        packet(0x82, &[vec![0, 1], text("a")].concat()),
        packet(0x82, &[vec![0, 1], text("a"), vec![3]].concat()),
        packet(0x82, &[vec![0, 1], text("a/#/b"), vec![0]].concat()),
        packet(0x82, &[vec![0, 0], text("a"), vec![0]].concat()),
        packet(0x80, &[vec![0, 1], text("a"), vec![0]].concat()),
        packet(0xa2, &[0, 1]),
        packet(0x82, &vec![0; 70_000]),
        Hello::named("again").packet(),
    ];
    for case in cases {
        let mut raw = Raw::login(door.address(), &Hello::named("bad")).await;
        raw.send(&case).await;
        assert_eq!(raw.rest().await, b"", "{:02x?}", &case[..case.len().min(16)]);
    }
    expect_alive(door.address()).await;
    assert!(arrivals.is_empty());
    assert_eq!(door.door.stats().panicked(), 0);
}

#[tokio::test]
async fn a_first_packet_that_is_no_connect_is_not_answered() {
    let (door, _arrivals) = open(settings()).await;
    for case in [
        vec![0xc0, 0x00],
        publish("iot/x", b"1", 0, 0, false),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
        packet(0x10, &vec![0; 20_000]),
        packet(0x10, b"\0\x04MQTT\x04\x03\0\x3c\0\0"),
    ] {
        let mut raw = Raw::open(door.address()).await;
        raw.send(&case).await;
        assert_eq!(raw.rest().await, b"", "{case:02x?}");
    }
    expect_alive(door.address()).await;
}

#[tokio::test]
async fn random_bytes_never_stop_the_listener() {
    let door = open_with(settings(), std::sync::Arc::new(crate::support::Done)).await;
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for round in 0..300 {
        let strategy = proptest::collection::vec(any::<u8>(), 0..200);
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        if round % 3 != 0 {
            stream.write_all(&Hello::named("").packet()).await.unwrap();
        }
        // The door may close in the middle of it.
        let _ = stream.write_all(&bytes).await;
    }
    expect_alive(door.address()).await;
    until("all are gone", || door.door.stats().connections() == 0).await;
    assert_eq!(door.door.stats().panicked(), 0);
}

#[tokio::test]
async fn a_reset_right_after_the_connect_is_survived_200_times() {
    let (door, _arrivals) = open(settings()).await;
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_zero_linger().unwrap();
        let mut stream = socket.connect(door.address()).await.unwrap();
        stream.write_all(&Hello::named("r").packet()).await.unwrap();
        drop(stream);
    }
    expect_alive(door.address()).await;
    assert_eq!(door.door.stats().panicked(), 0);
}

#[tokio::test]
async fn sockets_that_say_nothing_are_closed_and_hinder_nobody() {
    let connect_timeout = Duration::from_millis(500);
    let (door, _arrivals) = open(DoorSettings { connect_timeout, ..settings() }).await;
    let mut idle = Vec::new();
    for index in 0..200 {
        let mut raw = Raw::open(door.address()).await;
        raw.send(&Hello::named("slow").packet()[..index % 12]).await;
        idle.push(raw);
    }
    expect_alive(door.address()).await;
    for raw in idle {
        assert_eq!(raw.rest().await, b"");
    }
}

#[tokio::test]
async fn a_packet_that_never_ends_is_not_waited_for() {
    let stuck_timeout = Duration::from_millis(300);
    let (door, mut arrivals) = open(DoorSettings { stuck_timeout, ..settings() }).await;
    let mut raw = Raw::login(door.address(), &Hello { keep_alive_seconds: 0, ..Hello::named("x") }).await;
    raw.send(&publish("iot/x", &vec![0; 3_000], 1, 1, false)[..2_000]).await;
    assert_eq!(raw.rest().await, b"");
    let mut idle = Raw::login(door.address(), &Hello { keep_alive_seconds: 0, ..Hello::named("x") }).await;
    idle.send(&[0xc0, 0]).await;
    idle.expect(&[0xd0, 0]).await;
    assert!(arrivals.is_empty());
}

#[tokio::test]
async fn a_full_house_turns_the_next_away_and_lets_others_in_later() {
    let (door, _arrivals) = open(DoorSettings { connections_max: 2, ..settings() }).await;
    let first = Raw::login(door.address(), &Hello::named("1")).await;
    let _second = Raw::login(door.address(), &Hello::device("d")).await;
    let mut late = Raw::open(door.address()).await;
    late.send(&Hello::device("d2").packet()).await;
    assert_eq!(late.rest().await, b"", "a code would be taken for the device's own fault");
    assert_eq!(door.door.stats().refused(broker::Refusal::Full), 1);
    drop(first);
    until("a place is free", || door.door.stats().connections() == 1).await;
    until_let_in(&door, &Hello::device("d2")).await;
}

/// The place of a client that has left is free when its stream is closed.
async fn until_let_in(door: &OpenDoor, hello: &Hello) -> Raw {
    loop {
        let mut raw = Raw::open(door.address()).await;
        raw.send(&hello.packet()).await;
        if raw.is_answered(&[0x20, 2, 0, 0]).await {
            return raw;
        }
    }
}

#[tokio::test]
async fn one_credential_takes_no_more_than_its_part_of_the_places() {
    let (door, _arrivals) = open(DoorSettings { connections_max: 9, ..settings() }).await;
    let name = |number: usize| ["a", "b", "c", "d", "e", "f", "g", "h", "i"][number];
    let greedy = |number| Hello { client_id: name(number), ..Hello::device("d") };
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(Raw::login(door.address(), &greedy(number)).await);
    }
    let mut more = Raw::open(door.address()).await;
    more.send(&greedy(3).packet()).await;
    assert_eq!(more.rest().await, b"");
    assert_eq!(door.door.stats().refused(broker::Refusal::Quota), 1);
    assert_eq!(door.door.stats().spent(broker::share::Budget::Connections), 1);
    Raw::login(door.address(), &Hello::device("d2")).await;
    Raw::login(door.address(), &Hello::named("anonymous")).await;
    // Whoever has its part may come again in place of one of its own.
    Raw::login(door.address(), &greedy(0)).await;
}

#[tokio::test]
async fn silence_before_the_login_keeps_nobody_out() {
    let few = DoorSettings { connections_max: 128, handshakes_per_address_max: 0, ..settings() };
    let (door, _arrivals) = open(few).await;
    let mut silent = Vec::new();
    for host in 1..=4 {
        for _ in 0..40 {
            silent.push(Raw::open_from([127, 0, 0, host], door.address()).await);
        }
    }
    let mut raw = Raw::open_from([127, 0, 0, 9], door.address()).await;
    raw.send(&Hello::device("d").packet()).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    assert!(door.door.stats().refused(broker::Refusal::Address) > 0);
    assert_eq!(door.door.stats().refused(broker::Refusal::Full), 0);
}

#[tokio::test]
async fn one_address_takes_no_more_places_before_its_login_than_it_may() {
    let (door, _arrivals) = open(DoorSettings { handshakes_per_address_max: 3, ..settings() }).await;
    let here = [127, 0, 0, 7];
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(Raw::open_from(here, door.address()).await);
    }
    assert_eq!(Raw::open_from(here, door.address()).await.rest().await, b"");
    assert_eq!(door.door.stats().refused(broker::Refusal::Address), 1);
    expect_alive(door.address()).await;
    let mut first = waiting.remove(0);
    first.send(&Hello::named("1").packet()).await;
    first.expect(&[0x20, 2, 0, 0]).await;
    let mut next = Raw::open_from(here, door.address()).await;
    next.send(&Hello::named("2").packet()).await;
    next.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_guesser_waits_ever_longer_and_hinders_nobody() {
    let refusal_delay = Duration::from_millis(100);
    let (tray, _arrivals) = tray();
    let door = open_guarded(settings(), tray, refusal_delay).await;
    let guess = Hello { user: Some(("d", "guess")), ..Hello::named("guesser") };
    for doublings in 0..4 {
        let started = Instant::now();
        let mut raw = Raw::open_from([127, 0, 0, 7], door.address()).await;
        raw.send(&guess.packet()).await;
        raw.expect(&[0x20, 2, 0, 5]).await;
        assert!(started.elapsed() >= refusal_delay * (1 << doublings));
    }
    Raw::login(door.address(), &Hello::device("d")).await;
    assert_eq!(door.door.stats().refused(broker::Refusal::Credential), 4);
}
