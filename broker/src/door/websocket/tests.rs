//! Frames as clients cut them, honest ones and others.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::frames::{Fault, Frames, Heard};
use super::{FRAME_BYTES_MAX, WebSocket};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..=125 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        long @ ..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
        longest => {
            bytes.push(0x80 | 127);
            bytes.extend((longest as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What the frames hold when they come in pieces of this size.
fn unwrap_in_pieces(bytes: &[u8], piece_bytes: usize) -> Result<Vec<u8>, Fault> {
    let mut frames = Frames::default();
    let mut payload = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        let mut piece = piece.to_vec();
        match frames.take_apart(&mut piece) {
            Heard::Payload(count) => payload.extend_from_slice(&piece[..count]),
            Heard::Close(count) => {
                payload.extend_from_slice(&piece[..count]);
                return Ok(payload);
            }
            Heard::Fault(fault) => return Err(fault),
        }
    }
    Ok(payload)
}

fn pair() -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = duplex(1 << 20);
    (client, WebSocket::new(server))
}

proptest! {
    #[test]
    fn payloads_come_out_as_they_went_in_however_they_were_cut(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8),
        pings in proptest::collection::vec(any::<bool>(), 8),
        piece_bytes in 1_usize..400,
    ) {
        let mut bytes = Vec::new();
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            if pings[index] {
                bytes.extend(frame(0x89, b"are you there"));
            }
            let opcode = if index == 0 { 2 } else { 0 };
            let is_final = if index == last { 0x80 } else { 0 };
            bytes.extend(frame(is_final | opcode, part));
        }
        prop_assert_eq!(unwrap_in_pieces(&bytes, piece_bytes).unwrap(), parts.concat());
    }

    #[test]
    fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let length = bytes.len();
        match Frames::default().take_apart(&mut bytes) {
            Heard::Payload(count) | Heard::Close(count) => prop_assert!(count <= length),
            Heard::Fault(_) => {}
        }
    }
}

#[test]
fn a_frame_against_the_rules_is_named() {
    let unmasked = vec![0x82, 1, b'x'];
    let cases = [
        (frame(0x81, b"hello"), Fault::Text),
        (unmasked, Fault::Broken("not masked")),
        (frame(0xc2, b"x"), Fault::Broken("reserved bits")),
        (frame(0x83, b"x"), Fault::Broken("opcode")),
        (frame(0x8b, b"x"), Fault::Broken("opcode")),
        (frame(0x80, b"x"), Fault::Broken("the rest of no message")),
        ([frame(0x02, b"x"), frame(0x82, b"y")].concat(), Fault::Broken("a message inside another")),
        (frame(0x09, b"x"), Fault::Broken("a control frame that is long or in parts")),
        (frame(0x89, &[0; 126]), Fault::Broken("a control frame that is long or in parts")),
    ];
    for (bytes, fault) in cases {
        for piece_bytes in [1, bytes.len()] {
            assert_eq!(unwrap_in_pieces(&bytes, piece_bytes), Err(fault), "{bytes:02x?}");
        }
    }
}

#[test]
fn a_length_beyond_all_memory_allocates_nothing() {
    let mut bytes = vec![0x82, 0xff];
    bytes.extend(u64::MAX.to_be_bytes());
    bytes.extend(MASK);
    bytes.push(b'x' ^ MASK[0]);
    assert_eq!(unwrap_in_pieces(&bytes, 100).unwrap(), b"x");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_words() {
    let (mut client, mut socket) = pair();
    client.write_all(&[frame(0x89, b"hi"), frame(0x82, b"x")].concat()).await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x8a, 2, b'h', b'i']);
}

#[tokio::test]
async fn a_goodbye_ends_the_stream_and_is_answered() {
    let (mut client, mut socket) = pair();
    client
        .write_all(&[frame(0x82, b"x"), frame(0x88, &[0x03, 0xe8]), frame(0x82, b"y")].concat())
        .await
        .unwrap();
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"x");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x88, 2, 0x03, 0xe8]);
    assert!(socket.write_all(b"too late").await.is_err());
}

#[tokio::test]
async fn text_closes_with_the_code_for_it() {
    let (mut client, mut socket) = pair();
    client.write_all(&frame(0x81, b"hello")).await.unwrap();
    assert!(socket.read_u8().await.is_err());
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x88, 2, 0x03, 0xeb]);
}

#[tokio::test]
async fn what_is_written_arrives_in_binary_frames_even_through_a_narrow_stream() {
    let (mut client, server) = duplex(7);
    let mut socket = WebSocket::new(server);
    let sent: Vec<u8> = (0..2 * FRAME_BYTES_MAX + 100).map(|index| (index % 251) as u8).collect();
    let writing = async {
        socket.write_all(&sent).await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let reading = async {
        let mut raw = Vec::new();
        client.read_to_end(&mut raw).await.unwrap();
        raw
    };
    let ((), raw) = tokio::join!(writing, reading);
    let mut rest = raw.as_slice();
    let mut heard = Vec::new();
    while let [0x82, length, after @ ..] = rest {
        let (length, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            short => (usize::from(*short), after),
        };
        heard.extend_from_slice(&after[..length]);
        rest = &after[length..];
    }
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
    assert!(heard == sent);
}
