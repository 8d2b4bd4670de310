//! Sessions that outlive their connections and the engine: subscriptions, queues, retained messages, and messages at
//! quality 2, with the engine killed in between.

mod exactly_once;

use std::collections::BTreeSet;

use tests::engine::Engine;
use tests::postgres::Database;
use tests::raw::{Arrived, Raw};
use tests::settings::Settings;

/// Something the engine itself has no use for: only subscribers see it.
const TOPIC: &str = "news/weather";
/// Messages that wait while the subscriber is away.
const MESSAGES: u16 = 200;

/// A session with this subscription, whose client left.
async fn leave_subscribed(engine: &Engine, client_id: &str, filter: &str, qos: u8) {
    let (mut raw, is_present) = Raw::resume(engine.settings.mqtt, client_id).await;
    assert!(!is_present, "nobody was here before");
    raw.subscribe(filter, qos).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_subscriber_outlives_kills() {
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    leave_subscribed(&engine, "reader", "news/#", 1).await;
    let (mut publisher, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    for id in 1..=MESSAGES {
        publisher.publish(0x02, TOPIC, id, &id.to_string()).await;
    }
    for id in 1..=MESSAGES {
        publisher.expect(0x40, id).await;
    }
    engine.kill().await;
    engine.start_again().await;
    let (mut reader, is_present) = Raw::resume(engine.settings.mqtt, "reader").await;
    assert!(is_present);
    let mut seen = BTreeSet::new();
    for id in 1..=MESSAGES / 2 {
        let arrived = reader.message().await;
        assert_eq!(arrived.payload, id.to_string(), "in order");
        seen.insert(id);
        reader.answer(0x40, arrived.packet_id).await;
    }
    engine.kill().await;
    engine.start_again().await;
    let (mut reader, is_present) = Raw::resume(engine.settings.mqtt, "reader").await;
    assert!(is_present);
    while seen.len() < usize::from(MESSAGES) {
        let arrived = reader.message().await;
        assert!(arrived.is_repeated, "it may have been sent before the kill");
        let id: u16 = arrived.payload.parse().expect("a number");
        // What was answered may come again: its end may not have been stored when the engine was killed.
        assert!(seen.insert(id) || id <= MESSAGES / 2, "{id} came twice over one connection");
        reader.answer(0x40, arrived.packet_id).await;
    }
    reader.send(0xc0, &[]).await;
    assert_eq!(reader.next().await.first, 0xd0, "every answer was read");
    assert_eq!(engine.terminate().await.code, Some(0));
    assert_eq!(db.count("SELECT count(*) FROM mqtt_queue").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_at_quality_2_passes_once_whenever_the_engine_is_killed() {
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    leave_subscribed(&engine, "reader", "news/#", 2).await;
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    writer.publish(0x04, TOPIC, 7, "once").await;
    writer.expect(0x50, 7).await;
    engine.kill().await;
    engine.start_again().await;
    // The writer cannot know whether its message arrived, and sends it again.
    let (mut writer, is_present) = Raw::resume(engine.settings.mqtt, "writer").await;
    assert!(is_present);
    writer.publish(0x0c, TOPIC, 7, "once").await;
    writer.expect(0x50, 7).await;
    writer.answer(0x62, 7).await;
    writer.expect(0x70, 7).await;
    engine.kill().await;
    engine.start_again().await;
    // Its id is free again: what comes under it now is another message.
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    writer.publish(0x04, TOPIC, 7, "again").await;
    writer.expect(0x50, 7).await;

    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    let (first, second) = (reader.message().await, reader.message().await);
    assert_eq!((first.payload.as_str(), second.payload.as_str()), ("once", "again"));
    assert_ne!(first.packet_id, second.packet_id);
    reader.answer(0x50, first.packet_id).await;
    reader.expect(0x62, first.packet_id).await;
    engine.kill().await;
    engine.start_again().await;
    // What is not finished comes again under its old id: the first as a message only if that the reader has it was not
    // stored when the engine was killed.
    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    let mut finished = BTreeSet::new();
    while finished.len() < 2 {
        let packet = reader.next().await;
        if packet.first == 0x62 {
            let packet_id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
            reader.answer(0x70, packet_id).await;
            finished.insert(packet_id);
            continue;
        }
        let again = Arrived::read(&packet);
        let known = if again.packet_id == first.packet_id { &first } else { &second };
        assert_eq!(again, Arrived { is_repeated: true, ..known.clone() });
        reader.answer(0x50, again.packet_id).await;
    }
    assert_eq!(finished, BTreeSet::from([first.packet_id, second.packet_id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_forgot_which_ids_it_used_loses_no_message_and_stores_none_twice() {
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    leave_subscribed(&engine, "reader", "news/#", 2).await;
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    writer.publish(0x04, TOPIC, 1, "first").await;
    writer.expect(0x50, 1).await;
    let (mut writer, is_present) = Raw::resume(engine.settings.mqtt, "writer").await;
    assert!(is_present, "it never released the id");
    writer.publish(0x04, TOPIC, 1, "second").await;
    writer.expect(0x50, 1).await;
    engine.kill().await;
    engine.start_again().await;
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    writer.publish(0x0c, TOPIC, 1, "second").await;
    writer.expect(0x50, 1).await;
    writer.publish(0x04, TOPIC, 1, "third").await;
    writer.expect(0x50, 1).await;
    writer.answer(0x62, 1).await;
    writer.expect(0x70, 1).await;
    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    for expected in ["first", "second", "third"] {
        assert_eq!(reader.message().await.payload, expected);
    }
    reader.send(0xc0, &[]).await;
    assert_eq!(reader.next().await.first, 0xd0, "nothing came twice");
    assert_eq!(db.count("SELECT count(*) FROM mqtt_received").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_outlive_a_kill() {
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    for (id, payload) in [(1, "old"), (2, "new")] {
        writer.publish(0x03, TOPIC, id, payload).await;
    }
    writer.publish(0x03, "news/gone", 3, "soon removed").await;
    writer.publish(0x03, "news/gone", 4, "").await;
    for id in 1..=4 {
        writer.expect(0x40, id).await;
    }
    engine.kill().await;
    engine.start_again().await;
    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    reader.subscribe("news/+", 0).await;
    let expected = Arrived {
        topic: TOPIC.to_owned(),
        payload: "new".to_owned(),
        packet_id: 0,
        is_repeated: false,
        is_retained: true,
    };
    assert_eq!(reader.message().await, expected);
    reader.send(0xc0, &[]).await;
    assert_eq!(reader.next().await.first, 0xd0, "nothing else is retained");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_spellings_of_a_status_are_folded_and_an_empty_message_removes_it() {
    const STATUS: &str = "iot/status/t/f/b/d";
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    engine.kill().await;
    for (topic, payload) in [("/iot/status/t/f/b//d/", "odd"), (STATUS, "canonical")] {
        db.execute(&format!(
            "INSERT INTO mqtt_retained (topic_sha256, topic, payload, qos, properties)
             VALUES (sha256('{topic}'), '{topic}', '{payload}', 1, '')"
        ))
        .await;
    }
    engine.start_again().await;
    let (mut tool, _) = Raw::resume(engine.settings.mqtt, "tool").await;
    tool.subscribe("iot/#", 0).await;
    let arrived = tool.message().await;
    assert_eq!((arrived.topic.as_str(), arrived.payload.as_str()), (STATUS, "canonical"));
    // Answered once the journal is stored up to here, and with it what was folded before.
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    writer.publish(0x03, "iot//status/t/f/b/d", 1, "").await;
    writer.expect(0x40, 1).await;
    assert_eq!(tool.message().await.payload, "", "nothing else was retained");
    assert_eq!(db.count("SELECT count(*) FROM mqtt_retained").await, 0);
}
