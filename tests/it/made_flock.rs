//! A flock of known truth, played into the engine as a program by the program that makes it, and its book, the flags of its sensors
//! and its alarms compared with it.

use std::process::Stdio;

use actors::alarm::rule::Rule;
use actors::alarm::starting;
use schema::clock::Clock;
use schema::store::alarm::Barn;
use schema::store::alarm::rule::{self as rules, RuleRow};
use tests::barn::admit;
use tests::device::TENANT;
use tests::engine::{Engine, binary};
use tests::postgres::Database;
use tests::settings::Settings;
use tokio::process::Command;

/// Heat that lasts for two seconds is too hot.
async fn hurry(db: &Database) {
    let rule = starting::rules().into_iter().find(|rule| rule.id == "house_hot").expect("it is there");
    let row = RuleRow {
        rule_id: rule.id.clone(),
        version: 1,
        body: serde_json::to_value(Rule { on_seconds: 2, ..rule }).expect("a rule is JSON"),
        reason: None,
        author: "test".to_owned(),
        created_at: Clock::system().now(),
    };
    let [tenant_id, farm_id, barn_id] = [TENANT, "f-001", "b-001"].map(str::to_owned);
    let barn = Barn { tenant_id, farm_id, barn_id };
    let put = async |conn: &mut _| rules::put(conn, &barn, &row).await;
    assert!(db.store.run("rule", put).await.expect("the database is there"));
}

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
    for probe in loadtest::flock::air::probe_ids() {
        db.allow_device(TENANT, &probe, "f-001", "b-001").await;
    }
    hurry(&db).await;
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
        "--air-hours",
        "8",
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
    assert!(said.contains("of 6 probes") && said.contains("alarms: 3 of 3 raised"), "{said}");

    // What is not true is found: a death that nobody wrote down, and weighings that are gone.
    let text = std::fs::read_to_string(&truth).expect("the truth");
    let mut other: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    other["days"][3]["dead"] = serde_json::json!(9_999);
    other["air"]["alarms"][0]["rule_id"] = "house_cold".into();
    other["air"]["probes"][1]["flags"] = serde_json::json!([]);
    std::fs::write(&truth, other.to_string()).expect("a file");
    let (code, said) = run(&["verify", "--truth-file", &truth, "--edge", &edge, "--weighings", "4201"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("day 3: ") && said.contains("4200 of 4201 weighings"), "{said}");
    assert!(
        said.contains("house_cold : was not raised") && said.contains("air-02 temperature: gap from"),
        "{said}"
    );
    assert_eq!(engine.terminate().await.code, Some(0));
}
