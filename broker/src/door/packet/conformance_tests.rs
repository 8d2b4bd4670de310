//! The normative statements of both specifications that a single packet can break or keep, one test each, named by
//! number: `v4` is 3.1.1, `v5` is 5.0.

#[path = "../../../tests/it/notation.rs"]
mod notation;

mod v4;
mod v5;

use bytes::BytesMut;
use notation::bytes;

use super::*;

/// Controls beside U+0000, and code points that are no characters, as texts.
const BARRED_TEXTS: [&str; 8] = [
    "0001 01",
    "0001 1f",
    "0001 7f",
    "0002 c280",
    "0002 c29f",
    "0003 efb790",
    "0003 efbfbf",
    "0004 f09fbfbe",
];

/// Reads a whole packet as the door does, and says what is wrong with it.
fn judge(version: Version, packet: &[u8]) -> Result<(), Malformed> {
    let known = if packet.first() == Some(&0x10) { None } else { Some(version) };
    let header = header(packet, known)?.expect("the test has a whole header");
    let body = &packet[header.header_bytes..];
    assert_eq!(body.len(), header.body_bytes, "the test has a whole packet: {packet:02x?}");
    match header.kind {
        Kind::Connect => match connect(body) {
            Ok(connect) => assert_eq!(connect.version, version),
            Err(BadConnect::Malformed(answered_as, malformed)) => {
                assert_eq!(answered_as, version);
                return Err(malformed);
            }
            Err(BadConnect::Version(_)) => panic!("the test has no other version"),
        },
        Kind::Publish { qos, .. } => {
            publish_head(version, body.len(), qos, body)?.expect("the test has a whole head");
        }
        Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => {
            ack(version, header.kind, body)?;
        }
        Kind::Subscribe => drop(subscribe(version, body)?),
        Kind::Unsubscribe => drop(unsubscribe(version, body)?),
        Kind::Disconnect => drop(disconnect(version, body)?),
        Kind::PingReq | Kind::Auth => {}
    }
    Ok(())
}

/// Every packet is accepted.
fn accept(version: Version, packets: &[&str]) {
    for packet in packets {
        assert_eq!(judge(version, &bytes(packet)), Ok(()), "{packet}");
    }
}

/// Every packet is refused for that reason.
fn refuse(version: Version, reason: Reason, packets: &[&str]) {
    for packet in packets {
        let refused = judge(version, &bytes(packet)).map_err(|malformed| malformed.reason);
        assert_eq!(refused, Err(reason), "{packet}");
    }
}

/// A CONNECT that was accepted.
fn connected(packet: &str) -> Connect {
    let packet = bytes(packet);
    let header = header(&packet, None).unwrap().unwrap();
    connect(&packet[header.header_bytes..]).unwrap()
}

/// The topic of a PUBLISH at QoS 0, and its payload.
fn published(version: Version, packet: &str) -> (String, Vec<u8>) {
    let packet = bytes(packet);
    let body = &packet[header(&packet, Some(version)).unwrap().unwrap().header_bytes..];
    let head = publish_head(version, body.len(), Qos::AtMostOnce, body).unwrap().unwrap();
    (head.topic.to_owned(), body[head.head_bytes..].to_vec())
}

/// What a writer puts.
fn written(put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out);
    out.to_vec()
}

/// Every code an answer to a CONNECT may have.
const CONNECT_CODES: [ConnectCode; 7] = [
    ConnectCode::Version,
    ConnectCode::ClientId,
    ConnectCode::Unavailable,
    ConnectCode::NotAuthorized,
    ConnectCode::Refused(Reason::SERVER_BUSY),
    ConnectCode::Refused(Reason::QUOTA_EXCEEDED),
    ConnectCode::Refused(Reason::MALFORMED_PACKET),
];

/// Ill-formed UTF-8: a lone continuation, an overlong form, a surrogate, and a code point beyond the last.
const ILL_FORMED: [&str; 4] = ["0001 80", "0002 c0af", "0003 eda080", "0004 f4908080"];

/// Every packet with one of `fields` in the place of `@`.
fn with(packets: &[&str], fields: &[&str]) -> Vec<String> {
    packets.iter().flat_map(|packet| fields.iter().map(|field| packet.replace('@', field))).collect()
}

fn strs(packets: &[String]) -> Vec<&str> {
    packets.iter().map(String::as_str).collect()
}

/// A message of which a test changes what it is about.
const OUTGOING: Outgoing<'static> = Outgoing {
    topic: "a",
    alias: None,
    payload: b"",
    qos: Qos::AtMostOnce,
    packet_id: 0,
    dup: false,
    retain: false,
    expiry_seconds: None,
    carried: b"",
    subscription_ids: &[],
};
