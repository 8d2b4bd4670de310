//! A barn that is broken by a plan, and the judge that says whether anything was lost: it must find what was planted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use loadtest::chaos::plan::Plan;
use loadtest::chaos::{self, fault::Kind};
use loadtest::cloud;
use loadtest::ledger::{Entry, Ledger, Outcome, sha256};
use loadtest::mqtt::Publish;
use loadtest::verify::findings::{Findings, Rule};
use loadtest::verify::{self, judge};
use schema::clock::Clock;
use serde_json::Value;
use tempfile::TempDir;
use tests::barn::Barn;
use tests::device::{TENANT, new_event_id, reading};
use tests::engine::binary;
use tokio::process::Command;
use tokio::sync::watch;

/// The seed of the short run: it has a kill of each process, a lost line, and a cloud that fails.
const SEED: u64 = 3;
/// How long its devices are at work.
const LASTS: Duration = Duration::from_secs(36);
/// What a machine without special rights can do.
const FAULTS: [Kind; 8] = [
    Kind::EngineKill,
    Kind::PostmasterKill,
    Kind::BackendTerminate,
    Kind::DatabaseHalfOpen,
    Kind::CloudMode,
    Kind::DevicesCut,
    Kind::Duplicates,
    Kind::Reorder,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_of_chaos_loses_nothing() {
    let settings = chaos::Settings {
        seed: SEED,
        lasts: LASTS,
        engine: Some(binary()),
        keep: None,
        only: FAULTS.to_vec(),
        lists: false,
        json: None,
        recovery_max: Duration::from_secs(60),
        wait: Duration::from_secs(90),
    };
    let plan = Plan::draw(settings.seed, settings.lasts, &settings.only);
    assert!(plan.faults.len() >= 4, "{:?}", plan.lines());
    let run = chaos::carry_out(&settings, &plan, watch::channel(false).1).await.expect("the run can be made");
    println!("{}\n{}", plan.lines().join("\n"), run.findings.lines().join("\n"));
    assert!(run.findings.is_good());
    assert!(run.findings.counts["acknowledged"] > 100, "{:?}", run.findings.counts);
    assert_eq!(run.faults.len(), plan.faults.len());
    assert!(run.faults.iter().all(|fault| !fault.is_skipped), "{:?}", run.faults);
    assert!(run.series.len() > 20 && run.recovered_seconds.is_some());
}

/// A barn that has taken some readings, and what a judge needs.
struct Court {
    barn: Barn,
    files: TempDir,
    sent: Vec<String>,
}

impl Court {
    async fn hear() -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let events_file = Some(files.path().join("cloud.jsonl"));
        let barn =
            Barn::start_judged(cloud::Settings { events_file, ..cloud::Settings::default() }, |s| s).await;
        let sent: Vec<String> = (0..20).map(|_| new_event_id()).collect();
        let messages: Vec<Publish> = sent.iter().map(|id| reading("d-1", id)).collect();
        barn.device("d-1").await.put_all(messages.clone()).await;
        let ledger = Ledger::open(Some(&files.path().join("ledger.jsonl"))).expect("a new file");
        let entries: Vec<_> = messages.iter().zip(&sent).map(|(message, id)| entry(message, id)).collect();
        ledger.append(&entries).expect("there is room");
        ledger.finish().expect("there is room");
        barn.delivered(20).await;
        Self { barn, files, sent }
    }

    fn settings(&self) -> verify::Settings {
        verify::Settings {
            ledger: Some(self.files.path().join("ledger.jsonl")),
            cloud: Some(format!("http://{}", self.barn.cloud.address())),
            cloud_events: Some(self.files.path().join("cloud.jsonl")),
            database_url: Some(self.barn.db.url.clone()),
            wait: Duration::from_secs(30),
            ..verify::Settings::default()
        }
    }

    #[expect(clippy::print_stdout, reason = "what the judge says is worth a look")]
    async fn findings(&self) -> Findings {
        let findings = judge(&self.settings()).await.expect("everything can be read");
        println!("{}", findings.lines().join("\n"));
        findings
    }
}

fn entry(message: &Publish, event_id: &str) -> Entry {
    Entry {
        at: Clock::system().now(),
        tenant_id: Some(TENANT.to_owned()),
        device_id: Some("d-1".to_owned()),
        event_id: Some(event_id.to_owned()),
        topic: message.topic.to_string(),
        sha256: sha256(&message.payload),
        outcome: Outcome::Acknowledged,
        reason_code: 0,
        event_type: Some("telemetry.reading".to_owned()),
    }
}

/// The ids that a rule names.
fn named(findings: &Findings, rule: Rule) -> Vec<&str> {
    findings.checks[&rule].first.iter().map(|difference| difference.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_barn_is_good_and_a_row_that_was_deleted_by_hand_is_missed() {
    let court = Court::hear().await;
    let findings = court.findings().await;
    assert!(findings.is_good());
    assert_eq!((findings.counts["stored"], findings.figures()["lost"]), (20, 0));
    let lost = &court.sent[7];
    court.barn.db.execute(&format!("DELETE FROM telemetry_raw WHERE event_id = '{lost}'")).await;
    let findings = court.findings().await;
    assert_eq!(named(&findings, Rule::Kept), [lost]);
    assert_eq!(findings.figures()["lost"], 1);
    assert!(!findings.is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_nobody_sent_and_a_value_that_was_changed_are_found() {
    let court = Court::hear().await;
    let db = &court.barn.db;
    let columns =
        "tenant_id, farm_id, barn_id, device_id, metric_type, metric_value, unit, occurred_at, ingested_at";
    db.execute(&format!(
        "INSERT INTO telemetry_raw (id, event_id, {columns}) SELECT gen_random_uuid(), 'foreign', {columns} \
         FROM telemetry_raw LIMIT 1"
    ))
    .await;
    let changed = &court.sent[3];
    db.execute(&format!(
        "UPDATE telemetry_raw SET metric_value = metric_value + 1 WHERE event_id = '{changed}'"
    ))
    .await;
    let findings = court.findings().await;
    assert_eq!(named(&findings, Rule::Invented), ["foreign"]);
    assert_eq!(named(&findings, Rule::Queued), ["foreign"]);
    assert_eq!(named(&findings, Rule::DeliveredContent), [changed]);
    assert_eq!(findings.differences(Rule::Kept), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_than_the_one_that_was_sent_is_found_and_a_refusal_is_named() {
    let court = Court::hear().await;
    let other = reading("d-1", &court.sent[0]);
    // Another device publishes what it may not, and is told that it was taken.
    let refused = new_event_id();
    let stranger = reading("d-99", &refused);
    court.barn.device("d-99").await.put(&stranger).await;
    let ledger = Ledger::open(Some(&court.files.path().join("ledger.jsonl"))).expect("a new file");
    ledger.append(&[entry(&stranger, &refused)]).unwrap();
    let forged = Entry { sha256: sha256(b"something else"), ..entry(&other, &new_event_id()) };
    ledger.append(&[forged]).unwrap();
    ledger.finish().expect("there is room");
    court
        .barn
        .db
        .execute(&format!("UPDATE ingress_dedupe SET hash = 'ff' WHERE event_id = '{}'", court.sent[5]))
        .await;
    let findings = court.findings().await;
    assert_eq!(named(&findings, Rule::Content), [&court.sent[5]]);
    assert_eq!(named(&findings, Rule::Accepted), [&refused]);
    assert_eq!(findings.refused["DEVICE_NOT_ALLOWED"], 1);
    assert_eq!(findings.differences(Rule::Kept), 1, "what was acknowledged and never sent is nowhere");
}

fn loadtest_binary() -> PathBuf {
    binary().with_file_name("farmiq-loadtest")
}

async fn loadtest(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(loadtest_binary()).args(arguments).output().await.expect("the program can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn the_program_shows_the_same_plan_for_the_same_seed() {
    let list = |seed: &'static str| async move {
        let (code, plan) = loadtest(&["chaos", "--seed", seed, "--minutes", "3", "--list"]).await;
        assert_eq!(code, Some(0));
        plan
    };
    let plan = list("7").await;
    assert!(plan.lines().count() > 20, "{plan}");
    assert_eq!(list("7").await, plan);
    assert_ne!(list("8").await, plan);
    let (_, only) = loadtest(&["chaos", "--seed", "7", "--only", "engine-kill", "--list"]).await;
    assert!(!only.is_empty() && only.lines().all(|line| line.contains("engine-kill")), "{only}");
}

#[tokio::test]
async fn the_program_takes_an_empty_ledger_for_no_proof() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    let cloud = cloud::PretendCloud::start(cloud::Settings::default()).await.unwrap();
    let url = format!("http://{}", cloud.address());
    std::fs::write(path("ledger"), "").unwrap();
    let json = path("judgment.json");
    let arguments = ["verify", "--ledger", &path("ledger"), "--cloud", &url, "--json", &json];
    let (code, said) = loadtest(&arguments).await;
    assert_eq!(code, Some(1), "{said}");
    let judgment: Value = serde_json::from_slice(&std::fs::read(Path::new(&json)).unwrap()).unwrap();
    assert_eq!(judgment["is_good"], false);
    assert_eq!(judgment["checks"]["ledger"]["differences"], 1);
    let (code, _) = loadtest(&["verify", "--ledger", &path("nothing"), "--cloud", &url]).await;
    assert_eq!(code, Some(2), "a ledger that is not there");
}
