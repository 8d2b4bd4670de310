//! How simulated and replayed devices reach a broker: where it is, what encrypts, and what each of them shows.

pub mod logins;
pub mod provision;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::mqtt::{Login, Version};
use crate::publisher::Link;
use crate::stream::{Stream, Tls};

use logins::{Logins, Shown};

/// How long a broker may take to shake hands.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(30);

/// A device as the outside knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Tenant id.
    pub tenant: String,
    /// Device id.
    pub id: String,
}

/// A broker and how devices come to it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `host:port`, or a URL as [`Stream::open`] takes it.
    pub broker: String,
    /// How to encrypt; `None` in the clear.
    pub tls: Option<Tls>,
    /// Version of MQTT.
    pub version: Version,
    /// Keepalive of every connection.
    pub keepalive_seconds: u16,
    /// What each device shows.
    pub logins: Logins,
}

impl Connection {
    /// A broker without encryption that lets everybody in.
    #[must_use]
    pub fn plain(broker: &str) -> Self {
        Self {
            broker: broker.to_owned(),
            tls: None,
            version: Version::V311,
            keepalive_seconds: 60,
            logins: Logins::Anonymous,
        }
    }

    /// How this device connects, under this client id.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn link(&self, device: &Device, client_id: String, window: usize) -> Result<Link> {
        let login = Login {
            client_id,
            keepalive_seconds: self.keepalive_seconds,
            version: self.version,
            ..Login::default()
        };
        let (tls, login) = match self.logins.of(device)? {
            Shown::Nothing => (self.tls.clone(), login),
            Shown::Password { user, password } => {
                (self.tls.clone(), Login { user: Some(user), password, ..login })
            }
            Shown::Certificate { chain, key } => {
                let tls = self.tls.as_ref().context("certificates are shown over TLS only: give a CA")?;
                let tls = tls.showing(&chain, &key);
                (Some(tls.with_context(|| format!("use the certificate of {}", device.id))?), login)
            }
        };
        Ok(Link { broker: self.broker.clone(), tls, login, window: window.max(1) })
    }

    /// Looks whether somebody listens there and can be trusted, so that a mistyped address and a wrong CA are told at
    /// once. Nobody logs in.
    ///
    /// # Errors
    /// When nobody listens, or a handshake below MQTT fails.
    pub async fn probe(&self) -> Result<()> {
        let opening = Stream::open(&self.broker, self.tls.as_ref());
        let opened = tokio::time::timeout(PROBE_WAIT_MAX, opening).await;
        opened.with_context(|| format!("{} did not answer in time", self.broker))?.map(drop)
    }
}
