//! Two engines on one database: one owns the alarms, and readings reach either.

use serde_json::json;
use tests::device::Device;
use tests::engine::Engine;
use tests::settings::Settings;
use tests::wait::until;

use super::{FINE_C, HOT_C, database, kinds, say_celsius, state_of};
use crate::ways::siren::{siren, ways};

async fn owns(engine: &Engine) {
    until("the engine owns the alarms", async || engine.log().contains("this engine owns the alarms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_reaches_the_other_engine_rings_all_the_same() {
    let db = database().await;
    let settings = || Settings::of(&db.url).set("alarms.ways", &ways());
    let mut owner = Engine::start(settings()).await;
    owns(&owner).await;
    let mut other = Engine::start(settings()).await;
    let mut first = siren("127.0.0.1", owner.settings.mqtt.port()).await;
    let mut probe = Device::connect(other.settings.mqtt, "d-2").await;
    say_celsius(&mut probe, "d-2", FINE_C).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    let command = first.heard("command", 1).await;
    assert_eq!((&command["sounds"], &command["kind"]), (&json!(true), &json!("raised")), "{command}");
    first.tell("press").await;
    until("somebody knows", async || state_of(&db, "d-2").await == "ACKED").await;
    say_celsius(&mut probe, "d-2", FINE_C).await;
    until("it is over", async || state_of(&db, "d-2").await == "NORM").await;
    assert_eq!(kinds(&db).await, ["raised", "acknowledged", "ended"]);
    assert!(!other.log().contains("this engine owns the alarms"));
    until("nothing waits to be heard", async || db.count("SELECT count(*) FROM alarm_unheard").await == 0)
        .await;

    // The owner dies: whoever is left owns the alarms, and its own siren rings.
    owner.kill().await;
    first.kill().await;
    owns(&other).await;
    // It takes over the lasting sessions, too, and lets its clients go when it does.
    until("it keeps the sessions", async || other.log().contains("this engine keeps lasting sessions")).await;
    let mut probe = Device::connect(other.settings.mqtt, "d-2").await;
    let siren = siren("127.0.0.1", other.settings.mqtt.port()).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    until("it rings", async || siren.said("command").last().is_some_and(|command| command["sounds"] == true))
        .await;
    assert_eq!(state_of(&db, "d-2").await, "UNACK");
    assert_eq!(other.terminate().await.code, Some(0));
}
