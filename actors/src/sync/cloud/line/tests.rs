//! The line to the cloud, against pretenders that move, age and fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::dns::Addrs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// Where the name of the cloud leads.
#[derive(Default)]
struct Directory {
    address: StdMutex<Option<Ipv4Addr>>,
    asked: AtomicUsize,
}

impl Directory {
    fn lead_to(&self, address: Ipv4Addr) {
        *self.address.lock().unwrap() = Some(address);
    }
}

struct Shared(Arc<Directory>);

impl Resolve for Shared {
    fn resolve(&self, _: Name) -> Resolving {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let address = *self.0.address.lock().unwrap();
        Box::pin(async move {
            let found: Addrs = Box::new(address.map(|ip| SocketAddr::new(ip.into(), 0)).into_iter());
            Ok(found)
        })
    }
}

/// Two pretended clouds at one port of two addresses: the one says 503, the other 200.
async fn clouds(tasks: &mut JoinSet<()>) -> (u16, [Ipv4Addr; 2]) {
    let addresses = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    loop {
        let old = TcpListener::bind((addresses[0], 0)).await.unwrap();
        let port = old.local_addr().unwrap().port();
        let Ok(new) = TcpListener::bind((addresses[1], port)).await else { continue };
        tasks.spawn(serve(old, "503 Service Unavailable"));
        tasks.spawn(serve(new, "200 OK"));
        return (port, addresses);
    }
}

async fn serve(listener: TcpListener, status: &'static str) {
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
    }
}

async fn ask(lines: &Lines, port: u16) -> (Line, u16) {
    let line = lines.current().await.unwrap();
    let answer = line.client.get(format!("http://cloud.example:{port}/")).send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    (line, status)
}

fn lines(directory: &Arc<Directory>) -> Lines {
    let mut dialer = Dialer::new(LinkTls::default(), None).unwrap();
    dialer.resolver = Some(Resolver(Arc::new(Shared(Arc::clone(directory)))));
    Lines::new(dialer)
}

#[tokio::test]
async fn after_a_failure_the_name_is_asked_again_and_leads_to_another_cloud() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut tasks, directory) = (JoinSet::new(), Arc::new(Directory::default()));
    let (port, [old, new]) = clouds(&mut tasks).await;
    let lines = lines(&directory);
    directory.lead_to(old);
    let (line, status) = ask(&lines, port).await;
    assert_eq!(status, 503);
    directory.lead_to(new);
    // The connection stands, and nobody asks where the name leads.
    assert_eq!((ask(&lines, port).await.1, directory.asked.load(Ordering::Relaxed)), (503, 1));
    lines.leave(&line).await;
    assert_eq!((ask(&lines, port).await.1, directory.asked.load(Ordering::Relaxed)), (200, 2));
    // Whoever was late with the same complaint does not take the new one away.
    lines.leave(&line).await;
    assert_eq!((ask(&lines, port).await.1, directory.asked.load(Ordering::Relaxed)), (200, 2));
}

#[tokio::test]
async fn a_line_that_is_old_is_given_up_though_all_is_well() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut tasks, directory) = (JoinSet::new(), Arc::new(Directory::default()));
    let (port, [old, new]) = clouds(&mut tasks).await;
    let lines = lines(&directory);
    directory.lead_to(new);
    assert_eq!(ask(&lines, port).await.1, 200);
    directory.lead_to(old);
    assert_eq!(ask(&lines, port).await.1, 200);
    lines.line.lock().await.as_mut().unwrap().made_at -= AGE_MAX;
    assert_eq!(ask(&lines, port).await.1, 503);
}

#[test]
fn a_proxy_is_an_address_of_http_or_https() {
    for wrong in ["", "proxy", "proxy:3128", "socks5://proxy:1080", "http://", "file:///proxy"] {
        assert!(proxy_of(wrong).is_none(), "{wrong}");
    }
    for good in ["http://proxy:3128", "https://user:hush@proxy:3129/", "http://[fd00::1]:3128"] {
        assert!(proxy_of(good).is_some(), "{good}");
    }
}
