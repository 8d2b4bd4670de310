//! SUBSCRIBE and UNSUBSCRIBE.

use super::*;

/// A SUBSCRIBE is answered under its id, with one code for each filter in their order.
async fn answer(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("82 [ 1234 ~ <a> 02 <b/+> 00 <$SYS/#> 01 <c/#> 01 ]").await;
    let refused = if version == V4 { "80" } else { "87" };
    peer.expect(&format!("90 [ 1234 ~ 02 00 {refused} 01 ]")).await;
}

#[tokio::test]
async fn v4_mqtt_2_3_1_7() {
    answer(V4).await;
}

#[tokio::test]
async fn v5_mqtt_2_2_1_6() {
    answer(V5).await;
}

#[tokio::test]
async fn v4_mqtt_3_8_4_1() {
    answer(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_8_4_2() {
    answer(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_8_4_5() {
    answer(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_9_3_1() {
    answer(V4).await;
}

#[tokio::test]
async fn a_subscription_begins_and_ends_after_the_messages_before_it() {
    let door = door().await;
    for version in [V4, V5] {
        let mut peer = Peer::connect(&door, version, "id").await;
        for round in 0..20 {
            let (topic, payload) = (format!("own/{version:?}/{round}"), format!("{round}"));
            peer.send(&format!("31 [ <{topic}> ~ '{payload}' ] 82 [ 0001 ~ <{topic}> 00 ]")).await;
            peer.expect("90 [ 0001 ~ 00 ]").await;
            peer.expect(&format!("31 [ <{topic}> ~ '{payload}' ]")).await;
        }
    }
}

#[tokio::test]
async fn v5_mqtt_3_8_4_1() {
    answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_2() {
    answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_6() {
    answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_7() {
    answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_9_3_1() {
    answer(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_9_3_2() {
    answer(V5).await;
}

/// Several filters in one packet are as many subscriptions.
async fn several(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.send("82 [ 0001 ~ <a> 01 <b> 01 <a> 02 ]").await;
    peer.expect("90 [ 0001 ~ 01 01 02 ]").await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("b", "x").await;
    publisher.publish("a", "y").await;
    peer.take("b", "x").await;
    peer.take("a", "y").await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_8_4_4() {
    several(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_5() {
    several(V5).await;
}

/// The same filter again replaces the subscription, and sends the retained messages again.
async fn replaced(version: Version) {
    let door = door().await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.retain("a", "kept").await;
    let mut peer = Peer::connect(&door, version, "id").await;
    for options in [2, 1, 0, 1] {
        peer.subscribe("a", options).await;
        if options == 0 {
            peer.expect("31 [ <a> ~ 'kept' ]").await;
        } else {
            peer.take("a", "kept").await;
        }
    }
    publisher.publish("a", "x").await;
    peer.take("a", "x").await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_8_4_3() {
    replaced(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_3() {
    replaced(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_4() {
    replaced(V5).await;
}

/// An UNSUBSCRIBE is answered under its id, whether there was such a subscription or not.
async fn goodbye(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.subscribe("a", 1).await;
    peer.subscribe("b", 0).await;
    peer.send("a2 [ 1234 ~ <a> <c> <b> ]").await;
    peer.expect(if version == V4 { "b0 [ 1234 ]" } else { "b0 [ 1234 [ ] 00 11 00 ]" }).await;
    peer.send("a2 [ 1235 ~ <never> ]").await;
    peer.expect(if version == V4 { "b0 [ 1235 ]" } else { "b0 [ 1235 [ ] 11 ]" }).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a", "x").await;
    publisher.publish("b", "x").await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_2() {
    goodbye(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_4() {
    goodbye(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_5() {
    goodbye(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_6() {
    goodbye(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_2() {
    goodbye(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_4() {
    goodbye(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_5() {
    goodbye(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_6() {
    goodbye(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_11_3_1() {
    goodbye(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_11_3_2() {
    goodbye(V5).await;
}

/// A filter is taken back character by character: one that only matches the same topics stays.
async fn exact(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.subscribe("a/+", 1).await;
    peer.send("a2 [ 0001 ~ <a/#> <a/b> <A/+> <#> <+/+> ]").await;
    peer.expect(if version == V4 { "b0 [ 0001 ]" } else { "b0 [ 0001 [ ] 11 11 11 11 11 ]" }).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a/b", "x").await;
    peer.take("a/b", "x").await;
    peer.send("a2 [ 0001 ~ <a/+> ]").await;
    peer.expect(if version == V4 { "b0 [ 0001 ]" } else { "b0 [ 0001 [ ] 00 ]" }).await;
    publisher.publish("a/b", "y").await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_1() {
    exact(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_1() {
    exact(V5).await;
}

/// What was begun before an UNSUBSCRIBE is brought to its end.
async fn finished(version: Version) {
    let door = door().await;
    let mut peer = Peer::lasting(&door, version, "id", false).await;
    peer.subscribe("a", 2).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.send("34 [ <a> 0001 ~ 'x' ]").await;
    let (_, id) = peer.message("a", "x").await;
    peer.send("a2 [ 0001 ~ <a> ]").await;
    peer.expect(if version == V4 { "b0 [ 0001 ]" } else { "b0 [ 0001 [ ] 00 ]" }).await;
    drop(peer);
    let mut peer = Peer::lasting(&door, version, "id", true).await;
    assert_eq!(peer.message("a", "x").await, (0x3c, id.clone()));
    peer.send(&format!("50 [ {id} ]")).await;
    peer.expect(&format!("62 [ {id} ]")).await;
    peer.send(&format!("70 [ {id} ]")).await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_10_4_3() {
    finished(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_10_4_3() {
    finished(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_3_3() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.subscribe("a", 0x05).await;
    peer.subscribe("b", 0x04).await;
    peer.publish("a", "own").await;
    peer.publish("b", "own").await;
    let mut other = Peer::connect(&door, V5, "other").await;
    other.publish("a", "other").await;
    peer.take("a", "other").await;
    other.publish("b", "other").await;
    peer.expect("30 [ <b> [ ] 'other' ]").await;
    peer.expect_silence().await;
}

/// Whether a subscription brings the retained message, the first time and again.
async fn retain_handling(handling: u8, first: bool, again: bool) {
    let door = door().await;
    Peer::connect(&door, V5, "pub").await.retain("a", "kept").await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    for is_sent in [first, again] {
        peer.subscribe("a", handling << 4 | 1).await;
        if is_sent {
            peer.take("a", "kept").await;
        }
        peer.expect_silence().await;
    }
}

#[tokio::test]
async fn v5_mqtt_3_3_1_9() {
    retain_handling(0, true, true).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_10() {
    retain_handling(1, true, false).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_11() {
    retain_handling(2, false, false).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_13() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.subscribe("a", 0x09).await;
    peer.subscribe("b", 0x08).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.retain("a", "kept").await;
    assert_eq!(peer.message("a", "kept").await.0, 0x33);
    publisher.publish("a", "passing").await;
    assert_eq!(peer.message("a", "passing").await.0, 0x32);
    publisher.retain("b", "kept").await;
    peer.expect("31 [ <b> [ ] 'kept' ]").await;
    publisher.publish("b", "passing").await;
    peer.expect("30 [ <b> [ ] 'passing' ]").await;
}
