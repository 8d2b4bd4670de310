//! What only version 5 has: properties, flow control, aliases, shared subscriptions, and its own authentication.

use super::*;
use crate::support::open;

/// A subscriber of `filter` whose CONNECT has these properties.
async fn subscriber(door: &OpenDoor, properties: &str, filter: &str, options: u8) -> Peer {
    let connect = format!("10 [ <MQTT> 05 02 003c [ {properties} ] <sub> ]");
    let mut peer = Peer::present(door, V5, &connect, false).await;
    peer.subscribe(filter, options).await;
    peer
}

#[tokio::test]
async fn v5_mqtt_3_2_2_22() {
    let door = door_with(DoorSettings { keep_alive_seconds_max: 60, ..settings() }).await;
    for (asked, told) in [("0258", Some(vec![0, 60])), ("0000", Some(vec![0, 60])), ("001e", None)] {
        let mut peer = Peer::open(&door, V5).await;
        peer.send(&format!("10 [ <MQTT> 05 02 {asked} [ ] <id> ]")).await;
        let properties = connack_properties(&peer.next().await);
        let keep_alive = properties.into_iter().find(|(id, _)| *id == 0x13).map(|(_, value)| value);
        assert_eq!(keep_alive, told, "{asked}");
    }
}

#[tokio::test]
async fn v5_mqtt_3_1_2_28() {
    let door = door().await;
    for wanted in ["00", "01"] {
        let mut peer = Peer::open(&door, V5).await;
        peer.send(&format!("10 [ <MQTT> 05 02 003c [ 19 {wanted} ] <id> ]")).await;
        let properties = connack_properties(&peer.next().await);
        assert!(properties.iter().all(|(id, _)| *id != 0x1a), "{properties:02x?}");
    }
}

#[tokio::test]
async fn v5_mqtt_3_1_2_29() {
    let door = door().await;
    let connect = "10 [ <MQTT> 05 c2 003c [ 17 00 ] <d> <d> <secret> ]";
    let mut peer = Peer::present(&door, V5, connect, false).await;
    peer.send("82 [ 0001 [ ] <not/allowed> 01 ]").await;
    peer.expect("90 [ 0001 [ ] 87 ]").await;
    peer.send("a2 [ 0001 [ ] <never> ]").await;
    peer.expect("b0 [ 0001 [ ] 11 ]").await;
    peer.send("32 [ <iot/status/t/f/b/d2> 0001 [ ] 'x' ]").await;
    peer.expect("40 [ 0001 87 ]").await;
    peer.send("62 [ 0009 ]").await;
    peer.expect("70 [ 0009 92 ]").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_24() {
    let door = door().await;
    let mut peer = subscriber(&door, "27 00000020", "a", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.publish("a", &"x".repeat(40)).await;
    publisher.publish("a", "fits").await;
    peer.take("a", "fits").await;
    peer.expect_silence().await;
    // Without the answer to a request there is no going on.
    for (first, options) in [("82", "01"), ("a2", "")] {
        let mut peer = Peer::present(&door, V5, "10 [ <MQTT> 05 02 003c [ 27 00000020 ] <id> ]", false).await;
        let filters = |count| format!("<a> {options} ").repeat(count);
        peer.send(&format!("{first} [ 0001 [ ] {} ]", filters(27))).await;
        assert_eq!(peer.next().await.len(), 32);
        peer.send(&format!("{first} [ 0001 [ ] {} ]", filters(28))).await;
        // No room for words.
        peer.expect_end("e0 [ 95 ]").await;
    }
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ 27 00000005 ] <id> ]").await;
    peer.expect_end("").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_25() {
    let door = door().await;
    let mut peer = subscriber(&door, "27 00000020 21 0001", "a", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    // A message that is never sent takes no place among those that are not answered.
    for _ in 0..3 {
        publisher.publish("a", &"x".repeat(40)).await;
    }
    publisher.publish("a", "fits").await;
    peer.take("a", "fits").await;
    publisher.publish("a", "too").await;
    peer.take("a", "too").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_26() {
    let door = door().await;
    let mut peer = subscriber(&door, "22 0001", "#", 0).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("30 [ <a> [ ] '1' ]").await;
    peer.expect("30 [ <a> [ 23 0001 ] '1' ]").await;
    publisher.send("30 [ <b> [ ] '2' ]").await;
    peer.expect("30 [ <b> [ ] '2' ]").await;
    publisher.send("30 [ <a> [ ] '3' ]").await;
    peer.expect("30 [ <> [ 23 0001 ] '3' ]").await;
}

#[tokio::test]
async fn v5_mqtt_3_1_2_27() {
    let door = door().await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    for properties in ["", "22 0000"] {
        let mut peer = subscriber(&door, properties, "a", 0).await;
        for _ in 0..2 {
            publisher.send("30 [ <a> [ ] 'x' ]").await;
            peer.expect("30 [ <a> [ ] 'x' ]").await;
        }
    }
}

#[tokio::test]
async fn v5_mqtt_3_3_2_11() {
    let door = door().await;
    let mut peer = subscriber(&door, "22 0002", "#", 0).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    for topic in ["a", "b", "c", "d", "a", "b", "c", "d"] {
        publisher.send(&format!("30 [ <{topic}> [ ] 'x' ]")).await;
        let message = peer.next().await;
        let alias = message.windows(3).find(|window| window[..2] == [0x23, 0]).map(|window| window[2]);
        assert!(alias.is_none_or(|alias| alias == 1 || alias == 2), "{message:02x?}");
        assert_eq!(alias.is_some(), ["a", "b"].contains(&topic), "{message:02x?}");
    }
}

#[tokio::test]
async fn v5_mqtt_3_3_2_7() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.send("32 [ <a> 0001 [ 23 0001 ] 'x' ]").await;
    peer.expect("40 [ 0001 ]").await;
    peer.leave().await;
    let mut peer = Peer::lasting(&door, V5, "id", true).await;
    peer.send("32 [ <> 0001 [ 23 0001 ] 'x' ]").await;
    peer.expect_disconnect(0x82).await;
}

/// The highest alias the door takes.
async fn alias_max(door: &OpenDoor) -> u16 {
    let mut peer = Peer::open(door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ ] <asking> ]").await;
    let properties = connack_properties(&peer.next().await);
    let (_, value) = properties.into_iter().find(|(id, _)| *id == 0x22).expect("a maximum");
    u16::from_be_bytes([value[0], value[1]])
}

#[tokio::test]
async fn v5_mqtt_3_3_2_12() {
    let door = door().await;
    let max = alias_max(&door).await;
    let mut peer = subscriber(&door, "", "#", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    for alias in 1..=max {
        publisher.send(&format!("32 [ <t/{alias}> 0001 [ 23 {alias:04x} ] 'x' ]")).await;
        publisher.expect("40 [ 0001 ]").await;
        peer.take(&format!("t/{alias}"), "x").await;
    }
    for alias in 1..=max {
        publisher.send(&format!("32 [ <> 0001 [ 23 {alias:04x} ] 'y' ]")).await;
        publisher.expect("40 [ 0001 ]").await;
        peer.take(&format!("t/{alias}"), "y").await;
    }
}

#[tokio::test]
async fn an_alias_above_the_maximum_ends_the_connection() {
    let door = door().await;
    let max = alias_max(&door).await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.send(&format!("30 [ <a> [ 23 {:04x} ] 'x' ]", max + 1)).await;
    peer.expect_disconnect(0x94).await;
}

#[tokio::test]
async fn a_packet_above_the_maximum_ends_the_connection() {
    let door = door_with(DoorSettings { message_bytes_max: 1000, ..settings() }).await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.send(&format!("30 [ <a> [ ] '{}' ]", "x".repeat(2000))).await;
    peer.expect_disconnect(0x95).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_2_5() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.subscribe("a", 1).await;
    peer.leave().await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("32 [ <a> 0001 [ 02 00000001 ] 'brief' ]").await;
    publisher.expect("40 [ 0001 ]").await;
    publisher.send("33 [ <b> 0001 [ 02 00000001 ] 'brief' ]").await;
    publisher.expect("40 [ 0001 ]").await;
    publisher.publish("a", "lasting").await;
    seconds_pass(&door, 2);
    let mut peer = Peer::lasting(&door, V5, "id", true).await;
    peer.take("a", "lasting").await;
    peer.subscribe("b", 1).await;
    peer.expect_silence().await;
}

#[tokio::test]
async fn v5_mqtt_3_3_2_6() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.subscribe("a", 1).await;
    peer.leave().await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    // What did not wait for a whole second is of use as long as its publisher said.
    publisher.subscribe("a", 0).await;
    let copy = publisher.publish_to_itself("32 [ <a> 0001 [ 02 00000064 ] 'x' ]").await;
    assert_eq!(copy, V5.bytes("30 [ <a> [ 02 00000064 ] 'x' ]"));
    seconds_pass(&door, 3);
    let mut peer = Peer::lasting(&door, V5, "id", true).await;
    let message = peer.next().await;
    let id = id_of(&message, "a");
    assert_eq!(message, V5.bytes(&format!("32 [ <a> {id} [ 02 00000061 ] 'x' ]")));
}

#[tokio::test]
async fn everything_a_message_carries_reaches_its_subscribers() {
    let door = door().await;
    let carried = "26 <b> <1> 01 01 03 <text> 26 <a> <2> 08 <r> 09 0002 00ff 26 <b> <1>";
    let mut live = subscriber(&door, "", "a", 0).await;
    let mut queued = Peer::connect(&door, V5, "queued").await;
    queued.subscribe("a", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send(&format!("33 [ <a> 0001 [ {carried} ] 'x' ]")).await;
    publisher.expect("40 [ 0001 ]").await;
    live.expect(&format!("30 [ <a> [ {carried} ] 'x' ]")).await;
    let message = queued.next().await;
    let id = id_of(&message, "a");
    assert_eq!(message, V5.bytes(&format!("32 [ <a> {id} [ {carried} ] 'x' ]")));
    live.subscribe("a", 0).await;
    live.expect(&format!("31 [ <a> [ {carried} ] 'x' ]")).await;
}

/// A subscription with an identifier.
async fn subscribe_with_id(peer: &mut Peer, id: &str, filter: &str, options: u8) {
    peer.send(&format!("82 [ 0001 [ 0b {id} ] <{filter}> {options:02x} ]")).await;
    peer.expect(&format!("90 [ 0001 [ ] {:02x} ]", options & 3)).await;
}

#[tokio::test]
async fn v5_mqtt_3_3_4_3() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    subscribe_with_id(&mut peer, "01", "a/+", 1).await;
    subscribe_with_id(&mut peer, "ffffff7f", "a/#", 1).await;
    peer.subscribe("a/b", 1).await;
    Peer::connect(&door, V5, "pub").await.publish("a/b", "x").await;
    let message = peer.next().await;
    let id = id_of(&message, "a/b");
    let orders = ["0b 01 0b ffffff7f", "0b ffffff7f 0b 01"];
    let expected = orders.map(|ids| V5.bytes(&format!("32 [ <a/b> {id} [ {ids} ] 'x' ]")));
    assert!(expected.contains(&message), "{message:02x?}");
}

#[tokio::test]
async fn v5_mqtt_3_3_4_4() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    subscribe_with_id(&mut peer, "07", "a/+", 1).await;
    subscribe_with_id(&mut peer, "07", "a/#", 1).await;
    Peer::connect(&door, V5, "pub").await.publish("a/b", "x").await;
    let message = peer.next().await;
    assert!(message.windows(2).any(|window| window == [0x0b, 7]), "{message:02x?}");
}

#[tokio::test]
async fn v5_mqtt_3_3_4_5() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    subscribe_with_id(&mut peer, "05", "a", 0).await;
    subscribe_with_id(&mut peer, "06", "b", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.retain("a", "x").await;
    peer.expect("30 [ <a> [ 0b 05 ] 'x' ]").await;
    publisher.publish("b", "y").await;
    let message = peer.next().await;
    let id = id_of(&message, "b");
    assert_eq!(message, V5.bytes(&format!("32 [ <b> {id} [ 0b 06 ] 'y' ]")));
    // Without an identifier the next subscription takes the old one away.
    peer.subscribe("b", 1).await;
    publisher.publish("b", "z").await;
    peer.send(&format!("40 [ {id} ]")).await;
    peer.take("b", "z").await;
    subscribe_with_id(&mut peer, "08", "a", 0).await;
    peer.expect("31 [ <a> [ 0b 08 ] 'x' ]").await;
}

#[tokio::test]
async fn v5_mqtt_3_3_4_9() {
    let door = door().await;
    let mut peer = subscriber(&door, "21 0002", "a", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    for payload in ["1", "2", "3", "4"] {
        publisher.publish("a", payload).await;
    }
    let (_, one) = peer.message("a", "1").await;
    let (_, two) = peer.message("a", "2").await;
    peer.expect_silence().await;
    peer.send(&format!("40 [ {two} ]")).await;
    let (_, three) = peer.message("a", "3").await;
    peer.expect_silence().await;
    peer.send(&format!("40 [ {one} ] 40 [ {three} 80 ]")).await;
    peer.take("a", "4").await;
}

#[tokio::test]
async fn v5_mqtt_4_9_0_2() {
    let door = door().await;
    let mut peer = subscriber(&door, "21 0001", "a", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("34 [ <a> 0001 [ ] '1' ]").await;
    publisher.expect("50 [ 0001 ]").await;
    publisher.send("34 [ <a> 0002 [ ] '2' ]").await;
    publisher.expect("50 [ 0002 ]").await;
    let (_, one) = peer.message("a", "1").await;
    peer.send(&format!("50 [ {one} ]")).await;
    peer.expect(&format!("62 [ {one} ]")).await;
    // A PUBREC that is no error gives nothing back: the PUBCOMP does.
    peer.expect_silence().await;
    peer.send(&format!("70 [ {one} ]")).await;
    let (_, two) = peer.message("a", "2").await;
    peer.send(&format!("50 [ {two} 80 ]")).await;
    publisher.send("34 [ <a> 0003 [ ] '3' ]").await;
    peer.message("a", "3").await;
}

/// Whoever may get no more messages still gets every other answer, and messages at quality 0.
async fn others_are_not_delayed() {
    let door = door().await;
    let mut peer = subscriber(&door, "21 0001", "a", 1).await;
    peer.subscribe("b", 0).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.publish("a", "1").await;
    publisher.publish("a", "2").await;
    let (_, one) = peer.message("a", "1").await;
    peer.expect_silence().await;
    peer.subscribe("c", 1).await;
    peer.publish("d", "x").await;
    publisher.send("30 [ <b> [ ] 'y' ]").await;
    peer.expect("30 [ <b> [ ] 'y' ]").await;
    peer.send(&format!("40 [ {one} ]")).await;
    peer.take("a", "2").await;
}

#[tokio::test]
async fn v5_mqtt_3_3_4_10() {
    others_are_not_delayed().await;
}

#[tokio::test]
async fn v5_mqtt_4_9_0_3() {
    others_are_not_delayed().await;
}

#[tokio::test]
async fn more_messages_than_the_receive_maximum_end_the_connection() {
    let (door, mut arrivals) = open(DoorSettings { inflight_max: 2, ..settings() }).await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    for id in 1..=2 {
        peer.send(&format!("34 [ <a> 000{id} [ ] 'x' ]")).await;
        arrivals.next().await.done();
        peer.expect(&format!("50 [ 000{id} ]")).await;
    }
    peer.send("34 [ <a> 0003 [ ] 'x' ]").await;
    peer.expect_disconnect(0x93).await;
}

#[tokio::test]
async fn v5_mqtt_4_3_3_7() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.subscribe("a", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("34 [ <a> 0001 [ 02 00000003 ] 'x' ]").await;
    let message = peer.next().await;
    assert_eq!(message[0], 0x34);
    let id = id_of(&message, "a");
    drop(peer);
    seconds_pass(&door, 4);
    let mut peer = Peer::lasting(&door, V5, "id", true).await;
    let again = peer.next().await;
    assert_eq!((again[0], id_of(&again, "a")), (0x3c, id));
}

#[tokio::test]
async fn v5_mqtt_4_3_3_13() {
    let door = door().await;
    let mut peer = Peer::lasting(&door, V5, "id", false).await;
    peer.subscribe("a", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("34 [ <a> 0001 [ 02 00000003 ] 'x' ]").await;
    let id = id_of(&peer.next().await, "a");
    seconds_pass(&door, 4);
    peer.send(&format!("50 [ {id} ]")).await;
    peer.expect(&format!("62 [ {id} ]")).await;
    peer.send(&format!("70 [ {id} ]")).await;
    publisher.expect("50 [ 0001 ]").await;
    publisher.send("62 [ 0001 ]").await;
    publisher.expect("70 [ 0001 ]").await;
}

/// A member of a group that shares `a`.
async fn member(door: &OpenDoor, id: &str, group: &str, qos: u8) -> Peer {
    let mut peer = Peer::lasting(door, V5, id, false).await;
    peer.subscribe(&format!("$share/{group}/a"), qos).await;
    peer
}

#[tokio::test]
async fn a_group_gets_each_message_once() {
    let door = door().await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.retain("a", "kept").await;
    let mut one = member(&door, "one", "g", 1).await;
    let mut two = member(&door, "two", "g", 1).await;
    let mut other = member(&door, "other", "h", 1).await;
    for number in 0..10 {
        publisher.publish("a", &number.to_string()).await;
        other.take("a", &number.to_string()).await;
    }
    publisher.expect_silence().await;
    let mut seen = 0;
    for peer in [&mut one, &mut two] {
        peer.send("c0 00 c0 00").await;
        let mut answers = 0;
        while answers < 2 {
            let packet = peer.next().await;
            if packet[0] == 0xd0 {
                answers += 1;
            } else {
                assert_eq!(packet[0], 0x32);
                seen += 1;
                peer.send(&format!("40 [ {} ]", id_of(&packet, "a"))).await;
            }
        }
    }
    assert_eq!(seen, 10);
}

#[tokio::test]
async fn v5_mqtt_4_8_2_3() {
    let door = door().await;
    let mut low = member(&door, "low", "g", 0).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.publish("a", "x").await;
    low.expect("30 [ <a> [ ] 'x' ]").await;
    low.leave().await;
    let mut high = member(&door, "high", "h", 1).await;
    publisher.publish("a", "y").await;
    high.take("a", "y").await;
}

#[tokio::test]
async fn v5_mqtt_4_8_2_4() {
    let door = door().await;
    let mut one = member(&door, "one", "g", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("34 [ <a> 0001 [ ] 'x' ]").await;
    let (_, id) = one.message("a", "x").await;
    let mut two = member(&door, "two", "g", 2).await;
    drop(one);
    two.expect_silence().await;
    let mut one = Peer::lasting(&door, V5, "one", true).await;
    assert_eq!(one.message("a", "x").await, (0x3c, id));
}

#[tokio::test]
async fn v5_mqtt_4_8_2_5() {
    let door = door().await;
    let mut one = member(&door, "one", "g", 2).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.send("34 [ <a> 0001 [ ] 'x' ]").await;
    one.message("a", "x").await;
    let mut two = member(&door, "two", "g", 2).await;
    drop(one);
    // The session of the chosen member ends before it has the message.
    Peer::connect(&door, V5, "one").await.leave().await;
    two.expect_silence().await;
}

#[tokio::test]
async fn v5_mqtt_4_8_2_6() {
    let door = door().await;
    let mut one = member(&door, "one", "g", 1).await;
    let mut publisher = Peer::connect(&door, V5, "pub").await;
    publisher.publish("a", "x").await;
    let (_, id) = one.message("a", "x").await;
    let mut two = member(&door, "two", "g", 1).await;
    one.send(&format!("40 [ {id} 80 ]")).await;
    one.expect_silence().await;
    two.expect_silence().await;
}

#[tokio::test]
async fn v5_mqtt_4_12_0_1() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ 15 <SCRAM-SHA-1> 16 <first> ] <id> ]").await;
    peer.expect_end("20 [ 00 8c 00 ]").await;
}

#[tokio::test]
async fn v5_mqtt_4_12_0_4() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ 15 <other> ] <id> ] f0 [ 18 [ 15 <other> ] ]").await;
    peer.expect_end("20 [ 00 8c 00 ]").await;
}

#[tokio::test]
async fn v5_mqtt_4_12_0_6() {
    let door = door().await;
    let mut peer = Peer::open(&door, V5).await;
    peer.send("10 [ <MQTT> 05 02 003c [ ] <id> ]").await;
    let properties = connack_properties(&peer.next().await);
    assert!(properties.iter().all(|(id, _)| ![0x15, 0x16].contains(id)), "{properties:02x?}");
    peer.expect_silence().await;
}

#[tokio::test]
async fn an_auth_without_a_method_ends_the_connection() {
    let door = door().await;
    let mut peer = Peer::connect(&door, V5, "id").await;
    peer.send("f0 [ 19 [ 15 <m> ] ]").await;
    peer.expect_disconnect(0x82).await;
}
