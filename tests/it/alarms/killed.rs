//! An engine that is killed when an alarm is raised, told or acknowledged: nothing is lost, and nothing rings twice.

use serde_json::json;
use tests::device::Device;
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::told::Told;
use tests::wait::until;

use super::{FINE_C, HOT_C, database, kinds, say_celsius, state_of};
use crate::ways::siren::{siren, ways};

async fn start(db: &Database) -> (Engine, Told, Device) {
    let engine = Engine::start(Settings::of(&db.url).set("alarms.ways", &ways())).await;
    let siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let probe = Device::connect(engine.settings.mqtt, "d-2").await;
    (engine, siren, probe)
}

/// The engine is killed, and the siren loses its power with it.
async fn again(engine: &mut Engine, before: Told) -> (Told, Device) {
    engine.kill().await;
    before.kill().await;
    engine.start_again().await;
    let siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let probe = Device::connect(engine.settings.mqtt, "d-2").await;
    (siren, probe)
}

async fn is_owned(engine: &Engine) {
    until("the engine owns the alarms", async || {
        engine.log().matches("this engine owns the alarms").count() >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_was_raised_it_rings_once_and_goes_on_to_ring() {
    let db = database().await;
    let (mut engine, first, mut probe) = start(&db).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    until("the row is there", async || state_of(&db, "d-2").await == "UNACK").await;
    let (mut siren, mut probe) = again(&mut engine, first).await;
    is_owned(&engine).await;
    let command = siren.heard("command", 1).await;
    assert_eq!((&command["sounds"], &command["occurrence"]), (&json!(true), &json!(1)), "{command}");
    until("the telling is written down", async || {
        db.count("SELECT count(*) FROM alarm_telling_results WHERE failure IS NULL").await == 1
    })
    .await;
    assert_eq!(db.count("SELECT count(*) FROM alarm_tellings").await, 1, "one telling of one occurrence");
    siren.tell("press").await;
    until("somebody knows", async || state_of(&db, "d-2").await == "ACKED").await;
    say_celsius(&mut probe, "d-2", FINE_C).await;
    until("it is over", async || state_of(&db, "d-2").await == "NORM").await;
    assert_eq!(kinds(&db).await, ["raised", "acknowledged", "ended"]);
    assert_eq!(siren.said("command").last().map(|command| &command["sounds"]), Some(&json!(false)));
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_was_told_it_is_not_told_again() {
    let db = database().await;
    let (mut engine, first, mut probe) = start(&db).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    let told = first.heard("command", 1).await;
    until("it is written down", async || db.count("SELECT count(*) FROM alarm_telling_results").await == 1)
        .await;
    let (siren, mut probe) = again(&mut engine, first).await;
    is_owned(&engine).await;
    let command = siren.heard("command", 1).await;
    assert_eq!(command["command_id"], told["command_id"], "the command that stands, and no other");
    assert_eq!((&command["sounds"], &command["retained"]), (&json!(true), &json!(true)));
    // Over while nobody knew: it falls silent, and is still to be seen.
    say_celsius(&mut probe, "d-2", FINE_C).await;
    let command = siren.heard("command", 2).await;
    assert_eq!((&command["sounds"], &command["alarm_id"]), (&json!(false), &told["alarm_id"]), "{command}");
    assert_eq!(state_of(&db, "d-2").await, "RTNUN");
    assert_eq!(kinds(&db).await, ["raised", "ended"]);
    assert_eq!(db.count("SELECT count(*) FROM alarm_tellings").await, 1);
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_was_acknowledged_it_has_to_be_acknowledged_anew() {
    let db = database().await;
    let (mut engine, mut first, mut probe) = start(&db).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    first.heard("command", 1).await;
    first.tell("press").await;
    until("somebody knows", async || state_of(&db, "d-2").await == "ACKED").await;
    let (siren, _probe) = again(&mut engine, first).await;
    is_owned(&engine).await;
    until("it rings again", async || {
        siren.said("command").last().is_some_and(|command| command["sounds"] == true)
    })
    .await;
    assert_eq!(state_of(&db, "d-2").await, "UNACK");
    assert_eq!(kinds(&db).await, ["raised", "acknowledged", "restarted"]);
    let occurrences = "SELECT count(DISTINCT occurrence) FROM alarm_tellings";
    assert_eq!(db.count(occurrences).await, 1, "it is the same occurrence");
    assert_eq!(engine.terminate().await.code, Some(0));
}
