//! What stands between a barn and its cloud: a gateway with a CA of its own that asks for a certificate, and a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::tls::{Tls, TlsFiles};
use loadtest::cloud::{self, PretendCloud};
use tests::barn::Barn;
use tests::certificates::Authority;
use tests::device::{new_event_id, reading};
use tests::settings::{Settings, free_address};
use tests::wait::until;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A cloud behind a gateway that speaks TLS, and passes on whoever shows a certificate.
struct Gateway {
    address: SocketAddr,
    cloud: PretendCloud,
    directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Gateway {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let authority = Authority::new("the cloud");
        let (cert, key) = authority.server().write(directory.path());
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).expect("a file can be written");
        let own = directory.path().join("own");
        std::fs::create_dir(&own).expect("a directory can be made");
        authority.device("barn-7", None).write(&own);
        let files = TlsFiles { cert, key, client_ca: Some(ca), client_crl: None };
        let tls = Arc::new(Tls::open(files).await.expect("the files are good"));
        let cloud = PretendCloud::start(cloud::Settings::default()).await.expect("a free port");
        let inside = cloud.url().trim_start_matches("http://").split('/').next().expect("a host").to_owned();
        let address = free_address();
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listener");
                let (tls, inside) = (Arc::clone(&tls), inside.clone());
                connections.spawn(async move {
                    if let Ok((mut stream, Some(_shown))) = tls.accept(stream).await {
                        pass_on(&mut stream, &inside).await;
                    }
                });
            }
        });
        Self { address, cloud, directory, _tasks: tasks }
    }

    fn of(&self, settings: Settings) -> Settings {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        settings
            .set("cloud.url", &format!("https://localhost:{}/api/v1/edge/batch", self.address.port()))
            .set("cloud.tls_ca", &file("ca.pem"))
            .set("cloud.tls_cert", &file("own/cert.pem"))
            .set("cloud.tls_key", &file("own/key.pem"))
    }
}

async fn pass_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), address: &str) {
    let mut inside = TcpStream::connect(address).await.expect("it listens");
    // Whoever hangs up first ends it.
    let _ = copy_bidirectional(stream, &mut inside).await;
}

/// A proxy that leads whoever knows its password where he wants.
struct Proxy {
    address: SocketAddr,
    led: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

const PASSWORD: &str = "barn:p@ss";

impl Proxy {
    async fn start() -> Self {
        let (address, led) = (free_address(), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let (counter, mut tasks) = (Arc::clone(&led), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listener");
                let led = Arc::clone(&counter);
                connections.spawn(lead(stream, led));
            }
        });
        Self { address, led, _tasks: tasks }
    }
}

async fn lead(stream: TcpStream, led: Arc<AtomicUsize>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.is_ok_and(|bytes| bytes == 0) {
            return;
        }
        head.push_str(&line);
    }
    let credential = format!("basic {}", STANDARD.encode(PASSWORD)).to_lowercase();
    let is_known = head.to_lowercase().contains(&credential);
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let Some(target) = target.filter(|_| is_known) else {
        let _ = stream
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            .await;
        return;
    };
    led.fetch_add(1, Ordering::Relaxed);
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a connection");
    pass_on(&mut stream, target).await;
}

async fn deliver_one(barn: &Barn, gateway: &Gateway) {
    barn.device("d-1").await.put(&reading("d-1", &new_event_id())).await;
    until("the cloud takes it", async || gateway.cloud.judge().accepted == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_with_a_ca_of_its_own_is_reached_with_a_certificate() {
    let gateway = Gateway::start().await;
    let barn = Barn::start_with(|settings| gateway.of(settings)).await;
    deliver_one(&barn, &gateway).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_whose_ca_is_not_known_gets_nothing_and_the_error_says_what_to_name() {
    let gateway = Gateway::start().await;
    let stranger = gateway.directory.path().join("stranger.pem");
    std::fs::write(&stranger, Authority::new("somebody else").pem()).expect("a file can be written");
    let barn = Barn::start_with(|settings| {
        gateway.of(settings).set("cloud.tls_ca", &stranger.display().to_string())
    })
    .await;
    barn.device("d-1").await.put(&reading("d-1", &new_event_id())).await;
    let told = "SELECT count(*) FROM sync_outbox WHERE last_error_message LIKE '%UnknownIssuer%tls_ca%'";
    until("the error is kept with the row", async || barn.db.count(told).await == 1).await;
    assert_eq!(gateway.cloud.judge().accepted, 0);
    // The right one in its place is taken up without a restart.
    std::fs::copy(gateway.directory.path().join("ca.pem"), &stranger).expect("a file can be written");
    until("the cloud takes it", async || gateway.cloud.judge().accepted == 1).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_behind_a_proxy_is_reached_through_it_and_not_without_its_password() {
    let (gateway, proxy) = (Gateway::start().await, Proxy::start().await);
    let file = gateway.directory.path().join("proxy");
    std::fs::write(&file, format!("http://barn:p%40ss@{}\n", proxy.address)).expect("a file can be written");
    let barn = Barn::start_with(|settings| {
        gateway.of(settings).set("cloud.proxy_file", &file.display().to_string())
    })
    .await;
    deliver_one(&barn, &gateway).await;
    assert!(proxy.led.load(Ordering::Relaxed) > 0);
    barn.finish().await;

    let wrong = format!("http://barn:wrong@{}", proxy.address);
    let barn = Barn::start_with(|settings| gateway.of(settings).set("cloud.proxy", &wrong)).await;
    barn.device("d-1").await.put(&reading("d-1", &new_event_id())).await;
    let told = "SELECT count(*) FROM sync_outbox WHERE last_error_message LIKE '%proxy%'";
    until("the error is kept with the row", async || barn.db.count(told).await == 1).await;
    barn.finish().await;
}
