//! What the codec accepts and refuses, byte by byte.

use proptest::prelude::*;

use super::*;

fn refused_header(bytes: &[u8]) {
    assert!(header(bytes).is_err(), "{bytes:02x?}");
}

fn connect_body(level: u8, flags: u8, fields: &[u8]) -> Vec<u8> {
    [b"\0\x04MQTT".as_slice(), &[level, flags, 0, 60], fields].concat()
}

fn refused_connect(body: &[u8]) {
    assert!(matches!(connect(body), Err(BadConnect::Malformed(_))), "{body:02x?}");
}

#[test]
fn a_fixed_header_is_judged_before_its_body_arrives() {
    assert_eq!(header(&[]), Ok(None));
    assert_eq!(header(&[0x30]), Ok(None));
    assert_eq!(header(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
    let largest = header(&[0x30, 0xff, 0xff, 0xff, 0x7f]).unwrap().unwrap();
    assert_eq!((largest.header_bytes, largest.body_bytes), (5, 268_435_455));
    for bytes in [
        [0x00, 0x00].as_slice(),
        &[0xf0, 0x00],
        &[0x20, 0x02],
        &[0x36, 0x05],
        &[0x38, 0x05],
        &[0x41, 0x02],
        &[0x50, 0x02],
        &[0x60, 0x02],
        &[0x70, 0x02],
        &[0x80, 0x05],
        &[0x90, 0x03],
        &[0xa0, 0x05],
        &[0xc1, 0x00],
        &[0xc0, 0x01],
        &[0xd0, 0x00],
        &[0xe0, 0x01],
        &[0x40, 0x03],
        &[0x62, 0x01],
        &[0x30, 0x02],
        &[0x30, 0xff, 0xff, 0xff, 0xff],
    ] {
        refused_header(bytes);
    }
}

#[test]
fn a_connect_with_all_fields_is_read() {
    let body = connect_body(4, 0xee, b"\0\x02id\0\x01w\0\x02\x01\x02\0\x01u\0\x01p");
    assert_eq!(
        connect(&body),
        Ok(Connect {
            client_id: "id".into(),
            clean_session: true,
            keep_alive_seconds: 60,
            username: Some("u".into()),
            password: Some(b"p".to_vec()),
            will: Some(Will {
                topic: "w".into(),
                payload: Bytes::from_static(&[1, 2]),
                qos: Qos::AtLeastOnce,
                retain: true,
            }),
        })
    );
}

#[test]
fn another_version_is_told_apart_from_garbage() {
    assert_eq!(connect(&connect_body(5, 2, b"\0\0\0")), Err(BadConnect::Version));
    assert_eq!(connect(b"\0\x06MQIsdp\x03\x02\0\x3c\0\0"), Err(BadConnect::Version));
    refused_connect(b"\0\x04HTTP\x04\x02\0\x3c\0\0");
}

#[test]
fn a_malformed_connect_is_refused() {
    for (flags, fields) in [
        (0x03, b"\0\0".as_slice()),
        (0x42, b"\0\0\0\x01p"),
        (0x22, b"\0\0"),
        (0x0a, b"\0\0"),
        (0x1e, b"\0\0\0\x01w\0\0"),
        (0x06, b"\0\0\0\0\0\0"),
        (0x06, b"\0\0\0\x01#\0\0"),
        (0x06, b"\0\0"),
        (0x82, b"\0\0"),
        (0x02, b"\0\x05id"),
        (0x02, b"\0\0extra"),
        (0x02, b"\0\x01\0"),
        (0x02, b"\0\x02\xc3\x28"),
        (0x02, b"\0\x03\xed\xa0\x80"),
    ] {
        refused_connect(&connect_body(4, flags, fields));
    }
    refused_connect(b"");
    refused_connect(b"\0\x04MQ");
}

#[test]
fn a_publish_is_judged_by_its_head() {
    let head = |bytes: &'static [u8], qos| publish_head(bytes.len(), qos, bytes);
    let read = head(b"\0\x01t\x01\x02body", Qos::AtLeastOnce).unwrap().unwrap();
    assert_eq!((read.topic, read.packet_id, read.head_bytes), ("t", 0x0102, 5));
    for (bytes, qos) in [
        (b"\0\0xx".as_slice(), Qos::AtMostOnce),
        (b"\0\x01+", Qos::AtMostOnce),
        (b"\0\x01\0", Qos::AtMostOnce),
        (b"\0\x02\xff\xfe", Qos::AtMostOnce),
        (b"\0\x09t", Qos::AtMostOnce),
        (b"\0\x01t\0\0", Qos::AtLeastOnce),
        (b"\0\x01t", Qos::AtLeastOnce),
    ] {
        assert!(head(bytes, qos).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn subscriptions_are_checked_filter_by_filter() {
    assert_eq!(
        subscribe(b"\0\x01\0\x03a/+\x01\0\x01#\x02"),
        Ok((1, vec![("a/+", Qos::AtLeastOnce), ("#", Qos::ExactlyOnce)]))
    );
    for body in [
        b"\0\x01".as_slice(),
        b"\0\0\0\x01a\0",
        b"\0\x01\0\x01a",
        b"\0\x01\0\x01a\x03",
        b"\0\x01\0\0\0",
        b"\0\x01\0\x02a+\0",
        b"\0\x01\0\x01\0\0",
    ] {
        assert!(subscribe(body).is_err(), "{body:02x?}");
    }
    assert_eq!(unsubscribe(b"\0\x02\0\x01a"), Ok((2, vec!["a"])));
    assert!(unsubscribe(b"\0\x02").is_err());
}

#[test]
fn what_is_written_can_be_read() {
    let mut out = BytesMut::new();
    put_publish(&mut out, b"a/b", &[7; 300], Some(9), true);
    let header = header(&out).unwrap().unwrap();
    assert_eq!(header.kind, Kind::Publish { dup: false, qos: Qos::AtLeastOnce, retain: true });
    assert_eq!(header.frame_bytes(), out.len());
    let head =
        publish_head(header.body_bytes, Qos::AtLeastOnce, &out[header.header_bytes..]).unwrap().unwrap();
    assert_eq!((head.topic, head.packet_id), ("a/b", 9));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some(header)) = header(&bytes) {
            let body = &bytes[header.header_bytes..];
            if let Kind::Publish { qos, .. } = header.kind {
                let _ = publish_head(header.body_bytes, qos, body);
            }
        }
        let _ = (connect(&bytes), subscribe(&bytes), unsubscribe(&bytes), packet_id(&bytes));
        let _ = connect(&connect_body(4, bytes.first().copied().unwrap_or(0), &bytes));
    }
}
