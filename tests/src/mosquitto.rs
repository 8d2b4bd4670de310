//! A real Mosquitto as the external broker.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::settings::free_address;
use crate::wait::until;

/// A broker process; it dies with the test.
pub struct Mosquitto {
    /// Where devices and the engine connect.
    pub address: SocketAddr,
    _directory: TempDir,
    _child: Child,
}

impl Mosquitto {
    /// Starts a broker that allows everybody everything and keeps sessions and queues.
    ///
    /// # Panics
    /// When Mosquitto is not installed.
    pub async fn start() -> Self {
        let address = free_address();
        let directory = tempfile::tempdir().expect("a directory can be made");
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             persistence true\npersistence_location {}/\nuser root\n",
            address.port(),
            directory.path().display()
        );
        let file = directory.path().join("mosquitto.conf");
        std::fs::write(&file, config).expect("the configuration can be written");
        let child = Command::new(program())
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed");
        until("mosquitto listens", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, _directory: directory, _child: child }
    }
}

fn program() -> &'static str {
    let installed = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    installed.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mosquitto")
}
