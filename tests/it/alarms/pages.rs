//! What people do about alarms on the pages of the console: as plain forms, as far as their role reaches, in the open.

use tests::device::Device;
use tests::engine::Engine;
use tests::http::{Answer, exchange};
use tests::settings::Settings;
use tests::wait::until;
use tokio::net::TcpStream;

use super::people::KEYS;
use super::{HOT_C, RULE, database, say_celsius, state_of};

/// Somebody who has logged in.
struct Visitor<'a> {
    engine: &'a Engine,
    cookie: String,
}

async fn ask(engine: &Engine, method: &str, path: &str, cookie: &str, form: &str) -> Answer {
    let mut stream = TcpStream::connect(engine.settings.http).await.expect("the engine listens");
    let kind = "content-type: application/x-www-form-urlencoded";
    let head = format!("{method} {path} HTTP/1.1\r\ncookie: {cookie}\r\n{kind}");
    exchange(&mut stream, &head, form).await.expect("an answer")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

impl<'a> Visitor<'a> {
    async fn log_in(engine: &'a Engine, name: &str) -> Self {
        let form = format!("key={name}-key-of-the-tests-0123456789&to=%2Falarms");
        let answer = ask(engine, "POST", "/login", "", &form).await;
        assert_eq!((answer.status, header(&answer, "location")), (303, "/alarms"), "{name}: {}", answer.body);
        let cookie = header(&answer, "set-cookie").split(';').next().unwrap_or_default().to_owned();
        Self { engine, cookie }
    }

    async fn get(&self, path: &str) -> Answer {
        ask(self.engine, "GET", path, &self.cookie, "").await
    }

    /// Where the browser is sent after a deed, or the answer's status.
    async fn post(&self, path: &str, form: &str) -> Result<String, (u16, String)> {
        let answer = ask(self.engine, "POST", path, &self.cookie, form).await;
        match answer.status {
            303 => Ok(header(&answer, "location").to_owned()),
            status => Err((status, answer.body)),
        }
    }

    async fn refused(&self, path: &str, form: &str) -> u16 {
        self.post(path, form).await.expect_err("it is refused").0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_seen_on_every_page_and_answered_by_plain_forms() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("auth.operator_keys", KEYS)).await;
    let mut probe = Device::connect(engine.settings.mqtt, "d-2").await;
    say_celsius(&mut probe, "d-2", HOT_C).await;
    until("it rings", async || state_of(&db, "d-2").await == "UNACK").await;
    let id: uuid::Uuid = db
        .client
        .query_one("SELECT id FROM alarms WHERE rule_id = $1", &[&RULE])
        .await
        .expect("the query is right")
        .get(0);
    let [viewer, writer, engineer, stranger] = [
        Visitor::log_in(&engine, "viewer").await,
        Visitor::log_in(&engine, "writer").await,
        Visitor::log_in(&engine, "engineer").await,
        Visitor::log_in(&engine, "stranger").await,
    ];
    let one = format!("/alarms/{id}");

    // Who only looks sees it, and has no form; a stranger sees nothing.
    for path in ["/", "/weights", "/more"] {
        let page = viewer.get(path).await;
        assert!(page.body.contains(r#"id="status" class="pill act""#), "{path}: {}", page.body);
    }
    assert!(viewer.get("/").await.body.contains(&one), "alarms are first on the page of the barn");
    for path in ["/alarms", &one] {
        let page = viewer.get(path).await;
        assert!(page.body.contains("Too much ammonia") && page.body.contains("31.0"), "{}", page.body);
        assert!(!page.body.contains("action=\"/alarms"), "{path}: {}", page.body);
        assert!(writer.get(path).await.body.contains(&format!("action=\"{one}/ack\"")), "{path}");
    }
    assert_eq!(stranger.get(&one).await.status, 404);
    assert!(!stranger.get("/alarms").await.body.contains(&one));
    let deeds = [("ack", ""), ("shelve", "minutes=30&reason=x"), ("unshelve", "")];
    for (deed, form) in deeds {
        let path = format!("{one}/{deed}");
        assert_eq!(viewer.refused(&path, form).await, 403, "{deed}");
        assert_eq!(stranger.refused(&path, form).await, 404, "{deed}");
    }

    // Known, put aside with an end, taken up again: each with the name of who did it.
    let ack = format!("{one}/ack");
    let (status, page) = writer.post(&ack, "occurrence=7").await.expect_err("another occurrence");
    assert!(status == 409 && page.contains("raised anew"), "{page}");
    assert_eq!(writer.post(&ack, "occurrence=1").await.as_deref(), Ok("/alarms?said=done"));
    assert!(viewer.get(&one).await.body.contains("acknowledged by writer"));
    let shelve = format!("{one}/shelve");
    assert_eq!(writer.refused(&shelve, "minutes=30").await, 422, "without a reason");
    assert_eq!(writer.refused(&shelve, "minutes=120&reason=washing").await, 422, "too long for its class");
    let done = format!("{one}?said=done");
    assert_eq!(engineer.post(&shelve, "minutes=30&reason=washing").await.as_ref(), Ok(&done));
    let page = viewer.get("/alarms?show=aside").await.body;
    assert!(page.contains("put aside by engineer") && page.contains("washing"), "{page}");
    assert_eq!(engineer.post(&format!("{one}/unshelve"), "").await.as_ref(), Ok(&done));
    let page = viewer.get("/alarms?show=history").await.body;
    assert!(page.contains("taken up again · engineer"), "{page}");
    let actions = "SELECT count(*) FROM audit_log WHERE tenant_id = 't-001' AND (actor, action) IN (
        ('operator:writer', 'alarm.acknowledge'), ('operator:engineer', 'alarm.shelve'), ('operator:engineer', 'alarm.unshelve'))";
    assert_eq!(db.count(actions).await, 3);

    // What the house is doing.
    assert_eq!(viewer.refused("/alarms/mode", "mode=catching").await, 403);
    assert_eq!(writer.refused("/alarms/mode", "mode=flying").await, 422);
    let put = writer.post("/alarms/mode", "mode=catching&reason=lorry").await;
    assert_eq!(put.as_deref(), Ok("/alarms?show=rules&said=written"));
    let page = viewer.get("/alarms?show=rules").await.body;
    assert!(page.contains("being caught") && page.contains("by writer") && page.contains("lorry"), "{page}");
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_begun_and_answered_on_its_page() {
    let db = database().await;
    let mut engine = Engine::start(Settings::of(&db.url).set("auth.operator_keys", KEYS)).await;
    let (viewer, writer) =
        (Visitor::log_in(&engine, "viewer").await, Visitor::log_in(&engine, "writer").await);
    assert_eq!(viewer.refused("/alarms/drills", "").await, 403);
    until("the drill begins", async || writer.post("/alarms/drills", "").await.is_ok()).await;
    let (status, page) = writer.post("/alarms/drills", "").await.expect_err("one goes on");
    assert!(status == 409 && page.contains("waits for its answer"), "{page}");
    let written = "SELECT count(*) FROM alarm_drills WHERE result = 'waiting'";
    until("it is written down", async || db.count(written).await == 1).await;
    let row = db.client.query_one("SELECT id FROM alarm_drills", &[]).await.expect("the query is right");
    let answer = format!("/alarms/drills/{}/answer", row.get::<_, uuid::Uuid>(0));
    assert!(!viewer.get("/alarms?show=drill").await.body.contains(&answer));
    assert!(writer.get("/alarms?show=drill").await.body.contains(&answer));
    assert_eq!(viewer.refused(&answer, "").await, 403);
    assert_eq!(Visitor::log_in(&engine, "stranger").await.refused(&answer, "").await, 404);
    assert_eq!(writer.post(&answer, "").await.as_deref(), Ok("/alarms?show=drill&said=done"));
    let written =
        "SELECT count(*) FROM alarm_drills WHERE result = 'answered' AND acknowledged_by = 'operator:writer'";
    until("its answer is written down", async || db.count(written).await == 1).await;
    assert_eq!(writer.refused(&answer, "").await, 409, "it is over");
    let page = viewer.get("/alarms?show=drill").await.body;
    assert!(page.contains("begun by writer") && page.contains("answered"), "{page}");
    assert_eq!(engine.terminate().await.code, Some(0));
}
