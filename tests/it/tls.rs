//! TLS on the HTTP port: versions, client certificates, deadlines, and files that change.

use std::time::{Duration, Instant};

use engine::config::Http;
use engine::health::{Question, ask};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use serde_json::{Value, json};
use tests::barn::Barn;
use tests::certificates::{Authority, Signed, client, connect, connect_again};
use tests::http::exchange;
use tests::settings::Settings;
use tests::wait::until;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const READINGS: &str = "POST /api/v1/telemetry/readings HTTP/1.1\r\ncontent-type: application/json";
const HEALTH: &str = "GET /api/health HTTP/1.1";

/// Settings of an engine whose port speaks TLS, with two authorities for devices.
struct Site {
    server_ca: Authority,
    device_cas: [Authority; 2],
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let device_cas = [Authority::new("old devices"), Authority::new("new devices")];
        Self { server_ca: Authority::new("servers"), device_cas, directory }
    }

    fn settings(&self, settings: Settings) -> Settings {
        let (cert, key) = self.server_ca.server().write(self.directory.path());
        let client_ca = self.directory.path().join("devices.pem");
        let pem: String = self.device_cas.iter().map(Authority::pem).collect();
        std::fs::write(&client_ca, pem).expect("a file can be written");
        settings
            .set("http.tls_cert", &cert.display().to_string())
            .set("http.tls_key", &key.display().to_string())
            .set("http.client_ca", &client_ca.display().to_string())
            .set("auth.mode", "mtls")
    }

    /// Posts one reading of a device with a certificate.
    async fn post(
        &self,
        barn: &Barn,
        version: &'static SupportedProtocolVersion,
        own: Option<&Signed>,
        device_id: &str,
    ) -> std::io::Result<(u16, Value)> {
        let mut stream = connect(barn.settings.http, &self.server_ca, version, own).await?;
        let answer = exchange(&mut stream, READINGS, &reading(device_id)).await?;
        Ok((answer.status, serde_json::from_str(&answer.body).expect("a JSON body")))
    }
}

fn reading(device_id: &str) -> String {
    let event = json!({"event_id": tests::device::new_event_id(), "tenant_id": "t-001", "device_id": device_id,
        "event_type": "telemetry.reading", "ts": "2026-02-12T09:32:15.052Z", "payload": {"value": 1.5}});
    json!({ "events": [event] }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_known_by_its_certificate_whichever_authority_signed_it() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    for (version, authority) in [(&TLS12, &site.device_cas[0]), (&TLS13, &site.device_cas[1])] {
        for tenant in [Some("t-001"), None] {
            let own = authority.device("d-1", tenant);
            let (status, body) = site.post(&barn, version, Some(&own), "d-1").await.expect("it is let in");
            assert_eq!((status, &body["ingested_count"]), (200, &json!(1)), "{body}");
            let (_, body) = site.post(&barn, version, Some(&own), "d-2").await.expect("it is let in");
            assert_eq!(body["rejected"][0]["code"], "SCOPE_MISMATCH", "{body}");
        }
    }
    let foreign = site.device_cas[0].device("d-1", Some("t-002"));
    barn.db.allow_device("t-002", "d-1", "f-001", "b-001").await;
    let (_, body) = site.post(&barn, &TLS13, Some(&foreign), "d-1").await.expect("it is let in");
    assert_eq!(body["rejected"][0]["code"], "TENANT_MISMATCH", "{body}");
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 4);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_a_tenant_is_of_no_use_once_its_id_was_in_two() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let [nameless, named] = [None, Some("t-001")].map(|tenant| site.device_cas[0].device("d-1", tenant));
    let status = async |own| site.post(&barn, &TLS13, Some(own), "d-1").await.expect("it is let in").0;
    assert_eq!(status(&nameless).await, 200);
    barn.db.allow_device("t-002", "d-1", "f-001", "b-001").await;
    until("both have it", async || status(&nameless).await == 401).await;
    barn.db.execute("DELETE FROM device_allowlist WHERE tenant_id = 't-002'").await;
    // Without a row of its own it is let in nowhere, and by then the deletion is known.
    barn.db.execute("DELETE FROM device_allowlist WHERE tenant_id = 't-001'").await;
    until("nobody has it", async || status(&named).await != 200).await;
    barn.db.allow_device("t-001", "d-1", "f-001", "b-001").await;
    until("the first has it again", async || status(&named).await == 200).await;
    assert_eq!(status(&nameless).await, 401, "the id was in two tenants");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_no_good_certificate_gets_nothing_but_what_is_public() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    // In one statement: while only one of the two is known, a certificate without a tenant names it.
    let both = "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id)
        SELECT tenant, 'd-both', 'f-001', 'b-001' FROM unnest(ARRAY['t-001', 't-002']) AS tenant";
    barn.db.execute(both).await;
    let stranger = Authority::new("nobody").device("d-1", Some("t-001"));
    for version in [&TLS12, &TLS13] {
        // In the newer version the refusal comes after the client's side of the handshake.
        assert!(site.post(&barn, version, Some(&stranger), "d-1").await.is_err());
        let (status, body) = site.post(&barn, version, None, "d-1").await.expect("it is let in");
        assert_eq!((status, &body["error"]["code"]), (401, &json!("UNAUTHORIZED")));
    }
    let nameless =
        [site.device_cas[0].device("a/b", Some("t-001")), site.device_cas[0].device("d-both", None)];
    for own in &nameless {
        let (status, _) = site.post(&barn, &TLS13, Some(own), "d-1").await.expect("it is let in");
        assert_eq!(status, 401);
    }
    let mut stream = connect(barn.settings.http, &site.server_ca, &TLS13, None).await.expect("it is let in");
    assert_eq!(exchange(&mut stream, HEALTH, "").await.expect("an answer").status, 200);
    let mut plain = TcpStream::connect(barn.settings.http).await.expect("somebody listens");
    assert!(exchange(&mut plain, HEALTH, "").await.is_err(), "the port answers in the clear");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_cut_off_and_holds_nobody_up() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(barn.settings.http).await.expect("somebody listens"));
    }
    let own = site.device_cas[0].device("d-1", Some("t-001"));
    let (status, _) = site.post(&barn, &TLS13, Some(&own), "d-1").await.expect("it is let in");
    assert_eq!(status, 200);
    for mut stream in idle {
        let ended = stream.read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_taken_up_and_broken_ones_leave_the_old_in_use() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let http = barn.settings.http;
    let presented = async || {
        let stream = connect(http, &site.server_ca, &TLS13, None).await.expect("it is let in");
        let (_, session) = stream.get_ref();
        session.peer_certificates().and_then(<[_]>::first).expect("a server shows one").clone()
    };
    let mut old = connect(http, &site.server_ca, &TLS13, None).await.expect("it is let in");
    assert_eq!(exchange(&mut old, HEALTH, "").await.expect("an answer").status, 200);

    let second = site.server_ca.server();
    let (cert, _) = second.write(site.directory.path());
    until("the new certificate is shown", async || presented().await == second.der()).await;
    assert_eq!(exchange(&mut old, HEALTH, "").await.expect("the connection stands").status, 200);

    let complaint = "new certificate files are not used";
    std::fs::write(&cert, "no certificate").expect("a file can be written");
    until("the broken file is complained about", async || barn.has_complained(complaint)).await;
    assert_eq!(presented().await, second.der());

    let third = site.server_ca.server();
    third.write(site.directory.path());
    until("the repaired file is taken up", async || presented().await == third.der()).await;
    barn.finish_after(complaint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_idles_ends_when_its_certificate_is_revoked() {
    let site = Site::new();
    let revoked = site.directory.path().join("revoked.pem");
    let ca = &site.device_cas[0];
    std::fs::write(&revoked, ca.revocation_list(&[])).expect("a file can be written");
    let crl = revoked.display().to_string();
    let barn = Barn::start_with(|settings| site.settings(settings).set("http.client_crl", &crl)).await;
    let (good, lost) = (ca.device("d-1", Some("t-001")), ca.device("d-2", Some("t-001")));
    let open = async |own: &Signed| {
        let stream = connect(barn.settings.http, &site.server_ca, &TLS13, Some(own)).await;
        let mut stream = stream.expect("it is let in");
        assert_eq!(exchange(&mut stream, HEALTH, "").await.expect("an answer").status, 200);
        stream
    };
    let (mut leaving, mut staying) = (open(&lost).await, open(&good).await);
    std::fs::write(&revoked, ca.revocation_list(&[&lost])).expect("a file can be written");
    let ended = leaving.read(&mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(exchange(&mut staying, HEALTH, "").await.expect("the other one stays").status, 200);
    barn.finish().await;
}

#[tokio::test]
async fn an_engine_whose_certificate_is_of_no_use_does_not_start_and_says_why() {
    let site = Site::new();
    let settings = site.settings(Settings::of("host=/nonexistent user=nobody dbname=nothing"));
    let key = std::fs::read_to_string(site.directory.path().join("key.pem")).expect("it was written");
    let check = async |file: &str, text: &str, told: &str| {
        site.settings(settings.clone());
        std::fs::write(site.directory.path().join(file), text).expect("a file can be written");
        let ended = engine::tree::run(settings.config(), std::future::pending()).await;
        let error = format!("{:#}", ended.expect_err("it does not start"));
        assert!(error.contains(told) && error.contains(file) && !error.contains("PRIVATE"), "{error}");
    };
    check("cert.pem", "", "find a certificate in").await;
    check("key.pem", "no key", "find a private key in").await;
    check("key.pem", &key, "use the certificate of").await;
    check("devices.pem", "", "find a certificate in").await;
    std::fs::remove_file(site.directory.path().join("cert.pem")).expect("it was written");
    let ended = engine::tree::run(settings.config(), std::future::pending()).await;
    assert!(format!("{:#}", ended.expect_err("it does not start")).starts_with("read "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_given_for_a_certificate_is_good_beside_it_and_ends_with_it() {
    const TOKEN: &str = "POST /api/v1/ingress/device-token HTTP/1.1";
    let site = Site::new();
    let revoked = site.directory.path().join("revoked.pem");
    let ca = &site.device_cas[0];
    std::fs::write(&revoked, ca.revocation_list(&[])).expect("a file can be written");
    let crl = revoked.display().to_string();
    let settings = |settings| {
        site.settings(settings)
            .set("http.client_crl", &crl)
            .set("auth.mode", "jwt")
            .set("auth.jwt_secrets", "a secret that is as long as it must be")
    };
    let barn = Barn::start_with(settings).await;
    let (own, other) = (ca.device("d-1", Some("t-001")), ca.device("d-2", Some("t-001")));
    let open = async |own: Option<&Signed>| {
        connect(barn.settings.http, &site.server_ca, &TLS13, own).await.expect("it is let in")
    };
    let mut stream = open(Some(&own)).await;
    let answer = exchange(&mut stream, TOKEN, "").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let token: Value = serde_json::from_str(&answer.body).expect("JSON");
    let post = format!("{READINGS}\r\nauthorization: Bearer {}", token["token"].as_str().expect("a token"));
    for (shown, expected) in [(Some(&own), 200), (Some(&other), 401), (None, 401)] {
        let answer = exchange(&mut open(shown).await, &post, &reading("d-1")).await.expect("an answer");
        assert_eq!(answer.status, expected, "{}", answer.body);
    }
    std::fs::write(&revoked, ca.revocation_list(&[&own])).expect("a file can be written");
    let ended = stream.read(&mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 1);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_an_engine_is_asked_over_tls_too() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let http = barn.settings.config().http;
    assert_eq!(ask(&http, Question::Lives).await.expect("it lives"), "healthy");
    assert_eq!(ask(&http, Question::IsReady).await.expect("it is ready"), "ready");
    let plain = Http { tls_cert: None, ..http };
    let error = ask(&plain, Question::Lives).await.expect_err("the port speaks TLS and nothing else");
    assert!(error.to_string().starts_with("no engine answers on "), "{error}");
    barn.finish().await;
}

/// How long the certificate of a test is good.
const GOOD_FOR_SECONDS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_does_not_outlive_the_certificate_that_began_it() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let own = site.device_cas[0].device_for_seconds("d-1", Some("t-001"), GOOD_FOR_SECONDS);
    // The certificate counts whole seconds, and its last one is good.
    let over_at = Instant::now() + Duration::from_secs(GOOD_FOR_SECONDS + 2);
    let mut clients = Vec::new();
    for version in [&TLS12, &TLS13] {
        let client = client(&site.server_ca, version, Some(&own));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = connect_again(barn.settings.http, &client).await.expect("it is good");
            let answer = exchange(&mut stream, READINGS, &reading("d-1")).await.expect("an answer");
            assert_eq!((answer.status, stream.get_ref().1.handshake_kind()), (200, Some(kind)));
        }
        clients.push(client);
    }
    until("the certificate is over", async || Instant::now() > over_at).await;
    for client in &clients {
        let answer = async {
            let mut stream = connect_again(barn.settings.http, client).await?;
            exchange(&mut stream, READINGS, &reading("d-1")).await
        };
        assert!(answer.await.is_err(), "it is let in by a certificate that is over");
    }
    barn.finish().await;
}
