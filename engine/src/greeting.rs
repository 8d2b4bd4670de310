//! What `up` tells the person who started it: where everything listens, and how to send a first reading.

use std::fmt::Write;
use std::net::SocketAddr;

use schema::store::device;
use schema::wire::topic;

use crate::config::{Config, MediaBackend, reachable};

/// The greeting; `private_database` is the address of the private cluster, when there is one.
pub fn of(config: &Config, private_database: Option<&str>) -> String {
    let mut text = format!("\nfarmiq-edge {} on {}\n\n", config.edge.version, config.edge.id);
    for (what, place) in places(config, private_database) {
        let _ = writeln!(text, "  {what:<10}{place}");
    }
    if let Some(listen) = config.broker.listen {
        text.push_str(&first_reading(config, listen, private_database));
    }
    text.push_str("\nCtrl-C stops it in order, a second Ctrl-C at once.\n\n");
    text
}

fn places(config: &Config, private_database: Option<&str>) -> Vec<(&'static str, String)> {
    let database =
        private_database.map_or("as configured".to_owned(), |url| format!("private: psql \"{url}\""));
    let media = match config.media.backend_in_use() {
        MediaBackend::Filesystem => config.media.root.display().to_string(),
        MediaBackend::S3 => format!("bucket {}", config.media.bucket),
    };
    let cloud = config
        .cloud
        .url
        .as_ref()
        .map_or("off; rows wait until cloud.url is set".to_owned(), ToString::to_string);
    let access =
        if config.broker.allow_anonymous { "no credential needed: insecure" } else { "credential needed" };
    let mut places =
        vec![("HTTP", format!("{}  (/api/health, /api/ready, /api-docs, /metrics)", config.http.url()))];
    if let Some(listen) = config.broker.listen {
        places.push(("MQTT", format!("mqtt://{}  ({access})", reachable(listen))));
    }
    if let Some(listen) = config.broker.listen_tls {
        places.push(("MQTT TLS", format!("mqtts://{}", reachable(listen))));
    }
    if let Some(listen) = config.broker.listen_ws {
        places.push(("MQTT WS", format!("ws://{}/mqtt", reachable(listen))));
    }
    if let Some(listen) = config.broker.listen_wss {
        places.push(("MQTT WSS", format!("wss://{}/mqtt", reachable(listen))));
    }
    places.extend([("Database", database), ("Images", media), ("Cloud", cloud)]);
    places
}

/// How to let a device in and send its first reading.
fn first_reading(config: &Config, listen: SocketAddr, private_database: Option<&str>) -> String {
    let database = private_database.unwrap_or("$DATABASE_URL");
    let credential = if config.broker.allow_anonymous { "" } else { " -u USER -P PASSWORD" };
    let host = if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
    format!(
        r#"
Let a device in and send a first reading:
  psql "{database}" -c "{allow}"
  mosquitto_pub -h {host} -p {port}{credential} -q 1 -t {topic} \
    -m '{{"event_id":"e-1","tenant_id":"t-001","device_id":"d-001","value":21.5,"ts":"2026-02-12T09:00:00Z"}}'
"#,
        port = listen.port(),
        allow = device::ALLOW_EXAMPLE,
        topic = topic::EXAMPLE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_can_be_typed_off() {
        let mut config = Config::default();
        config.broker.allow_anonymous = true;
        let text = of(&config, Some("host=/barn/socket user=farmiq"));
        assert!(text.contains("http://localhost:3000"), "{text}");
        assert!(text.contains("mosquitto_pub -h localhost -p 1883 -q 1 -t iot/telemetry/"), "{text}");
        assert!(text.contains("psql \"host=/barn/socket user=farmiq\""), "{text}");
    }
}
