//! Word of changed access: which devices a statement has let in, changed or put out, as the database tells it.
//!
//! The triggers of migration 7 tell it. Word may be lost with the connection, so whoever listens looks at the rows when it
//! begins, and now and then.

use std::future::poll_fn;
use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client, Connection, Socket};

use crate::store::link::Link;
use crate::store::tls::Encrypted;
use crate::store::{Store, StoreError, at};

/// The channel of the triggers.
const LISTEN: &str = "LISTEN farmiq_access";
/// Seconds the server may take to say that it will tell.
const LISTEN_SECONDS_MAX: u64 = 5;
/// Nothing is sent on this connection, so its end is asked for signs of life.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Whose access has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// One device.
    Device {
        /// Its tenant.
        tenant_id: String,
        /// The device.
        device_id: String,
    },
    /// Many devices, or nobody knows which.
    Anybody,
}

impl Touched {
    fn of(payload: &str) -> Self {
        match payload.split_once('/') {
            Some((tenant_id, device_id)) => {
                Self::Device { tenant_id: tenant_id.to_owned(), device_id: device_id.to_owned() }
            }
            None => Self::Anybody,
        }
    }
}

/// A connection of its own on which the database tells of changes. It lives on whoever polls it.
pub struct AccessNews {
    /// Keeps the connection open.
    _client: Client,
    connection: Connection<Socket, Encrypted>,
}

impl Store {
    /// Opens a connection beside the pool and listens on it. What is committed after this returns will be told.
    ///
    /// # Errors
    /// When the database is away or does not answer.
    pub async fn access_news(&self) -> Result<AccessNews, StoreError> {
        let name = "access_news";
        let listening = async {
            let Link { mut config, tls } = self.shared.link.clone();
            config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(2);
            let (client, mut connection) = config.connect(tls).await.map_err(at(name))?;
            let told = async {
                // Word that arrives before the answer is of no interest: the caller looks at the rows next.
                while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                    message.map_err(at(name))?;
                }
                Err(StoreError::Unanswered { name })
            };
            tokio::select! {
                listening = client.batch_execute(LISTEN) => listening.map_err(at(name))?,
                lost = told => lost?,
            }
            Ok(AccessNews { _client: client, connection })
        };
        let silent = Err(StoreError::Unanswered { name });
        tokio::time::timeout(Duration::from_secs(LISTEN_SECONDS_MAX), listening).await.unwrap_or(silent)
    }
}

impl AccessNews {
    /// Waits for the next change. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// When the connection is gone, and with it what would have been told.
    pub async fn next(&mut self) -> Result<Touched, StoreError> {
        loop {
            match poll_fn(|context| self.connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(told))) => return Ok(Touched::of(told.payload())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(at("access_news")(error)),
                None => return Err(StoreError::Unanswered { name: "access_news" }),
            }
        }
    }
}
