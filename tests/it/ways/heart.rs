//! The engine's signs of life, as a second box sees them.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::barn::{Barn, admit};
use tests::engine::{Engine, get, signal, stand_still};
use tests::mosquitto::Mosquitto;
use tests::postgres::Database;
use tests::server::Server;
use tests::settings::Settings;
use tests::wait::until;
use tokio::process::Command;

async fn life(settings: &Settings) -> (u16, Value) {
    let (status, body) = get(settings.http, "/api/v1/heartbeat").await;
    (status, serde_json::from_str(&body).expect("a document"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_beats_once_the_tree_stands_and_not_while_its_database_keeps_it_from_beginning() {
    let server = Server::start().await;
    let db = server.database().await;
    drop(db);
    let settings = Settings::of(&server.url()).set("alarms.heartbeat_seconds", "1");
    let mut server = server;
    server.stop_at_once().await;
    let mut engine = Engine::stopped(settings);
    engine.spawn();
    until("HTTP answers", async || tokio::net::TcpStream::connect(engine.settings.http).await.is_ok()).await;
    let (status, body) = life(&engine.settings).await;
    assert_eq!((status, &body["alive"], &body["beat"]), (503, &json!(false), &json!(0)), "{body}");
    server.start_again().await;
    until("it beats", async || life(&engine.settings).await.0 == 200).await;
    let beat = life(&engine.settings).await.1["beat"].as_u64();
    until("it beats on", async || life(&engine.settings).await.1["beat"].as_u64() > beat).await;
    // A process that hangs is silent, and silence is what is listened for.
    stand_still(engine.pid()).await;
    let asked = tokio::time::timeout(std::time::Duration::from_secs(2), life(&engine.settings)).await;
    assert!(asked.is_err(), "it hangs");
    signal(engine.pid(), Signal::CONT);
    until("it beats again", async || life(&engine.settings).await.0 == 200).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// The last retained word of an engine at a broker.
async fn word(broker: &Mosquitto, edge_id: &str) -> String {
    let said = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.address.port().to_string()])
        .args(["-t", &format!("iot/engine/{edge_id}/heartbeat"), "-C", "1", "-W", "2"])
        .output()
        .await
        .expect("mosquitto_sub is installed");
    String::from_utf8(said.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_says_what_has_become_of_an_engine() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let settings = Settings::of(&db.url)
        .set("mqtt.mode", "external")
        .set("mqtt.url", &format!("mqtt://{}", broker.address))
        .set("edge.id", "box-7")
        .set("alarms.heartbeat_seconds", "1");
    let mut engine = Engine::start(settings).await;
    until("it is alive", async || word(&broker, "box-7").await.contains("\"state\":\"alive\"")).await;
    engine.kill().await;
    until("it is lost", async || word(&broker, "box-7").await.contains("\"state\":\"lost\"")).await;
    engine.start_again().await;
    until("it is alive again", async || word(&broker, "box-7").await.contains("\"state\":\"alive\"")).await;
    assert_eq!(engine.terminate().await.code, Some(0));
    assert!(word(&broker, "box-7").await.contains("\"state\":\"stopped\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_of_a_second_box_rings_when_the_engine_is_gone_and_when_nobody_answers_an_alarm() {
    let barn = Barn::start_with(|settings| settings.set("alarms.heartbeat_seconds", "1")).await;
    until("it beats", async || life(&barn.settings).await.0 == 200).await;
    let home = tempfile::tempdir().expect("a directory");
    let rang = home.path().join("rang");
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alarms/second-box.sh");
    let mut child = Command::new("sh")
        .arg(script)
        .env("ENGINE", format!("http://{}", barn.settings.http))
        .env("PERIOD_SECONDS", "1")
        .env("RING", format!("touch {}", rang.display()))
        .env("HUSH", format!("rm -f {}", rang.display()))
        .kill_on_drop(true)
        .spawn()
        .expect("a shell can be started");
    // As often as beats may be missing, and more.
    let asked = || barn.metric("http_requests_total", "/api/v1/heartbeat");
    let before = asked();
    until("the script has looked often enough to ring", async || asked() >= before + 6.0).await;
    assert!(!rang.exists(), "all is well");
    barn.finish().await;
    until("it rings", async || rang.exists()).await;
    child.kill().await.expect("it lives");
}

/// Rings without the database: takes a minute, since a restart of the database is no alarm.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_rings_without_it() {
    let mut server = Server::start().await;
    drop(server.database().await);
    let home = tempfile::tempdir().expect("a directory");
    let (program, told) = (home.path().join("tell"), home.path().join("told"));
    super::alone::script(&program, &format!("cat >> {}", told.display()));
    let ways = json!({"sms": {"kind": "program", "command": [program]}}).to_string();
    let settings = Settings::of(&server.url()).set("alarms.ways", &ways);
    let mut engine = Engine::start(settings).await;
    let told = Arc::new(told);
    server.stop_at_once().await;
    until("somebody is told", async || told.exists()).await;
    let first = std::fs::read_to_string(&*told).expect("a file");
    assert!(first.contains("engine_database") && first.contains("ฐานข้อมูลไม่ตอบ"), "{first}");
    server.start_again().await;
    until("it is over", async || {
        std::fs::read_to_string(&*told).expect("a file").contains("\"kind\":\"ended\"")
    })
    .await;
    assert_eq!(engine.terminate().await.code, Some(0));
}
