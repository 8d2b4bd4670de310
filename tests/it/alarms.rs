//! The alarms of a barn: from a reading to a siren and back, through kills and outages of the engine's database.

mod away;
mod chain;
mod killed;
mod pages;
mod people;
mod two;
mod weekly;

use actors::alarm::rule::{Mode, Rule, Test};
use actors::alarm::starting;
use actors::alarm::state::Side;
use actors::alarm::way::Class;
use schema::clock::Clock;
use schema::store::alarm::Barn;
use schema::store::alarm::rule::{self as rules, RuleRow};
use serde_json::json;
use tests::barn::admit;
use tests::device::{Device, TENANT, envelope, new_event_id, temperature_topic};
use tests::postgres::Database;

/// A probe beyond this many °C is too hot, at once.
const LIMIT_C: f64 = 30.0;
/// Too hot, and no jump from what is fine.
const HOT_C: f64 = 31.0;
/// Fine.
const FINE_C: f64 = 29.0;
/// The rule that says so.
const RULE: &str = "hot_probe";

/// The barn of all devices.
fn place() -> Barn {
    Barn { tenant_id: TENANT.to_owned(), farm_id: "f-001".to_owned(), barn_id: "b-001".to_owned() }
}

fn hot_probe() -> Rule {
    let template = starting::rules().into_iter().find(|rule| rule.id == "ammonia").expect("it is there");
    Rule {
        id: RULE.to_owned(),
        class: Class::Critical,
        test: Test::Level {
            metric: "temperature".to_owned(),
            side: Side::Above,
            limit: LIMIT_C,
            hysteresis: 0.5,
            mean_minutes: 0,
        },
        on_seconds: 0,
        off_seconds: 0,
        modes: Mode::ALL.to_vec(),
        ..template
    }
}

/// A database with devices and a rule that needs no patience.
async fn database() -> Database {
    let db = Database::fresh().await;
    furnish(&db, &hot_probe()).await;
    db
}

/// Lets devices in, and brings a rule.
async fn furnish(db: &Database, rule: &Rule) {
    admit(db).await;
    let row = RuleRow {
        rule_id: RULE.to_owned(),
        version: 1,
        body: serde_json::to_value(rule).expect("a rule is JSON"),
        reason: None,
        author: "test".to_owned(),
        created_at: Clock::system().now(),
    };
    let put = async |conn: &mut _| rules::put(conn, &place(), &row).await;
    assert!(db.store.run("rule", put).await.expect("the database is there"));
}

/// A device says how warm it is, and is acknowledged.
async fn say_celsius(device: &mut Device, id: &str, celsius: f64) {
    let mut body = envelope(id, &new_event_id(), "telemetry.reading");
    body["payload"] = json!({"value": celsius, "unit": "celsius"});
    device.publish(&temperature_topic(id), body.to_string()).await;
}

/// The state of the alarm of a device.
async fn state_of(db: &Database, device: &str) -> String {
    let sql = "SELECT state FROM alarms WHERE rule_id = $1 AND place = $2";
    let row = db.client.query_opt(sql, &[&RULE, &device]).await.expect("the query is right");
    row.map_or_else(|| "NORM".to_owned(), |row| row.get(0))
}

/// What happened to the alarms of the rule, in its order.
async fn kinds(db: &Database) -> Vec<String> {
    let sql = "SELECT kind FROM alarm_events WHERE rule_id = $1 ORDER BY id";
    let rows = db.client.query(sql, &[&RULE]).await.expect("the query is right");
    rows.iter().map(|row| row.get(0)).collect()
}
