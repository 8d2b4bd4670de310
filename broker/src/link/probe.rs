//! Tries an external broker: whether it can be reached, lets us in, and lets us subscribe to what the engine needs.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use schema::wire::topic::FILTERS;
use tokio::time::timeout;

use super::LinkSettings;
use crate::tls::TlsError;

/// The longest wait for the broker to answer everything.
const ANSWER_SECONDS_MAX: u64 = 10;
/// Requests that may wait in the client: one subscription and one goodbye.
const REQUESTS_MAX: usize = 2;

/// Why the engine could not work with a broker.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The files that encrypt the link are of no use.
    #[error("read the certificates of the link")]
    Files(#[from] TlsError),
    /// It cannot be reached, or does not speak MQTT or TLS as we do.
    #[error("connect to the broker")]
    Connect(#[source] Box<ConnectionError>),
    /// It knows us and does not let us in.
    #[error("the broker does not let us in: {0:?}")]
    Refused(ConnectReturnCode),
    /// It lets us in and not listen.
    #[error("the broker refuses the subscription to {0}")]
    Filter(&'static str),
    /// It says nothing.
    #[error("no answer from the broker in {ANSWER_SECONDS_MAX} s")]
    Silent,
}

/// Connects under a client id of its own, with a session that ends with the connection, and asks for the filters of the
/// engine. A connected engine and its session are not touched.
///
/// # Errors
/// The first thing that would keep the engine from working.
pub async fn probe(settings: &LinkSettings) -> Result<(), ProbeError> {
    let mut options =
        MqttOptions::new(format!("{}-probe", settings.client_id), &settings.host, settings.port);
    options.set_clean_session(true).set_keep_alive(settings.keepalive);
    if let Some((username, password)) = &settings.credentials {
        options.set_credentials(username, password);
    }
    if let Some(tls) = &settings.tls {
        let config = TlsConfiguration::Rustls(tls.read().await?);
        options.set_transport(Transport::tls_with_config(config));
    }
    let tried = timeout(Duration::from_secs(ANSWER_SECONDS_MAX), attempt(options));
    tried.await.unwrap_or(Err(ProbeError::Silent))
}

async fn attempt(options: MqttOptions) -> Result<(), ProbeError> {
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    let filters = FILTERS.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce));
    client.try_subscribe_many(filters).expect("the queue of a new client has room");
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let refused = FILTERS.iter().zip(&answer.return_codes);
                let refused = refused.filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
                let verdict =
                    refused.map(|(filter, _)| ProbeError::Filter(filter)).next().map_or(Ok(()), Err);
                // The goodbye is a courtesy: the broker forgets the session either way.
                drop(client.try_disconnect());
                drop(events.poll().await);
                return verdict;
            }
            Ok(_) => {}
            Err(ConnectionError::ConnectionRefused(code)) => return Err(ProbeError::Refused(code)),
            Err(error) => return Err(ProbeError::Connect(Box::new(error))),
        }
    }
}
