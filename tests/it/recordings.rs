//! The program that records and replays, run as a program against the engine as a program.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use loadtest::ledger::{Entries, Outcome};
use loadtest::run::Run;
use rustix::process::Signal;
use tests::barn::admit;
use tests::device::{Device, TENANT, login, new_event_id, reading};
use tests::engine::{Engine, binary, signal};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::site::Site;
use tests::wait::{PATIENCE, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// An operator of the engine, and the key of one who may let devices in.
const KEYS: &str =
    r#"[{ name = "ops", key = "a key that is long enough for it", role = "admin", tenants = ["*"] }]"#;
const KEY: &str = "a key that is long enough for it";
/// Readings of each device.
const READINGS: usize = 10;

/// The program, with everything that it says in one pipe.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary().with_file_name("farmiq-loadtest"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Runs the program to its end; says its exit code and what it said.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tokio::time::timeout(PATIENCE, program(arguments).output()).await;
    let output = output.expect("the program ends").expect("the program can be started");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), said.concat())
}

/// A recorder that is subscribed.
async fn recorder(engine: &Engine, folder: &Path, more: &[&str]) -> Child {
    let (broker, key) = (engine.settings.mqtt.to_string(), key_file(folder));
    let out = folder.join("barn").display().to_string();
    let filter = format!("iot/+/{TENANT}/#");
    let mut arguments =
        vec!["record", "--broker", &broker, "--user", "operator:ops", "--password-file", &key, "--out", &out];
    arguments.extend(["--topic", &filter]);
    arguments.extend(more);
    let mut child = program(&arguments).spawn().expect("the program can be started");
    let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("the recorder connects");
        let line = line.expect("it can be read").expect("the recorder runs");
        if line == "connected" {
            child.stderr = Some(lines.into_inner().into_inner());
            return child;
        }
    }
}

fn key_file(folder: &Path) -> String {
    let path = folder.join("key");
    std::fs::write(&path, KEY).expect("a file can be written");
    path.display().to_string()
}

async fn end_of(child: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("the program ends").expect("it can be waited for");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Two devices publish; returns the file of the recording.
async fn record(engine: &Engine, folder: &Path) -> PathBuf {
    let count = (2 * READINGS).to_string();
    let recorder = recorder(engine, folder, &["--messages", &count]).await;
    for name in ["d-1", "d-2"] {
        let user = Some(name.to_owned());
        let login = loadtest::mqtt::Login { user, password: Some("secret".to_owned()), ..login(name) };
        let mut device = Device::login(engine.settings.mqtt, &login).await;
        device.put_all((0..READINGS).map(|_| reading(name, &new_event_id()))).await;
        device.disconnect().await;
    }
    let (code, said) = end_of(recorder).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("recorded {count} messages")), "{said}");
    folder.join("barn-0001.jsonl.gz")
}

async fn start(settings: impl FnOnce(Settings) -> Settings) -> (Database, Engine) {
    let db = Database::fresh().await;
    admit(&db).await;
    for device in ["d-1", "d-2"] {
        db.set_password(TENANT, device, device, "secret").await;
    }
    let own = Settings::of(&db.url)
        .set("broker.allow_anonymous", "false")
        .set("auth.mode", "jwt")
        .set("auth.operator_keys", KEYS);
    let engine = Engine::start(settings(own)).await;
    (db, engine)
}

async fn stored(db: &Database) -> i64 {
    db.count("SELECT count(*) FROM telemetry_raw").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_replayed_with_own_logins_and_who_is_refused_is_named() {
    let (db, mut engine) = start(|settings| settings).await;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let recording = record(&engine, folder.path()).await.display().to_string();
    assert_eq!(stored(&db).await, 20);

    let (broker, logins, ledger) =
        (engine.settings.mqtt.to_string(), path("logins.csv"), path("ledger.jsonl"));
    let run_file = path("run.json");
    std::fs::write(&logins, "device,username,password\nd-1,d-1,secret\nd-2,d-2,secret\n").expect("a file");
    let arguments = [
        "replay",
        &recording,
        "--broker",
        &broker,
        "--credentials",
        &logins,
        "--speed",
        "max",
        "--new-ids",
        "--ledger",
        &ledger,
        "--run-file",
        &run_file,
    ];
    let (code, said) = run(&arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(stored(&db).await, 40, "a second play with new ids is new data");
    let entries: Vec<_> = Entries::open(Path::new(&ledger)).expect("a ledger").flatten().collect();
    assert_eq!(entries.len(), 20);
    for entry in &entries {
        assert_eq!((entry.outcome, entry.tenant_id.as_deref()), (Outcome::Acknowledged, Some(TENANT)));
        let id = entry.event_id.as_deref().expect("a reading has an id");
        assert_eq!(db.count(&format!("SELECT count(*) FROM telemetry_raw WHERE event_id = '{id}'")).await, 1);
    }

    std::fs::write(&logins, "device,username,password\nd-1,d-1,secret\n").expect("a file");
    let (code, said) = run(&arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("t-001/d-2: 10 messages refused with code") && !said.contains("t-001/d-1:"),
        "{said}"
    );
    assert_eq!(stored(&db).await, 50);
    let run_of = Run::read(Path::new(&run_file)).expect("a run file");
    assert_eq!((run_of.counts["acknowledged"], run_of.counts["refused"]), (10, 10));
    assert_eq!(run_of.refusals[0].device, "t-001/d-2");

    check_report(&path, &run_file).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

async fn check_report(path: &impl Fn(&str) -> String, run_file: &str) {
    let (html, csv) = (path("report.html"), path("report.csv"));
    let report = ["report", run_file, "--html", &html, "--csv", &csv];
    let (code, said) = run(&report).await;
    assert_eq!(code, Some(1), "a run with refusals has failed: {said}");
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("t-001/d-2") && page.contains("<svg"), "{page}");
    let (code, said) = run(&[&report[..], &["--fail-if", "lost>0"]].concat()).await;
    assert_eq!(code, Some(2), "nobody looked for losses: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_else_is_refused_by_its_code() {
    let (_db, mut engine) = start(|settings| settings).await;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("buffer.jsonl");
    let line = |device: &str| {
        let reading = reading(device, &new_event_id());
        let payload = String::from_utf8(reading.payload.to_vec()).expect("a reading is text");
        let line =
            serde_json::json!({"topic": &*reading.topic, "payload": payload, "qos": 1, "retain": false});
        format!("{line}\n")
    };
    std::fs::write(&file, line("d-1") + &line("d-2")).expect("a file can be written");
    let (broker, file) = (engine.settings.mqtt.to_string(), file.display().to_string());
    let password = folder.path().join("password");
    std::fs::write(&password, "secret\n").expect("a file can be written");
    let password = password.display().to_string();
    let as_one = ["replay", &file, "--broker", &broker, "--user", "d-1", "--password-file", &password];
    let (code, said) = run(&as_one).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("t-001/d-2: 1 messages refused with code 0x87: not authorized"), "{said}");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_let_in_and_come_over_tls_and_websockets() {
    let site = Site::new();
    let (db, mut engine) = start(|settings| site.settings_over_https(settings)).await;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let recording = record(&engine, folder.path()).await.display().to_string();
    let (ca, key, logins) =
        (site.ca_file().display().to_string(), key_file(folder.path()), path("logins.csv"));
    let (api, run_file) = (format!("https://localhost:{}", engine.settings.http.port()), path("run.json"));
    let metrics = format!("{api}/metrics");
    let broker = format!("mqtts://{}", site.tls);
    let common =
        ["replay", &recording, "--ca", &ca, "--tls-name", "localhost", "--speed", "max", "--new-ids"];
    let provision = [
        "--broker",
        &broker,
        "--provision",
        &api,
        "--key-file",
        &key,
        "--save-credentials",
        &logins,
        "--copies",
        "2",
        "--metrics-url",
        &metrics,
        "--metrics-key-file",
        &key,
        "--run-file",
        &run_file,
    ];
    let (code, said) = run(&[&common[..], &provision].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    let run_of = Run::read(Path::new(&run_file)).expect("a run file");
    let version = env!("CARGO_PKG_VERSION");
    assert!(run_of.engine.as_ref().is_some_and(|engine| engine.starts_with(version)), "{:?}", run_of.engine);
    assert_eq!(stored(&db).await, 60);
    let copied = "SELECT count(*) FROM telemetry_raw WHERE barn_id = 'b-001-c1' AND device_id = 'd-2-c1'";
    assert_eq!(db.count(copied).await, 10);

    let broker = format!("wss://{}/mqtt", site.wss);
    for version in ["3.1.1", "5"] {
        let over = ["--broker", &broker, "--credentials", &logins, "--mqtt", version, "--shift-times", "due"];
        let (code, said) = run(&[&common[..], &over].concat()).await;
        assert_eq!(code, Some(0), "{version}: {said}");
    }
    assert_eq!(stored(&db).await, 100);

    let certificates = folder.path().join("certificates");
    std::fs::create_dir(&certificates).expect("a directory can be made");
    for device in ["d-1", "d-2"] {
        let (cert, key) = site.device_ca.device(device, Some(TENANT)).pem();
        std::fs::write(certificates.join(format!("{device}.pem")), cert).expect("a file can be written");
        std::fs::write(certificates.join(format!("{device}.key")), key).expect("a file can be written");
    }
    let (broker, folder) = (format!("mqtts://{}", site.tls), certificates.display().to_string());
    let (code, said) = run(&[&common[..], &["--broker", &broker, "--certificates", &folder]].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(stored(&db).await, 120);
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_recorder_ends_its_file_and_hides_what_it_shall() {
    let (_db, mut engine) = start(|settings| settings).await;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let recorder = recorder(&engine, folder.path(), &["--plain", "--redact"]).await;
    let user = Some("d-1".to_owned());
    let login = loadtest::mqtt::Login { user, password: Some("secret".to_owned()), ..login("d-1") };
    let mut device = Device::login(engine.settings.mqtt, &login).await;
    device.put(&reading("d-1", &new_event_id())).await;
    let file = folder.path().join("barn-0001.jsonl");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the reading is in the file", async || text().lines().count() == 2).await;
    signal(recorder.id().expect("it runs"), Signal::INT);
    let (code, said) = end_of(recorder).await;
    assert_eq!(code, Some(0), "{said}");
    let text = text();
    assert_eq!(text.lines().last(), Some(r#"{"end":{"messages":1}}"#), "{text}");
    // A UUID may hold these three letters by chance, but not these signs around them.
    let names = ["/d-1/", "\\\"d-1\\\"", "\"d-1\""];
    assert!(names.iter().all(|name| !text.contains(name)), "{text}");
    assert!(!text.contains(TENANT) && text.contains("/temperature"), "{text}");
    assert_eq!(engine.terminate().await.code, Some(0));
}
