//! A real Mosquitto as the external broker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
    directory: TempDir,
    child: Child,
}

impl Mosquitto {
    /// Starts a broker that allows everybody everything and keeps sessions and queues.
    ///
    /// # Panics
    /// When Mosquitto is not installed.
    pub async fn start() -> Self {
        Self::start_with(free_address(), "allow_anonymous true").await
    }

    /// Starts a broker on this address with more to say about its listener.
    ///
    /// # Panics
    /// When Mosquitto is not installed.
    pub async fn start_with(address: SocketAddr, lines: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let config = format!(
            "listener {} 127.0.0.1\n{lines}\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
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
        Self { address, directory, child }
    }

    /// The file with its process id.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        let path = self.directory.path().join("pid");
        let pid = self.child.id().expect("it runs").to_string();
        std::fs::write(&path, pid).expect("a file can be written");
        path
    }
}

fn program() -> &'static str {
    let installed = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    installed.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mosquitto")
}
