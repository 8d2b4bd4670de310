//! The listeners of a site: in the clear, over TLS, in WebSockets and both, with an authority for each side.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::certificates::Authority;
use crate::settings::{Settings, free_address};

/// Where an engine will listen, and what encrypts it.
pub struct Site {
    /// Vouches for the engine.
    pub server_ca: Authority,
    /// Vouches for devices.
    pub device_ca: Authority,
    /// MQTT over TLS.
    pub tls: SocketAddr,
    /// MQTT in WebSockets.
    pub ws: SocketAddr,
    /// MQTT in WebSockets over TLS.
    pub wss: SocketAddr,
    directory: TempDir,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// A site with authorities of its own.
    ///
    /// # Panics
    /// When there is no room for a directory, or no free port.
    #[must_use]
    pub fn new() -> Self {
        let site = Self {
            server_ca: Authority::new("servers"),
            device_ca: Authority::new("devices"),
            tls: free_address(),
            ws: free_address(),
            wss: free_address(),
            directory: tempfile::tempdir().expect("a directory can be made"),
        };
        std::fs::write(site.ca_file(), site.server_ca.pem()).expect("a file can be written");
        site
    }

    /// An engine with every listener that lets nobody in without a credential.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn settings(&self, settings: Settings) -> Settings {
        let (cert, key) = self.server_ca.server().write(self.directory.path());
        let client_ca = self.directory.path().join("devices.pem");
        std::fs::write(&client_ca, self.device_ca.pem()).expect("a file can be written");
        settings
            .set("broker.allow_anonymous", "false")
            .set("broker.listen_tls", &self.tls.to_string())
            .set("broker.listen_ws", &self.ws.to_string())
            .set("broker.listen_wss", &self.wss.to_string())
            .set("broker.tls_cert", &cert.display().to_string())
            .set("broker.tls_key", &key.display().to_string())
            .set("broker.client_ca", &client_ca.display().to_string())
    }

    /// The same engine, whose HTTP port is encrypted as well.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn settings_over_https(&self, settings: Settings) -> Settings {
        let (cert, key) = self.server_ca.server().write(self.directory.path());
        self.settings(settings)
            .set("http.tls_cert", &cert.display().to_string())
            .set("http.tls_key", &key.display().to_string())
    }

    /// The file of the authority that vouches for the engine.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("servers.pem")
    }

    /// The files of a new certificate of a device, and its key.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn device_files(&self, tenant: &str, device: &str) -> (PathBuf, PathBuf) {
        let own = self.directory.path().join(device);
        std::fs::create_dir_all(&own).expect("a directory can be made");
        self.device_ca.device(device, Some(tenant)).write(&own)
    }
}
