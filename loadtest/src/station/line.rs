//! The MQTT side of a station: one message at a time, each until it is acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Access;
use crate::mqtt::{self, Heard, Login, Publish};
use crate::publisher::Meter;
use crate::stream::{Stream, Tls};

/// Wait before a connection is opened again.
const RECONNECT_WAIT: Duration = Duration::from_millis(500);

/// A connection that is opened again when it is lost.
#[derive(Debug)]
pub(super) struct Line {
    broker: String,
    tls: Option<Tls>,
    login: Login,
    meter: Arc<Meter>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    inbox: BytesMut,
    last_id: u16,
    used_at: Instant,
}

impl Line {
    pub(super) fn new(access: &Access, login: Login) -> Self {
        let meter = Arc::clone(&access.meter);
        Self { broker: access.broker.clone(), tls: access.tls.clone(), login, meter, open: None }
    }

    /// Connects, if nobody has yet.
    pub(super) async fn connect(&mut self) -> Result<()> {
        // Nobody pings between two weighings: a line that rested for so long is as good as closed.
        let keepalive = Duration::from_secs(u64::from(self.login.keepalive_seconds));
        if self.open.as_ref().is_some_and(|open| open.used_at.elapsed() < keepalive) {
            return Ok(());
        }
        self.open = None;
        let mut stream = Stream::open(&self.broker, self.tls.as_ref()).await?;
        mqtt::introduce(&mut stream, &self.login).await?;
        self.open = Some(Open { stream, inbox: BytesMut::new(), last_id: 0, used_at: Instant::now() });
        Ok(())
    }

    /// Publishes until the message is acknowledged, over as many connections as that takes.
    pub(super) async fn put(&mut self, publish: &Publish) {
        self.meter.published.fetch_add(1, Ordering::Relaxed);
        let mut is_resent = false;
        while self.try_put(publish, is_resent).await.is_err() {
            is_resent = true;
            self.open = None;
            self.meter.reconnects.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RECONNECT_WAIT).await;
        }
        self.meter.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    async fn try_put(&mut self, publish: &Publish, is_resent: bool) -> Result<()> {
        self.connect().await?;
        let Some(open) = &mut self.open else { bail!("there is no connection") };
        open.last_id = open.last_id.checked_add(1).unwrap_or(1);
        let mut packet = Vec::new();
        mqtt::put_publish_in(self.login.version, &mut packet, publish, open.last_id, is_resent);
        let sent_at = Instant::now();
        open.stream.write_all(&packet).await?;
        open.stream.flush().await?;
        open.acknowledged(open.last_id).await?;
        open.used_at = Instant::now();
        self.meter.record(sent_at.elapsed());
        Ok(())
    }

    /// Says goodbye: the broker forgets the will.
    pub(super) async fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            // Who cannot say goodbye is gone all the same.
            if open.stream.write_all(&mqtt::DISCONNECT).await.is_ok() {
                drop(open.stream.flush().await);
            }
        }
    }
}

impl Open {
    async fn acknowledged(&mut self, packet_id: u16) -> Result<()> {
        loop {
            match mqtt::take_packet(&self.inbox)? {
                Some((heard, length)) => {
                    self.inbox.advance(length);
                    match heard {
                        Heard::PubAck(id) if id == packet_id => return Ok(()),
                        Heard::Refused(_, code) => {
                            bail!(
                                "the broker refused a message with code {code:#04x}: {}",
                                mqtt::refusal(code)
                            )
                        }
                        Heard::PubAck(_) | Heard::PubRec(_) | Heard::PubComp(_) | Heard::PingResp => {}
                    }
                }
                None if self.stream.read_buf(&mut self.inbox).await? == 0 => {
                    bail!("the broker closed the connection");
                }
                None => {}
            }
        }
    }
}
