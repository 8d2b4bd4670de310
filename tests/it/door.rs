//! The encrypted way in: devices that are known by their certificates, and what happens when these change.

use std::path::PathBuf;
use std::time::Instant;

use loadtest::mqtt::{Login, Publish, connect_packet, put_publish};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tests::barn::Barn;
use tests::certificates::{Authority, Signed, connect};
use tests::device::{new_event_id, reading};
use tests::settings::{Settings, free_address};
use tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::client::TlsStream;

/// The authorities of a site, and the files its engine reads.
struct Site {
    server_ca: Authority,
    device_cas: [Authority; 2],
    directory: tempfile::TempDir,
    listen: std::net::SocketAddr,
}

impl Site {
    fn new() -> Self {
        Self {
            server_ca: Authority::new("servers"),
            device_cas: [Authority::new("old devices"), Authority::new("new devices")],
            directory: tempfile::tempdir().expect("a directory can be made"),
            listen: free_address(),
        }
    }

    /// An engine with both listeners that lets nobody in without a credential.
    fn settings(&self, settings: Settings) -> Settings {
        let (cert, key) = self.server_ca.server().write(self.directory.path());
        self.write("devices.pem", &self.device_cas[0].pem());
        self.write("revoked.pem", &self.device_cas[0].revocation_list(&[]));
        settings
            .set("broker.allow_anonymous", "false")
            .set("broker.listen_tls", &self.listen.to_string())
            .set("broker.tls_cert", &cert.display().to_string())
            .set("broker.tls_key", &key.display().to_string())
            .set("broker.client_ca", &self.path("devices.pem").display().to_string())
            .set("broker.client_crl", &self.path("revoked.pem").display().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a file in the place of another in one step, as whoever distributes certificates does.
    fn write(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        std::fs::write(&draft, text).expect("a file can be written");
        std::fs::rename(draft, self.path(name)).expect("it can be renamed");
    }

    async fn open(
        &self,
        version: &'static SupportedProtocolVersion,
        own: Option<&Signed>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.listen, &self.server_ca, version, own).await
    }

    /// Connects and says the code of the CONNACK.
    async fn login(&self, own: Option<&Signed>, login: &Login) -> std::io::Result<(Client, u8)> {
        let mut client = Client(self.open(&TLS13, own).await?);
        client.0.write_all(&connect_packet(login).expect("a packet")).await?;
        let [_, _, _, code] = client.read().await?;
        Ok((client, code))
    }

    async fn device(&self, own: &Signed) -> Client {
        let (client, code) = self.login(Some(own), &named("any")).await.expect("it is let in");
        assert_eq!(code, 0);
        client
    }
}

fn named(client_id: &str) -> Login {
    Login { client_id: client_id.to_owned(), keepalive_seconds: 60, ..Login::default() }
}

fn with_password(client_id: &str, user: &str, password: &str) -> Login {
    Login { user: Some(user.to_owned()), password: Some(password.to_owned()), ..named(client_id) }
}

fn temperature(device: &str) -> Publish {
    reading(device, &new_event_id())
}

struct Client(TlsStream<TcpStream>);

impl Client {
    async fn read(&mut self) -> std::io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).await?;
        Ok(answer)
    }

    /// Publishes and waits for the acknowledgement.
    async fn put(&mut self, publish: &Publish, packet_id: u16) -> std::io::Result<()> {
        let mut packet = Vec::new();
        put_publish(&mut packet, publish, packet_id, false);
        self.0.write_all(&packet).await?;
        self.0.flush().await?;
        let [high, low] = packet_id.to_be_bytes();
        assert_eq!(self.read().await?, [0x40, 2, high, low]);
        Ok(())
    }

    /// Waits until the engine closes the connection.
    async fn closed(mut self) {
        let ended = self.0.read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_a_credential_for_one_device() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let ca = &site.device_cas[0];
    for version in [&TLS12, &TLS13] {
        for tenant in [Some("t-001"), None] {
            let own = ca.device("d-1", tenant);
            let mut client = Client(site.open(version, Some(&own)).await.expect("it is let in"));
            client.0.write_all(&connect_packet(&named("d-1")).expect("a packet")).await.expect("it reads");
            assert_eq!(client.read().await.expect("an answer"), [0x20, 2, 0, 0]);
            client.put(&temperature("d-1"), 1).await.expect("its own reading");
            client.put(&temperature("d-2"), 2).await.expect("that of another is acknowledged and refused");
        }
    }
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw WHERE device_id = 'd-1'").await, 4);
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 4);
    assert_eq!(barn.db.count("SELECT count(*) FROM ingress_rejects WHERE reason = 'ACL_DENIED'").await, 4);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_credential_or_two_that_disagree_is_refused() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    barn.db.set_password("t-001", "d-1", "d-1", "secret").await;
    let ca = &site.device_cas[0];
    let (one, two) = (ca.device("d-1", Some("t-001")), ca.device("d-2", Some("t-001")));
    let strange = ca.device("d-unknown", Some("t-001"));
    let foreign = ca.device("d-1", Some("t-002"));
    let password = with_password("x", "d-1", "secret");
    let cases = [
        (None, &password, 0),
        (Some(&one), &named("x"), 0),
        (Some(&one), &password, 0),
        (None, &named("x"), 5),
        (Some(&two), &password, 5),
        (Some(&one), &with_password("x", "d-1", "guess"), 5),
        (Some(&strange), &named("x"), 5),
        (Some(&foreign), &named("x"), 5),
    ];
    for (number, (own, login, expected)) in cases.into_iter().enumerate() {
        let (_, code) = site.login(own, login).await.expect("the handshake is over");
        assert_eq!(code, expected, "case {number}");
    }
    let stranger = Authority::new("nobody").device("d-1", Some("t-001"));
    assert!(site.login(Some(&stranger), &named("x")).await.is_err());
    assert_eq!(barn.metric("auth_refused", "handshake"), 1.0);
    let mut plain = TcpStream::connect(site.listen).await.expect("somebody listens");
    plain.write_all(&connect_packet(&named("x")).expect("a packet")).await.expect("it reads");
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer).await);
    assert_ne!(answer.first(), Some(&0x20), "the encrypted port answers in the clear");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_connection_and_no_other() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let ca = &site.device_cas[0];
    let (good, lost) = (ca.device("d-1", Some("t-001")), ca.device("d-2", Some("t-001")));
    let (mut staying, leaving) = (site.device(&good).await, site.device(&lost).await);
    let revoked_at = Instant::now();
    site.write("revoked.pem", &ca.revocation_list(&[&lost]));
    leaving.closed().await;
    println!("closed after {:?}", revoked_at.elapsed());
    assert!(site.login(Some(&lost), &named("again")).await.is_err());
    staying.put(&temperature("d-1"), 1).await.expect("the other one stays");
    assert_eq!(barn.metric("auth_refused", "revoked"), 1.0);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_between_its_handshake_and_its_login_does_not_get_in() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let ca = &site.device_cas[0];
    let lost = ca.device("d-2", Some("t-001"));
    // In the older version a handshake ends at the client when the engine has verified the certificate.
    let mut waiting = Client(site.open(&TLS12, Some(&lost)).await.expect("the handshake is over"));
    site.write("revoked.pem", &ca.revocation_list(&[&lost]));
    until("the list is taken up", async || site.login(Some(&lost), &named("late")).await.is_err()).await;
    waiting.0.write_all(&connect_packet(&named("d-2")).expect("a packet")).await.expect("it reads");
    assert_eq!(waiting.read().await.expect("an answer"), [0x20, 2, 0, 5]);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_ends_its_connection_and_no_other() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let ca = &site.device_cas[0];
    let mut staying = site.device(&ca.device("d-1", Some("t-001"))).await;
    // On a busy machine one may be over before it is used.
    let leaving = loop {
        let short = ca.device_for_seconds("d-2", Some("t-001"), 3);
        if let Ok((client, 0)) = site.login(Some(&short), &named("d-2")).await {
            break client;
        }
    };
    leaving.closed().await;
    staying.put(&temperature("d-1"), 1).await.expect("the other one stays");
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_without_a_lost_message() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let [old_ca, new_ca] = &site.device_cas;
    let (old, new) = (old_ca.device("d-1", Some("t-001")), new_ca.device("d-1", Some("t-001")));
    let mut before = site.device(&old).await;
    before.put(&temperature("d-1"), 1).await.expect("it is let in");
    assert!(site.login(Some(&new), &named("early")).await.is_err());

    site.write("devices.pem", &[old_ca.pem(), new_ca.pem()].concat());
    let server = site.server_ca.server();
    server.write(site.directory.path());
    until("the new authority is trusted", async || {
        site.login(Some(&new), &named("new")).await.is_ok_and(|(_, code)| code == 0)
    })
    .await;
    let stream = site.open(&TLS13, Some(&new)).await.expect("it is let in");
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    assert_eq!(shown, Some(server.der()), "the new certificate of the engine is shown");
    before.put(&temperature("d-1"), 2).await.expect("a connection that stands is left alone");

    site.write("devices.pem", &new_ca.pem());
    before.closed().await;
    site.device(&new).await.put(&temperature("d-1"), 3).await.expect("the new certificate stays");
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 3);
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_other_makes_speak_tls() {
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    barn.db.set_password("t-001", "d-2", "d-2", "secret").await;
    let ca = site.path("servers.pem");
    std::fs::write(&ca, site.server_ca.pem()).expect("a file can be written");
    let own = site.path("own");
    std::fs::create_dir(&own).expect("a directory can be made");
    let (cert, key) = site.device_cas[0].device("d-1", Some("t-001")).write(&own);
    let publish = async |device: &str, credential: &[&std::ffi::OsStr]| {
        let Publish { topic, payload, .. } = temperature(device);
        let payload = String::from_utf8(payload.to_vec()).expect("text");
        let port = site.listen.port().to_string();
        let status = Command::new("mosquitto_pub")
            .args(["-h", "localhost", "-p", &port, "-q", "1", "-t", &topic, "-m", &payload])
            .arg("--cafile")
            .arg(&ca)
            .args(credential)
            .status()
            .await
            .expect("mosquitto_pub can be started");
        assert!(status.success(), "{status}");
    };
    publish("d-1", &["--cert".as_ref(), cert.as_ref(), "--key".as_ref(), key.as_ref()]).await;
    publish("d-2", &["-u".as_ref(), "d-2".as_ref(), "-P".as_ref(), "secret".as_ref()]).await;
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, 2);
    barn.finish().await;
}

/// What the socket does not take at once is held back by the encryption, and must not stay there.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_gets_through_the_encryption() {
    const MESSAGES: u16 = 2000;
    let site = Site::new();
    let barn = Barn::start_with(|settings| site.settings(settings)).await;
    let stream = site.device(&site.device_cas[0].device("d-1", Some("t-001"))).await.0;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = async {
        for packet_id in 1..=MESSAGES {
            let mut packet = Vec::new();
            put_publish(&mut packet, &temperature("d-1"), packet_id, false);
            writer.write_all(&packet).await.expect("the engine reads");
        }
        writer.flush().await.expect("the engine reads");
    };
    let acknowledged = async {
        for packet_id in 1..=MESSAGES {
            let mut answer = [0; 4];
            reader.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), packet_id);
        }
    };
    tokio::join!(sent, acknowledged);
    assert_eq!(barn.db.count("SELECT count(*) FROM telemetry_raw").await, i64::from(MESSAGES));
    barn.finish().await;
}
