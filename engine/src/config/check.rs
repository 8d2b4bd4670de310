//! Rules between keys: what each key allows alone and not together.

use actors::inference::rabbitmq::RabbitUrl;
use actors::sync::cloud::is_proxy;

use super::Inputs;
use super::kept::SECRET_BYTES_MIN;
use super::keys::Config;
use super::source::Sources;
use super::value::{AuthMode, CloudAuth, InferenceQueue, MediaBackend, MqttMode, OutboxMode, Url};

/// Notes every broken rule, and what the command of `inputs` cannot do without.
pub(super) fn check(config: &Config, inputs: &Inputs, sources: &mut Sources<'_>) {
    if inputs.needs_database && config.database.url.is_none() {
        let help =
            "set FARMIQ_DATABASE__URL, or start with `farmiq-edge up`, which brings its own PostgreSQL";
        sources.blame("database.url", "is not set", help);
    }
    if inputs.needs_inference && !config.inference.enabled {
        let what = "is false: a worker for inference would do nothing";
        sources.blame("inference.enabled", what, "set it to true for this worker, or start another kind");
    }
    if inputs.needs_cloud && config.cloud.url.is_none() {
        let what = "is not set: a worker for sync would send nothing";
        sources.blame("cloud.url", what, "set it to the address of the cloud, as for the engine");
    }
    if inputs.needs_cloud && config.outbox.mode != OutboxMode::Send {
        let what = "is noop: a worker for sync would send nothing";
        sources.blame("outbox.mode", what, "set it to send for this worker, or start another kind");
    }
    check_http(config, sources);
    check_operators(config, sources);
    check_mqtt(config, sources);
    check_media(config, sources);
    check_inference(config, sources);
    check_cloud(config, sources);
    check_encryption(config, sources);
    check_alarms(config, sources);
    let ingress = &config.ingress;
    if !(ingress.dialect_canonical || ingress.dialect_null_fields || ingress.dialect_flat) {
        let what = "is off like the two others: every message would be refused";
        sources.blame("ingress.dialect_canonical", what, "switch one dialect on");
    }
}

fn check_alarms(config: &Config, sources: &mut Sources<'_>) {
    let alarms = &config.alarms;
    for (what, help) in alarms.ways.mistakes() {
        sources.blame("alarms.ways", &what, &help);
    }
    let steps = [
        ("alarms.critical_steps", &alarms.critical_steps),
        ("alarms.high_steps", &alarms.high_steps),
        ("alarms.low_steps", &alarms.low_steps),
        ("alarms.drill_steps", &alarms.drill_steps),
    ];
    for (key, steps) in steps {
        for name in steps.unknown(&alarms.ways) {
            let what = format!("names the way {name}, which is not below alarms.ways");
            sources.blame(key, &what, "write all, quiet, or a name that is there");
        }
    }
    if let Some(url) = &alarms.heartbeat_url {
        check_scheme("alarms.heartbeat_url", url, &["http", "https"], sources);
    }
    if alarms.heartbeat_gpio_chip.as_ref().is_some_and(|chip| !chip.is_absolute()) {
        sources.blame("alarms.heartbeat_gpio_chip", "is no whole path", "write it such as /dev/gpiochip0");
    }
}

fn check_http(config: &Config, sources: &mut Sources<'_>) {
    let http = &config.http;
    check_pair("http.tls_cert", http.tls_cert.is_some(), "http.tls_key", http.tls_key.is_some(), sources);
    if http.client_ca.is_some() && http.tls_cert.is_none() {
        sources.blame(
            "http.client_ca",
            "is set without http.tls_cert",
            "set http.tls_cert and http.tls_key too",
        );
    }
    check_revocation(config, sources);
    if config.auth.mode == AuthMode::Mtls && http.client_ca.is_none() {
        sources.blame(
            "auth.mode",
            "is mtls without http.client_ca",
            "name the CA of the client certificates",
        );
    }
    if config.auth.jwt_secrets.len() > 2 {
        sources.blame(
            "auth.jwt_secrets",
            "has more than two secrets",
            "keep the new one and the one before it",
        );
    }
    // Whoever has seen one token can try secrets at home, as fast as a machine computes.
    if config.auth.jwt_secrets.iter().any(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
        let what = format!("has a secret of less than {SECRET_BYTES_MIN} bytes");
        sources.blame("auth.jwt_secrets", &what, "make one with `openssl rand -hex 32`");
    }
    check_origins("http.allowed_origins", &http.allowed_origins, sources);
}

fn check_origins(path: &'static str, origins: &[String], sources: &mut Sources<'_>) {
    for origin in origins {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if rest.is_none_or(|host| host.is_empty() || host.contains('/')) {
            let what = format!("has {origin:?}");
            sources.blame(path, &what, "write an origin as scheme://host:port, without a path");
        }
    }
}

fn check_revocation(config: &Config, sources: &mut Sources<'_>) {
    let (http, broker) = (&config.http, &config.broker);
    for (path, ca, crl) in [
        ("http.client_crl", &http.client_ca, &http.client_crl),
        ("broker.client_crl", &broker.client_ca, &broker.client_crl),
    ] {
        if crl.is_some() && ca.is_none() {
            sources.blame(path, "is set without client_ca", "name the CAs whose certificates it revokes");
        }
    }
}

fn check_operators(config: &Config, sources: &mut Sources<'_>) {
    let keys = &config.auth.operator_keys;
    for (position, key) in keys.iter().enumerate() {
        let number = position + 1;
        if key.tenants.is_empty() {
            let what = format!("names no tenant in key {number}");
            sources.blame("auth.operator_keys", &what, "list the tenants, or [\"*\"] for all");
        }
        if key.name.as_deref().is_some_and(|name| !schema::id::is_id(name)) {
            let what = format!("has a name in key {number} that is none");
            sources.blame(
                "auth.operator_keys",
                &what,
                "1 to 128 bytes without control characters or any of / + #",
            );
        }
        if key.name.is_some() && keys[..position].iter().any(|other| other.name == key.name) {
            let what = format!("has the name of key {number} twice");
            sources.blame("auth.operator_keys", &what, "give each operator a name of its own");
        }
        if key.name.is_some() && key.tenants.iter().any(|id| id != "*" && !schema::id::is_id(id)) {
            let what = format!("has a tenant in key {number} that is no id");
            sources.blame("auth.operator_keys", &what, "list the tenants, or [\"*\"] for all");
        }
        if key.key.expose().is_empty() {
            let what = format!("has an empty key {number}");
            sources.blame("auth.operator_keys", &what, "make one with `openssl rand -hex 32`");
        }
        if keys[..position].iter().any(|other| other.key == key.key) {
            let what = format!("has key {number} twice");
            sources.blame("auth.operator_keys", &what, "give each operator a key of its own");
        }
    }
}

fn check_mqtt(config: &Config, sources: &mut Sources<'_>) {
    let (mqtt, broker) = (&config.mqtt, &config.broker);
    check_scheme("mqtt.url", &mqtt.url, &["mqtt", "mqtts", "tcp", "ssl"], sources);
    check_pair("mqtt.tls_cert", mqtt.tls_cert.is_some(), "mqtt.tls_key", mqtt.tls_key.is_some(), sources);
    check_pair(
        "broker.tls_cert",
        broker.tls_cert.is_some(),
        "broker.tls_key",
        broker.tls_key.is_some(),
        sources,
    );
    if mqtt.password.is_some() && mqtt.username.is_none() {
        sources.blame("mqtt.password", "is set without mqtt.username", "set mqtt.username");
    }
    let encrypted = [("broker.listen_tls", broker.listen_tls), ("broker.listen_wss", broker.listen_wss)];
    for (path, listener) in encrypted {
        if listener.is_some() && broker.tls_cert.is_none() {
            let help = "set broker.tls_cert and broker.tls_key, or \"off\"";
            sources.blame(path, "is set without a certificate", help);
        }
    }
    if broker.client_ca.is_some() && encrypted.iter().all(|(_, listener)| listener.is_none()) {
        let what = "is set without broker.listen_tls or broker.listen_wss";
        sources.blame("broker.client_ca", what, "set broker.listen_tls");
    }
    check_origins("broker.ws_allowed_origins", &broker.ws_allowed_origins, sources);
    if mqtt.mode == MqttMode::Embedded {
        check_broker(config, sources);
    }
}

fn check_broker(config: &Config, sources: &mut Sources<'_>) {
    let broker = &config.broker;
    let listeners = [
        ("broker.listen", broker.listen),
        ("broker.listen_tls", broker.listen_tls),
        ("broker.listen_ws", broker.listen_ws),
        ("broker.listen_wss", broker.listen_wss),
    ];
    if listeners.iter().all(|(_, listener)| listener.is_none()) {
        let help = "open one of them, or mqtt.mode = \"external\"";
        sources.blame("broker.listen", "is off like every other listener of [broker]", help);
    }
    if broker.credit_bytes_max < broker.message_bytes_max {
        let what = "is less than broker.message_bytes_max: the largest message would never get in";
        sources.blame("broker.credit_bytes_max", what, "raise it");
    }
    for (path, listener) in listeners {
        let port = listener.map(|address| address.port()).filter(|port| *port != 0);
        if port == Some(config.http.listen.port()) {
            sources.blame(path, "has the port of http.listen", "give each listener a port of its own");
        }
    }
}

fn check_media(config: &Config, sources: &mut Sources<'_>) {
    let media = &config.media;
    for (path, url) in
        [("media.endpoint", &media.endpoint), ("media.presign_endpoint", &media.presign_endpoint)]
    {
        if let Some(url) = url {
            check_scheme(path, url, &["http", "https"], sources);
        }
    }
    check_scheme("media.public_base_url", &media.public_base_url, &["http", "https"], sources);
    if media.backend_in_use() != MediaBackend::S3 {
        return;
    }
    for (path, is_set) in
        [("media.access_key", media.access_key.is_some()), ("media.secret_key", media.secret_key.is_some())]
    {
        if !is_set {
            sources.blame(
                path,
                "is not set, but images go to S3",
                "set it, or media.backend = \"filesystem\"",
            );
        }
    }
}

fn check_inference(config: &Config, sources: &mut Sources<'_>) {
    let inference = &config.inference;
    match &inference.rabbitmq_url {
        None if inference.queue == InferenceQueue::Rabbitmq => {
            let help = "set inference.rabbitmq_url or inference.rabbitmq_url_file";
            sources.blame("inference.queue", "is rabbitmq without inference.rabbitmq_url", help);
        }
        Some(url) if RabbitUrl::parse(url.expose()).is_none() => {
            let help =
                "write it as amqp://user:password@host:5672/vhost, or amqps://…, with odd characters as %xx";
            sources.blame("inference.rabbitmq_url", "is no address of a RabbitMQ server", help);
        }
        Some(_) | None => {}
    }
}

fn check_cloud(config: &Config, sources: &mut Sources<'_>) {
    let cloud = &config.cloud;
    if let Some(url) = &cloud.url {
        check_scheme("cloud.url", url, &["http", "https"], sources);
    }
    check_pair("cloud.tls_cert", cloud.tls_cert.is_some(), "cloud.tls_key", cloud.tls_key.is_some(), sources);
    if cloud.proxy.as_ref().is_some_and(|proxy| !is_proxy(proxy.expose())) {
        let help = "write it as http://user:password@host:3128, or https://…, with odd characters as %xx";
        sources.blame("cloud.proxy", "is no address of an HTTP proxy", help);
    }
    match cloud.auth_mode {
        CloudAuth::ApiKey if cloud.api_key.is_none() => {
            sources.blame(
                "cloud.auth_mode",
                "is api_key without cloud.api_key",
                "set cloud.api_key or cloud.api_key_file",
            );
        }
        CloudAuth::Hmac if cloud.hmac_secret.is_none() => {
            let help = "set cloud.hmac_secret or cloud.hmac_secret_file";
            sources.blame("cloud.auth_mode", "is hmac without cloud.hmac_secret", help);
        }
        CloudAuth::None | CloudAuth::ApiKey | CloudAuth::Hmac => {}
    }
}

/// Certificates of a link that is not encrypted would be a wish that is not heard.
fn check_encryption(config: &Config, sources: &mut Sources<'_>) {
    let (mqtt, cloud) = (&config.mqtt, &config.cloud);
    let is_cloud_plain = cloud.url.as_ref().is_some_and(|url| url.scheme() == "http");
    for (path, is_set) in
        [("cloud.tls_ca", cloud.tls_ca.is_some()), ("cloud.tls_cert", cloud.tls_cert.is_some())]
    {
        if is_set && is_cloud_plain {
            sources.blame(path, "is set, but cloud.url asks for no TLS", "write cloud.url as https://…");
        }
    }
    for (path, is_set) in [("mqtt.tls_ca", mqtt.tls_ca.is_some()), ("mqtt.tls_cert", mqtt.tls_cert.is_some())]
    {
        if is_set && !mqtt.url.is_encrypted() {
            sources.blame(
                path,
                "is set, but mqtt.url asks for no TLS",
                "write mqtt.url as mqtts://host:8883",
            );
        }
    }
}

fn check_scheme(path: &'static str, url: &Url, schemes: &[&str], sources: &mut Sources<'_>) {
    if !schemes.contains(&url.scheme().as_str()) {
        let what = format!("begins with {}://", url.scheme());
        sources.blame(path, &what, &format!("it must begin with {}://", schemes.join(":// or ")));
    }
}

fn check_pair(
    cert: &'static str,
    has_cert: bool,
    key: &'static str,
    has_key: bool,
    sources: &mut Sources<'_>,
) {
    if has_cert != has_key {
        let (set, missing) = if has_cert { (cert, key) } else { (key, cert) };
        sources.blame(set, &format!("is set without {missing}"), &format!("set {missing} too"));
    }
}
