//! How RabbitMQ is reached, and why it may not be.

use std::future::Future;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::time::timeout;

use super::{Orders, RabbitUrl};
use crate::inference::InferenceHub;

/// How long the server may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// AMQP's code for a user that lacks a right.
const ACCESS_REFUSED: u16 = 403;
/// AMQP's code for a queue that is there and is another one.
const PRECONDITION_FAILED: u16 = 406;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server cannot be reached, or refuses.
    #[error("connect to RabbitMQ")]
    Connect(#[source] lapin::Error),
    /// The queues are not as they should be, or the connection broke meanwhile.
    #[error("prepare the queues of RabbitMQ{}", .advice.map(|advice| format!(" ({advice})")).unwrap_or_default())]
    Prepare {
        /// What a person can do about it.
        advice: Option<&'static str>,
        /// What the server said.
        #[source]
        source: lapin::Error,
    },
    /// The connection broke.
    #[error("carry work orders")]
    Carry(#[source] lapin::Error),
    /// No answer.
    #[error("RabbitMQ did not answer within {} s", ANSWER_MAX.as_secs())]
    Silent,
    /// Somebody deleted the queue, or the connection is gone without a word.
    #[error("the connection or the queue of RabbitMQ is gone")]
    Gone,
}

impl LinkError {
    pub(super) fn prepare(source: lapin::Error) -> Self {
        let code =
            if let ErrorKind::ProtocolError(error) = source.kind() { Some(error.get_id()) } else { None };
        let advice = match code {
            Some(ACCESS_REFUSED) => Some(
                "the user needs the rights to configure, write and read farmiq.inference.* in the virtual host, and amq.default to write",
            ),
            Some(PRECONDITION_FAILED) => Some(
                "the default queue type of the virtual host must be classic; delete farmiq.inference and \
                 farmiq.inference.dead if somebody made them in another way",
            ),
            Some(_) | None => None,
        };
        Self::Prepare { advice, source }
    }
}

/// What a link starts with.
#[derive(Clone)]
pub struct Args {
    /// The server.
    pub url: RabbitUrl,
    /// Orders in hand at most; `None` for an engine that only makes jobs.
    pub prefetch: Option<u16>,
    /// What is carried.
    pub orders: Orders,
    /// Whose workers are woken.
    pub hub: InferenceHub,
    /// Name of this engine, for people who look at the server.
    pub name: String,
}

pub(super) async fn connect(url: &RabbitUrl, name: &str) -> Result<Connection, LinkError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    answer(Connection::connect_uri(url.0.clone(), properties)).await?.map_err(LinkError::Connect)
}

pub(super) async fn answer<T>(asked: impl Future<Output = T>) -> Result<T, LinkError> {
    timeout(ANSWER_MAX, asked).await.map_err(|_| LinkError::Silent)
}
