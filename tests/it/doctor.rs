//! What `farmiq-edge doctor` says of brokers and buckets that let the engine in, and of those that do not.

use std::process::Stdio;

use tests::engine::binary;
use tests::mosquitto::Mosquitto;
use tests::objects::Objects;
use tests::postgres::Database;
use tests::settings::{Settings, free_address};
use tokio::process::Command;

/// Runs the program; the exit code and the report.
async fn doctor(settings: &Settings) -> (Option<i32>, String) {
    let run = Command::new(binary())
        .arg("doctor")
        .env_clear()
        .envs(settings.variables())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the program can be started");
    (run.status.code(), String::from_utf8(run.stdout).expect("a text"))
}

/// The line of a subject, with its verdict.
fn line<'a>(report: &'a str, subject: &str) -> &'a str {
    let is_of = |line: &&str| line.split_whitespace().nth(1) == Some(subject);
    report.lines().find(is_of).unwrap_or_else(|| panic!("no line of {subject}: {report}"))
}

#[tokio::test]
async fn a_broker_is_asked_for_its_login_and_for_what_it_lets_us_hear() {
    let db = Database::fresh().await;
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    // The hash of "right", as mosquitto_passwd writes it.
    let made =
        Command::new("mosquitto_passwd").args(["-b", "-c", &at("users"), "edge", "right"]).status().await;
    assert!(made.expect("mosquitto is installed").success());
    std::fs::write(at("acl"), "user edge\ntopic read iot/#\n").expect("it can be written");
    let lines = format!("allow_anonymous false\npassword_file {}\nacl_file {}", at("users"), at("acl"));
    let broker = Mosquitto::start_with(free_address(), &lines).await;
    let settings = |password: &str| {
        let url = format!("mqtt://{}", broker.address);
        let settings = Settings::of(&db.url).set("mqtt.mode", "external").set("mqtt.url", &url);
        settings.set("mqtt.username", "edge").set("mqtt.password", password)
    };

    let (_, report) = doctor(&settings("right")).await;
    assert!(line(&report, "mqtt").starts_with("ok"), "{report}");
    let (code, report) = doctor(&settings("not-the-one")).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(line(&report, "mqtt").starts_with("FAIL"), "{report}");
    assert!(report.contains("check mqtt.username and mqtt.password"), "{report}");
    assert!(!report.contains("not-the-one"), "a password is never shown: {report}");
}

#[tokio::test]
async fn a_bucket_is_asked_for_every_right_that_is_needed() {
    let db = Database::fresh().await;
    let objects = Objects::start().await;
    std::fs::create_dir(objects.place("any").parent().expect("a bucket")).expect("it is new");
    let settings = objects.of(Settings::of(&db.url));

    let (_, report) = doctor(&settings).await;
    assert!(line(&report, "images").starts_with("ok"), "{report}");
    let (code, report) = doctor(&settings.set("media.secret_key", "another secret")).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(line(&report, "images").starts_with("FAIL"), "{report}");
    assert!(report.contains("media.access_key and secret_key"), "{report}");
}
