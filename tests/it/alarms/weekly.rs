//! The drill of the week with the real program: by the schedule, out by every way, answered or overdue.

use chrono::Duration;
use schema::clock::Clock;
use serde_json::json;
use tests::device::TENANT;
use tests::engine::{Engine, binary};
use tests::faketime::FakeTime;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::process::Command;

use super::database;
use crate::ways::siren::{siren, ways};

async fn overdue(db: &Database) -> Option<String> {
    let sql = "SELECT state FROM alarms WHERE rule_id = 'drill_overdue'";
    db.client.query_opt(sql, &[]).await.expect("the query is right").map(|row| row.get(0))
}

async fn drills(db: &Database, result: &str, by: &str) -> i64 {
    let sql = "SELECT count(*) FROM alarm_drills WHERE is_scheduled AND author = 'schedule' AND result = $1
        AND coalesce(acknowledged_by, '') = $2";
    db.client.query_one(sql, &[&result, &by]).await.expect("the query is right").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drill_of_the_week_is_answered_and_a_week_later_nobody_does() {
    let db = database().await;
    let clock = FakeTime::off_by(Duration::zero());
    let planned = Clock::system().now() - Duration::minutes(2);
    let settings = Settings::of(&db.url)
        .set("alarms.ways", &ways())
        .set("alarms.drill_at", &planned.format("%a %H:%M").to_string().to_lowercase());
    let mut engine = Engine::start(clock.of(settings)).await;
    let mut siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let command = siren.heard("command", 1).await;
    assert_eq!(
        (&command["sounds"], &command["kind"], &command["rule"]),
        (&json!(true), &json!("drill"), &json!("drill")),
        "{command}"
    );
    siren.tell("press").await;
    until("it is written who answered", async || drills(&db, "answered", "d-1 (button)").await == 1).await;
    until("it falls silent", async || {
        siren.said("command").last().is_some_and(|said| said["sounds"] == false)
    })
    .await;
    until("no drill is overdue", async || overdue(&db).await.is_none_or(|state| state != "UNACK")).await;
    let listed = Command::new(binary())
        .args(["alarm", "drills", "--tenant", TENANT])
        .env_clear()
        .envs(engine.settings.variables())
        .output()
        .await
        .expect("the program can be run");
    let listed = String::from_utf8([listed.stdout, listed.stderr].concat()).expect("text");
    assert!(listed.contains("answered") && listed.contains("d-1 (button)"), "{listed}");

    // A week later it is held again, and whoever hears it does nothing.
    let rang = async || siren.said("command").iter().filter(|said| said["sounds"] == true).count();
    let before = rang().await;
    clock.set(Duration::days(7));
    until("it is held again", async || drills(&db, "waiting", "").await == 1 && rang().await > before).await;
    clock.set(Duration::days(7) + Duration::minutes(31));
    until("nobody answered", async || drills(&db, "unanswered", "").await == 1).await;
    until("a drill is overdue", async || overdue(&db).await.as_deref() == Some("UNACK")).await;
    until("it falls silent", async || {
        siren.said("command").last().is_some_and(|said| said["sounds"] == false)
    })
    .await;
    assert!(engine.log().contains("nobody answered a drill"));
    assert_eq!(db.count("SELECT count(*) FROM alarm_drills").await, 2, "one a week");
    assert_eq!(engine.terminate().await.code, Some(0));
}
