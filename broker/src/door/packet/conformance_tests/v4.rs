//! MQTT 3.1.1.

use super::*;

/// Packets of 3.1.1 with a text in the place of `@`.
const TEXTS: [&str; 6] = [
    "10 [ <MQTT> 04 02 003c @ ]",
    "10 [ <MQTT> 04 06 003c <id> @ <x> ]",
    "10 [ <MQTT> 04 82 003c <id> @ ]",
    "30 [ @ 'x' ]",
    "82 [ 0001 @ 00 ]",
    "a2 [ 0001 @ ]",
];

fn accept(packets: &[&str]) {
    super::accept(Version::V4, packets);
}

fn refuse(packets: &[&str]) {
    super::refuse(Version::V4, Reason::MALFORMED_PACKET, packets);
}

/// As a breach of the protocol, which 3.1.1 answers like any other.
fn refuse_protocol(packets: &[&str]) {
    super::refuse(Version::V4, Reason::PROTOCOL_ERROR, packets);
}

#[test]
fn v4_mqtt_1_5_3_1() {
    refuse(&strs(&with(&TEXTS, &ILL_FORMED)));
    accept(&strs(&with(&TEXTS, &["<a>", "<Grüße>", "<𝄞>"])));
}

#[test]
fn v4_mqtt_1_5_3_2() {
    refuse(&strs(&with(&TEXTS, &["0001 00", "0003 'a' 00 'b'"])));
}

#[test]
fn v4_text_has_no_controls_and_no_code_points_that_are_no_characters() {
    refuse(&strs(&with(&TEXTS, &BARRED_TEXTS)));
    accept(&strs(&with(&TEXTS, &["0001 20", "0001 7e", "0002 c2a0", "0003 efbfbd"])));
}

#[test]
fn v4_mqtt_1_5_3_3() {
    let (topic, _) = published(Version::V4, "30 [ 0004 efbbbf 'a' ]");
    assert_eq!(topic, "\u{feff}a");
}

#[test]
fn v4_mqtt_2_2_2_1() {
    accept(&[
        "10 [ <MQTT> 04 02 003c <id> ]",
        "40 [ 0001 ]",
        "50 [ 0001 ]",
        "62 [ 0001 ]",
        "70 [ 0001 ]",
        "82 [ 0001 <a> 00 ]",
        "a2 [ 0001 <a> ]",
        "c0 00",
        "e0 00",
    ]);
}

#[test]
fn v4_mqtt_2_2_2_2() {
    for (kind, right) in [(4, 0), (5, 0), (6, 2), (7, 0), (8, 2), (10, 2), (12, 0), (14, 0)] {
        for flags in (0..16).filter(|flags| *flags != right) {
            let first = kind << 4 | flags;
            assert!(header(&[first, 2], Some(Version::V4)).is_err(), "{first:02x}");
        }
    }
    for flags in 1..16 {
        assert!(header(&[0x10 | flags, 20], None).is_err(), "{flags}");
    }
}

#[test]
fn v4_mqtt_2_3_1_1() {
    refuse_protocol(&["32 [ <a> 0000 'x' ]", "34 [ <a> 0000 'x' ]", "82 [ 0000 <a> 00 ]", "a2 [ 0000 <a> ]"]);
    accept(&["32 [ <a> ffff 'x' ]", "34 [ <a> 0001 ]", "82 [ 0001 <a> 00 ]", "a2 [ 0001 <a> ]"]);
}

#[test]
fn v4_mqtt_2_3_1_5() {
    let (_, payload) = published(Version::V4, "30 [ <a> 0001 ]");
    assert_eq!(payload, [0, 1]);
    let publish = |qos, packet_id| Outgoing { qos, packet_id, ..OUTGOING };
    assert_eq!(
        written(|out| put_publish(out, Version::V4, &publish(Qos::AtMostOnce, 0))),
        bytes("30 [ <a> ]")
    );
    assert_eq!(
        written(|out| put_publish(out, Version::V4, &publish(Qos::AtLeastOnce, 7))),
        bytes("32 [ <a> 0007 ]")
    );
}

#[test]
fn v4_mqtt_3_1_2_1() {
    refuse_protocol(&[
        "10 [ <mqtt> 04 02 003c <id> ]",
        "10 [ <MQTTX> 04 02 003c <id> ]",
        "10 [ <> 04 02 003c <id> ]",
    ]);
}

#[test]
fn v4_mqtt_3_1_2_2() {
    for level in [0, 3] {
        let body = [&bytes("<MQTT>"), [level].as_slice(), &bytes("02 003c <id>")].concat();
        assert_eq!(connect(&body), Err(BadConnect::Version(Version::V4)), "{level}");
    }
    assert_eq!(connect(&bytes("<MQIsdp> 02 02 003c <id>")), Err(BadConnect::Version(Version::V4)));
    let answer = written(|out| {
        put_connack(out, Version::V4, ConnectCode::Version, false, &ConnackProperties::default());
    });
    assert_eq!(answer, bytes("20 [ 00 01 ]"));
}

#[test]
fn v4_mqtt_3_1_2_3() {
    refuse(&["10 [ <MQTT> 04 03 003c <id> ]", "10 [ <MQTT> 04 01 003c <id> ]"]);
}

#[test]
fn v4_mqtt_3_1_2_9() {
    refuse(&["10 [ <MQTT> 04 06 003c <id> ]", "10 [ <MQTT> 04 06 003c <id> <w> ]"]);
    assert!(connected("10 [ <MQTT> 04 06 003c <id> <w> <> ]").will.is_some());
}

#[test]
fn v4_mqtt_3_1_2_11() {
    refuse(&["10 [ <MQTT> 04 2a 003c <id> ]", "10 [ <MQTT> 04 02 003c <id> <w> <x> ]"]);
    assert_eq!(connected("10 [ <MQTT> 04 02 003c <id> ]").will, None);
}

#[test]
fn v4_mqtt_3_1_2_13() {
    refuse(&[
        "10 [ <MQTT> 04 0a 003c <id> ]",
        "10 [ <MQTT> 04 12 003c <id> ]",
        "10 [ <MQTT> 04 1a 003c <id> ]",
    ]);
}

#[test]
fn v4_mqtt_3_1_2_14() {
    refuse(&["10 [ <MQTT> 04 1e 003c <id> <w> <x> ]"]);
    let qos = |packet| connected(packet).will.unwrap().qos;
    assert_eq!(qos("10 [ <MQTT> 04 06 003c <id> <w> <x> ]"), Qos::AtMostOnce);
    assert_eq!(qos("10 [ <MQTT> 04 0e 003c <id> <w> <x> ]"), Qos::AtLeastOnce);
    assert_eq!(qos("10 [ <MQTT> 04 16 003c <id> <w> <x> ]"), Qos::ExactlyOnce);
}

#[test]
fn v4_mqtt_3_1_2_15() {
    refuse(&["10 [ <MQTT> 04 22 003c <id> ]"]);
    assert!(connected("10 [ <MQTT> 04 26 003c <id> <w> <x> ]").will.unwrap().retain);
    assert!(!connected("10 [ <MQTT> 04 06 003c <id> <w> <x> ]").will.unwrap().retain);
}

#[test]
fn v4_mqtt_3_1_2_18() {
    refuse(&["10 [ <MQTT> 04 02 003c <id> <user> ]"]);
}

#[test]
fn v4_mqtt_3_1_2_19() {
    refuse(&["10 [ <MQTT> 04 82 003c <id> ]"]);
    let username = connected("10 [ <MQTT> 04 82 003c <id> <user> ]").username;
    assert_eq!(username.as_deref(), Some("user"));
}

#[test]
fn v4_mqtt_3_1_2_20() {
    refuse(&["10 [ <MQTT> 04 82 003c <id> <user> <password> ]"]);
}

#[test]
fn v4_mqtt_3_1_2_21() {
    refuse(&["10 [ <MQTT> 04 c2 003c <id> <user> ]"]);
    let password = connected("10 [ <MQTT> 04 c2 003c <id> <user> 0002 00ff ]").password;
    assert_eq!(password, Some(vec![0, 0xff]));
}

#[test]
fn v4_mqtt_3_1_2_22() {
    refuse(&["10 [ <MQTT> 04 42 003c <id> <password> ]"]);
}

#[test]
fn v4_mqtt_3_1_3_1() {
    let read = connected("10 [ <MQTT> 04 c6 003c <id> <topic> <message> <user> <password> ]");
    let will = read.will.unwrap();
    assert_eq!(
        (read.client_id.as_str(), will.topic.as_str(), &*will.payload),
        ("id", "topic", b"message".as_slice())
    );
    assert_eq!(
        (read.username.as_deref(), read.password.as_deref()),
        (Some("user"), Some(b"password".as_slice()))
    );
}

#[test]
fn v4_mqtt_3_1_3_3() {
    refuse(&["10 [ <MQTT> 04 02 003c ]"]);
}

#[test]
fn v4_mqtt_3_1_3_4() {
    refuse(&strs(&with(&["10 [ <MQTT> 04 02 003c @ ]"], &ILL_FORMED)));
}

#[test]
fn v4_mqtt_3_1_3_5() {
    for id in ["0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "a"] {
        assert_eq!(connected(&format!("10 [ <MQTT> 04 02 003c <{id}> ]")).client_id, id);
    }
}

#[test]
fn v4_mqtt_3_1_3_10() {
    refuse(&strs(&with(&["10 [ <MQTT> 04 06 003c <id> @ <x> ]"], &ILL_FORMED)));
}

#[test]
fn v4_mqtt_3_1_3_11() {
    refuse(&strs(&with(&["10 [ <MQTT> 04 82 003c <id> @ ]"], &ILL_FORMED)));
}

#[test]
fn v4_mqtt_3_2_2_4() {
    for code in CONNECT_CODES {
        let answer = written(|out| put_connack(out, Version::V4, code, true, &ConnackProperties::default()));
        assert_eq!((answer[..3].to_vec(), answer[3] != 0), (vec![0x20, 2, 0], true), "{code:?}");
    }
}

#[test]
fn v4_mqtt_3_3_1_2() {
    refuse(&["38 [ <a> 'x' ]", "39 [ <a> 'x' ]"]);
    accept(&["3a [ <a> 0001 'x' ]", "3c [ <a> 0001 'x' ]"]);
}

#[test]
fn v4_mqtt_3_3_1_4() {
    refuse(&["36 [ <a> 0001 'x' ]", "3f [ <a> 0001 'x' ]"]);
}

#[test]
fn v4_mqtt_3_3_2_1() {
    refuse(&strs(&with(&["30 [ @ 'x' ]"], &ILL_FORMED)));
    refuse(&["30 [ 00 ]", "30 [ 0009 'short' ]", "32 [ <abc> ]"]);
}

#[test]
fn v4_mqtt_3_3_2_2() {
    refuse(&["30 [ <#> 'x' ]", "30 [ <a/+> 'x' ]", "30 [ <a+> 'x' ]", "30 [ <a/#/b> 'x' ]"]);
    refuse(&["10 [ <MQTT> 04 06 003c <id> <w/#> <x> ]"]);
}

#[test]
fn v4_mqtt_3_6_1_1() {
    refuse(&["60 [ 0001 ]", "61 [ 0001 ]", "63 [ 0001 ]", "6a [ 0001 ]"]);
    accept(&["62 [ 0001 ]"]);
}

#[test]
fn v4_mqtt_3_8_1_1() {
    refuse(&["80 [ 0001 <a> 00 ]", "81 [ 0001 <a> 00 ]", "8a [ 0001 <a> 00 ]"]);
}

#[test]
fn v4_mqtt_3_8_3_1() {
    refuse(&strs(&with(&["82 [ 0001 @ 00 ]"], &ILL_FORMED)));
    refuse(&["82 [ 0001 <a> ]", "82 [ 0001 0009 'a' 00 ]"]);
}

#[test]
fn v4_mqtt_3_8_3_3() {
    refuse_protocol(&["82 [ 0001 ]"]);
}

#[test]
fn v4_mqtt_3_8_3_4() {
    for options in ["04", "08", "10", "20", "40", "80", "fc"] {
        refuse(&[&format!("82 [ 0001 <a> {options} ]")]);
    }
    refuse_protocol(&["82 [ 0001 <a> 03 ]"]);
    accept(&["82 [ 0001 <a> 00 <b> 01 <c> 02 ]"]);
}

#[test]
fn v4_mqtt_3_9_3_2() {
    let codes: Vec<u8> = (0..3).chain(0x80..=0xff).collect();
    let answer = written(|out| put_suback(out, Version::V4, 1, &codes));
    let sent = &answer[answer.len() - codes.len()..];
    assert!(sent.iter().all(|code| [0, 1, 2, 0x80].contains(code)), "{sent:02x?}");
}

#[test]
fn v4_mqtt_3_10_1_1() {
    refuse(&["a0 [ 0001 <a> ]", "a1 [ 0001 <a> ]", "a6 [ 0001 <a> ]"]);
}

#[test]
fn v4_mqtt_3_10_3_1() {
    refuse(&strs(&with(&["a2 [ 0001 @ ]"], &ILL_FORMED)));
    accept(&["a2 [ 0001 <a> <b/+> <c/#> ]"]);
}

#[test]
fn v4_mqtt_3_10_3_2() {
    refuse_protocol(&["a2 [ 0001 ]"]);
}

#[test]
fn v4_mqtt_3_14_1_1() {
    for flags in 1..16 {
        assert!(header(&[0xe0 | flags, 0], Some(Version::V4)).is_err(), "{flags}");
    }
    refuse(&["e0 [ 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_1_1() {
    refuse(&["30 [ <+> 'x' ]", "30 [ <a#> 'x' ]"]);
    accept(&["82 [ 0001 <+> 00 <#> 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_1_2() {
    refuse(&["82 [ 0001 <a#> 00 ]", "82 [ 0001 <a/#/b> 00 ]", "82 [ 0001 <#/a> 00 ]", "a2 [ 0001 <a/b#> ]"]);
    accept(&["82 [ 0001 <#> 00 <a/#> 00 </#> 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_1_3() {
    refuse(&["82 [ 0001 <a+> 00 ]", "82 [ 0001 <+a/b> 00 ]", "82 [ 0001 <a/++/b> 00 ]"]);
    accept(&["82 [ 0001 <+> 00 <+/a> 00 <a/+/b> 00 <a/+/#> 00 <+/+> 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_3_1() {
    refuse(&["30 [ <> 'x' ]", "82 [ 0001 <> 00 ]", "a2 [ 0001 <> ]", "10 [ <MQTT> 04 06 003c <id> <> <x> ]"]);
    accept(&["30 [ </> 'x' ]", "82 [ 0001 </> 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_3_2() {
    refuse(&["30 [ 0001 00 ]", "82 [ 0001 0003 'a' 00 'b' 00 ]", "a2 [ 0001 0001 00 ]"]);
}

#[test]
fn v4_mqtt_4_7_3_3() {
    let longest = "a".repeat(65_535);
    accept(&[&format!("30 [ <{longest}> 'x' ]"), &format!("82 [ 0001 <{longest}> 00 ]")]);
}
