//! An archive for whoever is to help: what is in it, and what is not.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tests::device::TENANT;
use tests::engine::{Engine, binary};
use tests::postgres::Database;
use tests::settings::Settings;
use tokio::process::Command;

/// Secrets of all kinds, none of which is part of another or of an ordinary word.
const DATABASE: &str = "dbpw-7fe2a1";
const MQTT: &str = "mqttpw-91c4d0";
const JWT_SECRET: &str = "jwtsecret-0123456789abcdef0123456789abcdef";
const OPERATOR: &str = "operatorkey-55aa66bb77cc88dd";
const ACCESS_KEY: &str = "s3access-3b1f";
const SECRET_KEY: &str = "s3secret-9d77e2";
const API_KEY: &str = "cloudkey-4410ab";
const HMAC: &str = "cloudhmac-88f0c3";
const AUTHORIZATION: &str = "cloudauth-12ee90";
const HEADER: &str = "cloudheader-6ab7f1";
const PROXY: &str = "proxypw-aa21c9";
const RABBIT: &str = "rabbitpw-0f5e77";
const PASSPHRASE: &str = "backup-passphrase-2c9d";
const UPLOAD: &str = "uploadsecret-0123456789abcdef0123456789abcdef";
const URL_TOKEN: &str = "urltoken-73b0d8";
const SIGNATURE: &str = "deadbeefcafe0123deadbeefcafe0123";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkLTEifQ.c2lnbmF0dXJl";
const PAYLOAD: &str = "hens-of-the-neighbour";

fn settings(database_url: &str) -> Settings {
    let settings = Settings::of(database_url);
    let keep = |name: &str, text: &str| {
        let path = settings.data_dir().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path.display().to_string()
    };
    keep("upload-secret", UPLOAD);
    let passphrase = keep("passphrase", PASSPHRASE);
    let operators = format!(r#"[{{"name":"helper","key":"{OPERATOR}","role":"admin","tenants":["*"]}}]"#);
    settings
        .set("mqtt.username", "engine")
        .set("mqtt.password", MQTT)
        .set("auth.mode", "jwt")
        .set("auth.jwt_secrets", JWT_SECRET)
        .set("auth.operator_keys", &operators)
        .set("media.access_key", ACCESS_KEY)
        .set("media.secret_key", SECRET_KEY)
        .set("media.backend", "filesystem")
        .set("cloud.url", &format!("http://127.0.0.1:1/ingest?token={URL_TOKEN}"))
        .set("cloud.api_key", API_KEY)
        .set("cloud.hmac_secret", HMAC)
        .set("cloud.authorization", &format!("Bearer {AUTHORIZATION}"))
        .set("cloud.headers_json", &format!(r#"{{"x-farm":"{HEADER}"}}"#))
        .set("cloud.proxy", &format!("http://user:{PROXY}@127.0.0.1:2"))
        .set("inference.rabbitmq_url", &format!("amqp://user:{RABBIT}@127.0.0.1:3/v"))
        .with_variable("FARMIQ_BACKUP__PASSPHRASE_FILE", &passphrase)
}

async fn run(settings: &Settings, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().envs(settings.variables());
    command.output().await.expect("the program can be run")
}

/// Writes an archive, and returns the report and everything in the archive as one text.
async fn support(settings: &Settings, log: &Path) -> (Value, String) {
    let out = settings.data_dir().join("help.tar.gz");
    let (out, log) = (out.display().to_string(), log.display().to_string());
    let output = run(settings, &["support", "--json", "--out", &out, "--log", &log]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report is JSON");
    assert!(report["bytes"].as_u64().is_some_and(|bytes| bytes <= 20 * 1024 * 1024), "{report}");
    let unpacked = Command::new("tar").args(["-xzOf", &out]).output().await.expect("tar is there");
    assert!(unpacked.status.success());
    (report, String::from_utf8(unpacked.stdout).expect("texts are UTF-8"))
}

fn is_in(report: &Value, text: &str) -> bool {
    report["texts"].as_array().is_some_and(|texts| texts.iter().any(|name| name == text))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_for_support_has_no_secret_and_no_payload() {
    let db = Database::fresh().await;
    let engine = Engine::start(settings(&format!("{} password={DATABASE}", db.url))).await;
    let settings = &engine.settings;
    db.execute(&format!(
        "INSERT INTO sync_outbox (id, tenant_id, event_type, payload_json) \
         VALUES (gen_random_uuid(), '{TENANT}', 'device.event', '{{\"text\": \"{PAYLOAD}\"}}')"
    ))
    .await;
    let added = run(
        settings,
        &["device", "add", "--json", "--tenant", TENANT, "--farm", "f-1", "--barn", "b-1", "--device", "d-1"],
    )
    .await;
    let added: Value = serde_json::from_slice(&added.stdout).expect("a device was let in");
    let device = added["password"].as_str().expect("a password").to_owned();
    // What a proxy, a device or a person may have written beside the engine's own lines.
    let log = settings.data_dir().join("all.log");
    let lines = format!(
        "{}CONNECT username=t-001/d-1 password={device}\n\
         PUT /api/v1/media/uploads/1?expires=5&signature={SIGNATURE} 204\n\
         GET /api/v1/telemetry Authorization: Bearer {TOKEN}\n\
         a line that is of use\n",
        engine.log()
    );
    std::fs::write(&log, lines).expect("the directory is ours");
    let (report, text) = support(settings, &log).await;
    for secret in [
        DATABASE,
        MQTT,
        JWT_SECRET,
        OPERATOR,
        ACCESS_KEY,
        SECRET_KEY,
        API_KEY,
        HMAC,
        AUTHORIZATION,
        HEADER,
        PROXY,
        RABBIT,
        PASSPHRASE,
        UPLOAD,
        URL_TOKEN,
        SIGNATURE,
        TOKEN,
        PAYLOAD,
        &device,
    ] {
        assert!(
            !text.contains(secret),
            "{secret} is in the archive: {:?}",
            text.lines().find(|l| l.contains(secret))
        );
    }
    for name in [
        "version.txt",
        "configuration.toml",
        "doctor.txt",
        "system.txt",
        "engine/metrics.txt",
        "engine/status.json",
        "database/sizes.json",
        "database/activity.json",
        "log/engine.log",
    ] {
        assert!(is_in(&report, name), "{name} is missing: {report}");
    }
    for use_of_it in [
        "a line that is of use",
        "outbox_pending",
        "\"table\":\"sync_outbox\"",
        "MemTotal",
        "lease_seconds = 300",
    ] {
        assert!(text.contains(use_of_it), "{use_of_it}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_for_support_is_of_use_while_everything_is_away() {
    let settings = settings(&format!("host=/nowhere user=farmiq dbname=farmiq password={DATABASE}"));
    let log = settings.data_dir().join("all.log");
    std::fs::write(&log, "the last words\n").expect("the directory is ours");
    let (report, text) = support(&settings, &log).await;
    assert!(text.contains("FAIL  database") && text.contains("the last words"), "{text}");
    assert!(!text.contains(DATABASE) && !text.contains(URL_TOKEN));
    let missing = report["missing"].to_string();
    assert!(missing.contains("no engine answers") && missing.contains("database"), "{missing}");
}
