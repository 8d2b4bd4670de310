//! What people do about alarms, over HTTP and from a shell: who may, whose alarms he sees, and what is written down of it.

use serde_json::{Value, json};
use tests::device::{Device, TENANT};
use tests::engine::{Engine, binary};
use tests::http::exchange;
use tests::settings::Settings;
use tests::wait::until;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{FINE_C, HOT_C, RULE, database, say_celsius, state_of};

pub(super) const KEYS: &str = r#"[
    {"name": "chief", "key": "chief-key-of-the-tests-0123456789", "role": "admin", "tenants": ["*"]},
    {"name": "writer", "key": "writer-key-of-the-tests-0123456789", "role": "write", "tenants": ["t-001"]},
    {"name": "engineer", "key": "engineer-key-of-the-tests-0123456789", "role": "act", "tenants": ["t-001"]},
    {"name": "viewer", "key": "viewer-key-of-the-tests-0123456789", "role": "read", "tenants": ["t-001"]},
    {"name": "stranger", "key": "stranger-key-of-the-tests-0123456789", "role": "write", "tenants": ["t-002"]}]"#;

/// Somebody with a key.
struct Caller<'a>(&'a Engine, &'static str);

impl Caller<'_> {
    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.0.settings.http).await.expect("the engine listens");
        let key = format!("x-api-key: {}-key-of-the-tests-0123456789", self.1);
        let head =
            format!("{method} /api/v1/alarms{path} HTTP/1.1\r\n{key}\r\ncontent-type: application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = exchange(&mut stream, &head, &body).await.expect("an answer");
        (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, &body).await
    }
}

/// What a shell says.
async fn shell(settings: &Settings, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(binary())
        .arg("alarm")
        .args(arguments)
        .env_clear()
        .envs(settings.variables())
        .output()
        .await
        .expect("the program can be run");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).expect("text"))
}

fn here() -> Value {
    json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001"})
}

const PLACE: [&str; 6] = ["--tenant", TENANT, "--farm", "f-001", "--barn", "b-001"];
const OF_BARN: &str = "?tenant_id=t-001&farm_id=f-001&barn_id=b-001";

#[tokio::test(flavor = "multi_thread")]
async fn people_acknowledge_put_aside_and_look_on_as_far_as_they_may() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("auth.operator_keys", KEYS)).await;
    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    until("it rings", async || state_of(&db, "d-2").await == "UNACK").await;
    let [_, writer, viewer, stranger] =
        ["chief", "writer", "viewer", "stranger"].map(|name| Caller(&engine, name));

    let (status, list) = viewer.get(&format!("?rule_id={RULE}")).await;
    assert_eq!((status, list["alarms"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
    let alarm = &list["alarms"][0];
    assert_eq!(
        (&alarm["state"], &alarm["value"], &alarm["limit"]),
        (&json!("UNACK"), &json!(HOT_C), &json!(30.0))
    );
    assert_eq!(alarm["title"]["en"], "Too much ammonia", "its rule says what is wrong");
    let id = alarm["id"].as_str().expect("an id");
    let (_, foreign) = stranger.get("").await;
    assert_eq!(foreign["alarms"], json!([]), "{foreign}");
    for (path, body) in
        [("ack", json!({})), ("shelve", json!({"minutes": 5, "reason": "x"})), ("unshelve", json!({}))]
    {
        let path = format!("/{id}/{path}");
        assert_eq!(viewer.post(&path, body.clone()).await.0, 403, "{path}");
        assert_eq!(stranger.post(&path, body).await.0, 404, "{path}");
    }
    assert_eq!(stranger.get(&format!("/{id}")).await.0, 404);

    let ack = format!("/{id}/ack");
    let (status, answer) = writer.post(&ack, json!({"occurrence": 7})).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("ALARM_CONFLICT")), "{answer}");
    let (status, answer) = writer.post(&ack, json!({"occurrence": 1})).await;
    assert_eq!((status, &answer["is_written"]), (200, &json!(true)), "{answer}");
    assert_eq!(
        (&answer["alarm"]["state"], &answer["alarm"]["acknowledged_by"]),
        (&json!("ACKED"), &json!("operator:writer"))
    );
    assert_eq!(writer.post(&ack, json!({})).await.0, 409, "nobody waits");
    let shelve = format!("/{id}/shelve");
    let (status, answer) = writer.post(&shelve, json!({"minutes": 31, "reason": "washing"})).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("must be 1 to 30"), "{answer}");
    let (_, answer) = writer.post(&shelve, json!({"minutes": 30, "reason": "washing"})).await;
    assert_eq!(
        (&answer["alarm"]["state"], &answer["alarm"]["shelf_reason"]),
        (&json!("SHLVD"), &json!("washing"))
    );
    let (_, answer) = writer.post(&format!("/{id}/unshelve"), json!({})).await;
    assert_eq!(answer["alarm"]["state"], "UNACK", "{answer}");
    let actions = "SELECT count(*) FROM audit_log WHERE actor = 'operator:writer' AND tenant_id = 't-001'
        AND action IN ('alarm.acknowledge', 'alarm.shelve', 'alarm.unshelve')";
    assert_eq!(db.count(actions).await, 3);

    // What happened, page by page.
    let mut kinds = Vec::new();
    let mut path = format!("/history?rule_id={RULE}&limit=1");
    loop {
        let (_, page) = viewer.get(&path).await;
        kinds.extend(page["events"].as_array().expect("a list").iter().map(|event| event["kind"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/history?rule_id={RULE}&limit=1&after={next}");
    }
    assert_eq!(kinds, ["unshelved", "shelved", "acknowledged", "raised"]);
    let (_, shown) = viewer.get(&format!("/{id}")).await;
    assert_eq!(shown["events"].as_array().map(Vec::len), Some(4), "{shown}");
    let (_, figures) = viewer.get("/figures").await;
    assert!(figures["raised_24_hours"].as_i64() >= Some(1), "{figures}");

    // The same from a shell, with the first key of the configuration.
    let (is_ok, text) = shell(&engine.settings, &["list"]).await;
    assert!(is_ok && text.contains(id) && text.contains("UNACK"), "{text}");
    let (is_ok, text) = shell(&engine.settings, &["ack", id]).await;
    assert!(is_ok && text.contains("ACKED"), "{text}");
    let (is_ok, text) = shell(&engine.settings, &["ack", id]).await;
    assert!(!is_ok && text.contains("nobody has to acknowledge it"), "{text}");
    let (is_ok, text) = shell(&engine.settings, &["show", id]).await;
    assert!(is_ok && text.contains("by operator:chief"), "{text}");

    // An engineer does all that a writer does.
    let engineer = Caller(&engine, "engineer");
    for (path, body, state) in [
        ("shelve", json!({"minutes": 5, "reason": "washing"}), "SHLVD"),
        ("unshelve", json!({}), "UNACK"),
        ("ack", json!({"occurrence": 1}), "ACKED"),
    ] {
        let (status, answer) = engineer.post(&format!("/{id}/{path}"), body).await;
        assert_eq!((status, &answer["alarm"]["state"]), (200, &json!(state)), "{path}: {answer}");
    }
    // And takes a sensor out of service, which holds until he puts it back.
    let retire = format!("/{id}/out-of-service");
    let reason = json!({"reason": "at the workshop"});
    for caller in [&writer, &viewer, &stranger] {
        assert_eq!(caller.post(&retire, reason.clone()).await.0, 403);
        assert_eq!(caller.post(&format!("/{id}/in-service"), json!({})).await.0, 403);
    }
    assert_eq!(engineer.post(&format!("/{id}/in-service"), json!({})).await.0, 409);
    assert_eq!(engineer.post(&retire, json!({})).await.0, 400, "without a reason");
    let (status, answer) = engineer.post(&retire, reason).await;
    assert_eq!(
        (status, &answer["alarm"]["state"], &answer["alarm"]["out_of_service_reason"]),
        (200, &json!("OOSRV"), &json!("at the workshop")),
        "{answer}"
    );
    engine.kill().await;
    engine.start_again().await;
    until("the engine owns the alarms", async || {
        engine.log().matches("this engine owns the alarms").count() >= 2
    })
    .await;
    assert_eq!(state_of(&db, "d-2").await, "OOSRV");
    until("it is put back", async || shell(&engine.settings, &["in-service", id]).await.0).await;
    assert_eq!(state_of(&db, "d-2").await, "UNACK", "it stands still");
    let (is_ok, text) = shell(&engine.settings, &["out-of-service", id, "--reason", "again"]).await;
    assert!(is_ok && text.contains("OOSRV"), "{text}");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_edited_in_versions_and_a_house_has_a_mode() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("auth.operator_keys", KEYS)).await;
    let [chief, writer, viewer, stranger] =
        ["chief", "writer", "viewer", "stranger"].map(|name| Caller(&engine, name));
    let (_, list) = viewer.get(&format!("/rules{OF_BARN}")).await;
    let find = |name: &str| {
        let rules = list["rules"].as_array().expect("a list");
        rules.iter().find(|found| found["rule"]["id"] == name).expect("it is there").clone()
    };
    let found = find(RULE);
    assert_eq!((&found["version"], &found["author"]), (&json!(1), &json!("test")), "{found}");
    assert_eq!(find("engine_disk")["version"], 0);
    let edit = |change: &dyn Fn(&mut Value), version: i64| {
        let mut body = here();
        body["rule"] = found["rule"].clone();
        (body["version"], body["reason"]) = (version.into(), "it is winter".into());
        change(&mut body["rule"]);
        body
    };
    let colder = |rule: &mut Value| rule["test"]["limit"] = json!(20.0);
    assert_eq!(writer.post("/rules", edit(&colder, 1)).await.0, 403);
    let (status, answer) = chief.post("/rules", edit(&|rule| rule["on_seconds"] = json!(90_000), 1)).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("on_seconds: must be 86400 at most"), "{answer}");
    let (status, answer) = chief.post("/rules", edit(&colder, 1)).await;
    assert_eq!(
        (status, &answer["version"], &answer["author"]),
        (200, &json!(2), &json!("operator:chief")),
        "{answer}"
    );
    assert_eq!(chief.post("/rules", edit(&colder, 1)).await.0, 409, "somebody else was faster");
    let (_, versions) = viewer.get(&format!("/rules/{RULE}/history{OF_BARN}")).await;
    assert_eq!(versions["rules"].as_array().map(Vec::len), Some(2), "{versions}");
    let foreign = format!("/rules{OF_BARN}");
    assert_eq!(stranger.get(&foreign).await.0, 403, "it names another tenant");

    // The new version is in force at once: what was fine is too hot.
    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    until("the new rule is in force", async || {
        say_celsius(&mut probe, "d-2", FINE_C).await;
        state_of(&db, "d-2").await == "UNACK"
    })
    .await;
    // A rule that is switched off has no alarms.
    let off = |rule: &mut Value| rule["is_enabled"] = json!(false);
    assert_eq!(chief.post("/rules", edit(&off, 2)).await.0, 200);
    until("nothing is left of it", async || state_of(&db, "d-2").await == "NORM").await;

    let mut mode = here();
    mode["mode"] = json!("flying");
    assert_eq!(writer.post("/mode", mode.clone()).await.0, 400);
    mode["mode"] = json!("empty");
    assert_eq!(viewer.post("/mode", mode.clone()).await.0, 403);
    assert_eq!(Caller(&engine, "engineer").post("/mode", mode.clone()).await.0, 200);
    assert_eq!(writer.post("/mode", mode).await.0, 200);
    let (_, shown) = viewer.get(&format!("/mode{OF_BARN}")).await;
    assert_eq!(
        (&shown["mode"], &shown["said"]["author"]),
        (&json!("empty"), &json!("operator:writer")),
        "{shown}"
    );
    let (is_ok, text) = shell(&engine.settings, &[&["mode", "growing"], &PLACE[..]].concat()).await;
    assert!(is_ok && text.contains("growing"), "{text}");
    let (is_ok, text) = shell(&engine.settings, &[&["rules"], &PLACE[..]].concat()).await;
    assert!(is_ok && text.contains("house_hot") && text.contains("version 3"), "{text}");
    let (is_ok, text) = shell(&engine.settings, &[&["rule", "show", "ammonia"], &PLACE[..]].concat()).await;
    let file = engine.settings.data_dir().join("ammonia.json");
    std::fs::write(&file, &text).expect("a file can be written");
    assert!(is_ok && serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    let file = file.display().to_string();
    let set = ["rule", "set", &file, "--reason", "as it was"];
    let (is_ok, text) = shell(&engine.settings, &[&set, &PLACE[..]].concat()).await;
    assert!(is_ok && text.contains("version 1"), "{text}");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_goes_out_by_every_way_without_the_internet_and_is_written_down_with_its_answer() {
    let db = database().await;
    let home = tempfile::tempdir().expect("a directory");
    let (sms, told) = (home.path().join("sms"), home.path().join("told"));
    crate::ways::alone::script(&sms, &format!("cat >> {}", told.display()));
    let [tenant, farm, barn] = [TENANT, "f-001", "b-001"];
    let ways = json!({
        "siren": {"kind": "siren", "tenant": tenant, "farm": farm, "barn": barn, "device": "d-1", "answer_seconds": 2},
        "sms": {"kind": "program", "command": [sms], "to": ["+66811112222"]},
        // Nobody listens there: as without the internet.
        "mail": {"kind": "webhook", "url": "http://127.0.0.1:9/", "attempts_max": 1, "timeout_seconds": 2}});
    let settings =
        Settings::of(&db.url).set("auth.operator_keys", KEYS).set("alarms.ways", &ways.to_string());
    let mut engine = Engine::start(settings).await;
    let mut siren = crate::ways::siren::siren("127.0.0.1", engine.settings.mqtt.port()).await;
    let [writer, viewer, stranger] = ["writer", "viewer", "stranger"].map(|name| Caller(&engine, name));
    assert_eq!(viewer.post("/drills", here()).await.0, 403);
    assert_eq!(stranger.post("/drills", here()).await.0, 403, "it names another tenant");
    until("the drill begins", async || writer.post("/drills", here()).await.0 == 200).await;
    assert_eq!(writer.post("/drills", here()).await.0, 409, "it waits for its answer");
    let command = siren.heard("command", 1).await;
    assert_eq!((&command["sounds"], &command["kind"]), (&json!(true), &json!("drill")), "{command}");
    until("an SMS was sent", async || std::fs::read_to_string(&told).unwrap_or_default().contains("DRILL"))
        .await;
    until("what became of each way is written down", async || {
        let results = "SELECT count(*) FROM alarm_telling_results AS r JOIN alarms AS a ON a.id = r.alarm_id
            WHERE a.rule_id = 'drill' AND r.number = 0";
        db.count(results).await == 3
    })
    .await;
    siren.tell("press").await;
    until("it is answered", async || {
        db.count("SELECT count(*) FROM alarm_drills WHERE result = 'answered' AND acknowledged_by = 'd-1 (button)'").await == 1
    })
    .await;
    assert_eq!(siren.heard("command", 2).await["sounds"], json!(false));
    let (_, list) = viewer.get("/drills").await;
    let drill = &list["drills"][0];
    assert_eq!(
        (&drill["author"], &drill["is_scheduled"]),
        (&json!("operator:writer"), &json!(false)),
        "{drill}"
    );
    let failed: Vec<_> = drill["results"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|result| !result["failure"].is_null())
        .collect();
    assert!(failed.len() == 1 && failed[0]["way"] == "mail", "{drill}");
    assert_eq!(stranger.get("/drills").await.1["drills"], json!([]));
    let answer = format!("/drills/{}/answer", drill["id"].as_str().expect("an id"));
    assert_eq!(writer.post(&answer, json!({})).await.0, 409, "it is over");
    assert_eq!(stranger.post(&answer, json!({})).await.0, 404);
    // The way that failed is an alarm of its own.
    until("somebody is to mend it", async || {
        db.count("SELECT count(*) FROM alarms WHERE rule_id = 'engine_way' AND place = 'mail' AND is_active")
            .await
            == 1
    })
    .await;
    let (is_ok, text) = shell(&engine.settings, &["drills"]).await;
    assert!(is_ok && text.contains("answered") && text.contains("NOT TOLD"), "{text}");

    // Another one is answered by hand.
    let (status, answer) = writer.post("/drills", here()).await;
    assert_eq!((status, &answer["alarm"]["occurrence"]), (200, &json!(2)), "{answer}");
    let (_, list) = viewer.get("/drills").await;
    let answer = format!("/drills/{}/answer", list["drills"][0]["id"].as_str().expect("an id"));
    assert_eq!(Caller(&engine, "engineer").post(&answer, json!({})).await.0, 200);
    until("it is written down", async || {
        db.count("SELECT count(*) FROM alarm_drills WHERE acknowledged_by = 'operator:engineer'").await == 1
    })
    .await;
    assert_eq!(engine.terminate().await.code, Some(0));
}
