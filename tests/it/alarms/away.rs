//! Alarms while the database is away: what had been stored goes on to ring, and everything is written down afterwards.

use actors::alarm::rule::Rule;
use serde_json::json;
use tests::device::Device;
use tests::engine::Engine;
use tests::server::Server;
use tests::settings::Settings;
use tests::wait::until;

use super::{FINE_C, HOT_C, RULE, furnish, hot_probe, say_celsius};
use crate::ways::siren::{siren, ways};

/// Longer than it takes to stop a database.
const HOLD_SECONDS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_runs_out_without_a_database_rings_and_is_written_down_when_it_is_back() {
    let mut server = Server::start().await;
    let db = server.database().await;
    furnish(&db, &Rule { on_seconds: HOLD_SECONDS, ..hot_probe() }).await;
    drop(db);
    let mut engine = Engine::start(Settings::of(&server.url()).set("alarms.ways", &ways())).await;
    let mut siren = siren("127.0.0.1", engine.settings.mqtt.port()).await;
    // An alarm that comes and goes shows that everything is at work.
    let mut other = Device::connect(engine.settings.mqtt, "d-3").await;
    until("the alarms are at work", async || {
        say_celsius(&mut other, "d-3", HOT_C).await;
        !siren.said("command").is_empty()
    })
    .await;
    say_celsius(&mut other, "d-3", FINE_C).await;
    assert_eq!(siren.heard("command", 2).await["sounds"], json!(false));

    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    server.stop_at_once().await;
    let command = siren.heard("command", 3).await;
    assert_eq!((&command["sounds"], &command["rule"]), (&json!(true), &json!(RULE)), "{command}");
    // Its button is heard without a row, too.
    siren.tell("press").await;
    assert_eq!(siren.heard("command", 4).await["sounds"], json!(false));
    assert!(engine.metric("alarm_unwritten", "").await >= 1.0);

    server.start_again().await;
    let client = server.connect().await;
    let count =
        async |sql: &str| -> i64 { client.query_one(sql, &[]).await.expect("the query is right").get(0) };
    until("it is written down, in its order", async || {
        let kinds = "SELECT coalesce(string_agg(kind, ' ' ORDER BY id), '') FROM alarm_events WHERE place = 'd-2' AND rule_id = 'hot_probe'";
        let kinds: String = client.query_one(kinds, &[]).await.expect("the query is right").get(0);
        kinds == "raised acknowledged"
    })
    .await;
    assert_eq!(
        count(
            "SELECT count(*) FROM alarms WHERE place = 'd-2' AND rule_id = 'hot_probe' AND state = 'ACKED' AND occurrence = 1"
        )
        .await,
        1
    );
    until("so is who was told", async || {
        count("SELECT count(*) FROM alarm_telling_results WHERE failure IS NULL AND confirmed_by = 'd-1'")
            .await
            == 2
    })
    .await;
    until("nothing is left to write", async || engine.metric("alarm_unwritten", "").await == 0.0).await;
    assert_eq!(engine.terminate().await.code, Some(0));
}
