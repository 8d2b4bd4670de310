//! A real Mosquitto as the external broker.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::PATIENCE;

/// A broker process; it dies with the test.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    child: Child,
}

impl Mosquitto {
    /// Starts a broker that allows everybody everything and keeps sessions over a restart.
    pub(crate) async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             persistence true\nautosave_on_changes true\nautosave_interval 1\npersistence_location {}/\nuser root\n",
            directory.path().display()
        );
        std::fs::write(directory.path().join("mosquitto.conf"), config).unwrap();
        let child = spawn(directory.path());
        let broker = Self { port, directory, child };
        broker.listening().await;
        broker
    }

    /// Stops the broker the way an init system does.
    pub(crate) async fn stop(&mut self) {
        let id = self.child.id().expect("a running broker").to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        self.child.wait().await.unwrap();
    }

    /// Makes the stopped broker forget its sessions.
    pub(crate) fn forget(&self) {
        std::fs::remove_file(self.directory.path().join("mosquitto.db"))
            .expect("a broker that saved its sessions");
    }

    /// Starts the stopped broker again, on the same port.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(self.directory.path());
        self.listening().await;
    }

    async fn listening(&self) {
        let connected = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.expect("mosquitto listens");
    }
}

fn spawn(directory: &Path) -> Child {
    let installed = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = installed.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mosquitto");
    Command::new(program)
        .arg("-c")
        .arg(directory.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto is installed")
}
