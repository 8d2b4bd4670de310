//! MQTT in WebSockets: who gets one, and what may pass through it.

use std::time::Duration;

use broker::{DoorSettings, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::{Hello, Raw, puback, publish};
use crate::support::{OpenDoor, open, settings, until};

const MASK: [u8; 4] = [1, 2, 3, 4];
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn with_websocket() -> DoorSettings {
    DoorSettings { listen_ws: Some(([127, 0, 0, 1], 0).into()), ..settings() }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let payload = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | length].into_iter().chain(MASK).chain(payload).collect()
}

/// Sends a request and says the head of the answer.
async fn ask(door: &OpenDoor, request: &str) -> (Raw, String) {
    let address = door.door.addresses().ws.unwrap();
    let mut raw = Raw(TcpStream::connect(address).await.unwrap());
    // The door may close in the middle of it.
    drop(raw.0.write_all(request.as_bytes()).await);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match raw.0.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (raw, String::from_utf8(head).unwrap())
}

async fn upgraded(door: &OpenDoor) -> Raw {
    let (raw, head) = ask(door, &format!("{REQUEST}Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    raw
}

#[tokio::test]
async fn packets_and_frames_need_not_begin_together() {
    let (door, mut arrivals) = open(with_websocket()).await;
    let mut raw = upgraded(&door).await;
    let packets = [Hello::named("w").packet(), publish("iot/x", b"21.5", 1, 7, false)].concat();
    // The first frame ends inside CONNECT, the second one holds the rest and both ends of the PUBLISH come one by one.
    raw.send(&masked(0x82, &packets[..5])).await;
    raw.send(&masked(0x82, &packets[5..packets.len() - 2])).await;
    raw.expect(&[0x82, 4, 0x20, 2, 0, 0]).await;
    raw.send(&masked(0x02, &packets[packets.len() - 2..packets.len() - 1])).await;
    raw.send(&masked(0x89, b"hi")).await;
    raw.expect(&[0x8a, 2, b'h', b'i']).await;
    raw.send(&masked(0x80, &packets[packets.len() - 1..])).await;
    let delivery = arrivals.next().await;
    assert_eq!(&delivery.payload[..], b"21.5");
    delivery.done();
    raw.expect(&[[0x82, 4].as_slice(), &puback(7)].concat()).await;
    raw.send(&masked(0x82, &[0xe0, 0])).await;
    assert_eq!(raw.rest().await, [0x88, 2, 0x03, 0xe8]);
}

#[tokio::test]
async fn whoever_does_not_ask_for_mqtt_gets_an_answer_and_no_websocket() {
    let (door, _arrivals) = open(DoorSettings {
        ws_allowed_origins: vec!["https://barn.example".to_owned()],
        ..with_websocket()
    })
    .await;
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let cases = [
        (format!("{REQUEST}\r\n"), "HTTP/1.1 400 "),
        (format!("{REQUEST}Sec-WebSocket-Protocol: mqttv3.1\r\n\r\n"), "HTTP/1.1 400 "),
        (format!("{}{mqtt}\r\n", REQUEST.replace("/mqtt", "/")), "HTTP/1.1 404 "),
        (format!("{}{mqtt}\r\n", REQUEST.replace("/mqtt", "/mqtt/x")), "HTTP/1.1 404 "),
        (format!("{REQUEST}{mqtt}Origin: https://elsewhere.example\r\n\r\n"), "HTTP/1.1 403 "),
        (format!("{REQUEST}{mqtt}Origin: https://barn.example\r\n\r\n"), "HTTP/1.1 101 "),
        (format!("{REQUEST}{mqtt}\r\n"), "HTTP/1.1 101 "),
        ("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), ""),
        ("\u{10}\u{e}\0\u{4}MQTT\u{4}\u{2}\0\u{3c}\0\u{2}ab\r\n\r\n".to_owned(), ""),
        (format!("{REQUEST}{mqtt}X: {}\r\n\r\n", "x".repeat(70_000)), ""),
    ];
    let mut refused = 0;
    for (request, expected) in cases {
        let (raw, head) = ask(&door, &request).await;
        assert!(
            head.starts_with(expected) && head.is_empty() == expected.is_empty(),
            "{head:?} for {request:.300}"
        );
        if !expected.contains("101") {
            refused += 1;
            drop(raw.rest().await);
        }
        until("it is counted", || door.door.stats().refused(Refusal::Upgrade) == refused).await;
    }
}

#[tokio::test]
async fn a_frame_of_text_ends_the_connection() {
    let (door, _arrivals) = open(with_websocket()).await;
    let mut raw = upgraded(&door).await;
    raw.send(&masked(0x82, &Hello::named("w").packet())).await;
    raw.expect(&[0x82, 4, 0x20, 2, 0, 0]).await;
    raw.send(&masked(0x81, b"hello")).await;
    assert_eq!(raw.rest().await, [0x88, 2, 0x03, 0xeb]);
    until("it is gone", || door.door.stats().connections() == 0).await;
}

#[tokio::test]
async fn who_never_asks_or_never_connects_is_not_waited_for() {
    let connect_timeout = Duration::from_millis(300);
    let (door, _arrivals) = open(DoorSettings { connect_timeout, ..with_websocket() }).await;
    let mut silent = Raw(TcpStream::connect(door.door.addresses().ws.unwrap()).await.unwrap());
    silent.0.write_all(&REQUEST.as_bytes()[..40]).await.unwrap();
    assert_eq!(silent.rest().await, b"");
    assert_eq!(door.door.stats().refused(Refusal::Upgrade), 1);
    let mut late = upgraded(&door).await;
    late.send(&masked(0x82, &Hello::named("w").packet()[..8])).await;
    drop(late.rest().await);
    assert_eq!(door.door.stats().connections(), 0);
}
