//! A line between two programs that can be cut, slowed down, or made to swallow what is said.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;
/// The smallest piece of a slow line.
const SLOW_PIECE_BYTES: usize = 256;

/// What is the matter with a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Open connections are cut, and new ones closed at once.
    Cut,
    /// Every piece arrives later.
    Delayed(Duration),
    /// So many bytes per second in each direction.
    Throttled(u64),
    /// What is said still arrives, nothing comes back, and nothing is closed: the answers are lost for good, and the
    /// connections with them when this is over.
    HalfOpen,
}

/// A line. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    trouble: watch::Sender<Trouble>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of this machine and passes everything on to `target`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("find a port for a line")?;
        let address = listener.local_addr().context("read the own address")?;
        let trouble = watch::Sender::new(Trouble::None);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, trouble.clone()));
        Ok(Self { address, trouble, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the line from now on, for open connections as well.
    pub fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, trouble: watch::Sender<Trouble>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                if *trouble.borrow() != Trouble::Cut {
                    connections.spawn(connection(near, target, trouble.subscribe()));
                }
            }
        }
    }
}

/// Serves until either side has closed, or until the line is cut.
async fn connection(near: TcpStream, target: SocketAddr, trouble: watch::Receiver<Trouble>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    drop(near.set_nodelay(true));
    drop(far.set_nodelay(true));
    let (near_reader, near_writer) = near.into_split();
    let (far_reader, far_writer) = far.into_split();
    let there = pass(near_reader, far_writer, trouble.clone(), Direction::There);
    let back = pass(far_reader, near_writer, trouble.clone(), Direction::Back);
    tokio::select! {
        () = cut(trouble) => {}
        _ = async { tokio::join!(there, back) } => {}
    }
}

/// Comes to its end when the line is cut, or when it was half open and is not any more.
async fn cut(mut trouble: watch::Receiver<Trouble>) {
    let mut was_half_open = false;
    loop {
        match *trouble.borrow_and_update() {
            Trouble::Cut => return,
            Trouble::HalfOpen => was_half_open = true,
            Trouble::None | Trouble::Delayed(_) | Trouble::Throttled(_) if was_half_open => return,
            Trouble::None | Trouble::Delayed(_) | Trouble::Throttled(_) => {}
        }
        if trouble.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    trouble: watch::Receiver<Trouble>,
    direction: Direction,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes_max = match *trouble.borrow() {
            Trouble::Throttled(_) => SLOW_PIECE_BYTES,
            Trouble::None | Trouble::Cut | Trouble::Delayed(_) | Trouble::HalfOpen => PIECE_BYTES,
        };
        let Ok(count) = from.read(&mut piece[..bytes_max]).await else { break };
        let now = *trouble.borrow();
        if now == Trouble::HalfOpen && direction == Direction::Back {
            if count == 0 {
                // Nobody is told that the other side has gone.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if count == 0 {
            break;
        }
        tokio::time::sleep(wait(now, count)).await;
        if to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}

fn wait(trouble: Trouble, bytes: usize) -> Duration {
    match trouble {
        Trouble::Delayed(delay) => delay,
        #[expect(clippy::cast_precision_loss, reason = "a piece and a rate are small")]
        Trouble::Throttled(per_second) => Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64),
        Trouble::None | Trouble::Cut | Trouble::HalfOpen => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::time::timeout;

    /// A line to somebody who says everything back.
    async fn line() -> (Proxy, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    drop(tokio::io::copy(&mut reader, &mut writer).await);
                });
            }
        });
        (proxy, tasks)
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn a_line_passes_on_what_is_said() {
        let (proxy, _tasks) = line().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, b"hello").await.unwrap(), b"hello");
        let large = vec![7; 200_000];
        assert_eq!(say(&mut stream, &large[..50_000]).await.unwrap(), &large[..50_000]);
    }

    #[tokio::test]
    async fn a_cut_line_closes_what_is_open_and_takes_nothing_new() {
        let (proxy, _tasks) = line().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream, b"hello").await.unwrap();
        proxy.set(Trouble::Cut);
        assert!(say(&mut stream, b"hello").await.is_err());
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(say(&mut next, b"hello").await.is_err());
        proxy.set(Trouble::None);
        let mut last = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut last, b"hello").await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_slow_line_takes_its_time() {
        let (proxy, _tasks) = line().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let wait = Duration::from_millis(60);
        proxy.set(Trouble::Delayed(wait));
        let started = Instant::now();
        say(&mut stream, b"hello").await.unwrap();
        assert!(started.elapsed() >= 2 * wait, "there and back");
        proxy.set(Trouble::Throttled(10_000));
        let started = Instant::now();
        say(&mut stream, &[1; 1000]).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_half_open_line_loses_answers_and_closes_only_when_it_is_over() {
        let (proxy, _tasks) = line().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream, b"hello").await.unwrap();
        proxy.set(Trouble::HalfOpen);
        let silence = timeout(Duration::from_millis(200), say(&mut stream, b"lost")).await;
        assert!(silence.is_err(), "it is neither answered nor closed");
        proxy.set(Trouble::None);
        let mut heard = Vec::new();
        let end =
            timeout(Duration::from_secs(5), stream.read_to_end(&mut heard)).await.expect("it is closed");
        drop(end);
        assert_eq!(heard, b"", "what was lost stays lost");
    }
}
