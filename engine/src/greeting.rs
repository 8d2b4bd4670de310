//! What `up` tells the person who started it: where everything listens, and how to send a first reading.

use std::fmt::Write;
use std::net::SocketAddr;

use schema::wire::topic;

use crate::config::{Config, MediaBackend, reachable};
use crate::first_keys::OperatorKeyFile;
use crate::invite::address;

/// The greeting; `private_database` is the address of the private cluster, when there is one, and `first_key` the
/// operator key that the box has made for itself.
pub fn of(config: &Config, private_database: Option<&str>, first_key: Option<&OperatorKeyFile>) -> String {
    let mut text = format!("\nfarmiq-edge {} on {}\n\n", config.edge.version, config.edge.id);
    for (what, place) in places(config, private_database) {
        let _ = writeln!(text, "  {what:<10}{place}");
    }
    if let Some(key) = first_key {
        let _ = writeln!(text, "  {:<10}{}", "Operator", operator(key));
    }
    if let Some(listen) = config.broker.listen {
        text.push_str(&first_reading(config, listen, first_key));
    }
    text.push_str("\nCtrl-C stops it in order, a second Ctrl-C at once.\n\n");
    text
}

fn operator(key: &OperatorKeyFile) -> String {
    let file = key.path.display();
    match &key.new {
        Some(new) => {
            format!("x-api-key: {}  (role admin, all tenants; shown this once, kept in {file})", new.expose())
        }
        None => format!("x-api-key: kept in {file}"),
    }
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
    let console =
        format!("{}/  (with the operator key, or: farmiq-edge console invite --name YOU)", address(config));
    places.push(("Console", console));
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

/// How to let a device in, send its first reading and read that back, as one can type it.
fn first_reading(config: &Config, listen: SocketAddr, first_key: Option<&OperatorKeyFile>) -> String {
    let [tenant, device] = [topic::EXAMPLE_TENANT, topic::EXAMPLE_DEVICE];
    let data_dir = quoted(&config.edge.data_dir.display().to_string());
    let host = if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
    let credential = if config.broker.allow_anonymous {
        String::new()
    } else {
        format!(" -u {tenant}/{device} -P \"$PASSWORD\"")
    };
    let mut text = format!(
        r#"
Let a device in, with the password that this shows once:
  FARMIQ_EDGE__DATA_DIR={data_dir} farmiq-edge device add --tenant {tenant} --farm f-001 --barn b-001 --device {device}
  PASSWORD=…
and send its first reading:
  mosquitto_pub -h {host} -p {port}{credential} -q 1 -t {topic} \
    -m "{{\"event_id\":\"$(cat /proc/sys/kernel/random/uuid)\",\"tenant_id\":\"{tenant}\",\"device_id\":\"{device}\",\"value\":21.5,\"ts\":\"$(date -u +%FT%TZ)\"}}"
"#,
        port = listen.port(),
        topic = topic::EXAMPLE,
    );
    if let Some(key) = first_key {
        let _ = write!(
            text,
            "Read it back:
  KEY=$(cat {file})
  curl -H \"x-api-key: $KEY\" '{http}/api/v1/telemetry/readings?tenant_id={tenant}&device_id={device}'
",
            file = quoted(&key.path.display().to_string()),
            http = config.http.url(),
        );
    }
    text
}

/// A text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_greeting_can_be_typed_off() {
        let mut config = Config::default();
        config.edge.data_dir = "/barn 7".into();
        let key = OperatorKeyFile {
            path: "/barn 7/operator-key".into(),
            new: Some(Secret::from("k3y".to_owned())),
        };
        let text = of(&config, Some("host=/barn/socket user=farmiq"), Some(&key));
        for expected in [
            "http://localhost:3000",
            "farmiq-edge console invite --name YOU",
            "psql \"host=/barn/socket user=farmiq\"",
            "k3y  (role admin, all tenants; shown this once, kept in /barn 7/operator-key)",
            "FARMIQ_EDGE__DATA_DIR='/barn 7' farmiq-edge device add --tenant t-001",
            "mosquitto_pub -h localhost -p 1883 -u t-001/d-001 -P \"$PASSWORD\" -q 1 -t iot/telemetry/",
            "$(cat /proc/sys/kernel/random/uuid)",
            "$(date -u +%FT%TZ)",
            "KEY=$(cat '/barn 7/operator-key')",
            "curl -H \"x-api-key: $KEY\" 'http://localhost:3000/api/v1/telemetry/readings?tenant_id=t-001&device_id=d-001'",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let later = OperatorKeyFile { new: None, ..key };
        let text = of(&config, None, Some(&later));
        assert!(!text.contains("k3y") && text.contains("kept in /barn 7/operator-key"), "{text}");
        config.broker.allow_anonymous = true;
        let text = of(&config, None, None);
        assert!(text.contains("-p 1883 -q 1") && !text.contains("operator-key"), "{text}");
    }
}
