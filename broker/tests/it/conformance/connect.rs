//! From the first packet to the CONNACK, and how a connection ends.

use std::time::{Duration, Instant};

use super::*;
use crate::support::open;

/// What is sent before a CONNECT is not answered.
async fn first_packet(version: Version) {
    let door = door().await;
    for packet in ["c0 00", "30 [ <a> ~ 'x' ]", "82 [ 0001 ~ <a> 00 ]", "e0 00", "40 [ 0001 ]"] {
        let mut peer = Peer::open(&door, version).await;
        peer.send(packet).await;
        peer.expect_end("").await;
    }
}

#[tokio::test]
async fn v4_mqtt_3_1_0_1() {
    first_packet(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_0_1() {
    first_packet(V5).await;
}

async fn second_connect(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("10 [ <MQTT> % 02 003c ~ <id> ]").await;
    peer.expect_refusal(0x82).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_0_2() {
    second_connect(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_0_2() {
    second_connect(V5).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_4_1() {
    let door = door().await;
    for connect in [
        "10 [ <MQTT> 04 03 003c <id> ]",
        "10 [ <MQTT> 04 06 003c <id> ]",
        "10 [ <MQTT> 04 02 003c 0001 ff ]",
        "10 [ <MQTT> 04 02 003c <id> 00 ]",
        "11 [ <MQTT> 04 02 003c <id> ]",
    ] {
        let mut peer = Peer::open(&door, V4).await;
        peer.send(connect).await;
        peer.expect_end("").await;
    }
}

async fn silence(version: Version) {
    let door = door().await;
    let started = Instant::now();
    let peer = Peer::present(&door, version, "10 [ <MQTT> % 02 0001 ~ <id> ]", false).await;
    peer.expect_refusal(0x8d).await;
    assert!(started.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn v4_mqtt_3_1_2_24() {
    silence(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_22() {
    silence(V5).await;
}

/// Clients are told apart by their ids: each has its own session.
async fn client_ids(version: Version) {
    let door = door().await;
    let mut one = Peer::lasting(&door, version, "one", false).await;
    one.subscribe("a", 1).await;
    one.leave().await;
    let mut two = Peer::lasting(&door, version, "two", false).await;
    two.publish("a", "x").await;
    two.expect_silence().await;
    Peer::lasting(&door, version, "one", true).await.take("a", "x").await;
}

#[tokio::test]
async fn v4_mqtt_3_1_3_2() {
    client_ids(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_3_2() {
    client_ids(V5).await;
}

/// Clients without a name do not get in each other's way.
async fn nameless(version: Version) {
    let door = door().await;
    let mut one = Peer::present(&door, version, "10 [ <MQTT> % 02 003c ~ <> ]", false).await;
    let mut two = Peer::present(&door, version, "10 [ <MQTT> % 02 003c ~ <> ]", false).await;
    one.expect_silence().await;
    two.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_1_3_6() {
    nameless(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_3_6() {
    nameless(V5).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_3_8() {
    let door = door().await;
    let mut peer = Peer::open(&door, V4).await;
    peer.send("10 [ <MQTT> 04 00 003c <> ]").await;
    peer.expect_end("20 [ 00 02 ]").await;
}

#[tokio::test]
async fn v4_mqtt_3_1_3_9() {
    let door = door().await;
    let mut peer = Peer::open(&door, V4).await;
    // What follows a CONNECT that is refused is not looked at.
    peer.send("10 [ <MQTT> 04 00 003c <> ] c0 00").await;
    peer.expect_end("20 [ 00 02 ]").await;
}

/// The name a client of version 5 was given.
async fn assigned(peer: &mut Peer) -> String {
    peer.send("10 [ <MQTT> 05 00 003c [ 11 00000e10 ] <> ]").await;
    let properties = connack_properties(&peer.next().await);
    let (_, name) = properties.into_iter().find(|(id, _)| *id == 0x12).expect("a name");
    String::from_utf8(name[2..].to_vec()).unwrap()
}

#[tokio::test]
async fn v5_mqtt_3_1_3_7() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    let name = assigned(&mut peer).await;
    peer.subscribe("a", 1).await;
    peer.leave().await;
    Peer::lasting(&door, V5, &name, true).await;
}

#[tokio::test]
async fn v5_mqtt_3_2_2_16() {
    let door = door().await;
    let mut names = Vec::new();
    for _ in 0..3 {
        let mut peer = Peer::open(&door, V5).await;
        names.push(assigned(&mut peer).await);
        peer.leave().await;
    }
    names.sort();
    names.dedup();
    assert_eq!((names.len(), names.contains(&String::new())), (3, false));
}

async fn takeover(version: Version) {
    let door = door().await;
    let first = Peer::connect(&door, version, "id").await;
    let mut second = Peer::connect(&door, version, "id").await;
    first.expect_refusal(0x8e).await;
    second.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_1_4_2() {
    takeover(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_4_3() {
    takeover(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_4_2() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 c2 003c [ ] <d> <d> <guess> ]").await;
    let answer = peer.next().await;
    assert!([0x86, 0x87].contains(&answer[3]), "{answer:02x?}");
    peer.expect_end("").await;
}

#[tokio::test]
async fn v4_mqtt_3_2_2_5() {
    let door = door().await;
    let mut peer = Peer::open(&door, V4).await;
    peer.send("10 [ <MQTT> 04 c2 003c <d> <d> <guess> ]").await;
    peer.expect_end("20 [ 00 05 ]").await;
}

#[tokio::test]
async fn v5_mqtt_3_2_2_7() {
    let door = door().await;
    for connect in [
        "10 [ <MQTT> 05 c2 003c [ ] <d> <d> <guess> ]",
        "10 [ <MQTT> 05 02 003c [ 15 <SCRAM> ] <id> ]",
        "10 [ <MQTT> 05 03 003c [ ] <id> ]",
    ] {
        let mut peer = Peer::open(&door, V5).await;
        peer.send(connect).await;
        let answer = peer.next().await;
        assert_eq!((answer[0], answer[2], answer[3] >= 0x80), (0x20, 0, true), "{answer:02x?}");
        peer.expect_end("").await;
    }
}

#[tokio::test]
async fn v4_mqtt_3_1_4_4() {
    let door = door().await;
    let mut peer = Peer::open(&door, V4).await;
    peer.send("10 [ <MQTT> 04 02 003c <id> ]").await;
    peer.expect("20 [ 00 00 ]").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_4_5() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ ] <id> ]").await;
    assert_eq!(peer.next().await[3], 0);
}

async fn refused_with_more(version: Version) {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::open(&door, version).await;
    peer.send("10 [ <MQTT> % c2 003c ~ <d> <d> <guess> ] 32 [ <iot/status/t/f/b/d> 0001 ~ 'x' ]").await;
    let answer = peer.next().await;
    assert_ne!(answer[3], 0, "{answer:02x?}");
    peer.expect_end("").await;
    assert!(arrivals.is_empty());
}

#[tokio::test]
async fn v4_mqtt_3_1_4_5() {
    refused_with_more(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_4_6() {
    refused_with_more(V5).await;
}

/// The first packet a client gets is the CONNACK, whatever waits for it.
async fn first_answer(version: Version) {
    let door = door().await;
    let mut peer = Peer::lasting(&door, version, "id", false).await;
    peer.subscribe("a", 1).await;
    peer.leave().await;
    Peer::connect(&door, version, "other").await.publish("a", "x").await;
    let mut peer = Peer::open(&door, version).await;
    let connect = version.lasting("id", false);
    peer.send(&format!("{connect} c0 00 82 [ 0001 ~ <b> 01 ]")).await;
    assert_eq!(peer.next().await[0], 0x20);
}

#[tokio::test]
async fn v4_mqtt_3_2_0_1() {
    first_answer(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_2_0_1() {
    first_answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_2_0_2() {
    let door = door().await;
    Peer::connect(&door, V5, "id").await.expect_silence().await;
}

async fn ping(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("c0 00 c0 00").await;
    peer.expect("d0 00").await;
    peer.expect("d0 00").await;
}

#[tokio::test]
async fn v4_mqtt_3_12_4_1() {
    ping(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_12_4_1() {
    ping(V5).await;
}

/// What breaks the protocol ends its connection.
async fn violations(version: Version, cases: &[(u8, &str)]) {
    let door = door().await;
    for (reason, packet) in cases {
        let mut peer = Peer::connect(&door, version, "id").await;
        peer.send(packet).await;
        peer.expect_refusal(*reason).await;
    }
}

const VIOLATIONS: [(u8, &str); 9] = [
    (0x82, "82 [ 0001 ~ ]"),
    (0x82, "a2 [ 0001 ~ ]"),
    (0x81, "30 [ <a/#> ~ 'x' ]"),
    (0x81, "36 [ <a> 0001 ~ 'x' ]"),
    (0x81, "82 [ 0001 ~ <a#> 00 ]"),
    (0x82, "20 [ 00 00 ]"),
    (0x82, "2f [ 00 00 ]"),
    (0x82, "00 00"),
    (0x81, "c0 [ 00 ]"),
];

#[tokio::test]
async fn v4_mqtt_4_8_0_1() {
    violations(V4, &VIOLATIONS).await;
}

#[tokio::test]
async fn v5_mqtt_4_13_1_1() {
    violations(V5, &VIOLATIONS).await;
    violations(V5, &[(0x94, "30 [ <a> [ 23 0000 ] ]"), (0x82, "f0 00"), (0x82, "30 [ <> [ ] ]")]).await;
}

#[tokio::test]
async fn a_goodbye_that_cannot_be_read_is_not_answered_and_publishes_the_will() {
    let door = door().await;
    let mut witness = Peer::connect(&door, V5, "witness").await;
    witness.subscribe("gone", 0).await;
    for goodbye in ["e0 [ 01 ]", "e0 [ 00 [ 1f <a> 1f <a> ] ]", "e0 [ 00 [ 1c <a> ] ]", "e0 [ 00 [ 11 00 ] ]"]
    {
        let connect = "10 [ <MQTT> 05 06 003c [ ] <id> [ ] <gone> <will> ]";
        let mut peer = Peer::present(&door, V5, connect, false).await;
        peer.send(goodbye).await;
        peer.expect_end("").await;
        witness.expect("30 [ <gone> [ ] 'will' ]").await;
    }
}

#[tokio::test]
async fn v5_mqtt_4_13_2_1() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    // What follows the packet that ended the connection is not answered.
    peer.send("82 [ 0001 [ ] ] c0 00 c0 00").await;
    peer.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn v5_mqtt_3_14_0_1() {
    let door = door().await;
    for (packet, answer) in
        [("e0 00", ""), ("f0 00", ""), ("10 [ <MQTT> 05 03 003c [ ] <id> ]", "20 [ 00 81 00 ]")]
    {
        let mut peer = Peer::open(&door, V5).await;
        peer.send(packet).await;
        peer.expect_end(answer).await;
    }
}

#[tokio::test]
async fn v5_mqtt_3_14_4_1() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.subscribe("a", 1).await;
    peer.send("32 [ <a> 0001 [ ] 'x' ] f0 00 c0 00").await;
    let answers = peer.raw.rest().await;
    let at = answers.iter().position(|byte| *byte == 0xe0).expect("a DISCONNECT");
    is_disconnect(&answers[at..], 0x82);
}

#[tokio::test]
async fn v5_mqtt_3_14_4_2() {
    let door = door().await;
    let peer = Peer::connect(&door, V5, "id").await;
    let _other = Peer::connect(&door, V5, "id").await;
    peer.expect_disconnect(0x8e).await;
}

/// A client that says goodbye is not answered, and its connection is closed.
#[tokio::test]
async fn a_goodbye_is_not_answered() {
    let door = door().await;
    for version in [V4, V5] {
        let mut peer = Peer::connect(&door, version, "id").await;
        peer.send("e0 00 c0 00").await;
        peer.expect_end("").await;
    }
}
