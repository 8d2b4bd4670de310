//! The engine behind a real Mosquitto.

use std::path::Path;
use std::process::Stdio;

use loadtest::mqtt::{Login, Publish, connect_packet, put_publish};
use rustls::version::TLS13;
use serde_json::json;
use tests::barn::admit;
use tests::certificates::{Authority, connect};
use tests::device::{Device, at_least_once, new_event_id, reading};
use tests::engine::{Engine, binary};
use tests::load::{Load, LoadSettings};
use tests::mosquitto::Mosquitto;
use tests::postgres::Database;
use tests::settings::{Settings, free_address};
use tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::client::TlsStream;

fn settings(db: &Database, broker: &Mosquitto) -> Settings {
    Settings::of(&db.url).set("mqtt.mode", "external").set("mqtt.url", &format!("mqtt://{}", broker.address))
}

/// Waits until the engine holds its subscriptions.
async fn linked(engine: &Engine) {
    until("the link is up", async || engine.json("/api/v1/ingress/stats").await["mqttConnected"] == true)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_finds_everything_at_the_broker_again() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let mut engine = Engine::start(settings(&db, &broker)).await;
    linked(&engine).await;
    // The broker answers the devices, so the load goes on whether the engine is there or not.
    let load = LoadSettings { devices: 4, readings: 1500, per_second: 250.0, ..LoadSettings::default() };
    let load = Load::start(broker.address, load);
    for _ in 0..5 {
        load.progress(300).await;
        engine.kill().await;
        load.progress(300).await;
        engine.start_again().await;
    }
    let ledger = load.finish().await;
    until("everything is stored", async || {
        usize::try_from(db.count("SELECT count(*) FROM telemetry_raw").await) == Ok(ledger.counts().1)
    })
    .await;
    ledger.check_kept(&db.client).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test]
async fn a_retained_copy_of_what_is_known_changes_nothing() {
    let db = Database::fresh().await;
    admit(&db).await;
    let broker = Mosquitto::start().await;
    let topic = "iot/status/t-001/f-001/b-001/d-1";
    let status = |status: &str| {
        let body =
            json!({"device_id": "d-1", "status": status, "ts": "2026-02-12T09:00:00+00:00", "message": ""});
        Publish { is_retained: true, ..at_least_once(topic, body.to_string()) }
    };
    let row = async || {
        let sql = "SELECT state, last_seen_at::text, updated_at::text FROM device_last_seen WHERE device_id = 'd-1'";
        let row = db.client.query_opt(sql, &[]).await.expect("the query is right");
        row.map(|row| (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, String>(2)))
    };
    let mut device = Device::connect(broker.address, "d-1").await;
    device.put(&status("online")).await;

    // A copy of what nobody knew is applied, and says when it was true.
    let mut first = Engine::start(settings(&db, &broker)).await;
    until("the copy arrives", async || row().await.is_some()).await;
    let (state, seen_at, _) = row().await.expect("it was just there");
    assert_eq!(state, "online");
    assert!(seen_at.starts_with("2026-02-12 09:00:00"), "{seen_at}");
    device.put(&status("online")).await;
    until("a live message is a sign of life", async || row().await.is_some_and(|row| row.1 != seen_at)).await;
    let known = row().await;
    assert_eq!(first.terminate().await.code, Some(0));

    // A new session gets the copy again, and whatever comes behind it shows that it was taken.
    let mut second = Engine::start(settings(&db, &broker).set("mqtt.client_id", "another")).await;
    linked(&second).await;
    until("the copy arrives", async || second.json("/api/v1/ingress/stats").await["messages_total"] == 1)
        .await;
    let event_id = new_event_id();
    device.put(&reading("d-2", &event_id)).await;
    until("the reading is stored", async || {
        db.count(&format!("SELECT count(*) FROM telemetry_raw WHERE event_id = '{event_id}'")).await == 1
    })
    .await;
    assert_eq!(row().await, known);
    device.put(&status("offline")).await;
    until("a live message is applied", async || row().await.is_some_and(|row| row.0 == "offline")).await;
    assert_eq!(second.terminate().await.code, Some(0));
}

/// Runs the program with the settings of an engine.
fn program(settings: &Settings, arguments: &[&str]) -> Command {
    let mut program = Command::new(binary());
    program.args(arguments).env_clear().envs(settings.variables()).kill_on_drop(true);
    program
}

async fn say(settings: &Settings, arguments: &[&str]) -> String {
    let output = program(settings, arguments).output().await.expect("the program can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?} {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A device that speaks to an encrypted broker.
struct Encrypted(TlsStream<TcpStream>);

impl Encrypted {
    /// Connects; `None` when it is not let in. Mosquitto may close the connection before its answer is out.
    async fn login(broker: &Mosquitto, ca: &Authority, (user, password): (&str, &str)) -> Option<Self> {
        let (user, password) = (Some(user.to_owned()), Some(password.to_owned()));
        let login = Login { user, password, ..tests::device::login("new") };
        let mut stream = connect(broker.address, ca, &TLS13, None).await.expect("it is let in");
        stream.write_all(&connect_packet(&login).expect("a packet")).await.expect("it reads");
        let mut answer = [0; 4];
        let is_answered = stream.read_exact(&mut answer).await.is_ok();
        (is_answered && answer[3] == 0).then_some(Self(stream))
    }

    /// Publishes and waits for the acknowledgement; false when the connection ends instead.
    async fn put(&mut self, publish: &Publish) -> bool {
        let (mut packet, mut answer) = (Vec::new(), [0; 4]);
        put_publish(&mut packet, publish, 1, false);
        self.0.write_all(&packet).await.expect("it reads");
        self.0.read_exact(&mut answer).await.is_ok() && answer[..2] == [0x40, 2]
    }
}

/// Writes the files of a Mosquitto whenever something changes.
fn watch(settings: &Settings, out: &str, broker: &Mosquitto) -> Child {
    let pid_file = broker.pid_file().display().to_string();
    let arguments = ["broker-config", "mosquitto", "--out", out, "--watch", "--pid-file", &pid_file];
    program(settings, &arguments).stdout(Stdio::null()).spawn().expect("it can be started")
}

fn encrypted_lines(out: &Path, ca: &Authority) -> String {
    let (cert, key) = ca.server().write(out);
    format!("certfile {}\nkeyfile {}\ninclude_dir {}", cert.display(), key.display(), out.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mosquitto_is_told_who_may_come_in_and_who_no_longer_may() {
    let db = Database::fresh().await;
    admit(&db).await;
    db.set_password("t-001", "d-1", "legacy", "secret").await;
    let (ca, place, address) =
        (Authority::new("servers"), tempfile::tempdir().expect("a directory"), free_address());
    let ca_file = place.path().join("ca.crt");
    std::fs::write(&ca_file, ca.pem()).expect("a file can be written");
    let out = place.path().display().to_string();
    let settings = Settings::of(&db.url)
        .set("mqtt.mode", "external")
        .set("mqtt.url", &format!("mqtts://localhost:{}", address.port()))
        .set("mqtt.tls_ca", &ca_file.display().to_string())
        .set("mqtt.username", "engine")
        .set("mqtt.password", "the engine's own");
    let add = [
        "device", "add", "--json", "--tenant", "t-001", "--farm", "f-001", "--barn", "b-001", "--device",
        "new",
    ];
    let issued: serde_json::Value = serde_json::from_str(&say(&settings, &add).await).expect("JSON");
    let login = (issued["username"].as_str().unwrap(), issued["password"].as_str().unwrap());
    let report = say(&settings, &["broker-config", "mosquitto", "--out", &out]).await;
    assert!(report.contains("1 devices may log in") && report.contains("left out: d-1 of t-001"), "{report}");

    let broker = Mosquitto::start_with(address, &encrypted_lines(place.path(), &ca)).await;
    let mut engine = Engine::start(settings.clone()).await;
    linked(&engine).await;
    assert!(Encrypted::login(&broker, &ca, (login.0, "guess")).await.is_none());
    let mut device = Encrypted::login(&broker, &ca, login).await.expect("its own password");
    // Some versions acknowledge what they deny and drop, others close the connection, too.
    device.put(&reading("d-2", &new_event_id())).await;
    let mut device = Encrypted::login(&broker, &ca, login).await.expect("its own password");
    assert!(device.put(&reading("new", &new_event_id())).await);
    until("its own reading is stored", async || db.count("SELECT count(*) FROM telemetry_raw").await == 1)
        .await;
    assert_eq!(db.count("SELECT count(*) FROM telemetry_raw WHERE device_id = 'new'").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM ingress_rejects").await, 0, "the broker dropped the other");

    let _watch = watch(&settings, &out, &broker);
    say(&settings, &["device", "revoke", "--tenant", "t-001", "--device", "new"]).await;
    let ended = device.0.read(&mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(Encrypted::login(&broker, &ca, login).await.is_none());
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_trusts_only_the_authority_it_is_told_to() {
    let db = Database::fresh().await;
    let (ca, place, address) =
        (Authority::new("servers"), tempfile::tempdir().expect("a directory"), free_address());
    let ca_file = place.path().join("ca.crt");
    std::fs::write(&ca_file, Authority::new("others").pem()).expect("a file can be written");
    let lines = format!("allow_anonymous true\n{}", encrypted_lines(place.path(), &ca));
    let _broker = Mosquitto::start_with(address, &lines).await;
    let settings = Settings::of(&db.url)
        .set("mqtt.mode", "external")
        .set("mqtt.url", &format!("mqtts://localhost:{}", address.port()))
        .set("mqtt.tls_ca", &ca_file.display().to_string());
    let mut engine = Engine::start(settings).await;
    until("the stranger is turned away", async || engine.log().contains("link to the broker is down")).await;
    assert_eq!(engine.json("/api/v1/ingress/stats").await["mqttConnected"], false);
    std::fs::write(&ca_file, ca.pem()).expect("a file can be written");
    linked(&engine).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}
