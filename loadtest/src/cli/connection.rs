//! Options of every command that connects to a broker.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use loadtest::connection::Connection;
use loadtest::connection::logins::{Logins, Table};
use loadtest::connection::provision::Api;
use loadtest::http;
use loadtest::mqtt::Version;
use loadtest::stream::{Target, Tls};
use loadtest::watched;

/// A version of MQTT.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MqttVersion {
    /// MQTT 3.1.1: refusals of single messages are not seen.
    #[value(name = "3.1.1", alias = "4")]
    V311,
    /// MQTT 5: refusals have reason codes.
    #[value(name = "5")]
    V5,
}

impl From<MqttVersion> for Version {
    fn from(version: MqttVersion) -> Self {
        match version {
            MqttVersion::V311 => Self::V311,
            MqttVersion::V5 => Self::V5,
        }
    }
}

/// Where the broker is and how one connects.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// host:port, or a URL: mqtt://, mqtts://, ws:// or wss://HOST[:PORT][/PATH].
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub(crate) broker: String,
    /// Version of MQTT.
    #[arg(long, value_enum)]
    mqtt: Option<MqttVersion>,
    /// CA of the broker's certificate (PEM); turns TLS on. Without it, mqtts:// and wss:// trust the system's CAs. URLs
    /// with https:// trust the same.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Name in the broker's certificate, if it is not the host of the address.
    #[arg(long)]
    tls_name: Option<String>,
    /// Client certificate (PEM).
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM).
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// User name.
    #[arg(long)]
    user: Option<String>,
    /// Password. Other users of this machine can see it; --password-file hides it.
    #[arg(long, conflicts_with = "password_file")]
    password: Option<String>,
    /// File that holds the password in its first line.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Seconds of keepalive.
    #[arg(long, default_value_t = 60)]
    keepalive_seconds: u16,
}

impl ConnectionArgs {
    /// The connection, with the same login for everybody.
    pub(crate) fn connection(&self, default: Version) -> Result<Connection> {
        let logins = match &self.user {
            Some(user) => Logins::Shared { user: user.clone(), password: self.password()? },
            None => Logins::Anonymous,
        };
        Ok(Connection {
            broker: self.broker.clone(),
            tls: self.tls()?,
            version: self.mqtt.map_or(default, Version::from),
            keepalive_seconds: self.keepalive_seconds,
            logins,
        })
    }

    pub(crate) fn password(&self) -> Result<Option<String>> {
        match &self.password_file {
            Some(file) => first_line(file).map(Some),
            None => Ok(self.password.clone()),
        }
    }

    fn tls(&self) -> Result<Option<Tls>> {
        let target = Target::parse(&self.broker)?;
        let tls = match &self.ca {
            Some(ca) => {
                let tls = Tls::trusting_file(ca)?;
                http::trust(&tls);
                tls
            }
            None if target.is_encrypted == Some(true) || self.cert.is_some() => Tls::trusting_system()?,
            None => return Ok(None),
        };
        let tls = tls.named(self.tls_name.as_deref().unwrap_or(target.host()))?;
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(Some(tls)) };
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        tls.showing(&read(cert)?, &read(key)?).map(Some)
    }
}

/// The first line of a file of one secret.
pub(crate) fn first_line(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    line.map(str::to_owned).with_context(|| format!("{} holds nothing", path.display()))
}

/// What each of many devices shows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logins")]
pub(crate) struct LoginArgs {
    /// CSV with the columns device, username and password: each device logs in as itself. DEVICE or TENANT/DEVICE.
    #[arg(long, conflicts_with_all = ["certificates", "provision", "user"])]
    credentials: Option<PathBuf>,
    /// Directory with DEVICE.pem and DEVICE.key: each device shows its own certificate.
    #[arg(long, conflicts_with_all = ["provision", "user"])]
    certificates: Option<PathBuf>,
    /// Let the devices in through the HTTP API of this engine first, http(s)://host:port, and use the passwords it makes.
    #[arg(long, requires = "key_file", conflicts_with = "user")]
    provision: Option<String>,
    /// File with an operator key: of the role admin for --provision, of the role write for --flock.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Write the logins made by --provision to this CSV, for --credentials of the next run.
    #[arg(long, requires = "provision")]
    save_credentials: Option<PathBuf>,
}

impl LoginArgs {
    /// The operator key, where a file of one is named.
    pub(crate) fn key(&self) -> Result<Option<String>> {
        self.key_file.as_deref().map(first_line).transpose()
    }

    /// The connection of devices that log in this way.
    pub(crate) fn apply(&self, connection: Connection) -> Result<Connection> {
        let logins = match (&self.credentials, &self.certificates) {
            (Some(file), _) => Logins::Table(Table::read(file)?),
            (None, Some(folder)) => Logins::Certificates(folder.clone()),
            (None, None) => return Ok(connection),
        };
        Ok(Connection { logins, ..connection })
    }

    pub(crate) fn provision(&self) -> Result<Option<(Api, Option<PathBuf>)>> {
        let (Some(url), Some(file)) = (&self.provision, &self.key_file) else { return Ok(None) };
        let api = Api { url: url.clone(), key: first_line(file)? };
        Ok(Some((api, self.save_credentials.clone())))
    }
}

/// What is watched during a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct WatchArgs {
    /// Process id of the engine on this machine: its memory and CPU go into the report.
    #[arg(long)]
    engine_pid: Option<u32>,
    /// Process id of the postmaster on this machine; its children count with it.
    #[arg(long)]
    postgres_pid: Option<u32>,
    /// Metrics of an engine elsewhere, http(s)://host:port/metrics.
    #[arg(long, conflicts_with = "engine_pid")]
    metrics_url: Option<String>,
    /// File with an operator key for the metrics.
    #[arg(long, requires = "metrics_url")]
    metrics_key_file: Option<PathBuf>,
}

impl WatchArgs {
    pub(crate) fn settings(&self) -> Result<watched::Settings> {
        Ok(watched::Settings {
            engine_pid: self.engine_pid,
            postgres_pid: self.postgres_pid,
            metrics_url: self.metrics_url.clone(),
            key: self.metrics_key_file.as_deref().map(first_line).transpose()?,
        })
    }
}
