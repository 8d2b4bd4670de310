//! What a client publishes: how it is answered, retained, and forwarded.

use broker::Qos;

use super::*;
use crate::support::open;

/// Each quality has its answer.
async fn answers(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("30 [ <a> ~ 'x' ]").await;
    peer.expect_silence().await;
    peer.send("32 [ <a> 1234 ~ 'x' ]").await;
    peer.expect("40 [ 1234 ]").await;
    peer.send("34 [ <a> 1235 ~ 'x' ]").await;
    peer.expect("50 [ 1235 ]").await;
    peer.send("62 [ 1235 ]").await;
    peer.expect("70 [ 1235 ]").await;
}

#[tokio::test]
async fn v4_mqtt_3_3_4_1() {
    answers(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_4_1() {
    answers(V5).await;
}

#[tokio::test]
async fn v4_mqtt_2_3_1_6() {
    answers(V4).await;
}

#[tokio::test]
async fn v5_mqtt_2_2_1_5() {
    answers(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_11() {
    answers(V5).await;
}

/// An id whose message was answered belongs to a new message, whatever DUP says.
async fn id_is_free_again(version: Version) {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::connect(&door, version, "id").await;
    for payload in ["1", "2"] {
        peer.send(&format!("3a [ <a> 0001 ~ '{payload}' ]")).await;
        let delivery = arrivals.next().await;
        assert_eq!((&delivery.payload[..], delivery.qos), (payload.as_bytes(), Qos::AtLeastOnce));
        peer.expect_silence().await;
        delivery.done();
        peer.expect("40 [ 0001 ]").await;
    }
}

#[tokio::test]
async fn v4_mqtt_4_3_2_2() {
    id_is_free_again(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_2_4() {
    id_is_free_again(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_2_5() {
    id_is_free_again(V5).await;
}

/// A message at quality 2 is taken in once, however often it comes before its PUBREL; afterwards its id is free.
async fn exactly_once(version: Version) {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("34 [ <a> 0001 ~ 'x' ]").await;
    let delivery = arrivals.next().await;
    peer.expect_silence().await;
    delivery.done();
    peer.expect("50 [ 0001 ]").await;
    for _ in 0..2 {
        peer.send("3c [ <a> 0001 ~ 'x' ]").await;
        peer.expect("50 [ 0001 ]").await;
    }
    assert!(arrivals.is_empty());
    peer.send("62 [ 0001 ]").await;
    peer.expect("70 [ 0001 ]").await;
    peer.send("34 [ <a> 0001 ~ 'y' ]").await;
    let delivery = arrivals.next().await;
    assert_eq!(&delivery.payload[..], b"y");
    delivery.done();
    peer.expect("50 [ 0001 ]").await;
}

#[tokio::test]
async fn v4_mqtt_4_3_3_2() {
    exactly_once(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_8() {
    exactly_once(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_10() {
    exactly_once(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_12() {
    exactly_once(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_9() {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::present(&door, V5, "10 [ <MQTT> 05 c2 003c [ ] <d> <d> <secret> ]", false).await;
    for payload in ["1", "2"] {
        peer.send(&format!("34 [ <iot/status/t/f/b/d2> 0001 [ ] '{payload}' ]")).await;
        let delivery = arrivals.next().await;
        assert_eq!(&delivery.payload[..], payload.as_bytes());
        delivery.reject();
        peer.expect("50 [ 0001 87 ]").await;
    }
}

/// Answers leave in the order of what they answer, in whatever order it was committed.
async fn in_order(version: Version, first: u8, answer: u8) {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::connect(&door, version, "id").await;
    for id in 1..=3 {
        peer.send(&format!("{first:02x} [ <a> 000{id} ~ '{id}' ]")).await;
    }
    let deliveries = arrivals.take(3).await;
    deliveries.into_iter().rev().for_each(broker::Delivery::done);
    for id in 1..=3 {
        peer.expect(&format!("{answer:02x} [ 000{id} ]")).await;
    }
}

#[tokio::test]
async fn v4_mqtt_4_6_0_2() {
    in_order(V4, 0x32, 0x40).await;
}

#[tokio::test]
async fn v4_mqtt_4_6_0_3() {
    in_order(V4, 0x34, 0x50).await;
}

#[tokio::test]
async fn answers_of_version_5_leave_in_order_too() {
    in_order(V5, 0x32, 0x40).await;
    in_order(V5, 0x34, 0x50).await;
}

/// What may not be published is answered all the same; version 5 is told.
#[tokio::test]
async fn v4_mqtt_3_3_5_2() {
    let (door, mut arrivals) = open(settings()).await;
    let mut peer = Peer::present(&door, V4, "10 [ <MQTT> 04 c2 003c <d> <d> <secret> ]", false).await;
    peer.send("32 [ <iot/status/t/f/b/d2> 0001 'x' ]").await;
    arrivals.next().await.reject();
    peer.expect("40 [ 0001 ]").await;
    peer.expect_silence().await;
}

/// A new subscription brings the last retained message of each topic, and only that.
async fn retained(version: Version) {
    let door = door().await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.retain("a/1", "old").await;
    publisher.retain("a/1", "new").await;
    publisher.publish("a/1", "passing").await;
    publisher.send("31 [ <a/2> ~ 'at most once' ]").await;
    publisher.expect_silence().await;
    let mut late = Peer::connect(&door, version, "late").await;
    late.subscribe("a/1", 1).await;
    assert_eq!(late.message("a/1", "new").await.0, 0x33);
    late.subscribe("a/2", 1).await;
    late.expect("31 [ <a/2> ~ 'at most once' ]").await;
    late.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_5() {
    retained(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_6() {
    retained(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_7() {
    let door = door().await;
    let mut publisher = Peer::connect(&door, V4, "pub").await;
    publisher.retain("a", "old").await;
    publisher.send("31 [ <a> 'at most once' ]").await;
    publisher.expect_silence().await;
    let mut late = Peer::connect(&door, V4, "late").await;
    late.subscribe("a", 1).await;
    late.expect("31 [ <a> 'at most once' ]").await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_8() {
    retained(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_5() {
    retained(V5).await;
}

/// For a subscription that is there, a message is live whatever its publisher said.
async fn live_flag(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "sub").await;
    peer.subscribe("a", 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.retain("a", "x").await;
    assert_eq!(peer.message("a", "x").await.0, 0x32);
    peer.subscribe("b", 0).await;
    publisher.retain("b", "y").await;
    peer.expect("30 [ <b> ~ 'y' ]").await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_9() {
    live_flag(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_12() {
    live_flag(V5).await;
}

/// An empty retained message goes out, removes the one before, and is not kept itself.
async fn removed(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "sub").await;
    peer.subscribe("a", 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.retain("a", "x").await;
    peer.take("a", "x").await;
    publisher.retain("a", "").await;
    let (first, id) = peer.message("a", "").await;
    assert_eq!(first, 0x32);
    peer.send(&format!("40 [ {id} ]")).await;
    let mut late = Peer::connect(&door, version, "late").await;
    late.subscribe("a", 1).await;
    late.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_10() {
    removed(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_11() {
    removed(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_6() {
    removed(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_7() {
    removed(V5).await;
}

/// A message that is not retained leaves the retained one as it is, even when it is empty.
async fn not_retained(version: Version) {
    let door = door().await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.retain("a", "kept").await;
    publisher.publish("a", "passing").await;
    publisher.publish("a", "").await;
    publisher.publish("b", "passing").await;
    let mut late = Peer::connect(&door, version, "late").await;
    late.subscribe("a", 1).await;
    late.take("a", "kept").await;
    late.subscribe("b", 1).await;
    late.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_12() {
    not_retained(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_8() {
    not_retained(V5).await;
}

/// DUP is between two neighbors: it is not forwarded.
async fn dup(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "sub").await;
    peer.subscribe("a", 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.send("3a [ <a> 0001 ~ 'x' ]").await;
    assert_eq!(peer.message("a", "x").await.0, 0x32);
}

#[tokio::test]
async fn v4_mqtt_3_3_1_3() {
    dup(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_3() {
    dup(V5).await;
}
