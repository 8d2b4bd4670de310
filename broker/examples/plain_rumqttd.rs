//! A plain rumqttd with its own listener, to be measured beside the engine by `loadtest/bench-door`.
//!
//! Without TLS, which its crate builds on libraries with open advisories.

use std::collections::HashMap;
use std::error::Error;
use std::net::Ipv4Addr;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Where the benchmark looks for it.
const PORT: u16 = 18_836;

fn main() -> Result<(), Box<dyn Error>> {
    let listen = (Ipv4Addr::LOCALHOST, PORT).into();
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "plain".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    let router = RouterConfig {
        max_connections: 100_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 10 << 20,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config =
        Config { router, v4: Some(HashMap::from([("plain".to_owned(), server)])), ..Config::default() };
    Broker::new(config).start()?;
    Ok(())
}
