//! A box moves to a newer major version of PostgreSQL. The newer one comes from the tests' Python environment.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tests::device::{Device, TENANT, new_event_id, reading};
use tests::engine::{Engine, binary};
use tests::postgres::connect;
use tests::settings::Settings;
use tests::wait::until;
use tokio::process::Command;
use tokio_postgres::Client;

mod full;

/// The programs of a newer version; `None` where its package is not installed.
fn newer_programs() -> Option<PathBuf> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/lib");
    let versions = std::fs::read_dir(library).ok()?.flatten();
    let place = |python: PathBuf| python.join("site-packages/pgserver/pginstall/bin");
    versions.map(|entry| place(entry.path())).find(|place| place.join("pg_upgrade").exists())
}

fn settings() -> Settings {
    let settings = Settings::of("");
    std::fs::set_permissions(settings.data_dir(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    settings
}

async fn up(engine: &mut Engine) -> Client {
    let seen = engine.log().len();
    engine.spawn_as("up");
    until("the box runs", async || engine.log()[seen..].contains("\"farmiq-edge runs\"")).await;
    let socket = engine.settings.data_dir().join("socket");
    connect(&format!("host={} user=farmiq dbname=farmiq", socket.display())).await
}

fn cluster(settings: &Settings, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("cluster").args(arguments).env_clear().envs(settings.variables()).kill_on_drop(true);
    command
}

/// What a command says, and whether it went well.
async fn said(mut command: Command) -> (bool, String) {
    let output = command.output().await.expect("the program can be run");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

async fn admit(client: &Client) {
    let sql = format!(
        "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) VALUES ('{TENANT}', 'd-1', 'f-001', 'b-001')"
    );
    client.batch_execute(&sql).await.expect("the statement is right");
}

async fn version(client: &Client) -> u32 {
    let row = client.query_one("SELECT current_setting('server_version_num')::int / 10000", &[]).await;
    row.expect("the server answers").get::<_, i32>(0).unsigned_abs()
}

async fn readings(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM telemetry_raw", &[]).await.expect("the server answers").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_a_newer_version_and_one_that_was_cut_off_starts_as_ever() {
    let Some(programs) = newer_programs() else {
        println!("skipped: no newer PostgreSQL in target/venv, see tests/requirements.txt");
        return;
    };
    // The box is made by the version of the system, which is found without a search path.
    let settings = settings();
    let with_newer = settings.clone().with_variable("PATH", &format!("{}:/usr/bin:/bin", programs.display()));
    let mut engine = Engine::stopped(settings.clone());
    let client = up(&mut engine).await;
    let old = version(&client).await;
    admit(&client).await;
    let mut device = Device::connect(settings.mqtt, "d-1").await;
    for _ in 0..50 {
        device.put(&reading("d-1", &new_event_id())).await;
    }
    let (is_done, text) = said(cluster(&with_newer, &["upgrade"])).await;
    assert!(!is_done && text.contains("another farmiq-edge uses"), "{text}");
    assert_eq!(engine.terminate().await.code, Some(0));
    let own = settings.data_dir().join("postgres/postgresql.conf");
    let conf = std::fs::read_to_string(&own).expect("it is there") + "work_mem = '7MB'\n";
    std::fs::write(&own, conf).expect("it can be written");

    // Killed in the middle: the old one starts as ever.
    let mut upgrade =
        cluster(&with_newer, &["upgrade"]).stdout(Stdio::null()).spawn().expect("it can be started");
    let draft = settings.data_dir().join("postgres.upgrade/pg_upgrade_output.d");
    until("the copy is under way", async || draft.exists()).await;
    upgrade.kill().await.expect("it can be killed");
    let client = up(&mut engine).await;
    assert_eq!((version(&client).await, readings(&client).await), (old, 50));
    assert_eq!(engine.terminate().await.code, Some(0));

    let (is_done, text) = said(cluster(&with_newer, &["upgrade"])).await;
    assert!(is_done, "{text}");
    let kept = settings.data_dir().join(format!("postgres.{old}"));
    assert!(kept.join("PG_VERSION").exists() && text.contains("cluster forget-old"), "{text}");
    assert!(!settings.data_dir().join("postgres.upgrade").exists());
    let mut engine = Engine::stopped(with_newer.clone());
    let client = up(&mut engine).await;
    assert!(version(&client).await > old);
    assert_eq!(readings(&client).await, 50);
    let work_mem: String = client.query_one("SHOW work_mem", &[]).await.expect("the server answers").get(0);
    assert_eq!(work_mem, "7MB");
    until("the store is looked at", async || engine.metric("retention_store_not_ours", "").await == 0.0)
        .await;
    let mut device = Device::connect(settings.mqtt, "d-1").await;
    device.put(&reading("d-1", &new_event_id())).await;
    assert_eq!(readings(&client).await, 51);
    assert_eq!(engine.terminate().await.code, Some(0));

    let (is_done, text) = said(cluster(&with_newer, &["upgrade"])).await;
    assert!(!is_done && text.contains("no newer PostgreSQL"), "{text}");
    let (is_done, text) = said(cluster(&with_newer, &["forget-old"])).await;
    assert!(is_done && !kept.exists(), "{text}");
}
