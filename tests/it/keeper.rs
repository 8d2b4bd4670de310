//! Several engines on one database: one keeps the lasting sessions, and another takes over when it has gone.

use std::sync::Arc;

use actors::door_store::DatabaseDoorStore;
use broker::store::{Change, Client, Owner, Queued, Received, StoredSession, WaitingWill};
use broker::{DoorStore, DoorStoreError, Fault, Fingerprint, Publication, Qos};
use bytes::Bytes;
use schema::clock::Timestamp;
use tests::engine::Engine;
use tests::postgres::{self, Database};
use tests::raw::Raw;
use tests::settings::Settings;
use tests::wait::until;
use uuid::Uuid;

fn door_store(db: &Database) -> DatabaseDoorStore {
    DatabaseDoorStore::new(postgres::store(&db.url))
}

fn client(name: &str) -> Client {
    Client { owner: Owner::Anonymous, client_id: Arc::from(name) }
}

fn session(id: Uuid, name: &str) -> Change {
    Change::Session { id, client: client(name), expiry_seconds: 60, left_at: None }
}

fn retained(topic: &str) -> Change {
    Change::Retained(Arc::new(publication(topic)))
}

fn publication(topic: &str) -> Publication {
    Publication {
        topic: Arc::from(topic),
        payload: Bytes::from_static(b"x"),
        qos: Qos::ExactlyOnce,
        retain: true,
        carried: Bytes::new(),
        expires_at: None,
        publisher: 0,
    }
}

fn queued(id: Uuid, sequence: u64) -> Change {
    let queued = Queued {
        sequence,
        publication: Arc::new(publication("t")),
        qos: Qos::ExactlyOnce,
        retain: false,
        subscription_ids: Vec::new(),
        is_received: false,
        queued_at: midday(),
    };
    Change::Queued { id, queued }
}

fn midday() -> Timestamp {
    Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(12 * 3600)
}

fn fault<T>(outcome: Result<T, DoorStoreError>) -> Option<Fault> {
    outcome.err().map(|error| error.fault)
}

/// Ends every connection that holds an advisory lock of the database.
async fn cut_lock(db: &Database) {
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    until("the lock is free", async || {
        db.count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").await == 0
    })
    .await;
}

#[tokio::test]
async fn of_two_stores_one_keeps_sessions_and_the_other_takes_over_when_it_is_gone() {
    let db = Database::fresh().await;
    let (first, second) = (door_store(&db), door_store(&db));
    assert!(first.keeps_sessions().await.unwrap());
    assert!(first.keeps_sessions().await.unwrap(), "still");
    assert!(!second.keeps_sessions().await.unwrap());
    let id = Uuid::now_v7();
    assert_eq!(first.apply(&[session(id, "a"), queued(id, 0)]).await.unwrap(), [] as [Uuid; 0]);
    assert_eq!(fault(second.apply(&[session(Uuid::now_v7(), "b")]).await), Some(Fault::Replaced));
    second.apply(&[retained("of the second")]).await.expect("retained messages are everybody's");
    let loaded = second.load().await.unwrap();
    assert_eq!((loaded.sessions.len(), loaded.retained.len()), (0, 1));
    drop(first);
    until("the lock is free", async || second.keeps_sessions().await.unwrap()).await;
    let loaded = second.load().await.unwrap();
    let StoredSession { id: loaded_id, queue, .. } = &loaded.sessions[0];
    assert_eq!((*loaded_id, queue.len()), (id, 1));
}

#[tokio::test]
async fn a_keeper_whose_connection_breaks_goes_on_unless_another_had_the_sessions_meanwhile() {
    let db = Database::fresh().await;
    let (first, second) = (door_store(&db), door_store(&db));
    let id = Uuid::now_v7();
    assert!(first.keeps_sessions().await.unwrap());
    first.apply(&[session(id, "a")]).await.unwrap();
    cut_lock(&db).await;
    until("it has the lock again", async || first.apply(&[queued(id, 0)]).await.is_ok()).await;
    assert!(first.keeps_sessions().await.unwrap());
    assert!(!second.keeps_sessions().await.unwrap());

    cut_lock(&db).await;
    assert!(second.keeps_sessions().await.unwrap(), "it was faster");
    until("the first has noticed", async || {
        fault(first.apply(&[queued(id, 1)]).await) == Some(Fault::Replaced)
    })
    .await;
    assert!(!first.keeps_sessions().await.unwrap());
    drop(second);
    until("it may again", async || first.keeps_sessions().await.unwrap()).await;
    assert_eq!(db.count("SELECT count(*) FROM mqtt_queue").await, 1, "nothing was written without the lock");
}

#[tokio::test]
async fn a_keeper_that_lost_its_lock_does_not_take_it_back_from_the_next_one() {
    let db = Database::fresh().await;
    let (first, second) = (door_store(&db), door_store(&db));
    assert!(first.keeps_sessions().await.unwrap());
    cut_lock(&db).await;
    assert!(second.keeps_sessions().await.unwrap());
    drop(second);
    until("the lock is free", async || {
        db.count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").await == 0
    })
    .await;
    let asked = async || fault(first.apply(&[session(Uuid::now_v7(), "a")]).await);
    until("it has noticed", async || asked().await == Some(Fault::Replaced)).await;
}

#[tokio::test]
async fn changes_of_a_deleted_session_are_left_out_and_named() {
    let db = Database::fresh().await;
    let store = door_store(&db);
    assert!(store.keeps_sessions().await.unwrap());
    let (gone, other) = (Uuid::now_v7(), Uuid::now_v7());
    store.apply(&[session(gone, "a"), session(other, "b")]).await.unwrap();
    db.execute("DELETE FROM mqtt_sessions WHERE client_id = 'a'").await;
    let changes = [
        queued(gone, 0),
        queued(other, 0),
        Change::Received { id: gone, received: received(1, None) },
        Change::Taken { id: gone, sequence: 0 },
        retained("t"),
    ];
    assert_eq!(store.apply(&changes).await.unwrap(), [gone]);
    let sql = "SELECT (SELECT count(*) FROM mqtt_queue) + 10 * (SELECT count(*) FROM mqtt_retained)
        + 100 * (SELECT count(*) FROM mqtt_received)";
    assert_eq!(db.count(sql).await, 11);
}

fn received(packet_id: u16, fingerprint: Option<u64>) -> Received {
    Received { packet_id, fingerprint: fingerprint.map(Fingerprint) }
}

#[tokio::test]
async fn what_holds_a_packet_id_comes_back_with_its_fingerprint() {
    let db = Database::fresh().await;
    let store = door_store(&db);
    assert!(store.keeps_sessions().await.unwrap());
    let id = Uuid::now_v7();
    let changes = |messages: &[Received]| {
        messages.iter().map(|received| Change::Received { id, received: *received }).collect::<Vec<_>>()
    };
    store.apply(&[session(id, "a")]).await.unwrap();
    store
        .apply(&changes(&[received(1, Some(u64::MAX)), received(2, Some(7)), received(3, None)]))
        .await
        .unwrap();
    // Another one took an id over, in a transaction of its own and within one.
    store.apply(&changes(&[received(2, Some(8)), received(1, Some(5)), received(1, Some(6))])).await.unwrap();
    store.apply(&[Change::Released { id, packet_id: 3 }]).await.unwrap();
    // As a program wrote it that knew of no fingerprints.
    db.execute("INSERT INTO mqtt_received (session_id, packet_id) SELECT session_id, 4 FROM mqtt_sessions")
        .await;
    let mut found = store.load().await.unwrap().sessions.remove(0).received;
    found.sort_by_key(|received| received.packet_id);
    assert_eq!(found, [received(1, Some(6)), received(2, Some(8)), received(4, None)]);
}

#[tokio::test]
async fn a_will_that_waits_comes_back_as_it_was() {
    let db = Database::fresh().await;
    let store = door_store(&db);
    assert!(store.keeps_sessions().await.unwrap());
    let will = WaitingWill {
        id: Uuid::now_v7(),
        client: client("a"),
        topic: Arc::from("t"),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: true,
        carried: Bytes::from_static(b"\x01\x01"),
        expiry_seconds: Some(u32::MAX),
        due_at: midday(),
    };
    let other = WaitingWill { id: Uuid::now_v7(), ..will.clone() };
    let waits = |will: &WaitingWill| Change::WillWaits(Arc::new(will.clone()));
    store.apply(&[waits(&will), waits(&other)]).await.unwrap();
    store.apply(&[Change::WillGone { id: other.id }]).await.unwrap();
    assert_eq!(store.load().await.unwrap().wills, [will]);
}

/// What an engine says of the sessions.
async fn sessions(engine: &Engine) -> String {
    engine.json("/ready").await["sessions"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_leaves_the_sessions_alone_and_takes_over_with_all_that_waits() {
    let db = Database::fresh().await;
    let mut first = Engine::start(Settings::of(&db.url)).await;
    let (mut reader, _) = Raw::resume(first.settings.mqtt, "reader").await;
    reader.subscribe("news/#", 1).await;
    let mut second = Engine::start(Settings::of(&db.url)).await;
    assert_eq!(
        (sessions(&first).await, sessions(&second).await),
        ("kept".to_owned(), "elsewhere".to_owned())
    );
    assert!(second.log().contains("another engine on this database keeps lasting sessions"));
    assert_eq!(second.metric("mqtt_keeps_sessions", "").await, 0.0);
    assert_eq!(Raw::refused(second.settings.mqtt, "reader").await, 3, "it would not find its session here");

    // What comes after the second engine has started is not in what it read at its start.
    let (mut writer, _) = Raw::resume(first.settings.mqtt, "writer").await;
    for id in 1..=50 {
        writer.publish(0x02, "news/weather", id, &id.to_string()).await;
        writer.expect(0x40, id).await;
    }
    assert_eq!(reader.message().await.payload, "1");
    first.terminate().await;
    until("the second engine keeps the sessions", async || sessions(&second).await == "kept").await;
    let (mut reader, is_present) = Raw::resume(second.settings.mqtt, "reader").await;
    assert!(is_present);
    for id in 1..=50 {
        let arrived = reader.message().await;
        assert_eq!(arrived.payload, id.to_string());
        reader.answer(0x40, arrived.packet_id).await;
    }
    assert_eq!(second.metric("mqtt_keeps_sessions", "").await, 1.0);
    assert_eq!(second.metric("engine_restarts", "").await, 0.0, "nothing failed");
    assert_eq!(second.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_row_is_deleted_ends_and_holds_nobody_up() {
    let db = Database::fresh().await;
    let engine = Engine::start(Settings::of(&db.url)).await;
    let (mut gone, _) = Raw::resume(engine.settings.mqtt, "gone").await;
    gone.subscribe("news/#", 1).await;
    let (mut other, _) = Raw::resume(engine.settings.mqtt, "other").await;
    other.subscribe("news/#", 1).await;
    db.execute("DELETE FROM mqtt_sessions WHERE client_id = 'gone'").await;
    let (mut writer, _) = Raw::resume(engine.settings.mqtt, "writer").await;
    for id in 1..=20 {
        writer.publish(0x02, "news/weather", id, &id.to_string()).await;
        writer.expect(0x40, id).await;
        assert_eq!(other.message().await.payload, id.to_string());
    }
    gone.expect_end().await;
    let (mut again, is_present) = Raw::resume(engine.settings.mqtt, "gone").await;
    assert!(!is_present);
    again.subscribe("news/#", 1).await;
    assert!(!engine.log().contains("a change of a session is lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_that_waits_outlives_a_kill() {
    let db = Database::fresh().await;
    let mut engine = Engine::start(Settings::of(&db.url)).await;
    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    reader.subscribe("news/#", 1).await;
    // Version 5: a session of a minute, and a will that waits two seconds.
    let fields =
        b"\0\x04MQTT\x05\x0e\0\x3c\x05\x11\0\0\0\x3c\0\x04away\x05\x18\0\0\0\x02\0\x09news/gone\0\x04gone";
    drop(Raw::connect(engine.settings.mqtt, fields).await);
    until("the will is stored", async || db.count("SELECT count(*) FROM mqtt_wills").await == 1).await;
    engine.kill().await;
    engine.start_again().await;
    let (mut reader, _) = Raw::resume(engine.settings.mqtt, "reader").await;
    let arrived = reader.message().await;
    assert_eq!((arrived.topic.as_str(), arrived.payload.as_str()), ("news/gone", "gone"));
    until("the will is gone", async || db.count("SELECT count(*) FROM mqtt_wills").await == 0).await;
}
