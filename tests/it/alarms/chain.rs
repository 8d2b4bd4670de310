//! From a reading to a siren that is a real client, and back.

use std::time::Duration;

use serde_json::json;
use tests::device::Device;
use tests::engine::Engine;
use tests::settings::Settings;
use tests::wait::until;
use tokio::time::{Instant, sleep};

use super::{FINE_C, HOT_C, RULE, database, kinds, say_celsius, state_of};
use crate::ways::siren::{siren, ways};

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_becomes_a_siren_until_somebody_presses_its_button() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("alarms.ways", &ways())).await;
    let mut siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    say_celsius(&mut probe, "d-2", FINE_C).await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    let command = siren.heard("command", 1).await;
    assert_eq!(
        (&command["sounds"], &command["kind"], &command["rule"], &command["occurrence"]),
        (&json!(true), &json!("raised"), &json!(RULE), &json!(1)),
        "{command}"
    );
    assert_eq!(state_of(&db, "d-2").await, "UNACK", "the row is there before anybody is told");
    until("what became of the telling is written down", async || {
        let told =
            "SELECT count(*) FROM alarm_telling_results WHERE failure IS NULL AND confirmed_by = 'd-1'";
        db.count(told).await == 1
    })
    .await;
    assert!(engine.metric("alarm_standing", "critical").await >= 1.0);

    siren.tell("press").await;
    assert_eq!(siren.heard("command", 2).await["sounds"], json!(false));
    until("it is written who knows", async || state_of(&db, "d-2").await == "ACKED").await;
    let by = "SELECT count(*) FROM alarms WHERE acknowledged_by = 'd-1 (button)'";
    assert_eq!(db.count(by).await, 1);
    say_celsius(&mut probe, "d-2", FINE_C).await;
    until("it is over", async || state_of(&db, "d-2").await == "NORM").await;
    assert_eq!(kinds(&db).await, ["raised", "acknowledged", "ended"]);
    assert_eq!(siren.said("command").len(), 2, "it was told nothing else");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_alarms_share_a_siren_until_nobody_is_waited_for() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("alarms.ways", &ways())).await;
    let siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let mut probes = [
        Device::connect(engine.settings.mqtt, "d-2").await,
        Device::connect(engine.settings.mqtt, "d-3").await,
    ];
    for (probe, id) in probes.iter_mut().zip(["d-2", "d-3"]) {
        say_celsius(probe, id, HOT_C).await;
    }
    siren.heard("command", 2).await;
    // One is over before anybody knew: the siren goes on for the other.
    say_celsius(&mut probes[0], "d-2", FINE_C).await;
    until("one is over", async || state_of(&db, "d-2").await == "RTNUN").await;
    say_celsius(&mut probes[1], "d-3", FINE_C).await;
    until("it falls silent", async || {
        siren.said("command").last().is_some_and(|command| command["sounds"] == false)
    })
    .await;
    let sounds: Vec<_> = siren.said("command").iter().map(|command| command["sounds"] == true).collect();
    assert_eq!(sounds, [true, true, false], "it went on for the other one");
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// From the publishing of a reading to the command at the siren, while a thousand readings a second are stored; prints what it
/// measured.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: `cargo nextest run --run-ignored only -E 'test(/chain_is_measured/)' --no-capture`"]
async fn the_chain_is_measured_under_a_thousand_readings_a_second() {
    const ROUNDS: usize = 100;
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("alarms.ways", &ways())).await;
    let siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    // Eight devices beside the siren and the probe.
    let settings = tests::load::LoadSettings {
        first_device: 10,
        per_second: 125.0,
        ..tests::load::LoadSettings::default()
    };
    let load = tests::load::Load::start(engine.settings.mqtt, settings);
    load.progress(3000).await;
    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    let mut took_ms: Vec<u128> = Vec::new();
    for _ in 0..ROUNDS {
        let seen = siren.said("command").len();
        let began_at = Instant::now();
        say_celsius(&mut probe, "d-2", HOT_C).await;
        while !siren.said("command")[seen..].iter().any(|command| command["sounds"] == true) {
            sleep(Duration::from_millis(2)).await;
        }
        took_ms.push(began_at.elapsed().as_millis());
        say_celsius(&mut probe, "d-2", FINE_C).await;
        until("it falls silent", async || {
            siren.said("command").last().is_some_and(|command| command["sounds"] == false)
        })
        .await;
    }
    drop(load.stop().await);
    took_ms.sort_unstable();
    let at = |percent: usize| took_ms[(took_ms.len() * percent).div_ceil(100) - 1];
    println!("reading to siren: p50 {} ms, p99 {} ms, worst {} ms", at(50), at(99), at(100));
    assert!(at(99) <= 1000, "p99 is {} ms", at(99));
    assert_eq!(engine.terminate().await.code, Some(0));
}
