//! Who is put out: at once, on every replica, and nobody else with him.

use std::net::SocketAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loadtest::mqtt::Login;
use schema::store::access::Touched;
use tests::barn::admit;
use tests::device::{Device, login, new_event_id, reading};
use tests::engine::{Engine, binary};
use tests::http::exchange;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::net::TcpStream;

/// Looking now and then would take an hour.
const NEVER_SECONDS: &str = "3600";

/// Two engines on one database that let in only whom they know.
struct Site {
    db: Database,
    engines: [Engine; 2],
}

impl Site {
    async fn start(refresh_seconds: &str) -> Self {
        let db = Database::fresh().await;
        admit(&db).await;
        for device in ["d-1", "d-2", "d-3", "d-4", "d-5", "d-6"] {
            db.set_password("t-001", device, device, "secret").await;
        }
        let settings = Settings::of(&db.url)
            .set("broker.allow_anonymous", "false")
            .set("device.access_refresh_seconds", refresh_seconds);
        let second = Engine::start(settings.elsewhere()).await;
        Self { db, engines: [Engine::start(settings).await, second] }
    }

    /// A connection of a device at each engine.
    async fn connect(&self, device: &str, password: &str) -> Vec<Device> {
        self.connect_as(device, device, password).await
    }

    /// The same under another client id.
    async fn connect_as(&self, client_id: &str, device: &str, password: &str) -> Vec<Device> {
        let (user, password) = (Some(device.to_owned()), Some(password.to_owned()));
        let login = Login { user, password, ..login(client_id) };
        let mut connections = Vec::new();
        for engine in &self.engines {
            connections.push(Device::login(engine.settings.mqtt, &login).await);
        }
        connections
    }

    /// Runs statements and waits until the device is out everywhere.
    #[expect(clippy::print_stdout, reason = "how long it took is worth a look")]
    async fn put_out(&self, device: &str, sql: &str) {
        let connections = self.connect(device, "secret").await;
        let started = Instant::now();
        self.db.execute(sql).await;
        for connection in connections {
            connection.closed().await;
        }
        println!("{device} was out everywhere {:?} after: {sql}", started.elapsed());
    }

    async fn end(mut self) {
        for engine in &mut self.engines {
            assert_eq!(engine.terminate().await.code, Some(0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_put_out_is_out_at_once_on_every_replica() {
    let site = Site::start(NEVER_SECONDS).await;
    let mut staying = site.connect("d-6", "secret").await;
    site.put_out("d-1", "UPDATE device_credentials SET enabled = false WHERE device_id = 'd-1'").await;
    site.put_out("d-2", "DELETE FROM device_credentials WHERE device_id = 'd-2'").await;
    site.put_out("d-3", "UPDATE device_credentials SET password_hash = 'x' WHERE device_id = 'd-3'").await;
    site.put_out("d-4", "UPDATE device_allowlist SET enabled = false WHERE device_id = 'd-4'").await;
    site.put_out("d-5", "DELETE FROM device_allowlist WHERE device_id = 'd-5'").await;
    for device in &mut staying {
        device.put(&reading("d-6", &new_event_id())).await;
    }
    let many = "INSERT INTO device_allowlist (tenant_id, device_id) SELECT 't-002', 'm-' || n FROM generate_series(1, 10000) n";
    site.db.execute(many).await;
    let started = Instant::now();
    site.db.execute("UPDATE device_allowlist SET enabled = false").await;
    for device in staying {
        device.closed().await;
    }
    println!("the last was out {:?} after ten thousand were disabled", started.elapsed());
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_nobody_was_told_of_is_found_after_the_connection_comes_back() {
    let site = Site::start(NEVER_SECONDS).await;
    let out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN farmiq_access';
        UPDATE device_credentials SET enabled = false WHERE device_id = 'd-1'";
    site.put_out("d-1", out).await;
    site.put_out("d-2", "UPDATE device_credentials SET enabled = false WHERE device_id = 'd-2'").await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_passwords_of_a_rotation_are_good_until_its_overlap_ends() {
    let site = Site::start("1").await;
    let old = site.connect("d-1", "secret").await;
    // Where the hash of one user's password lies does not matter to it.
    let next = "UPDATE device_credentials AS c SET password_hash_next = o.password_hash, overlap_ends_at = now() + interval '1 hour'
        FROM device_credentials AS o WHERE c.device_id = 'd-1' AND o.device_id = 'other'";
    site.db.set_password("t-001", "other", "other", "another").await;
    site.db.execute(next).await;
    let mut new = site.connect_as("new", "d-1", "another").await;
    let started = Instant::now();
    site.db.execute("UPDATE device_credentials SET overlap_ends_at = now() WHERE device_id = 'd-1'").await;
    for device in old {
        device.closed().await;
    }
    println!("the old password was out {:?} after its overlap", started.elapsed());
    for device in &mut new {
        device.put(&reading("d-1", &new_event_id())).await;
    }
    let kept = "SELECT count(*) FROM device_credentials WHERE device_id = 'd-1' AND password_hash_next IS NULL AND overlap_ends_at IS NULL";
    assert_eq!(site.db.count(kept).await, 1, "the old one is forgotten");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lets_in_and_puts_out_and_explains_itself() {
    let site = Site::start(NEVER_SECONDS).await;
    let settings = &site.engines[0].settings;
    let device = async |arguments: &[&str]| command(settings, &[&["device"], arguments].concat()).await;
    let name = ["--tenant", "t-001", "--device", "new"];
    let add = [&["add", "--json", "--farm", "f-001", "--barn", "b-001"], name.as_slice()].concat();
    let (code, text) = device(&add).await;
    assert_eq!(code, Some(0), "{text}");
    let issued: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let (user, password) = (issued["username"].as_str().unwrap(), issued["password"].as_str().unwrap());
    let connections = site.connect_as("new", user, password).await;
    let (code, text) = device(&add).await;
    assert!(code == Some(1) && text.contains("has a password already"), "{text}");
    let (_, text) = device(&["list"]).await;
    assert!(text.contains("t-001/new") && !text.contains(password), "{text}");
    let (code, text) = device(&[&["revoke"], name.as_slice()].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    for connection in connections {
        connection.closed().await;
    }
    let (_, text) = device(&[&["show"], name.as_slice()].concat()).await;
    assert!(text.contains("revoked"), "{text}");
    let deeds = "SELECT count(*) FROM audit_log WHERE target = 'new' AND actor LIKE 'shell:%' AND action IN ('device.add', 'device.revoke')";
    assert_eq!(site.db.count(deeds).await, 2);
    for (arguments, told) in [
        (["revoke", "--tenant", "t-001", "--device", "nobody"], "there is no such device"),
        (["show", "--tenant", "a/b", "--device", "d"], "an id has 1 to 128 bytes"),
        (["list", "--tenant", "t-001", "--overlap", "1"], "unexpected argument"),
    ] {
        let (code, text) = device(&arguments).await;
        assert!(code != Some(0) && text.contains(told), "{arguments:?}: {text}");
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_loses_its_row_is_out_over_http_as_soon_as_over_mqtt() {
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = Settings::of(&db.url)
        .set("auth.mode", "jwt")
        .set("auth.jwt_secrets", "a secret that is as long as it must be")
        .set("device.access_refresh_seconds", NEVER_SECONDS);
    let mut engine = Engine::start(settings).await;
    let http = engine.settings.http;
    for (device, out) in [
        ("d-1", "DELETE FROM device_allowlist WHERE device_id = 'd-1'"),
        ("d-2", "UPDATE device_allowlist SET enabled = false WHERE device_id = 'd-2'"),
    ] {
        db.set_password("t-001", device, device, "secret").await;
        let login = STANDARD.encode(format!("{device}:secret"));
        let (issue, basic) = ("/api/v1/ingress/device-token", format!("Basic {login}"));
        let (status, body) = call(http, "POST", issue, &basic).await;
        assert_eq!(status, 200, "{body}");
        let token: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let bearer = format!("Bearer {}", token["token"].as_str().expect("a token"));
        let read = "/api/v1/telemetry/readings?tenant_id=t-001";
        assert_eq!(call(http, "GET", read, &bearer).await.0, 200);
        db.execute(out).await;
        until("the device is out", async || call(http, "GET", read, &bearer).await.0 == 403).await;
        assert_eq!(call(http, "POST", issue, &basic).await.0, 401);
    }
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// The answer to a call that shows a credential.
async fn call(http: SocketAddr, method: &str, path: &str, authorization: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http).await.expect("the engine listens");
    let head = format!("{method} {path} HTTP/1.1\r\nauthorization: {authorization}");
    let answer = exchange(&mut stream, &head, "").await.expect("an answer");
    (answer.status, answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_logs_in_with_its_name_and_its_key() {
    let db = Database::fresh().await;
    let keys = r#"[{ name = "ops", key = "long key", role = "read", tenants = ["t-001"] }]"#;
    let settings = Settings::of(&db.url)
        .set("broker.allow_anonymous", "false")
        .set("auth.mode", "jwt")
        .set("auth.operator_keys", keys);
    let mut engine = Engine::start(settings).await;
    let mqtt = engine.settings.mqtt;
    let with = |user: &str, password: &str| Login {
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
        ..login("tool")
    };
    for (user, password) in [("operator:ops", "guess"), ("operator:other", "long key"), ("ops", "long key")] {
        let refused = loadtest::mqtt::connect(&mqtt.to_string(), &with(user, password)).await;
        assert!(refused.is_err(), "{user} {password}");
    }
    drop(Device::login(mqtt, &with("operator:ops", "long key")).await);
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// Runs the program with the settings of an engine; says its exit code and what it said.
async fn command(settings: &Settings, arguments: &[&str]) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(binary())
        .args(arguments)
        .env_clear()
        .envs(settings.variables())
        .output()
        .await
        .expect("the program can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn one_statement_is_told_as_one_change_when_it_touches_many() {
    let db = Database::fresh().await;
    let mut news = db.store.access_news().await.expect("the database tells");
    let one = |device: &str| Touched::Device { tenant_id: "t".to_owned(), device_id: device.to_owned() };
    let mut check = async |sql: &str, expected: &[Touched]| {
        db.execute(sql).await;
        for expected in expected {
            assert_eq!(news.next().await.expect("the connection stands"), *expected, "{sql}");
        }
    };
    let insert = "INSERT INTO device_allowlist (tenant_id, device_id)";
    check(&format!("{insert} VALUES ('t', 'a')"), &[one("a")]).await;
    check(&format!("{insert} SELECT 't', 'd-' || n FROM generate_series(1, 10000) n"), &[Touched::Anybody])
        .await;
    check("UPDATE device_allowlist SET device_id = 'b' WHERE device_id = 'a'", &[one("a"), one("b")]).await;
    check("UPDATE device_allowlist SET enabled = false WHERE device_id = 'nobody'", &[]).await;
    check(&format!("{insert} VALUES ('t', 'b') ON CONFLICT DO NOTHING"), &[]).await;
    check(&format!("{insert} VALUES ('t', repeat('x', 9000))"), &[Touched::Anybody]).await;
    check("DELETE FROM device_allowlist WHERE device_id = 'b'", &[one("b")]).await;
    check("TRUNCATE device_allowlist", &[Touched::Anybody]).await;
    let credential = "INSERT INTO device_credentials (username, tenant_id, device_id, password_hash, created_at, updated_at)
        VALUES ('u', 't', 'c', 'x', now(), now())";
    check(credential, &[one("c")]).await;
    check("UPDATE device_credentials SET enabled = false", &[one("c")]).await;
    check("DELETE FROM device_credentials", &[one("c")]).await;
    check("TRUNCATE device_credentials", &[Touched::Anybody]).await;
    check("INSERT INTO station_allowlist (tenant_id, station_id) VALUES ('t', 's')", &[Touched::Anybody])
        .await;
    check("UPDATE station_allowlist SET enabled = false", &[Touched::Anybody]).await;
}
