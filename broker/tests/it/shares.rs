//! What one client takes leaves enough for the next one, and what waits for a subscriber is never an old message.

use std::sync::Arc;

use broker::share::Budget;
use broker::{DoorSettings, QueueDrop, Refusal};

use crate::clients::{Hello, Raw, packet, puback, publish, subscribe, text};
use crate::support::{Done, OpenDoor, identity, open_with, scope, settings};

const STATUS: &str = "iot/status/t/f/b/d";

async fn door(settings: DoorSettings) -> OpenDoor {
    open_with(settings, Arc::new(Done)).await
}

fn lasting(client_id: &'static str) -> Hello {
    Hello { clean_session: false, ..Hello::named(client_id) }
}

fn operator(client_id: &'static str) -> Hello {
    Hello { user: Some(("operator:of all", "secret")), ..Hello::named(client_id) }
}

/// Logs in to a session that was there before.
async fn come_back(door: &OpenDoor, hello: &Hello) -> Raw {
    let mut raw = Raw::open(door.address()).await;
    raw.send(&hello.packet()).await;
    raw.expect(&[0x20, 2, 1, 0]).await;
    raw
}

async fn subscribed(door: &OpenDoor, hello: &Hello, filter: &str) -> Raw {
    let mut raw = Raw::login(door.address(), hello).await;
    raw.send(&subscribe(1, filter, 1)).await;
    raw.expect(&packet(0x90, &[0, 1, 1])).await;
    raw
}

async fn retain(publisher: &mut Raw, topic: &str, payload: &str) {
    publisher.send(&publish(topic, payload.as_bytes(), 1, 1, true)).await;
    publisher.expect(&puback(1)).await;
}

async fn send(publisher: &mut Raw, topic: &str, payload: &[u8]) {
    publisher.send(&publish(topic, payload, 1, 1, false)).await;
    publisher.expect(&puback(1)).await;
}

fn message(topic: &str, payload: &str) -> (String, Vec<u8>) {
    (topic.to_owned(), payload.as_bytes().to_vec())
}

#[tokio::test]
async fn every_spelling_of_a_status_is_one_retained_message_and_one_filter() {
    let door = door(settings()).await;
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    retain(&mut device, "/iot/status/t/f/b/d", "one").await;
    retain(&mut device, "iot//status/t/f/b/d/", "two").await;
    device.send(&subscribe(2, "/iot/status/t/f/b/d", 1)).await;
    device.expect(&packet(0x90, &[0, 2, 0x80])).await;
    assert_eq!(door.door.stats().refused(Refusal::Acl), 1);
    let mut tool = subscribed(&door, &Hello::named("tool"), "#").await;
    assert_eq!(tool.take().await, message(STATUS, "two"));
    tool.ping().await;
    retain(&mut device, "iot/status/t/f/b//d", "").await;
    assert_eq!(tool.take().await, message(STATUS, ""));
    let mut late = subscribed(&door, &Hello::named("late"), "#").await;
    late.ping().await;
}

#[tokio::test]
async fn the_last_word_of_a_topic_is_never_an_old_one() {
    let door = door(DoorSettings { inflight_max: 1, ..settings() }).await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    for topic in 0..20 {
        retain(&mut publisher, &format!("a/{topic:02}"), "old").await;
    }
    let mut tool = subscribed(&door, &Hello::named("tool"), "a/+").await;
    assert_eq!(tool.take().await, message("a/00", "old"));
    retain(&mut publisher, "a/19", "new").await;
    let mut last = Vec::new();
    // Nineteen that were retained, and the new one once more as it was published.
    for _ in 0..20 {
        let (topic, payload) = tool.take().await;
        if topic == "a/19" {
            last.push(payload);
        }
    }
    assert_eq!(last, [b"new", b"new"]);
}

#[tokio::test]
async fn a_filter_that_is_asked_for_a_thousand_times_brings_its_messages_once() {
    let door = door(settings()).await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    for topic in ["a", "b"] {
        retain(&mut publisher, topic, "x").await;
    }
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    let filters = [text("#"), vec![1]].concat().repeat(1000);
    tool.send(&packet(0x82, &[vec![0, 1], filters].concat())).await;
    tool.expect(&packet(0x90, &[vec![0, 1], vec![1; 1000]].concat())).await;
    assert_eq!(tool.take().await, message("a", "x"));
    assert_eq!(tool.take().await, message("b", "x"));
    tool.ping().await;
}

#[tokio::test]
async fn what_is_taken_back_before_its_answer_brings_no_retained_message() {
    let door = door(settings()).await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    retain(&mut publisher, "a", "x").await;
    let mut tool = Raw::login(door.address(), &Hello::named("tool")).await;
    let unsubscribe = packet(0xa2, &[vec![0, 2], text("#")].concat());
    tool.send(&[subscribe(1, "#", 1), unsubscribe].concat()).await;
    tool.expect(&[packet(0x90, &[0, 1, 1]), packet(0xb0, &[0, 2])].concat()).await;
    tool.ping().await;
}

#[tokio::test]
async fn retained_messages_that_wait_are_not_lost_when_the_client_comes_back() {
    let door = door(DoorSettings { inflight_max: 2, ..settings() }).await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    for topic in 0..10 {
        retain(&mut publisher, &format!("a/{topic}"), "x").await;
    }
    let mut tool = subscribed(&door, &lasting("tool"), "a/+").await;
    for topic in 0..5 {
        assert_eq!(tool.take().await, message(&format!("a/{topic}"), "x"));
    }
    drop(tool);
    let mut tool = come_back(&door, &lasting("tool")).await;
    let mut topics = std::collections::BTreeSet::new();
    while topics.len() < 5 {
        topics.insert(tool.take().await.0);
    }
    assert_eq!(topics.last().map(String::as_str), Some("a/9"));
}

#[tokio::test]
async fn a_member_of_a_group_that_has_no_room_is_passed_over() {
    let limits = DoorSettings { inflight_max: 1, queued_messages_max: 2, ..settings() };
    let door = door(limits).await;
    let mut reader = subscribed(&door, &Hello::named("reader"), "$share/g/a").await;
    let _stuck = subscribed(&door, &Hello::named("stuck"), "$share/g/a").await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    let mut taken = 0;
    for number in 0..20_u8 {
        send(&mut publisher, "a", &[number]).await;
        // Two go to whoever does not read, in its turns.
        if number >= 4 || number % 2 == 0 {
            reader.take().await;
            taken += 1;
        }
    }
    assert_eq!((taken, door.door.stats().queue_dropped(QueueDrop::Count)), (18, 0));
}

#[tokio::test]
async fn a_group_is_not_joined_from_another_owner() {
    let door = door(settings()).await;
    let mut operator = subscribed(&door, &operator("op"), "$share/g/a").await;
    let mut stranger = subscribed(&door, &Hello::named("stranger"), "$share/g/a").await;
    let mut publisher = Raw::login(door.address(), &Hello::named("pub")).await;
    for number in 0..4_u8 {
        send(&mut publisher, "a", &[number]).await;
        assert_eq!(operator.take().await.1, [number]);
        assert_eq!(stranger.take().await.1, [number]);
    }
}

#[tokio::test]
async fn sessions_of_one_device_fill_their_share_and_another_subscriber_gets_everything() {
    let limits = DoorSettings { queued_total_bytes_max: 300_000, ..settings() };
    let door = door(limits).await;
    for client_id in ["one", "two", "three"] {
        let device = Hello { client_id, clean_session: false, ..Hello::device("d") };
        subscribed(&door, &device, STATUS).await;
    }
    drop(subscribed(&door, &lasting("tool"), "iot/#").await);
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    for _ in 0..20 {
        send(&mut device, STATUS, &[b'x'; 3000]).await;
    }
    let stats = door.door.stats();
    assert!(stats.queue_dropped(QueueDrop::OwnerBytes) > 0);
    assert_eq!(stats.spent(Budget::QueuedBytes), stats.queue_dropped(QueueDrop::OwnerBytes));
    let mut tool = come_back(&door, &lasting("tool")).await;
    for _ in 0..20 {
        assert_eq!(tool.take().await.1.len(), 3000);
    }
    assert_eq!(stats.queue_dropped(QueueDrop::TotalBytes), 0);
}

#[tokio::test]
async fn a_device_of_no_farm_fills_its_share_of_what_is_retained_and_another_keeps_its_status() {
    let door = door(settings()).await;
    let mut wide = scope("f", "b", None);
    wide.farm_id = None;
    door.house.enable(&identity("d2"), wide);
    let mut greedy = Raw::login(door.address(), &Hello::device("d2")).await;
    let large = "x".repeat((1 << 20) - 200);
    for farm in 0..30 {
        retain(&mut greedy, &format!("iot/status/t/f{farm}/b/d2"), &large).await;
    }
    assert_eq!(door.door.stats().spent(Budget::RetainedBytes), 30 - 21);
    let mut device = Raw::login(door.address(), &Hello::device("d")).await;
    retain(&mut device, STATUS, "online").await;
    let mut tool = subscribed(&door, &Hello::named("tool"), STATUS).await;
    assert_eq!(tool.take().await, message(STATUS, "online"));
}
