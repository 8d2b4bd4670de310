//! A siren that is an MQTT client of its own, at the engine's door and at Mosquitto.

use serde_json::{Value, json};
use tests::barn::{Barn, admit};
use tests::engine::{Engine, binary, get};
use tests::mosquitto::Mosquitto;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::told::Told;
use tests::wait::until;
use tokio::process::Command;

const ID: [&str; 4] = ["t-001", "f-001", "b-001", "d-1"];

/// The siren as the only way out.
pub(crate) fn ways() -> String {
    let [tenant, farm, barn, device] = ID;
    json!({"siren": {"kind": "siren", "tenant": tenant, "farm": farm, "barn": barn, "device": device, "answer_seconds": 2}})
        .to_string()
}

/// A siren that has subscribed to its command.
pub(crate) async fn siren(host: &str, port: u16) -> Told {
    let port = port.to_string();
    let told = Told::start("siren.py", &[&[host, &port], &ID[..]].concat());
    let subscribed = told.heard("subscribed", 1).await;
    assert_eq!(subscribed["reasons"], json!(["Granted QoS 1"]), "{subscribed}");
    told
}

/// What the engine says of a try.
async fn try_siren(settings: &Settings) -> Value {
    let tried = Command::new(binary())
        .args(["alarm", "try-way", "siren", "--json"])
        .env_clear()
        .envs(settings.variables())
        .output()
        .await
        .expect("the program can be run");
    let text = String::from_utf8(tried.stdout).expect("text");
    let said: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} {:?}", tried.stderr));
    assert_eq!(tried.status.success(), said["ok"] == true, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siren_at_the_door_sounds_answers_and_is_found_broken_when_it_does_not() {
    let barn = Barn::start_with(|settings| settings.set("alarms.ways", &ways())).await;
    let mut siren = siren("127.0.0.1", barn.mqtt().port()).await;
    let said = try_siren(&barn.settings).await;
    assert_eq!((&said["ok"], &said["confirmed_by"]), (&json!(true), &json!("d-1")), "{said}");
    let first = siren.heard("command", 1).await;
    assert_eq!(
        (&first["sounds"], &first["kind"], &first["seconds_max"]),
        (&json!(true), &json!("trial"), &json!(2))
    );
    let second = siren.heard("command", 2).await;
    assert_eq!((&second["sounds"], &second["retained"]), (&json!(false), &json!(false)), "{second}");
    // Its answers are events like any other, and kept.
    until("its answers are stored", async || {
        barn.db.count("SELECT count(*) FROM device_events WHERE event_type = 'siren.answered'").await == 2
    })
    .await;
    // It is asked without being heard: the command that stands is given again.
    let (status, body) = get(barn.settings.http, "/api/v1/alarms/ways/siren").await;
    assert!(status == 200 && body.contains("\"ok\":true"), "{body}");
    assert_eq!(siren.heard("command", 3).await["sounds"], json!(false));

    siren.tell("mute").await;
    let said = try_siren(&barn.settings).await;
    assert_eq!((&said["ok"], &said["failure"]), (&json!(false), &json!("unanswered")), "{said}");
    assert!(
        said["advice"].as_str().expect("words").contains("iot/command/t-001/f-001/b-001/d-1/siren"),
        "{said}"
    );
    siren.kill().await;
    let (_, body) = get(barn.settings.http, "/api/v1/alarms/ways/siren").await;
    assert!(body.contains("\"ok\":false") && body.contains("did not answer within 2 s"), "{body}");
    assert!(barn.metric("alarm_tellings_total", "unanswered") >= 1.0);

    // A siren that comes back finds what it is to do, and that is silence.
    let siren = self::siren("127.0.0.1", barn.mqtt().port()).await;
    let command = siren.heard("command", 1).await;
    assert_eq!((&command["sounds"], &command["retained"]), (&json!(false), &json!(true)), "{command}");
    let (status, body) = get(barn.settings.http, "/api/v1/alarms/ways/fax").await;
    assert_eq!(status, 404, "{body}");
    barn.finish_after("an alarm could not be told by this way").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siren_at_mosquitto_is_the_same() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let settings = Settings::of(&db.url)
        .set("mqtt.mode", "external")
        .set("mqtt.url", &format!("mqtt://{}", broker.address))
        .set("alarms.ways", &ways());
    let mut engine = Engine::start(settings).await;
    until("the link is up", async || engine.json("/api/v1/ingress/stats").await["mqttConnected"] == true)
        .await;
    let mut siren = siren("127.0.0.1", broker.address.port()).await;
    let said = try_siren(&engine.settings).await;
    assert_eq!((&said["ok"], &said["confirmed_by"]), (&json!(true), &json!("d-1")), "{said}");
    assert_eq!(siren.heard("command", 2).await["sounds"], json!(false));
    siren.tell("mute").await;
    assert_eq!(try_siren(&engine.settings).await["failure"], json!("unanswered"));
    drop(broker);
    until("the link is known to be down", async || {
        engine.json("/api/v1/ingress/stats").await["mqttConnected"] == false
    })
    .await;
    let said = try_siren(&engine.settings).await;
    assert_eq!(said["failure"], json!("unreachable"), "{said}");
    assert_eq!(engine.terminate().await.code, Some(0));
}
