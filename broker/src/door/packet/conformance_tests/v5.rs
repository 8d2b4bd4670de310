//! MQTT 5.0.

use std::num::NonZeroU16;

use super::*;

/// Packets of 5.0 with a text in the place of `@`, in every kind of field.
const TEXTS: [&str; 11] = [
    "10 [ <MQTT> 05 02 003c [ ] @ ]",
    "10 [ <MQTT> 05 06 003c [ ] <id> [ ] @ <x> ]",
    "10 [ <MQTT> 05 82 003c [ ] <id> @ ]",
    "10 [ <MQTT> 05 02 003c [ 15 @ ] <id> ]",
    "10 [ <MQTT> 05 02 003c [ 26 <k> @ ] <id> ]",
    "30 [ @ [ ] 'x' ]",
    "30 [ <a> [ 03 @ ] 'x' ]",
    "30 [ <a> [ 08 @ ] 'x' ]",
    "82 [ 0001 [ ] @ 00 ]",
    "a2 [ 0001 [ ] @ ]",
    "e0 [ 00 [ 1f @ ] ]",
];

fn accept(packets: &[&str]) {
    super::accept(Version::V5, packets);
}

fn refuse(packets: &[&str]) {
    super::refuse(Version::V5, Reason::MALFORMED_PACKET, packets);
}

fn refuse_protocol(packets: &[&str]) {
    super::refuse(Version::V5, Reason::PROTOCOL_ERROR, packets);
}

/// The properties a PUBLISH carries on, as they came.
fn carried(packet: &str) -> Vec<u8> {
    let packet = bytes(packet);
    let body = &packet[header(&packet, Some(Version::V5)).unwrap().unwrap().header_bytes..];
    let head = publish_head(Version::V5, body.len(), Qos::AtMostOnce, body).unwrap().unwrap();
    head.properties.carried.to_vec()
}

/// The codes below 0x100 with which a packet is accepted; `@` is the code.
fn accepted_codes(packet: &str) -> Vec<u8> {
    let is_accepted =
        |code: &u8| judge(Version::V5, &bytes(&packet.replace('@', &format!("{code:02x}")))).is_ok();
    (0..=u8::MAX).filter(is_accepted).collect()
}

#[test]
fn v5_mqtt_1_5_4_1() {
    refuse(&strs(&with(&TEXTS, &ILL_FORMED)));
    accept(&strs(&with(&TEXTS, &["<a>", "<Grüße>", "<𝄞>"])));
}

#[test]
fn v5_mqtt_1_5_4_2() {
    refuse(&strs(&with(&TEXTS, &["0001 00", "0003 'a' 00 'b'"])));
}

#[test]
fn v5_text_has_no_controls_and_no_code_points_that_are_no_characters() {
    refuse(&strs(&with(&TEXTS, &BARRED_TEXTS)));
    accept(&strs(&with(&TEXTS, &["0001 20", "0001 7e", "0002 c2a0", "0003 efbfbd"])));
}

#[test]
fn v5_mqtt_1_5_4_3() {
    let (topic, _) = published(Version::V5, "30 [ 0004 efbbbf 'a' [ ] ]");
    assert_eq!(topic, "\u{feff}a");
    assert_eq!(carried("30 [ <a> [ 03 0004 efbbbf 'x' ] ]"), bytes("03 0004 efbbbf 'x'"));
}

#[test]
fn v5_mqtt_1_5_5_1() {
    refuse(&["30 8400 <a> 00", "30 [ <a> 8000 'x' ]", "82 [ 0001 [ 0b 8100 ] <a> 00 ]", "c0 8000"]);
    refuse(&["82 [ 0001 [ 0b ffffffff01 ] <a> 00 ]", "30 [ <a> ffffffff01 'x' ]"]);
    accept(&["82 [ 0001 [ 0b 01 ] <a> 00 ]", "82 [ 0001 [ 0b ffffff7f ] <a> 00 ]"]);
}

#[test]
fn v5_mqtt_1_5_7_1() {
    let pairs = [
        "10 [ <MQTT> 05 02 003c [ 26 @ <v> ] <id> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 26 <k> @ ] <w> <x> ]",
        "30 [ <a> [ 26 @ <v> ] ]",
        "40 [ 0001 00 [ 26 <k> @ ] ]",
        "82 [ 0001 [ 26 @ <v> ] <a> 00 ]",
        "a2 [ 0001 [ 26 <k> @ ] <a> ]",
        "e0 [ 00 [ 26 @ <v> ] ]",
    ];
    refuse(&strs(&with(&pairs, &ILL_FORMED)));
    refuse(&strs(&with(&pairs, &["0001 00"])));
    accept(&strs(&with(&pairs, &["<k>", "<>"])));
}

#[test]
fn v5_mqtt_2_1_3_1() {
    for (kind, right) in [(4, 0), (5, 0), (6, 2), (7, 0), (8, 2), (10, 2), (12, 0), (14, 0), (15, 0)] {
        for flags in 0..16 {
            let first = kind << 4 | flags;
            let length = if kind == 12 { 0 } else { 3 };
            let read = header(&[first, length], Some(Version::V5));
            assert_eq!(read.is_ok(), flags == right, "{first:02x}");
        }
    }
    for kind in [0, 2, 9, 11, 13] {
        assert!(header(&[kind << 4, 3], Some(Version::V5)).is_err(), "{kind}");
    }
}

#[test]
fn v5_mqtt_2_2_1_2() {
    let (_, payload) = published(Version::V5, "30 [ <a> [ ] 0001 ]");
    assert_eq!(payload, [0, 1]);
    assert_eq!(written(|out| put_publish(out, Version::V5, &OUTGOING)), bytes("30 [ <a> [ ] ]"));
}

#[test]
fn v5_mqtt_2_2_1_3() {
    refuse_protocol(&[
        "32 [ <a> 0000 [ ] 'x' ]",
        "34 [ <a> 0000 [ ] ]",
        "82 [ 0000 [ ] <a> 00 ]",
        "a2 [ 0000 [ ] <a> ]",
    ]);
    accept(&["32 [ <a> ffff [ ] 'x' ]", "34 [ <a> 0001 [ ] ]"]);
}

#[test]
fn v5_mqtt_2_2_2_1() {
    refuse(&["10 [ <MQTT> 05 02 003c ]", "82 [ 0001 05 ]", "32 [ <abc> 0001 ]"]);
    assert_eq!(written(|out| put_suback(out, Version::V5, 1, &[0])), bytes("90 [ 0001 00 00 ]"));
    assert_eq!(
        written(|out| put_unsuback(out, Version::V5, 1, &[Reason::SUCCESS])),
        bytes("b0 [ 0001 00 00 ]")
    );
    assert_eq!(written(|out| put_publish(out, Version::V5, &OUTGOING)), bytes("30 [ <a> 00 ]"));
}

#[test]
fn v5_mqtt_3_1_2_1() {
    // Nobody knows yet which version this is: it is closed without an answer.
    super::refuse(
        Version::V4,
        Reason::PROTOCOL_ERROR,
        &["10 [ <mqtt> 05 02 003c [ ] <id> ]", "10 [ <MQTT5> 05 02 003c [ ] <id> ]"],
    );
}

#[test]
fn v5_mqtt_3_1_2_2() {
    for level in [6, 0x83, 0x84, 0x85, 0xff] {
        let body = [&bytes("<MQTT>"), [level].as_slice(), &bytes("02 003c [ ] <id>")].concat();
        assert_eq!(connect(&body), Err(BadConnect::Version(Version::V5)), "{level}");
    }
    let answer = written(|out| {
        put_connack(out, Version::V5, ConnectCode::Version, false, &ConnackProperties::default());
    });
    assert_eq!(answer, bytes("20 [ 00 84 00 ]"));
}

#[test]
fn v5_mqtt_3_1_2_3() {
    refuse(&["10 [ <MQTT> 05 03 003c [ ] <id> ]", "10 [ <MQTT> 05 01 003c [ ] <id> ]"]);
}

#[test]
fn v5_mqtt_3_1_2_9() {
    refuse(&[
        "10 [ <MQTT> 05 06 003c [ ] <id> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ ] ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ ] <w> ]",
    ]);
    assert!(connected("10 [ <MQTT> 05 06 003c [ ] <id> [ ] <w> <> ]").will.is_some());
}

#[test]
fn v5_mqtt_3_1_2_11() {
    refuse(&["10 [ <MQTT> 05 0a 003c [ ] <id> ]", "10 [ <MQTT> 05 12 003c [ ] <id> ]"]);
}

#[test]
fn v5_mqtt_3_1_2_12() {
    refuse(&["10 [ <MQTT> 05 1e 003c [ ] <id> [ ] <w> <x> ]"]);
    let qos = |packet| connected(packet).will.unwrap().qos;
    assert_eq!(qos("10 [ <MQTT> 05 06 003c [ ] <id> [ ] <w> <x> ]"), Qos::AtMostOnce);
    assert_eq!(qos("10 [ <MQTT> 05 0e 003c [ ] <id> [ ] <w> <x> ]"), Qos::AtLeastOnce);
    assert_eq!(qos("10 [ <MQTT> 05 16 003c [ ] <id> [ ] <w> <x> ]"), Qos::ExactlyOnce);
}

#[test]
fn v5_mqtt_3_1_2_13() {
    refuse(&["10 [ <MQTT> 05 22 003c [ ] <id> ]"]);
    assert!(connected("10 [ <MQTT> 05 26 003c [ ] <id> [ ] <w> <x> ]").will.unwrap().retain);
}

#[test]
fn v5_mqtt_3_1_2_16() {
    refuse(&["10 [ <MQTT> 05 02 003c [ ] <id> <user> ]"]);
}

#[test]
fn v5_mqtt_3_1_2_17() {
    refuse(&["10 [ <MQTT> 05 82 003c [ ] <id> ]"]);
    let username = connected("10 [ <MQTT> 05 82 003c [ ] <id> <user> ]").username;
    assert_eq!(username.as_deref(), Some("user"));
}

#[test]
fn v5_mqtt_3_1_2_18() {
    refuse(&["10 [ <MQTT> 05 82 003c [ ] <id> <user> <password> ]"]);
}

#[test]
fn v5_mqtt_3_1_2_19() {
    refuse(&["10 [ <MQTT> 05 42 003c [ ] <id> ]"]);
    let read = connected("10 [ <MQTT> 05 42 003c [ ] <id> 0002 00ff ]");
    assert_eq!((read.username, read.password), (None, Some(vec![0, 0xff])));
}

#[test]
fn v5_mqtt_3_1_3_1() {
    let read =
        connected("10 [ <MQTT> 05 c6 003c [ ] <id> [ 18 00000005 ] <topic> <message> <user> <password> ]");
    let will = read.will.unwrap();
    assert_eq!((read.client_id.as_str(), will.delay_seconds), ("id", 5));
    assert_eq!((will.topic.as_str(), &*will.payload), ("topic", b"message".as_slice()));
    assert_eq!(
        (read.username.as_deref(), read.password.as_deref()),
        (Some("user"), Some(b"password".as_slice()))
    );
}

#[test]
fn v5_mqtt_3_1_3_3() {
    refuse(&["10 [ <MQTT> 05 02 003c [ ] ]"]);
}

#[test]
fn v5_mqtt_3_1_3_4() {
    refuse(&strs(&with(&["10 [ <MQTT> 05 02 003c [ ] @ ]"], &ILL_FORMED)));
}

#[test]
fn v5_mqtt_3_1_3_5() {
    for id in ["0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "a"] {
        assert_eq!(connected(&format!("10 [ <MQTT> 05 02 003c [ ] <{id}> ]")).client_id, id);
    }
}

#[test]
fn v5_mqtt_3_1_3_11() {
    refuse(&strs(&with(&["10 [ <MQTT> 05 06 003c [ ] <id> [ ] @ <x> ]"], &ILL_FORMED)));
    refuse(&["10 [ <MQTT> 05 06 003c [ ] <id> [ ] <w/+> <x> ]"]);
}

#[test]
fn v5_mqtt_3_1_3_12() {
    refuse(&strs(&with(&["10 [ <MQTT> 05 82 003c [ ] <id> @ ]"], &ILL_FORMED)));
}

#[test]
fn v5_mqtt_3_1_4_1() {
    refuse_protocol(&[
        "10 [ <MQTT> 05 02 003c [ 11 00000001 11 00000001 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 21 0001 21 0001 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 27 00001000 27 00001000 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 22 0001 22 0001 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 19 00 19 00 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 17 00 17 00 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 15 <m> 15 <m> ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 15 <m> 16 <d> 16 <d> ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 21 0000 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 27 00000000 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 19 02 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 17 ff ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 16 <d> ] <id> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 18 00000001 18 00000001 ] <w> <x> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 01 02 ] <w> <x> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 02 00000001 02 00000001 ] <w> <x> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 08 <r/#> ] <w> <x> ]",
    ]);
    refuse_protocol(&[
        "10 [ <MQTT> 05 02 003c [ 12 <id> ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 23 0001 ] <id> ]",
        "10 [ <MQTT> 05 06 003c [ ] <id> [ 11 00000001 ] <w> <x> ]",
    ]);
    refuse(&[
        "10 [ <MQTT> 05 02 003c [ 7f ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ 11 0000 ] <id> ]",
        "10 [ <MQTT> 05 02 003c [ ] <id> 'more' ]",
    ]);
    accept(&["10 [ <MQTT> 05 02 003c [ 26 <k> <v> 26 <k> <v> ] <id> ]"]);
}

#[test]
fn v5_mqtt_3_2_2_1() {
    for session_present in [false, true] {
        let answer = written(|out| {
            put_connack(
                out,
                Version::V5,
                ConnectCode::Accepted,
                session_present,
                &ConnackProperties::default(),
            );
        });
        assert_eq!(answer[2], u8::from(session_present));
    }
}

#[test]
fn v5_mqtt_3_2_2_6() {
    for code in CONNECT_CODES {
        let answer = written(|out| put_connack(out, Version::V5, code, true, &ConnackProperties::default()));
        assert_eq!((answer[2], answer[3]), (0, code.reason().0), "{code:?}");
    }
}

#[test]
fn v5_mqtt_3_2_2_8() {
    for code in CONNECT_CODES {
        let reason = code.reason().0;
        assert!(
            matches!(reason, 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f),
            "{reason:02x}"
        );
    }
}

#[test]
fn v5_mqtt_3_3_1_2() {
    refuse(&["38 [ <a> [ ] 'x' ]", "39 [ <a> [ ] 'x' ]"]);
    accept(&["3a [ <a> 0001 [ ] 'x' ]", "3c [ <a> 0001 [ ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_1_4() {
    refuse(&["36 [ <a> 0001 [ ] 'x' ]", "3f [ <a> 0001 [ ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_1() {
    refuse(&strs(&with(&["30 [ @ [ ] 'x' ]"], &ILL_FORMED)));
    refuse(&["30 [ 0009 'short' ]"]);
    refuse_protocol(&["30 [ <> [ ] 'x' ]"]);
    accept(&["30 [ <> [ 23 0001 ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_2() {
    refuse(&["30 [ <#> [ ] 'x' ]", "30 [ <a/+> [ ] 'x' ]", "30 [ <a+> [ ] ]", "30 [ <a/#/b> [ ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_4() {
    assert_eq!(carried("30 [ <a> [ 01 01 ] 'x' ]"), bytes("01 01"));
    assert_eq!(carried("30 [ <a> [ 01 00 ] 'x' ]"), bytes("01 00"));
    refuse_protocol(&["30 [ <a> [ 01 02 ] 'x' ]", "30 [ <a> [ 01 01 01 01 ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_8() {
    super::refuse(Version::V5, Reason::TOPIC_ALIAS_INVALID, &["30 [ <a> [ 23 0000 ] 'x' ]"]);
    refuse_protocol(&["30 [ <a> [ 23 0001 23 0001 ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_13() {
    refuse(&strs(&with(&["30 [ <a> [ 08 @ ] 'x' ]"], &ILL_FORMED)));
}

#[test]
fn v5_mqtt_3_3_2_14() {
    refuse_protocol(&[
        "30 [ <a> [ 08 <#> ] 'x' ]",
        "30 [ <a> [ 08 <b/+> ] 'x' ]",
        "30 [ <a> [ 08 <> ] 'x' ]",
    ]);
}

#[test]
fn v5_mqtt_3_3_2_15() {
    assert_eq!(carried("30 [ <a> [ 08 <answer/to> ] 'x' ]"), bytes("08 <answer/to>"));
    refuse_protocol(&["30 [ <a> [ 08 <b> 08 <b> ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_16() {
    assert_eq!(carried("30 [ <a> [ 09 0003 00ff80 ] 'x' ]"), bytes("09 0003 00ff80"));
    refuse_protocol(&["30 [ <a> [ 09 <b> 09 <b> ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_2_17() {
    assert_eq!(carried("30 [ <a> [ 26 <k> <v> 26 <> <> ] 'x' ]"), bytes("26 <k> <v> 26 <> <>"));
}

#[test]
fn v5_mqtt_3_3_2_18() {
    let properties = "26 <b> <1> 26 <a> <2> 26 <b> <1> 26 <b> <0>";
    let carried = carried(&format!("30 [ <a> [ {properties} ] ]"));
    assert_eq!(carried, bytes(properties));
    let publish = Outgoing { carried: &carried, ..OUTGOING };
    let sent = written(|out| put_publish(out, Version::V5, &publish));
    assert_eq!(sent, bytes(&format!("30 [ <a> [ {properties} ] ]")));
}

#[test]
fn v5_mqtt_3_3_2_19() {
    refuse(&strs(&with(&["30 [ <a> [ 03 @ ] 'x' ]"], &ILL_FORMED)));
}

#[test]
fn v5_mqtt_3_3_2_20() {
    assert_eq!(carried("30 [ <a> [ 03 <text/plain> ] 'x' ]"), bytes("03 <text/plain>"));
    refuse_protocol(&["30 [ <a> [ 03 <b> 03 <b> ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_3_4_6() {
    refuse_protocol(&["30 [ <a> [ 0b 01 ] 'x' ]"]);
}

#[test]
fn v5_mqtt_3_4_2_1() {
    let codes = accepted_codes("40 [ 0001 @ ]");
    assert_eq!(codes, [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    refuse_protocol(&["40 [ 0001 01 ]", "40 [ 0001 00 [ 1f <a> 1f <a> ] ]"]);
    refuse_protocol(&["40 [ 0001 00 [ 11 00000001 ] ]"]);
    refuse(&["40 [ 0001 00 [ 7e 00 ] ]", "40 [ 0001 00 [ ] 00 ]", "40 [ 0001 00 05 ]"]);
}

#[test]
fn v5_mqtt_3_5_2_1() {
    let codes = accepted_codes("50 [ 0001 @ 00 ]");
    assert_eq!(codes, [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
}

#[test]
fn v5_mqtt_3_6_1_1() {
    refuse(&["60 [ 0001 ]", "61 [ 0001 ]", "63 [ 0001 ]", "6a [ 0001 00 ]"]);
    accept(&["62 [ 0001 ]"]);
}

#[test]
fn v5_mqtt_3_6_2_1() {
    assert_eq!(accepted_codes("62 [ 0001 @ ]"), [0x00, 0x92]);
}

#[test]
fn v5_mqtt_3_7_2_1() {
    assert_eq!(accepted_codes("70 [ 0001 @ ]"), [0x00, 0x92]);
}

#[test]
fn v5_mqtt_3_8_1_1() {
    refuse(&["80 [ 0001 [ ] <a> 00 ]", "81 [ 0001 [ ] <a> 00 ]", "8a [ 0001 [ ] <a> 00 ]"]);
}

#[test]
fn v5_mqtt_3_8_3_1() {
    refuse(&strs(&with(&["82 [ 0001 [ ] @ 00 ]"], &ILL_FORMED)));
    refuse(&["82 [ 0001 [ ] <a> ]", "82 [ 0001 [ ] 0009 'a' 00 ]"]);
}

#[test]
fn v5_mqtt_3_8_3_2() {
    refuse_protocol(&["82 [ 0001 [ ] ]", "82 [ 0001 [ 0b 01 ] ]"]);
}

#[test]
fn v5_mqtt_3_8_3_4() {
    refuse_protocol(&["82 [ 0001 [ ] <$share/g/a> 04 ]", "82 [ 0001 [ ] <a> 04 <$share/g/#> 05 ]"]);
    accept(&["82 [ 0001 [ ] <$share/g/a> 02 ]", "82 [ 0001 [ ] <a> 04 ]"]);
}

#[test]
fn v5_mqtt_3_8_3_5() {
    refuse(&["82 [ 0001 [ ] <a> 40 ]", "82 [ 0001 [ ] <a> 80 ]", "82 [ 0001 [ ] <a> c0 ]"]);
    refuse_protocol(&["82 [ 0001 [ ] <a> 03 ]", "82 [ 0001 [ ] <a> 30 ]", "82 [ 0001 [ 0b 00 ] <a> 00 ]"]);
    refuse_protocol(&["82 [ 0001 [ 0b 01 0b 01 ] <a> 00 ]"]);
    refuse_protocol(&["82 [ 0001 [ 1f <a> ] <a> 00 ]"]);
}

#[test]
fn v5_mqtt_3_10_1_1() {
    refuse(&["a0 [ 0001 [ ] <a> ]", "a1 [ 0001 [ ] <a> ]", "a6 [ 0001 [ ] <a> ]"]);
}

#[test]
fn v5_mqtt_3_10_3_1() {
    refuse(&strs(&with(&["a2 [ 0001 [ ] @ ]"], &ILL_FORMED)));
    refuse_protocol(&["a2 [ 0001 [ 1f <a> ] <a> ]", "a2 [ 0001 [ 0b 01 ] <a> ]"]);
    accept(&["a2 [ 0001 [ 26 <k> <v> ] <a> <b/+> <$share/g/c/#> ]"]);
}

#[test]
fn v5_mqtt_3_10_3_2() {
    refuse_protocol(&["a2 [ 0001 [ ] ]", "a2 [ 0001 [ 26 <k> <v> ] ]"]);
}

#[test]
fn v5_mqtt_3_14_1_1() {
    for flags in 1..16 {
        let refused = header(&[0xe0 | flags, 0], Some(Version::V5)).map_err(|malformed| malformed.reason);
        assert_eq!(refused, Err(Reason::MALFORMED_PACKET), "{flags}");
    }
}

#[test]
fn v5_mqtt_3_14_2_1() {
    let codes = accepted_codes("e0 [ @ ]");
    let sent_by_clients = [0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    assert_eq!(codes, sent_by_clients);
    refuse_protocol(&["e0 [ 00 [ 1c <a> ] ]", "e0 [ 00 [ 21 0001 ] ]"]);
    refuse(&["e0 [ 00 [ 1c 00 ] ]", "e0 [ 00 [ 21 00 ] ]", "e0 [ 00 [ ] 00 ]"]);
    refuse_protocol(&["e0 [ 00 [ 11 00000001 11 00000001 ] ]", "e0 [ 00 [ 1f <a> 1f <a> ] ]"]);
}

#[test]
fn v5_mqtt_3_14_2_2() {
    let goodbye = written(|out| put_disconnect(out, Reason::SERVER_BUSY, "why", usize::MAX));
    assert_eq!(goodbye, bytes("e0 [ 89 [ 1f <why> ] ]"));
}

#[test]
fn v5_mqtt_3_14_2_3() {
    for (text_bytes, packet_bytes_max, is_said) in
        [(3, 10, true), (3, 9, false), (0, 0, false), (200, 209, true), (200, 208, false)]
    {
        let text = "x".repeat(text_bytes);
        let goodbye = written(|out| put_disconnect(out, Reason::SERVER_BUSY, &text, packet_bytes_max));
        let expected = if is_said { format!("e0 [ 89 [ 1f <{text}> ] ]") } else { "e0 [ 89 ]".to_owned() };
        assert_eq!(goodbye, bytes(&expected), "{text_bytes} {packet_bytes_max}");
    }
}

#[test]
fn v5_mqtt_3_15_1_1() {
    for flags in 1..16 {
        assert!(header(&[0xf0 | flags, 0], Some(Version::V5)).is_err(), "{flags}");
    }
    assert_eq!(header(&[0xf0, 0], Some(Version::V5)).unwrap().unwrap().kind, Kind::Auth);
    assert!(header(&[0xf0, 0], Some(Version::V4)).is_err());
}

#[test]
fn v5_mqtt_4_7_0_1() {
    refuse(&["30 [ <+> [ ] 'x' ]", "30 [ <a#> [ ] 'x' ]"]);
    accept(&["82 [ 0001 [ ] <+> 00 <#> 00 ]"]);
}

#[test]
fn v5_mqtt_4_7_1_1() {
    refuse(&["82 [ 0001 [ ] <a#> 00 ]", "82 [ 0001 [ ] <a/#/b> 00 ]", "82 [ 0001 [ ] <#/a> 00 ]"]);
    refuse(&["82 [ 0001 [ ] <$share/g/a#> 00 ]", "a2 [ 0001 [ ] <a/b#> ]"]);
    accept(&["82 [ 0001 [ ] <#> 00 <a/#> 00 </#> 00 ]"]);
}

#[test]
fn v5_mqtt_4_7_1_2() {
    refuse(&["82 [ 0001 [ ] <a+> 00 ]", "82 [ 0001 [ ] <+a/b> 00 ]", "82 [ 0001 [ ] <a/++/b> 00 ]"]);
    accept(&["82 [ 0001 [ ] <+> 00 <+/a> 00 <a/+/b> 00 <a/+/#> 00 <+/+> 00 ]"]);
}

#[test]
fn v5_mqtt_4_7_3_1() {
    refuse(&["82 [ 0001 [ ] <> 00 ]", "a2 [ 0001 [ ] <> ]", "10 [ <MQTT> 05 06 003c [ ] <id> [ ] <> <x> ]"]);
    accept(&["30 [ </> [ ] 'x' ]", "82 [ 0001 [ ] </> 00 ]"]);
}

#[test]
fn v5_mqtt_4_7_3_2() {
    refuse(&["30 [ 0001 00 [ ] ]", "82 [ 0001 [ ] 0003 'a' 00 'b' 00 ]", "a2 [ 0001 [ ] 0001 00 ]"]);
}

#[test]
fn v5_mqtt_4_7_3_3() {
    let longest = "a".repeat(65_535);
    accept(&[&format!("30 [ <{longest}> [ ] 'x' ]"), &format!("82 [ 0001 [ ] <{longest}> 00 ]")]);
}

#[test]
fn v5_mqtt_4_8_2_1() {
    refuse(&["82 [ 0001 [ ] <$share//a> 00 ]", "82 [ 0001 [ ] <$share/> 00 ]"]);
    accept(&["82 [ 0001 [ ] <$share/g/a> 00 ]", "82 [ 0001 [ ] <$share/g//a> 00 ]"]);
}

#[test]
fn v5_mqtt_4_8_2_2() {
    refuse(&[
        "82 [ 0001 [ ] <$share/g> 00 ]",
        "82 [ 0001 [ ] <$share/g/> 00 ]",
        "82 [ 0001 [ ] <$share/+/a> 00 ]",
        "82 [ 0001 [ ] <$share/g#/a> 00 ]",
        "a2 [ 0001 [ ] <$share/g> ]",
    ]);
}

#[test]
fn v5_mqtt_4_9_0_1() {
    let receive_max = |packet| connected(packet).properties.receive_max;
    assert_eq!(receive_max("10 [ <MQTT> 05 02 003c [ 21 0001 ] <id> ]"), NonZeroU16::new(1));
    assert_eq!(receive_max("10 [ <MQTT> 05 02 003c [ 21 ffff ] <id> ]"), NonZeroU16::new(65_535));
    assert_eq!(receive_max("10 [ <MQTT> 05 02 003c [ ] <id> ]"), None);
}

#[test]
fn an_authentication_method_is_read() {
    let read = connected("10 [ <MQTT> 05 02 003c [ 15 <SCRAM-SHA-1> 16 <first> ] <id> ]");
    assert_eq!(read.properties.authentication_method.as_deref(), Some("SCRAM-SHA-1"));
}
