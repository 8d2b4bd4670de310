//! What is read and what is written, in both versions; the statements of the specifications have tests of their own.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::publish::PublishHead;
use super::subscribe::SubscribeOptions;
use super::*;
use crate::filter::Shared;

const VERSIONS: [Version; 2] = [Version::V4, Version::V5];

fn connect_body(level: u8, flags: u8, fields: &[u8]) -> Vec<u8> {
    [b"\0\x04MQTT".as_slice(), &[level, flags, 0, 60], fields].concat()
}

fn head(version: Version, qos: Qos, bytes: &[u8]) -> Result<Option<PublishHead<'_>>, Malformed> {
    publish_head(version, bytes.len(), qos, bytes)
}

fn message() -> Outgoing<'static> {
    Outgoing {
        topic: "a/b",
        alias: None,
        payload: b"payload",
        qos: Qos::AtMostOnce,
        packet_id: 0,
        dup: false,
        retain: false,
        expiry_seconds: None,
        carried: b"",
        subscription_ids: &[],
    }
}

#[test]
fn a_fixed_header_is_judged_before_its_body_arrives() {
    for version in [None, Some(Version::V4), Some(Version::V5)] {
        assert_eq!(header(&[], version), Ok(None));
        assert_eq!(header(&[0x30], version), Ok(None));
        assert_eq!(header(&[0x30, 0xff, 0xff, 0xff], version), Ok(None));
        assert!(header(&[0x30, 0xff, 0xff, 0xff, 0xff], version).is_err());
        let largest = header(&[0x30, 0xff, 0xff, 0xff, 0x7f], version).unwrap().unwrap();
        assert_eq!(
            (largest.header_bytes, largest.body_bytes, largest.frame_bytes()),
            (5, 268_435_455, 268_435_460)
        );
    }
}

#[test]
fn what_version_5_adds_is_refused_in_version_4() {
    for bytes in [[0x40, 0x03].as_slice(), &[0x62, 0x04], &[0xe0, 0x01], &[0xf0, 0x00]] {
        assert!(header(bytes, Some(Version::V4)).is_err(), "{bytes:02x?}");
        assert!(header(bytes, Some(Version::V5)).unwrap().is_some(), "{bytes:02x?}");
    }
    let huge = header(&[0x40, 0xff, 0xff, 0x7f], Some(Version::V5));
    assert_eq!(huge.unwrap_err().reason, Reason::PACKET_TOO_LARGE);
}

#[test]
fn a_connect_of_version_4_with_all_fields_is_read() {
    let body = connect_body(4, 0xee, b"\0\x02id\0\x01w\0\x02\x01\x02\0\x01u\0\x01p");
    let read = connect(&body).unwrap();
    assert_eq!(read.version, Version::V4);
    assert_eq!((read.client_id.as_str(), read.clean_start, read.keep_alive_seconds), ("id", true, 60));
    assert_eq!((read.username.as_deref(), read.password.as_deref()), (Some("u"), Some(b"p".as_slice())));
    assert_eq!(read.properties, ConnectProperties::default());
    let will = read.will.unwrap();
    assert_eq!((will.topic.as_str(), &*will.payload), ("w", [1, 2].as_slice()));
    assert_eq!((will.qos, will.retain, will.delay_seconds), (Qos::AtLeastOnce, true, 0));
    assert_eq!(will.properties, MessageProperties::default());
}

#[test]
fn a_connect_of_version_5_with_all_fields_is_read() {
    let properties =
        b"\x1d\x11\0\0\0\x07\x21\0\x08\x27\0\0\x10\0\x22\0\x09\x17\x00\x19\x01\x15\0\x01m\x26\0\x00\0\x00";
    let will = b"\x12\x18\0\0\0\x03\x01\x01\x02\0\0\0\x05\x26\0\x01k\0\x00\0\x01w\0\x01x";
    let body = connect_body(5, 0x54, &[properties.as_slice(), b"\0\x02id", will, b"\0\x01p"].concat());
    let read = connect(&body).unwrap();
    assert_eq!(
        read,
        Connect {
            version: Version::V5,
            client_id: "id".into(),
            clean_start: false,
            keep_alive_seconds: 60,
            username: None,
            password: Some(b"p".to_vec()),
            will: Some(Will {
                topic: "w".into(),
                payload: Bytes::from_static(b"x"),
                qos: Qos::ExactlyOnce,
                retain: false,
                delay_seconds: 3,
                properties: MessageProperties {
                    expiry_seconds: Some(5),
                    carried: Bytes::from_static(b"\x01\x01\x26\0\x01k\0\0"),
                },
            }),
            properties: ConnectProperties {
                session_expiry_seconds: 7,
                receive_max: NonZeroU16::new(8),
                packet_bytes_max: NonZeroU32::new(4096),
                topic_alias_max: 9,
                authentication_method: Some("m".into()),
            },
        }
    );
}

#[test]
fn an_empty_user_name_is_none_and_the_fields_after_it_are_read() {
    // As MQTT Explorer and MQTTX send it: the flag is set, the name is empty.
    let read = connect(b"\0\x04MQTT\x04\x82\0\x3c\0\x05d-100\0\0").unwrap();
    assert_eq!((read.client_id.as_str(), read.username, read.password), ("d-100", None, None));
    let read = connect(b"\0\x04MQTT\x04\xc2\0\x3c\0\0\0\0\0\x01p").unwrap();
    assert_eq!((read.username, read.password), (None, Some(b"p".to_vec())));
}

#[test]
fn mqtt_3_1_is_read_like_3_1_1() {
    let older = connect(b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01x").unwrap();
    let newer = connect(b"\0\x04MQTT\x04\x02\0\x3c\0\x01x").unwrap();
    assert_eq!(older, newer);
}

#[test]
fn another_version_is_told_apart_from_garbage() {
    assert_eq!(connect(&connect_body(6, 2, b"\0\0\0")), Err(BadConnect::Version(Version::V5)));
    assert_eq!(connect(b"\0\x06MQIsdp\x04\x02\0\x3c\0\0"), Err(BadConnect::Version(Version::V4)));
    for garbage in [b"\0\x04HTTP\x04\x02\0\x3c\0\0".as_slice(), b"", b"\0\x04MQ", b"\0\x04MQTT"] {
        assert!(matches!(connect(garbage), Err(BadConnect::Malformed(Version::V4, _))), "{garbage:02x?}");
    }
}

#[test]
fn a_malformed_connect_says_which_form_its_answer_has() {
    let (v4, v5) = (connect(&connect_body(4, 3, b"\0\0")), connect(&connect_body(5, 3, b"\0\0\0")));
    assert!(matches!(v4, Err(BadConnect::Malformed(Version::V4, _))));
    assert!(matches!(v5, Err(BadConnect::Malformed(Version::V5, _))));
}

#[test]
fn the_head_of_a_publish_is_read_as_soon_as_it_is_there() {
    let v4 = b"\0\x01t\x01\x02body";
    let v5 = b"\0\x01t\x01\x02\x0d\x02\0\0\0\x09\x01\x01\x23\0\x04\x09\0\0body";
    for (version, bytes, head_bytes) in [(Version::V4, v4.as_slice(), 5), (Version::V5, v5, 19)] {
        for count in 0..head_bytes {
            let read = publish_head(version, bytes.len(), Qos::AtLeastOnce, &bytes[..count]);
            assert_eq!(read, Ok(None), "{version:?} {count}");
        }
        let read = head(version, Qos::AtLeastOnce, bytes).unwrap().unwrap();
        assert_eq!((read.topic, read.packet_id, read.head_bytes), ("t", 0x0102, head_bytes));
    }
    let read = head(Version::V5, Qos::AtLeastOnce, v5).unwrap().unwrap();
    assert_eq!(read.alias, NonZeroU16::new(4));
    assert_eq!(read.properties.expiry_seconds, Some(9));
    assert_eq!(&*read.properties.carried, b"\x01\x01\x09\0\0");
}

#[test]
fn a_publish_without_a_topic_needs_an_alias() {
    let read = head(Version::V5, Qos::AtMostOnce, b"\0\0\x03\x23\0\x01").unwrap().unwrap();
    assert_eq!((read.topic, read.alias), ("", NonZeroU16::new(1)));
    assert_eq!(head(Version::V5, Qos::AtMostOnce, b"\0\0\0").unwrap_err().reason, Reason::PROTOCOL_ERROR);
    assert!(head(Version::V4, Qos::AtMostOnce, b"\0\0\0").is_err());
}

#[test]
fn a_head_that_lies_about_its_length_is_refused_before_it_arrives() {
    let refused = |version, body_bytes, bytes: &[u8]| {
        publish_head(version, body_bytes, Qos::AtMostOnce, bytes).unwrap_err().reason
    };
    assert_eq!(refused(Version::V4, 10, b"\0\x09"), Reason::MALFORMED_PACKET);
    assert_eq!(refused(Version::V5, 11, b"\0\x09"), Reason::MALFORMED_PACKET);
    assert_eq!(refused(Version::V5, 100, b"\0\x01t\x7f"), Reason::MALFORMED_PACKET);
    assert_eq!(refused(Version::V5, 1 << 20, b"\0\x01t\x81\x80\x04"), Reason::PACKET_TOO_LARGE);
    assert_eq!(refused(Version::V5, 100, b"\0\x01t\x80\x00"), Reason::MALFORMED_PACKET);
}

#[test]
fn subscriptions_are_read_with_their_options() {
    let plain = |qos| SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let v4 = subscribe(Version::V4, b"\0\x01\0\x03a/+\x01\0\x01#\x02").unwrap();
    assert_eq!((v4.packet_id, v4.subscription_id), (1, None));
    assert_eq!(v4.filters[0], Asked { filter: "a/+", options: plain(Qos::AtLeastOnce) });
    assert_eq!(v4.filters[1], Asked { filter: "#", options: plain(Qos::ExactlyOnce) });
    let v5 = subscribe(Version::V5, b"\0\x01\x03\x0b\x80\x01\0\x01a\x2d").unwrap();
    assert_eq!(v5.subscription_id, NonZeroU32::new(128));
    let options = SubscribeOptions {
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
    };
    assert_eq!(v5.filters, [Asked { filter: "a", options }]);
    assert_eq!(unsubscribe(Version::V4, b"\0\x02\0\x01a").unwrap().filters, ["a"]);
    assert_eq!(unsubscribe(Version::V5, b"\0\x02\0\0\x01a\0\x01b").unwrap().filters, ["a", "b"]);
}

#[test]
fn a_shared_subscription_is_taken_apart() {
    let name_and_filter = |filter| Shared::parse(filter).map(|shared| (shared.group, shared.filter));
    assert_eq!(name_and_filter("$share/n/a/#"), Some(("n", "a/#")));
    assert_eq!(name_and_filter("$share/n//a"), Some(("n", "/a")));
    assert_eq!(name_and_filter("share/n/a"), None);
    for filter in ["$share/n", "$share//a", "$share/+/a", "$share/n/", "$share/n/a#", "$share/"] {
        let body = [b"\0\x01\0", [filter.len() as u8].as_slice(), filter.as_bytes(), b"\0"].concat();
        assert!(subscribe(Version::V4, &body).is_err(), "{filter}");
    }
}

#[test]
fn a_packet_has_a_limited_number_of_filters() {
    let body = |count| [b"\0\x01\0".to_vec(), b"\0\x01a".repeat(count)].concat();
    assert_eq!(unsubscribe(Version::V5, &body(1000)).unwrap().filters.len(), 1000);
    assert_eq!(unsubscribe(Version::V5, &body(1001)).unwrap_err().reason, Reason::QUOTA_EXCEEDED);
}

#[test]
fn acknowledgements_are_read_with_their_reasons() {
    for version in VERSIONS {
        let read = ack(version, Kind::PubAck, b"\0\x07").unwrap();
        assert_eq!((read.packet_id, read.reason), (7, Reason::SUCCESS));
        assert!(ack(version, Kind::PubAck, b"\0\0").is_err());
        assert!(ack(version, Kind::PubAck, b"\0").is_err());
    }
    assert!(ack(Version::V4, Kind::PubAck, b"\0\x07\x10").is_err());
    let read = ack(Version::V5, Kind::PubRec, b"\0\x07\x87\x04\x1f\0\x01r").unwrap();
    assert_eq!(read.reason, Reason::NOT_AUTHORIZED);
    assert!(ack(Version::V5, Kind::PubRel, b"\0\x07\x87").is_err());
}

#[test]
fn a_disconnect_is_read_with_its_reason() {
    let read = disconnect(Version::V5, b"\x04\x05\x11\0\0\0\x09").unwrap();
    assert_eq!((read.reason, read.session_expiry_seconds), (Reason(0x04), Some(9)));
    for version in VERSIONS {
        assert_eq!(disconnect(version, b"").unwrap().reason, Reason::NORMAL_DISCONNECTION);
    }
    assert!(disconnect(Version::V4, b"\0").is_err());
    assert!(disconnect(Version::V5, b"\x8b").is_err());
}

#[test]
fn answers_have_the_form_of_the_version() {
    let written = |put: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        put(&mut out);
        out.to_vec()
    };
    let none = ConnackProperties::default();
    let (v4, v5) = (Version::V4, Version::V5);
    let refused = ConnectCode::Refused(Reason::SERVER_BUSY);
    for (expected, bytes) in [
        (
            [0x20, 2, 1, 0].as_slice(),
            written(&|out| put_connack(out, v4, ConnectCode::Accepted, true, &none)),
        ),
        (&[0x20, 2, 0, 5], written(&|out| put_connack(out, v4, ConnectCode::NotAuthorized, true, &none))),
        (&[0x20, 2, 0, 3], written(&|out| put_connack(out, v4, refused, false, &none))),
        (&[0x20, 3, 1, 0, 0], written(&|out| put_connack(out, v5, ConnectCode::Accepted, true, &none))),
        (&[0x20, 3, 0, 0x89, 0], written(&|out| put_connack(out, v5, refused, true, &none))),
        (&[0x40, 2, 1, 2], written(&|out| put_puback(out, v4, 0x0102, Reason::NOT_AUTHORIZED))),
        (&[0x40, 3, 1, 2, 0x87], written(&|out| put_puback(out, v5, 0x0102, Reason::NOT_AUTHORIZED))),
        (&[0x50, 2, 1, 2], written(&|out| put_pubrec(out, v5, 0x0102, Reason::SUCCESS))),
        (&[0x62, 2, 1, 2], written(&|out| put_pubrel(out, v5, 0x0102, Reason::SUCCESS))),
        (&[0x70, 3, 1, 2, 0x92], written(&|out| put_pubcomp(out, v5, 0x0102, Reason::PACKET_ID_NOT_FOUND))),
        (&[0x90, 4, 0, 1, 2, 0x80], written(&|out| put_suback(out, v4, 1, &[2, 0x87]))),
        (&[0x90, 5, 0, 1, 0, 2, 0x87], written(&|out| put_suback(out, v5, 1, &[2, 0x87]))),
        (&[0xb0, 2, 0, 1], written(&|out| put_unsuback(out, v4, 1, &[Reason::SUCCESS]))),
        (&[0xb0, 4, 0, 1, 0, 0x11], written(&|out| put_unsuback(out, v5, 1, &[Reason(0x11)]))),
        (&[0xd0, 0], written(&|out| put_pingresp(out))),
        (
            &[0xe0, 6, 0x8b, 4, 0x1f, 0, 1, b'x'],
            written(&|out| put_disconnect(out, Reason::SERVER_SHUTTING_DOWN, "x", 8)),
        ),
    ] {
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_connack_says_what_the_door_can_do() {
    let properties = ConnackProperties {
        session_expiry_seconds: Some(1),
        receive_max: Some(2),
        packet_bytes_max: Some(3),
        assigned_client_id: Some("id"),
        topic_alias_max: 4,
        server_keep_alive_seconds: Some(5),
    };
    let mut out = BytesMut::new();
    put_connack(&mut out, Version::V5, ConnectCode::Accepted, false, &properties);
    let expected = b"\x20\x1b\0\0\x18\x11\0\0\0\x01\x21\0\x02\x27\0\0\0\x03\x12\0\x02id\x22\0\x04\x13\0\x05";
    assert_eq!(&*out, expected);
}

#[test]
fn a_message_has_the_form_of_the_version() {
    let ids = [NonZeroU32::new(1).unwrap(), NonZeroU32::new(128).unwrap()];
    let alias = NonZeroU16::new(6).unwrap();
    let full = Outgoing {
        alias: Some((alias, true)),
        qos: Qos::ExactlyOnce,
        packet_id: 9,
        dup: true,
        retain: true,
        expiry_seconds: Some(7),
        carried: b"\x01\x01",
        subscription_ids: &ids,
        ..message()
    };
    for (version, publish, expected) in [
        (Version::V4, full, b"\x3d\x0e\0\x03a/b\0\x09payload".as_slice()),
        (
            Version::V5,
            full,
            b"\x3d\x1b\0\0\0\x09\x0f\x23\0\x06\x02\0\0\0\x07\x0b\x01\x0b\x80\x01\x01\x01payload",
        ),
        (
            Version::V5,
            Outgoing { alias: Some((alias, false)), ..message() },
            b"\x30\x10\0\x03a/b\x03\x23\0\x06payload",
        ),
        (Version::V5, message(), b"\x30\x0d\0\x03a/b\0payload"),
    ] {
        let mut out = BytesMut::new();
        put_publish(&mut out, version, &publish);
        assert_eq!(out, expected, "{version:?} {publish:?}");
        assert_eq!(publish_bytes(version, &publish), out.len());
    }
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V5)]
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        version in versions(),
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..64),
    ) {
        let _ = (header(&bytes, None), header(&bytes, Some(version)));
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let _ = (head(version, qos, &bytes), publish_head(version, 1 << 20, qos, &bytes));
        }
        let _ = (subscribe(version, &bytes), unsubscribe(version, &bytes), disconnect(version, &bytes));
        let _ = (ack(version, Kind::PubAck, &bytes), ack(version, Kind::PubRel, &bytes), connect(&bytes));
        let flags = bytes.first().copied().unwrap_or(0);
        let _ = (connect(&connect_body(4, flags, &bytes)), connect(&connect_body(5, flags, &bytes)));
    }

    #[test]
    fn a_message_that_is_written_can_be_read(
        version in versions(),
        topic in "[a-z/]{1,20}",
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        packet_id in 1..=u16::MAX,
        retain in any::<bool>(),
        expiry_seconds in any::<Option<u32>>(),
    ) {
        let publish = Outgoing {
            topic: &topic,
            payload: &payload,
            qos: Qos::AtLeastOnce,
            packet_id,
            retain,
            expiry_seconds,
            carried: b"\x03\0\x01t",
            ..message()
        };
        let mut out = BytesMut::new();
        put_publish(&mut out, version, &publish);
        let header = header(&out, Some(version)).unwrap().unwrap();
        prop_assert_eq!(header.kind, Kind::Publish { dup: false, qos: Qos::AtLeastOnce, retain });
        prop_assert_eq!(header.frame_bytes(), out.len());
        let body = &out[header.header_bytes..];
        let head = head(version, Qos::AtLeastOnce, body).unwrap().unwrap();
        prop_assert_eq!((head.topic, head.packet_id), (topic.as_str(), packet_id));
        prop_assert_eq!(&body[head.head_bytes..], payload.as_slice());
        if version == Version::V5 {
            prop_assert_eq!(head.properties.expiry_seconds, expiry_seconds);
            prop_assert_eq!(&*head.properties.carried, publish.carried);
        }
    }
}
