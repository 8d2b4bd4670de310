//! A box with a database of its own is backed up while it works, lost, and restored.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use loadtest::cloud::{self, Mode, PretendCloud};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::device::TENANT;
use tests::engine::{Engine, binary, signal};
use tests::load::{Load, LoadSettings};
use tests::objects::{ACCESS_KEY, BUCKET, Objects, SECRET_KEY};
use tests::picture::jpeg_of;
use tests::postgres::connect;
use tests::settings::Settings;
use tests::wait::until;
use tokio_postgres::Client;

mod cut;

static IMAGE: &[u8] = &jpeg_of::<50_000>();
const PASSPHRASE: &str = "four hens on a rusty gate";
const EDGE: &str = "edge-of-the-barn";

/// A box that `up` runs, with a directory that the server's user can reach.
struct Barn {
    engine: Engine,
    client: Client,
}

impl Barn {
    async fn start(settings: Settings) -> Self {
        let mut engine = Engine::stopped(settings);
        engine.spawn_as("up");
        until("the box runs", async || engine.log().contains("\"farmiq-edge runs\"")).await;
        let socket = engine.settings.data_dir().join("socket");
        let client = connect(&format!("host={} user=farmiq dbname=farmiq", socket.display())).await;
        Self { engine, client }
    }

    async fn admit(&self) {
        for number in 0..10 {
            let sql = format!(
                "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) \
                 VALUES ('{TENANT}', 'd-{number}', 'f-001', 'b-001')"
            );
            self.client.batch_execute(&sql).await.expect("the statement is right");
        }
    }

    /// Ends it in order.
    async fn end(mut self) {
        assert_eq!(self.engine.terminate().await.code, Some(0));
    }

    /// Takes engine and server away at once, as a dying machine does.
    async fn destroy(mut self) {
        let pid_file = self.engine.settings.data_dir().join("postgres/postmaster.pid");
        let text = std::fs::read_to_string(pid_file).expect("the server runs");
        let pid = text.lines().next().and_then(|line| line.parse().ok()).expect("a number");
        self.engine.kill().await;
        signal(pid, rustix::process::Signal::KILL);
        std::fs::remove_dir_all(self.engine.settings.data_dir()).expect("it can be removed");
    }
}

/// Settings of a box with a database of its own.
fn settings() -> Settings {
    let settings = Settings::of("");
    open(settings.data_dir());
    let base = format!("http://{}", settings.http);
    settings
        .set("edge.id", EDGE)
        .set("media.public_base_url", &base)
        .set("retention.free_disk_gb_min", "0")
        .set("inference.enabled", "false")
        .set("ops.check_seconds", "1")
        .set("backup.passphrase", PASSPHRASE)
}

/// The same box on another machine: with an empty directory and other ports.
fn elsewhere(settings: &Settings) -> Settings {
    let other = settings.elsewhere();
    open(other.data_dir());
    let base = format!("http://{}", other.http);
    other.set("edge.id", EDGE).set("media.public_base_url", &base)
}

/// Root has PostgreSQL run as another user, who must get to its directory.
fn open(directory: &Path) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("it is ours");
}

/// Runs a command of the program to its end.
async fn run(settings: &Settings, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    command.args(arguments).env_clear().envs(settings.variables());
    command.output().await.expect("the program can be run")
}

/// The report of a command that went well.
async fn report(settings: &Settings, arguments: &[&str]) -> Value {
    let output = run(settings, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("a report is JSON")
}

/// What a command says that is to fail.
async fn refusal(settings: &Settings, arguments: &[&str]) -> String {
    let output = run(settings, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn post(http: SocketAddr, path: &str, body: &Value) -> Value {
    let request = Request::post(path)
        .header("host", "edge")
        .header("content-type", "application/json")
        .header("x-tenant-id", TENANT)
        .body(Full::from(body.to_string()))
        .expect("a request");
    let (status, body) =
        loadtest::http::call(&format!("http://{http}"), request).await.expect("the engine answers");
    let body = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status, 200, "{body}");
    body
}

/// Brings an image in as a camera does.
async fn upload(http: SocketAddr) {
    let wish = json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-1",
        "content_type": "image/jpeg", "filename": "left.jpg", "captured_at": "2026-02-12T09:32:15.052Z"});
    let presigned = post(http, "/api/v1/media/images/presign", &wish).await;
    let path = presigned["upload_url"].as_str().and_then(|url| url.splitn(4, '/').nth(3)).expect("a URL");
    let put = Request::put(format!("/{path}"))
        .header("host", "edge")
        .header("content-type", "image/jpeg")
        .body(Full::from(Bytes::from_static(IMAGE)));
    let put = loadtest::http::call(&format!("http://{http}"), put.expect("a request")).await;
    assert!(put.expect("the engine answers").0 < 300);
    let body = json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-1",
        "object_key": presigned["object_key"], "mime_type": "image/jpeg", "size_bytes": IMAGE.len()});
    post(http, "/api/v1/media/images/complete", &body).await;
}

/// Every image below a directory, with its contents.
fn images(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "jpg") {
                let contents = std::fs::read(&path).expect("it is there");
                found.push((path.strip_prefix(root).expect("it lies below").to_owned(), contents));
            }
        }
    }
    found.sort();
    found
}

async fn column(client: &Client, sql: &str) -> HashSet<String> {
    let rows = client.query(sql, &[]).await.expect("the query is right");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_burnt_comes_back_with_all_it_had_acknowledged_before_its_backup() {
    let cloud = PretendCloud::start(cloud::Settings::default()).await.expect("a free port");
    let stick = TempDir::new().expect("a directory");
    let to = stick.path().display().to_string();
    let settings = settings().set("cloud.url", &cloud.url()).set("outbox.backoff_seconds_max", "1");
    let barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    for _ in 0..3 {
        upload(settings.http).await;
    }
    let load = LoadSettings { per_second: 100.0, ..LoadSettings::default() };
    let load = Load::start(settings.mqtt, load);
    load.progress(300).await;
    // What is in the backup waits for a cloud that gets it before the fire: afterwards it gets it again.
    cloud.mode(Mode::Refuse).await;
    load.progress(200).await;
    let before = load.ledger.acked_outbox_ids();
    let backup = report(&settings, &["backup", "--to", &to]).await;
    load.progress(100).await;
    cloud.mode(Mode::Ok).await;
    let ledger = load.stop().await;
    let all = ledger.acked_outbox_ids();
    until("the cloud has every reading", async || all.is_subset(&cloud.ids(TENANT).into_iter().collect()))
        .await;
    let pictures = images(&settings.data_dir().join("media"));
    assert_eq!(pictures.len(), 3);
    barn.destroy().await;

    let again = elsewhere(&settings);
    let restored = report(&again, &["restore", "--from", &to]).await;
    assert_eq!(
        (restored["backup"].clone(), restored["images_missing"].clone()),
        (backup["id"].clone(), json!(0))
    );
    assert!(restored["gap_seconds"].as_i64().is_some_and(|gap| gap >= 0), "{restored}");
    let offered = restored["counts"]["unacknowledged"].as_u64().expect("a number");
    assert!(offered >= 200, "{restored}");
    assert_eq!(images(&again.data_dir().join("media")), pictures);
    let barn = Barn::start(again.clone()).await;
    let stored = column(&barn.client, "SELECT id::text FROM sync_outbox").await;
    let missing: Vec<_> = before.difference(&stored).take(5).collect();
    assert!(missing.is_empty(), "acknowledged before the backup and not in it: {missing:?}, …");
    until("the outbox was offered again", async || {
        column(&barn.client, "SELECT id::text FROM ONLY sync_outbox").await.is_empty()
    })
    .await;
    let deeds = column(&barn.client, "SELECT target FROM audit_log WHERE action = 'restore'").await;
    assert_eq!(deeds, HashSet::from([backup["id"].as_str().expect("a name").to_owned()]));
    // The images are this database's own: nobody has to adopt them.
    until("the store is looked at", async || barn.engine.metric("retention_store_not_ours", "").await == 0.0)
        .await;
    let arrived = cloud.ids(TENANT);
    let once: HashSet<_> = arrived.iter().cloned().collect();
    assert!(arrived.len() == once.len() && all.is_subset(&once), "a hole or a double");
    let verdict = cloud.judge();
    assert_eq!(verdict.violations, []);
    assert!(
        verdict.duplicated >= offered,
        "{} duplicates of {offered} that were offered again",
        verdict.duplicated
    );
    println!(
        "{} readings before the backup, {} in all; {offered} offered again; backup {} s of {} bytes, restore {} s",
        before.len(),
        all.len(),
        backup["took_seconds"],
        backup["database_bytes"],
        restored["took_seconds"]
    );
    barn.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_touched_or_a_place_that_is_taken_is_refused_and_a_drill_leaves_nothing() {
    let stick = TempDir::new().expect("a directory");
    let to = stick.path().display().to_string();
    let settings = settings();
    let barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    upload(settings.http).await;
    let wrong = settings.clone().set("backup.passphrase", "another passphrase");
    report(&settings, &["backup", "--to", &to]).await;
    let first = report(&settings, &["backup", "--to", &to, "--keep", "1"]).await;
    assert_eq!((first["images"].clone(), first["images_new"].clone()), (json!(1), json!(0)));
    assert_eq!(first["deleted"].as_array().map(Vec::len), Some(1));
    assert!(refusal(&wrong, &["backup", "--to", &to]).await.contains("passphrase"));
    let stranger = settings.clone().set("edge.id", "another-barn");
    assert!(refusal(&stranger, &["backup", "--to", &to]).await.contains(EDGE));
    assert!(refusal(&settings, &["backup", "--to", "/nowhere/usb"]).await.contains("mount its disk"));
    until("the engine shows the age of the backup", async || {
        let (_, text) = tests::engine::get(settings.http, "/metrics").await;
        text.contains("\nbackup_age_seconds ")
    })
    .await;

    // The engine goes on working beside a drill, and keeps a restore out.
    let drill = report(&settings, &["restore", "--drill", "--from", &to]).await;
    assert_eq!((drill["is_drill"].clone(), drill["image_files"].clone()), (json!(true), json!(1)));
    assert!(!settings.data_dir().join("drill").exists());
    let in_use = refusal(&settings, &["restore", "--from", &to]).await;
    assert!(in_use.contains("another farmiq-edge uses"), "{in_use}");

    for part in ["keyring.json", "manifest", "database.0000", "belongings.0000", "images"] {
        let path = find(stick.path(), part);
        let whole = std::fs::read(&path).expect("it is there");
        let mut turned = whole.clone();
        let middle = turned.len() / 2;
        turned[middle] ^= 1;
        std::fs::write(&path, turned).expect("it can be written");
        let empty = elsewhere(&settings);
        let refused = refusal(&empty, &["restore", "--from", &to]).await;
        assert!(refused.contains("changed") || refused.contains("damaged"), "{part}: {refused}");
        let left: Vec<_> = std::fs::read_dir(empty.data_dir()).expect("it is there").flatten().collect();
        let is_little = |name: &str| matches!(name, "farmiq-edge.lock" | "media" | "edge-id");
        assert!(left.iter().all(|entry| is_little(&entry.file_name().to_string_lossy())), "{part}: {left:?}");
        assert_eq!(images(&empty.data_dir().join("media")), []);
        std::fs::write(&path, whole).expect("it can be written");
    }
    let again = elsewhere(&settings);
    report(&again, &["restore", "--from", &to]).await;
    assert!(refusal(&again, &["restore", "--from", &to]).await.contains("holds something already"));
    barn.destroy().await;
}

/// A file of a backup by the end of its name; of the images, any.
fn find(root: &Path, part: &str) -> PathBuf {
    let mut folders = vec![if part == "images" { root.join(part) } else { root.to_owned() }];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if part == "images" || path.ends_with(part) {
                return path;
            }
        }
    }
    panic!("there is no {part}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_does_not_run_is_backed_up_to_a_bucket() {
    let objects = Objects::start().await;
    std::fs::create_dir_all(objects.place("")).expect("it can be made");
    let to = format!("s3://{BUCKET}/backups/barn-1");
    let settings = settings()
        .set("backup.endpoint", &objects.url())
        .set("backup.access_key", ACCESS_KEY)
        .set("backup.secret_key", SECRET_KEY)
        .set("backup.target", &to);
    let mut barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    upload(settings.http).await;
    assert_eq!(barn.engine.terminate().await.code, Some(0));
    let backup = report(&settings, &["backup"]).await;
    let listed = said(&run(&settings, &["backup", "--list"]).await);
    assert!(listed.contains(backup["id"].as_str().expect("a name")), "{listed}");
    assert!(!settings.data_dir().join("postgres/postmaster.pid").exists(), "its server goes on running");
    let again = elsewhere(&settings);
    let restored = report(&again, &["restore"]).await;
    assert_eq!(
        (restored["images_missing"].clone(), restored["counts"]["images"].clone()),
        (json!(0), json!(1))
    );
    for kept in ["signing-secret", "upload-secret"] {
        let read = |settings: &Settings| std::fs::read(settings.data_dir().join(kept)).expect("it is kept");
        assert_eq!(read(&settings), read(&again), "{kept}");
    }
}
