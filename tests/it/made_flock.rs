//! A flock of known truth, played into the engine as a program by the program that makes it, and its book compared with it.

use std::process::Stdio;

use tests::barn::admit;
use tests::engine::{Engine, binary};
use tests::postgres::Database;
use tests::settings::Settings;
use tokio::process::Command;

/// Runs `farmiq-loadtest`; its exit code, and what it said.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let program = binary().with_file_name("farmiq-loadtest");
    let command =
        Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = command.expect("the program can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_of_a_made_flock_tells_its_truth() {
    let db = Database::fresh().await;
    admit(&db).await;
    let mut engine = Engine::start(Settings::of(&db.url).set("auth.mode", "compat")).await;
    let folder = tempfile::tempdir().expect("a directory");
    let truth = folder.path().join("truth.json").display().to_string();
    let (broker, edge) = (engine.settings.mqtt.to_string(), format!("http://{}", engine.settings.http));
    let barn = [
        "barn",
        "--broker",
        &broker,
        "--edge",
        &edge,
        "--devices",
        "0",
        "--stations",
        "6",
        "--flock",
        "--history",
        "14d",
        "--weighings-per-day",
        "300",
        "--truth-file",
        &truth,
        "--duration-seconds",
        "0",
        "--seed",
        "5",
    ];
    let (code, said) = run(&barn).await;
    assert_eq!(code, Some(0), "{said}");

    let verify =
        ["verify", "--truth-file", &truth, "--edge", &edge, "--weighings", "4200", "--wait-seconds", "120"];
    let (code, said) = run(&verify).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("14 of 14 days as written down") && said.contains("forecast: "), "{said}");

    // What is not true is found: a death that nobody wrote down, and weighings that are gone.
    let text = std::fs::read_to_string(&truth).expect("the truth");
    let mut other: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    other["days"][3]["dead"] = serde_json::json!(9_999);
    std::fs::write(&truth, other.to_string()).expect("a file");
    let (code, said) = run(&["verify", "--truth-file", &truth, "--edge", &edge, "--weighings", "4201"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("day 3: ") && said.contains("4200 of 4201 weighings"), "{said}");
    assert_eq!(engine.terminate().await.code, Some(0));
}
