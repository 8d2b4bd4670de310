//! What outlives a connection: sessions, what waits in them, and last wills.

use super::*;

/// Subscribes in a session that lasts, and leaves.
async fn subscriber(door: &OpenDoor, version: Version, options: u8) {
    let mut peer = Peer::lasting(door, version, "sub", false).await;
    peer.subscribe("a/#", options).await;
    peer.leave().await;
}

async fn resumed(version: Version) {
    let door = door().await;
    subscriber(&door, version, 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a/1", "x").await;
    let mut peer = Peer::lasting(&door, version, "sub", true).await;
    peer.take("a/1", "x").await;
    publisher.publish("a/2", "y").await;
    peer.take("a/2", "y").await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_4() {
    resumed(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_5() {
    resumed(V5).await;
}

/// What is published at quality 1 and 2 while the client is away waits for it.
async fn stored(version: Version) {
    let door = door().await;
    subscriber(&door, version, 2).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a/1", "one").await;
    publisher.send("34 [ <a/2> 0001 ~ 'two' ]").await;
    publisher.expect("50 [ 0001 ]").await;
    publisher.send("62 [ 0001 ]").await;
    publisher.expect("70 [ 0001 ]").await;
    let mut peer = Peer::lasting(&door, version, "sub", true).await;
    peer.take("a/1", "one").await;
    let (first, _) = peer.message("a/2", "two").await;
    assert_eq!(first, 0x34);
}

#[tokio::test]
async fn v4_mqtt_3_1_2_5() {
    stored(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_23() {
    stored(V5).await;
}

/// Who starts clean finds nothing of an earlier session.
async fn clean(version: Version) {
    let door = door().await;
    subscriber(&door, version, 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a/1", "x").await;
    let mut peer = Peer::connect(&door, version, "sub").await;
    publisher.publish("a/2", "y").await;
    peer.expect_silence().await;
    peer.leave().await;
    Peer::lasting(&door, version, "sub", false).await.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_6() {
    clean(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_4_3() {
    clean(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_4() {
    clean(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_4_4() {
    clean(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_6() {
    let door = door().await;
    Peer::lasting(&door, V5, "new", false).await.expect_silence().await;
}

/// The CONNACK says whether there was a session.
async fn session_present(version: Version) {
    let door = door().await;
    Peer::lasting(&door, version, "id", false).await.leave().await;
    Peer::lasting(&door, version, "id", true).await.leave().await;
    Peer::lasting(&door, version, "other", false).await.leave().await;
}

#[tokio::test]
async fn v4_mqtt_3_2_2_1() {
    let door = door().await;
    Peer::lasting(&door, V4, "id", false).await.leave().await;
    Peer::connect(&door, V4, "id").await.leave().await;
}

#[tokio::test]
async fn v4_mqtt_3_2_2_2() {
    session_present(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_2_2_3() {
    let door = door().await;
    Peer::connect(&door, V4, "id").await.leave().await;
    Peer::lasting(&door, V4, "id", false).await.leave().await;
}

#[tokio::test]
async fn v5_mqtt_3_2_2_2() {
    let door = door().await;
    Peer::lasting(&door, V5, "id", false).await.leave().await;
    let connect = V5.lasting("id", true);
    Peer::present(&door, V5, &connect, false).await.leave().await;
    Peer::lasting(&door, V5, "id", true).await.leave().await;
}

#[tokio::test]
async fn v5_mqtt_3_2_2_3() {
    session_present(V5).await;
}

/// A session is there as long as its connection is, however long ago anything happened.
async fn lasts_with_connection(version: Version) {
    let door = door().await;
    let mut peer = Peer::connect(&door, version, "id").await;
    peer.subscribe("a", 1).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    for payload in ["1", "2", "3"] {
        publisher.publish("a", payload).await;
        peer.take("a", payload).await;
        peer.expect_silence().await;
    }
}

#[tokio::test]
async fn v4_mqtt_4_1_0_1() {
    stored(V4).await;
}

#[tokio::test]
async fn v4_mqtt_4_1_0_2() {
    lasts_with_connection(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_1_0_1() {
    lasts_with_connection(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_1_0_2() {
    let door = door().await;
    let brief = "10 [ <MQTT> 05 00 003c [ 11 00000001 ] <id> ]";
    Peer::present(&door, V5, brief, false).await.leave().await;
    // It lasts a second after the connection, and then some time until that is noticed.
    let is_over = async || {
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let mut peer = Peer::open(&door, V5).await;
        peer.send(brief).await;
        let is_present = peer.next().await[2] & 1 == 1;
        peer.leave().await;
        !is_present
    };
    let over = async { while !is_over().await {} };
    timeout(PATIENCE, over).await.expect("the session ends");
    // Without the property a session ends with its connection.
    Peer::present(&door, V5, "10 [ <MQTT> 05 00 003c [ ] <id2> ]", false).await.leave().await;
    Peer::lasting(&door, V5, "id2", false).await.leave().await;
}

#[tokio::test]
async fn a_goodbye_of_version_5_may_change_how_long_the_session_lasts() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.send("e0 [ 00 [ 11 00000000 ] ]").await;
    peer.expect_end("").await;
    let mut peer = Peer::present(&door, V5, "10 [ <MQTT> 05 00 003c [ ] <id> ]", false).await;
    peer.send("e0 [ 00 [ 11 00000e10 ] ]").await;
    peer.expect_disconnect(0x82).await;
}

/// What was not answered is sent again, under the same id and in the same order.
async fn resent(version: Version) {
    let door = door().await;
    subscriber(&door, version, 2).await;
    let mut publisher = Peer::connect(&door, version, "pub").await;
    publisher.publish("a/1", "one").await;
    publisher.send("34 [ <a/2> 0001 ~ 'two' ]").await;
    publisher.expect("50 [ 0001 ]").await;
    publisher.send("62 [ 0001 ]").await;
    publisher.expect("70 [ 0001 ]").await;
    publisher.publish("a/3", "three").await;
    let mut peer = Peer::lasting(&door, version, "sub", true).await;
    let (first, one) = peer.message("a/1", "one").await;
    assert_eq!(first, 0x32);
    let (first, two) = peer.message("a/2", "two").await;
    assert_eq!(first, 0x34);
    let (first, three) = peer.message("a/3", "three").await;
    assert_eq!(first, 0x32);
    peer.send(&format!("50 [ {two} ]")).await;
    peer.expect(&format!("62 [ {two} ]")).await;
    drop(peer);
    let mut peer = Peer::lasting(&door, version, "sub", true).await;
    assert_eq!(peer.message("a/1", "one").await, (0x3a, one));
    peer.expect(&format!("62 [ {two} ]")).await;
    assert_eq!(peer.message("a/3", "three").await, (0x3a, three));
    peer.send(&format!("70 [ {two} ]")).await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_4_4_0_1() {
    resent(V4).await;
}

#[tokio::test]
async fn v5_mqtt_4_4_0_1() {
    resent(V5).await;
}

#[tokio::test]
async fn v4_mqtt_4_6_0_1() {
    resent(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_3_1_1() {
    resent(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_1_1() {
    resent(V5).await;
}

#[tokio::test]
async fn v5_mqtt_4_4_0_2() {
    let door = door().await;
    subscriber(&door, V5, 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.publish("a/1", "one").await;
    publisher.send("34 [ <a/2> 0001 [ ] 'two' ]").await;
    publisher.expect("50 [ 0001 ]").await;
    publisher.send("62 [ 0001 ]").await;
    let mut peer = Peer::lasting(&door, V5, "sub", true).await;
    let (_, one) = peer.message("a/1", "one").await;
    let (_, two) = peer.message("a/2", "two").await;
    peer.send(&format!("40 [ {one} 80 ] 50 [ {two} 83 ]")).await;
    peer.expect_silence().await;
    drop(peer);
    Peer::lasting(&door, V5, "sub", true).await.expect_silence().await;
}

/// A CONNECT with a last will to `w`; `flags` are those of the CONNECT.
fn with_will(flags: u8) -> String {
    format!("10 [ <MQTT> % {flags:02x} 003c ~ <dying> ~ <w> <gone> ]")
}

async fn witness(door: &OpenDoor, version: Version) -> Peer {
    let mut witness = Peer::connect(door, version, "witness").await;
    witness.subscribe("w", 1).await;
    witness
}

/// A last will is published when the connection ends without a goodbye, however that happens.
async fn will(version: Version) {
    let door = door().await;
    let mut witness = witness(&door, version).await;
    let dying = Peer::present(&door, version, &with_will(0x0e), false).await;
    drop(dying);
    witness.take("w", "gone").await;
    let mut dying = Peer::present(&door, version, &with_will(0x0e), false).await;
    dying.send("00 00").await;
    witness.take("w", "gone").await;
    let _dying = Peer::present(&door, version, &with_will(0x0e), false).await;
    let _next = Peer::connect(&door, version, "dying").await;
    witness.take("w", "gone").await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_8() {
    will(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_7() {
    will(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_8() {
    will(V5).await;
}

/// After a goodbye, and after it was published once, there is no will.
async fn will_removed(version: Version) {
    let door = door().await;
    let mut witness = witness(&door, version).await;
    Peer::present(&door, version, &with_will(0x0e), false).await.leave().await;
    drop(Peer::present(&door, version, &with_will(0x0e), false).await);
    witness.take("w", "gone").await;
    drop(Peer::connect(&door, version, "dying").await);
    Peer::connect(&door, version, "dying").await.leave().await;
    witness.expect_silence().await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_10() {
    will_removed(V4).await;
}

#[tokio::test]
async fn v4_mqtt_3_14_4_3() {
    will_removed(V4).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_10() {
    will_removed(V5).await;
}

#[tokio::test]
async fn v5_mqtt_3_14_4_3() {
    will_removed(V5).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_12() {
    let door = door().await;
    let mut witness = witness(&door, V4).await;
    drop(Peer::connect(&door, V4, "dying").await);
    Peer::connect(&door, V4, "dying").await.publish("w", "marker").await;
    witness.take("w", "marker").await;
}

/// A will is retained if it says so.
async fn will_retain(version: Version, is_retained: bool) {
    let door = door().await;
    let mut witness = witness(&door, version).await;
    let flags = if is_retained { 0x2e } else { 0x0e };
    drop(Peer::present(&door, version, &with_will(flags), false).await);
    witness.take("w", "gone").await;
    let mut late = Peer::connect(&door, version, "late").await;
    late.subscribe("w", 1).await;
    if is_retained {
        let (first, _) = late.message("w", "gone").await;
        assert_eq!(first, 0x33);
    } else {
        late.expect_silence().await;
    }
}

#[tokio::test]
async fn v4_mqtt_3_1_2_16() {
    will_retain(V4, false).await;
}

#[tokio::test]
async fn v4_mqtt_3_1_2_17() {
    will_retain(V4, true).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_14() {
    will_retain(V5, false).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_15() {
    will_retain(V5, true).await;
}

#[tokio::test]
async fn v5_mqtt_3_1_3_9() {
    let door = door().await;
    let mut witness = witness(&door, V5).await;
    let delayed = |clean| {
        format!("10 [ <MQTT> 05 {clean:02x} 003c [ 11 00000e10 ] <dying> [ 18 00000e10 ] <w> <gone> ]")
    };
    drop(Peer::present(&door, V5, &delayed(0x0c), false).await);
    // Whoever comes back in time takes the will with him.
    Peer::lasting(&door, V5, "dying", true).await.leave().await;
    witness.expect_silence().await;
    drop(Peer::present(&door, V5, &delayed(0x0c), true).await);
    // When the session ends, the will does not wait any longer.
    let _clean = Peer::connect(&door, V5, "dying").await;
    witness.take("w", "gone").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_3_10() {
    let door = door().await;
    let mut witness = witness(&door, V5).await;
    let carried = "01 01 03 <text> 08 <r> 09 <c> 26 <b> <1> 26 <a> <2> 26 <b> <1>";
    let connect = format!("10 [ <MQTT> 05 0e 003c [ ] <dying> [ {carried} ] <w> <gone> ]");
    drop(Peer::present(&door, V5, &connect, false).await);
    let message = witness.next().await;
    let (_, at) = length(&message);
    assert_eq!(message[at + 5..], V5.bytes(&format!("[ {carried} ] 'gone'")));
}

#[tokio::test]
async fn a_goodbye_of_version_5_may_ask_for_the_will() {
    let door = door().await;
    let mut witness = witness(&door, V5).await;
    let mut dying = Peer::present(&door, V5, &with_will(0x0e), false).await;
    dying.send("e0 [ 04 ]").await;
    dying.expect_end("").await;
    witness.take("w", "gone").await;
}

/// Retained messages are nobody's: they outlive the session that published them.
#[tokio::test]
async fn v4_mqtt_3_1_2_7() {
    let door = door().await;
    let mut publisher = Peer::connect(&door, V4, "pub").await;
    publisher.retain("a", "x").await;
    publisher.leave().await;
    let mut late = Peer::connect(&door, V4, "late").await;
    late.subscribe("a", 1).await;
    late.take("a", "x").await;
}
