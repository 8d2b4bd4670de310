//! What a connection costs that says nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::table::{align, show};
use crate::door::{Broker, KEEPALIVE_SECONDS, Settings, resident_kib};
use crate::mqtt::{self, Login};
use crate::report::note;
use crate::stream::{Stream, Tls};

/// Connections that are opened at once.
const OPENING_MAX: usize = 50;
/// Connections from one address of this machine: far fewer than it has ports, since those of the measurement before are
/// not free at once.
const PER_ADDRESS: usize = 1000;
/// From the last login to the look at the memory.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens idle connections to each broker and says how much memory each of them took, in kB.
pub(super) async fn measure(settings: &Settings, stop: &watch::Receiver<bool>) -> Result<String> {
    let mut cells = vec![["kB per idle connection", "", "connections", "kB"].map(str::to_owned)];
    for broker in &settings.brokers {
        // Before anything: what a broker took for one number of connections it may keep for the next.
        let before_kib = resident_kib(broker)?;
        for count in &settings.idle {
            for (transport, address, tls) in broker.listeners(&settings.tls) {
                if *stop.borrow() {
                    return Ok(String::new());
                }
                let kb = one(broker, &address, tls.as_ref(), *count, before_kib).await;
                // A machine may have too few file descriptors for the larger numbers.
                if let Err(error) = &kb {
                    note(format!("{} over {transport}, {count} connections: {error:#}", broker.name));
                }
                let name = broker.name.clone();
                cells.push([name, transport.to_owned(), count.to_string(), show(kb.ok(), 1)]);
            }
        }
    }
    Ok(align(&cells))
}

async fn one(
    broker: &Broker,
    address: &str,
    tls: Option<&Tls>,
    count: usize,
    before_kib: u64,
) -> Result<f64> {
    let mut idle = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    for number in 0..count {
        if opening.len() >= OPENING_MAX {
            idle.push(opening.join_next().await.context("some are being opened")?.context("open")??);
        }
        let (address, tls) = (address.to_owned(), tls.cloned());
        opening.spawn(async move { open(&address, tls.as_ref(), number).await });
    }
    while let Some(opened) = opening.join_next().await {
        idle.push(opened.context("open")??);
    }
    tokio::time::sleep(SETTLE).await;
    let grown_kib = resident_kib(broker)?.saturating_sub(before_kib);
    drop(idle);
    // Nobody is to be measured while the broker says goodbye to the others.
    tokio::time::sleep(SETTLE).await;
    #[expect(clippy::cast_precision_loss, reason = "memory and connections stay far below 2^52")]
    Ok(grown_kib as f64 * 1.024 / count as f64)
}

async fn open(address: &str, tls: Option<&Tls>, number: usize) -> Result<Stream> {
    let block = u8::try_from(number / PER_ADDRESS).context("too many connections")?;
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, 1 + block), 0));
    let mut stream = Stream::open_from(from, address, tls).await?;
    let client_id = format!("idle-{number}");
    let login = Login { client_id, keepalive_seconds: KEEPALIVE_SECONDS, ..Login::default() };
    mqtt::introduce(&mut stream, &login).await?;
    Ok(stream)
}
