//! What a subscriber gets: which messages, at which quality, in which order, under which ids.

use super::*;

/// A publisher and a subscriber of `filters` in a fresh door.
async fn pair(version: Version, filters: &[(&str, u8)]) -> (OpenDoor, Peer, Peer) {
    let door = door().await;
    let mut subscriber = Peer::connect(&door, version, "sub").await;
    for (filter, options) in filters {
        subscriber.subscribe(filter, *options).await;
    }
    let publisher = Peer::connect(&door, version, "pub").await;
    (door, publisher, subscriber)
}

/// Publishes at quality 2, through all four packets.
async fn publish_2(publisher: &mut Peer, topic: &str, payload: &str) {
    publisher.send(&format!("34 [ <{topic}> 0abe ~ '{payload}' ]")).await;
    publisher.expect("50 [ 0abe ]").await;
    publisher.send("62 [ 0abe ]").await;
    publisher.expect("70 [ 0abe ]").await;
}

/// What matches a filter is delivered, and nothing else.
async fn matching(version: Version) {
    let (_door, mut publisher, mut subscriber) =
        pair(version, &[("a/+/c", 1), ("b/#", 1), ("+", 1), ("/x", 1)]).await;
    let not_wanted = ["a/b", "a/b/c/d", "A/b/c", "x/y", "a//b/c", "c/b", "/", "/y"];
    let wanted = ["a/b/c", "a//c", "b", "b/", "b/c/d", "one", "/x"];
    for topic in not_wanted.iter().chain(&wanted) {
        publisher.publish(topic, topic).await;
    }
    for topic in wanted {
        subscriber.take(topic, topic).await;
    }
    subscriber.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_3_2_3() {
    matching(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_2_3() {
    matching(V5).await;
}

#[tokio::test]
async fn v4_mqtt_4_5_0_1() {
    matching(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_5_0_1() {
    matching(V5).await;
}

#[tokio::test]
async fn v4_mqtt_3_8_3_2() {
    matching(V4).await;
}

/// A filter that opens with a wildcard does not match topics that open with `$`, and no client publishes there.
async fn dollar(version: Version) {
    let (_door, mut publisher, mut subscriber) = pair(version, &[("#", 1), ("+/a", 1)]).await;
    for topic in ["$own/a", "$own"] {
        publisher.send(&format!("32 [ <{topic}> 0bed ~ 'hidden' ]")).await;
        publisher.expect(if version == V4 { "40 [ 0bed ]" } else { "40 [ 0bed 87 ]" }).await;
    }
    publisher.publish("a$/a", "shown").await;
    subscriber.take("a$/a", "shown").await;
    subscriber.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_4_7_2_1() {
    dollar(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_7_2_1() {
    dollar(V5).await;
}

/// Topics are compared as they are, without any normalization.
async fn as_it_is(version: Version) {
    // One letter with an accent, and a letter followed by an accent.
    let (one, two) = ("caf\u{e9}", "cafe\u{301}");
    let (_door, mut publisher, mut subscriber) = pair(version, &[(one, 1), ("up", 1)]).await;
    publisher.publish(two, "other").await;
    publisher.publish("UP", "other").await;
    publisher.publish("up ", "other").await;
    publisher.publish(one, "same").await;
    subscriber.take(one, "same").await;
    subscriber.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_4_7_3_4() {
    as_it_is(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_7_3_4() {
    as_it_is(V5).await;
}

/// The quality is the lower one of publisher and subscription.
async fn lower_quality(version: Version) {
    for granted in 0..=2_u8 {
        let (_door, mut publisher, mut subscriber) = pair(version, &[("a", granted)]).await;
        publisher.send("30 [ <a> ~ '0' ]").await;
        subscriber.expect("30 [ <a> ~ '0' ]").await;
        publisher.publish("a", "1").await;
        match granted {
            0 => subscriber.expect("30 [ <a> ~ '1' ]").await,
            _ => subscriber.take("a", "1").await,
        }
        publish_2(&mut publisher, "a", "2").await;
        match granted {
            0 => subscriber.expect("30 [ <a> ~ '2' ]").await,
            1 => subscriber.take("a", "2").await,
            _ => assert_eq!(subscriber.message("a", "2").await.0, 0x34),
        }
    }
}

#[tokio::test]
async fn v4_mqtt_3_8_4_6() {
    lower_quality(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_8_4_8() {
    lower_quality(V5).await;
}

#[tokio::test]
async fn v4_mqtt_4_3_1_1() {
    let (_door, mut publisher, mut subscriber) = pair(V4, &[("a", 0)]).await;
    publisher.send("3a [ <a> 0001 'x' ]").await;
    subscriber.expect("30 [ <a> 'x' ]").await;
}

#[tokio::test]
async fn v5_mqtt_4_3_1_1() {
    let (_door, mut publisher, mut subscriber) = pair(V5, &[("a", 0)]).await;
    publisher.send("3a [ <a> 0001 [ ] 'x' ]").await;
    subscriber.expect("30 [ <a> [ ] 'x' ]").await;
}

/// Of overlapping subscriptions the best quality counts.
async fn overlapping(version: Version) {
    let (_door, mut publisher, mut subscriber) = pair(version, &[("a/+", 1), ("a/#", 2), ("a/b", 1)]).await;
    publish_2(&mut publisher, "a/b", "x").await;
    let (first, id) = subscriber.message("a/b", "x").await;
    assert_eq!(first, 0x34);
    subscriber.send(&format!("50 [ {id} ]")).await;
    subscriber.expect(&format!("62 [ {id} ]")).await;
    subscriber.send(&format!("70 [ {id} ]")).await;
    subscriber.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_3_5_1() {
    overlapping(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_4_2() {
    overlapping(V5).await;
}

/// Messages in flight have ids of their own, and keep them until they are answered.
async fn own_ids(version: Version, first: u8) {
    let (_door, mut publisher, mut subscriber) = pair(version, &[("a", 2)]).await;
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        if first == 0x32 {
            publisher.publish("a", payload).await;
        } else {
            publish_2(&mut publisher, "a", payload).await;
        }
        let (seen, id) = subscriber.message("a", payload).await;
        assert_eq!(seen, first, "DUP is not set the first time");
        ids.push(id);
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn v4_mqtt_2_3_1_4() {
    own_ids(V4, 0x32).await;
}

#[tokio::test]
async fn v5_mqtt_2_2_1_4() {
    own_ids(V5, 0x32).await;
}

#[tokio::test]
async fn v4_mqtt_4_3_2_1() {
    own_ids(V4, 0x32).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_2_1() {
    own_ids(V5, 0x32).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_2_2() {
    own_ids(V5, 0x32).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_1() {
    own_ids(V5, 0x34).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_2() {
    own_ids(V5, 0x34).await;
}

/// A message at quality 1 counts as unanswered until its PUBACK, and is sent again over the next connection.
async fn unanswered_1(version: Version) {
    let door = door().await;
    let mut subscriber = Peer::lasting(&door, version, "sub", false).await;
    subscriber.subscribe("a", 1).await;
    Peer::connect(&door, version, "pub").await.publish("a", "x").await;
    let (_, id) = subscriber.message("a", "x").await;
    drop(subscriber);
    let mut subscriber = Peer::lasting(&door, version, "sub", true).await;
    assert_eq!(subscriber.message("a", "x").await, (0x3a, id.clone()));
    subscriber.send(&format!("40 [ {id} ]")).await;
    subscriber.expect_silence().await;
    drop(subscriber);
    Peer::lasting(&door, version, "sub", true).await.expect_silence().await;
}

#[tokio::test]
async fn v5_mqtt_4_3_2_3() {
    unanswered_1(V5).await;
}

/// A message at quality 2: PUBLISH again until PUBREC, then PUBREL again until PUBCOMP, and never PUBLISH after PUBREL.
async fn unanswered_2(version: Version) {
    let door = door().await;
    let mut subscriber = Peer::lasting(&door, version, "sub", false).await;
    subscriber.subscribe("a", 2).await;
    publish_2(&mut Peer::connect(&door, version, "pub").await, "a", "x").await;
    let (first, id) = subscriber.message("a", "x").await;
    assert_eq!(first, 0x34);
    drop(subscriber);
    let mut subscriber = Peer::lasting(&door, version, "sub", true).await;
    assert_eq!(subscriber.message("a", "x").await, (0x3c, id.clone()));
    subscriber.send(&format!("50 [ {id} ]")).await;
    subscriber.expect(&format!("62 [ {id} ]")).await;
    drop(subscriber);
    let mut subscriber = Peer::lasting(&door, version, "sub", true).await;
    subscriber.expect(&format!("62 [ {id} ]")).await;
    subscriber.expect_silence().await;
    subscriber.send(&format!("70 [ {id} ]")).await;
    subscriber.expect_silence().await;
    drop(subscriber);
    Peer::lasting(&door, version, "sub", true).await.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_4_3_3_1() {
    unanswered_2(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_3() {
    unanswered_2(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_4() {
    unanswered_2(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_5() {
    unanswered_2(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_6() {
    unanswered_2(V5).await;
}

/// PUBREL follows PUBREC, in the order of the PUBRECs.
#[tokio::test]
async fn v4_mqtt_4_6_0_4() {
    let (_door, mut publisher, mut subscriber) = pair(V4, &[("a", 2)]).await;
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        publish_2(&mut publisher, "a", payload).await;
        ids.push(subscriber.message("a", payload).await.1);
    }
    ids.rotate_left(1);
    for id in &ids {
        subscriber.send(&format!("50 [ {id} ]")).await;
    }
    for id in &ids {
        subscriber.expect(&format!("62 [ {id} ]")).await;
    }
}

/// Messages of one publisher arrive in the order they were sent in, at each quality.
async fn ordered(version: Version) {
    let (_door, mut publisher, mut subscriber) = pair(version, &[("a/#", 1), ("b", 0)]).await;
    for number in 0..50 {
        publisher.publish(&format!("a/{}", number % 3), &number.to_string()).await;
    }
    for number in 0..50 {
        subscriber.take(&format!("a/{}", number % 3), &number.to_string()).await;
    }
    for number in 0..50 {
        publisher.send(&format!("30 [ <b> ~ '{number}' ]")).await;
    }
    for number in 0..50 {
        subscriber.expect(&format!("30 [ <b> ~ '{number}' ]")).await;
    }
}

#[tokio::test]
async fn v4_mqtt_4_6_0_5() {
    ordered(V4).await;
}

#[tokio::test]
async fn v4_mqtt_4_6_0_6() {
    ordered(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_6_0_5() {
    ordered(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_6_0_6() {
    ordered(V5).await;
}

/// What the other version has no words for is left out, and what it has is kept.
#[tokio::test]
async fn messages_pass_between_the_versions() {
    let door = door().await;
    let mut old = Peer::connect(&door, V4, "old").await;
    old.subscribe("a", 1).await;
    let mut new = Peer::connect(&door, V5, "new").await;
    new.subscribe("a", 1).await;
    let copy = new.publish_to_itself("32 [ <a> 0001 [ 26 <k> <v> 02 00000e10 ] 'x' ]").await;
    let id = id_of(&copy, "a");
    assert_eq!(copy, V5.bytes(&format!("32 [ <a> {id} [ 02 00000e10 26 <k> <v> ] 'x' ]")));
    old.take("a", "x").await;
    let copy = old.publish_to_itself("32 [ <a> 0001 'y' ]").await;
    assert_eq!(copy, V4.bytes(&format!("32 [ <a> {} 'y' ]", id_of(&copy, "a"))));
}
