//! Arbitrary bytes for the codec: no reader panics, and what is read from them can be written and read again.

use bytes::BytesMut;

use crate::door::packet::{self, Ack, Kind, Outgoing, Reason, Version, publish_bytes, put_publish};
use crate::message::Qos;

/// The first byte chooses the version and a QoS; the others are read as a stream of packets, and as each kind of body.
pub fn codec(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let version = if choice & 1 == 0 { Version::V4 } else { Version::V5 };
    let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(choice >> 1) % 3];
    read_stream(version, bytes);
    read_header(None, bytes);
    read_publish(version, qos, bytes);
    for kind in
        [Kind::Connect, Kind::PubAck, Kind::PubRel, Kind::Subscribe, Kind::Unsubscribe, Kind::Disconnect]
    {
        read_body(version, kind, bytes);
    }
    if let Some(field) = bytes.first_chunk::<3>() {
        write_ack(version, u16::from_be_bytes([field[0], field[1]]), Reason(field[2]));
    }
}

/// Reads packet after packet, as a connection does.
fn read_stream(version: Version, mut bytes: &[u8]) {
    while let Some((kind, body_bytes, after_header)) = read_header(Some(version), bytes) {
        let body = &after_header[..body_bytes.min(after_header.len())];
        if let Kind::Publish { qos, .. } = kind {
            if let Ok(Some(head)) = packet::publish_head(version, body_bytes, qos, body) {
                assert!(head.head_bytes <= body_bytes, "a head lies within its packet");
            }
        } else {
            read_body(version, kind, body);
        }
        bytes = &after_header[body.len()..];
    }
}

/// Reads a header, and checks that it is the same whether more bytes follow or not.
fn read_header(version: Option<Version>, bytes: &[u8]) -> Option<(Kind, usize, &[u8])> {
    let header = packet::header(bytes, version).ok().flatten()?;
    assert_eq!(packet::header(&bytes[..header.header_bytes], version), Ok(Some(header)));
    assert_eq!(packet::header(&bytes[..header.header_bytes - 1], version), Ok(None));
    Some((header.kind, header.body_bytes, &bytes[header.header_bytes..]))
}

fn read_body(version: Version, kind: Kind, body: &[u8]) {
    match kind {
        Kind::Connect => {
            if let Ok(connect) = packet::connect(body) {
                assert!(!connect.client_id.contains('\0'), "no text has a NUL");
            }
        }
        Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => {
            let _ = packet::ack(version, kind, body);
        }
        Kind::Subscribe => {
            if let Ok(subscribe) = packet::subscribe(version, body) {
                assert!(!subscribe.filters.is_empty() && subscribe.filters.len() <= 1000);
                for asked in subscribe.filters {
                    let is_shared = asked.filter.starts_with("$share/");
                    assert!(!is_shared || asked.filter.matches('/').count() >= 2, "{}", asked.filter);
                    assert!(!is_shared || !asked.options.no_local, "{}", asked.filter);
                }
            }
        }
        Kind::Unsubscribe => {
            if let Ok(unsubscribe) = packet::unsubscribe(version, body) {
                assert!(!unsubscribe.filters.is_empty() && unsubscribe.filters.len() <= 1000);
            }
        }
        Kind::Disconnect => {
            let _ = packet::disconnect(version, body);
        }
        Kind::Publish { .. } | Kind::PingReq | Kind::Auth => {}
    }
}

/// Reads the body of a PUBLISH, whole and in part, then sends the message on and reads it again.
fn read_publish(version: Version, qos: Qos, body: &[u8]) {
    let Ok(Some(head)) = packet::publish_head(version, body.len(), qos, body) else { return };
    let head_bytes = head.head_bytes;
    let read = |count: usize| packet::publish_head(version, body.len(), qos, &body[..count]);
    assert_eq!(read(head_bytes - 1), Ok(None));
    assert_eq!(read(head_bytes / 2), Ok(None));
    assert_eq!(read(head_bytes), Ok(Some(head.clone())));
    let publish = Outgoing {
        topic: head.topic,
        alias: head.alias.map(|alias| (alias, head.topic.is_empty())),
        payload: &body[head_bytes..],
        qos,
        packet_id: head.packet_id,
        dup: false,
        retain: false,
        expiry_seconds: head.properties.expiry_seconds,
        carried: &head.properties.carried,
        subscription_ids: &[],
    };
    let mut out = BytesMut::new();
    put_publish(&mut out, version, &publish);
    assert_eq!(out.len(), publish_bytes(version, &publish));
    let header = packet::header(&out, Some(version)).expect("what is written is valid").expect("and whole");
    assert_eq!(header.frame_bytes(), out.len());
    let written = &out[header.header_bytes..];
    let again = packet::publish_head(version, written.len(), qos, written);
    let again = again.expect("what is written is valid").expect("and whole");
    assert_eq!((again.topic, again.packet_id, again.alias), (head.topic, head.packet_id, head.alias));
    assert_eq!(again.properties, head.properties);
    assert_eq!(&written[again.head_bytes..], publish.payload);
}

fn write_ack(version: Version, packet_id: u16, reason: Reason) {
    let mut out = BytesMut::new();
    packet::put_puback(&mut out, version, packet_id, reason);
    let header = packet::header(&out, Some(version)).expect("what is written is valid").expect("and whole");
    if let Ok(ack) = packet::ack(version, header.kind, &out[header.header_bytes..]) {
        let reason = if version == Version::V4 { Reason::SUCCESS } else { reason };
        assert_eq!(ack, Ack { packet_id, reason });
    }
}
