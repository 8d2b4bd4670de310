//! The configuration of an engine under test, as environment variables.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use engine::config::{self, Config, Inputs};
use rand::Rng;
use tempfile::TempDir;

/// Ports for listeners that come back on the same port: below those the system gives to clients.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// What keeps the ports of this process from other tests. It is theirs until the process ends, whether
/// somebody listens or not: two listeners of one engine are told their ports before either is bound.
static KEPT: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// What one engine is told. Clones are told the same, and share a data directory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its MQTT listener will be.
    pub mqtt: SocketAddr,
    /// Where its HTTP listener will be.
    pub http: SocketAddr,
    variables: BTreeMap<String, String>,
    data_dir: Arc<TempDir>,
}

impl Settings {
    /// An engine with the embedded broker, open to everybody, that watches and sends at once.
    ///
    /// # Panics
    /// When there is no room for a directory, or no free port.
    #[must_use]
    pub fn of(database_url: &str) -> Self {
        let data_dir = tempfile::tempdir().expect("a directory can be made");
        let (mqtt, http) = (free_address(), free_address());
        let place = data_dir.path().display().to_string();
        let settings = Self { mqtt, http, variables: BTreeMap::new(), data_dir: Arc::new(data_dir) };
        settings
            .set("database.url", database_url)
            .set("edge.id", &format!("edge-{}", mqtt.port()))
            .set("edge.data_dir", &place)
            .set("mqtt.mode", "embedded")
            .set("broker.listen", &mqtt.to_string())
            .set("broker.allow_anonymous", "true")
            .set("http.listen", &http.to_string())
            .set("auth.mode", "compat")
            .set("metrics.statsd_address", "")
    }

    /// The same for another engine: with a place, a name and ports of its own.
    ///
    /// # Panics
    /// When there is no room for a directory, or no free port.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        let own = Self::of("");
        let mut variables = self.variables.clone();
        for key in
            ["FARMIQ_EDGE__ID", "FARMIQ_EDGE__DATA_DIR", "FARMIQ_BROKER__LISTEN", "FARMIQ_HTTP__LISTEN"]
        {
            variables.insert(key.to_owned(), own.variables[key].clone());
        }
        Self { variables, ..own }
    }

    /// Sets a key of the configuration, such as `outbox.lease_seconds`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("FARMIQ_{}", key.to_uppercase().replace('.', "__"));
        self.variables.insert(name, value.to_owned());
        self
    }

    /// Names the authorities that the system vouches for: a PEM file.
    #[must_use]
    pub fn trusting(self, authorities: &Path) -> Self {
        self.with_variable("SSL_CERT_FILE", &authorities.display().to_string())
    }

    /// Sets a variable of the environment that is no key of the configuration.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The directory of the engine.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The environment variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as a configuration in this process.
    ///
    /// # Panics
    /// When the settings have a mistake.
    #[must_use]
    pub fn config(&self) -> Config {
        let environment = self.variables().collect();
        let inputs = Inputs { environment, needs_database: true, ..Inputs::default() };
        match config::load(&inputs) {
            Ok(loaded) => loaded.config,
            Err(mistakes) => panic!("{}", mistakes.report(false)),
        }
    }
}

/// An address on this machine that nobody listens on, and that no test is given again while this process
/// lives.
///
/// # Panics
/// When every port tried is taken.
#[must_use]
pub fn free_address() -> SocketAddr {
    let address = |_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(PORTS)));
    let is_free = |address: &SocketAddr| keep(address.port()) && TcpListener::bind(address).is_ok();
    (0..100).map(address).find(is_free).expect("one of a hundred ports is free")
}

/// Keeps a port for this process, unless a test has it: by a socket without a file, whose name only one can
/// hold, and which the system takes away with its process.
fn keep(port: u16) -> bool {
    let name = unix::SocketAddr::from_abstract_name(format!("farmiq-tests-port-{port}"));
    let kept = UnixListener::bind_addr(&name.expect("the name is short"));
    kept.map(|kept| KEPT.lock().expect("nobody panics with the ports").push(kept)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_to_one_test_only() {
        let mut given: Vec<SocketAddr> = (0..200).map(|_| free_address()).collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 200);
        assert!(!keep(given[0].port()));
    }
}
