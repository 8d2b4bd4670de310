//! A real Mosquitto as the external broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::PATIENCE;

/// A broker process; it dies with the test.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    directory: tempfile::TempDir,
    child: Child,
}

impl Mosquitto {
    /// Starts a broker that allows everybody everything and keeps sessions over a restart.
    pub(crate) async fn start() -> Self {
        let address = own_address();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "listener {} {}\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             persistence true\nautosave_on_changes true\nautosave_interval 1\npersistence_location {}/\nuser root\n",
            address.port(),
            address.ip(),
            directory.path().display()
        );
        std::fs::write(directory.path().join("mosquitto.conf"), config).unwrap();
        let child = spawn(directory.path());
        let broker = Self { address, directory, child };
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
            while TcpStream::connect(self.address).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.expect("mosquitto listens");
    }
}

/// An address of this process alone: nobody takes the port while the broker is away.
fn own_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // A process id has 22 bits at most.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = 1883 + GIVEN.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, high | 0x40, middle, low), port))
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
