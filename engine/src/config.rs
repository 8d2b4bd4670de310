//! The configuration: flags, environment, file and defaults, read once, checked whole, with every mistake at once.
//!
//! The table in `config/keys.rs` is the only list of keys; structs, environment names, the check for unknown
//! keys, the printer and the example file are made of it. This is the only place that reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

mod check;
mod kept;
mod keys;
mod mistake;
mod old;
mod print;
mod source;
mod steps;
mod table;
mod value;
mod ways;

pub use kept::{Kept, KeptError, KeptOrigin, SECRET_BYTES_MIN, kept_secret};
pub use keys::{
    Alarms, Auth, Backup, Broker, Cloud, Config, Database, Device, Edge, Http, Inference, Ingress, Log,
    Media, Metrics, Mqtt, Ops, Outbox, Retention, SECTIONS, Session, Telemetry, every_key,
};
pub use mistake::{Mistake, Mistakes};
pub use print::example;
pub use source::{Environment, Flag, Origin};
pub use steps::Steps;
pub use table::{Convert, Key, OldName, Section};
pub use value::{
    AuthMode, CloudAuth, Fraction, Headers, HostPort, InferenceQueue, LiveWay, LogLevel, MediaBackend,
    MqttMode, OperatorKey, OutboxMode, Role, Secret, Setting, Url,
};
pub use ways::{WaySettings, WaysSetting};

use source::{FILE_VARIABLE, Sources};

/// What a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The environment variables.
    pub environment: Environment,
    /// The file named on the command line; `None` means the one `FARMIQ_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// Values of the command line; they win over everything.
    pub flags: Vec<Flag>,
    /// Defaults of the command that runs; everything but the defaults of the keys wins over them.
    pub presets: Vec<(&'static str, String)>,
    /// Whether a missing `database.url` is a mistake.
    pub needs_database: bool,
    /// Whether a configuration that runs no inference is a mistake.
    pub needs_inference: bool,
    /// Whether a configuration that sends nothing to a cloud is a mistake.
    pub needs_cloud: bool,
}

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each key got its value.
    pub origins: BTreeMap<&'static str, Origin>,
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    /// What was met on the way: variables without meaning, a name that was made anew.
    met: Vec<String>,
}

impl Loaded {
    /// What should be logged once at start: what was met on the way, and settings that are not safe.
    pub fn notices(&self) -> Vec<String> {
        self.notices_about(&self.config)
    }

    /// The same when this is what becomes of the configuration.
    pub fn notices_about(&self, config: &Config) -> Vec<String> {
        self.met.iter().cloned().chain(insecure_settings(config)).collect()
    }
}

/// Reads and checks everything.
///
/// # Errors
/// All mistakes that were found, not only the first.
pub fn load(inputs: &Inputs) -> Result<Loaded, Mistakes> {
    let mut sources = Sources::new(&inputs.environment, &inputs.flags, &inputs.presets);
    let named = inputs.environment.get(FILE_VARIABLE).filter(|name| !name.is_empty()).map(Path::new);
    let file = inputs.file.as_deref().or(named);
    if let Some(file) = file {
        sources.read_file(file);
    }
    let mut config = Config::read(&mut sources);
    name_this_box(&mut config, &mut sources);
    if sources.origins.get("media.root") == Some(&Origin::Default) {
        config.media.root = config.edge.data_dir.join("media");
    }
    if sources.origins.get("media.public_base_url") == Some(&Origin::Default) {
        config.media.public_base_url = config.http.url();
    }
    check::check(&config, inputs, &mut sources);
    if !sources.mistakes.is_empty() {
        return Err(Mistakes { mistakes: sources.mistakes });
    }
    Ok(Loaded { config, origins: sources.origins, file: file.map(Path::to_owned), met: sources.notices })
}

/// Fills in what the box knows about itself.
fn name_this_box(config: &mut Config, sources: &mut Sources<'_>) {
    if config.edge.version.is_empty() {
        config.edge.version = env!("CARGO_PKG_VERSION").to_owned();
    }
    if config.edge.id.is_empty() {
        config.edge.id = host_name();
    }
    if config.edge.id.is_empty() {
        match kept::kept_name(&config.edge.data_dir) {
            Ok(kept) => {
                if kept.origin == KeptOrigin::MadeAnew {
                    let file = config.edge.data_dir.join("edge-id");
                    let notice = format!("{} held no name and was made anew: {}", file.display(), kept.value);
                    sources.notices.push(notice);
                }
                config.edge.id = kept.value;
            }
            Err(error) => sources.blame("edge.id", &format!("is not set, and {error}"), "set edge.id"),
        }
    }
}

/// The name of the machine; empty when it has none of its own.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if matches!(name.as_str(), "localhost" | "(none)") { String::new() } else { name }
}

fn insecure_settings(config: &Config) -> Vec<String> {
    let embedded = config.mqtt.mode == MqttMode::Embedded;
    let auth = &config.auth;
    let takes_passwords = auth.mode != AuthMode::Mtls && !auth.jwt_secrets.is_empty();
    let takes_tokens = takes_passwords || !auth.jwt_public_key_files.is_empty();
    let is_short = |secret: &Secret, bytes_min| secret.expose().len() < bytes_min;
    let remarks = [
        (
            config.http.tls_cert.is_none() && (takes_tokens || !auth.operator_keys.is_empty()),
            "http.listen is not encrypted, and passwords, tokens and keys travel on it: in production, set http.tls_cert or end TLS in a proxy before it",
        ),
        (
            matches!(auth.mode, AuthMode::Jwt | AuthMode::JwtOrMtls) && !takes_tokens,
            "neither auth.jwt_secrets nor auth.jwt_public_key_files is set: no device can get or use a token over HTTP",
        ),
        (
            auth.operator_keys.iter().any(|key| is_short(&key.key, OPERATOR_KEY_BYTES_MIN)),
            "auth.operator_keys has a key of less than 16 bytes, which may be guessed: make one with `openssl rand -hex 32`",
        ),
        (
            config.media.upload_secret.as_ref().is_some_and(|secret| is_short(secret, SECRET_BYTES_MIN)),
            "media.upload_secret has less than 32 bytes, and may be guessed by whoever sees an upload URL: make one with `openssl rand -hex 32`",
        ),
        (
            config.auth.mode == AuthMode::Compat,
            "auth.mode is compat: HTTP calls without a credential are accepted",
        ),
        (
            embedded && config.broker.allow_anonymous,
            "broker.allow_anonymous is on: devices connect without a credential",
        ),
        (
            embedded && config.broker.listen.is_some(),
            "broker.listen is plain MQTT: in production, use broker.listen_tls and set it to \"off\"",
        ),
        (
            embedded && config.broker.listen_ws.is_some(),
            "broker.listen_ws is not encrypted: in production, use broker.listen_wss or end TLS in a proxy before it",
        ),
    ];
    let remarks = remarks.into_iter().filter(|(applies, _)| *applies).map(|(_, remark)| remark.to_owned());
    remarks.chain(config.alarms.ways.remarks()).collect()
}

/// Bytes of the shortest operator key that is not remarked on: it is sent to the box to be tried, a few times a second.
const OPERATOR_KEY_BYTES_MIN: usize = 16;

impl Default for Config {
    /// Every key at its default.
    fn default() -> Self {
        load(&Inputs::default()).expect("the defaults have no mistake: a test loads them").config
    }
}

impl Http {
    /// The address one can type: "every interface" is reached as localhost.
    pub fn url(&self) -> Url {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", reachable(self.listen));
        Url::from_text(&address).expect("a scheme and an address make a URL")
    }
}

/// Where a listener is reached from this machine.
pub fn reachable(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() { format!("localhost:{}", listen.port()) } else { listen.to_string() }
}

impl Media {
    /// The backend that is meant: S3 when an endpoint is set and nothing else is said.
    pub fn backend_in_use(&self) -> MediaBackend {
        let implied = if self.endpoint.is_some() { MediaBackend::S3 } else { MediaBackend::Filesystem };
        self.backend.unwrap_or(implied)
    }
}

#[cfg(test)]
mod tests;
